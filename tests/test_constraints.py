"""Constraints: what each allows, by brute force, and what can't be kept."""

import itertools

import numpy as np
import pytest

import pianolstm as pl
from pianolstm import constraints as c
from pianolstm.constraints import limits_of
from pianolstm.tokens import TokenCorpus


def chords(n=400, seed=0):
    rng = np.random.default_rng(seed)
    return [sorted(rng.choice(np.arange(30, 95), rng.integers(0, 9), False)) for _ in range(n)]


def in_two_hands(chord, span, notes):
    """Some cut of the chord gives two hands that can play it."""

    def fits(hand):
        return not hand or (hand[-1] - hand[0] <= span and len(hand) <= notes)

    return any(fits(chord[:k]) and fits(chord[k:]) for k in range(len(chord) + 1))


@pytest.mark.parametrize(
    ("rule", "allows"),
    [
        (c.PitchRange(40, 83), lambda x: all(40 <= p <= 83 for p in x)),
        (c.MaxNotes(3), lambda x: len(x) <= 3),
        (c.Scale("D minor"), lambda x: all(p % 12 in {2, 4, 5, 7, 9, 10, 0} for p in x)),
        (c.Scale([0, 4, 7]), lambda x: all(p % 12 in {0, 4, 7} for p in x)),
        (c.TwoHands(12, 3), lambda x: in_two_hands(x, 12, 3)),
        (c.TwoHands(9, 2), lambda x: in_two_hands(x, 9, 2)),
        (c.TwoHands(20, 2), lambda x: in_two_hands(x, 20, 2)),
        (c.MaxSilence(1), lambda x: True),
        (
            c.MaxNotes(4) & c.PitchRange(30, 80) & c.TwoHands(14),
            lambda x: len(x) <= 4 and all(p <= 80 for p in x) and in_two_hands(x, 14, 5),
        ),
    ],
    ids=lambda value: "" if callable(value) else repr(value),
)
def test_which_chords_are_allowed(rule, allows):
    few = [list(x) for n in range(3) for x in itertools.combinations((36, 40, 43, 60, 66, 90), n)]
    some = few + chords()
    assert rule.allows(some).tolist() == [allows([int(p) for p in x]) for x in some]


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("C major", {0, 2, 4, 5, 7, 9, 11}),
        ("a minor", {0, 2, 4, 5, 7, 9, 11}),
        ("Bb major", {10, 0, 2, 3, 5, 7, 9}),
        ("F# harmonic minor", {6, 8, 9, 11, 1, 2, 5}),
        ("E♭ minor pentatonic", {3, 6, 8, 10, 1}),
        ("G chromatic", set(range(12))),
    ],
)
def test_names_of_scales(name, classes):
    assert c.Scale(name).pitch_classes == classes


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: c.Scale("H major"), "is no scale"),
        (lambda: c.Scale("C#b major"), "is no scale"),
        (lambda: c.Scale("C jolly"), "the mode must be one of major"),
        (lambda: c.Scale([12]), "Pitch classes are whole numbers from 0 to 11"),
        (lambda: c.Scale([]), "Pitch classes"),
        (lambda: c.PitchRange(60, 50), "highest must be between 60 and 127"),
        (lambda: c.MaxNotes(-1), "notes must be at least 0|notes must be between"),
        (lambda: c.MaxHold(float("inf")), "duration must be a finite number"),
        (lambda: c.Contains([[1, 2]]), "128"),
    ],
)
def test_what_is_no_rule(make, match):
    with pytest.raises(pl.InvalidInputError, match=match):
        make()


def test_rules_join_with_rules_alone():
    with pytest.raises(TypeError, match="unsupported operand"):
        c.MaxNotes(3) & "C major"
    joined = c.MaxNotes(3) & c.MaxHold(2) & c.MaxSilence(1)
    assert repr(joined) == "MaxNotes(notes=3) & MaxHold(duration=2) & MaxSilence(duration=1)"


@pytest.fixture(scope="module")
def vocabulary():
    """Rests, dyads and single notes, each also struck again."""
    rolls = [
        pl.PianoRoll.from_notes([0, 2, 2, 5, 6], [2, 4, 8, 6, 9], [p, p, p - 12, p, p + 1])
        for p in range(50, 75)
    ]
    return TokenCorpus.of(rolls).chords


def limits(rule, vocabulary, fs=20):
    return limits_of(rule, vocabulary, fs=fs, grid="seconds")


