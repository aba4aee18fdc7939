"""Corpora as the networks take them, and what chords outside the vocabulary cost."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reference
from pianolstm import ChordTokenizer, PianoRoll
from pianolstm._learning.augmentation import Transpositions
from pianolstm._model.inputs import Reader, Transposed
from pianolstm.chords import as_words, transpose_chords
from pianolstm.tokens import TokenCorpus
from pianolstm.vocabulary import Corpus, PitchBernoulli, n_rows, padded_vocabulary
from pianolstm.windows import PAD, START
from strategies import rolls


def chord(*sounding, struck=()):
    """Bits of a chord."""
    return np.array(reference.bits((frozenset(sounding), frozenset(struck))), np.uint64)


VOCABULARY = np.array([chord(), chord(60), chord(60, 64)])
# Ids of the corpus and rows of the vocabulary differ on purpose.
CHORDS = np.array(
    [chord(), chord(5), chord(60, 64), chord(70), chord(64, 70, struck=[70]), chord(60)]
)
PIECES = [[5, 5, 1, 2, 3, 3], [2, 0, 5, 5], [4, 4, 5]]


def make(pieces=PIECES, chords=CHORDS, vocabulary=VOCABULARY):
    tokens = [np.array(piece, np.int32) for piece in pieces]
    maps = [None] * len(tokens)
    return Corpus.of(vocabulary, TokenCorpus(tokens, chords, 20, "seconds", maps))


def subsets(items):
    return [set(c) for n in range(len(items) + 1) for c in combinations(items, n)]


# ---------------------------------------------------------------------------------------- corpus


def test_a_corpus_by_hand():
    corpus = make()
    # The last is the one before it held on, which no piece has.
    assert corpus.chords.tolist() == [*CHORDS.tolist(), chord(64, 70).tolist()]
    assert corpus.rows.tolist() == [0, -1, 2, -1, -1, 1, -1]
    assert corpus.held.tolist() == [0, 1, 2, 3, 6, 5, 6]
    assert corpus.counts().tolist() == [1, 1, 2, 2, 2, 5, 0]
    assert (corpus.n_tokens, corpus.end) == (3, 7)


def test_chords_begun_once_by_hand():
    # 60 begins in every piece, 60 and 64 in two, the rest in one; others have no row.
    assert make().begun_once().tolist() == [0]
    # Ids, in the order of their rows.
    assert make(PIECES[:1]).begun_once().tolist() == [5, 2]
    assert make([[], PIECES[1]]).begun_once().tolist() == [0, 5, 2]


@given(
    st.lists(rolls(fs=20, grid="seconds", min_notes=1), min_size=1, max_size=4), st.integers(1, 9)
)
def test_a_corpus_keeps_every_chord(pieces, size):
    tokenizer = ChordTokenizer(max_tokens=size).fit(pieces)
    corpus = Corpus.of(tokenizer.vocabulary_, TokenCorpus.of(pieces))
    chords = [reference.chords(roll.notes.tolist(), len(roll)) for roll in pieces]
    for tokens, expected in zip(corpus.tokens, chords, strict=True):
        assert [reference.chord_of_bits(corpus.chords[t]) for t in tokens] == expected
    begun = {}
    for piece in chords:
        for before, after in zip([None, *piece], piece):  # noqa: B905 (pairs of neighbours)
            begun[after] = begun.get(after, 0) + (before != after)
    vocabulary = [reference.chord_of_bits(words) for words in tokenizer.vocabulary_]
    assert len(set(map(reference.chord_of_bits, corpus.chords))) == len(corpus.chords)
    for i, words in enumerate(corpus.chords):
        found = reference.chord_of_bits(words)
        assert corpus.rows[i] == (vocabulary.index(found) if found in vocabulary else -1)
        assert (i in corpus.begun_once()) == (found in vocabulary and begun.get(found) == 1)


# ---------------------------------------------------------------------------------------- reader


def test_a_reader_by_hand():
    reader, rows = Reader(make()), n_rows(3)
    ids, words = reader.inputs(np.array([[START, 5, 2], [1, 4, PAD]]))
    assert ids.tolist() == [[-1, 1, 2], [rows, rows, -2]]
    assert words.shape == (2, 3, 8) and words.dtype == np.uint32
    assert words[0, 0].tolist() == words[1, 2].tolist() == [0] * 8
    # Pitches 64, 70 sound: bits 0 and 6 of the third word; 70 is struck: bit 6 of the seventh.
    assert words[1, 1].tolist() == [0, 0, 1 | 1 << 6, 0, 0, 0, 1 << 6, 0]
    assert words[0, 1].tolist() == [0, 1 << 28, 0, 0, 0, 0, 0, 0]
    targets = targets_of(reader, [0, 5, 2, 1, 3, 4, 7])
    assert targets == [0, 1, 2, rows - 1, rows - 1, rows - 1, rows - 2]


def targets_of(reader, ids, pieces=None):
    """Rows, where none is held on."""
    ids = np.array(ids)
    return reader.targets(ids, np.full_like(ids, START), pieces)[0].tolist()


def test_targets_that_are_spelled_by_hand():
    before, ids = np.array([[5, START, 1, 2, 4, 3]]), np.array([[5, 1, 1, 4, 6, 7]])
    reader = Reader(make(), spell=True)
    rows, barred, symbols = reader.targets(ids, before)
    assert rows.tolist() == [[0] * 6] and barred.tolist() == [[-1] * 6]
    assert symbols.shape == (1, 6, 4)
    assert symbols[0].tolist() == [
        [60, 256, 256, 256],
        [5, 256, 256, 256],
        [5, 256, 256, 256],
        [64, 128 + 70, 256, 256],
        [64, 70, 256, 256],
        [257, 256, 256, 256],  # the end of the piece
    ]
    assert reader.targets(np.array([PAD, START]), ids[0, :2]).symbols[:, 0].tolist() == [-1, -1]
    # A network that spells knows chords by their bits alone.
    assert reader.inputs(np.array([[START, 5, PAD]]))[0].tolist() == [[START, 0, PAD]]
    # With the clock of changes no chord begins by holding on what sounds.
    changes = Reader(replace(make(), clock="changes"), spell=True)
    assert changes.targets(ids, before).barred.tolist() == [[0, -1, 0, 0, 0, 0]]


def test_transposed_targets_are_spelled():
    corpus = make()
    transposed = Transposed(Transpositions(corpus, 2).rows, np.array([2, 0, -2]))
    reader = Reader(corpus, (), transposed, spell=True)
    before, ids = np.array([[START, 2], [5, 5]]), np.array([[2, 4], [5, 2]])
    _, _, symbols = reader.targets(ids, before, np.array([0, 1]))
    assert symbols[0, :, :3].tolist() == [[62, 66, 256], [66, 128 + 72, 256]]
    assert symbols[1, :, :3].tolist() == [[60, 256, 256], [60, 64, 256]]


def test_hidden_chords_are_read_as_others():
    rows = n_rows(3)
    reader, plain = Reader(make(), hidden=np.array([5])), Reader(make())
    ids, words = reader.inputs(np.array([0, 5, 2, START, PAD]))
    assert ids.tolist() == [0, rows, 2, START, PAD]
    assert np.array_equal(words, plain.inputs(np.array([0, 5, 2, START, PAD]))[1])  # still heard
    assert targets_of(reader, [0, 5, 2, 1]) == [0, rows - 1, 2, rows - 1]


@given(rolls(fs=20, grid="seconds", min_notes=1), st.integers(-60, 60))
def test_chords_transposed_are_those_of_a_roll_transposed(roll, steps):
    pitch = roll.notes["pitch"].astype(int)
    steps = int(np.clip(steps, -pitch.min(), 127 - pitch.max()))
    plain, moved = (
        Corpus.of(VOCABULARY, TokenCorpus.of([r])) for r in (roll, roll.transpose(steps))
    )
    chords = transpose_chords(plain.chords[plain.tokens[0]], steps)
    assert np.array_equal(chords, moved.chords[moved.tokens[0]])


def test_pieces_are_transposed_within_the_range_of_the_corpus():
    pieces = [[5, 2], [0, 0], [3], [5, 1]]  # pitches 60 to 64, none, 70, 5 to 60
    transpositions = Transpositions(make(pieces), 4)
    assert transpositions.lowest.tolist() == [-4, -4, -4, 0]
    assert transpositions.highest.tolist() == [4, 4, 0, 4]
    drawn = np.array([transpositions.draw(np.random.default_rng(i)).steps for i in range(200)])
    assert [np.unique(column).tolist() for column in drawn.T] == [
        list(range(-4, 5)),
        list(range(-4, 5)),  # of rests
        list(range(-4, 1)),
        list(range(5)),
    ]


def test_a_reader_of_transposed_pieces_by_hand():
    vocabulary = np.array([chord(), chord(60), chord(60, 64), chord(62), chord(58, 62)])
    corpus, rows = make(vocabulary=vocabulary), n_rows(5)
    transposed = Transposed(Transpositions(corpus, 2).rows, np.array([2, 0, -2]))
    reader = Reader(corpus, np.array([5]), transposed)
    batch, pieces = np.array([[START, 5], [5, 2], [2, 1], [0, PAD]]), np.array([0, 1, 2, 0])
    ids, words = reader.inputs(batch, pieces)
    # 60 up by 2 is 62; 60 itself is hidden; 60 and 64 down by 2 are known; the rest stays a rest.
    assert ids.tolist() == [[START, 3], [rows, 2], [4, rows], [0, PAD]]
    moved = np.array([[chord(), chord(62)], [chord(60), chord(60, 64)]])
    assert np.array_equal(words[:2].reshape(-1, 8), as_words(moved.reshape(-1, 4)))
    assert np.array_equal(words[2], as_words(np.array([chord(58, 62), chord(3)])))
    assert not words[3].any()
    # The end of a piece stays what it is. 60 and 64 up by 2 is no target, for nobody wrote it; 5
    # was an unknown chord before.
    targets = targets_of(reader, [[7, 2], [5, 5], [5, 1]], np.array([0, 1, 2]))
    assert targets == [[rows - 2, -1], [rows - 1, rows - 1], [-1, rows - 1]]
    assert targets_of(reader, [2, 7]) == [2, rows - 2]  # as it was written


@pytest.mark.parametrize(("n_tokens", "rows"), [(1, 256), (254, 256), (255, 512), (4300, 4352)])
def test_there_are_rows_for_other_chords_and_for_the_end(n_tokens, rows):
    assert n_rows(n_tokens) == rows


def test_words_by_hand():
    words = as_words(np.array([chord(0, 33, 64, 127, struck=[31, 96])]))
    assert words.tolist() == [[1, 2, 1, 1 << 31, 1 << 31, 0, 0, 1]]
    padded = padded_vocabulary(VOCABULARY)
    assert padded.shape == (256, 8)
    assert np.array_equal(padded[:3], as_words(VOCABULARY)) and not padded[3:].any()


# ------------------------------------------------------------------------------------- Bernoulli


def test_bernoulli_counts_by_hand():
    # Frames: 60 | 60 64 | 60* 64 | rest | 60 64; and 64 | 64* alone.
    first = PianoRoll.from_notes([0, 1, 2, 4, 4], [2, 3, 3, 5, 5], [60, 64, 60, 60, 64])
    second = PianoRoll.from_notes([0, 1], [1, 2], [64, 64])
    tokenizer = ChordTokenizer(max_tokens=2).fit([first, second])
    corpus = Corpus.of(tokenizer.vocabulary_, TokenCorpus.of([first, second]))
    model = PitchBernoulli.fit(corpus)
    expected = np.full(128, 0.5 / 8)
    expected[60], expected[64] = 4.5 / 8, 5.5 / 8
    np.testing.assert_allclose(model.sounding, expected)
    # Going on: 60 into frames 1 and 2, 64 into frame 2 and, in the second piece, into frame 1.
    assert model.again == pytest.approx((2 + 0.5) / (4 + 1))


def test_bernoulli_likelihood_by_hand():
    sounding = np.full(128, 1e-300)
    sounding[[60, 64, 67]] = 0.5, 0.25, 0.125
    model = PitchBernoulli(sounding, again=0.2)
    chords = np.array([chord(), chord(60, 67), chord(60, 64, struck=[60])])
    before = np.array([chord(60), chord(64), chord(60, 64)])
    expected = [
        0.5 * 0.75 * 0.875,
        0.5 * 0.75 * 0.125,
        0.5 * 0.25 * 0.875 * 0.2 * 0.8,
    ]
    np.testing.assert_allclose(model.log_likelihood(chords, before), np.log(expected))


@pytest.mark.parametrize("before", [set(), {0}, {63, 64}, {0, 63, 64, 127}])
def test_bernoulli_sums_to_one(before):
    pitches = [0, 63, 64, 127]
    sounding = np.full(128, 1e-300)
    sounding[pitches] = 0.7, 0.2, 0.45, 0.05
    model = PitchBernoulli(sounding, again=0.3)
    chords = [
        chord(*sounds, struck=struck)
        for sounds in subsets(pitches)
        for struck in subsets(sorted(sounds & before))
    ]
    assert len(chords) == 2 ** (4 - len(before)) * 3 ** len(before)
    total = np.exp(model.log_likelihood(np.array(chords), np.array([chord(*before)] * len(chords))))
    assert total.sum() == pytest.approx(1.0)


@given(st.lists(rolls(fs=20, grid="seconds", min_notes=1), min_size=1, max_size=3))
def test_bernoulli_equals_a_loop_over_pitches(pieces):
    tokenizer = ChordTokenizer().fit(pieces)
    model = PitchBernoulli.fit(Corpus.of(tokenizer.vocabulary_, TokenCorpus.of(pieces)))
    pieces = [reference.chords(roll.notes.tolist(), len(roll)) for roll in pieces]
    frames = sum(map(len, pieces))
    counts, going_on, again = [0.5] * 128, 1.0, 0.5
    for piece in pieces:
        for before, (sounding, struck) in zip([None, *piece], piece):  # noqa: B905
            for pitch in sounding:
                counts[pitch] += 1
            going_on += len(sounding & before[0]) if before else 0
            again += len(struck)
    np.testing.assert_allclose(model.sounding, np.array(counts) / (frames + 1))
    assert model.again == pytest.approx(again / going_on)
    (before, _), (sounding, struck) = pieces[0][0], pieces[0][-1]
    struck &= before  # a pitch can only be struck again if it sounded
    expected = 0.0
    for pitch in range(128):
        p = model.sounding[pitch]
        expected += np.log(p if pitch in sounding else 1 - p)
        if pitch in sounding & before:
            expected += np.log(model.again if pitch in struck else 1 - model.again)
    found = model.log_likelihood(chord(*sounding, struck=struck)[None], chord(*before)[None])
    assert found == pytest.approx(expected)


def test_the_longest_hold_is_that_of_a_chord_that_another_follows():
    assert make([[1, 1, 1, 2, 2, 2, 2, 2], [2, 1, 1]]).longest_hold() == 3
    assert make([[1, 1, 1, 1]]).longest_hold() == 4
