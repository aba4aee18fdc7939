"""How samples lie among real music: by hand, by plain loops, and that what is no music is told."""

from __future__ import annotations

import pickle
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.base import BaseEstimator
from sklearn.model_selection import GridSearchCV

import pianolstm as pl
from pianolstm import NoteDistributionScorer, PianoRoll
from pianolstm.scoring.baselines import chord_bigram, chords_shuffled, notes_by_chance
from pianolstm.scoring.counting import CountedCorpus
from pianolstm.scoring.features import FEATURES, measure
from pianolstm.scoring.typicality import (
    SHRINKAGE,
    Reference,
    mean_of_known,
    normal_scores,
    remoteness,
    share_at_least,
    two_sided,
)
from pianolstm.tokens import TokenCorpus
from strategies import rolls

N_FRAMES = 128


@pytest.fixture(scope="module")
def chorales():
    return pl.datasets.load_chorales("train")[:60]


@pytest.fixture(scope="module")
def scorer(chorales):
    return NoteDistributionScorer(n_excerpts=80).fit(chorales)


@pytest.fixture(scope="module")
def held_out():
    rolls = pl.datasets.load_chorales("validation")
    return [roll[:N_FRAMES] for roll in rolls if len(roll) >= N_FRAMES][:20]


# -------------------------------------------------------------------------------------------- ranks

numbers = st.integers(0, 6).map(float)  # many are equal


@given(st.lists(numbers, min_size=1, max_size=12), numbers)
def test_two_sided_is_the_mean_over_the_ranks_that_a_value_shares(reference, value):
    m = len(reference)
    above = sum(r > value for r in reference) / (m + 1)
    at_least = (sum(r >= value for r in reference) + 1) / (m + 1)
    u = above + (np.arange(20_000) + 0.5) / 20_000 * (at_least - above)
    expected = np.mean(2 * np.minimum(u, 1 - u))
    (found,) = two_sided(np.array([value]), np.array(reference))
    assert found == pytest.approx(expected, abs=1e-6)
    (share,) = share_at_least(np.array([value]), np.array(reference))
    assert share == pytest.approx(at_least)


@given(st.lists(numbers, min_size=2, max_size=15))
def test_real_music_has_a_mean_typicality_of_one_half_exactly(values):
    each = [
        two_sided(np.array([v]), np.array(values[:i] + values[i + 1 :]))[0]
        for i, v in enumerate(values)
    ]
    assert np.mean(each) == pytest.approx(0.5)


def test_two_sided_by_hand():
    reference = np.array([1.0, 2.0, 2.0, 5.0])
    # Of five ranks: above all; between; with the two that are equal; below all.
    found = two_sided(np.array([9.0, 4.0, 2.0, 0.5]), reference)
    middle = (2 * 0.5**2 - 0.2**2 - 0.2**2) / 0.6
    assert found == pytest.approx([0.2, 0.6, middle, 0.2])
    assert two_sided(np.array([np.inf]), reference) == pytest.approx([0.2])


def test_remoteness_by_plain_loops():
    rng = np.random.default_rng(0)
    reference = rng.normal(size=(30, 3)) @ rng.normal(size=(3, 3))
    reference[:9, 2] = 0.0  # equal
    values = np.array([[0.1, np.nan, 0.0], [9.0, -0.2, np.inf], [-0.5, 0.3, 1.0]])

    def scores(rows):
        found = np.zeros(rows.shape)
        for i, row in enumerate(rows):
            for j, v in enumerate(row):
                if not np.isnan(v):
                    below, equal = np.sum(reference[:, j] < v), np.sum(reference[:, j] == v)
                    found[i, j] = norm.ppf((below + equal / 2 + 0.5) / 31)
        return found

    known = scores(reference)
    covariance = (1 - SHRINKAGE) * known.T @ known / 30 + SHRINKAGE * np.eye(3)
    inverse = np.linalg.inv(covariance)
    expected = [np.sqrt(z @ inverse @ z / 3) for z in scores(values)]
    assert remoteness(values, reference) == pytest.approx(expected)
    assert normal_scores(values, reference) == pytest.approx(scores(values))


