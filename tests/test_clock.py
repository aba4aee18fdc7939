"""The clock of changes: steps from chord to chord, and the likelihood of each frame."""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

import reference
from pianolstm._model import durations
from pianolstm._model.likelihood import evaluate
from pianolstm._model.networks import ARCHITECTURES, NetworkConfig, bind, initialise
from pianolstm._model.note_decoder import NEVER
from pianolstm._model.recall import LENGTHS, Recall
from pianolstm.chords import as_words, held_on
from pianolstm.tokens import TokenCorpus
from pianolstm.vocabulary import Corpus, padded_vocabulary, runs
from tiny_networks import chord

PITCHES = (60, 61, 62, 127)  # nothing can follow the last
KNOWN = np.array(
    [chord(), chord([60]), chord([60, 62]), chord([61, 127]), chord([60], [62]), chord([], [61])]
)
PIECE = [
    *[chord([60])] * 3,
    chord([60, 62]),
    chord([60], [62]),
    *[chord([60, 62])] * 4,
    *[chord()] * 2,
    chord([61, 62]),
    chord([61, 127]),
    chord([61], [127]),
    chord([61], [127]),
    chord([127]),
]
SHARES = np.linspace(0, 0.7, 1 + len(LENGTHS))


def make(arch="lstm", recall=False):
    """A network of four pitches whose chords may last for long."""
    config = NetworkConfig(arch, 256, 8, 6, 0.0, 8, spell=True, recall=recall, clock="changes")
    bias = np.zeros(256, np.float32)
    bias[-3:] = [5.0, NEVER, 0.7]
    rng = np.random.default_rng(3)
    params = initialise(config, 5, bias, rng.normal(-0.3, 1, durations.N_CLASSES).astype("f4"))
    for name in ("chords_in", "chords_out"):
        own = jax.random.normal(jax.random.key(4), params[name]["own"].shape)
        params[name] = {**params[name], "own": own}
    params["holds"]["write"] = rng.normal(0, 1, params["holds"]["write"].shape).astype("f4")
    params["lasted"] = rng.normal(0, 1, params["lasted"].shape).astype("f4")
    others = np.ones(129, bool)
    others[[*PITCHES, 128]] = False
    write = params["speller"]["write"]
    params["speller"]["write"] = {**write, "bias": jnp.where(others, NEVER, write["bias"])}
    return config, params


def frames_after(past):
    """All frames of the pitches that may follow: each is off, sounds, or is struck again."""
    before = reference.chord_of_bits(past[-1])[0] if past else frozenset()
    states = product(*[(0, 1, 2) if p in before else (0, 1) for p in PITCHES])
    return [
        chord(*([p for p, s in zip(PITCHES, state, strict=True) if s == i] for i in (1, 2)))
        for state in states
    ]


def corpus_of(pieces, clock="changes"):
    table = np.unique(np.concatenate([KNOWN, *(np.array(p) for p in pieces)]), axis=0)
    index = {words.tobytes(): i for i, words in enumerate(table)}
    tokens = [np.array([index[c.tobytes()] for c in piece], np.int32) for piece in pieces]
    corpus = TokenCorpus(tokens, table, 20, "seconds", [None] * len(tokens))
    return Corpus.of(KNOWN, corpus, clock)


def log_p(config, params, pieces, recall=None):
    corpus = corpus_of(pieces)
    found = evaluate(config, params, padded_vocabulary(KNOWN), corpus, None, recall)
    for piece, tokens in zip(found, pieces, strict=True):
        assert piece.frames.tolist() == list(range(len(tokens)))
    return [piece.log_p for piece in found]


def some_recall():
    chords, lasted = np.array([SHARES, SHARES[::-1]]) * 1000
    lasted[0] = 0  # where nothing is recalled
    n = np.full(1 + len(LENGTHS), 1000)
    return Recall(np.stack([n, chords.astype(int), lasted.astype(int)]))


def test_runs_by_hand():
    corpus = corpus_of([PIECE])
    assert corpus.durations[0].tolist() == [3, 1, 5, 2, 1, 1, 1, 1, 1]
    chords = corpus.chords[corpus.tokens[0]]
    expected = [PIECE[i] for i in (0, 3, 4, 9, 11, 12, 13, 14, 15)]
    assert np.array_equal(chords, expected)
    # Of one frame, of none; a rest that begins; the same flags again.
    held = np.array([0, 1, 1])
    for tokens, heads, lengths in (
        ([2], [2], [1]),
        ([], [], []),
        ([0, 0, 2, 1, 1, 2, 2], [0, 2, 2, 2], [2, 3, 1, 1]),
    ):
        found = runs(np.array(tokens, np.int32), held)
        assert [a.tolist() for a in found] == [heads, lengths]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("recall", [False, True])
