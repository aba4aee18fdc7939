"""A corpus of tokens on disk, for more music than memory holds.

A store is a folder:

    settings.json    the encoder's parameters
    tokens.bin       int32, the pieces one after another; little-endian, as all of it
    chords.bin       4 x uint64 each, the table that the tokens index; row 0 is the rest
    pieces.jsonl     one line a piece: source, first token, frames, chords known so far, tempo map

    writer.lock      locked by the process that writes, which is one at a time

A piece counts once its line is whole, and the line is written last. What a kill leaves behind the
last whole line is cut off by the next `TokenStore.write`. A line goes on where the one before it
ended; one that doesn't is of two writers of releases without the lock, who spoiled the store.
"""

from __future__ import annotations

import itertools
import json
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np

from pianolstm.checks import plain_params
from pianolstm.chords import N_WORDS, chord_keys, unkeyed
from pianolstm.encoder import PianoRollEncoder, data_loss
from pianolstm.exceptions import DataLossWarning, InvalidInputError, MidiError, StoreError
from pianolstm.rolls import PianoRoll
from pianolstm.tempo import TempoMap
from pianolstm.tokens import ChordSequence, TokenCorpus, chord_runs, decode

FORMAT_VERSION = 1

NEW_SETTINGS = "settings.json.new"
SETTINGS, TOKENS, CHORDS, PIECES = "settings.json", "tokens.bin", "chords.bin", "pieces.jsonl"
LOCK = "writer.lock"


