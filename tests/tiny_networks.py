"""Tiny networks, whose notes are of four pitches, and what they say and draw by plain sums."""

from __future__ import annotations

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import reference
from pianolstm._decoding import sampling, spelling
from pianolstm._decoding.batches import Batch, Decoder, Request, SamplingSettings
from pianolstm._decoding.history import barred
from pianolstm._decoding.sampling import sample
from pianolstm._decoding.state import Context
from pianolstm._decoding.stepping import LANES
from pianolstm._model.config import NetworkConfig
from pianolstm._model.likelihood import evaluate
from pianolstm._model.networks import initialise
from pianolstm._model.note_decoder import NEVER
from pianolstm.constraints import limits_of
from pianolstm.tokens import TokenCorpus
from pianolstm.vocabulary import Corpus, padded_vocabulary

PITCHES = (60, 61, 62, 63)
MOST_DRAWN = 100_000


def chord(sounding=(), struck=()):
    """Bits of a chord; what is struck again sounds."""
    sounding = frozenset(sounding) | frozenset(struck)
    return np.array(reference.bits((sounding, frozenset(struck))), np.uint64)


KNOWN = np.array(
    [chord(), chord([60]), chord([60, 62]), chord([61, 63]), chord([60], [62]), chord([], [61])]
)
NONE = KNOWN[:0]
# Held on, the last chord is in the vocabulary, outside it, nothing, a rest.
PASTS = [
    [chord([60, 62]), chord([60], [62])],
    [chord([60]), chord([61, 62], [63]), chord([61, 62, 63])],
    [],
    [chord([63]), chord()],
]


def frames_after(past):
    """All frames of four pitches that may follow: each is off, sounds, or is struck again."""
    before = reference.chord_of_bits(past[-1])[0] if past else frozenset()
    states = [(0, 1, 2) if p in before else (0, 1) for p in PITCHES]
    return [
        chord(
            [p for p, s in zip(PITCHES, state, strict=True) if s == 1],
            [p for p, s in zip(PITCHES, state, strict=True) if s == 2],
        )
        for state in product(*states)
    ]


def try_for_long(monkeypatch):
    """What constraints leave is drawn until it is taken.

    Programs that were compiled before don't know: networks need a size of their own.
    """
    monkeypatch.setattr(spelling, "MAX_REJECTED", 60)
    for module in (spelling, sampling):
        monkeypatch.setattr(module, "MAX_TRIED", 62)


def make(arch="lstm", may_end=False):
    """A network whose notes are of four pitches."""
    config = NetworkConfig(arch, 0, 8, 6, 0.0, 8, spell=True)
    return config, with_notes_of(initialise(config, 5), PITCHES, may_end=may_end)


def with_notes_of(params, pitches, *, may_end=False):
    """The same for notes of these pitches alone, each with biases of its own."""
    rng, decoder = np.random.default_rng(9), params["decoder"]
    silent = np.ones(128, bool)
    silent[list(pitches)] = False
    biases = {}
    for name, zeros in (("first_pitch", np.zeros((128, 3))), ("write_pitch", np.zeros((128, 2)))):
        bias = rng.normal(0, 0.5, zeros.shape).astype(np.float32)
        bias[silent, 0] = NEVER
        biases[name] = bias
    # Notes come as often as not, and hear one another.
    wide = {k: 20 * np.asarray(decoder[k]) for k in ("write", "write_first")}
    others = np.array([0, 0 if may_end else NEVER], np.float32)
    wide["others"] = {**decoder["others"], "bias": others}
    return {**params, "decoder": {**decoder, **biases, **wide, "bias": np.zeros(2, np.float32)}}


def with_gates(params, shares, seed=None):
    """The same with gates of these shares, (2, n_classes); with a seed, of all that they read."""
    rng = np.random.default_rng(seed)
    changed = {}
    for name, its in zip(("gate", "duration_gate"), shares, strict=True):
        if name not in params:
            continue
        gate = jax.tree.map(np.asarray, params[name])
        if seed is not None:
            gate = jax.tree.map(lambda a: rng.normal(0, 0.4, a.shape).astype("f4"), gate)
        with np.errstate(divide="ignore"):
            logits = np.maximum(np.log(its) - np.log1p(-its), -30)
        changed[name] = {**gate, "shares": logits.astype("f4")}
    return {**params, **changed}


