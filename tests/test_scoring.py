"""Distances of note distributions, against hand-counted ones, scipy and linear programming."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.distance import jensenshannon
from scipy.stats import entropy, wasserstein_distance
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import pianolstm as pl
from pianolstm import NoteDistributionScorer, PianoRoll
from pianolstm.scoring.distances import (
    DISTANCES,
    circular_wasserstein,
    distance,
    jensen_shannon,
    kullback_leibler,
    total_variation,
    wasserstein,
)
from pianolstm.scoring.features import FEATURES
from strategies import rolls

ORDERS = ("ordered", "circular", "unordered")

# Onsets: 60 60 60 64 | 72 67. Chords: 60 60 60* 60* 64 rest | 67 72 three times.
CORPUS = [
    PianoRoll.from_notes([0, 2, 3, 4], [2, 3, 4, 5], [60, 60, 60, 64], n_frames=6),
    PianoRoll.from_notes([0, 0], [3, 3], [72, 67]),
]
# Onsets: 60 61. Chords: 60 60 61 61.
OTHER = [PianoRoll.from_notes([0, 2], [2, 4], [60, 61])]


@st.composite
def distributions(draw, size=None):
    """Two distributions over the same bins, empty bins among them."""
    size = size or draw(st.integers(1, 20))
    counts = st.lists(st.integers(0, 30), min_size=size, max_size=size).filter(sum)
    return tuple(np.array(c) / sum(c) for c in (draw(counts), draw(counts)))


def circular_cost(p, q):
    """Optimal transport on a circle as a linear programme."""
    n = len(p)
    steps = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    cost = np.minimum(steps, n - steps)
    rows = np.kron(np.eye(n), np.ones(n))
    columns = np.kron(np.ones(n), np.eye(n))
    found = linprog(
        cost.ravel(), A_eq=np.vstack([rows, columns]), b_eq=np.concatenate([p, q]), method="highs"
    )
    return found.fun


# -------------------------------------------------------------------------------------- distances


@given(distributions())
def test_jensen_shannon_equals_scipy(pair):
    # The root magnifies the rounding of a divergence near 0.
    assert jensen_shannon(*pair) == pytest.approx(jensenshannon(*pair, base=2), abs=1e-7)


def test_jensen_shannon_by_hand():
    p, q = np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.0, 0.5])
    assert jensen_shannon(p, q) == pytest.approx(np.sqrt(0.5))
    assert jensen_shannon(p, p) == 0.0
    p, q = np.array([1.0, 0.0]), np.array([0.25, 0.75])
    # Half of 1 · log2(1 / 0.625), and half of 0.25 · log2(0.25 / 0.625) + 0.75 · log2(2).
    divergence = (0.6780719051126377 + (-0.33048202372184065 + 0.75)) / 2
    assert jensen_shannon(p, q) == pytest.approx(np.sqrt(divergence))


@given(distributions())
def test_wasserstein_equals_scipy(pair):
    bins = np.arange(len(pair[0]))
    assert wasserstein(*pair) == pytest.approx(wasserstein_distance(bins, bins, *pair), abs=1e-12)


@given(distributions(size=12))
def test_circular_wasserstein_equals_linear_programming(pair):
    assert circular_wasserstein(*pair) == pytest.approx(circular_cost(*pair), abs=1e-8)


def test_wasserstein_by_hand():
    p, q = np.eye(12)[0], (np.eye(12)[11] + np.eye(12)[2]) / 2
    assert wasserstein(p, q) == pytest.approx((11 + 2) / 2)
    assert circular_wasserstein(p, q) == pytest.approx((1 + 2) / 2)
    assert total_variation(p, q) == 1.0
    assert total_variation(np.array([0.75, 0.25, 0]), np.array([0.25, 0.5, 0.25])) == 0.5


@given(distributions(), st.sampled_from([1e-4, 0.01, 0.5]))
def test_kullback_leibler_equals_scipy(pair, smoothing):
    p, q = pair
    smooth = [(1 - smoothing) * share + smoothing * 1 / len(p) for share in p]
    assert kullback_leibler(p, q, smoothing) == pytest.approx(entropy(q, smooth, base=2), abs=1e-9)


def test_kullback_leibler_by_hand():
    p, q = np.array([0.5, 0.25, 0.25, 0.0]), np.array([0.0, 0.75, 0.0, 0.25])
    # Half of it spread evenly: 0.375, 0.25, 0.25, 0.125.
    expected = 0.75 * np.log2(3) + 0.25 * np.log2(2)
    assert kullback_leibler(p, q, smoothing=0.5) == pytest.approx(expected)
    assert np.isfinite(kullback_leibler(p, q))


@given(distributions())
def test_overlap_is_what_two_histograms_do_not_share(pair):
    shared = sum(min(x, y) for x, y in zip(*pair, strict=True))
    assert distance("overlap", "ordered", *pair) == pytest.approx(1 - shared)


def test_nothing_is_infinitely_far():
    some, none = np.array([1, 2, 0]), np.zeros(3, int)
    for name in DISTANCES:
        assert distance(name, "ordered", some, none) == np.inf
        assert distance(name, "ordered", none, some) == np.inf


def test_a_distance_is_of_counts_by_the_kind_of_bins():
    corpus, sample = np.array([3, 0, 0, 1]), np.array([0, 0, 0, 2])
    work = {kind: distance("wasserstein", kind, corpus, sample) for kind in ORDERS}
    assert work == {"ordered": 2.25, "circular": 0.75, "unordered": 0.75}


# ---------------------------------------------------------------------------------------- scorer


def test_counts_by_hand():
    scorer = NoteDistributionScorer().fit(CORPUS)
    pitch = scorer.counts_["pitch"]
    assert {p: n for p, n in enumerate(pitch) if n} == {60: 3, 64: 1, 67: 1, 72: 1}
    assert scorer.counts_["pitch_class"].tolist() == [4, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    counts = scorer.counts_["chord"]
    chords = {pl.chord_pitches(c): n for c, n in zip(scorer.chords_, counts, strict=False)}
    assert chords == {"": 1, "60": 2, "60*": 2, "64": 1, "67 72": 3}
    assert counts[-1] == 0  # of chords of other music
    assert "velocity" not in scorer.features_  # all are 64


def test_distances_by_hand():
    found = NoteDistributionScorer(features=["pitch", "chord"]).fit(CORPUS).distances(OTHER)
    # Pitches 60 61 64 67 72: 3 0 1 1 1 of 6 and 1 1 of 2.
    p, q = np.array([3, 0, 1, 1, 1]) / 6, np.array([1, 1, 0, 0, 0]) / 2
    assert found["pitch jensen_shannon"] == pytest.approx(jensenshannon(p, q, base=2))
    work = wasserstein_distance([60, 60, 60, 64, 67, 72], [60, 61])
    assert found["pitch wasserstein"] == pytest.approx(work)
    assert found["pitch overlap"] == pytest.approx(0.5)
    # Of 128 bins, of which 61 has what is spread alone.
    spread = 0.01 / 128
    bits = 0.5 * np.log2(0.5 / (0.99 * 0.5 + spread)) + 0.5 * np.log2(0.5 / spread)
    assert found["pitch kullback_leibler"] == pytest.approx(bits)
    # Chords rest, 60, 60*, 64, 67 72 and 61: 1 2 2 1 3 0 of 9 and 0 2 0 0 0 2 of 4.
    p, q = np.array([1, 2, 2, 1, 3, 0]) / 9, np.array([0, 2, 0, 0, 0, 2]) / 4
    assert found["chord jensen_shannon"] == pytest.approx(jensenshannon(p, q, base=2))
    assert found["chord wasserstein"] == pytest.approx(np.abs(p - q).sum() / 2)
    assert len(found) == 8


@given(st.lists(rolls(fs=20, grid="seconds", min_notes=1), min_size=1, max_size=4), st.randoms())
def test_a_corpus_is_at_no_distance_from_itself_in_any_order(pieces, random):
    shuffled = list(pieces)
    random.shuffle(shuffled)
    for X in (shuffled, [*pieces, *pieces]):
        found = NoteDistributionScorer().fit(pieces).distances(X)
        for name, value in found.items():
            if name.endswith("kullback_leibler"):  # of what is spread
                assert value <= -np.log2(0.99) or value == np.inf
            else:
                assert value < 1e-7 or value == np.inf  # one note has no interval


@given(st.lists(st.integers(40, 80), min_size=1, max_size=20), st.integers(-30, 30))
def test_transposing_moves_a_distribution_by_as_many_semitones(pitches, steps):
    def roll(shift):
        start = np.arange(len(pitches))
        return PianoRoll.from_notes(start, start + 1, np.array(pitches) + shift)

    found = NoteDistributionScorer().fit([roll(0)]).distances([roll(steps)])
    assert found["pitch wasserstein"] == pytest.approx(abs(steps))
    assert found["pitch_class wasserstein"] <= min(steps % 12, -steps % 12) + 1e-9


@given(rolls(fs=20, grid="seconds", min_notes=1), st.integers(1, 30))
def test_a_note_cut_in_two_is_one_onset(roll, at):
    whole, parts = [roll], [roll[:at], roll[at:]] if at < len(roll) else [roll]
    one, other = (NoteDistributionScorer(features=["pitch"]).fit(X).counts_ for X in (whole, parts))
    np.testing.assert_array_equal(one["pitch"], other["pitch"])


def test_plain_arrays_are_rolls():
    plane = np.zeros((4, 128))
    plane[:2, 60] = plane[2:, 61] = 1
    scorer = NoteDistributionScorer().fit(CORPUS)
    assert scorer.distances([plane]) == scorer.distances(OTHER)


# ------------------------------------------------------------------------------------------- plot


def test_plot_draws_the_shares_of_pitches():
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    scorer = NoteDistributionScorer().fit(CORPUS)
    assert scorer.plot({"far": OTHER}, ax=ax) is ax
    heights = [bar.get_height() for bar in ax.patches]
    expected = np.zeros(13)  # from 60 to 72
    expected[[0, 4, 7, 12]] = np.array([3, 1, 1, 1]) / 6
    np.testing.assert_allclose(heights, expected)
    (line,) = ax.lines
    np.testing.assert_allclose(line.get_ydata(), np.eye(13)[0] / 2 + np.eye(13)[1] / 2)
    assert [t.get_text() for t in ax.get_xticklabels()] == ["C4", "C5"]
    assert ax.get_xticks().tolist() == [0, 12]
    assert {t.get_text() for t in ax.get_legend().get_texts()} == {"corpus", "far"}
    assert line.get_label() == "far"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("pitch", "share")


def test_plot_draws_pitch_classes_and_chords():
    from matplotlib.figure import Figure

    scorer = NoteDistributionScorer().fit(CORPUS)
    ax = scorer.plot(feature="pitch_class", ax=Figure().add_subplot())
    heights = [bar.get_height() for bar in ax.patches]
    np.testing.assert_allclose(heights, np.array([4, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]) / 6)
    assert [t.get_text() for t in ax.get_xticklabels()][:4] == ["C", "C♯", "D", "E♭"]

    ax = scorer.plot({"far": OTHER}, feature="chord", max_bins=3, ax=Figure().add_subplot())
    np.testing.assert_allclose([bar.get_height() for bar in ax.patches], np.array([3, 2, 2]) / 9)
    labels = [t.get_text() for t in ax.get_xticklabels()]
    assert labels[0] == "67\n72" and set(labels[1:]) == {"60", "60*"}
    assert ax.lines[0].get_ydata()[labels.index("60")] == 0.5
    ax = scorer.plot(feature="chord", ax=Figure().add_subplot())
    assert "rest" in [t.get_text() for t in ax.get_xticklabels()]


@pytest.mark.parametrize("feature", [n for n in FEATURES if FEATURES[n].bins != "number"])
def test_plot_draws_every_distribution(feature):
    from matplotlib.figure import Figure

    pieces = [PianoRoll.from_notes([0, 1, 3, 7], [1, 3, 7, 8], [60, 72, 61, 61], [9, 70, 99, 70])]
    scorer = NoteDistributionScorer().fit(pieces)
    ax = scorer.plot(feature=feature, ax=Figure().add_subplot())
    assert sum(bar.get_height() for bar in ax.patches) == pytest.approx(1)
    labels = [t.get_text() for t in ax.get_xticklabels()]
    first = {
        "melodic_interval": "+0",
        "duration": "1",
        "pitch_class_transition": "C\nC",
        "velocity": "8",
    }
    assert first.get(feature, labels[0]) == labels[0]


# ------------------------------------------------------------------------ parameters and messages


def test_the_scorer_is_a_scikit_learn_estimator():
    assert NoteDistributionScorer().get_params() == {
        "features": None,
        "distance": "jensen_shannon",
        "n_excerpts": 200,
        "random_state": 0,
    }
    parameters = {"features": ["x"], "distance": None, "n_excerpts": "few", "random_state": -1}
    scorer = NoteDistributionScorer(**parameters)
    assert vars(scorer) == parameters and scorer.features is parameters["features"]
    assert clone(scorer).get_params() == parameters
    assert not hasattr(clone(NoteDistributionScorer().fit(CORPUS)), "counts_")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"features": ("pitch", "key")},
            r"features must be None or some of .*; got \('pitch', 'key'\)",
        ),
        ({"features": ()}, r"features must be None or some of .*; got \(\)"),
        ({"features": "pitch"}, "features must be None or some of"),
        ({"n_excerpts": 1}, "n_excerpts must be at least 2; got 1"),
        ({"random_state": -1}, "random_state must be an int"),
        ({"distance": "l2"}, r"distance must be one of .*; got 'l2'"),
    ],
)
def test_the_scorer_refuses_parameters(parameters, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        NoteDistributionScorer(**parameters).fit(CORPUS)


def test_a_fit_that_fails_leaves_the_scorer_as_it_was():
    scorer = NoteDistributionScorer(features=["pitch"]).fit(CORPUS)
    before = dict(vars(scorer))
    with pytest.raises(pl.InvalidInputError):
        scorer.fit([PianoRoll.from_notes([], [], [], n_frames=9)])
    assert vars(scorer) == before


def test_the_scorer_wants_notes():
    silence = PianoRoll.from_notes([], [], [], n_frames=9)
    held = PianoRoll.from_notes([0], [9], [60])[3:]
    for rolls_without in ([silence], [silence, held]):
        with pytest.raises(pl.InvalidInputError, match="The rolls have no onsets"):
            NoteDistributionScorer().fit(rolls_without)
    found = NoteDistributionScorer(features=["pitch", "polyphony"]).fit(CORPUS).distances([silence])
    assert found["pitch wasserstein"] == np.inf
    assert found["polyphony wasserstein"] == pytest.approx((3 * 2 + 5) / 9)


def test_velocity_counts_only_where_it_varies():
    with pytest.raises(pl.InvalidInputError, match=r"\"velocity\" alone, but all notes .* equally"):
        NoteDistributionScorer(features=["velocity"]).fit(CORPUS)
    loud = [PianoRoll.from_notes([0, 1], [1, 2], [60, 62], [40, 90]) for _ in range(3)]
    scorer = NoteDistributionScorer(features=["velocity", "pitch"], n_excerpts=9).fit(loud)
    assert scorer.features_ == ("velocity", "pitch")
    found = scorer.typicality([loud[0], PianoRoll.from_notes([0, 1], [1, 2], [60, 62])])
    assert np.isnan(found.values).tolist() == [[False, False], [True, False]]
    assert np.isfinite(found.score)


def test_the_scorer_wants_lists():
    scorer = NoteDistributionScorer().fit(CORPUS)
    for call in (scorer.fit, scorer.score, scorer.distances, scorer.typicality):
        with pytest.raises(pl.InvalidInputError, match="Wrap it in a list"):
            call(OTHER[0])
        with pytest.raises(pl.InvalidInputError, match="X is empty"):
            call([])
    with pytest.raises(pl.InvalidInputError, match=r"far must be a list .*Wrap it in a list"):
        scorer.report({"far": OTHER[0]})
    with pytest.raises(pl.InvalidInputError, match="at least one named set of rolls; got none"):
        scorer.report({})


def test_the_scorer_wants_to_be_fitted():
    scorer = NoteDistributionScorer()
    for call in (
        lambda: scorer.score(OTHER),
        lambda: scorer.distances(OTHER),
        lambda: scorer.report({"far": OTHER}),
        lambda: scorer.typicality(OTHER),
        lambda: scorer.as_scorer(9),
        lambda: scorer.plot_typicality(OTHER),
        scorer.plot,
    ):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()


def test_plot_wants_a_feature_it_has():
    scorer = NoteDistributionScorer(features=["pitch"]).fit(CORPUS)
    for plot in (scorer.plot, lambda **feature: scorer.plot_typicality(OTHER, **feature)):
        with pytest.raises(pl.InvalidInputError, match=r"fitted with, \('pitch',\); got 'chord'"):
            plot(feature="chord")
