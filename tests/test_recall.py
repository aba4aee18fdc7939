"""What a piece has had before: found as by a plain search, with its share of the probability."""

import copy
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl
import reference
from pianolstm import constraints
from pianolstm._decoding import history, sampling
from pianolstm._decoding.batches import Batch, Decoder, Request, SamplingSettings, write_all
from pianolstm._decoding.state import match_of, repeat_lanes
from pianolstm._decoding.stepping import LANES
from pianolstm._model import recall
from pianolstm._model.config import NetworkConfig
from pianolstm._model.gates import Gate, Match, gate_logit, log_mixed
from pianolstm._model.planes import NEVER
from pianolstm._model.recall import LENGTHS, Recalled, find_sources, shares
from pianolstm.chords import ages, as_chords, as_words
from pianolstm.constraints import limits_of
from pianolstm.tokens import TokenCorpus
from pianolstm.vocabulary import Corpus
from tiny_networks import (
    KNOWN,
    NONE,
    PASTS,
    agrees,
    chord,
    drawn_after,
    frames_after,
    log_p,
    make,
    with_gates,
)

CHORDS = np.array([chord(), chord([60]), chord([60, 64]), chord([60], [64]), chord([61])])
SHARES = np.linspace(0, 0.9, 1 + len(LENGTHS)).astype(np.float32)


def corpus_of(*pieces, vocabulary=CHORDS):
    tokens = [np.array(piece, np.int32) for piece in pieces]
    corpus = TokenCorpus(tokens, CHORDS, 20, "seconds", [None] * len(tokens))
    return Corpus.of(vocabulary, corpus)


FRAMES = NetworkConfig("lstm", 256, 4, 4, 0.0, 8, recall=True)
CHANGES = replace(FRAMES, clock="changes")


def step_of(words, ids):
    """A frame of each lane, as it is remembered."""
    yes = jnp.ones(LANES, bool)
    number = ids.astype(jnp.uint32)
    return history.Step(yes, words[ids], ids, ids + 100, number, ~yes, jnp.ones_like(ids))


def sources_by_search(tokens, memory):
    """Class and source of each frame, by trying all places and lengths."""
    ages, frames = [], []
    for t, token in enumerate(tokens):
        before = CHORDS[tokens[t - 1]] if t else np.zeros(4, np.uint64)
        new = (CHORDS[token][:2] != before[:2]).any() or (CHORDS[token][2:] > 0).any()
        ages.append(0 if new else 1 + (ages[-1] if t else 0))
        frames.append((token, ages[-1]))
    found = []
    for t in range(len(tokens)):
        best = (0, 0)
        for j in range(max(1, t - memory), t):
            n = max(k for k in range(min(j, 32) + 1) if frames[j - k : j] == frames[t - k : t])
            best = max(best, (sum(n >= length for length in LENGTHS), j))
        found.append(best if best[0] else (0, 0))
    return found


def times_in_a_row(frames, sources):
    """How often the passage has just come that each frame would go on with, by counting back."""
    times = []
    for t, j in enumerate(sources):
        n = 0
        while n < j and frames[j - 1 - n] == frames[t - 1 - n]:
            n += 1
        times.append(1 + n // max(1, t - j))
    return np.array(times)


pieces_of_chords = st.lists(st.integers(0, len(CHORDS) - 1), min_size=1, max_size=60)


def repetitive(seed, n):
    """A piece of phrases that come again."""
    rng = np.random.default_rng(seed)
    phrases = [rng.integers(len(CHORDS), size=rng.integers(2, 20)) for _ in range(3)]
    return np.concatenate([phrases[rng.integers(3)] for _ in range(n)]).astype(np.int32)


@given(pieces_of_chords, st.integers(2, 40))
def test_sources_are_those_of_a_search(piece, memory):
    corpus = corpus_of(piece)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recall, "MEMORY", memory)
        classes, sources, times = find_sources(corpus, corpus.tokens[0])
    assert list(zip(classes, sources, strict=True)) == sources_by_search(piece, memory)
    frames = list(zip(piece, ages(CHORDS[piece]), strict=True))
    expected = np.where(classes > 0, times_in_a_row(frames, sources), 0)
    assert times.tolist() == expected.tolist()


@pytest.mark.parametrize("memory", [7, 64, 4096])
def test_sources_of_pieces_that_repeat(memory, monkeypatch):
    for module in (recall, history):
        monkeypatch.setattr(module, "MEMORY", memory)
    piece = repetitive(3, 12)
    corpus = corpus_of(piece)
    classes, sources, _ = find_sources(corpus, corpus.tokens[0])
    assert list(zip(classes, sources, strict=True)) == sources_by_search(piece, memory)
    assert classes.max() == (len(LENGTHS) if memory > 60 else classes.max())