def test_durations_become_frames(vocabulary):
    both = limits(c.MaxHold(1.3) & c.MaxSilence(0.5), vocabulary, fs=10)
    assert (both.max_hold, both.max_silence) == (13, 5)
    assert limits(c.MaxHold(0.3), vocabulary, fs=10).max_hold == 3  # 0.3 * 10 < 3 in floats
    none = limits(c.MaxSilence(0), vocabulary)
    assert none.allowed.sum() == len(vocabulary) - 1 and not none.allowed[0]
    with pytest.raises(pl.InvalidInputError, match=r"MaxHold\(0.01\) is less than a frame"):
        limits(c.MaxHold(0.01), vocabulary)


def planes_of(words):
    """Bits of frames as planes (n, 2, 128)."""
    as_bytes = np.ascontiguousarray(words, "<u4").view(np.uint8)
    return np.unpackbits(as_bytes, axis=1, bitorder="little").reshape(-1, 2, 128).astype(bool)


@pytest.fixture
def roll():
    # Two voices; the upper one strikes 60 twice, rests, and leaves the lower one alone.
    return pl.PianoRoll.from_notes([0, 0, 2, 6], [2, 5, 4, 8], [60, 52, 60, 64])


def test_a_melody_is_the_highest_voice(roll, vocabulary):
    found = limits(c.Melody(roll), vocabulary)
    required, forbidden = planes_of(found.required), planes_of(found.forbidden)
    assert [np.flatnonzero(row).tolist() for row in required[:, 0]] == [
        [60], [60], [60], [60], [52], [], [64], [64],
    ]  # fmt: skip
    assert [np.flatnonzero(row).tolist() for row in required[:, 1]] == [
        [60], [], [60], [], [], [], [64], [],
    ]  # fmt: skip
    for t, pitch in enumerate([60, 60, 60, 60, 52, 128, 64, 64]):
        assert np.flatnonzero(forbidden[t, 0]).tolist() == list(range(pitch + 1, 128))
    assert [np.flatnonzero(row).tolist() for row in forbidden[:, 1]] == [
        [], [60], [], [60], [52], [], [], [64],
    ]  # fmt: skip


def test_a_bass_is_the_lowest_voice(roll, vocabulary):
    found = limits(c.Bass(roll, onsets=False), vocabulary)
    required, forbidden = planes_of(found.required), planes_of(found.forbidden)
    assert not required[:, 1].any() and not forbidden[:, 1].any()
    for t, pitch in enumerate([52, 52, 52, 52, 52, None, 64, 64]):
        assert np.flatnonzero(required[t, 0]).tolist() == ([] if pitch is None else [pitch])
        assert np.flatnonzero(forbidden[t, 0]).tolist() == list(range(pitch or 0))


def test_all_notes_of_a_roll(roll, vocabulary):
    vocabulary = np.concatenate([vocabulary, TokenCorpus.of([roll]).chords])
    found = limits(c.Contains(roll, onsets=False), vocabulary)
    assert (planes_of(found.required)[:, 0] == (np.asarray(roll) > 0)).all()
    assert not found.forbidden.any()
    both = c.Contains(roll[:3], onsets=False) & c.Bass(roll[:6], onsets=False)
    joined = limits(both, vocabulary)
    assert planes_of(joined.required)[:, 0].sum(1).tolist() == [2, 2, 2, 1, 1, 0]
    assert planes_of(joined.forbidden)[:, 0].sum(1).tolist() == [52] * 5 + [0]


def test_what_leaves_no_chord_is_known_before(roll, vocabulary):
    for rule, match in (
        (c.PitchRange(0, 10) & c.MaxSilence(0), "leaves no chord of the vocabulary"),
        (c.Contains(roll), "no chord of the vocabulary at frame 0: none with pitches 52 60"),
        (c.Melody(roll) & c.MaxNotes(0), "at frame 0: none with pitches 60"),
        (c.Melody(roll[6:]) & c.PitchRange(0, 63), "at frame 0"),
    ):
        with pytest.raises(pl.InvalidInputError, match=match):
            limits(rule, vocabulary)
    # Pitch 74 is struck again in no chord of the vocabulary with 20 beside it.
    twice = pl.PianoRoll.from_notes([0, 3], [3, 6], [75, 75])
    with pytest.raises(pl.InvalidInputError, match=r"at frame 3: none with pitches 75\*"):
        limits(c.Melody(twice), vocabulary)
    limits(c.Melody(twice, onsets=False), vocabulary)


def test_rolls_of_another_grid(roll, vocabulary):
    with pytest.raises(pl.InvalidInputError, match="fs=20"):
        limits(c.Melody(roll), vocabulary, fs=10)
