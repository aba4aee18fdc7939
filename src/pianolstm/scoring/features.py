"""What is counted of a piece: its notes, how they follow each other, and how it repeats itself.

Conventions
-----------
Times are in frames. A note that is tied at a roll's beginning was struck before it: it sounds, but
it is no onset of the roll. Where one note must stand for a chord that is struck, it is the highest
(the skyline, Uitdenbogerd and Zobel 1998).

Durations and inter-onset intervals are counted in classes half an octave wide, so that grids of
seconds and of beats both work: 1, 2, 3, 4-5, 6-7, 8-11, 12-15, 16-23, … frames (`DURATIONS`).

Features
--------
harmony
    ``pitch`` and ``pitch_class`` of each onset; ``chord`` (its token) and ``polyphony`` (notes that
    sound) of each frame.
velocity
    ``velocity`` of each onset.
rhythm
    ``duration`` of each note; ``inter_onset_interval``, from one time at which notes are struck to
    the next.
order
    ``melodic_interval``, from the highest note struck to the next, in semitones;
    ``melodic_interval_transition``, from one such interval to the next;
    ``pitch_class_transition``, from each pitch class struck at a time to each that is struck next;
    ``duration_transition``, from the duration of the highest note to the next one's;
    ``pitch_class_information``, how much those transitions tell (`pitch_class_information`).
form
    ``twice``, ``thrice``, ``returns`` and ``chords_per_minute``, as `repetition` measures them.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np

from pianolstm.chords import chord_pitches
from pianolstm.plotting import NOTE_NAMES
from pianolstm.rolls import PianoRoll
from pianolstm.scoring.repetition import repetition

Bag: TypeAlias = "tuple[np.ndarray, np.ndarray]"
"""Numbers of the bins that have something in them, and how much: int64 (n,), int64 (n,)."""

DURATIONS = np.unique([2**k * n // 2 for k in range(14) for n in (2, 3)])
"""Shortest duration of each class, in frames: 1, 2, 3, 4, 6, 8, 12, …; the last has no end."""

MAX_INTERVAL = 24
"""Melodic intervals of more semitones, up or down, count as this many."""

N_STEPS = 2 * MAX_INTERVAL + 1
"""Classes of melodic intervals."""

MAX_POLYPHONY = 16
"""More notes at once count as this many."""

VELOCITY_STEP = 8
"""Velocities in one class."""


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


class Feature(NamedTuple):
    """How a feature is compared and where it stands in a report.

    Attributes
    ----------
    group : {"harmony", "velocity", "rhythm", "order", "form"}
    bins : {"ordered", "circular", "unordered", "number"}
        How the bins of its distribution lie; ``"number"`` if it is one number a piece.
    n_bins : int
        How many; 0 for a number, and for chords, of which each corpus has its own.
    """

    group: str
    bins: str
    n_bins: int = 0


FEATURES: dict[str, Feature] = {
    "pitch": Feature("harmony", "ordered", 128),
    "pitch_class": Feature("harmony", "circular", 12),
    "chord": Feature("harmony", "unordered"),
    "polyphony": Feature("harmony", "ordered", MAX_POLYPHONY + 1),
    "velocity": Feature("velocity", "ordered", 128 // VELOCITY_STEP),
    "duration": Feature("rhythm", "ordered", len(DURATIONS)),
    "inter_onset_interval": Feature("rhythm", "ordered", len(DURATIONS)),
    "melodic_interval": Feature("order", "ordered", N_STEPS),
    "melodic_interval_transition": Feature("order", "unordered", N_STEPS**2),
    "pitch_class_transition": Feature("order", "unordered", 12 * 12),
    "duration_transition": Feature("order", "unordered", len(DURATIONS) ** 2),
    "pitch_class_information": Feature("order", "number"),
    "twice": Feature("form", "number"),
    "thrice": Feature("form", "number"),
    "returns": Feature("form", "number"),
    "chords_per_minute": Feature("form", "number"),
}
"""All features, in the order of reports."""


def skyline(notes: NoteEvents) -> NoteEvents:
    """The highest of the notes that are struck at each onset.

    Parameters
    ----------
    notes : NoteEvents

    Returns
    -------
    NoteEvents
        One note for each onset time.

    Examples
    --------
    >>> import pianolstm as pl
    >>> from pianolstm.scoring.features import events, skyline
    >>> roll = pl.PianoRoll.from_notes([0, 0, 4], [4, 8, 9], [67, 60, 72])
    >>> skyline(events(roll)).pitch.tolist()
    [67, 72]
    """
    onset = notes.onset
    is_last = np.append(onset[1:] != onset[:-1], True)[: len(onset)]
    return NoteEvents(*(column[is_last] for column in notes))


def duration_class(frames: np.ndarray) -> np.ndarray:
    """Class of durations of at least one frame: the last of `DURATIONS` that is no longer."""
    return np.searchsorted(DURATIONS, frames, side="right") - 1


def count(roll: PianoRoll) -> dict[str, Bag]:
    """Distributions of a roll, all but that of its chords.

    Parameters
    ----------
    roll : PianoRoll

    Returns
    -------
    dict of str to Bag
        By the names of `FEATURES`. Bin 0 is pitch 0, pitch class C, no note, velocities 0-7,
        duration 1, the interval of `MAX_INTERVAL` down, C to C, or duration 1 to 1.
    """
    notes = events(roll)
    top = skyline(notes)
    interval = np.clip(np.diff(top.pitch), -MAX_INTERVAL, MAX_INTERVAL) + MAX_INTERVAL
    lengths = duration_class(top.duration)
    transitions = pitch_class_transitions(notes).ravel()
    pairs = np.flatnonzero(transitions)
    bags = {
        "pitch": _bag(notes.pitch),
        "pitch_class": _bag(notes.pitch % 12),
        "polyphony": _bag(np.minimum(polyphony(roll), MAX_POLYPHONY)),
        "velocity": _bag(notes.velocity // VELOCITY_STEP),
        "duration": _bag(duration_class(notes.duration)),
        "inter_onset_interval": _bag(duration_class(np.diff(top.onset))),
        "melodic_interval": _bag(interval),
        "melodic_interval_transition": _bag(interval[:-1] * N_STEPS + interval[1:]),
        "pitch_class_transition": (pairs, transitions[pairs]),
        "duration_transition": _bag(lengths[:-1] * len(DURATIONS) + lengths[1:]),
    }
    return bags


def measure(roll: PianoRoll) -> dict[str, float]:
    """Numbers of a roll.

    Parameters
    ----------
    roll : PianoRoll
        Of one frame or more.

    Returns
    -------
    dict of str to float
        By the names of `FEATURES`.
    """
    repeats = repetition([roll])
    return {
        "pitch_class_information": pitch_class_information(roll),
        "twice": repeats.twice,
        "thrice": repeats.thrice,
        "returns": repeats.returns,
        "chords_per_minute": repeats.chords_per_minute,
    }


def pitch_class_transitions(notes: NoteEvents) -> np.ndarray:
    """How often each pitch class is struck just after each other.

    Each pitch class of the notes struck at one time goes to each of those struck at the next; two
    notes of one pitch class at a time are one.

    Parameters
    ----------
    notes : NoteEvents

    Returns
    -------
    ndarray of int64, shape (12, 12)
        From the row's pitch class to the column's.

    Examples
    --------
    >>> import numpy as np, pianolstm as pl
    >>> from pianolstm.scoring.features import events, pitch_class_transitions
    >>> roll = pl.PianoRoll.from_notes([0, 0, 4], [4, 8, 9], [67, 60, 74])
    >>> np.argwhere(pitch_class_transitions(events(roll))).tolist()  # C and G to D
    [[0, 2], [7, 2]]
    """
    times, at = np.unique(notes.onset, return_inverse=True)
    struck = np.zeros((len(times), 12))  # float: its product is many times as fast
    struck[at, notes.pitch % 12] = 1
    return (struck[:-1].T @ struck[1:]).astype(np.int64)


def pitch_class_information(roll: PianoRoll) -> float:
    """How much pitch classes tell of those that are struck next, in bits.

    The mutual information of the roll's own transitions, the sum of
    ``p(x, y) log2(p(x, y) / (p(x) p(y)))``
    (Cover and Thomas 2006, section 2.3). It is the same in every key, and falls when chords come in
    another order. It grows as a sample shrinks: compare music of one length.

    Parameters
    ----------
    roll : PianoRoll

    Returns
    -------
    float
        From 0 on; 0 where nothing follows anything.

    Examples
    --------
    >>> import pianolstm as pl
    >>> from pianolstm.scoring.features import pitch_class_information
    >>> scale = pl.PianoRoll.from_notes([0, 1, 2, 3, 4], [1, 2, 3, 4, 5], [60, 62, 60, 62, 60])
    >>> pitch_class_information(scale)
    1.0
    """
    joint = pitch_class_transitions(events(roll)).astype(np.float64)
    if joint.sum() == 0:
        return 0.0
    joint /= joint.sum()
    independent = np.outer(joint.sum(axis=1), joint.sum(axis=0))
    has = joint > 0
    return max(0.0, float(np.sum(joint[has] * np.log2(joint[has] / independent[has]))))


def bin_labels(
    name: str, counts: np.ndarray, chords: np.ndarray, max_bins: int
) -> tuple[np.ndarray, list[str]]:
    """Bins of a distribution to draw, and what is written below each.

    Parameters
    ----------
    name : str
        Of `FEATURES`, no number.
    counts : ndarray of int64, shape (n_bins,)
        Of the corpus: bins in order from the first to the last that has counts; where they have no
        order, those with the most.
    chords : ndarray of uint64, shape (n_chords, 4)
        Bits of the chord of each bin of ``"chord"``.
    max_bins : int
        How many of bins without order.

    Returns
    -------
    tuple of ndarray of int64, shape (n,), and list of str, length n
        An empty label gets no tick.
    """
    if FEATURES[name].bins == "unordered":
        bins = np.argsort(-counts, kind="stable")[: min(max_bins, np.count_nonzero(counts))]
    elif name == "pitch_class":
        bins = np.arange(12)
    else:
        present = np.flatnonzero(counts)
        bins = np.arange(present[0], present[-1] + 1)
    return bins, [_label(name, int(b), chords) for b in bins]


def _label(name: str, at: int, chords: np.ndarray) -> str:
    if name == "pitch":
        return f"C{at // 12 - 1}" if at % 12 == 0 else ""
    if name == "pitch_class":
        return NOTE_NAMES[at]
    if name == "chord":
        return chord_pitches(chords[at]).replace(" ", "\n") or "rest"
    if name == "velocity":
        return str(at * VELOCITY_STEP)
    if name in ("duration", "inter_onset_interval"):
        return str(DURATIONS[at])
    if name == "melodic_interval":
        return f"{at - MAX_INTERVAL:+d}" if (at - MAX_INTERVAL) % 12 == 0 else ""
    if name == "melodic_interval_transition":
        return "\n".join(f"{b - MAX_INTERVAL:+d}" for b in divmod(at, N_STEPS))
    if name == "pitch_class_transition":
        return "\n".join(NOTE_NAMES[b] for b in divmod(at, 12))
    if name == "duration_transition":
        return "\n".join(str(DURATIONS[b]) for b in divmod(at, len(DURATIONS)))
    return str(at)


def _bag(classes: np.ndarray) -> Bag:
    return np.unique(classes, return_counts=True)