def test_a_reference_judges_each_excerpt_by_other_pieces():
    rng = np.random.default_rng(1)
    statistics, pieces = rng.normal(size=(12, 2)), np.repeat([4, 7, 9], 4)
    bags = [{"pitch": (np.array([i]), np.array([1]))} for i in range(12)]
    found = Reference.of(statistics, pieces, bags)
    far = np.concatenate(
        [remoteness(statistics[pieces == p], statistics[pieces != p]) for p in (4, 7, 9)]
    )
    assert found.scale == pytest.approx(np.median(far))
    assert found.remoteness == pytest.approx(far / np.median(far))
    rest = found.without(7)
    assert rest.pieces.tolist() == [4] * 4 + [9] * 4
    assert [bag["pitch"][0][0] for bag in rest.bags] == [0, 1, 2, 3, 8, 9, 10, 11]


def test_means_leave_out_what_is_not_known():
    values = np.array([[1.0, np.nan, np.nan], [4.0, 2.0, np.nan]])
    np.testing.assert_array_equal(mean_of_known(values), [2.5, 2.0, np.nan])


# ------------------------------------------------------------------------------------ left out


@settings(max_examples=30)
@given(st.lists(rolls(fs=20, grid="seconds"), min_size=2, max_size=4), st.data())
def test_counts_without_a_piece_are_those_of_the_others(pieces, data):
    i = data.draw(st.integers(0, len(pieces) - 1))
    whole, others = CountedCorpus(pieces), CountedCorpus(pieces[:i] + pieces[i + 1 :])
    for name in whole.totals:
        counts, expected = whole.without([i], name), others.totals[name]
        if name == "chord":
            found = {c.tobytes(): n for c, n in zip(whole.chords, counts, strict=False) if n}
            expected = {c.tobytes(): n for c, n in zip(others.chords, expected, strict=False) if n}
            assert found == expected
        else:
            np.testing.assert_array_equal(counts, expected)


def test_an_excerpt_is_compared_with_the_other_pieces(chorales, scorer):
    reference = scorer._real.reference(N_FRAMES)
    excerpts, pieces = scorer._real.draw(N_FRAMES, 80, np.random.default_rng((0, N_FRAMES)))
    np.testing.assert_array_equal(pieces, reference.pieces)
    for k in (0, 33):
        i = int(pieces[k])
        others = NoteDistributionScorer().fit(chorales[:i] + chorales[i + 1 :])
        expected = others.distances([excerpts[k]])
        numbers = measure(excerpts[k])
        for j, name in enumerate(scorer.features_):
            value = numbers.get(name, expected.get(f"{name} jensen_shannon"))
            assert reference.statistics[k, j] == pytest.approx(value)
    assert set(np.unique(pieces, return_counts=True)[1]) <= {1, 2}  # all pieces as often
    assert all(len(excerpt) == N_FRAMES for excerpt in excerpts)


def test_typicality_ranks_among_the_excerpts(scorer, held_out):
    found = scorer.typicality(held_out[:3])
    reference = scorer._real.reference(N_FRAMES)
    j = scorer.features_.index("duration")
    for i, roll in enumerate(held_out[:3]):
        distance = scorer.distances([roll])["duration jensen_shannon"]
        assert found.distances[i, j] == pytest.approx(distance)
        real = reference.statistics[:, j]
        assert found.shares[i, j] == pytest.approx((np.sum(real >= distance) + 1) / 81)
        assert found.values[i, j] == two_sided(np.array([distance]), real)[0]
    far = reference.remoteness_of(found.distances)
    assert found.remoteness == pytest.approx(far)
    assert found.overall == pytest.approx(share_at_least(far, reference.remoteness))
    assert scorer.score(held_out[:3]) == pytest.approx(-np.mean(np.maximum(far, 1)))
    name, *numbers = str(found).splitlines()[1 + j].split()
    assert name == "duration"
    assert float(numbers[0]) == pytest.approx(found.distances[:, j].mean(), abs=1e-3)


def test_a_long_piece_is_cut_into_parts_of_one_length(scorer, chorales):
    real = scorer._real
    longest = sorted(map(len, chorales))[-10]
    assert real.longest == longest
    long = PianoRoll.concatenate(chorales[:3])
    parts, of = real.parts([chorales[0][:50], long])
    assert [len(part) for part in parts] == [50] + [longest] * (len(parts) - 1)
    assert of.tolist() == [0] + [1] * (len(parts) - 1)
    assert parts[1] == long[:longest] and parts[-1] == long[-longest:]
    assert (len(parts) - 2) * longest < len(long) <= (len(parts) - 1) * longest
    one, each = scorer.typicality([long]), scorer.typicality(parts[1:])
    assert one.values[0] == pytest.approx(each.values.mean(axis=0))
    assert one.remoteness[0] == pytest.approx(each.remoteness.mean())


