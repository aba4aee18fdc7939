"""What is counted of a piece: by hand, by plain loops, and what must not change it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl
from pianolstm import PianoRoll
from pianolstm.scoring.counting import CountedCorpus
from pianolstm.scoring.features import (
    DURATIONS,
    FEATURES,
    count,
    duration_class,
    events,
    measure,
    pitch_class_information,
    pitch_class_transitions,
    polyphony,
    skyline,
)
from strategies import rolls

C, D, E, F, G, A = 0, 2, 4, 5, 7, 9


def roll(*notes, n_frames):
    """From (start, end, pitch, velocity)."""
    return PianoRoll.from_notes(*zip(*notes, strict=True), n_frames=n_frames, fs=20)


# What is counted, in words: intervals in semitones, durations by the shortest of their class.
CASES = {
    "a tune struck again, and a rest": (
        roll((0, 2, 60, 10), (2, 3, 60, 20), (3, 7, 64, 70), (7, 8, 72, 127), n_frames=9),
        {
            "pitch": {60: 2, 64: 1, 72: 1},
            "pitch_class": {C: 3, E: 1},
            "chord": {"60": 2, "60*": 1, "64": 4, "72": 1, "": 1},
            "polyphony": {1: 8, 0: 1},
            "velocity": {8: 1, 16: 1, 64: 1, 120: 1},
            "duration": {2: 1, 1: 2, 4: 1},
            "inter_onset_interval": {2: 1, 1: 1, 4: 1},
            "melodic_interval": {0: 1, 4: 1, 8: 1},
            "melodic_interval_transition": {(0, 4): 1, (4, 8): 1},
            "pitch_class_transition": {(C, C): 1, (C, E): 1, (E, C): 1},
            "duration_transition": {(2, 1): 1, (1, 4): 1, (4, 1): 1},
            "pitch_class_information": (np.log2(0.75) + 2 * np.log2(1.5)) / 3,
            "chords_per_minute": 5 / 9 * 20 * 60,
        },
    ),
    "cut in the middle, so that two notes are tied": (
        roll((0, 6, 48, 64), (0, 3, 67, 64), (3, 6, 65, 64), (6, 9, 64, 64), n_frames=9)[2:],
        {
            "pitch": {65: 1, 64: 1},
            "pitch_class": {F: 1, E: 1},
            "chord": {"48 67": 1, "48 65": 3, "64": 3},
            "polyphony": {2: 4, 1: 3},
            "velocity": {64: 2},
            "duration": {3: 2},
            "inter_onset_interval": {3: 1},
            "melodic_interval": {-1: 1},
            "melodic_interval_transition": {},
            "pitch_class_transition": {(F, E): 1},
            "duration_transition": {(3, 3): 1},
            "pitch_class_information": 0.0,
            "chords_per_minute": 3 / 7 * 20 * 60,
        },
    ),
    "chords, one pitch class twice in each": (
        roll(
            *((0, 4, 48, 40), (0, 4, 60, 40), (0, 4, 64, 47)),
            *((4, 10, 50, 48), (4, 10, 65, 7), (4, 5, 77, 8), (6, 8, 79, 100)),
            n_frames=10,
        ),
        {
            "pitch": {48: 1, 60: 1, 64: 1, 50: 1, 65: 1, 77: 1, 79: 1},
            "pitch_class": {C: 2, E: 1, D: 1, F: 2, G: 1},
            "chord": {"48 60 64": 4, "50 65 77": 1, "50 65": 3, "50 65 79": 2},
            "polyphony": {3: 7, 2: 3},
            "velocity": {40: 3, 48: 1, 0: 1, 8: 1, 96: 1},
            "duration": {4: 3, 6: 2, 1: 1, 2: 1},
            "inter_onset_interval": {4: 1, 2: 1},
            "melodic_interval": {13: 1, 2: 1},
            "melodic_interval_transition": {(13, 2): 1},
            "pitch_class_transition": {
                (C, D): 1,
                (C, F): 1,
                (E, D): 1,
                (E, F): 1,
                (D, G): 1,
                (F, G): 1,
            },
            "duration_transition": {(4, 1): 1, (1, 2): 1},
            "pitch_class_information": 4 / 6 * np.log2(1.5) + 1 / 3 * np.log2(3),
            "chords_per_minute": 4 / 10 * 20 * 60,
        },
    ),
    "leaps beyond two octaves, long notes": (
        roll((0, 16, 21, 1), (16, 41, 108, 127), (41, 44, 60, 64), n_frames=44),
        {
            "pitch": {21: 1, 108: 1, 60: 1},
            "pitch_class": {A: 1, C: 2},
            "chord": {"21": 16, "108": 25, "60": 3},
            "polyphony": {1: 44},
            "velocity": {0: 1, 120: 1, 64: 1},
            "duration": {16: 1, 24: 1, 3: 1},
            "inter_onset_interval": {16: 1, 24: 1},
            "melodic_interval": {24: 1, -24: 1},
            "melodic_interval_transition": {(24, -24): 1},
            "pitch_class_transition": {(A, C): 1, (C, C): 1},
            "duration_transition": {(16, 24): 1, (24, 3): 1},
            "pitch_class_information": 0.0,
            "chords_per_minute": 3 / 44 * 20 * 60,
        },
    ),
    "two notes three times": (
        roll(
            *((0, 1, 60, 64), (1, 3, 62, 64), (3, 4, 60, 64)),
            *((4, 6, 62, 64), (6, 7, 60, 64), (7, 9, 62, 64)),
            n_frames=9,
        ),
        {
            "pitch": {60: 3, 62: 3},
            "pitch_class": {C: 3, D: 3},
            "chord": {"60": 3, "62": 6},
            "polyphony": {1: 9},
            "velocity": {64: 6},
            "duration": {1: 3, 2: 3},
            "inter_onset_interval": {1: 3, 2: 2},
            "melodic_interval": {2: 3, -2: 2},
            "melodic_interval_transition": {(2, -2): 2, (-2, 2): 2},
            "pitch_class_transition": {(C, D): 3, (D, C): 2},
            "duration_transition": {(1, 2): 3, (2, 1): 2},
            "pitch_class_information": -(0.6 * np.log2(0.6) + 0.4 * np.log2(0.4)),
            "chords_per_minute": 2 / 9 * 20 * 60,
        },
    ),
}


def in_words(name, bins, chords):
    """What a bin stands for."""
    if name == "chord":
        return pl.chord_pitches(chords[bins])
    value = {
        "velocity": lambda b: 8 * b,
        "duration": lambda b: int(DURATIONS[b]),
        "inter_onset_interval": lambda b: int(DURATIONS[b]),
        "melodic_interval": lambda b: b - 24,
        "melodic_interval_transition": lambda b: (b // 49 - 24, b % 49 - 24),
        "pitch_class_transition": lambda b: divmod(b, 12),
        "duration_transition": lambda b: tuple(
            int(DURATIONS[i]) for i in divmod(b, len(DURATIONS))
        ),
    }.get(name, lambda b: b)
    return value(int(bins))


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("name", [n for n in FEATURES if n not in ("twice", "thrice", "returns")])
def test_features_by_hand(case, name):
    piece, expected = CASES[case]
    if FEATURES[name].bins == "number":
        assert measure(piece)[name] == pytest.approx(expected[name])
        return
    corpus = CountedCorpus([piece])
    counts = corpus.totals[name]
    found = {in_words(name, b, corpus.chords): counts[b] for b in np.flatnonzero(counts)}
    assert found == expected[name]


@pytest.mark.parametrize(
    ("letters", "lengths", "twice", "thrice", "returns"),
    [
        ("xababy", [1, 2, 3, 4, 5, 6], 9 / 21, 0, 0),
        ("abcabcabcd", [1] * 10, 6 / 10, 3 / 10, 0),
        ("aaaaab", [2] * 6, 0, 0, 0),
        ("abcdefghxyabcdefghz", [1] * 18 + [3], 0, 0, 8 / 21),
        ("abab" + "cdefghijk" + "xy" + "cdefghijk", [2, 1] * 12, 3 / 36, 0, 13 / 36),
    ],
)
def test_repetition_by_hand(letters, lengths, twice, thrice, returns):
    ends = np.cumsum(lengths)
    piece = PianoRoll.from_notes(ends - lengths, ends, [40 + ord(x) - ord("a") for x in letters])
    found = measure(piece)
    assert (found["twice"], found["thrice"]) == pytest.approx((twice, thrice))
    assert found["returns"] == pytest.approx(returns)


def test_classes_of_durations_are_half_an_octave():
    assert DURATIONS[:9].tolist() == [1, 2, 3, 4, 6, 8, 12, 16, 24]
    frames = np.array([1, 2, 3, 4, 5, 6, 7, 8, 11, 12, 100_000])
    classes = duration_class(frames)
    assert classes.tolist() == [0, 1, 2, 3, 3, 4, 4, 5, 5, 6, len(DURATIONS) - 1]


# -------------------------------------------------------------------------------- by plain loops


@given(rolls(fs=20, grid="seconds"))
def test_events_and_polyphony_by_plain_loops(piece):
    expected = sorted(
        (int(n["start"]), int(n["pitch"]), int(n["end"] - n["start"]), int(n["velocity"]))
        for n in piece.notes
        if not n["tied"]
    )
    found = events(piece)
    columns = (found.onset, found.pitch, found.duration, found.velocity)
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == expected
    assert polyphony(piece).tolist() == (piece.velocity > 0).sum(axis=1).tolist()
    at = [
        max((n for n in expected if n[0] == t), key=lambda n: n[1])
        for t in sorted({n[0] for n in expected})
    ]
    assert skyline(found).pitch.tolist() == [n[1] for n in at]


@given(rolls(fs=20, grid="seconds"))
def test_transitions_by_plain_loops(piece):
    notes = events(piece)
    struck = {}
    for onset, pitch in zip(notes.onset.tolist(), notes.pitch.tolist(), strict=True):
        struck.setdefault(onset, set()).add(pitch % 12)
    expected = Counter(
        (x, y) for t, u in pairwise(sorted(struck)) for x in struck[t] for y in struck[u]
    )
    found = pitch_class_transitions(notes)
    assert {(x, y): found[x, y] for x, y in np.argwhere(found).tolist()} == expected
    n = sum(expected.values())
    left, right = Counter(), Counter()
    for (x, y), c in expected.items():
        left[x] += c
        right[y] += c
    bits = sum(c / n * np.log2(c * n / (left[x] * right[y])) for (x, y), c in expected.items())
    assert pitch_class_information(piece) == pytest.approx(bits, abs=1e-9)


# ------------------------------------------------------------------------------------- invariances

MOVED_BY_PITCH = ("pitch", "pitch_class", "pitch_class_transition", "chord")


def totals(*pieces):
    """Counts of every distribution by name, chords by their pitches."""
    corpus = CountedCorpus(list(pieces))
    found = {}
    for name, counts in corpus.totals.items():
        bins = np.flatnonzero(counts)
        found[name] = {in_words(name, b, corpus.chords): int(counts[b]) for b in bins}
    return found


@given(rolls(fs=20, grid="seconds", min_notes=1), st.integers(-11, 11))
def test_transposing_moves_pitches_and_nothing_else(piece, steps):
    low, high = piece.notes["pitch"].min(), piece.notes["pitch"].max()
    steps = int(np.clip(steps, -int(low), 127 - int(high)))
    before, after = totals(piece), totals(piece.transpose(steps))
    assert after["pitch"] == {p + steps: n for p, n in before["pitch"].items()}
    assert after["pitch_class"] == {(p + steps) % 12: n for p, n in before["pitch_class"].items()}
    assert after["pitch_class_transition"] == {
        ((x + steps) % 12, (y + steps) % 12): n
        for (x, y), n in before["pitch_class_transition"].items()
    }
    for name in set(before) - set(MOVED_BY_PITCH):
        assert after[name] == before[name]
    for name, value in measure(piece).items():
        assert measure(piece.transpose(steps))[name] == pytest.approx(value, abs=1e-9)


@given(rolls(fs=20, grid="seconds", min_notes=1), st.integers(1, 40))
def test_rests_before_a_piece_change_rests_alone(piece, n_rests):
    rests = PianoRoll.from_notes([], [], [], n_frames=n_rests, fs=20)
    before, after = totals(piece), totals(PianoRoll.concatenate([rests, piece]))
    rest_of = {"polyphony": 0, "chord": ""}
    for name, counts in before.items():
        more = Counter(counts)
        if name in rest_of:
            more[rest_of[name]] += n_rests
        assert after[name] == dict(more)


@given(st.lists(rolls(fs=20, grid="seconds", min_notes=1), min_size=1, max_size=4), st.randoms())
def test_the_order_of_pieces_does_not_matter(pieces, random):
    shuffled = list(pieces)
    random.shuffle(shuffled)
    assert totals(*shuffled) == totals(*pieces)


@given(*[rolls(fs=20, grid="seconds", min_notes=1)] * 2)
def test_what_is_counted_note_by_note_adds_up(one, other):
    both, sums = totals(PianoRoll.concatenate([one, other])), totals(one, other)
    for name in ("pitch", "pitch_class", "velocity", "duration", "polyphony"):
        assert both[name] == sums[name]
    # What goes from note to note has, besides, what goes from the one piece to the other.
    for name in ("inter_onset_interval", "melodic_interval", "duration_transition"):
        assert sum(both[name].values()) == sum(sums[name].values()) + 1


def test_every_feature_is_counted_or_measured():
    piece = CASES["two notes three times"][0]
    assert set(FEATURES) == {*count(piece), "chord", *measure(piece)}
    silence = PianoRoll.from_notes([], [], [], n_frames=3)
    assert {name for name, (bins, _) in count(silence).items() if len(bins)} == {"polyphony"}
    assert measure(silence)["pitch_class_information"] == 0
