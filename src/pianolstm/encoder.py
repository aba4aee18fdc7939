"""The encoder: MIDI to piano rolls and back, and what of a piece it keeps.

Conventions
-----------
Times are rounded to the nearest frame, halves up.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from sklearn.base import BaseEstimator, TransformerMixin

from pianolstm import midi
from pianolstm.checks import check_bool, plain
from pianolstm.exceptions import DataLossWarning, InvalidInputError, MidiError
from pianolstm.midi import Drums, MidiSource, Notes
from pianolstm.rolls import DEFAULT_FS, MAX_FRAMES, NOTE, Grid, PianoRoll, as_rolls, check_fs

if TYPE_CHECKING:
    import pretty_midi

MAX_REASONS = 3
"""Files whose reasons a warning shows; attributes have all."""


class PianoRollEncoder(TransformerMixin, BaseEstimator):
    """Turn MIDI files into piano rolls, and back.

    Parameters
    ----------
    fs : float, default=20
        Frames per second; on the grid of beats a whole number of frames per quarter note.
    grid : {"seconds", "beats"}, default="seconds"
        What the frames divide. On ``"beats"`` the piece's tempo map stays on the roll.
    pedal : bool, default=False
        Whether the sustain pedal holds notes, as `read_notes` says; False gives keys as held.
    tracks : sequence of int, default=None
        Tracks to read, as `describe_midi` numbers them; None reads all but drums.
    programs : sequence of int, default=None
        General MIDI programs to read, 0-127 (0 to 7 are pianos); None reads all.
    pitch_range : tuple of int, default=None
        Lowest and highest pitch to read, both included: (21, 108) are the keys of a piano, and
        leave out key switches and noise. None reads all.
    drums : {"channel", "program"} or None, default="channel"
        What counts as drums and is left out, as `read_notes` says; None reads all as notes.
    trailing_silence : bool, default=False
        Whether a piece lasts to the end of its tracks, as `read_notes` says, instead of its last
        release. A rest at the end that `inverse_transform` wrote is always kept.
    on_error : {"raise", "skip", "repair"}, default="raise"
        Whether a file that can't be read ends the call; or is left out, `skipped_` telling why; or
        is read as far as it is certain, `repaired_` telling what was lost, and left out only where
        nothing is. One `DataLossWarning` counts them.
    max_seconds : float, default=14400
        Longest piece to take, in seconds; a longer one is an error. None sets no limit.
    max_frames : int, default=4000000
        Most frames to take, likewise.
    max_notes : int, default=1000000
        Most notes to take, likewise.

    Attributes
    ----------
    skipped_ : list of (int, MidiError)
        After `transform`, unless ``on_error="raise"``: index in X and reason of each file left out.
    repaired_ : list of (int, str)
        After `transform` with ``on_error="repair"``: index in X of each broken file, and what of it
        was lost.

    Examples
    --------
    >>> import pianolstm as pl
    >>> roll = pl.PianoRoll.from_notes([0, 10], [10, 30], [60, 67], fs=20)
    >>> encoder = pl.PianoRollEncoder(fs=20)
    >>> midi = encoder.inverse_transform([roll])
    >>> encoder.transform(midi) == [roll]
    True
    """

    def __init__(
        self,
        *,
        fs: float = DEFAULT_FS,
        grid: Grid = "seconds",
        pedal: bool = False,
        tracks: Sequence[int] | None = None,
        programs: Sequence[int] | None = None,
        pitch_range: tuple[int, int] | None = None,
        drums: Drums | None = "channel",
        trailing_silence: bool = False,
        on_error: Literal["raise", "skip", "repair"] = "raise",
        max_seconds: float | None = 14_400,
        max_frames: int | None = 4_000_000,
        max_notes: int | None = 1_000_000,
    ) -> None:
        self.fs = fs
        self.grid: Grid = grid
        self.pedal = pedal
        self.tracks = tracks
        self.programs = programs
        self.pitch_range = pitch_range
        self.drums: Drums | None = drums
        self.trailing_silence = trailing_silence
        self.on_error = on_error
        self.max_seconds = max_seconds
        self.max_frames = max_frames
        self.max_notes = max_notes

    def fit(self, X: Any = None, y: Any = None) -> PianoRollEncoder:
        """Check the parameters; there is nothing to learn.

        Parameters
        ----------
        X, y : ignored

        Returns
        -------
        PianoRollEncoder
            Itself.
        """
        self._check()
        return self

    def transform(self, X: Sequence[MidiSource]) -> list[PianoRoll]:
        """Read MIDI files.

        Parameters
        ----------
        X : list of path, bytes, binary file or PrettyMIDI
            One entry a piece.

        Returns
        -------
        list of PianoRoll
            One roll a piece; unless ``on_error="raise"``, one for each that could be read.

        Raises
        ------
        MidiError
            If a file can't be read and ``on_error="raise"``, or if none could be read.
        InvalidInputError
            If X is no list, or empty.
        """
        self._check()
        sources = self._sources(X)
        rolls: list[PianoRoll] = []
        self.skipped_: list[tuple[int, MidiError]] = []
        self.repaired_: list[tuple[int, str]] = []
        for i, source in enumerate(sources):
            try:
                roll, losses = self.read(source)
                rolls.append(roll)
            except MidiError as error:
                if self.on_error == "raise":
                    raise
                self.skipped_.append((i, error))
            else:
                if losses:
                    lost = f"{midi.name_of(source)}: {'; '.join(losses)}"
                    self.repaired_.append((i, lost))
        if not rolls:
            raise MidiError(
                f"None of the {len(sources)} files could be read; the first error: "
                f"{self.skipped_[0][1]}"
            )
        if self.skipped_ or self.repaired_:
            reasons = [str(error) for _, error in self.skipped_]
            reasons += [lost for _, lost in self.repaired_]
            warnings.warn(
                data_loss(len(sources), len(self.skipped_), len(self.repaired_), reasons),
                DataLossWarning,
                stacklevel=3,  # scikit-learn wraps transform
            )
        return rolls

    def inverse_transform(
        self, X: Sequence[PianoRoll], *, tempo: float | None = None
    ) -> list[pretty_midi.PrettyMIDI]:
        """Turn rolls into `pretty_midi.PrettyMIDI` objects that `transform` reads back exactly.

        Parameters
        ----------
        X : list of PianoRoll or array-like of shape (n_frames, 128)
            Rolls of this encoder's `fs` and `grid`.
        tempo : float, default=None
            On the grid of beats, quarter notes a minute throughout; None plays each roll's own
            tempi.

        Returns
        -------
        list of pretty_midi.PrettyMIDI
        """
        self._check()
        return [roll.to_midi(tempo=tempo) for roll in as_rolls(X, fs=self.fs, grid=self.grid)]

    def fidelity(
        self, X: Sequence[MidiSource], *, tolerance: float = 0.05
    ) -> dict[str, np.ndarray]:
        """What this encoding keeps of each piece, as the study's first experiment asks.

        The notes of a file are held against those of its roll, at the times at which the roll
        plays them. Two notes of one pitch match if their onsets differ by no more than the
        tolerance; each matches one other at the most, and as many match as can.

        Parameters
        ----------
        X : list of path, bytes, binary file or PrettyMIDI
            One entry a piece.
        tolerance : float, default=0.05
            Seconds; 50 ms is customary for onsets (Raffel et al. 2014).

        Returns
        -------
        dict of str to ndarray of float64, shape (n_pieces,)
            ``notes``: how many the file has. ``recall``: share of them that match, and
            ``precision``: share of the roll's notes that do. ``onset_ms``, ``offset_ms`` and
            ``velocity``: mean absolute errors of the matches. ``struck_again``: how many notes
            begin less than a frame after one of their pitch ends, and ``struck_again_kept``: share
            of these that match. NaN where there is nothing to take a mean of.

        Examples
        --------
        >>> import pianolstm as pl
        >>> roll = pl.PianoRoll.from_notes([0, 10, 20], [10, 19, 30], [60, 60, 60], fs=20)
        >>> kept = pl.PianoRollEncoder(fs=20).fidelity([roll.to_midi()])
        >>> kept["recall"].tolist(), kept["struck_again"].tolist()
        ([1.0], [1.0])
        """
        self._check()
        if not isinstance(tolerance, (int, float)) or not 0 < tolerance < np.inf:
            raise InvalidInputError(f"tolerance must be a number of seconds; got {tolerance!r}.")
        rows = []
        for source in self._sources(X):
            notes, _ = self._read_notes(source)
            rows.append(_fidelity(notes, self._quantise(source, notes), float(tolerance)))
        return {name: np.array([row[name] for row in rows], np.float64) for name in rows[0]}

    def _sources(self, X: Sequence[MidiSource]) -> list[Any]:
        if midi.is_midi(X) or isinstance(X, PianoRoll) or not hasattr(X, "__iter__"):
            raise InvalidInputError(
                f"Expected a list with one entry a piece, got one {type(X).__name__}; wrap it in "
                "a list: [...]."
            )
        sources: list[Any] = list(X)  # pyright: ignore[reportArgumentType]
        if not sources:
            raise InvalidInputError("Expected at least one MIDI file, got an empty list.")
        return sources

    def read(self, source: MidiSource) -> tuple[PianoRoll, list[str]]:
        """Read one piece.

        Parameters
        ----------
        source : path, bytes, binary file or PrettyMIDI

        Returns
        -------
        roll : PianoRoll
        losses : list of str
            What of a broken file was lost; with ``on_error="repair"`` alone.

        Raises
        ------
        MidiError
            If it can't be read, whatever `on_error` is.
        """
        notes, losses = self._read_notes(source)
        try:
            return self._quantise(source, notes), losses
        except InvalidInputError as error:
            raise MidiError(f"{midi.name_of(source)}: {error}") from None

    def _read_notes(self, source: MidiSource) -> tuple[Notes, list[str]]:
        """Notes of a file, and what of it was lost."""
        notes, losses = midi.read_with_losses(
            source,
            tracks=self.tracks,
            programs=self.programs,
            pedal=plain(self.pedal),
            pitch_range=self.pitch_range,
            drums=self.drums,
            trailing_silence=plain(self.trailing_silence),
            repair=self.on_error == "repair",
        )
        for name, value, limit in (
            ("max_seconds", notes.seconds, self.max_seconds),
            ("max_notes", len(notes), self.max_notes),
        ):
            self._check_limit(source, name, value, plain(limit))
        return notes, losses

    def _quantise(self, source: MidiSource, notes: Notes) -> PianoRoll:
        fs = plain(self.fs)
        times = [notes.start, notes.end, np.array([notes.seconds])]
        tempo_map = None
        if self.grid == "beats":
            tempo_map = notes.tempo_map
            frames_per_tick = fs / tempo_map.ticks_per_quarter
            times = [tempo_map.to_ticks(t) * frames_per_tick for t in times]
        else:
            times = [t * fs for t in times]
        # Halves go up; what float arithmetic takes off a half must not turn it down.
        start, end, (n_frames,) = (np.floor(t + (0.5 + 1e-6)) for t in times)
        n_frames = max(n_frames, float(np.maximum(end, start + 1).max()))
        limit = MAX_FRAMES if self.max_frames is None else min(plain(self.max_frames), MAX_FRAMES)
        self._check_limit(source, "max_frames", n_frames, limit)
        table = np.zeros(len(notes), NOTE)
        table["start"], table["end"] = start, end
        table["pitch"], table["velocity"] = notes.pitch, notes.velocity
        return PianoRoll(table, int(n_frames), fs, self.grid, tempo_map)

    def _check_limit(
        self, source: MidiSource, name: str, value: float, limit: float | None
    ) -> None:
        if limit is not None and value > limit:
            raise MidiError(
                f"{midi.name_of(source)}: {value:,.10g} {name[4:]} are over the limit "
                f"{name}={limit:,}; raise {name}, or leave the file out."
            )

    def _check(self) -> None:
        check_fs(plain(self.fs), self.grid)
        if self.on_error not in ("raise", "skip", "repair"):
            raise InvalidInputError(
                f'on_error must be "raise", "skip" or "repair"; got {self.on_error!r}.'
            )
        check_bool("pedal", self.pedal)
        check_bool("trailing_silence", self.trailing_silence)
        midi.check_choice_of_notes(self.tracks, self.programs, self.pitch_range, self.drums)
        for name in ("max_seconds", "max_frames", "max_notes"):
            limit = plain(getattr(self, name))
            if limit is not None and not isinstance(limit, (int, float, np.integer, np.floating)):
                raise InvalidInputError(f"{name} must be a number or None; got {limit!r}.")

    def __sklearn_is_fitted__(self) -> bool:
        return True


def read_files(X: Any, fs: float, grid: Grid) -> Any:
    """The list with MIDI files, and other programs' objects, read on this grid; else as it is."""
    if not isinstance(X, (list, tuple)) or not any(map(midi.is_midi, X)):
        return X
    encoder = PianoRollEncoder(fs=fs, grid=grid)
    return [encoder.read(entry)[0] if midi.is_midi(entry) else entry for entry in X]


