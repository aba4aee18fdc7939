"""How much of what is recalled is taken: a gate that the network learns.

What is recalled (see `pianolstm._model.recall`) comes with probability g, what the network itself
predicts with the rest:

    p(x) = g · [x is what is recalled] + (1 - g) · p(x) by the network

g is a function of the network's state, of how many steps agree, how far back they lie, how often
the passage has just come, and how likely the network itself finds what is recalled. Of none of
them it matters what x is, so that the probabilities add up to one for any g.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from pianolstm._jax.keys import Rngs
from pianolstm._model.lstm import Affine, affine, along, from_numpy, no_draw, zeros
from pianolstm._model.planes import NEVER
from pianolstm._model.recall import LENGTHS, N_LAGS, N_TIMES

WIDTH = 32
"""Of a gate's hidden layer."""

COLUMNS = 16
"""Columns that fill a register: products of few rows then add up as those of many."""

UNLIKELY = -16.0
"""Nats below which nothing is told apart."""


class Match(NamedTuple):
    """Where something is recalled, from what; see `pianolstm._model.recall.Sources`."""

    classes: Any  # int32 (…): 0 where nothing is recalled
    times: Any  # int32 (…): from 0 on
    lags: Any  # int32 (…)


class RecalledBatch(NamedTuple):
    """What is recalled before some steps."""

    match: Match  # (batch, n)
    bits: Any  # uint32 (batch, n, 8): the chord
    is_next: Any  # bool (batch, n): whether it is the one that comes
    durations: Any  # int32 (batch, n): frames that the chord before it lasted


class GateWeights(NamedTuple):
    """What a gate is computed with."""

    read: Affine  # (width, WIDTH), (WIDTH,)
    tables: tuple[Array, Array, Array]  # (n, WIDTH) each: of classes, times, lags
    likely: Array  # (WIDTH,)
    write: Array  # (WIDTH, COLUMNS): the first column; the others are zero
    shares: Array  # (n_classes,)


class Gate(nnx.Module):
    """Logit of g.

    Parameters
    ----------
    width : int
        Of the state that it reads.
    """

    def __init__(self, width: int, *, rngs: Rngs) -> None:
        normal = from_numpy(lambda rng, shape: rng.standard_normal(shape) / np.sqrt(shape[0]))
        self.read = nnx.Linear(width, WIDTH, kernel_init=normal, bias_init=zeros, rngs=rngs)
        self.classes = nnx.Param(no_draw(1 + len(LENGTHS), WIDTH))
        self.times = nnx.Param(no_draw(N_TIMES, WIDTH))
        self.lags = nnx.Param(no_draw(N_LAGS, WIDTH))
        self.likely = nnx.Param(no_draw(WIDTH))
        self.write = nnx.Param(no_draw(WIDTH))
        # At first, what is counted over the training pieces.
        self.shares = nnx.Param(no_draw(1 + len(LENGTHS)))

    def weights(self) -> GateWeights:
        bias = self.read.bias
        assert bias is not None
        return GateWeights(
            (self.read.kernel[...], bias[...]),
            (self.classes[...], self.times[...], self.lags[...]),
            self.likely[...],
            jnp.pad(self.write[...][:, None], ((0, 0), (0, COLUMNS - 1))),
            self.shares[...],
        )


def gate_logit(
    weights: GateWeights,
    hidden: Array,  # (…, width)
    match: Match,  # of shape (…)
    log_p: Array,  # (…): nats of what is recalled, by the network
) -> Array:  # (…)
    """Logit of g; `NEVER` where nothing is recalled."""
    x = affine(weights.read, hidden)
    for table, number in zip(weights.tables, match, strict=True):
        x = x + table[number]
    # What the network finds likely is not to be changed by what the gate makes of it.
    known = jnp.maximum(jax.lax.stop_gradient(log_p), UNLIKELY) / -UNLIKELY
    x = jax.nn.relu(x + known[..., None] * along(weights.likely, known))
    logit = (x @ weights.write)[..., 0] + weights.shares[match.classes]
    return jnp.where(match.classes > 0, logit, NEVER)


def log_mixed(
    logit: Array,  # (…): of g
    is_recalled: Array,  # bool (…): whether what came is what is recalled
    log_p: Array,  # (…): nats of what came, by the network
) -> Array:  # (…)
    """Nats of what came, by both."""
    recalled = jnp.where(is_recalled, jax.nn.log_sigmoid(logit), NEVER)
    return jnp.logaddexp(recalled, jax.nn.log_sigmoid(-logit) + log_p)