def test_the_probabilities_of_all_frames_sum_to_one_at_every_age(arch, recall):
    config, params = make(arch, recall)
    shares = some_recall() if recall else None
    for n in (0, 1, 3, 4, 5, 7, 9, 10, 12, 13, 15, 16):
        past = (PIECE + PIECE)[:n] if recall else PIECE[:n]
        frames = frames_after(past)
        p = np.exp([x[-1] for x in log_p(config, params, [[*past, f] for f in frames], shares)])
        assert p.sum() == pytest.approx(1, abs=1e-6)
        if past:
            goes_on = [np.array_equal(f, held_on(past[-1])) for f in frames]
            assert 0.02 < p[goes_on].sum() < 0.98
            assert p[~np.array(goes_on)].max() > 0.005


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("recall", [False, True])
def test_no_frame_depends_on_those_after_it(arch, recall):
    config, params = make(arch, recall)
    shares = some_recall() if recall else None
    piece = PIECE + PIECE
    (whole,) = log_p(config, params, [piece], shares)
    # A piece that ends at a frame, in the middle of a chord or not, has the same until there.
    parts = log_p(config, params, [piece[: n + 1] for n in range(len(piece))], shares)
    for n, part in enumerate(parts):
        np.testing.assert_allclose(part, whole[: n + 1], atol=2e-5)


def test_likelihoods_by_a_reference_that_knows_nothing_of_runs():
    """Frame by frame, each from a past of frames: rows, notes and hazards by plain sums."""
    config, params = make()
    (found,) = log_p(config, params, [PIECE])
    for t, frame in enumerate(PIECE):
        assert found[t] == pytest.approx(plain_log_p(config, params, PIECE[:t], frame), abs=3e-5)


def plain_log_p(config, params, past, frame):
    # Walk back over the frames for the chords that began, and count.
    steps = []
    for i, c in enumerate(past):
        if i == 0 or not np.array_equal(c, held_on(past[i - 1])):
            steps.append([c, 0])
        steps[-1][1] += 1
    network = bind(config, params)
    ids = np.array([[-1, *(row_of(c) for c, _ in steps)]], np.int32)
    bits = as_words(np.array([chord(), *(c for c, _ in steps)]))[None]
    lengths = [0, *(n for _, n in steps)]
    lasted = np.array([[0, *lengths[:-1]]], np.int32)
    h, _ = network.read(ids, bits, network.initial_carry(1), None, lasted)
    age = lengths[-1]
    ends = 1.0
    if age:
        ends = expit(np.asarray(network.holds(h))[0, -1, age - 1].astype(float))
        if np.array_equal(frame, held_on(past[-1])):
            return np.log1p(-ends)
    features = network.predict(h[:, -1:], np.array([[age]], np.int32))
    features = np.asarray(features, np.float64)[0, 0]
    return np.log(ends) + np.log(chords_by_hand(network, params, features, past)[frame.tobytes()])


def row_of(c):
    row = np.flatnonzero((c == KNOWN).all(1))
    return row[0] if len(row) else 256


def chords_by_hand(network, params, features, past):
    """Probability of each chord that may begin: by its row, or by notes that are not held on."""
    table, bias, _ = network.output(padded_vocabulary(KNOWN), np.int32(len(KNOWN)), goes_on=True)
    logits = np.asarray(table, np.float64) @ features + np.asarray(bias, np.float64)
    before = reference.chord_of_bits(past[-1])[0] if past else frozenset()
    for i, c in enumerate(KNOWN):
        is_held = past and np.array_equal(c, held_on(past[-1]))
        if is_held or not reference.chord_of_bits(c)[1] <= before:
            logits[i] = -np.inf
    p = np.exp(logits - logits.max())
    p /= p.sum()
    found = {}
    for c in frames_after(past):
        if past and np.array_equal(c, held_on(past[-1])):
            continue
        by_row = p[row_of(c)] if row_of(c) < 256 else 0
        found[c.tobytes()] = by_row + p[-1] * np.exp(notes(params, features, past, c))
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    return found


def notes(params, features, past, c):
    """Nats of the notes of a chord: a loop over them."""
    speller = jax.tree.map(lambda a: np.asarray(a, np.float64), params["speller"])
    before = reference.chord_of_bits(past[-1])[0] if past else None
    sounding, struck = reference.chord_of_bits(c)
    hidden = features @ speller["read"]["kernel"] + speller["read"]["bias"]
    hidden = hidden + sum(speller["before"][p] for p in before or ())
    total, last, so_far = 0.0, -1, []
    for symbol in [*sorted(sounding), 128]:
        active = np.maximum(hidden, 0)
        logits = active @ speller["write"]["kernel"] + speller["write"]["bias"]
        logits = {s: logits[s] for s in [*PITCHES, 128] if s > last}
        if past and so_far == [(p, False) for p in sorted(before)]:
            del logits[128]
        total += logits[symbol] - np.log(sum(np.exp(list(logits.values()))))
        rest = sorted(before - {symbol}) if before else []
        is_forced = symbol == 127 and so_far == [(p, False) for p in rest]
        if symbol in (before or ()) and is_forced and symbol not in struck:
            return -np.inf
        if symbol in (before or ()) and not is_forced:
            again = active @ speller["again"]["kernel"] + speller["again"]["bias"]
            total -= np.log1p(np.exp(-(1 if symbol in struck else -1) * again[symbol]))
        if symbol < 128:
            hidden = hidden + speller["spelled"][symbol + 128 * (symbol in struck)]
        so_far.append((symbol, symbol in struck))
        last = symbol
    return total
