"""Music to learn from: Bach's chorales, which come with the library, and one's own folder."""

from __future__ import annotations

from importlib.resources import files
from os import PathLike
from pathlib import Path
from typing import Literal

import numpy as np

from pianolstm.encoder import PianoRollEncoder
from pianolstm.exceptions import InvalidInputError, MidiError
from pianolstm.rolls import PianoRoll
from pianolstm.tempo import TempoMap

__all__ = ["Folder", "load_chorales", "load_folder"]

SPLITS = ("train", "validation", "test")
MIDI_SUFFIXES = (".mid", ".midi", ".rmi", ".kar")


class Folder(list[PianoRoll]):
    """The rolls of a folder: a list, which also tells where each came from.

    Attributes
    ----------
    paths : list of Path
        The file of each roll.
    skipped : list of (Path, MidiError)
        Files that were left out, and why.
    repaired : list of (Path, str)
        Files that were read in part, and what was lost.
    """

    def __init__(self, rolls: list[PianoRoll], paths: list[Path]) -> None:
        super().__init__(rolls)
        self.paths = paths
        self.skipped: list[tuple[Path, MidiError]] = []
        self.repaired: list[tuple[Path, str]] = []


def load_chorales(
    split: Literal["train", "validation", "test", "all"] = "all",
) -> list[PianoRoll]:
    """Bach's four-part chorales on the grid of beats: four frames a quarter note, a constant tempo.

    The pieces were taken from the corpus of the package music21 (pitches and durations only; see
    ``data/PROVENANCE.md`` in the package). The split is fixed, and different settings of one
    melody are in one part.

    Parameters
    ----------
    split : {"train", "validation", "test", "all"}, default="all"
        Which part.

    Returns
    -------
    list of PianoRoll
        In the order of their names.

    Raises
    ------
    InvalidInputError
        If there is no such split.

    Examples
    --------
    >>> import pianolstm as pl
    >>> rolls = pl.datasets.load_chorales("train")
    >>> rolls[0].fs, rolls[0].grid
    (4, 'beats')
    """
    if split != "all" and split not in SPLITS:
        raise InvalidInputError(f'split must be one of {SPLITS} or "all"; got {split!r}.')
    with (
        (files("pianolstm") / "data" / "chorales.npz").open("rb") as file,
        np.load(file, allow_pickle=False) as data,
    ):
        table = {key: data[key] for key in data.files}
    tempo_map = TempoMap.constant(int(table["microseconds_per_quarter"]))
    ends = np.cumsum(table["n_notes"])
    rolls = []
    for i, (n_notes, n_frames) in enumerate(
        zip(table["n_notes"].tolist(), table["n_frames"].tolist(), strict=True)
    ):
        if split != "all" and SPLITS[table["split"][i]] != split:
            continue
        notes = slice(int(ends[i]) - n_notes, int(ends[i]))
        start = table["start"][notes].astype(np.int64)
        rolls.append(
            PianoRoll.from_notes(
                start,
                start + table["duration"][notes],
                table["pitch"][notes],
                n_frames=n_frames,
                fs=int(table["fs"]),
                grid="beats",
                tempo_map=tempo_map,
            )
        )
    return rolls


def load_folder(path: str | PathLike[str], encoder: PianoRollEncoder | None = None) -> Folder:
    """Read all MIDI files of a folder and the folders in it, in the order of their names.

    A file that is there under several names, by links, is read once.

    Parameters
    ----------
    path : path
        The folder.
    encoder : PianoRollEncoder, default=None
        How to read; None is ``PianoRollEncoder(on_error="skip")``, which leaves broken files out
        with a warning.

    Returns
    -------
    Folder
        A list of PianoRoll, one a file; its `paths` and `skipped` tell which files they are of,
        and which were left out and why.

    Raises
    ------
    MidiError
        If there is no such folder, it holds no MIDI file, or none can be read.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise MidiError(f"{folder}: expected a folder with MIDI files; there is no such folder.")
    named = sorted(
        p for p in folder.rglob("*") if p.suffix.lower() in MIDI_SUFFIXES and p.is_file()
    )
    by_file: dict[Path, Path] = {}
    for p in named:
        by_file.setdefault(p.resolve(), p)
    paths = list(by_file.values())
    if not paths:
        raise MidiError(
            f"{folder}: expected MIDI files ({', '.join(MIDI_SUFFIXES)}); there are none."
        )
    encoder = encoder or PianoRollEncoder(on_error="skip")
    rolls = encoder.transform(paths)
    left_out = {i for i, _ in encoder.skipped_}
    found = Folder(rolls, [p for i, p in enumerate(paths) if i not in left_out])
    found.skipped = [(paths[i], error) for i, error in encoder.skipped_]
    found.repaired = [(paths[i], lost) for i, lost in encoder.repaired_]
    return found