def test_what_is_recalled_by_hand():
    # A B C | A B C | A B: from the fourth step on, what follows has followed before.
    corpus = corpus_of([1, 2, 4, 1, 2, 4, 1, 2])
    found = Recalled.along(corpus, 0, spell=True)
    assert found.classes.tolist() == [0, 0, 0, 0, 1, 2, 3, 4, 4]
    assert found.ids[4:].tolist() == [2, 4, 1, 2, 4]
    assert found.times.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 1]  # twice, where all of it came
    assert found.lags[4:].tolist() == [1] * 5  # two or three steps back
    # Of 4, 1, 1 and 1 steps of the four classes all come as recalled.
    came, lasted = shares(corpus, [found])
    np.testing.assert_allclose(came[1:6], [0.75] * 4 + [0.5])
    assert np.array_equal(came[1:], lasted[1:])
    # A chord outside the vocabulary is recalled where it can be spelled.
    closed = corpus_of([1, 2, 4, 1, 2, 4, 1, 2], vocabulary=CHORDS[:4])
    assert Recalled.along(closed, 0, spell=True).classes.tolist() == found.classes.tolist()
    assert Recalled.along(closed, 0, spell=False).classes.tolist() == [0, 0, 0, 0, 1, 0, 3, 4, 0]


def test_durations_are_recalled_by_hand():
    corpus = replace(corpus_of([1, 2, 4, 1, 2]), clock="changes")
    corpus = replace(corpus, durations=[np.array([3, 1, 2, 5, 1], np.int32)])
    found = Recalled.along(corpus, 0, spell=True)
    # Before the last step, and after it: how long the first and the second chord lasted.
    assert found.classes.tolist() == [0, 0, 0, 0, 1, 2]
    assert found.durations[4:].tolist() == [3, 1]
    came, lasted = shares(corpus, [found])
    assert came[1] == 0.75 and lasted[1] == 0.25  # 3 is not 5


def test_gates_by_hand():
    """Sums in float64, of a hidden layer that reads four things."""
    rng = np.random.default_rng(0)
    weights = jax.tree.map(
        lambda a: rng.normal(size=a.shape).astype("f4"), Gate(5, rngs=nnx.Rngs(0)).weights()
    )
    hidden = rng.normal(size=(4, 5)).astype("f4")
    match = Match(np.array([0, 1, 10, 4]), np.array([0, 1, 4, 0]), np.array([0, 13, 2, 1]))
    log_p = np.array([-1.0, -0.5, -40.0, -16.0], np.float32)
    found = gate_logit(weights, hidden, match, log_p)
    assert found[0] == NEVER
    for i in range(1, 4):
        kernel, bias = weights.read
        x = hidden[i].astype(float) @ kernel + bias + max(log_p[i], -16) / 16 * weights.likely
        x += sum(t[n[i]] for t, n in zip(weights.tables, match, strict=True))
        expected = np.maximum(x, 0) @ weights.write[:, 0] + weights.shares[match.classes[i]]
        assert float(found[i]) == pytest.approx(expected, rel=1e-5)
    # Both parts of a probability; nothing recalled leaves the network's.
    nats = log_mixed(
        jnp.array([0.3, 0.3, NEVER]), jnp.array([True, False, False]), -2.0 * jnp.ones(3)
    )
    g, p = 1 / (1 + np.exp(-0.3)), np.exp(-2)
    np.testing.assert_allclose(np.exp(nats), [g + (1 - g) * p, (1 - g) * p, p], rtol=1e-6)


def test_numbers_of_lags_and_times_are_those_of_lanes():
    lags, times = np.arange(1, 5000), np.arange(1, 5000) % 40 + 1
    zeros = np.zeros(len(lags), np.int32)
    found = match_of(history.Recalled(zeros, None, zeros, zeros, zeros, times, lags))
    assert np.array_equal(found.lags, recall.lag_class(lags))
    assert np.array_equal(found.times, recall.times_class(times))