def data_loss(n_files: int, n_skipped: int, n_repaired: int, reasons: Sequence[str]) -> str:
    """What a `DataLossWarning` says of files that could not be read, or not whole."""
    told = []
    if n_skipped:
        told.append(
            f"{n_skipped} of {n_files} files could not be read and were left out (see skipped_)"
        )
    if n_repaired:
        told.append(f"{n_repaired} of {n_files} files were read in part (see repaired_)")
    shown = "; ".join(reasons[:MAX_REASONS])
    more = len(reasons) - MAX_REASONS
    return f"{', '.join(told)}: {shown}" + (f"; and {more} more." if more > 0 else "")


def _fidelity(notes: Notes, roll: PianoRoll, tolerance: float) -> dict[str, float]:
    """What a roll keeps of the notes that it was made from; see `PianoRollEncoder.fidelity`."""
    kept = roll.notes
    start, end = roll.frames_to_seconds(kept["start"]), roll.frames_to_seconds(kept["end"])
    first, second = _match(notes.start, notes.pitch, start, kept["pitch"], tolerance)
    is_kept = np.zeros(len(notes), bool)
    is_kept[first] = True
    # In frames, where one frame is one, on either grid.
    onset, release = notes.start * roll.fs, notes.end * roll.fs
    if roll.tempo_map is not None:
        tempo_map = notes.tempo_map
        scale = roll.fs / tempo_map.ticks_per_quarter
        onset, release = (tempo_map.to_ticks(t) * scale for t in (notes.start, notes.end))
    order = np.lexsort((onset, notes.pitch))
    same = notes.pitch[order[1:]] == notes.pitch[order[:-1]]
    # What float arithmetic takes off a whole frame must not make it less than one.
    again = order[1:][same & (onset[order[1:]] - release[order[:-1]] < 1 - 1e-6)]

    def mean(values: np.ndarray) -> float:
        return float(np.mean(values)) if len(values) else float("nan")

    return {
        "notes": len(notes),
        "recall": len(first) / len(notes),
        "precision": len(first) / len(kept),
        "onset_ms": 1000 * mean(np.abs(notes.start[first] - start[second])),
        "offset_ms": 1000 * mean(np.abs(notes.end[first] - end[second])),
        "velocity": mean(np.abs(notes.velocity[first].astype(float) - kept["velocity"][second])),
        "struck_again": len(again),
        "struck_again_kept": mean(is_kept[again]),
    }


def _match(
    onset: np.ndarray,
    pitch: np.ndarray,
    other_onset: np.ndarray,
    other_pitch: np.ndarray,
    by: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Indices of notes that match, as many as can be: same pitch, onsets at most `by` apart.

    On a line the earliest that can still match should: pitch by pitch, both lists in order of
    time, the note that is too early for the other's next is passed over.
    """
    first, second = (np.lexsort((t, p)) for t, p in ((onset, pitch), (other_onset, other_pitch)))
    by += 1e-6  # for the rounding of the times
    # One number a note: the pitches lie so far apart that none reaches into another.
    apart = 4 * by + 2 * max(onset.max(initial=0), other_onset.max(initial=0))
    a = (onset + pitch * apart)[first].tolist()
    b = (other_onset + other_pitch * apart)[second].tolist()
    i = j = 0
    pairs = []
    while i < len(a) and j < len(b):
        if a[i] - b[j] > by:
            j += 1
        elif b[j] - a[i] > by:
            i += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    at = np.array(pairs, np.int64).reshape(-1, 2)
    return first[at[:, 0]], second[at[:, 1]]
