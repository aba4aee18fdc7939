"""What music has in common with other music: by hand, and by a plain search of all places."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import pianolstm as pl
from pianolstm.scoring import passages
from pianolstm.scoring.borrowing import PASSAGES
from pianolstm.scoring.calibration import Calibration, draw
from pianolstm.scoring.novelty import CHORD_PASSAGES
from pianolstm.tokens import as_corpus

DATA = Path(__file__).parents[2] / "shared" / "data" / "piano-midi"


def piece(chords, lengths=None, fs=10, **kwargs):
    """A roll of chords, each a list of pitches or one pitch, struck one after another."""
    chords = [np.atleast_1d(chord) for chord in chords]
    lengths = np.ones(len(chords), int) if lengths is None else np.asarray(lengths)
    sizes = [len(chord) for chord in chords]
    ends = np.repeat(np.cumsum(lengths), sizes)
    starts = ends - np.repeat(lengths, sizes)
    return pl.PianoRoll.from_notes(starts, ends, np.concatenate(chords), fs=fs, **kwargs)


# Ten chords that differ by steps of their own, no two alike; and their durations.
THEME = [[60, 64], [62], [67, 71, 74], [59], [65, 69], [72], [50, 57], [64, 68], [61], [70, 76]]
TIMES = [4, 2, 6, 2, 3, 5, 4, 8, 2, 4]
OTHER = piece([[40, 52], 45, [47, 55], 44, [43, 59], 52, 41, [38, 50], 57, 48, [36, 60], 39])
NOISE = [31, [90, 95], 33, [88, 91], 99, [29, 34], 101, 27]


def training(theme=THEME, times=TIMES):
    """The theme from the eighth chord of piece 1 on, at 2.0 s; piece 0 is something else."""
    before, after = [[84, 87], 80, 85, 79, 82, [77, 86], 81, 78], [83, 75, [73, 88]]
    return [OTHER, piece([*before, *theme, *after], [1, 2, 3, 1, 4, 2, 5, 2, *times, 3, 1, 4])]


def written(chords, times):
    """Chords after noise of 1.9 s, and before some more."""
    return piece([*NOISE[:5], *chords, *NOISE[5:]], [3, 2, 5, 1, 8, *times, 2, 3, 1])


def found_in(X, corpus, **kwargs):
    return pl.NoveltyScorer(**kwargs).fit(corpus).passages([X])[0]


def higher(chords, semitones):
    return [np.atleast_1d(chord) + semitones for chord in chords]


# --------------------------------------------------------------------------------------- by hand


def test_an_exact_copy_by_hand():
    found = found_in(written(THEME, TIMES), training())
    # Onset to onset: the last chord begins 36 frames after the first.
    expected = pl.Passage(9, 10, 1.9, 5.5, 1, 2.0, 5.6, 0, 1.0, "seconds")
    assert found.exact == found.transposed == found.any_speed == expected
    assert str(expected) == (
        "9 different changes (10 chords), 1.90-5.50 s: piece 1 at 2.00-5.60 s, +0 semitones, "
        "1.00 times as fast"
    )


def test_a_transposed_copy_by_hand():
    found = found_in(written(higher(THEME, -5), TIMES), training())
    assert found.exact is None
    assert found.transposed == found.any_speed
    assert found.transposed == pl.Passage(9, 10, 1.9, 5.5, 1, 2.0, 5.6, -5, 1.0, "seconds")


@pytest.mark.parametrize(
    ("factor", "speed"),
    [(1.25, 36 / 45), (0.75, 36 / 27), (2, 1 / 2), (0.5, 2)],
)
def test_a_copy_at_another_speed_by_hand(factor, speed):
    theme = piece(higher(THEME, 3), TIMES).stretch(factor)
    times = np.diff(np.unique(theme.notes["start"]), append=len(theme))
    found = found_in(written(higher(THEME, 3), times), training())
    last = 1.9 + round(36 * factor) / 10
    assert found.exact is None
    assert found.any_speed == pl.Passage(9, 10, 1.9, last, 1, 2.0, 5.6, 3, speed, "seconds")


def test_no_speed_is_three_times_as_slow_and_none_changes_on_the_way():
    times = [8 * time for time in TIMES]  # long enough that rounding makes no difference
    corpus = training(times=times)
    assert found_in(written(THEME, [2 * t for t in times]), corpus).any_speed.n_changes == 9
    assert found_in(written(THEME, [3 * t for t in times]), corpus).any_speed is None
    changing = [t if i < 5 else int(1.5 * t) for i, t in enumerate(times)]
    found = found_in(written(THEME, changing), corpus)
    assert (found.any_speed.n_chords, found.any_speed.start, found.any_speed.speed) == (6, 1.9, 1)
    assert found.ngrams == 6 / 14  # whatever the durations: six of the theme, of eighteen chords


def test_durations_may_be_rounded_by_less_than_a_frame_each():
    # (44 - 1) / (40 + 1) < (40 + 1) / (40 - 1) < (45 - 1) / (40 + 1)
    corpus = training(times=[40] * 10)
    for last, n_chords in ((44, 10), (45, 9)):
        found = found_in(written(THEME, [40] * 8 + [last, 40]), corpus)
        assert (found.any_speed.n_chords, found.transposed.n_chords) == (n_chords, 9)


def test_a_melody_is_found_under_other_chords():
    melody = [72, 74, 71, 76, 69, 77, 72, 81, 79]
    times = [4, 2, 2, 3, 5, 2, 4, 1, 6]
    played = [[p, p - 12 - i] for i, p in enumerate(melody)]
    # Chords of others lie below it, with a note struck while it is held; up a semitone, half as
    # fast.
    other = [[p + 1, p - 3 - 2 * i] for i, p in enumerate(melody)]
    roll = written(other, [2 * t for t in times])
    notes = roll.notes
    held = pl.PianoRoll.from_notes(
        *[np.append(notes[name], x) for name, x in (("start", 20), ("end", 25), ("pitch", 40))],
        fs=10,
    )
    for X in (roll, held):
        found = found_in(X, training(played, times))
        assert found.any_speed is None
        assert found.melody == pl.Passage(8, 9, 1.9, 6.5, 1, 2.0, 4.3, 1, 0.5, "seconds")
    # A higher note hides it.
    hidden = pl.PianoRoll.from_notes(
        *[np.append(notes[name], x) for name, x in (("start", 20), ("end", 45), ("pitch", 110))],
        fs=10,
    )
    assert found_in(hidden, training(played, times)).melody is None


def test_what_is_said_over_and_over_counts_once():
    def longest(theme):
        return found_in(written(theme, [2] * len(theme)), training(theme, [2] * len(theme)))

    trill, bar = [72, 74] * 20, [60, 64, 67, 64, 72] * 6
    found = longest(trill)
    assert found.exact is found.any_speed is found.melody is None
    found = longest(bar)
    assert (found.exact.n_changes, found.exact.n_chords) == (5, 30)
    # A passage of more changes is longer, although it has fewer chords.
    X = pl.PianoRoll.concatenate([written(bar, [2] * 30), written(THEME[:8], TIMES[:8])])
    corpus = [*training(bar, [2] * 30), piece(THEME, TIMES)]
    found = found_in(X, corpus)
    assert (found.exact.n_changes, found.exact.piece) == (7, 2)
    # Within a passage a trill does no harm, and adds its two changes; 74 to 72 is one of them.
    found = longest([*THEME[:5], *trill, *THEME[5:]])
    assert (found.exact.n_chords, found.exact.n_changes) == (50, 4 + 1 + 2 + 4)


def test_what_sounds_on_at_the_edges_does_no_harm():
    copy = written(higher(THEME, 2), TIMES)
    notes = copy.notes
    # Two notes are held from the noise before into the copy, and the last chord into what follows.
    end = np.where(notes["start"] == 11, 31, notes["end"])
    end = np.where(notes["start"] == 55, 66, end)
    blurred = pl.PianoRoll.from_notes(notes["start"], end, notes["pitch"], fs=10)
    assert blurred != copy
    assert found_in(blurred, training()).transposed == found_in(copy, training()).transposed


def test_the_nearest_of_equal_places_is_told():
    times = [4] * 10
    corpus = [*training(higher(THEME, 7), times), piece(higher(THEME, -1), times)]
    corpus.append(piece([86, 83, *higher(THEME, -1)], [2, 3, *[8] * 10]))
    found = found_in(written(THEME, times), corpus).any_speed
    assert (found.piece, found.semitones, found.speed) == (2, 1, 1)
    found = found_in(written(THEME, [7] * 10), corpus).any_speed
    assert (found.piece, found.semitones) == (3, 1)


def test_ngrams_by_hand():
    # Of eight changes the first five are the theme's, moved; 3-grams: 3 of 6.
    X = piece([*higher(THEME[:6], 4), 30, 31, 28])
    scorer = pl.NoveltyScorer(n=3).fit(training())
    assert scorer.passages([X])[0].ngrams == 3 / 6
    assert scorer.set_params(n=8).passages([X])[0].ngrams == 3 / 6  # as it was fitted
    assert scorer.fit(training()).passages([X])[0].ngrams == 0
    assert scorer.passages([X[:3]])[0].ngrams == 0  # too short to have any


# -------------------------------------------------------------------------------- real excerpts


def test_copies_are_not_compared():
    unlike = [OTHER, piece(NOISE * 2), training()[1]]
    corpus = [*unlike, unlike[2].transpose(-7), unlike[1][5:].stretch(2)]
    scorer = pl.NoveltyScorer().fit(corpus)
    labels = scorer.copies_
    assert labels[2] == labels[3] and labels[1] == labels[4]
    assert len(set(labels[:3].tolist())) == 3
    # None of the pieces borrows from another, so none borrows as much as a copy does.
    (found,) = scorer.passages([written(THEME, TIMES)])
    assert found.typicality == dict.fromkeys([*PASSAGES, "ngrams"], 0)
    (found,) = scorer.passages([piece(range(20, 60, 3))])
    assert found.typicality == dict.fromkeys([*PASSAGES, "ngrams"], 1)


def test_typicality_is_the_share_of_excerpts_by_hand():
    # Piece 1 has the theme's first six chords in 26; piece 2 has all of it, and nothing more.
    ahead = [30, 33, 29, 36, 28, 35, 27, 39]
    first = piece([*ahead, *THEME[:6], 99, 91, 98, 90, 97, 88, 95, 85, 94, 84, 89, 79])
    scorer = pl.NoveltyScorer(n_excerpts=4000).fit([OTHER, first, piece(THEME)])
    # Excerpts of ten chords: three of piece 0, 17 of piece 1, of which those that begin at chords 3
    # to 9 have five of the theme or more, and the theme.
    X = [piece([99, *THEME[:5], 40, 42, 39, 44])]
    (found,) = scorer.passages(X)
    assert found.any_speed.n_changes == 4
    real = (7 + 1) / (3 + 17 + 1)
    assert found.typicality["any_speed"] == pytest.approx(real, abs=0.03)
    assert scorer.score(X) == found.typicality["any_speed"]
    assert scorer.score([*X, OTHER]) == pytest.approx((found.typicality["any_speed"] + 0) / 2)
    # The same excerpts have one n-gram of four changes or two, of six.
    assert found.ngrams == 1 / 6
    assert found.typicality["ngrams"] == pytest.approx(real, abs=0.03)


def test_real_music_borrows_as_real_music_does():
    scorer = pl.NoveltyScorer().fit(pl.datasets.load_chorales("train"))
    held_out = pl.datasets.load_chorales("validation")
    found = scorer.passages(held_out)
    assert 0.4 < scorer.score(held_out) < 0.8
    assert np.mean([piece.typicality["any_speed"] <= 0.05 for piece in found]) < 0.1
    copies = [roll[:64].transpose(2) for roll in pl.datasets.load_chorales("train")[:8]]
    assert scorer.score(copies) < 0.02


# ------------------------------------------------------------------------------ by a plain search


def struck(roll):
    """Frame, and pitches struck, of each chord."""
    at = np.unique(roll.notes["start"])
    return [(int(t), frozenset(roll.notes["pitch"][roll.notes["start"] == t].tolist())) for t in at]


def top_notes(roll):
    """The chords whose highest note is the highest that sounds: that note alone."""
    notes, melody = roll.notes, []
    for t, chord in struck(roll):
        sounding = notes["pitch"][(notes["start"] <= t) & (notes["end"] > t)]
        if max(chord) == sounding.max():
            melody.append((t, frozenset({max(chord)})))
    return melody


def agree(x, y, kind):
    """How many changes the beginnings of two lists of chords have in common."""
    low, high = Fraction(1, 2), Fraction(2)
    up = min(x[0][1]) - min(y[0][1])
    for i in range(min(len(x), len(y))):
        if {p - up for p in x[i][1]} != y[i][1] or (kind == "exact" and up):
            return i - 1
        if i:
            a, b = x[i][0] - x[i - 1][0], y[i][0] - y[i - 1][0]
            low = max(low, Fraction(a - 1, b + 1))
            high = min(high, Fraction(a + 1, b - 1)) if b > 1 else high
            if low > high or (kind != "any_speed" and a != b):
                return i - 1
    return min(len(x), len(y)) - 1


def by_search(x, others, kind):
    """Different changes, and chords, of the longest passage; all places compared with all."""
    best = (0, 0)
    for i in range(len(x)):
        for y in others:
            for j in range(len(y)):
                n = agree(x[i:], y[j:], kind)
                steps = [chord for _, chord in x[i : i + n + 1]]
                different = len(set(pairwise(steps)))
                if n >= 4 and different >= 4:
                    best = max(best, (different, n + 1))
    return best


CHORDS = [[60], [62], [60, 64], [62, 66], [67], [65]]
notes = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 3)), min_size=5, max_size=16)
UNLIKE = [OTHER, piece(NOISE * 2)]


def played(steps):
    return piece([CHORDS[i] for i, _ in steps], [time for _, time in steps])


@given(notes, st.lists(notes, min_size=1, max_size=2))
def test_the_longest_passage_is_what_a_search_finds(steps, corpus):
    X, corpus = played(steps), [*UNLIKE, *map(played, corpus)]
    found = found_in(X, corpus, n_excerpts=1)
    for kind in PASSAGES:
        view, how = (top_notes, "any_speed") if kind == "melody" else (struck, kind)
        x, others = view(X), [view(roll) for roll in corpus]
        passage = getattr(found, kind)
        expected = by_search(x, others, how)
        assert ((passage.n_changes, passage.n_chords) if passage else (0, 0)) == expected
        if passage:
            # It stands where it is told to.
            i = [t for t, _ in x].index(round(10 * passage.start))
            y = others[passage.piece]
            j = [t for t, _ in y].index(round(10 * passage.piece_start))
            assert agree(x[i : i + passage.n_chords], y[j:], how) == passage.n_chords - 1
            assert min(x[i][1]) - min(y[j][1]) == passage.semitones
            assert passage.end == x[i + passage.n_chords - 1][0] / 10
            assert passage.piece_end == y[j + passage.n_chords - 1][0] / 10
            lasts = (passage.end - passage.start, passage.piece_end - passage.piece_start)
            assert passage.speed == pytest.approx(lasts[1] / lasts[0])


@given(notes, notes, st.integers(1, 5))
def test_shares_of_ngrams_are_what_a_search_finds(steps, other, n):
    def grams(roll):
        chords = [chord for _, chord in struck(roll)]
        runs = [chords[i : i + n + 1] for i in range(len(chords) - n)]
        return [tuple(frozenset(p - min(run[0]) for p in chord) for chord in run) for run in runs]

    X, corpus = played(steps), [*UNLIKE, played(other)]
    known = {gram for roll in corpus for gram in grams(roll)}
    expected = np.mean([gram in known for gram in grams(X)] or [0])
    found = found_in(X, corpus, n=n, n_excerpts=1)
    assert found.ngrams == pytest.approx(expected)


@given(st.lists(notes, min_size=2, max_size=3), st.integers(2, 16), st.randoms())
def test_real_excerpts_are_what_a_search_finds(corpus, n, random):
    rolls = [*UNLIKE, *map(played, corpus)]
    chords = [struck(roll) for roll in rolls]
    lines = passages.lines(as_corpus(rolls))[0]
    index = passages.Index(lines)
    excerpts = Calibration.of(lines, index, range(len(rolls)), CHORD_PASSAGES)
    for i in range(2, len(rolls)):
        others = [c for c, g in zip(chords, index.groups, strict=True) if g != index.groups[i]]
        start = random.randrange(len(chords[i]))
        size = min(n, len(chords[i]) - start)
        for kind in CHORD_PASSAGES:
            expected, _ = by_search(chords[i][start : start + size], others, kind)
            assert excerpts[kind].longest(i, start, size) == expected


@given(st.lists(st.integers(0, 6), min_size=1, max_size=5).filter(any), st.integers(1, 8))
def test_any_excerpt_is_as_likely_as_any_other(sizes, n):
    pieces, starts, size = draw(np.array(sizes), n, 4000, np.random.default_rng(0))
    assert size == min(n, max(sizes))
    every = {(i, a) for i, whole in enumerate(sizes) for a in range(whole - size + 1)}
    drawn, counts = np.unique(np.stack([pieces, starts]), axis=1, return_counts=True)
    assert set(map(tuple, drawn.T.tolist())) == every
    assert abs(counts / 4000 - 1 / len(every)).max() < 0.04


def test_the_same_numbers_wherever_memory_ends(monkeypatch):
    """Where all music is alike the commonest runs are left out, and others are still found."""
    X, corpus = (
        written([60] * 40 + THEME, [2] * 40 + TIMES),
        training([60] * 60 + THEME, [2] * 60 + TIMES),
    )
    found = found_in(X, corpus)
    assert found.exact.n_chords == 50
    monkeypatch.setattr(passages, "MAX_PAIRS", 100)
    assert found_in(X, corpus).exact.n_chords >= 10


def test_longer_seeds_where_all_music_is_alike(monkeypatch):
    monkeypatch.setattr(passages, "MAX_PLACES", 1.06)
    scorer = pl.NoveltyScorer().fit([*training(), piece([20, 50, *THEME[:6], 30])])
    assert scorer._index.seed_length == 5
    assert scorer.passages([written(THEME, TIMES)])[0].exact.n_changes == 9


# ----------------------------------------------------------------------------------- invariances


def test_transposing_changes_semitones_alone():
    corpus, held_out = pl.datasets.load_chorales("train"), pl.datasets.load_chorales("validation")
    scorer = pl.NoveltyScorer().fit(corpus)
    for roll in held_out[:10]:
        here, there = scorer.passages([roll, roll.transpose(5)])
        for kind in ("transposed", "any_speed", "melody"):
            a, b = getattr(here, kind), getattr(there, kind)
            assert (a is None) == (b is None)
            if a is not None:
                assert (a.n_changes, a.n_chords, a.start) == (b.n_changes, b.n_chords, b.start)
            assert here.typicality[kind] == there.typicality[kind]
        assert here.ngrams == there.ngrams


def test_the_order_of_pieces_changes_their_numbers_alone():
    corpus = pl.datasets.load_chorales("train")[:40]
    X = [corpus[7][8:40].transpose(1)]
    order = np.random.default_rng(0).permutation(40)
    first = found_in(X[0], corpus)
    second = found_in(X[0], [corpus[i] for i in order])
    for kind in ("transposed", "any_speed"):
        a, b = getattr(first, kind), getattr(second, kind)
        assert a.piece == 7 == order[b.piece]
        assert vars(a) | {"piece": 0} == vars(b) | {"piece": 0}
    assert first.ngrams == second.ngrams == 1


def test_the_same_seed_gives_the_same_numbers():
    corpus, X = pl.datasets.load_chorales("train")[:40], pl.datasets.load_chorales("test")[:5]
    one, again, other = (
        pl.NoveltyScorer(random_state=seed).fit(corpus).passages(X) for seed in (3, 3, 4)
    )
    assert one == again
    assert one != other
    assert [found.any_speed for found in one] == [found.any_speed for found in other]


# --------------------------------------------------------------------------------- the estimator


def test_a_report_ranks_the_most_novel_first():
    scorer = pl.NoveltyScorer().fit(training())
    sets = {
        "copies": [written(THEME, TIMES), written(higher(THEME, 1), TIMES)],
        "new": [piece(range(20, 60, 3))],
    }
    report = scorer.report(sets)
    first, second = report.rows
    assert (first["rank"], first["name"], first["score"]) == (1, "new", 1.0)
    assert [first[kind] for kind in PASSAGES] == [0, 0, 0, 0]
    assert (second["rank"], second["pieces"], second["score"]) == (2, 2, 0.0)
    assert [second[kind] for kind in PASSAGES] == [9, 9, 9, 9]
    assert second["seconds"] == pytest.approx(2 * 6.5)
    assert second["ngrams"] == pytest.approx(6 / 14)
    assert str(report).splitlines()[0].split() == list(first)
    text = str(scorer.passages(sets["copies"])[1])
    assert "exact      1.000 of real excerpts borrow as much; none" in text
    assert "transposed 0.000 of real excerpts borrow as much; 9 different changes" in text


def test_times_are_quarter_notes_on_the_grid_of_beats():
    corpus = [piece(THEME, TIMES, fs=4, grid="beats"), piece(NOISE, fs=4, grid="beats")]
    found = found_in(piece([33, *THEME], [2, *TIMES], fs=4, grid="beats"), corpus).exact
    assert (found.start, found.end, found.piece_end, found.grid) == (0.5, 9.5, 9.0, "beats")
    assert "0.50-9.50 quarter notes: piece 0" in str(found)


def test_a_store_and_rolls_are_the_same_to_it(tmp_path):
    rolls = pl.datasets.load_chorales("train")[:6]
    paths = [str(tmp_path / f"{i}.mid") for i in range(6)]
    for path, roll in zip(paths, rolls, strict=True):
        roll.to_midi().write(path)
    store = pl.TokenStore(tmp_path / "tokens", encoder=pl.PianoRollEncoder(fs=4, grid="beats"))
    store.write(paths)
    X = [rolls[2][:40].transpose(1)]
    scorer = pl.NoveltyScorer().fit(store)
    assert scorer.passages(X) == pl.NoveltyScorer().fit(rolls).passages(X)
    assert 0 <= scorer.score(store) <= 1


def test_pieces_without_notes_borrow_nothing():
    silent = pl.PianoRoll.from_array(np.zeros((30, 128)), fs=10)
    scorer = pl.NoveltyScorer().fit([*training(), silent])
    for X in (silent, silent[:0], piece([60])):
        (found,) = scorer.passages([X])
        assert found.any_speed is None and found.ngrams == 0 and scorer.score([X]) == 1


def test_a_picture_shows_both_passages():
    scorer = pl.NoveltyScorer().fit(training())
    X = written(higher(THEME, 2), TIMES)
    above, below = scorer.plot(X, "transposed")
    try:
        # Half as much before and after, as far as the piece goes.
        for ax, limits, (start, end), shift in (
            (above, (0.1, 6.5), (1.9, 5.5), 2),
            (below, (0.2, 6.8), (2.0, 5.6), 0),
        ):
            assert ax.get_xlim() == pytest.approx(limits)
            around, passage = ax.collections
            assert len(around.get_paths()) > len(passage.get_paths())
            bars = passage.get_paths()
            lefts = [path.vertices[:, 0].min() for path in bars]
            assert (min(lefts), max(lefts)) == (pytest.approx(start), pytest.approx(end))
            middles = [path.vertices[:4, 1].mean() for path in bars]
            assert sorted(np.rint(middles).tolist()) == sorted(np.concatenate(higher(THEME, shift)))
        assert (above.get_title("left"), below.get_title("left")) == ("written", "piece 1")
        assert below.get_xlabel() == "time (s)"
        # Of a melody the highest notes alone are in colour.
        above, _ = scorer.plot(X, "melody")
        middles = [path.vertices[:4, 1].mean() for path in above.collections[1].get_paths()]
        assert np.rint(middles).tolist() == [max(chord) for chord in higher(THEME, 2)]
        assert scorer.plot(X, axes=[above, below]) == [above, below]
    finally:
        plt.close("all")
    with pytest.raises(pl.InvalidInputError, match=r"no passage in common .*nothing to draw"):
        scorer.plot(X, "exact")
    with pytest.raises(pl.InvalidInputError, match=r"kind must be one of .*got 'ngrams'"):
        scorer.plot(X, "ngrams")


def test_it_is_a_scikit_learn_estimator():
    scorer = pl.NoveltyScorer(n=2, n_excerpts=50, random_state=None)
    assert clone(scorer).get_params() == {"n": 2, "n_excerpts": 50, "random_state": None}
    assert scorer.fit(training()) is scorer
    for call in ("passages", "score", "plot"):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(pl.NoveltyScorer(), call)([OTHER])
    with pytest.raises(NotFittedError, match="not fitted yet"):
        pl.NoveltyScorer().report({"a": [OTHER]})


def test_bad_input_is_told_and_changes_nothing():
    for name, value in (("n", 0), ("n_excerpts", 0.5), ("random_state", -1)):
        with pytest.raises(pl.InvalidInputError, match=f"{name} must be"):
            pl.NoveltyScorer(**{name: value}).fit(training())
    scorer = pl.NoveltyScorer().fit(training())
    before = scorer.passages([written(THEME, TIMES)])
    for one in ([OTHER], [OTHER, OTHER.transpose(1)], [OTHER, OTHER[:0]]):
        with pytest.raises(pl.InvalidInputError, match="at least two pieces with notes"):
            scorer.fit(one)
    with pytest.raises(pl.InvalidInputError, match="Wrap it in a list"):
        scorer.fit(OTHER)
    assert scorer.passages([written(THEME, TIMES)]) == before
    with pytest.raises(pl.InvalidInputError, match=r"fs=20 .*expected fs=10"):
        scorer.score([piece(THEME, fs=20)])
    with pytest.raises(pl.InvalidInputError, match="got none"):
        scorer.report({})


# -------------------------------------------------------------------------------------- real data


def test_copies_of_the_study_s_pieces_are_found():
    paths = sorted(DATA.rglob("*.mid"))[::4]
    if not paths:
        pytest.skip("shared/data/piano-midi is not there")
    rolls = pl.PianoRollEncoder(fs=20).fit_transform(paths)
    scorer = pl.NoveltyScorer().fit(rolls)
    assert len(set(scorer.copies_.tolist())) == len(rolls)
    for i in range(0, len(rolls), 4):
        copy = rolls[i][200:400].transpose(-3).stretch(1.25)
        (found,) = scorer.passages([copy])
        assert (found.any_speed.piece, found.any_speed.semitones) == (i, -3)
        assert found.any_speed.speed == pytest.approx(0.8, abs=0.03)
        assert 9.9 <= found.any_speed.piece_start < found.any_speed.piece_end <= 20