def test_the_same_seed_gives_the_same_scores(chorales, scorer, held_out):
    again = NoteDistributionScorer(n_excerpts=80).fit(chorales)
    other = NoteDistributionScorer(n_excerpts=80, random_state=1).fit(chorales)
    again.score([held_out[0][:64]])  # what was asked before does not matter
    assert again.score(held_out) == scorer.score(held_out) != other.score(held_out)


def test_a_piece_of_silence_is_far_from_music(scorer):
    silence = PianoRoll.from_notes([], [], [], n_frames=N_FRAMES, fs=4, grid="beats")
    found = scorer.typicality([silence])
    assert found.values[0, scorer.features_.index("pitch")] == pytest.approx(1 / 81)
    assert found.score < -1.5


# --------------------------------------------------------------------------------------- machines


def test_notes_by_chance_have_the_pitches_of_the_corpus_in_no_order():
    corpus = [
        PianoRoll.from_notes([0, 0, 5], [10, 5, 10], [60, 64, 67], n_frames=20),
        PianoRoll.from_notes([0], [10], [64], n_frames=20),
    ]
    pieces = notes_by_chance(corpus, 2000, 3, np.random.default_rng(0))
    assert [len(piece) for piece in pieces] == [2000] * 3
    sounds = np.mean([piece.velocity > 0 for piece in pieces], axis=(0, 1))
    expected = np.zeros(128)
    expected[[60, 64, 67]] = 10 / 40, 15 / 40, 5 / 40
    assert sounds == pytest.approx(expected, abs=0.03)
    assert {p for p, share in enumerate(sounds) if share} == {60, 64, 67}


def test_shuffled_chords_are_the_same_chords_at_the_same_times(chorales):
    (piece,) = chords_shuffled(chorales[:1], np.random.default_rng(0))
    begins, chords = [], []
    for roll in (chorales[0], piece):
        sounding = roll.velocity > 0
        before = np.concatenate([np.zeros((1, 128), bool), sounding[:-1]])
        changes = np.any((sounding != before) | roll.onset, axis=1)
        begins.append(np.flatnonzero(changes).tolist())
        chords.append(sorted(map(tuple, sounding[changes].tolist())))
    # Where a chord follows itself by chance with nothing struck again, it does not begin.
    assert set(begins[1]) <= set(begins[0]) and len(begins[1]) > 0.9 * len(begins[0])
    assert set(chords[1]) == set(chords[0])
    assert (len(piece), piece.fs, piece.grid) == (len(chorales[0]), 4, "beats")
    assert piece.tempo_map == chorales[0].tempo_map and piece != chorales[0]


def test_the_bigram_goes_from_chord_to_chord_as_the_corpus_does():
    # After 60 come 60 and 64, three times each; after 64 comes 67, and after that the end.
    corpus = [PianoRoll.from_notes([0, 2, 3], [2, 3, 4], [60, 64, 67])] * 3
    pieces = chord_bigram(corpus, 4000, 2, np.random.default_rng(0))
    tokens = TokenCorpus.of([*corpus[:1], *pieces])
    a, _, b, c = tokens.tokens[0].tolist()
    follow = np.zeros((3, 3))
    names = {a: 0, b: 1, c: 2}
    for piece in tokens.tokens[1:]:
        assert set(piece.tolist()) == set(names)
        for x, y in zip(piece[:-1].tolist(), piece[1:].tolist(), strict=True):
            follow[names[x], names[y]] += 1
    every = np.array([6, 3, 3]) / 12
    expected = [
        (np.array([3, 3, 0]) + 2 * every) / 8,  # six frames, two that follow
        (np.array([0, 0, 3]) + every) / 4,
        every,
    ]
    found = follow / follow.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, expected, atol=0.03)