def notes_by_hand(params, hidden, past, frame, pitches=PITCHES, temperature=1.0, barred=False):
    """Nats of the notes of a frame, by loops over pitches and notes.

    `hidden` has the features and the states of all pitches, float64.
    """
    decoder = jax.tree.map(lambda a: np.asarray(a, np.float64), params["decoder"])
    (features, heard), write = hidden, decoder["write"]
    before = reference.chord_of_bits(past[-1])[0] if past else frozenset()
    sounding, struck = reference.chord_of_bits(frame)
    read, read_first, others = (
        features @ decoder[name]["kernel"] + decoder[name]["bias"]
        for name in ("read", "read_first", "others")
    )

    def pick(logits, symbol):
        scaled = {s: x / temperature for s, x in logits.items()}
        return scaled[symbol] - np.log(sum(np.exp(list(scaled.values()))))

    def log_sigmoid(x):
        return -np.log1p(np.exp(-x))

    first = {
        p: np.maximum(heard[p] @ decoder["hear_first"] + read_first, 0) @ decoder["write_first"]
        + decoder["first_pitch"][p]
        for p in pitches
    }
    options = {p: first[p][1 if p in before else 0] for p in pitches}
    if not barred:
        options[128] = others[0]
    changed = [p for p in pitches if (p in sounding) != (p in before) or p in struck]
    last = min(changed, default=128)
    total = pick(options, last)
    if last == 128:
        return total
    if last in before:
        total += log_sigmoid((1 if last in sounding else -1) * first[last][2] / temperature)
    written = [q for q in sounding if q <= last]
    while True:
        logits, passed, agains = {}, 0.0, {}
        for p in [p for p in pitches if p > last]:
            x = heard[p] @ decoder["hear"] + decoder["pitch"][p] + read
            for q in written:
                for plane in [0, 1] if q in struck else [0]:
                    x = x + decoder["below"]["interval"][plane, 127 + p - q]
                    x = x + decoder["below"]["pitch_class"][plane, (p - q) % 12]
            x = np.maximum(x, 0) @ decoder["hidden"]["kernel"] + decoder["hidden"]["bias"]
            on, agains[p] = np.maximum(x, 0) @ write + decoder["write_pitch"][p] + decoder["bias"]
            logits[p] = passed + log_sigmoid(on)
            passed += log_sigmoid(-on)
        logits[128] = passed
        last = min((p for p in sounding if p > last), default=128)
        total += pick(logits, last)
        if last == 128:
            return total
        if last in before:
            total += log_sigmoid((1 if last in struck else -1) * agains[last] / temperature)
        written.append(last)


def log_p(config, params, pieces):
    """Nats of each frame of pieces, lists of chords."""
    table = np.unique(np.concatenate([KNOWN, *(np.array(p) for p in pieces)]), axis=0)
    index = {words.tobytes(): i for i, words in enumerate(table)}
    tokens = [np.array([index[c.tobytes()] for c in piece], np.int32) for piece in pieces]
    corpus = Corpus.of(KNOWN, TokenCorpus(tokens, table, 20, "seconds", [None] * len(tokens)))
    vocabulary = None if config.spell else padded_vocabulary(KNOWN)
    found = evaluate(config, params, vocabulary, corpus, None)
    return [piece.log_p for piece in found]


@partial(jax.jit, static_argnums=0)
def draw_all(config, laid, vocabulary, rules, free, state, n):
    """Chords drawn from one state by n rows of random numbers, and zeros."""
    often = barred(state.memory, rules.max_repeats)

    def one(row, drawn):
        timed = state._replace(position=row * LANES + jnp.arange(LANES))
        all_of = Context(laid, vocabulary, rules, free, often, timed)
        return drawn.at[row].set(sample(config, all_of, np.bool_(False)).bits)

    drawn = jnp.zeros((MOST_DRAWN // LANES, LANES, 8), jnp.uint32)
    return jax.lax.fori_loop(0, n, one, drawn)  # compiled once for all n


def drawn_after(config, params, past, n, limits=None, **draw):
    """How often each frame comes first after a past: a dict of bits to counts."""
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits or limits_of(None, NONE, fs=20, grid="seconds", spell=True)
    prime = writer.forced(np.array(past, np.uint64).reshape(-1, 4))
    draw = SamplingSettings(may_end=False, **draw)
    keys = np.arange(2 * LANES, dtype=np.uint32).reshape(-1, 2)
    group = Batch(writer, [Request(key, draw, limits, prime, len(past)) for key in keys])
    group.advance(len(past))
    free = jax.tree.map(lambda a: a[0], group._free)

    assert n % LANES == 0 and n <= MOST_DRAWN
    laid, vocabulary, rows = writer.weights, writer.vocabulary, np.int32(n // LANES)
    words = draw_all(writer.config, laid, vocabulary, group.sampling, free, group.state, rows)
    words = np.asarray(words).reshape(-1, 8)[:n].view("<u8")
    frames, counts = np.unique(words, axis=0, return_counts=True)
    return {f.astype(np.uint64).tobytes(): c for f, c in zip(frames, counts, strict=True)}


def agrees(counts, frames, p):
    """P-value of a chi-squared test; frames that hardly ever come are taken together."""
    observed = np.array([counts.pop(f.tobytes(), 0) for f in frames])
    assert not counts  # nothing else was drawn
    p = np.asarray(p) / np.sum(p)
    expected = p * observed.sum()
    rare = expected < 8
    assert observed[p == 0].sum() == 0
    pairs = np.stack([observed, expected])
    pairs = np.concatenate([pairs[:, ~rare], pairs[:, rare].sum(1, keepdims=True)], axis=1)
    pairs = pairs[:, pairs[1] > 0]
    return stats.chisquare(*pairs).pvalue
