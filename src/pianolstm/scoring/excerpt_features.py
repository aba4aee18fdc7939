"""Some forty numbers that say what an excerpt of music is like.

Conventions
-----------
Time is in seconds, or in quarter notes on the grid of beats; pitch in semitones. Means of lengths
of time are geometric, and their deviations are of logarithms to base 2: twice as long is as far as
half as long. The melody is the highest, the bass the lowest of the notes struck at a time. What an
excerpt has nothing to measure of is NaN: one note alone makes no interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pianolstm.exceptions import InvalidInputError
from pianolstm.rolls import PianoRoll
from pianolstm.scoring.features import NoteEvents, events, polyphony
from pianolstm.scoring.repetition import repetition

FEATURES = {
    "note density": "notes struck a second, or a quarter note",
    "onset density": "times at which notes are struck, a second or quarter note",
    "notes per onset": "notes struck at a time, their mean",
    "polyphony mean": "notes that sound at once, mean over the frames",
    "polyphony sd": "their standard deviation",
    "silence": "share of the time in which nothing sounds",
    "held": "share of the time more than 3 s (quarter notes) after the last note was struck",
    "duration mean": "how long notes last, geometric mean",
    "duration sd": "standard deviation of its log2",
    "inter-onset mean": "time from onset to onset, geometric mean",
    "inter-onset sd": "standard deviation of its log2",
    "inter-onset entropy": "entropy in bits of the frames from onset to onset",
    "even rhythm": "share of the times from onset to onset that are as long as the one before",
    "off the beat": "share of notes struck between beats (on the grid of beats)",
    "syncopation": "share of notes struck between beats and held over the next one (likewise)",
    "pitch mean": "mean pitch",
    "pitch sd": "its standard deviation",
    "pitch range": "from the lowest note to the highest",
    "bass mean": "mean pitch of the bass",
    "melody mean": "mean pitch of the melody",
    "pitch-class entropy": "entropy in bits of the pitch classes, by how long they sound",
    "key clarity": "correlation of the pitch classes with the nearest key of Krumhansl and Kessler",
    "in one key, near": "cosine of the pitch classes of an eighth of the excerpt and the next",
    "in one key, far": "cosine of the pitch classes of eighths further apart",
    "melody interval": "size of the melody's intervals, mean",
    "melody repeats": "share of them that are repeated notes",
    "melody steps": "share of them of one or two semitones",
    "melody leaps": "share of them of a fourth or more",
    "melody turns": "share of the melody's moves that go the other way than the one before",
    "bass interval": "size of the bass's intervals, mean",
    "repeated chords": "share of onsets that strike the very notes of the onset before",
    "kept pitch classes": "share of an onset's pitch classes that the onset before had too",
    "dissonance": "share of seconds, sevenths and tritones among pairs of pitch classes that sound",
    "chords per minute": "different chords begun in 60 s (quarter notes), from `repetition`",
    "said twice": "share of the time in passages said again at once, from `repetition`",
    "returns": "share of the time in passages that come back later, from `repetition`",
    "velocity mean": "mean velocity",
    "velocity sd": "its standard deviation",
    "velocity change": "change of the mean velocity from onset to onset, mean",
}
"""Names of the features and what they mean, in the order of `excerpt_features`."""

LONG_HOLD = 3.0
"""Seconds or quarter notes after the last onset from which music counts as held."""

N_PARTS = 8
"""Parts of an excerpt whose pitch classes are compared."""

MAJOR = np.array([6.35, 2.23, 3.48, 2.33, 4.38, 4.09, 2.52, 5.19, 2.39, 3.66, 2.29, 2.88])
MINOR = np.array([6.33, 2.68, 3.52, 5.38, 2.60, 3.53, 2.54, 4.75, 3.98, 2.69, 3.34, 3.17])
"""Profiles of C major and C minor (Krumhansl and Kessler 1982)."""

REAL, WRITTEN, BOTH = 0, 1, 2
"""Kinds of groups: of real music, of written music, of both."""


def excerpt_features(roll: PianoRoll) -> np.ndarray:
    """What an excerpt is like, in numbers.

    Parameters
    ----------
    roll : PianoRoll
        The excerpt. Notes tied at its beginning sound, but are not struck in it.

    Returns
    -------
    ndarray of float64, shape (len(FEATURES),)
        In the order of `FEATURES`; NaN where there is nothing to measure.

    References
    ----------
    Krumhansl and Kessler (1982), Tracing the dynamic changes in perceived tonal organization in a
    spatial representation of musical keys: the profiles of "key clarity".

    Examples
    --------
    >>> import pianolstm as pl
    >>> from pianolstm.scoring.excerpt_features import FEATURES, excerpt_features
    >>> roll = pl.PianoRoll.from_notes([0, 0, 4, 8], [4, 16, 8, 16], [67, 60, 69, 76], fs=8)
    >>> found = dict(zip(FEATURES, excerpt_features(roll).tolist()))
    >>> found["note density"], found["melody interval"], found["melody steps"]
    (2.0, 4.5, 0.5)
    """
    notes = events(roll)
    onsets = _Onsets.of(notes)
    found = {
        **_texture(roll, notes, onsets),
        **_durations(roll, notes),
        **_rhythm(roll, onsets),
        **_beats(roll, notes),
        **_register(notes, onsets),
        **_tonality(_sounding_classes(roll)),
        **_voices(onsets),
        **_chords(onsets),
        **_repetition(roll),
        **_velocity(onsets),
    }
    return np.array([found[name] for name in FEATURES], np.float64)


class Excerpts(NamedTuple):
    """All excerpts of real and of written pieces, the real ones first."""

    features: np.ndarray  # float64 (n_excerpts, n_features), with NaN
    piece: np.ndarray  # int64 (n_excerpts,)
    group: np.ndarray  # int64 (n_excerpts,): 0, 1, …
    weight: np.ndarray  # float64 (n_excerpts,): mean 1, of equal sum for all groups
    written: np.ndarray  # bool (n_pieces,)

    @classmethod
    def of(
        cls,
        sets: tuple[list[PianoRoll], list[PianoRoll]],
        length: float,
        groups: Sequence[Any] | None,
    ) -> Excerpts:
        """Pieces of both sets, real and written, cut into excerpts of a length, and described.

        Parameters
        ----------
        sets : tuple of two lists of PianoRoll
            Real and written pieces.
        length : float
            Of an excerpt, in seconds or quarter notes.
        groups : sequence, default=None
            One label for each real and then each written piece; None takes each as its own.

        Raises
        ------
        InvalidInputError
            If no piece is as long as an excerpt, or there is another number of labels.
        """
        rolls = [*sets[0], *sets[1]]
        if groups is not None and len(groups) != len(rolls):
            raise InvalidInputError(
                "groups must have one label for each real and then each written piece, "
                f"{len(rolls)} in all; got {len(groups)}."
            )
        n = max(round(length * rolls[0].fs), 1)
        cuts = [(i, a) for i, r in enumerate(rolls) for a in range(0, r.n_frames - n + 1, n)]
        if not cuts:
            raise InvalidInputError(
                f"No piece is as long as an excerpt of {length:g}; the longest has "
                f"{max(r.n_frames for r in rolls) / rolls[0].fs:g}. Set a shorter length."
            )
        piece = np.array([i for i, _ in cuts])
        labels = list(range(len(rolls)) if groups is None else groups)
        numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
        group = np.unique([numbers[labels[i]] for i, _ in cuts], return_inverse=True)[1]
        features = np.array([excerpt_features(rolls[i][a : a + n]) for i, a in cuts])
        if not all(_velocities_vary(part) for part in sets):
            features[:, [name.startswith("velocity") for name in FEATURES]] = np.nan
        size = np.bincount(group)
        written = np.arange(len(rolls)) >= len(sets[0])
        weight = len(group) / (len(size) * size[group])
        return cls(features, piece, group, weight, written)

    def kinds(self) -> np.ndarray:  # int64 (n_groups,)
        """Whether each group is of real music, of written music, or of both."""
        written = self.written[self.piece]
        share = np.bincount(self.group, weights=written) / np.bincount(self.group)
        return np.where(share == 0, REAL, np.where(share == 1, WRITTEN, BOTH))


class _Onsets(NamedTuple):
    """Notes struck at one time, taken together."""

    at: np.ndarray  # int64 (n_onsets,): frames
    size: np.ndarray  # int64 (n_onsets,): notes
    lowest: np.ndarray  # int64 (n_onsets,)
    highest: np.ndarray  # int64 (n_onsets,)
    pitches: np.ndarray  # uint64 (n_onsets, 2): bits of pitches 0-63 and 64-127
    classes: np.ndarray  # uint64 (n_onsets,): bits of pitch classes
    velocity: np.ndarray  # float64 (n_onsets,): mean

    @classmethod
    def of(cls, notes: NoteEvents) -> _Onsets:
        at, first, size = np.unique(notes.onset, return_index=True, return_counts=True)
        pitch = notes.pitch.astype(np.uint64)
        bit = np.uint64(1) << (pitch % np.uint64(64))
        words = np.stack([np.where(pitch < 64, bit, 0), np.where(pitch < 64, 0, bit)], axis=1)
        if len(at):  # reduceat takes no empty array
            words = np.bitwise_or.reduceat(words, first)
            classes = np.bitwise_or.reduceat(np.uint64(1) << (pitch % np.uint64(12)), first)
            velocity = np.add.reduceat(notes.velocity, first) / size
        else:
            classes, velocity = np.empty(0, np.uint64), np.empty(0)
        lowest, highest = notes.pitch[first], notes.pitch[first + size - 1]
        return cls(at, size, lowest, highest, words, classes, velocity)


def _texture(roll: PianoRoll, notes: NoteEvents, onsets: _Onsets) -> dict[str, float]:
    time, voices = roll.n_frames / roll.fs, polyphony(roll)
    # Before the first onset it is not known for how long nothing was struck.
    gaps = np.diff(onsets.at, append=roll.n_frames) if len(onsets.at) else np.empty(0, np.int64)
    held = np.maximum(gaps - LONG_HOLD * roll.fs, 0).sum()
    return {
        "note density": len(notes.onset) / time,
        "onset density": len(onsets.at) / time,
        "notes per onset": _mean(onsets.size),
        "polyphony mean": float(voices.mean()),
        "polyphony sd": float(voices.std()),
        "silence": float((voices == 0).mean()),
        "held": float(held / roll.n_frames),
    }


def _durations(roll: PianoRoll, notes: NoteEvents) -> dict[str, float]:
    duration = np.log2(notes.duration / roll.fs)
    return {"duration mean": 2 ** _mean(duration), "duration sd": _sd(duration)}


def _rhythm(roll: PianoRoll, onsets: _Onsets) -> dict[str, float]:
    frames = np.diff(onsets.at)
    interval = np.log2(frames / roll.fs)
    return {
        "inter-onset mean": 2 ** _mean(interval),
        "inter-onset sd": _sd(interval),
        "inter-onset entropy": _entropy(np.bincount(frames)),
        "even rhythm": _mean(frames[1:] == frames[:-1]),
    }


def _beats(roll: PianoRoll, notes: NoteEvents) -> dict[str, float]:
    if roll.grid != "beats":
        return {"off the beat": np.nan, "syncopation": np.nan}
    beat = int(roll.fs)
    after = notes.onset % beat
    return {
        "off the beat": _mean(after > 0),
        "syncopation": _mean((after > 0) & (after + notes.duration > beat)),
    }


def _register(notes: NoteEvents, onsets: _Onsets) -> dict[str, float]:
    return {
        "pitch mean": _mean(notes.pitch),
        "pitch sd": _sd(notes.pitch),
        "pitch range": float(np.ptp(notes.pitch)) if len(notes.pitch) else np.nan,
        "bass mean": _mean(onsets.lowest),
        "melody mean": _mean(onsets.highest),
    }


def _sounding_classes(roll: PianoRoll) -> np.ndarray:  # int64 (n_frames, 12)
    """How many notes of each pitch class sound in each frame."""
    edges = np.zeros((roll.n_frames + 1, 12), np.int64)
    pitch_class = roll.notes["pitch"] % 12
    np.add.at(edges, (roll.notes["start"], pitch_class), 1)
    np.add.at(edges, (roll.notes["end"], pitch_class), -1)
    return edges.cumsum(axis=0)[:-1]


def _tonality(sounding: np.ndarray) -> dict[str, float]:
    total = sounding.sum(axis=0)
    present = sounding > 0
    pairs = np.array([np.count_nonzero(present & np.roll(present, k, 1)) for k in range(1, 7)])
    pairs[5] //= 2  # a tritone is found from both its ends
    near, far = _kept_key(sounding)
    return {
        "pitch-class entropy": _entropy(total),
        "key clarity": _key_clarity(total),
        "in one key, near": near,
        "in one key, far": far,
        "dissonance": (pairs[0] + pairs[1] + pairs[5]) / pairs.sum() if pairs.any() else np.nan,
    }


def _key_clarity(total: np.ndarray) -> float:
    """Highest correlation with the profile of a key, of the 24."""
    if np.ptp(total) == 0:
        return np.nan
    keys = np.stack([np.roll(profile, k) for profile in (MAJOR, MINOR) for k in range(12)])
    keys = keys - keys.mean(axis=1, keepdims=True)
    centred = total - total.mean()
    norms = np.linalg.norm(keys, axis=1) * np.linalg.norm(centred)
    return float((keys @ centred / norms).max())


def _kept_key(sounding: np.ndarray) -> tuple[float, float]:
    """Mean cosine of the pitch classes of parts that are neighbours, and of the others."""
    parts = np.stack([part.sum(axis=0) for part in np.array_split(sounding, N_PARTS)])
    norms = np.linalg.norm(parts, axis=1)
    unit = parts[norms > 0] / norms[norms > 0, None]
    where = np.flatnonzero(norms > 0)
    a, b = np.triu_indices(len(where), 1)
    cosine, is_near = (unit @ unit.T)[a, b], where[b] - where[a] == 1
    return _mean(cosine[is_near]), _mean(cosine[~is_near])


def _voices(onsets: _Onsets) -> dict[str, float]:
    move = np.diff(onsets.highest)
    size, way = np.abs(move), np.sign(move[move != 0])
    return {
        "melody interval": _mean(size),
        "melody repeats": _mean(size == 0),
        "melody steps": _mean((size > 0) & (size <= 2)),
        "melody leaps": _mean(size >= 5),
        "melody turns": _mean(way[1:] != way[:-1]),
        "bass interval": _mean(np.abs(np.diff(onsets.lowest))),
    }


def _chords(onsets: _Onsets) -> dict[str, float]:
    now, before = onsets.classes[1:], onsets.classes[:-1]
    kept = np.bitwise_count(now & before) / np.maximum(np.bitwise_count(now), 1)
    same = (onsets.pitches[1:] == onsets.pitches[:-1]).all(axis=1)
    return {"repeated chords": _mean(same), "kept pitch classes": _mean(kept)}


def _repetition(roll: PianoRoll) -> dict[str, float]:
    found = repetition([roll])
    return {
        "chords per minute": found.chords_per_minute,
        "said twice": found.twice,
        "returns": found.returns,
    }


def _velocity(onsets: _Onsets) -> dict[str, float]:
    return {
        "velocity mean": _mean(onsets.velocity),
        "velocity sd": _sd(onsets.velocity),
        "velocity change": _mean(np.abs(np.diff(onsets.velocity))),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan


def _sd(values: np.ndarray) -> float:
    return float(values.std()) if len(values) else np.nan


def _entropy(counts: np.ndarray) -> float:
    """Entropy in bits."""
    total = counts.sum()
    if total == 0:
        return np.nan
    share = counts[counts > 0] / total
    return float(np.maximum(-(share * np.log2(share)).sum(), 0.0))


def _velocities_vary(rolls: list[PianoRoll]) -> bool:
    """Whether velocities are a part of the music; they are not where all are the same."""
    return len(np.unique(np.concatenate([roll.notes["velocity"] for roll in rolls]))) > 1
