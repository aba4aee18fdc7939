"""Distances of note distributions, against hand-counted ones, scipy and linear programming."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import pianolstm as pl
from pianolstm import NoteDistributionScorer, PianoRoll
from pianolstm.scoring.distribution import (
    FEATURES,
    circular_wasserstein,
    jensen_shannon,
    total_variation,
    wasserstein,
)
from strategies import rolls

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


# ---------------------------------------------------------------------------------------- scorer


def test_counts_by_hand():
    counts = NoteDistributionScorer().fit(CORPUS).counts_
    assert {p: n for p, n in counts["pitch"].items() if n} == {60: 3, 64: 1, 67: 1, 72: 1}
    assert list(counts["pitch_class"].values()) == [4, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0, 0]
    chords = {
        pl.chord_pitches(np.frombuffer(c, np.uint64)): n for c, n in counts["chord"].items() if n
    }
    assert chords == {"": 1, "60": 2, "60*": 2, "64": 1, "67 72": 3}


def test_distances_by_hand():
    found = NoteDistributionScorer().fit(CORPUS).distances(OTHER)
    # Pitches 60 61 64 67 72: 3 0 1 1 1 of 6 and 1 1 of 2.
    p, q = np.array([3, 0, 1, 1, 1]) / 6, np.array([1, 1, 0, 0, 0]) / 2
    assert found["pitch jensen_shannon"] == pytest.approx(jensenshannon(p, q, base=2))
    work = wasserstein_distance([60, 60, 60, 64, 67, 72], [60, 61])
    assert found["pitch wasserstein"] == pytest.approx(work) == pytest.approx(10 / 3)
    # Pitch classes 0 1 4 7: 4 0 1 1 of 6 and 1 1 of 2.
    p, q = np.array([4, 0, 1, 1]) / 6, np.array([1, 1, 0, 0]) / 2
    assert found["pitch_class jensen_shannon"] == pytest.approx(jensenshannon(p, q, base=2))
    circle = np.zeros((2, 12))
    circle[0, [0, 4, 7]], circle[1, [0, 1]] = np.array([4, 1, 1]) / 6, 0.5
    assert found["pitch_class wasserstein"] == pytest.approx(circular_cost(*circle))
    # Chords rest, 60, 60*, 64, 67 72 and 61: 1 2 2 1 3 0 of 9 and 0 2 0 0 0 2 of 4.
    p, q = np.array([1, 2, 2, 1, 3, 0]) / 9, np.array([0, 2, 0, 0, 0, 2]) / 4
    assert found["chord jensen_shannon"] == pytest.approx(jensenshannon(p, q, base=2))
    assert found["chord wasserstein"] == pytest.approx(np.abs(p - q).sum() / 2)
    assert len(found) == 6


@pytest.mark.parametrize("distance", ["jensen_shannon", "wasserstein"])
@pytest.mark.parametrize("features", [FEATURES, ("chord",), ["pitch_class", "pitch"]])
def test_the_score_is_minus_the_mean_distance(features, distance):
    scorer = NoteDistributionScorer(features=features, distance=distance).fit(CORPUS)
    found = scorer.distances(OTHER)
    assert set(found) == {f"{f} {d}" for f in features for d in ("jensen_shannon", "wasserstein")}
    expected = -np.mean([found[f"{feature} {distance}"] for feature in features])
    assert scorer.score(OTHER) == pytest.approx(expected)
    assert scorer.score(OTHER) < scorer.score(CORPUS) == 0.0


@given(st.lists(rolls(fs=20, grid="seconds", min_notes=1), min_size=1, max_size=4), st.randoms())
def test_a_corpus_is_at_no_distance_from_itself_in_any_order(pieces, random):
    shuffled = list(pieces)
    random.shuffle(shuffled)
    distances = NoteDistributionScorer().fit(pieces).distances(shuffled)
    assert distances == dict.fromkeys(distances, 0.0)
    twice = NoteDistributionScorer().fit(pieces).distances([*pieces, *pieces])
    assert max(twice.values()) < 1e-7


@given(st.lists(st.integers(40, 80), min_size=1, max_size=20), st.integers(-30, 30))
def test_transposing_moves_the_distributions(pitches, steps):
    def roll(shift):
        start = np.arange(len(pitches))
        return PianoRoll.from_notes(start, start + 1, np.array(pitches) + shift)

    corpus, moved = (NoteDistributionScorer().fit([roll(shift)]).counts_ for shift in (0, steps))
    assert (
        list(moved["pitch_class"].values())
        == np.roll(list(corpus["pitch_class"].values()), steps).tolist()
    )
    found = NoteDistributionScorer().fit([roll(0)]).distances([roll(steps)])
    assert found["pitch wasserstein"] == pytest.approx(abs(steps))
    assert found["pitch_class wasserstein"] <= min(steps % 12, -steps % 12) + 1e-9


@given(rolls(fs=20, grid="seconds", min_notes=1), st.integers(1, 30))
def test_a_note_cut_in_two_is_one_onset(roll, at):
    whole, parts = [roll], [roll[:at], roll[at:]] if at < len(roll) else [roll]
    one, other = (NoteDistributionScorer(features=["pitch"]).fit(X).counts_ for X in (whole, parts))
    assert one == other


def test_the_report_ranks_the_sets():
    scorer = NoteDistributionScorer().fit(CORPUS)
    sets = {"far": OTHER, "corpus": CORPUS, "first piece": CORPUS[:1]}
    report = scorer.report(sets)
    assert [row["name"] for row in report.rows] == ["corpus", "first piece", "far"]
    assert [row["rank"] for row in report.rows] == [1, 2, 3]
    for row in report.rows:
        X = sets[row["name"]]
        assert row["score"] == scorer.score(X)
        assert {k: row[k] for k in row if " " in k} == scorer.distances(X)
    first = report.rows[0]
    assert (first["pieces"], first["notes"]) == (2, 6)
    assert first["seconds"] == pytest.approx(9 / 20)


def test_the_printed_report_is_a_table():
    report = NoteDistributionScorer(features=["pitch"]).fit(CORPUS).report({"far": OTHER})
    head, row = str(report).splitlines()
    columns = "rank name pieces seconds notes score pitch jensen_shannon pitch wasserstein"
    assert head.split() == columns.split()
    distance = report.rows[0]["pitch jensen_shannon"]
    assert row.split() == [
        *("1", "far", "1", "0.200", "2"),
        *(f"{-distance:.3f}", f"{distance:.3f}", "3.333"),
    ]
    assert head.index("pieces") + len("pieces") == row.index("1", 5) + 1


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


# ------------------------------------------------------------------------ parameters and messages


def test_the_scorer_is_a_scikit_learn_estimator():
    assert NoteDistributionScorer().get_params() == {
        "features": ("pitch", "pitch_class", "chord"),
        "distance": "jensen_shannon",
    }
    parameters = {"features": ["x"], "distance": None}
    scorer = NoteDistributionScorer(**parameters)
    assert vars(scorer) == parameters and scorer.features is parameters["features"]
    assert clone(scorer).get_params() == parameters
    assert not hasattr(clone(NoteDistributionScorer().fit(CORPUS)), "counts_")
    scorer = NoteDistributionScorer().fit(CORPUS)
    scorer.set_params(distance="wasserstein")
    expected = [d for name, d in scorer.distances(OTHER).items() if "wasserstein" in name]
    assert scorer.score(OTHER) == pytest.approx(-np.mean(expected))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"features": ("pitch", "key")}, r"features must be some of .*; got \('pitch', 'key'\)"),
        ({"features": ()}, r"features must be some of .*; got \(\)"),
        ({"features": "pitch"}, "features must be some of"),
        ({"features": None}, "features must be some of"),
        ({"distance": "l2"}, r"distance must be one of .*; got 'l2'"),
    ],
)
def test_the_scorer_refuses_parameters(parameters, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        NoteDistributionScorer(**parameters).fit(CORPUS)


def test_parameters_set_after_fit_are_checked():
    scorer = NoteDistributionScorer(features=["pitch"]).fit(CORPUS)
    with pytest.raises(pl.PianoLSTMError):
        scorer.set_params(features=["chord"]).score(OTHER)
    with pytest.raises(pl.PianoLSTMError):
        scorer.set_params(features=["pitch"], distance="l2").score(OTHER)


def test_the_scorer_wants_notes():
    silence = PianoRoll.from_notes([], [], [], n_frames=9)
    held = PianoRoll.from_notes([0], [9], [60])[3:]
    for rolls_without in ([silence], [silence, held]):
        with pytest.raises(pl.InvalidInputError, match="The rolls have no onsets"):
            NoteDistributionScorer().fit(rolls_without)
        with pytest.raises(pl.InvalidInputError, match="The rolls have no onsets"):
            NoteDistributionScorer().fit(CORPUS).score(rolls_without)


def test_the_scorer_wants_lists():
    scorer = NoteDistributionScorer().fit(CORPUS)
    for call in (scorer.fit, scorer.score, scorer.distances):
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
        scorer.plot,
    ):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            call()


def test_plot_wants_a_feature_it_has():
    scorer = NoteDistributionScorer(features=["pitch"]).fit(CORPUS)
    with pytest.raises(pl.InvalidInputError, match=r"fitted with, \('pitch',\); got 'chord'"):
        scorer.plot(feature="chord")