def test_real_music_ranks_above_what_is_none(scorer, held_out, chorales):
    rng = np.random.default_rng(0)
    real = scorer.typicality(held_out)
    bar_again = [PianoRoll.concatenate([r[:16]] * 8) for r in held_out]
    machines = {
        "by chance": notes_by_chance(chorales, N_FRAMES, 20, rng),
        "bigram": chord_bigram(chorales, N_FRAMES, 20, rng),
        "shuffled": chords_shuffled(held_out, rng),
        "bar again": bar_again,
        "everything at once": [
            PianoRoll.concatenate([r[:8] for r in chorales[k : k + 16]]) for k in range(20)
        ],
    }
    for name, pieces in machines.items():
        found = scorer.typicality(pieces)
        assert found.score < real.score - 0.05, name
        assert found.overall.mean() < real.overall.mean(), name
    assert 0.3 < real.overall.mean() < 0.7
    assert real.score > -1.3
    told = {
        "by chance": "duration_transition",
        "shuffled": "pitch_class_information",
        "bar again": "twice",
    }
    for name, feature in told.items():
        j = scorer.features_.index(feature)
        assert np.median(scorer.typicality(machines[name]).values[:, j]) < 0.05, name
        assert np.median(real.values[:, j]) > 0.25, feature


# ----------------------------------------------------------------------------------------- report


@pytest.fixture(scope="module")
def sets(held_out):
    loops = [PianoRoll.concatenate([r[:16]] * 8) for r in held_out[:5]]
    return {"loops": loops, "held out": held_out, "one with a name too long to print": held_out[:1]}


@pytest.fixture(scope="module")
def report(scorer, sets):
    return scorer.report(sets)


def row_of(report, name):
    return next(row for row in report.rows if row["name"] == name)


def test_the_report_ranks_sets_beside_machines(scorer, sets, report):
    names = [row["name"] for row in report.rows]
    machines = {"(chords shuffled)", "(bigram of chords)", "(notes by chance)"}
    assert set(names) == {*sets, *machines, "(real, left out)"}
    assert {"held out", "(real, left out)"} <= set(names[:3])
    assert [row["rank"] for row in report.rows] == [1, 2, 3, 4, 5, 6, 7]
    scores = [row["score"] for row in report.rows]
    assert scores == sorted(scores, reverse=True)
    row, rolls = row_of(report, "loops"), sets["loops"]
    found = scorer.typicality(rolls)
    assert row["score"] == found.score and row["overall"] == found.overall.mean()
    assert (row["pieces"], row["notes"]) == (5, sum(len(r.notes) for r in rolls))
    assert row["seconds"] == pytest.approx(sum(r.seconds for r in rolls))
    for name, value in scorer.distances(rolls).items():
        assert row[name] == value
    means = found.values.mean(axis=0)
    for j, name in enumerate(scorer.features_):
        assert row[f"{name} typicality"] == pytest.approx(means[j])
    of_rhythm = [j for j, n in enumerate(scorer.features_) if FEATURES[n].group == "rhythm"]
    assert row["rhythm"] == pytest.approx(means[of_rhythm].mean())


def test_the_report_says_how_sure_distances_are(scorer, report):
    many, one = row_of(report, "held out"), row_of(report, "one with a name too long to print")
    # One piece drawn anew is the same piece.
    assert one["pitch low"] == one["pitch high"] == one["pitch jensen_shannon"]
    assert many["pitch low"] < many["pitch jensen_shannon"] < many["pitch high"]
    assert many["pitch real"] < one["pitch real"]  # more music is nearer
    assert one["pitch real"] == pytest.approx(
        np.median(scorer._real.reference(N_FRAMES).statistics[:, 0]), rel=0.15
    )


def test_few_excerpts_of_many_pieces_will_do(chorales):
    scorer = NoteDistributionScorer(features=["pitch"], n_excerpts=3).fit(chorales)
    report = scorer.report({"x": [chorales[0][:64], chorales[1][:96], chorales[2][:80]]})
    assert 0 < row_of(report, "x")["pitch real"] < 1


def test_what_can_not_be_judged_is_left_out_of_the_table(held_out):
    rng = np.random.default_rng(0)
    loud = []
    for roll in held_out[:6]:
        notes = roll.notes.copy()
        notes["velocity"] = rng.integers(30, 100, len(notes))
        loud.append(PianoRoll(notes, len(roll), roll.fs, roll.grid, roll.tempo_map))
    report = (
        NoteDistributionScorer(features=["velocity", "pitch"], n_excerpts=9)
        .fit(loud)
        .report({"as loud throughout": held_out[6:8], "loud": loud[:2]})
    )
    lines = {line.split()[1]: line.split() for line in str(report).splitlines()}
    assert lines["name"][-2:] == ["harmony", "velocity"]
    assert lines["as"][-1] == "-" and 0 < float(lines["loud"][-1]) <= 1
    assert np.isfinite(row_of(report, "as loud throughout")["score"])


