"""Excerpts described by hand; a test that is uniform by chance, and finds what was planted."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from sklearn.metrics import roc_auc_score

import pianolstm as pl
from pianolstm.scoring.excerpt_features import FEATURES, MAJOR, MINOR, Excerpts, excerpt_features
from pianolstm.scoring.two_sample import (
    _auc,
    _deals,
    _folds,
    _giveaways,
    _p_value,
    _tested,
    _told,
    weighted_auc,
)


def described(*columns, **settings):
    roll = pl.PianoRoll.from_notes(*columns, **settings)
    return dict(zip(FEATURES, excerpt_features(roll).tolist(), strict=True))


# At 4 frames a second: a third, a note that outlasts its upper one, a ninth; then 4 s of nothing.
START, END = [0, 0, 2, 6, 6], [2, 4, 6, 8, 7]
PITCH, VELOCITY = [60, 64, 67, 61, 48], [40, 60, 80, 50, 70]
CLASSES = np.array([3, 2, 4, 4]) / 13  # C, C sharp, E, G: shares of how long they sound
BY_HAND = {
    "note density": 5 / 6,
    "onset density": 3 / 6,
    "notes per onset": 5 / 3,
    "polyphony mean": 13 / 24,
    "polyphony sd": np.sqrt(23 / 24 - (13 / 24) ** 2),
    "silence": 16 / 24,
    "held": 6 / 24,
    "duration mean": 2**-0.8,
    "duration sd": np.sqrt(0.56),
    "inter-onset mean": 2**-0.5,
    "inter-onset sd": 0.5,
    "inter-onset entropy": 1,
    "even rhythm": 0,
    "off the beat": np.nan,
    "syncopation": np.nan,
    "pitch mean": 60,
    "pitch sd": np.sqrt((0 + 16 + 49 + 1 + 144) / 5),
    "pitch range": 19,
    "bass mean": (60 + 67 + 48) / 3,
    "melody mean": (64 + 67 + 61) / 3,
    "pitch-class entropy": -(CLASSES * np.log2(CLASSES)).sum(),
    "melody interval": (3 + 6) / 2,
    "melody repeats": 0,
    "melody steps": 0,
    "melody leaps": 1 / 2,
    "melody turns": 1,
    "bass interval": (7 + 19) / 2,
    "repeated chords": 0,
    "kept pitch classes": 0,
    "dissonance": 1 / 5,  # of C E, C E, E G, E G, C C sharp
    "velocity mean": (50 + 80 + 60) / 3,
    "velocity sd": np.sqrt(np.var([50, 80, 60])),
    "velocity change": (30 + 20) / 2,
}


@pytest.mark.parametrize("feature", BY_HAND)
def test_features_by_hand(feature):
    found = described(START, END, PITCH, VELOCITY, n_frames=24, fs=4)
    assert found[feature] == pytest.approx(BY_HAND[feature], nan_ok=True)


def test_beats_by_hand():
    # On the beat; off it and short; off it and up to the next beat; off it and over the next.
    found = described([0, 2, 5, 10], [4, 3, 8, 14], [60, 62, 64, 65], fs=4, grid="beats")
    assert found["off the beat"] == 3 / 4
    assert found["syncopation"] == 1 / 4


def test_repeated_notes_and_chords_by_hand():
    #          C and E twice, C and E in other octaves, D and E
    start, pitch = [0, 0, 1, 1, 2, 2, 3, 3], [60, 64, 60, 64, 48, 76, 62, 76]
    found = described(start, np.add(start, 1), pitch, fs=2)
    assert found["repeated chords"] == pytest.approx(1 / 3)
    assert found["kept pitch classes"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert found["melody repeats"] == pytest.approx(2 / 3)
    assert found["even rhythm"] == 1
    assert found["inter-onset entropy"] == 0
    assert np.isnan(found["melody turns"])  # the melody moves but once


def test_dissonance_by_hand():
    # C, F sharp and G: a tritone, a fourth, a semitone. Then C and E, and C in two octaves.
    start, end = [0, 0, 0, 3, 3, 5, 5], [2, 2, 2, 4, 4, 9, 9]
    found = described(start, end, [60, 66, 67, 48, 64, 48, 60], fs=4)
    assert found["dissonance"] == pytest.approx((2 * 2) / (2 * 3 + 1))


def test_keys_by_hand():
    for profile in (MAJOR, MINOR):
        for tonic in (0, 7):
            length = np.rint(100 * np.roll(profile, tonic)).astype(int)
            end = np.cumsum(length)
            found = described(end - length, end, 60 + np.arange(12), fs=10)
            assert found["key clarity"] == pytest.approx(1)
    # Four eighths of C, then four of G: six of seven neighbours are the same, and six of 21 others.
    found = described([0, 8], [8, 16], [60, 67], fs=4)
    assert found["in one key, near"] == pytest.approx(6 / 7)
    assert found["in one key, far"] == pytest.approx(6 / 21)


def test_repetition_is_that_of_the_scorer():
    (roll,) = pl.datasets.load_chorales("validation")[:1]
    found = dict(zip(FEATURES, excerpt_features(roll), strict=True))
    whole = pl.repetition([roll])
    assert found["chords per minute"] == whole.chords_per_minute
    assert (found["said twice"], found["returns"]) == (whole.twice, whole.returns)


def test_tied_notes_sound_but_are_not_struck():
    whole = pl.PianoRoll.from_notes([0, 6], [8, 12], [60, 65], fs=4)
    found = dict(zip(FEATURES, excerpt_features(whole[4:12]), strict=True))
    assert found["note density"] == 1 / 2
    assert found["silence"] == 0
    assert found["polyphony mean"] == (4 + 6) / 8
    assert found["pitch mean"] == 65


@pytest.mark.parametrize("n_notes", [0, 1])
def test_what_can_not_be_measured_is_nan(n_notes):
    found = described([2] * n_notes, [5] * n_notes, [60] * n_notes, n_frames=12, fs=4)
    assert found["note density"] == n_notes / 3
    assert found["silence"] == 1 - n_notes / 4
    for name in ("melody interval", "inter-onset mean", "even rhythm", "dissonance"):
        assert np.isnan(found[name])
    assert np.isnan(found["pitch mean"]) == (n_notes == 0)


@given(st.integers(2, 30), st.integers(0, 2**32 - 1))
def test_auc_is_that_of_scikit_learn(n, seed):
    rng = np.random.default_rng(seed)
    labels = rng.random((n, 4)) < 0.4
    labels[0], labels[1] = True, False
    weight, scores = rng.random(n) + 0.1, rng.integers(0, 6, (n, 4)).astype(float)
    expected = [
        roc_auc_score(y, s, sample_weight=weight) for y, s in zip(labels.T, scores.T, strict=True)
    ]
    np.testing.assert_allclose(weighted_auc(scores, labels, weight), expected)
    alike = weighted_auc(scores[:, :1], labels, weight)
    np.testing.assert_allclose(alike, weighted_auc(scores[:, [0] * 4], labels, weight))


def by_chance(rng, n_groups, written):
    """Groups of one to four excerpts alike, but for noise; any features."""
    group = np.repeat(np.arange(n_groups), rng.integers(1, 5, n_groups))
    features = rng.normal(size=(n_groups, len(FEATURES)))[group]
    features = features + rng.normal(size=features.shape)
    size = np.bincount(group)
    weight = len(group) / (n_groups * size[group])
    return Excerpts(features, group, group, weight, written)


@pytest.mark.parametrize(("n_real", "n_written"), [(12, 12), (10, 25)])
def test_by_chance_the_auc_is_a_half_and_p_values_are_uniform(n_real, n_written):
    rng = np.random.default_rng(2)
    written = np.arange(n_real + n_written) >= n_real
    auc, null, p, p_of_best = [], [], [], []
    for _ in range(150):
        excerpts = by_chance(rng, len(written), written)
        folds = _folds(excerpts, rng)
        labels = _deals(excerpts, folds, 39, rng)
        fold_of = folds[excerpts.group]
        scores = _told(excerpts.features, labels, excerpts.weight, fold_of)
        first, *others = _auc(scores, labels, excerpts.weight, fold_of)
        auc, null, p = [*auc, first], [*null, *others], [*p, _p_value(first, np.array(others))]
        names, nothing = list(FEATURES), np.zeros(len(FEATURES))
        features = _giveaways(excerpts, excerpts.features, names, labels, nothing)
        p_of_best.append(features[0]["p_value"])
    assert abs(np.mean(auc) - 0.5) < 2.5 * np.std(auc) / np.sqrt(len(auc))
    assert np.mean(null) == pytest.approx(0.5, abs=0.01)
    assert kstest(p, "uniform").pvalue > 0.05
    # Of 39 features some look telling, but the p-values count them all.
    assert kstest(p_of_best, "uniform").pvalue > 0.05


def tunes(n, rng, *, low=55, step=2, seconds=24, fs=4):
    """Walks of chance, each around a pitch of its own."""
    rolls = []
    for _ in range(n):
        start = np.arange(seconds * fs)
        walk = np.abs(np.cumsum(rng.integers(-step, step + 1, len(start))) % 46 - 23)
        rolls.append(
            pl.PianoRoll.from_notes(start, start + 1, low + int(rng.integers(12)) + walk, fs=fs)
        )
    return rolls


def test_what_was_planted_is_found_and_named():
    rng = np.random.default_rng(1)
    real, written = tunes(12, rng), tunes(9, rng, step=4)
    found = pl.two_sample_test(real, written, length=8, random_state=0)
    assert found.auc > 0.95 and found.accuracy > 0.9
    assert found.p_value == pytest.approx(1 / 201)
    assert (found.n_pieces, found.n_excerpts) == ((12, 9), (36, 27))
    assert found.features[0]["feature"].startswith("melody")
    row = next(row for row in found.features if row["feature"] == "melody interval")
    assert row["written"] > row["real"] and row["auc"] > 0.95
    assert row["p_value"] == pytest.approx(1 / 201)
    # Told the other way round it is as well told, and less in place of more.
    turned = pl.two_sample_test(written, real, length=8, random_state=0)
    row = next(row for row in turned.features if row["feature"] == "melody interval")
    assert turned.auc > 0.95 and row["auc"] < 0.05


def test_a_feature_that_tells_alone_is_missed_when_shuffled():
    rng = np.random.default_rng(2)
    excerpts = by_chance(rng, 40, np.arange(40) >= 20)
    excerpts.features[:, 5] += 4 * (excerpts.piece >= 20)
    found = _tested(excerpts, 30, "seconds", 19, rng)
    first, *others = found.features
    assert first["feature"] == list(FEATURES)[5]
    assert first["importance"] > 0.1 > max(row["importance"] for row in others)


def test_pieces_of_one_group_are_never_on_both_sides():
    # Each group has sounds of its own: whoever has heard one of its pieces knows them all.
    rng = np.random.default_rng(3)
    tune = [tunes(1, rng, low=int(rng.integers(24, 80)), seconds=8)[0] for _ in range(20)]
    real, written = tune[:10] * 4, tune[10:] * 4
    groups = [*list(range(10)) * 4, *list(range(10, 20)) * 4]
    leaked = pl.two_sample_test(real, written, length=8, random_state=0)
    apart = pl.two_sample_test(real, written, length=8, groups=groups, random_state=0)
    assert leaked.auc > 0.95
    assert abs(apart.auc - 0.5) < 2.5 * apart.null.std()
    assert apart.p_value > 0.05


def test_deals_keep_folds_and_groups():
    rng = np.random.default_rng(4)
    real, written = tunes(14, rng, seconds=9), tunes(13, rng, seconds=9)
    # Pieces 0-5 are continued by written ones; the others stand alone.
    groups = [("piece", i) for i in range(14)] + [("piece", i % 6) for i in range(6)]
    groups += [f"written {i}" for i in range(7)]
    excerpts = Excerpts.of((real, written), 4, groups)
    assert np.bincount(excerpts.kinds()).tolist() == [8, 7, 6]
    assert excerpts.weight.mean() == pytest.approx(1)
    sums = np.bincount(excerpts.group, weights=excerpts.weight)
    np.testing.assert_allclose(sums, sums[0])
    folds = _folds(excerpts, rng)
    for kind in range(3):
        counts = np.bincount(folds[excerpts.kinds() == kind], minlength=5)
        assert np.ptp(counts) <= 1
    labels = _deals(excerpts, folds, 50, rng)
    assert labels.shape == (len(excerpts.piece), 51)
    np.testing.assert_array_equal(labels[:, 0], excerpts.written[excerpts.piece])
    assert len(np.unique(labels.T, axis=0)) > 40
    for piece in np.unique(excerpts.piece):
        assert (np.ptp(labels[excerpts.piece == piece].astype(int), axis=0) == 0).all()
    for fold in range(5):
        told = folds[excerpts.group] == fold
        n_written = [len(np.unique(excerpts.piece[told & deal])) for deal in labels.T]
        assert np.ptp(n_written) == 0


def test_a_set_against_itself_is_a_half():
    real = tunes(8, np.random.default_rng(5))
    found = pl.two_sample_test(real, real, length=8, groups=[*range(8)] * 2, random_state=0)
    assert found.auc == pytest.approx(0.5) and found.p_value == 1
    assert all(row["auc"] == pytest.approx(0.5) for row in found.features)
    assert found.accuracy == pytest.approx(0.5)


def test_one_seed_one_result():
    rng = np.random.default_rng(6)
    sets = tunes(6, rng), tunes(7, rng)
    first, again, other = (
        pl.two_sample_test(*sets, length=8, n_permutations=30, random_state=seed)
        for seed in (0, np.int64(0), 1)
    )
    assert str(first) == str(again) and first.features == again.features
    np.testing.assert_array_equal(first.null, again.null)
    assert not np.array_equal(first.null, other.null)


def test_velocities_count_where_both_have_them():
    rng = np.random.default_rng(7)
    real, written = tunes(6, rng), tunes(6, rng)
    loud = [
        pl.PianoRoll.from_notes(
            *(r.notes["start"], r.notes["end"], r.notes["pitch"]),
            velocity=rng.integers(90, 110, len(r.notes)),
            fs=4,
        )
        for r in real
    ]
    flat = pl.two_sample_test(loud, written, length=8, random_state=0)
    assert not [row for row in flat.features if row["feature"].startswith("velocity")]
    soft = [
        pl.PianoRoll.from_notes(
            *(r.notes["start"], r.notes["end"], r.notes["pitch"]),
            velocity=rng.integers(40, 60, len(r.notes)),
            fs=4,
        )
        for r in written
    ]
    found = pl.two_sample_test(loud, soft, length=8, random_state=0)
    assert found.features[0]["feature"] == "velocity mean"
    assert found.features[0]["written"] == pytest.approx(49.5, abs=1)


def test_print_and_plot():
    rng = np.random.default_rng(8)
    found = pl.two_sample_test(tunes(6, rng), tunes(5, rng, low=70), length=8, random_state=0)
    lines = str(found).splitlines()
    assert lines[0].startswith(f"AUC {found.auc:.3f} (chance 0.")
    assert lines[1] == "15 excerpts of 5 written pieces, 18 of 6 real ones, 8 s each"
    assert lines[3].split() == ["most", "telling", "written", "real", "AUC", "importance", "p"]
    assert len(lines) == 14 and max(map(len, lines)) <= 100
    pytest.importorskip("matplotlib")
    chance, bars = found.plot()
    assert chance.get_lines()[0].get_xdata()[0] == found.auc
    assert sum(patch.get_height() for patch in chance.patches) == len(found.null)
    ends = [patch.get_x() + patch.get_width() for patch in bars.patches]
    np.testing.assert_allclose(ends, [row["auc"] for row in found.features[:10]])
    row = found.features[0]
    expected = f"{row['feature']}: written {row['written']:.3g}, real {row['real']:.3g}"
    assert bars.get_yticklabels()[0].get_text() == expected
    assert found.plot((bars, chance))[0] is bars


def test_bad_input_is_told():
    rng = np.random.default_rng(9)
    few, enough = tunes(4, rng), tunes(5, rng)
    beats = [pl.PianoRoll.from_notes([0], [40], [60], fs=4, grid="beats")] * 5
    with pytest.raises(pl.InvalidInputError, match="got 5 of real pieces, 4 of written ones"):
        pl.two_sample_test(enough, few, length=8)
    with pytest.raises(pl.InvalidInputError, match="and 4 of both"):
        pl.two_sample_test(few, few, length=8, groups=[0, 1, 2, 3] * 2)
    with pytest.raises(pl.InvalidInputError, match="the longest has 24"):
        pl.two_sample_test(enough, enough)
    with pytest.raises(pl.InvalidInputError, match="10 in all; got 5"):
        pl.two_sample_test(enough, enough, length=8, groups=range(5))
    with pytest.raises(pl.InvalidInputError, match=r"written\[0\] has fs=4 on the grid of beats"):
        pl.two_sample_test(enough, beats, length=8)
    with pytest.raises(pl.InvalidInputError, match="length must be a whole number"):
        pl.two_sample_test(beats, beats, length=2.5)
    with pytest.raises(pl.InvalidInputError, match="length must be at least"):
        pl.two_sample_test(enough, enough, length=0)
    with pytest.raises(pl.InvalidInputError, match="n_permutations must be at least 1"):
        pl.two_sample_test(enough, enough, length=8, n_permutations=0)
    with pytest.raises(pl.InvalidInputError, match="random_state"):
        pl.two_sample_test(enough, enough, length=8, random_state="x")


def test_music_without_any_difference_is_told():
    same = [pl.PianoRoll.from_notes([0], [8], [60], fs=4)] * 5
    with pytest.raises(pl.InvalidInputError, match="alike in every feature"):
        pl.two_sample_test(same, same, length=2)


def test_the_docs_list_the_features():
    page = Path(__file__).parents[1] / "docs" / "api" / "scoring.md"
    rows = [f"| {name} | {meaning} |" for name, meaning in FEATURES.items()]
    assert "\n".join(rows) in page.read_text(encoding="utf-8")
