"""Likelihood of pieces under a network, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np
from jax import Array

from pianolstm._jax.programs import program
from pianolstm._model.inputs import Reader
from pianolstm._model.losses import Output, log_likelihoods, logits_of
from pianolstm._model.networks import Carry, NetworkConfig, Params, bind, targets_of
from pianolstm._model.recall import Recall
from pianolstm.vocabulary import Corpus, PitchBernoulli
from pianolstm.windows import PAD, START

LANES = (1, 4, 16)
"""How many pieces are read side by side; few sizes, so that few programs are compiled."""

ROWS = (256, 2048)
"""How many frames are scored at once, likewise."""


@dataclass(frozen=True)
class PieceLikelihood:
    """Log-likelihoods along one piece."""

    frames: np.ndarray  # int64 (n,): the frames that were predicted
    log_p: np.ndarray  # float64 (n,): nats of each
    right: np.ndarray  # bool (n,): whether the frame's chord was the most likely one


def evaluate(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8): bits of the rows of the softmax
    corpus: Corpus,
    bernoulli: PitchBernoulli,
    recall: Recall | None = None,
    *,
    stride: int = 1,
) -> list[PieceLikelihood]:
    """Log-likelihood of every frame of each piece, chords outside the vocabulary included.

    Causal networks carry their state over the whole piece. The Bi-LSTM reads a window for each
    frame.

    Parameters
    ----------
    bernoulli : PitchBernoulli
        What a chord outside the vocabulary costs beside the probability of being one.
    recall : Recall, default=None
        What share chords have that are recalled, where any are; None gives the network's alone.
    stride : int, default=1
        Bi-LSTM only: predict one frame of every `stride`, drawn once and for all.
    """
    reader = Reader(corpus, spell=config.spell)
    frames = _frames(corpus, 1 if config.is_causal else stride)
    features = _features(config, params, corpus, reader, frames)
    targets, before = (
        np.concatenate([a[at] for a, at in zip(arrays, frames, strict=True)])
        for arrays in (corpus.tokens, [np.append(START, tokens) for tokens in corpus.tokens])
    )
    output = output_table(config, True, params, vocabulary, np.int32(corpus.n_tokens))
    log_p, right = _likelihoods(
        config, params, output, np.concatenate(features), reader, targets, before
    )
    ends = np.cumsum([len(at) for at in frames])
    pieces = [
        PieceLikelihood(*columns)
        for columns in zip(
            frames, np.split(log_p, ends[:-1]), np.split(right, ends[:-1]), strict=True
        )
    ]
    if not config.spell:
        _add_unknown(pieces, corpus, bernoulli)
    if config.recall and recall is not None:
        _mix_recalled(pieces, corpus, recall, spell=config.spell)
    return pieces


def _add_unknown(pieces: list[PieceLikelihood], corpus: Corpus, bernoulli: PitchBernoulli) -> None:
    """Add what the pitches of chords outside the vocabulary cost."""
    for piece, tokens in zip(pieces, corpus.tokens, strict=True):
        unknown = np.flatnonzero(corpus.rows[tokens[piece.frames]] < 0)
        at = piece.frames[unknown]
        before = corpus.chords[tokens[np.maximum(at - 1, 0)]] * (at > 0)[:, None].astype(np.uint64)
        piece.log_p[unknown] += bernoulli.log_likelihood(corpus.chords[tokens[at]], before)
        piece.right[unknown] = False


def _mix_recalled(
    pieces: list[PieceLikelihood], corpus: Corpus, recall: Recall, *, spell: bool
) -> None:
    """Give what is recalled its share."""
    for piece, tokens in zip(pieces, corpus.tokens, strict=True):
        share, ids = (a[piece.frames] for a in recall.of(corpus, tokens, spell=spell))
        came = ids == tokens[piece.frames]
        with np.errstate(divide="ignore"):  # a share of 0 has the logarithm minus infinity
            recalled = np.where(came, np.log(share), -np.inf)
        piece.log_p[:] = np.logaddexp(np.log1p(-share) + piece.log_p, recalled)
        piece.right[:] = np.where(share > 0.5, came, piece.right)


def probabilities(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8)
    corpus: Corpus,
    recall: Recall,
) -> list[np.ndarray]:  # (n_frames, n_tokens) for each piece
    """Of each chord of the vocabulary."""
    reader = Reader(corpus, spell=config.spell)
    features = _features(config, params, corpus, reader, _frames(corpus, 1))
    output = output_table(config, True, params, vocabulary, np.int32(corpus.n_tokens))
    found = []
    for tokens, read in zip(corpus.tokens, features, strict=True):
        before = np.append(START, tokens)[:-1]
        _, may_hold, _ = reader.targets(tokens, before)
        columns = read, may_hold, reader.inputs(before)[1][:, :4]
        p = np.empty((len(tokens), corpus.n_tokens), np.float32)
        for at in range(0, len(tokens), ROWS[0]):
            part = [a[at : at + ROWS[0]] for a in columns]
            n = len(part[0])
            full = [np.pad(a, [(0, ROWS[0] - n)] + [(0, 0)] * (a.ndim - 1)) for a in part]
            p[at : at + n] = np.asarray(_softmax_rows(config, output, *full))[:n, : corpus.n_tokens]
        if config.recall:
            share, ids = recall.of(corpus, tokens, spell=config.spell)
            p *= (1 - share[:, None]).astype(np.float32)
            known = np.flatnonzero(corpus.rows[ids] >= 0)
            p[known, corpus.rows[ids[known]]] += share[known]
        found.append(p)
    return found


@program()
def _softmax_rows(
    _: NetworkConfig,
    output: Output,
    features: Array,  # (n, width)
    may_hold: Array,  # bool (n,)
    before: Array,  # uint32 (n, 4)
) -> Array:  # (n, n_rows)
    return jax.nn.softmax(logits_of(features, output, may_hold, before))


@program(n_static=2)
def output_table(
    config: NetworkConfig,
    goes_on: bool,
    params: Params,
    vocabulary: Array,  # uint32 (n_rows, 8)
    n_tokens: Array,  # int32 ()
) -> Output:
    """The softmax; the same for every frame of a piece."""
    return bind(config, params).output(vocabulary, n_tokens, goes_on=goes_on)


@program()
def _read(
    config: NetworkConfig,
    params: Params,
    carry: Carry,
    ids: Array,  # int32 (batch, time)
    bits: Array,  # uint32 (batch, time, 8)
) -> tuple[Array, Carry]:  # (batch, n_targets, width)
    return bind(config, params)(ids, bits, carry)


def _frames(corpus: Corpus, stride: int) -> list[np.ndarray]:  # int64 (n,) for each piece
    """Frames of each piece to be scored: one of every `stride`.

    Drawn, and always the same: at equal distances they might all be on the beat, where chords
    begin, and each piece would count its first frame, which is hard to tell, as much as others.
    """
    rng = np.random.default_rng(0)
    firsts = [np.arange(0, len(tokens), stride) for tokens in corpus.tokens]
    return [
        first + rng.integers(np.minimum(stride, len(tokens) - first))
        for first, tokens in zip(firsts, corpus.tokens, strict=True)
    ]


def _features(
    config: NetworkConfig,
    params: Params,
    corpus: Corpus,
    reader: Reader,
    frames: list[np.ndarray],  # int64 (n,) for each piece
) -> list[np.ndarray]:  # (n, width) for each piece
    """What predicts the given frames of each piece; causal networks give all of them."""
    if config.is_causal:
        return _carried(config, params, corpus, reader)
    return _windowed(config, params, corpus, reader, frames)


def _carried(
    config: NetworkConfig, params: Params, corpus: Corpus, reader: Reader
) -> list[np.ndarray]:  # (n_frames, width) for each piece
    """Features of every frame of each piece; pieces side by side, state carried along them."""
    time = config.window_size
    lengths = [len(tokens) for tokens in corpus.tokens]
    longest_first = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    features: dict[int, np.ndarray] = {}
    for first in range(0, len(longest_first), LANES[-1]):
        group = longest_first[first : first + LANES[-1]]
        ids = np.full((LANES[-1], 1 + -(-lengths[group[0]] // time) * time), PAD, np.int32)
        ids[:, 0] = START
        for lane, i in enumerate(group):
            ids[lane, 1 : 1 + lengths[i]] = corpus.tokens[i]
        n_lanes = LANES[-1]
        carry = bind(config, params).initial_carry(n_lanes, np)
        parts: list[list[np.ndarray]] = [[] for _ in group]
        for a in range(0, ids.shape[1] - 1, time):
            # Pieces that go on come first: as others end, fewer lanes are left to compute.
            going_on = sum(lengths[i] > a for i in group)
            lanes = next(n for n in LANES if n >= going_on)
            if lanes < n_lanes:
                # By NumPy: JAX would compile a slice of each size.
                carry = jax.tree.map(lambda leaf, n=lanes: np.asarray(leaf)[:n], carry)
                n_lanes = lanes
            part, carry = _read(config, params, carry, *reader.inputs(ids[:lanes, a : a + time]))
            part = np.asarray(part)
            for lane, i in enumerate(group[:going_on]):
                parts[lane].append(part[lane, : lengths[i] - a])
        for i, piece in zip(group, parts, strict=True):
            features[i] = np.concatenate(piece)
    return [features[i] for i in range(len(lengths))]


def _windowed(
    config: NetworkConfig,
    params: Params,
    corpus: Corpus,
    reader: Reader,
    frames: list[np.ndarray],  # int64 (n,) for each piece
) -> list[np.ndarray]:  # (n, width) for each piece
    """Features of the given frames of each piece, each from the window before it."""
    lanes, size = 64, config.window_size
    # The window before frame t begins at t here.
    pieces = [np.concatenate([np.full(size - 1, PAD), [START], t]) for t in corpus.tokens]
    counts = [len(at) for at in frames]
    places = np.stack([np.repeat(np.arange(len(pieces)), counts), np.concatenate(frames)], axis=1)
    carry = bind(config, params).initial_carry(lanes, np)
    parts = []
    for first in range(0, len(places), lanes):
        windows = np.full((lanes, size), PAD, np.int32)
        for row, (i, t) in enumerate(places[first : first + lanes].tolist()):
            windows[row] = pieces[i][t : t + size]
        parts.append(np.asarray(_read(config, params, carry, *reader.inputs(windows))[0])[:, 0])
    return np.split(np.concatenate(parts)[: len(places)], np.cumsum(counts)[:-1])


@program()
def _score_rows(
    config: NetworkConfig,
    params: Params,
    output: Output,
    features: Array,  # (n, width)
    rows: Array,  # int32 (n,)
    may_hold: Array,  # bool (n,)
    symbols: Array,  # int16 (n, length)
    before: Array,  # uint32 (n, 8)
) -> tuple[Array, Array]:  # (n,), bool (n,)
    targets = targets_of(bind(config, params), features, rows, may_hold, symbols, before)
    return log_likelihoods(features, output, targets)


def _likelihoods(
    config: NetworkConfig,
    params: Params,
    output: Output,
    features: np.ndarray,  # (n, width)
    reader: Reader,
    ids: np.ndarray,  # int (n,)
    before: np.ndarray,  # int (n,)
) -> tuple[np.ndarray, np.ndarray]:  # float64 (n,), bool (n,)
    """Log-likelihood of each target and whether it is the most likely, in rows of few sizes."""
    log_p, right = np.empty(len(ids)), np.empty(len(ids), bool)
    first = 0
    while first < len(ids):
        rows = ROWS[0] if len(ids) - first < ROWS[1] else ROWS[1]
        at = slice(first, first + rows)
        missing = rows - len(ids[at])
        bits = reader.inputs(before[at])[1]
        columns = features[at], *reader.targets(ids[at], before[at]), bits
        padded = [np.pad(a, [(0, missing)] + [(0, 0)] * (a.ndim - 1), "edge") for a in columns]
        found = _score_rows(config, params, output, *padded)
        log_p[at], right[at] = (np.asarray(column)[: rows - missing] for column in found)
        first += rows
    return log_p, right
