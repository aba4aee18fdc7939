"""What is counted of a piece: its notes, and how many sound at once.

Conventions
-----------
Times are in frames. A note that is tied at a roll's beginning was struck before it: it sounds, but
it is no onset of the roll.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pianolstm.rolls import PianoRoll


class NoteEvents(NamedTuple):
    """Notes that begin in a roll, by onset and then by pitch; from `events`.

    Attributes
    ----------
    onset : ndarray of int64, shape (n_notes,)
        Frame in which each note is struck.
    duration : ndarray of int64, shape (n_notes,)
        Length in frames, at least 1.
    pitch : ndarray of int64, shape (n_notes,)
        MIDI pitch, 0-127.
    velocity : ndarray of int64, shape (n_notes,)
        MIDI velocity, 1-127.
    """

    onset: np.ndarray
    duration: np.ndarray
    pitch: np.ndarray
    velocity: np.ndarray


def events(roll: PianoRoll) -> NoteEvents:
    """Notes that begin in a roll.

    Parameters
    ----------
    roll : PianoRoll
        The piece. Notes tied at its beginning are left out.

    Returns
    -------
    NoteEvents
        Sorted by onset, and at one onset by pitch, lowest first.

    Examples
    --------
    >>> import pianolstm as pl
    >>> from pianolstm.scoring.features import events
    >>> roll = pl.PianoRoll.from_notes([0, 0, 4], [4, 8, 9], [67, 60, 72])
    >>> found = events(roll)
    >>> found.onset.tolist(), found.duration.tolist(), found.pitch.tolist()
    ([0, 0, 4], [8, 4, 5], [60, 67, 72])
    """
    notes = roll.notes[~roll.notes["tied"]]  # already sorted by (start, pitch)
    onset = notes["start"].astype(np.int64)
    return NoteEvents(
        onset=onset,
        duration=notes["end"] - onset,
        pitch=notes["pitch"].astype(np.int64),
        velocity=notes["velocity"].astype(np.int64),
    )


def polyphony(roll: PianoRoll) -> np.ndarray:
    """How many notes sound in each frame.

    Parameters
    ----------
    roll : PianoRoll
        The piece. Notes tied at its beginning sound too.

    Returns
    -------
    ndarray of int64, shape (n_frames,)

    Examples
    --------
    >>> import pianolstm as pl
    >>> from pianolstm.scoring.features import polyphony
    >>> polyphony(pl.PianoRoll.from_notes([0, 0, 4], [2, 4, 5], [67, 60, 72])).tolist()
    [2, 2, 1, 1, 1]
    """
    size = roll.n_frames + 1
    begins = np.bincount(roll.notes["start"], minlength=size)
    ends = np.bincount(roll.notes["end"], minlength=size)
    return np.cumsum(begins - ends)[:-1]