@pytest.mark.parametrize("memory", [11, 4096])
def test_lanes_recall_what_a_piece_recalls(memory, monkeypatch):
    for module in (recall, history):
        monkeypatch.setattr(module, "MEMORY", memory)
    pieces = [repetitive(seed, 30)[:150] for seed in range(LANES)]
    words = jnp.asarray(as_words(CHORDS))

    @jax.jit
    def heard(tokens):
        def one(state, ids):
            found = history.recalled(state)
            return history.remember(FRAMES, state, step_of(words, ids)), found

        start = repeat_lanes(history.empty_memory(), LANES)
        return jax.lax.scan(one, start, tokens)[1]

    found = heard(jnp.stack(pieces, axis=1))
    for lane, piece in enumerate(pieces):
        corpus = corpus_of(piece)
        classes, sources, _ = find_sources(corpus, corpus.tokens[0])
        assert np.asarray(found[0])[:, lane].tolist() == classes.tolist()
        at = classes > 0
        ids = piece[sources[at]]
        assert np.asarray(found[2])[at, lane].tolist() == ids.tolist()
        assert np.asarray(found[3])[at, lane].tolist() == (ids + 100).tolist()
        assert np.array_equal(np.asarray(found[1])[at, lane], words[ids])
        held = ages(CHORDS[piece])
        times = times_in_a_row(list(zip(piece, held, strict=True)), sources)
        assert np.asarray(found.in_a_row)[at, lane].tolist() == times[at].tolist()


def test_a_piece_that_begins_forgets():
    words = as_words(CHORDS)
    state = repeat_lanes(history.empty_memory(), LANES)
    for t, token in enumerate([1, 4, 1, 4, 1]):
        ids = np.full(LANES, token, np.int32)
        begins = (np.arange(LANES) < 3) & (t == 4)
        state = history.remember(FRAMES, state, step_of(words, ids)._replace(begins=begins))
    classes, _, ids, _, _, in_a_row, lag = history.recalled(state)
    assert classes.tolist() == [0] * 3 + [3] * (LANES - 3)
    assert ids[3:].tolist() == [4] * (LANES - 3)
    assert in_a_row[3:].tolist() == [2] * (LANES - 3)  # 1 4 1 4 1, of which 1 4 came twice
    assert lag[3:].tolist() == [2] * (LANES - 3)


@pytest.mark.parametrize("memory", [11, 4096])
def test_lanes_remember_chords_and_durations(memory, monkeypatch):
    """With the clock of changes lanes step at different times, and agree whatever the time."""
    for module in (recall, history):
        monkeypatch.setattr(module, "MEMORY", memory)
    words = jnp.asarray(as_words(CHORDS))
    rng = np.random.default_rng(2)
    pieces, lengths = [], []
    for seed in range(LANES):
        piece = repetitive(seed, 12)[:60]
        pieces.append(np.append(piece[:1], piece[1:][piece[1:] != piece[:-1]]))  # none held on
        lengths.append(rng.integers(1, 5, len(pieces[-1])).astype(np.int32))
    n_frames = max(d.sum() for d in lengths)
    tokens, is_one, lasted = np.zeros((3, n_frames, LANES), np.int32)
    for lane, (piece, durations) in enumerate(zip(pieces, lengths, strict=True)):
        at = np.cumsum(durations) - durations
        tokens[at, lane], is_one[at, lane] = piece, 1
        lasted[at, lane] = np.append(0, durations[:-1])

    @jax.jit
    def heard(arrays):
        def one(state, now):
            ids, is_one, lasted = now
            found = history.recalled(state)
            step = step_of(words, ids)._replace(is_one=is_one > 0, lasted=lasted)
            return history.remember(CHANGES, state, step), found

        return jax.lax.scan(one, repeat_lanes(history.empty_memory(), LANES), arrays)[1]

    found = heard((tokens, is_one, lasted))
    for lane, (piece, durations) in enumerate(zip(pieces, lengths, strict=True)):
        corpus = replace(corpus_of(piece), durations=[durations], clock="changes")
        classes, sources, _ = find_sources(corpus, corpus.tokens[0])
        at = np.flatnonzero(is_one[:, lane])
        assert np.asarray(found.classes)[at, lane].tolist() == classes.tolist()
        assert (classes > 0).sum() > 5
        times = times_in_a_row(list(piece), sources)[classes > 0]
        at, sources = at[classes > 0], sources[classes > 0]
        assert np.asarray(found.in_a_row)[at, lane].tolist() == times.tolist()
        assert np.asarray(found.ids)[at, lane].tolist() == piece[sources].tolist()
        expected = durations[sources - 1].tolist()
        assert np.asarray(found.duration)[at, lane].tolist() == expected


def make_recalling():
    config, params = make("stacked")
    return replace(config, recall=True), with_gates(params, np.stack([SHARES, SHARES]))