def test_the_printed_report_is_a_table_of_100_columns(report):
    head, *lines = str(report).splitlines()
    assert head.split() == [
        *("rank", "name", "pieces", "seconds", "score", "overall"),
        *("harmony", "rhythm", "order", "form"),
    ]
    assert len(lines) == 7 and max(map(len, (head, *lines))) <= 100
    assert any("  one with a name to…  " in line for line in lines)
    last = report.rows[-1]
    assert lines[-1].split()[-4:] == [f"{last[group]:.3f}" for group in report.groups]
    assert f"{last['score']:.3f}" in lines[-1] and f"{last['seconds']:.1f}" in lines[-1]


def test_the_frame_needs_pandas(scorer, held_out, monkeypatch):
    report = (
        NoteDistributionScorer(features=["pitch"], n_excerpts=9)
        .fit(held_out)
        .report({"x": held_out[:1]})
    )
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(pl.PianoLSTMError, match="needs pandas; install it with: pip install"):
        _ = report.frame
    monkeypatch.setitem(sys.modules, "pandas", SimpleNamespace(DataFrame=tuple))
    assert report.frame == report.rows


# -------------------------------------------------------------------------------------- as_scorer


class Writer(BaseEstimator):
    """Writes real music, or one bar again and again."""

    def __init__(self, is_real=True):
        self.is_real = is_real

    def fit(self, X, y=None):
        return self

    def generate(self, n_frames, *, n_pieces, random_state):
        rolls = pl.datasets.load_chorales("test")
        rolls = [r[:n_frames] for r in rolls if len(r) >= n_frames][random_state:][:n_pieces]
        bars = [PianoRoll.concatenate([r[:16]] * (n_frames // 16)) for r in rolls]
        return rolls if self.is_real else bars


def test_models_are_chosen_by_what_they_write(scorer, held_out):
    scoring = scorer.as_scorer(N_FRAMES, n_pieces=6, random_state=2)
    written = Writer().generate(N_FRAMES, n_pieces=6, random_state=2)
    assert scoring(Writer(), held_out) == scorer.score(written)
    assert pickle.loads(pickle.dumps(scoring))(Writer(), None) == scorer.score(written)
    search = GridSearchCV(Writer(), {"is_real": [False, True]}, scoring=scoring, cv=2)
    assert search.fit(held_out).best_params_ == {"is_real": True}


# ------------------------------------------------------------------------------- plot and messages


def test_plot_typicality_draws_pieces_among_real_excerpts(scorer, held_out):
    from matplotlib.figure import Figure

    ax = Figure().add_subplot()
    assert scorer.plot_typicality(held_out[:3], feature="duration", ax=ax) is ax
    real = scorer._real.reference(N_FRAMES).statistics[:, scorer.features_.index("duration")]
    assert sum(bar.get_height() for bar in ax.patches) == len(real)
    found = scorer.typicality(held_out[:3]).distances[:, scorer.features_.index("duration")]
    assert [line.get_xdata()[0] for line in ax.lines] == pytest.approx(found)
    assert ax.get_xlabel() == "Jensen-Shannon distance, duration"
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels == ["real excerpts", "pieces"]
    ax = scorer.plot_typicality(held_out[:1], feature="twice", ax=Figure().add_subplot())
    assert ax.get_xlabel() == "twice"


def test_bad_input_is_told(scorer, held_out):
    one = NoteDistributionScorer().fit(held_out[:1])
    assert one.distances(held_out[:1])["pitch jensen_shannon"] == 0
    for call in (one.score, one.typicality, lambda X: one.report({"x": X})):
        with pytest.raises(pl.InvalidInputError, match="one piece; typicality needs at least two"):
            call(held_out[:1])
    with pytest.raises(pl.InvalidInputError, match=r"X\[1\] has no frames"):
        scorer.score([held_out[0], held_out[0][:0]])
    with pytest.raises(pl.InvalidInputError, match=r"pieces of 64 to 128 frames; .*roll\[:n\]"):
        scorer.plot_typicality([held_out[0], held_out[0][:64]])
    with pytest.raises(pl.InvalidInputError, match=r"fs=20 .*; expected fs=4"):
        scorer.score([PianoRoll.from_notes([0], [1], [60])])
    with pytest.raises(pl.InvalidInputError, match="n_frames must be at least 1; got 0"):
        scorer.as_scorer(0)
    with pytest.raises(pl.InvalidInputError, match="n_pieces must be at least 1; got 0"):
        scorer.as_scorer(9, n_pieces=0)
