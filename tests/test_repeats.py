"""No passage is said more often in a row than asked, and all else as often as it may be."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import pianolstm as pl
from pianolstm import constraints
from pianolstm._decoding import history
from pianolstm._decoding.state import repeat_lanes
from pianolstm._decoding.stepping import LANES
from pianolstm._model.config import NetworkConfig
from pianolstm._model.recall import most_in_a_row
from pianolstm.chords import as_words
from pianolstm.constraints import limits_of
from pianolstm.tokens import TokenCorpus, as_corpus
from pianolstm.vocabulary import Corpus
from tiny_networks import NONE, agrees, chord, drawn_after, frames_after, log_p, make, try_for_long

CHORDS = np.array([chord([p]) for p in range(60, 66)])
CHANGES = NetworkConfig("lstm", 0, 4, 4, 0.0, 8, recall=True, clock="changes", spell=True)
LENGTH = 64


def times_in_a_row(piece, n):
    """How often the last n steps of a piece have just come."""
    times = 1
    while len(piece) >= (times + 1) * n:
        if piece[-n:] != piece[len(piece) - (times + 1) * n : len(piece) - times * n]:
            break
        times += 1
    return times


def too_often(piece, most):
    """Whether a piece ends with a passage, not all the same, that has just come too often."""
    lengths = range(2, len(piece) + 1)
    return any(times_in_a_row(piece, n) > most and len(set(piece[-n:])) > 1 for n in lengths)


@jax.jit
def barred_along(pieces, max_repeats):
    """What is barred before each step of pieces (LENGTH, lanes)."""
    words, yes = jnp.asarray(as_words(CHORDS)), jnp.ones(LANES, bool)

    def one(memory, ids):
        found = history.barred(memory, max_repeats)
        number = ids.astype(jnp.uint32)
        step = history.Step(yes, words[ids], ids, ids, number, ~yes, jnp.ones_like(ids))
        return history.remember(CHANGES, memory, step), found

    return jax.lax.scan(one, repeat_lanes(history.empty_memory(), LANES), pieces)[1]


def piece_of(seed):
    """Passages of few chords, said over and over."""
    rng = np.random.default_rng(seed)
    piece = []
    while len(piece) < LENGTH:
        passage = rng.integers(0, rng.integers(1, 7), rng.integers(1, 7)).tolist()
        piece += passage * rng.integers(1, 6)
        piece = piece[: len(piece) - rng.integers(0, 3)]
    return piece[:LENGTH]


def nested(n):
    """a, aba, abacaba, …: what completes a passage at once is another chord for each length."""
    return [] if n == 0 else [*nested(n - 1), n - 1, *nested(n - 1)]


@pytest.mark.parametrize("most", [1, 2, 4])
def test_what_is_barred_is_what_a_search_finds(most):
    n_barred, most_at_once = 0, 0
    for seed in range(0, 5 * LANES, LANES):
        pieces = [piece_of(1000 * most + seed + lane) for lane in range(LANES)]
        pieces[0] = [*nested(6), 0]
        found = barred_along(np.array(pieces, np.int32).T, np.full(LANES, most, np.int32))
        found = history.Barred(*map(np.asarray, found))
        for lane, piece in enumerate(pieces):
            for t in range(LENGTH):
                bits = found.bits[t, lane][found.is_one[t, lane]]
                ids = set(found.ids[t, lane][found.is_one[t, lane]].tolist())
                expected = {c for c in range(6) if too_often([*piece[:t], c], most)}
                assert ids == expected
                assert {b.tobytes() for b in bits} == {as_words(CHORDS)[c].tobytes() for c in ids}
                n_barred, most_at_once = n_barred + len(ids), max(most_at_once, len(ids))
    assert n_barred > 50
    assert most_at_once >= {1: 5, 2: 2, 4: 1}[most]


def corpus_of(*pieces, clock="changes"):
    tokens = [np.array(piece, np.int32) for piece in pieces]
    corpus = TokenCorpus(tokens, CHORDS, 20, "seconds", [None] * len(tokens))
    return Corpus.of(CHORDS, corpus, clock)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 2), min_size=1, max_size=30))
def test_most_in_a_row_is_what_a_search_finds(intervals):
    piece = (np.cumsum(intervals) % 3).tolist()  # each chord another than the one before
    counts = [
        times_in_a_row(piece[:t], n)
        for t in range(1, len(piece) + 1)
        for n in range(2, t + 1)
        if len(set(piece[t - n : t])) > 1
    ]
    assert most_in_a_row(corpus_of(piece)) == max([1, *counts])


def test_most_in_a_row_by_hand():
    assert most_in_a_row(corpus_of([0, 1, 2, 1, 2, 1, 2, 3], [4, 5, 4, 5])) == 3
    assert most_in_a_row(corpus_of([3])) == 1
    # Frames repeat with their times; one chord again and again is no passage.
    frames = [0, 1, 1, 0, 1, 1, 0, 1, 1, 1]
    assert most_in_a_row(corpus_of(frames, clock="frames")) == 3
    assert most_in_a_row(corpus_of([0, 0, 1, 0, 1, 1], clock="frames")) == 1
    assert most_in_a_row(corpus_of([0, 0, 1, 0, 1, 1], clock="changes")) == 2


def test_chords_come_as_often_as_they_do_where_one_is_barred(monkeypatch):
    try_for_long(monkeypatch)
    config, params = make("hybrid")
    config = replace(config, window_size=10)
    first, second = chord([60, 61]), chord([62])
    past = [first, second, first]
    frames = frames_after(past)
    p = np.exp([piece[-1] for piece in log_p(config, params, [[*past, f] for f in frames])])
    p[[bool((f == second).all()) for f in frames]] = 0
    rule = constraints.MaxRepeats(1)
    limits = limits_of(rule, NONE, fs=20, grid="seconds", spell=True)
    assert agrees(drawn_after(config, params, past, 40_000, limits), frames, p) > 1e-3


@pytest.fixture(scope="module", params=["notes", "rows"])
def loop(request):
    """A model that has learned a loop, and the loop."""
    tune = pl.PianoRoll.from_notes([0, 1, 2, 3, 5], [1, 2, 3, 5, 6], [60, 64, 67, 64, 72], fs=20)
    roll = pl.PianoRoll.concatenate([tune] * 12)
    model = pl.SequenceGenerator(
        units=16, embedding=8, window_size=16, max_epochs=30, spell=request.param == "notes",
        learning_rate=0.03, random_state=0,
    )  # fmt: skip
    return model.fit([roll] * 8), tune


def most_of(roll):
    return most_in_a_row(Corpus.of(NONE, as_corpus([roll]), "changes"))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("times", [1, 3])
def test_written_music_keeps_it(loop, times, temperature):
    model, tune = loop
    rule = constraints.MaxRepeats(times)
    settings = {"constraints": rule, "temperature": temperature, "random_state": 3}
    for seed, music in enumerate(model.generate(200, prime=tune, n_pieces=4, **settings)):
        assert most_of(pl.PianoRoll.concatenate([tune, music])) <= times, seed
        assert music.onset.sum() > 20
    # As often as it may: the loop is all that it knows.
    assert times == 1 or most_of(music) >= times - 1


def test_by_default_as_often_as_the_training_pieces_do(loop):
    model, tune = loop
    assert model._model.most_repeats == 12
    (written,) = model.generate(400, prime=tune, n_pieces=1, temperature=0.0)
    most = most_of(pl.PianoRoll.concatenate([tune, written]))
    assert most == 12
    more = constraints.MaxRepeats(20)  # may be more, too
    (written,) = model.generate(400, prime=tune, n_pieces=1, temperature=0.0, constraints=more)
    assert 12 < most_of(pl.PianoRoll.concatenate([tune, written])) <= 20


def test_a_stream_keeps_it_where_it_resumes(loop):
    model, tune = loop
    rule = constraints.MaxRepeats(2)
    stream = model.stream(prime=tune, constraints=rule, random_state=5)
    first = next(stream.blocks(30))
    again = model.stream(state=stream.state)
    rest = next(again.blocks(100))
    assert most_of(pl.PianoRoll.concatenate([tune, first, rest])) <= 2
    same = next(stream.blocks(100))
    assert np.array_equal(np.asarray(same), np.asarray(rest))


def test_it_is_saved_and_files_of_before_have_no_limit(loop, tmp_path):
    model, _ = loop
    model.save(tmp_path / "m.safetensors")
    assert pl.SequenceGenerator.load(tmp_path / "m.safetensors")._model.most_repeats == 12
    arrays, header = model._model.contents()
    del header["most_repeats"]
    old = type(model._model).of_contents("old", arrays, header)
    assert old.most_repeats == constraints.UNLIMITED


@pytest.mark.parametrize("times", [0, 1.5, -1])
def test_times_are_whole_numbers_from_one(times):
    with pytest.raises(pl.InvalidInputError, match="times"):
        constraints.MaxRepeats(times)


def test_of_several_the_fewest():
    rule = constraints.MaxRepeats(5) & constraints.MaxRepeats(3) & constraints.MaxNotes(4)
    assert limits_of(rule, NONE, fs=20, grid="seconds", spell=True).max_repeats == 3
