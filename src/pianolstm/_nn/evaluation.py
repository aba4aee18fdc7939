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

ROWS = (256, 2048)
"""How many frames are scored at once, likewise."""


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
    reader = Reader(corpus)
    if config.is_causal:
        stride, features = 1, _carried(config, params, corpus, reader)
    else:
        features = _windowed(config, params, corpus, reader, stride=stride)
    frames = [np.arange(0, len(tokens), stride) for tokens in corpus.tokens]
    targets = [tokens[at] for tokens, at in zip(corpus.tokens, frames, strict=True)]
    output = output_table(config, params, vocabulary, np.int32(corpus.n_tokens), goes_on=True)
    log_p, right = _likelihoods(
        output, np.concatenate(features), reader.targets(np.concatenate(targets))
    )
    ends = np.cumsum([len(at) for at in frames])
    pieces = [
        PieceLikelihood(*columns)
        for columns in zip(
            frames, np.split(log_p, ends[:-1]), np.split(right, ends[:-1]), strict=True
        )
    ]
    for piece, tokens in zip(pieces, corpus.tokens, strict=True):
        unknown = np.flatnonzero(corpus.rows[tokens[piece.frames]] < 0)
        at = piece.frames[unknown]
        before = corpus.chords[tokens[np.maximum(at - 1, 0)]] * (at > 0)[:, None].astype(np.uint64)
        piece.log_p[unknown] += bernoulli.log_likelihood(corpus.chords[tokens[at]], before)
        piece.right[unknown] = False
    return pieces


@partial(jax.jit, static_argnums=0, static_argnames="goes_on")
def output_table(
    config: NetworkConfig, params: Params, vocabulary: Array, n_tokens: Array, *, goes_on: bool
) -> tuple[Array, Array]:
    """Output vectors and biases of all rows; the same for every frame of a piece."""
    return bind(config, params).output(vocabulary, n_tokens, goes_on=goes_on)


@partial(jax.jit, static_argnums=(0, 1))
def initial_carry(config: NetworkConfig, lanes: int, params: Params) -> Any:
    """State before the first frame."""
    return bind(config, params).initial_carry(lanes)


@partial(jax.jit, static_argnums=0)
def _read(
    config: NetworkConfig, params: Params, carry: Any, ids: Array, bits: Array
) -> tuple[Array, Any]:
    return bind(config, params)(ids, bits, carry)


def _carried(
    config: NetworkConfig, params: Params, corpus: Corpus, reader: Reader
) -> list[np.ndarray]:
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
        carry = initial_carry(config, LANES[-1], params)
        parts: list[list[np.ndarray]] = [[] for _ in group]
        for a in range(0, ids.shape[1] - 1, time):
            # Pieces that go on come first: as others end, fewer lanes are left to compute.
            going_on = sum(lengths[i] > a for i in group)
            lanes = next(n for n in LANES if n >= going_on)
            carry = jax.tree.map(lambda leaf, n=lanes: leaf[:n], carry)
            part, carry = _read(config, params, carry, *reader.inputs(ids[:lanes, a : a + time]))
            part = np.asarray(part)
            for lane, i in enumerate(group[:going_on]):
                parts[lane].append(part[lane, : lengths[i] - a])
        for i, piece in zip(group, parts, strict=True):
            features[i] = np.concatenate(piece)
    return [features[i] for i in range(len(lengths))]


def _windowed(
    config: NetworkConfig, params: Params, corpus: Corpus, reader: Reader, *, stride: int
) -> list[np.ndarray]:
    """Features of every stride-th frame of each piece, each from the window before it."""
    lanes = 64
    dataset = WindowDataset(
        corpus.tokens, window_size=config.window_size, stride=stride, target="next"
    )
    carry = initial_carry(config, lanes, params)
    parts = [
        np.asarray(_read(config, params, carry, *reader.inputs(batch.inputs))[0])[:, 0]
        for batch in dataset.batches(lanes, shuffle=False)
    ]
    counts = [-(-len(tokens) // stride) for tokens in corpus.tokens]
    return np.split(np.concatenate(parts)[: sum(counts)], np.cumsum(counts)[:-1])


_score_rows = jax.jit(log_likelihoods)


def _likelihoods(
    output: tuple[Array, Array], features: np.ndarray, targets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Log-likelihood of each target and whether it is the most likely, in rows of few sizes."""
    log_p, right = np.empty(len(targets)), np.empty(len(targets), bool)
    first = 0
    while first < len(targets):
        rows = ROWS[0] if len(targets) - first < ROWS[1] else ROWS[1]
        at = slice(first, first + rows)
        missing = rows - len(targets[at])
        found = _score_rows(
            np.pad(features[at], [(0, missing), (0, 0)]), *output, np.pad(targets[at], (0, missing))
        )
        log_p[at], right[at] = (np.asarray(column)[: rows - missing] for column in found)
        first += rows
    return log_p, right