class TokenStore(TokenCorpus):
    """A folder of tokenised pieces, opened as memory-mapped arrays.

    Goes wherever a list of rolls goes: into `SequenceGenerator`, `ChordTokenizer`,
    `NgramBaseline` and `WindowDataset`. What is read of it is read when it is needed. Velocities
    are not kept: tokens don't carry them.

    Parameters
    ----------
    path : path
        The folder. One that is there is opened; else `write` makes it.
    encoder : PianoRollEncoder, default=None
        How to read MIDI files. None is the store's own, or ``PianoRollEncoder()`` for a new one.

    Attributes
    ----------
    tokens : list of memory-mapped ndarray of int32, shape (n_frames,)
        One entry a piece; ids are rows of `chords`, not those of any tokenizer.
    chords : memory-mapped ndarray of uint64, shape (n_chords, 4)
        Bits of each id.
    fs, grid : float, str
        Grid of the frames.
    tempo_maps : list of TempoMap or None
        One entry a piece; None on the grid of seconds.
    sources : list of str
        Where each piece was read from: whole paths, links followed.
    skipped_ : list of (str, MidiError)
        What the last `write` left out, and why.
    repaired_ : list of (str, str)
        What the last `write` read in part, and what was lost; with an encoder that repairs.

    Raises
    ------
    InvalidInputError
        If the folder is something else, or the store was made with another encoder.
    StoreError
        If two writers have spoiled the store, which releases before the lock allowed.

    Examples
    --------
    >>> import tempfile, pianolstm as pl
    >>> folder = tempfile.TemporaryDirectory()
    >>> paths = [f"{folder.name}/{i}.mid" for i in range(2)]
    >>> for path, roll in zip(paths, pl.datasets.load_chorales("train")):
    ...     roll.to_midi().write(path)
    >>> store = pl.TokenStore(f"{folder.name}/tokens", encoder=pl.PianoRollEncoder(fs=8))
    >>> store.write(paths)
    <TokenStore 2 pieces, 384 frames, 144 chords, fs=8>
    >>> pl.WindowDataset(store, window_size=32)[0][0][:6]
    array([43, 43, 56, 56, 56, 34], dtype=int32)
    >>> folder.cleanup()
    """

    def __init__(
        self, path: str | PathLike[str], *, encoder: PianoRollEncoder | None = None
    ) -> None:
        self.path = Path(path)
        self.skipped_: list[tuple[str, MidiError]] = []
        self.repaired_: list[tuple[str, str]] = []
        self.encoder = self._encoder(encoder)
        self.encoder.fit()
        self._open()

    def write(self, sources: Iterable[str | PathLike[str]], *, verbose: int = 0) -> TokenStore:
        """Add MIDI files; those that the store has already are passed over.

        After a kill or Ctrl-C, the same call goes on where it was. A file that can't be read is
        left out, and tried again by the next call; one `DataLossWarning` counts them. One process
        at a time writes; where nothing is new, nothing is written.

        Parameters
        ----------
        sources : iterable of path
            MIDI files. The store knows them by their whole paths, links followed.
        verbose : int, default=0
            1 shows a progress bar.

        Returns
        -------
        TokenStore
            Itself.

        Raises
        ------
        StoreError
            If another process is writing the store.
        InvalidInputError
            If another process has made the store since, with another encoder.
        """
        if isinstance(sources, (str, bytes, PathLike)):
            raise InvalidInputError("Expected a list of paths, got one; wrap it in a list: [...].")
        names = list(dict.fromkeys(_name(source) for source in sources))
        self.skipped_, self.repaired_ = [], []
        if (self.path / SETTINGS).is_file() and not self._waiting(names):
            return self
        with self._lock():
            self._begin()
            self._add(self._waiting(names), verbose=verbose)
        self._open()
        if self.skipped_ or self.repaired_:
            reasons = [str(error) for _, error in self.skipped_]
            reasons += [f"{name}: {lost}" for name, lost in self.repaired_]
            warnings.warn(
                data_loss(len(names), len(self.skipped_), len(self.repaired_), reasons),
                DataLossWarning,
                stacklevel=2,
            )
        return self

    def _waiting(self, names: list[str]) -> list[str]:
        """Those that the store has not."""
        known = {os.path.realpath(source) for source in self.sources}
        return [name for name in names if name not in known]

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """Be the one that writes; the operating system ends the lock with its process."""
        from filelock import FileLock, Timeout

        self.path.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.path / LOCK, timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"{self.path} is being written by another process, and one at a time can write. "
                "Try again when it has ended, or write to a folder of your own."
            ) from None
        try:
            yield
        finally:
            lock.release()

    def _add(self, waiting: list[str], *, verbose: int) -> None:
        """Write pieces."""
        from tqdm import tqdm

        on_error = "repair" if self.encoder.on_error == "repair" else "raise"
        encoder = PianoRollEncoder(**{**self.encoder.get_params(), "on_error": on_error})
        keys = chord_keys(np.asarray(self.chords))
        order = np.argsort(keys)
        keys, n_frames = keys[order], self._n_frames
        with (
            open(self.path / TOKENS, "ab") as tokens_file,
            open(self.path / CHORDS, "ab") as chords_file,
            open(self.path / PIECES, "a", encoding="utf-8") as pieces_file,
        ):
            for name in tqdm(waiting, disable=not verbose, unit="piece"):
                try:
                    roll, lost = encoder.read(name)
                except MidiError as error:
                    self.skipped_.append((name, error))
                    continue
                if lost:
                    self.repaired_.append((name, "; ".join(lost)))
                starts, chords = chord_runs(roll)
                own, inverse = np.unique(chord_keys(chords), return_inverse=True)
                at = np.searchsorted(keys, own)
                new = keys[np.minimum(at, len(keys) - 1)] != own
                ids = order[np.minimum(at, len(keys) - 1)]
                ids[new] = len(keys) + np.arange(new.sum())
                keys = np.insert(keys, at[new], own[new])
                order = np.insert(order, at[new], ids[new])
                tokens = np.repeat(ids[inverse], np.diff(starts, append=len(roll))).astype("<i4")
                tokens_file.write(tokens.tobytes())
                chords_file.write(unkeyed(own[new]).astype("<u8").tobytes())
                # The line is the promise that the rest is there.
                for file in (tokens_file, chords_file):
                    file.flush()
                line = {
                    "source": name,
                    "first": n_frames,
                    "frames": len(roll),
                    "chords": len(keys),
                    "tempo": _tempo_record(roll.tempo_map),
                }
                pieces_file.write(json.dumps(line) + "\n")
                pieces_file.flush()
                n_frames += len(roll)
            for file in (tokens_file, chords_file, pieces_file):
                os.fsync(file.fileno())

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> PianoRoll:
        """One piece as a roll, velocities 64."""
        tokens = self.tokens[index]
        used, tokens = np.unique(tokens, return_inverse=True)
        sequence = ChordSequence(
            tokens.astype(np.int32), fs=self.fs, grid=self.grid, tempo_map=self.tempo_maps[index]
        )
        return decode(self.chords[used], sequence)

    def __repr__(self) -> str:
        unit = "" if self.grid == "seconds" else " per quarter note"
        return (
            f"<TokenStore {len(self)} pieces, {self._n_frames:,} frames, {len(self.chords):,} "
            f"chords, fs={self.fs}{unit}>"
        )

    def _encoder(self, encoder: PianoRollEncoder | None) -> PianoRollEncoder:
        """The store's own encoder, or that of a store to be made."""
        # Looked at first: another process may be making the store, and writes the settings last.
        is_new = not self.path.exists() or self._is_new()
        if (self.path / SETTINGS).is_file():
            own = self._read_settings()
            if encoder is not None and _encoding(encoder) != _encoding(own):
                raise InvalidInputError(
                    f"{self.path} was written with {own!r}; got {encoder!r}. Leave encoder out, or "
                    "choose another folder."
                )
            return encoder or own
        if not is_new:
            raise InvalidInputError(
                f"{self.path} holds something else; expected a TokenStore or a new, empty folder."
            )
        return PianoRollEncoder() if encoder is None else encoder

    def _is_new(self) -> bool:
        """Whether there is an empty folder, or one that a kill left without its settings."""
        own = {NEW_SETTINGS, TOKENS, CHORDS, PIECES, LOCK}
        return self.path.is_dir() and {p.name for p in self.path.iterdir()} <= own

    def _read_settings(self) -> PianoRollEncoder:
        path = self.path / SETTINGS
        try:
            settings = json.loads(path.read_text(encoding="utf-8"))
            version = settings["format_version"]
            encoder = PianoRollEncoder(**settings["encoder"])
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{path}: expected the settings of a TokenStore; they can't be read ({error})."
            ) from None
        if version != FORMAT_VERSION:
            raise InvalidInputError(
                f"{path} has format version {version}, this release of pianolstm reads version "
                f"{FORMAT_VERSION}; write the store anew."
            )
        return encoder

    def _begin(self) -> None:
        """Make the store, or cut off what an earlier call did not finish."""
        self._encoder(self.encoder)  # another process may have made it since
        if not (self.path / SETTINGS).is_file():
            (self.path / CHORDS).write_bytes(bytes(8 * N_WORDS))  # the rest
            for name in (TOKENS, PIECES):
                (self.path / name).write_bytes(b"")
            settings = {"format_version": FORMAT_VERSION, "encoder": _parameters(self.encoder)}
            temporary = self.path / NEW_SETTINGS
            temporary.write_text(json.dumps(settings, indent=1), encoding="utf-8")
            temporary.replace(self.path / SETTINGS)
        self._open()
        for name in (TOKENS, CHORDS, PIECES):
            (self.path / name).touch()  # should one be gone
        os.truncate(self.path / TOKENS, 4 * self._n_frames)
        os.truncate(self.path / CHORDS, 8 * N_WORDS * len(self.chords))
        os.truncate(self.path / PIECES, self._n_bytes)

    def _open(self) -> None:
        """Map what whole lines promise and the files hold."""
        self.fs = self.encoder.fs
        self.grid = self.encoder.grid
        self.sources: list[str] = []
        self.tempo_maps = []
        ends, n_chords, self._n_bytes = [0], 1, 0
        if (self.path / SETTINGS).is_file():
            held = _size(self.path / TOKENS) // 4
            held_chords = _size(self.path / CHORDS) // (8 * N_WORDS)
            for line in self._lines():
                try:
                    piece = json.loads(line)
                    first, n = piece["first"], piece["chords"]
                    end = first + piece["frames"]
                    tempo_map = _tempo_map(piece["tempo"])
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n"):
                    break
                if first != ends[-1] or n < n_chords:
                    raise StoreError(
                        f"{self.path} was spoiled by two processes that wrote it at once: piece "
                        f"{len(self.sources)} begins at frame {first:,}, the one before it ends at "
                        f"{ends[-1]:,}. Write the store anew, in another folder."
                    )
                if end > held or n > held_chords:
                    break
                self.sources.append(piece["source"])
                self.tempo_maps.append(tempo_map)
                ends.append(end)
                n_chords = n
                self._n_bytes += len(line)
        self._n_frames = ends[-1]
        tokens = _mapped(self.path / TOKENS, "<i4", (self._n_frames,))
        self.tokens = [tokens[a:b] for a, b in itertools.pairwise(ends)]
        self.chords = _mapped(self.path / CHORDS, "<u8", (n_chords, N_WORDS))

    def _lines(self) -> list[bytes]:
        """Lines of the pieces; the last may be torn by a kill."""
        path = self.path / PIECES
        return path.read_bytes().splitlines(keepends=True) if path.is_file() else []


