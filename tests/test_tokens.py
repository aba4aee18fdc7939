"""The tokenizer, against a frame-by-frame one made of dicts and sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import pianolstm as pl
import reference
from pianolstm import ChordSequence, ChordTokenizer, PianoRoll, TempoMap, chord_pitches
from pianolstm.chords import unpack
from pianolstm.tokens import TokenCorpus, as_corpus, decode
from strategies import rolls

DATA = Path(__file__).parents[2] / "shared" / "data" / "piano-midi"

# Frames: 60 | 60 64 | 60* 64 | rest | 127 | 60 127
ROLL = PianoRoll.from_notes(
    [0, 1, 2, 4, 5], [2, 3, 3, 6, 6], [60, 64, 60, 127, 60], [9, 8, 7, 6, 5]
)
CHORDS = ["60", "60 64", "60* 64", "", "127", "60 127"]

rolls_of_one_grid = st.lists(rolls(fs=20, grid="seconds"), min_size=1, max_size=4).filter(
    lambda pieces: any(map(len, pieces))
)
some_frames = rolls().filter(len)


def with_velocity_64(roll):
    """The roll as tokens can tell it."""
    notes = roll.notes.copy()
    notes["velocity"] = 64
    return PianoRoll(notes, len(roll), roll.fs, roll.grid, roll.tempo_map)


def chords_of(roll):
    return reference.chords(roll.notes.tolist(), len(roll))


def chord(*sounding, struck=()):
    """Bits of a chord."""
    words = reference.bits((frozenset(sounding), frozenset(struck)))
    return np.array(words, dtype=np.uint64)


# ---------------------------------------------------------------------------------- by hand


def test_tokens_by_hand():
    tokenizer = ChordTokenizer().fit([ROLL, ROLL[1:3]])
    (sequence,) = tokenizer.transform([ROLL])
    assert sequence.tokens.dtype == np.int32
    assert [chord_pitches(c) for c in tokenizer.vocabulary_[sequence.tokens]] == CHORDS
    assert sequence.tokens[3] == 0
    assert tokenizer.n_tokens_ == 6
    # The slice of frames 1-2 has 60 64 and 60* 64 again.
    assert {chord_pitches(c) for c in tokenizer.vocabulary_[1:3]} == {"60 64", "60* 64"}
    assert tokenizer.counts_.tolist() == [1, 2, 2, 1, 1, 1]
    assert (tokenizer.fs_, tokenizer.grid_) == (20, "seconds")
    assert np.array_equal(np.asarray(sequence), sequence.tokens) and len(sequence) == 6
    assert len(sequence.extra) == 0


def test_the_rest_is_token_0_even_where_there_is_none():
    tokenizer = ChordTokenizer().fit([PianoRoll.from_notes([0], [5], [60])])
    assert tokenizer.vocabulary_[0].tolist() == [0, 0, 0, 0]
    assert (tokenizer.counts_.tolist(), tokenizer.n_tokens_) == ([0, 5], 2)


def test_bits_by_hand():
    roll = PianoRoll.from_notes([0, 0, 1, 1], [1, 2, 2, 2], [63, 64, 63, 127])
    (sequence,) = ChordTokenizer(max_tokens=1).fit_transform([roll])
    by_frame = sequence.chords(np.zeros((1, 4), np.uint64))
    assert by_frame.tolist() == [
        [1 << 63, 1, 0, 0],
        [1 << 63, 1 | 1 << 63, 1 << 63, 0],
    ]
    planes = unpack(by_frame)
    assert [np.flatnonzero(p).tolist() for p in planes] == [[63, 64], [63, 64, 127, 128 + 63]]


def test_chord_pitches_by_hand():
    assert chord_pitches(chord()) == ""
    assert chord_pitches(chord(0, 63, 64, 127, struck=[63, 127])) == "0 63* 64 127*"
    assert chord_pitches(chord(60, struck=[72])) == "60 72*"


# ------------------------------------------------------------------------------- against sets


@given(rolls_of_one_grid)
def test_vocabulary_and_tokens_equal_the_reference(pieces):
    tokenizer = ChordTokenizer().fit(pieces)
    expected = [chords_of(roll) for roll in pieces]
    counts = reference.count_chords(expected)
    rest = (frozenset(), frozenset())
    vocabulary = [reference.chord_of_bits(words) for words in tokenizer.vocabulary_]
    assert vocabulary[0] == rest
    assert len(set(vocabulary)) == len(vocabulary) == tokenizer.n_tokens_
    assert dict(zip(vocabulary, tokenizer.counts_.tolist(), strict=True)) == {rest: 0} | counts
    assert (np.diff(tokenizer.counts_[1:]) <= 0).all()
    for sequence, chords in zip(tokenizer.transform(pieces), expected, strict=True):
        assert [vocabulary[t] for t in sequence.tokens] == chords


@given(rolls_of_one_grid, st.randoms())
def test_the_order_of_pieces_is_irrelevant(pieces, random):
    shuffled = list(pieces)
    random.shuffle(shuffled)
    one, other = ChordTokenizer().fit(pieces), ChordTokenizer().fit(shuffled)
    assert np.array_equal(one.vocabulary_, other.vocabulary_)
    assert np.array_equal(one.counts_, other.counts_)


@given(rolls_of_one_grid, rolls(fs=20, grid="seconds"), st.integers(1, 4), st.integers(1, 6))
def test_min_count_max_tokens_and_coverage_equal_the_reference(pieces, other, min_count, size):
    tokenizer = ChordTokenizer(min_count=min_count, max_tokens=size).fit(pieces)
    counts = reference.count_chords([chords_of(roll) for roll in pieces])
    rest = counts.pop((frozenset(), frozenset()), 0)
    kept = sorted((n for n in counts.values() if n >= min_count), reverse=True)[: size - 1]
    assert tokenizer.counts_.tolist() == [rest, *kept]

    vocabulary = {reference.chord_of_bits(words) for words in tokenizer.vocabulary_}
    known = [c in vocabulary for c in chords_of(other)]
    assert tokenizer.coverage([other]) == pytest.approx(np.mean(known) if known else 1.0)
    (sequence,) = tokenizer.transform([other])
    assert (sequence.tokens < tokenizer.n_tokens_).tolist() == known
    table = [reference.chord_of_bits(w) for w in [*tokenizer.vocabulary_, *sequence.extra]]
    assert [table[t] for t in sequence.tokens] == chords_of(other)
    assert len(sequence.extra) == len(set(chords_of(other)) - vocabulary)


# ------------------------------------------------------------------------------- there and back


@given(some_frames, some_frames, st.integers(1, 5))
def test_tokens_are_exactly_invertible(roll, other, size):
    for vocabulary_from in (roll, other):
        tokenizer = ChordTokenizer(max_tokens=None if size == 5 else size).fit([vocabulary_from])
        back = tokenizer.inverse_transform(tokenizer.transform([roll]))
        assert back == [with_velocity_64(roll)]


@given(some_frames, st.data())
def test_tokens_of_a_slice_are_exactly_invertible(roll, data):
    a = data.draw(st.integers(0, len(roll) - 1))
    b = data.draw(st.integers(a + 1, len(roll)))
    part = roll[a:b]
    (sequence,) = ChordTokenizer().fit([roll]).transform([part])
    assert reference.chord_of_bits(sequence.before)[0] == {
        n[2] for n in part.notes.tolist() if n[4]
    }
    tokenizer = ChordTokenizer().fit([roll])
    assert tokenizer.inverse_transform([sequence]) == [with_velocity_64(part)]


@given(rolls_of_one_grid, st.data())
def test_decoding_is_total_and_stable(pieces, data):
    tokenizer = ChordTokenizer().fit(pieces)
    tokens = data.draw(st.lists(st.integers(0, tokenizer.n_tokens_ - 1), max_size=30))
    tokens = np.array(tokens, np.int64)
    (roll,) = tokenizer.inverse_transform([tokens])
    chords = [reference.chord_of_bits(tokenizer.vocabulary_[t]) for t in tokens]
    assert roll.notes.tolist() == reference.notes_of_chords(chords)
    assert (len(roll), roll.fs, roll.grid) == (len(tokens), 20, "seconds")
    (again,) = tokenizer.inverse_transform(tokenizer.transform([roll]))
    assert again == roll


@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 127), max_size=5), st.sets(st.integers(0, 127))),
        min_size=1,
        max_size=8,
    ),
    st.lists(st.integers(0, 7), max_size=20),
    st.sets(st.integers(0, 127), max_size=4),
)
def test_decoding_of_any_chord_equals_the_reference(chords, order, before):
    # What a network may write: a pitch struck again that was silent is a plain onset, and one that
    # does not sound is nothing.
    chords = [(frozenset(s), frozenset(f)) for s, f in chords]
    table = np.array([reference.bits(c) for c in chords], np.uint64)
    tokens = np.array([i % len(chords) for i in order], np.int32)
    sequence = ChordSequence(tokens, before=chord(*before))
    roll = decode(table, sequence)
    expected = reference.notes_of_chords([chords[t] for t in tokens], before)
    assert roll.notes.tolist() == expected


def test_a_flag_on_a_silent_pitch_is_a_plain_onset():
    table = np.array([chord(), chord(60, struck=[60]), chord(60)])
    roll = decode(table, ChordSequence(np.array([0, 1, 2, 1, 1, 0, 2])))
    assert [(s, e) for s, e, *_ in roll.notes.tolist()] == [(1, 3), (3, 4), (4, 5), (6, 7)]


def test_the_grid_travels_with_the_tokens():
    tempo = TempoMap([0, 480], [400_000, 300_000])
    roll = PianoRoll.from_notes([0], [9], [60], fs=4, grid="beats", tempo_map=tempo)
    (sequence,) = ChordTokenizer().fit_transform([roll])
    assert (sequence.fs, sequence.grid, sequence.tempo_map) == (4, "beats", tempo)
    tokenizer = ChordTokenizer().fit([roll])
    (plain,) = tokenizer.inverse_transform([sequence.tokens])
    assert (plain.fs, plain.grid) == (4, "beats")


def test_plain_arrays_get_the_grid_of_the_corpus():
    roll = PianoRoll.from_notes([0, 2], [3, 5], [60, 64], fs=10)
    (sequence,) = ChordTokenizer().fit([roll]).transform([np.asarray(roll)])
    assert sequence.fs == 10


def test_real_pieces_are_invertible():
    paths = [DATA / name for name in ("alb_esp1.mid", "clementi_opus36_2_2_format0.mid")]
    if not all(p.exists() for p in paths):
        pytest.skip("shared/data/piano-midi is not there")
    pieces = pl.PianoRollEncoder(fs=20).transform(paths)
    tokenizer = ChordTokenizer().fit(pieces[:1])
    sequences = tokenizer.transform(pieces)
    assert len(sequences[0].extra) == 0 and len(sequences[1].extra) > 20
    assert tokenizer.inverse_transform(sequences) == [with_velocity_64(r) for r in pieces]
    for roll, sequence in zip(pieces, sequences, strict=True):
        found = map(reference.chord_of_bits, sequence.chords(tokenizer.vocabulary_)[:400])
        assert list(found) == chords_of(roll[:400])


# ----------------------------------------------------------------------------------- partial_fit


@given(rolls_of_one_grid, rolls_of_one_grid)
def test_partial_fit_keeps_numbers_and_counts_everything(first, second):
    tokenizer = ChordTokenizer().fit(first)
    before = tokenizer.vocabulary_
    tokenizer.partial_fit(second)
    assert np.array_equal(tokenizer.vocabulary_[: len(before)], before)
    whole = ChordTokenizer().fit([*first, *second])
    found, expected = (
        dict(zip(map(bytes, t.vocabulary_), t.counts_.tolist(), strict=True))
        for t in (tokenizer, whole)
    )
    assert found == expected


def test_partial_fit_counts_over_calls():
    piece = PianoRoll.from_notes([0, 1, 3], [1, 3, 4], [60, 62, 64])
    tokenizer = ChordTokenizer(min_count=2).partial_fit([piece])
    assert [chord_pitches(c) for c in tokenizer.vocabulary_] == ["", "62"]
    tokenizer.partial_fit([piece[:1]])
    assert [chord_pitches(c) for c in tokenizer.vocabulary_] == ["", "62", "60"]
    assert tokenizer.counts_.tolist() == [0, 2, 2]
    tokenizer.fit([piece])
    assert [chord_pitches(c) for c in tokenizer.vocabulary_] == ["", "62"]


def test_partial_fit_keeps_within_max_tokens():
    tokenizer = ChordTokenizer(max_tokens=3).fit([PianoRoll.from_notes([0], [3], [60])])
    tokenizer.partial_fit([PianoRoll.from_notes([0, 1, 4], [1, 4, 9], [60, 61, 62])])
    assert [chord_pitches(c) for c in tokenizer.vocabulary_] == ["", "60", "62"]
    assert tokenizer.counts_.tolist() == [0, 4, 5]


# --------------------------------------------------------------------------------------- unknown


def test_nearest_picks_the_chord_that_differs_in_the_fewest_pitches():
    known = PianoRoll.from_notes([0, 0, 2, 2, 3, 4], [2, 2, 3, 3, 4, 6], [48, 52, 48, 52, 60, 60])
    # Known: 48 52, 48* 52*, 60 (struck at 3 and, with a flag, at 4).
    tokenizer = ChordTokenizer(unknown="nearest").fit([known])
    names = [chord_pitches(c) for c in tokenizer.vocabulary_]
    assert sorted(names) == ["", "48 52", "48* 52*", "60", "60*"]
    other = PianoRoll.from_notes(
        [0, 0, 0, 1, 1, 1, 2, 3], [1, 1, 1, 2, 2, 2, 3, 4], [48, 52, 55, 48, 52, 55, 62, 60]
    )
    # Frames: 48 52 55 | 48* 52* 55* | 62 | 60
    with pytest.warns(pl.DataLossWarning, match="3 of 4 frames have a chord outside") as caught:
        (sequence,) = tokenizer.transform([other])
    assert len(caught) == 1
    found = [chord_pitches(c) for c in tokenizer.vocabulary_[sequence.tokens]]
    assert found == ["48 52", "48* 52*", "", "60"]
    assert len(sequence.extra) == 0


def test_nearest_weighs_pitches_before_strikes():
    # Known: 48 52 55 and 48* 52*; the second has more in common, were strikes to count as pitches.
    known = PianoRoll.from_notes([0, 0, 0, 2, 2], [2, 2, 2, 3, 3], [48, 52, 55, 48, 52])
    other = PianoRoll.from_notes([0] * 3 + [1] * 3, [1] * 3 + [2] * 3, [48, 52, 55] * 2)
    tokenizer = ChordTokenizer(unknown="nearest").fit([known])
    with pytest.warns(pl.DataLossWarning, match="1 of 2 frames"):
        (sequence,) = tokenizer.transform([other])
    assert [chord_pitches(c) for c in tokenizer.vocabulary_[sequence.tokens]] == ["48 52 55"] * 2


def test_the_warning_points_at_the_line_that_called():
    tokenizer = ChordTokenizer(unknown="nearest").fit([ROLL])
    with pytest.warns(pl.DataLossWarning) as caught:
        tokenizer.transform([PianoRoll.from_notes([0], [1], [99])])
    assert caught[0].filename == __file__


@given(rolls_of_one_grid, rolls(fs=20, grid="seconds", min_notes=1))
def test_nearest_equals_the_reference(pieces, other):
    tokenizer = ChordTokenizer(max_tokens=6).fit(pieces)
    vocabulary = [reference.chord_of_bits(words) for words in tokenizer.vocabulary_]
    unknown = [c for c in chords_of(other) if c not in vocabulary]
    tokenizer.set_params(unknown="nearest")
    if unknown:
        message = f"{len(unknown)} of {len(other)} frames"
        with pytest.warns(pl.DataLossWarning, match=message):
            (sequence,) = tokenizer.transform([other])
    else:
        (sequence,) = tokenizer.transform([other])
    for token, (sounding, struck) in zip(sequence.tokens, chords_of(other), strict=True):
        costs = [(len(sounding ^ s), len(struck ^ f), i) for i, (s, f) in enumerate(vocabulary)]
        assert costs[token][:2] == min(costs)[:2]
        as_near = [i for cost, struck, i in costs if (cost, struck) == costs[token][:2]]
        assert tokenizer.counts_[token] == max(tokenizer.counts_[as_near])


def test_an_unknown_chord_can_be_an_error():
    tokenizer = ChordTokenizer(unknown="error").fit([ROLL])
    tokenizer.transform([ROLL])
    other = PianoRoll.from_notes([0, 0, 1], [1, 1, 2], [61, 70, 61])
    message = r'X\[1\] has a chord that the tokenizer does not know: pitches 61.*unknown="keep"'
    with pytest.raises(pl.InvalidInputError, match=message):
        tokenizer.transform([ROLL, other])


# -------------------------------------------------------------------- parameters and messages


def test_the_tokenizer_is_a_scikit_learn_estimator():
    assert ChordTokenizer().get_params() == {"max_tokens": None, "min_count": 1, "unknown": "keep"}
    parameters = {"max_tokens": -3, "min_count": "few", "unknown": 7}
    tokenizer = ChordTokenizer(**parameters)
    assert vars(tokenizer) == parameters
    assert clone(tokenizer).get_params() == parameters
    fitted = ChordTokenizer(max_tokens=2).fit([ROLL])
    assert not hasattr(clone(fitted), "vocabulary_")
    assert fitted.set_params(max_tokens=None).fit([ROLL]).n_tokens_ == 6
    tokens = ChordTokenizer().fit_transform([ROLL])[0].tokens
    assert np.array_equal(tokens, ChordTokenizer().fit([ROLL]).transform([ROLL])[0].tokens)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1; got 0"),
        ({"min_count": 0}, "min_count must be at least 1; got 0"),
        ({"unknown": "drop"}, """unknown must be "keep", "nearest" or "error"; got 'drop'"""),
        ({"max_tokens": 2.5}, "max_tokens"),
        ({"max_tokens": "all"}, "max_tokens"),
    ],
)
def test_the_tokenizer_refuses_parameters(parameters, message):
    for method in ("fit", "partial_fit"):
        with pytest.raises(pl.InvalidInputError, match=message):
            getattr(ChordTokenizer(**parameters), method)([ROLL])


def test_the_tokenizer_wants_to_be_fitted():
    sequence = ChordSequence(np.zeros(3, np.int32))
    for method, X in (
        ("transform", [ROLL]),
        ("inverse_transform", [sequence]),
        ("coverage", [ROLL]),
    ):
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(ChordTokenizer(), method)(X)


@pytest.mark.parametrize("method", ["fit", "partial_fit", "transform", "coverage"])
@pytest.mark.parametrize(
    ("X", "message"),
    [
        (ROLL, "Wrap it in a list"),
        (np.zeros((9, 128)), "Wrap it in a list"),
        ([], "X is empty"),
        (["a.mid"], "holds paths"),
        ([np.zeros((128, 9))], "transpose"),
        ([ROLL, PianoRoll.from_notes([0], [1], [60], fs=10)], "expected fs=20"),
    ],
)
def test_the_tokenizer_refuses_what_is_no_list_of_rolls(method, X, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        getattr(ChordTokenizer().fit([ROLL]), method)(X)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        ([np.array([0, 6])], r"X\[0\]: tokens must lie between 0 and 5; got 0 to 6"),
        ([np.array([0]), np.array([-1, 2])], r"X\[1\]: tokens must lie between 0 and 5; got -1"),
        ([np.array([0.5])], r"X\[0\]: expected integer tokens .*; got float64 of shape \(1,\)"),
        ([np.zeros((2, 2), int)], r"got int64 of shape \(2, 2\)"),
        (np.array([0, 1]), "list"),
        (ChordSequence(np.array([0, 1])), "list"),
        ([ChordSequence(np.array([7]), extra=chord(1)[None])], "between 0 and 6; got 7 to 7"),
    ],
)
def test_the_tokenizer_refuses_tokens(X, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        ChordTokenizer().fit([ROLL]).inverse_transform(X)


def test_pieces_of_another_grid_are_not_counted_in():
    tokenizer = ChordTokenizer().fit([ROLL])
    with pytest.raises(pl.InvalidInputError, match="fs=10"):
        tokenizer.partial_fit([PianoRoll.from_notes([0], [1], [60], fs=10)])


def test_empty_pieces_have_no_tokens():
    silent = PianoRoll.from_notes([], [], [], n_frames=0)
    tokenizer = ChordTokenizer().fit([silent, ROLL])
    sequences = tokenizer.transform([silent, ROLL])
    assert [len(s) for s in sequences] == [0, 6]
    assert tokenizer.inverse_transform(sequences)[0] == silent
    assert tokenizer.coverage([silent]) == 1.0


def test_a_corpus_of_no_frames_has_the_rest_alone():
    tokenizer = ChordTokenizer().fit([PianoRoll.from_notes([], [], [], n_frames=0)])
    assert tokenizer.counts_.tolist() == [0]
    assert tokenizer.vocabulary_.tolist() == [[0, 0, 0, 0]]


# ------------------------------------------------------------------------------- a corpus of tokens


def chords_in(corpus):
    """Chords of each piece of a corpus, as sets."""
    return [[reference.chord_of_bits(corpus.chords[t]) for t in piece] for piece in corpus.tokens]


@given(rolls_of_one_grid)
def test_a_corpus_has_the_chords_of_its_rolls(pieces):
    corpus = TokenCorpus.of(pieces)
    expected = [chords_of(roll) for roll in pieces]
    assert chords_in(corpus) == expected
    assert corpus.chords[0].tolist() == [0, 0, 0, 0]
    table = [reference.chord_of_bits(words) for words in corpus.chords]
    assert len(set(table)) == len(table)
    counts = {c: n for c, n in zip(table, corpus.counts().tolist(), strict=True) if n}
    assert counts == reference.count_chords(expected)
    assert all(t.dtype == np.int32 for t in corpus.tokens)


@given(rolls_of_one_grid, rolls_of_one_grid, rolls_of_one_grid)
def test_the_tokenizer_takes_a_corpus_as_it_takes_rolls(first, second, other):
    one, same = ChordTokenizer(max_tokens=7), ChordTokenizer(max_tokens=7)
    one.fit(first).partial_fit(second)
    same.fit(TokenCorpus.of(first)).partial_fit(TokenCorpus.of(second))
    assert np.array_equal(one.vocabulary_, same.vocabulary_)
    assert np.array_equal(one.counts_, same.counts_)
    assert one.coverage(other) == same.coverage(TokenCorpus.of(other))


def test_a_table_may_hold_chords_that_no_piece_has():
    corpus = TokenCorpus.of([ROLL, ROLL.transpose(-7)]).take([1, 1])
    tokenizer = ChordTokenizer().fit(corpus)
    names = {chord_pitches(c) for c in tokenizer.vocabulary_}
    assert names == {"", "53", "53 57", "53* 57", "120", "53 120"}
    assert tokenizer.counts_.tolist() == [2] * 6


def test_take_gives_pieces_by_number():
    tempi = [TempoMap.constant(m) for m in (400_000, 500_000, 600_000)]
    pieces = [
        PianoRoll.from_notes([0], [n], [60 + n], fs=4, grid="beats", tempo_map=tempo)
        for n, tempo in enumerate(tempi, start=1)
    ]
    corpus = TokenCorpus.of(pieces).take([2, 0])
    assert chords_in(corpus) == [chords_of(pieces[2]), chords_of(pieces[0])]
    assert corpus.tempo_maps == [tempi[2], tempi[0]]
    assert (corpus.fs, corpus.grid) == (4, "beats")


def test_as_corpus_leaves_a_corpus_as_it_is():
    corpus = TokenCorpus.of([ROLL])
    assert as_corpus(corpus) is corpus
    assert as_corpus(corpus, fs=20, grid="seconds") is corpus
    assert chords_in(as_corpus([ROLL])) == [chords_of(ROLL)]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"fs": 10}, "Z has fs=20 on the grid of seconds; expected fs=10 on the grid of seconds"),
        ({"grid": "beats"}, "Z has fs=20 .*expected fs=20 on the grid of beats"),
    ],
)
def test_as_corpus_refuses_another_grid(grid, message):
    with pytest.raises(pl.InvalidInputError, match=message):
        as_corpus(TokenCorpus.of([ROLL]), "Z", **grid)


def test_an_empty_corpus_is_refused():
    with pytest.raises(pl.InvalidInputError, match="Z is empty; expected at least one piece"):
        as_corpus(TokenCorpus.of([ROLL]).take([]), "Z")
    with pytest.raises(pl.InvalidInputError, match="X is empty"):
        ChordTokenizer().fit(TokenCorpus.of([ROLL]).take([]))


def test_a_corpus_of_another_grid_is_not_counted_in():
    tokenizer = ChordTokenizer().fit([ROLL])
    other = TokenCorpus.of([PianoRoll.from_notes([0], [1], [60], fs=10)])
    for method in (tokenizer.partial_fit, tokenizer.coverage):
        with pytest.raises(pl.InvalidInputError, match=r"X has fs=10 .*expected fs=20"):
            method(other)


def test_known_keeps_what_it_is_told_to_keep():
    corpus = TokenCorpus.of([PianoRoll.from_notes([0], [3], [99])])
    assert ChordTokenizer().fit([ROLL]).known(corpus) is corpus


@pytest.mark.parametrize("unknown", ["nearest", "error"])
def test_known_looks_only_at_chords_that_sound(unknown):
    # The table has 99, no piece taken does.
    corpus = TokenCorpus.of([ROLL, PianoRoll.from_notes([0], [3], [99])]).take([0])
    tokenizer = ChordTokenizer(unknown=unknown).fit([ROLL])
    assert tokenizer.known(corpus) is corpus


def test_known_puts_the_nearest_chord_in_place():
    tokenizer = ChordTokenizer(unknown="nearest").fit([ROLL])
    pieces = [
        ROLL,
        PianoRoll.from_notes([0, 0, 0, 3], [2, 2, 2, 4], [60, 64, 70, 127], n_frames=4),
    ]
    corpus = TokenCorpus.of(pieces)
    before = corpus.chords.copy()
    with pytest.warns(pl.DataLossWarning, match="2 of 10 frames have a chord outside"):
        known = tokenizer.known(corpus)
    found = [[chord_pitches(known.chords[t]) for t in piece] for piece in known.tokens]
    assert found == [CHORDS, ["60 64", "60 64", "", "127"]]
    assert np.array_equal(corpus.chords, before)  # the corpus itself is left alone


def test_known_names_the_piece_with_an_unknown_chord():
    tokenizer = ChordTokenizer(unknown="error").fit([ROLL])
    corpus = TokenCorpus.of([ROLL, ROLL[3:], PianoRoll.from_notes([1], [2], [61])])
    with pytest.raises(pl.InvalidInputError, match=r"X\[2\] has a chord .*: pitches 61\."):
        tokenizer.known(corpus)