def recalls_twice(monkeypatch):
    """The same, that recalls nothing for the third time in a row; of a size of its own."""
    monkeypatch.setattr(sampling, "MAX_RECALLED", 2)
    config, params = make_recalling()
    return replace(config, window_size=6), params


def mixed(config, params, pieces):
    """Nats of each frame, both parts of the probability together."""
    found = log_p(replace(config, recall=False), params, pieces)
    for piece, nats in zip(pieces, found, strict=True):
        table, tokens = np.unique(np.array(piece), axis=0, return_inverse=True)
        tokens = tokens.reshape(-1).astype(np.int32)
        corpus = Corpus.of(KNOWN, TokenCorpus([tokens], table, 20, "seconds", [None]))
        classes, sources, _ = find_sources(corpus, tokens)
        share = SHARES[classes].astype(np.float64)
        nats[:] = np.log((1 - share) * np.exp(nats) + share * (tokens[sources] == tokens))
    return found


# A chord of the vocabulary is recalled, one outside it that is held on, and one that is struck.
REPEATING = [
    [PASTS[0][0], chord([61]), *PASTS[0], chord([61])],
    [*PASTS[1], chord([60]), chord([61, 62], [63])],
    [chord([60, 62]), chord([60], [62]), chord([63]), chord([60, 62])],
]


@pytest.mark.parametrize("past", REPEATING)
def test_drawn_frames_have_the_stated_frequencies(past):
    config, params = make_recalling()
    frames = frames_after(past)
    p = np.exp([piece[-1] for piece in mixed(config, params, [[*past, f] for f in frames])])
    assert p.sum() == pytest.approx(1, abs=1e-6)
    found = np.exp([piece[-1] for piece in log_p(config, params, [[*past, f] for f in frames])])
    np.testing.assert_allclose(found, p, atol=1e-6)
    alone = replace(config, recall=False)
    plain = np.exp([piece[-1] for piece in log_p(alone, params, [[*past, f] for f in frames])])
    assert np.abs(p - plain).max() > 0.05
    assert agrees(drawn_after(config, params, past, 100_000), frames, p) > 1e-3


def test_likelihoods_of_writing_are_those_of_scoring(monkeypatch):
    config, params = recalls_twice(monkeypatch)
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits_of(None, NONE, fs=20, grid="seconds", spell=True)
    prime = np.array([*REPEATING[1], chord([60, 61]), *REPEATING[0]])
    given = writer.forced(prime)
    draw = SamplingSettings(may_end=False, is_proposed=True)
    piece = Request(np.array([1, 2], np.uint32), draw, limits, given, len(prime))
    (written,) = write_all(writer, [piece], 300, is_weighed=True)
    chords = as_chords(written.bits)
    (expected,) = mixed(config, params, [[*prime, *chords]])
    np.testing.assert_allclose(written.log_p, expected[len(prime) :], atol=1e-4)
    # All was allowed, but for what would be recalled for the third time in a row.
    table, tokens = np.unique([*prime, *chords], axis=0, return_inverse=True)
    corpus = Corpus.of(KNOWN, TokenCorpus([tokens.reshape(-1)], table, 20, "seconds", [None]))
    classes, sources, _ = find_sources(corpus, tokens.reshape(-1))
    held = ages(table[tokens.reshape(-1)])
    times = times_in_a_row(list(zip(tokens.reshape(-1), held, strict=True)), sources)
    left = np.where((classes > 0) & (times > 1), np.log1p(-SHARES[classes]), 0)[len(prime) :]
    assert (left < -0.1).any()
    np.testing.assert_allclose(written.log_allowed, left, atol=1e-4)
    # Of a prime too.
    group = Batch(writer, [piece] * LANES)
    found = group.advance(len(prime), is_weighed=True)
    np.testing.assert_allclose(found.log_p[:, 0], expected[: len(prime)], atol=1e-4)


def test_nothing_is_recalled_that_is_not_allowed():
    config, params = make_recalling()
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    rule = constraints.PitchRange(60, 62) & constraints.MaxHold(0.1) & constraints.MaxNotes(2)
    limits = limits_of(rule, NONE, fs=20, grid="seconds", spell=True)
    prime = np.array(REPEATING[1] * 3)
    pieces = [
        Request(
            np.array([0, key], np.uint32),
            SamplingSettings(),
            limits,
            writer.forced(prime),
            len(prime),
        )
        for key in range(16)
    ]
    for written in write_all(writer, pieces, 60):
        holds = 0
        for before, c in zip(
            [None, *as_chords(written.bits)], as_chords(written.bits), strict=False
        ):
            sounding, struck = reference.chord_of_bits(c)
            assert sounding <= {60, 61, 62} and len(sounding) <= 2
            same = before is not None and not struck
            same = same and sounding == reference.chord_of_bits(before)[0]
            holds = holds + 1 if same else 1
            assert holds <= 2