def _mapped(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """A file as a read-only array; what an empty store has yet to write is zeros."""
    if shape[0] == 0 or _size(path) == 0:
        return np.zeros(shape, dtype)
    return np.asarray(np.memmap(path, dtype, "r", shape=shape))


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _name(source: Any) -> str:
    if not isinstance(source, (str, PathLike)):
        raise InvalidInputError(
            f"Expected paths of MIDI files, by which the store knows what it has; got "
            f"{type(source).__name__}."
        )
    try:
        return os.path.realpath(fspath(source))
    except ValueError as error:
        raise InvalidInputError(f"{source!r} can't be the path of a file: {error}.") from None


def _parameters(encoder: PianoRollEncoder) -> dict[str, Any]:
    """Parameters of an encoder as JSON holds them."""
    return {**plain_params(encoder), **_encoding(encoder)}


def _encoding(encoder: PianoRollEncoder) -> dict[str, Any]:
    """The parameters that make the tokens what they are."""
    numbers = {
        name: None if value is None else sorted(map(int, value))
        for name, value in (("tracks", encoder.tracks), ("programs", encoder.programs))
    }
    return {
        "fs": int(encoder.fs) if encoder.fs == int(encoder.fs) else float(encoder.fs),
        "grid": encoder.grid,
        "pedal": bool(encoder.pedal),
        "pitch_range": None if encoder.pitch_range is None else [*map(int, encoder.pitch_range)],
        "drums": encoder.drums,
        "trailing_silence": bool(encoder.trailing_silence),
        **numbers,
    }


def _tempo_record(tempo_map: TempoMap | None) -> list[Any] | None:
    if tempo_map is None:
        return None
    return [
        tempo_map.ticks_per_quarter,
        tempo_map.ticks.tolist(),
        tempo_map.microseconds.tolist(),
    ]


def _tempo_map(record: list[Any] | None) -> TempoMap | None:
    return None if record is None else TempoMap(record[1], record[2], record[0])
