"""The measures of Yang and Lerch: by hand, by laws, and against densities integrated slowly."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import gaussian_kde

import pianolstm as pl
from pianolstm.scoring.measures import NOTE_LENGTHS, _densities_compared
from strategies import rolls

C, CS, D, E, G, A, B = 0, 1, 2, 4, 7, 9, 11
SIXTEENTH, TRIPLET_8TH, EIGHTH, TRIPLET_4TH, DOTTED_8TH = 0, 1, 3, 4, 5
QUARTER, TRIPLET_HALF, HALF, WHOLE = 6, 7, 9, 11


def piece(notes, **grid):
    return pl.PianoRoll.from_notes(*zip(*notes, strict=True), **grid)


MELODY = piece([(0, 4, 60), (4, 6, 62), (6, 16, 67)], fs=4, grid="beats")
CHORDS = piece([(0, 5, 48), (0, 10, 64), (5, 10, 55), (10, 30, 47)], fs=10)
RESTS = piece([(0, 1, 61), (4, 6, 61), (12, 15, 61), (12, 16, 73)], fs=8)
TIED = pl.PianoRoll.from_notes(
    [0, 2, 10, 14], [12, 10, 26, 18], [90, 60, 57, 69], tied=[1, 0, 0, 0], fs=12, grid="beats"
)
WIDE = piece([(1, 2, 40), (7, 19, 100)], fs=2, grid="beats")
PIECES = {"melody": MELODY, "chords": CHORDS, "rests": RESTS, "tied": TIED, "wide": WIDE}

# One number a piece, in the order of PIECES.
NUMBERS = {
    "pitch_count": (3, 4, 2, 3, 2),
    "note_count": (3, 4, 4, 3, 2),
    "pitch_range": (7, 17, 12, 12, 60),
    "pitch_interval": ((2 + 5) / 2, (16 + 9 + 8) / 3, 12 / 3, (3 + 12) / 2, 60),
    "inter_onset_interval": (0.75, 0.5, 0.75, 0.5, 3),
}
# What is not 0, in the same order.
SHARES = {
    "pitch_class_histogram": (
        {C: 4 / 16, D: 2 / 16, G: 10 / 16},
        {C: 5 / 40, E: 10 / 40, G: 5 / 40, B: 20 / 40},
        {CS: 1},
        {C: 8 / 28, A: 20 / 28},
        {E: 1},
    ),
    "pitch_class_transitions": (
        {(C, D): 1 / 2, (D, G): 1 / 2},
        {(C, E): 1 / 3, (E, G): 1 / 3, (G, B): 1 / 3},
        {(CS, CS): 1},
        {(C, A): 1 / 2, (A, A): 1 / 2},
        {(E, E): 1},
    ),
    "note_length_histogram": (  # 2.5 quarters are as near to two as to three
        {QUARTER: 1 / 3, EIGHTH: 1 / 3, HALF: 1 / 3},
        {QUARTER: 2 / 4, HALF: 1 / 4, WHOLE: 1 / 4},
        {SIXTEENTH: 1 / 4, EIGHTH: 1 / 4, DOTTED_8TH: 1 / 4, QUARTER: 1 / 4},
        {TRIPLET_4TH: 1 / 3, TRIPLET_HALF: 1 / 3, TRIPLET_8TH: 1 / 3},
        {EIGHTH: 1 / 2, WHOLE: 1 / 2},
    ),
    "note_length_transitions": (
        {(QUARTER, EIGHTH): 1 / 2, (EIGHTH, HALF): 1 / 2},
        {(QUARTER, HALF): 1 / 3, (HALF, QUARTER): 1 / 3, (QUARTER, WHOLE): 1 / 3},
        {(SIXTEENTH, EIGHTH): 1 / 3, (EIGHTH, DOTTED_8TH): 1 / 3, (DOTTED_8TH, QUARTER): 1 / 3},
        {(TRIPLET_4TH, TRIPLET_HALF): 1 / 2, (TRIPLET_HALF, TRIPLET_8TH): 1 / 2},
        {(EIGHTH, WHOLE): 1},
    ),
}


@pytest.mark.parametrize("measure", NUMBERS)
@pytest.mark.parametrize("name", PIECES)
def test_numbers_by_hand(measure, name):
    expected = NUMBERS[measure][list(PIECES).index(name)]
    assert getattr(pl.measures(PIECES[name]), measure) == pytest.approx(expected)


@pytest.mark.parametrize("measure", SHARES)
@pytest.mark.parametrize("name", PIECES)
def test_histograms_and_matrices_by_hand(measure, name):
    found = getattr(pl.measures(PIECES[name]), measure)
    expected = np.zeros_like(found)
    for place, share in SHARES[measure][list(PIECES).index(name)].items():
        expected[place] = share
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_every_note_length_is_its_own_class():
    fs = 48
    for i, quarters in enumerate(NOTE_LENGTHS):
        n = round(quarters * fs)
        found = pl.measures(piece([(0, n, 60), (1, n + 1, 62)], fs=fs, grid="beats"))
        assert found.note_length_histogram[i] == 1


@given(rolls(), st.integers(-11, 11))
def test_transposition_turns_pitch_classes_and_nothing_else(roll, semitones):
    pitch = roll.notes["pitch"].astype(int)
    starts = np.unique(roll.notes["start"][~roll.notes["tied"]])
    assume(len(starts) > 1 and pitch.min() + semitones >= 0 and pitch.max() + semitones <= 127)
    was, now = pl.measures(roll), pl.measures(roll.transpose(semitones))
    for name in pl.Measures._fields:
        expected = getattr(was, name)
        if name.startswith("pitch_class"):
            for axis in range(expected.ndim):
                expected = np.roll(expected, semitones, axis)
        np.testing.assert_allclose(getattr(now, name), expected)


def test_distances_within_and_between_by_hand():
    # Pitch ranges 2, 3, 7 and 4, 12, 13.
    real, written = (
        [piece([(0, 1, 60), (1, 2, 60 + n)]) for n in ranges] for ranges in ((2, 3, 7), (4, 12, 13))
    )
    row = next(
        row for row in pl.compare_measures(real, written).rows if row["measure"] == "pitch_range"
    )
    assert row["real"] == pytest.approx(4)
    assert row["written"] == pytest.approx(29 / 3)
    assert row["real distance"] == pytest.approx((1 + 5 + 4) / 3)
    assert row["written distance"] == pytest.approx((8 + 9 + 1) / 3)
    between = [2, 10, 11, 1, 9, 10, 3, 5, 6]
    assert row["distance between"] == pytest.approx(np.mean(between))
    divergence, overlap = by_quadrature([1, 5, 4], between)
    assert row["divergence"] == pytest.approx(divergence, rel=1e-3)
    assert row["overlap"] == pytest.approx(overlap, rel=1e-3)


def by_quadrature(intra, inter):
    p, q = gaussian_kde(intra), gaussian_kde(inter)
    low, high = min(*intra, *inter) - 30, max(*intra, *inter) + 30
    options = {"limit": 500, "points": np.linspace(low, high, 60)}
    divergence = quad(lambda x: p(x)[0] * (p.logpdf(x)[0] - q.logpdf(x)[0]), low, high, **options)
    return divergence[0], quad(lambda x: min(p(x)[0], q(x)[0]), low, high, **options)[0]


@pytest.mark.parametrize("seed", range(3))
def test_densities_against_quadrature(seed):
    rng = np.random.default_rng(seed)
    intra, inter = rng.gamma(2, 1, 12), rng.gamma(3, 1.5, 20)
    assert _densities_compared(intra, inter) == pytest.approx(by_quadrature(intra, inter), rel=1e-3)


def test_distances_that_are_all_the_same():
    same, other, varied = np.full(6, 0.7), np.full(9, 1.4), np.array([0.1, 0.7, 2.0])
    nearly = 0.7 + np.array([0, 1e-16, -1e-16])
    assert _densities_compared(same, nearly) == (0, 1)
    assert _densities_compared(np.zeros(3), np.zeros(9)) == (0, 1)
    for intra, inter in ((same, other), (same, varied), (varied, same), (np.zeros(3), varied)):
        assert _densities_compared(intra, inter) == (np.inf, 0)


def test_far_apart_is_finite():
    divergence, overlap = _densities_compared(np.array([1.0, 1.1, 1.3]), np.array([9.0, 9.1, 9.2]))
    assert 100 < divergence < np.inf
    assert overlap < 1e-9


def test_real_music_overlaps_and_loops_do_not():
    chorales = pl.datasets.load_chorales("validation")
    loops = [pl.PianoRoll.concatenate([roll[:16]] * (len(roll) // 16)) for roll in chorales[1::2]]
    alike, unlike = (
        {row["measure"]: row for row in pl.compare_measures(chorales[::2], other).rows}
        for other in (chorales[1::2], loops)
    )
    assert tuple(alike) == pl.Measures._fields
    assert all(row["overlap"] > 0.7 and row["divergence"] < 0.5 for row in alike.values())
    for measure in ("pitch_count", "pitch_range", "pitch_class_transitions"):
        assert unlike[measure]["overlap"] < 0.3
        assert unlike[measure]["divergence"] > 1


def test_the_table():
    other, third = MELODY.transpose(3), piece([(0, 1, 50), (3, 9, 61)], fs=4, grid="beats")
    found = pl.compare_measures([MELODY, other, third], [third, MELODY, other])
    lines = str(found).splitlines()
    assert len(lines) == 10
    assert lines[0].split("  ")[0] == "measure"
    assert lines[1].split()[:4] == ["pitch", "count", "2.667", "2.667"]
    assert lines[6].startswith("pitch class histogram      ")
    assert "nan" not in str(found)
    assert max(map(len, lines)) <= 120


def test_bad_input_is_told():
    silence = pl.PianoRoll.from_array(np.zeros((8, 128)), fs=4, grid="beats")
    chord = piece([(0, 4, 60), (0, 4, 64)], fs=4, grid="beats")
    with pytest.raises(pl.InvalidInputError, match="got 0 notes that begin at 0"):
        pl.measures(silence)
    with pytest.raises(pl.InvalidInputError, match="got 2 notes that begin at 1"):
        pl.measures(chord)
    with pytest.raises(pl.InvalidInputError, match=r"written\[1\]: Notes must begin at two"):
        pl.compare_measures([MELODY] * 3, [MELODY, chord, MELODY])
    with pytest.raises(pl.InvalidInputError, match="real must have at least 3 pieces; got 2"):
        pl.compare_measures([MELODY] * 2, [MELODY] * 3)
    with pytest.raises(pl.InvalidInputError, match=r"written\[0\] has fs=10"):
        pl.compare_measures([MELODY] * 3, [CHORDS] * 3)
