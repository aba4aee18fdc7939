"""Likelihood of pieces under a network, frame by frame."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array

from pianolstm._nn.corpus import Corpus, PitchBernoulli, Reader
from pianolstm._nn.losses import log_likelihoods
from pianolstm._nn.networks import NetworkConfig, Params, bind
from pianolstm.windows import PAD, START, WindowDataset

LANES = (1, 4, 16)
"""How many pieces are read side by side; few sizes, so that few programs are compiled."""


@dataclass(frozen=True)
class PieceLikelihood:
    """Log-likelihoods along one piece.

    Attributes
    ----------
    frames : ndarray of int, shape (n,)
        The frames that were predicted.
    log_p : ndarray of float64, shape (n,)
        Nats of each.
    right : ndarray of bool, shape (n,)
        Whether the frame's chord was the most likely one.
    """

    frames: np.ndarray
    log_p: np.ndarray
    right: np.ndarray


def evaluate(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,
    corpus: Corpus,
    bernoulli: PitchBernoulli,
    *,
    stride: int = 1,
) -> list[PieceLikelihood]:
    """Log-likelihood of every frame, chords outside the vocabulary included.

    Causal networks carry their state over the whole piece. The Bi-LSTM reads a window for each
    frame.

    Parameters
    ----------
    config, params
        The network.
    vocabulary : Array of uint32, shape (n_rows, 8)
        Bits of the rows of the softmax.
    corpus : Corpus
        The pieces.
    bernoulli : PitchBernoulli
        What a chord outside the vocabulary costs beside the probability of being one.
    stride : int, default=1
        Bi-LSTM only: predict every stride-th frame.

    Returns
    -------
    list of PieceLikelihood
        One a piece.
    """
    output = output_table(config, params, vocabulary, np.int32(corpus.n_tokens))
    run = _carried if config.is_causal else partial(_windowed, stride=stride)
    pieces = run(config, params, output, corpus, Reader(corpus))
    for piece, tokens in zip(pieces, corpus.tokens, strict=True):
        unknown = np.flatnonzero(tokens[piece.frames] >= corpus.n_tokens)
        at = piece.frames[unknown]
        before = corpus.chords[tokens[np.maximum(at - 1, 0)]] * (at > 0)[:, None].astype(np.uint64)
        piece.log_p[unknown] += bernoulli.log_likelihood(corpus.chords[tokens[at]], before)
        piece.right[unknown] = False
    return pieces


@partial(jax.jit, static_argnums=0)
def output_table(
    config: NetworkConfig, params: Params, vocabulary: Array, n_tokens: Array
) -> tuple[Array, Array]:
    """Output vectors and biases of all rows; the same for every frame of a piece."""
    return bind(config, params).output(vocabulary, n_tokens)


@partial(jax.jit, static_argnums=(0, 1))
def initial_carry(config: NetworkConfig, lanes: int, params: Params) -> Any:
    """State before the first frame."""
    return bind(config, params).initial_carry(lanes)


@partial(jax.jit, static_argnums=0)
def _read(
    config: NetworkConfig,
    params: Params,
    output: tuple[Array, Array],
    carry: Any,
    ids: Array,
    bits: Array,
    targets: Array,
) -> tuple[Array, Array, Any]:
    features, carry = bind(config, params)(ids, bits, carry)
    flat = features.reshape(-1, features.shape[-1])
    log_p, right = log_likelihoods(flat, *output, targets.reshape(-1))
    return log_p.reshape(targets.shape), right.reshape(targets.shape), carry


def _carried(
    config: NetworkConfig, params: Params, output: Any, corpus: Corpus, reader: Reader
) -> list[PieceLikelihood]:
    time = config.window_size
    found: dict[int, PieceLikelihood] = {}
    by_length = sorted(range(len(corpus.tokens)), key=lambda i: len(corpus.tokens[i]))
    for first in range(0, len(by_length), LANES[-1]):
        group = by_length[first : first + LANES[-1]]
        lanes = next(n for n in LANES if n >= len(group))
        longest = max(len(corpus.tokens[i]) for i in group)
        ids = np.full((lanes, 1 + -(-longest // time) * time), PAD, np.int32)
        ids[:, 0] = START
        for lane, i in enumerate(group):
            ids[lane, 1 : 1 + len(corpus.tokens[i])] = corpus.tokens[i]
        carry = initial_carry(config, lanes, params)
        parts = []
        for a in range(0, ids.shape[1] - 1, time):
            targets = reader.targets(np.maximum(ids[:, a + 1 : a + 1 + time], 0))
            *part, carry = _read(
                config, params, output, carry, *reader.inputs(ids[:, a : a + time]), targets
            )
            parts.append(part)
        log_p, right = (np.concatenate([np.asarray(p[k]) for p in parts], axis=1) for k in (0, 1))
        for lane, i in enumerate(group):
            n = len(corpus.tokens[i])
            found[i] = PieceLikelihood(
                np.arange(n), log_p[lane, :n].astype(np.float64), right[lane, :n].copy()
            )
    return [found[i] for i in range(len(corpus.tokens))]


def _windowed(
    config: NetworkConfig,
    params: Params,
    output: Any,
    corpus: Corpus,
    reader: Reader,
    *,
    stride: int,
) -> list[PieceLikelihood]:
    lanes = 64
    dataset = WindowDataset(
        corpus.tokens, window_size=config.window_size, stride=stride, target="next"
    )
    carry = initial_carry(config, lanes, params)
    parts = [
        _read(
            config,
            params,
            output,
            carry,
            *reader.inputs(batch.inputs),
            reader.targets(batch.targets),
        )[:2]
        for batch in dataset.batches(lanes, shuffle=False)
    ]
    log_p, right = (np.concatenate([np.asarray(p[k])[:, 0] for p in parts]) for k in (0, 1))
    pieces, first = [], 0
    for tokens in corpus.tokens:
        frames = np.arange(0, len(tokens), stride)
        at = slice(first, first + len(frames))
        pieces.append(PieceLikelihood(frames, log_p[at].astype(np.float64), right[at].copy()))
        first += len(frames)
    return pieces