def test_greedy_music_recalls_what_is_likelier_than_not(monkeypatch):
    config, params = recalls_twice(monkeypatch)
    others = [chord(c) for c in ([62], [60, 61], [63], [61], [60])]
    long = [*PASTS[0], chord([61]), *PASTS[1], *others, chord([60, 62, 63])] * 2
    # The second time is recalled, and the third is not.
    third = [*long, *long[: len(long) // 2 - 1]]
    for past, is_recalled in ((long[:-1], True), (REPEATING[1][:3], False), (third, False)):
        (frame,) = drawn_after(config, params, past, 64, temperature=0.0)
        assert (frame == chord([60, 62, 63]).tobytes()) == is_recalled


@pytest.fixture(scope="module")
def rolls():
    return pl.datasets.load_chorales("train")[:6]


@pytest.fixture(scope="module")
def model(rolls):
    model = pl.SequenceGenerator(
        tokenizer=pl.ChordTokenizer(),
        units=8,
        embedding=6,
        window_size=16,
        max_epochs=1,
        early_stopping=False,
        clock="frames",
        augment=0,
        random_state=0,
    )
    return model.fit(rolls)


def test_a_stream_resumes_with_what_it_heard(model, rolls, tmp_path):
    music = model.generate(40, prime=rolls[2], random_state=5)
    stream = model.stream(prime=rolls[2], random_state=5)
    frames = [next(stream).pitches for _ in range(17)]
    model.save(tmp_path / "model.safetensors")
    loaded = pl.SequenceGenerator.load(tmp_path / "model.safetensors")
    rest = loaded.stream(state=stream.state)
    frames += [next(rest).pitches for _ in range(23)]
    assert frames == [tuple(np.flatnonzero(frame)) for frame in np.asarray(music)]
    assert loaded.score(rolls) == model.score(rolls)


def test_without_recall(model, rolls):
    """It can be switched off after `fit`: that changes what is scored and what is written."""
    plain = copy.deepcopy(model).set_params(recall=False)
    assert plain.score(rolls) < model.score(rolls) - 0.1
    prime = pl.PianoRoll.concatenate([rolls[0][:48], rolls[0][:16]])
    musics = [m.generate(48, prime=prime, random_state=1) for m in (model, plain)]
    assert not np.array_equal(*musics)
    same = [(np.asarray(music)[:16] == np.asarray(prime)[16:32]).all(1).mean() for music in musics]
    assert same[0] > 0.5 > same[1]


def test_probabilities_have_what_is_recalled(model, rolls):
    (p,), (nats,) = model.predict_proba([rolls[1]]), model.surprise([rolls[1]])
    tokens = model.tokenizer_.transform([rolls[1]])[0].tokens
    np.testing.assert_allclose(p[np.arange(len(p)), tokens], np.exp(-nats), rtol=1e-3)
    assert (p.sum(1) <= 1 + 1e-5).all()
    plain = copy.deepcopy(model).set_params(recall=False).predict_proba([rolls[1]])[0]
    # All chords have the same share less, but the one that is recalled.
    ratio = p / np.maximum(plain, 1e-9)
    rest = [np.median(r[q > 1e-5]) for r, q in zip(ratio, plain, strict=True)]
    is_same = np.isclose(p, np.array(rest)[:, None] * plain, rtol=1e-3, atol=1e-6)
    assert set((~is_same).sum(1)) == {0, 1}
    assert is_same[0].all()  # nothing before the first frame
    assert ((p - plain).max(1) > 0.05).mean() > 0.1


def test_recall_is_learned(rolls):
    """The gate is trained with the network, and can't be switched on without."""
    settings = {"units": 8, "embedding": 6, "window_size": 16, "max_epochs": 1, "random_state": 0}
    settings |= {"early_stopping": False, "augment": 0}
    model, plain = (pl.SequenceGenerator(**settings, recall=r).fit(rolls) for r in (True, False))
    gates = [m._model.params["gate"] for m in (model, plain)]
    assert np.abs(gates[0]["write"]).max() > 1e-4 and not np.any(gates[1]["write"])
    plain.set_params(recall=True)
    with pytest.raises(pl.InvalidInputError, match="learned with recall=False"):
        plain.score(rolls)
