"""Chords drawn as rows of the softmax: for networks that don't spell."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._decoding.masks import Masks, RowMasks
from pianolstm._decoding.notes import LARGE, sharpness_of
from pianolstm._decoding.proposals import Draw, Proposal
from pianolstm._decoding.random_numbers import sample_rows, uniform
from pianolstm._decoding.state import (
    Context,
    SamplingParameters,
    State,
    features_of,
    is_recent,
)
from pianolstm._model.config import NetworkConfig
from pianolstm._model.lstm import affine
from pianolstm.vocabulary import END, OTHER


class Rows(NamedTuple):
    """The softmax of a draw."""

    logits: Array  # (lanes, n_rows): minus infinity where a row is impossible
    allowed: Array  # bool (lanes, n_rows): what may be drawn
    p: Array  # (lanes, n_rows): probabilities, relative to the most likely one


def rows_of(
    config: NetworkConfig,
    context: Context,
    masks: Masks,
    has_ended: Array,  # bool (lanes,): where another piece begins
) -> Rows:
    """Logits and probabilities of all rows."""
    weights, _, sampling, _, _, state = context
    n_rows = config.n_rows
    assert masks.rows is not None
    rows = jnp.arange(n_rows, dtype=jnp.int32)[None]
    logits = affine((weights["table"], weights["bias"]), features_of(config, context, has_ended))
    is_held = rows == state.hold[:, None]
    # Another piece that begins as this one ended holds it on, all the same.
    allowed = masks.rows.allowed & (~is_held | masks.may_go_on[:, None])
    allowed |= (rows == n_rows + END) & (masks.may_end & ~has_ended)[:, None]
    if config.clock == "changes":
        # What sounds, held on, is no chord that begins.
        impossible = lax.optimization_barrier(is_held & ~has_ended[:, None])
        logits, allowed = jnp.where(impossible, -jnp.inf, logits), allowed & ~impossible

    def relative(logits: Array) -> Array:
        """Probabilities, relative to the most likely row's."""
        highest = jnp.max(jnp.where(allowed, logits, -jnp.inf), axis=1, keepdims=True)
        return jnp.where(allowed, jnp.exp((logits - highest) * sharpness_of(sampling)), 0)

    p = lax.cond(
        jnp.any(sampling.penalty > 0),
        lambda: relative(logits - _penalties(sampling, state, rows)),
        lambda: relative(logits),
    )
    return Rows(logits, allowed, p)


def propose_row(
    config: NetworkConfig, context: Context, draw: Draw, rows: Rows, first: Array
) -> Proposal:
    """A row by the inverse of the running sum of the probabilities, in each lane that is open.

    By no sort: a row that top-k or top-p leaves out is drawn again, from those that are more likely
    than it. So the rows that they keep have the probabilities of the softmax, scaled up. (That a
    rejected row bounds the next draw is from the sampling kernels of FlashInfer.) A row is kept if
    fewer than top_k are more likely, and if those that are more likely have less than top_p of the
    probability.

    `first` is the number of its first random number, uint32 ().
    """
    _, vocabulary, sampling, _, _, state = context
    assert vocabulary is not None
    n_rows, number = config.n_rows, jnp.arange(config.n_rows, dtype=jnp.int32)[None]
    u = uniform(sampling.key, state.position, first[None])[:, 0]
    row = sample_rows(jnp.where(rows.p > draw.bound[:, None], rows.p, 0), u)
    is_cut = (sampling.top_k < n_rows) | (sampling.top_p < 1)

    def rejected() -> tuple[Array, Array]:
        bound = jnp.take_along_axis(rows.p, row[:, None], axis=1)
        # The end of the piece is no chord.
        likelier = jnp.where((rows.p > bound) & (number < n_rows + END), rows.p, 0)
        n, share = jnp.sum(likelier > 0, axis=1), jnp.sum(likelier, axis=1)
        is_kept = (n < sampling.top_k) & (share < sampling.top_p * jnp.sum(rows.p, axis=1))
        is_kept |= n == 0  # the most likely is, even where nothing is allowed
        return is_cut & ~is_kept, bound[:, 0]

    no = jnp.zeros(len(row), bool)
    is_rejected, bound = lax.cond(jnp.any(is_cut), rejected, lambda: (no, draw.bound))
    given = draw.given
    is_rejected &= ~given.is_given
    ends = (row == n_rows + END) & ~given.is_given
    zeros = jnp.zeros(len(row))

    def weigh() -> tuple[Array, Array]:
        chosen = jnp.where(given.is_given, jnp.minimum(given.ids, n_rows + OTHER), row)
        at_row = jnp.take_along_axis(rows.logits, chosen[:, None], axis=1)[:, 0]
        log_p = at_row - jax.nn.logsumexp(rows.logits, axis=1)
        return log_p, jnp.where(given.is_given, log_p, log_allowed(sampling, rows))

    log_p, allowed = lax.cond(draw.is_weighed, weigh, lambda: (zeros, zeros))
    return Proposal(
        row,
        vocabulary.bits[:, row].T,
        vocabulary.held[row],
        ends,
        ~is_rejected,
        jnp.where(is_rejected, bound, 0),
        log_p,
        allowed,
    )


def log_allowed(
    sampling: SamplingParameters,
    rows: Rows,
) -> Array:  # (lanes,)
    """Nats of all that may be drawn, at the lanes' temperatures."""
    sharpness = sharpness_of(sampling)
    highest = jnp.max(rows.logits, axis=1, keepdims=True)
    # What is allowed may be too unlikely for a float, but not for its logarithm.
    allowed = jnp.where(rows.allowed, rows.logits, -jnp.inf)
    most = jnp.maximum(jnp.max(allowed, axis=1, keepdims=True), -LARGE)
    found = jnp.log(jnp.sum(jnp.exp((allowed - most) * sharpness), axis=1))
    total = jnp.log(jnp.sum(jnp.exp((rows.logits - highest) * sharpness), axis=1))
    return found + ((most - highest) * sharpness)[:, 0] - total


def is_possible(config: NetworkConfig, masks: Masks, rows: RowMasks) -> Array:  # bool (lanes,)
    """Whether there is a row to draw."""
    return rows.is_other | (masks.may_go_on & (config.clock == "frames"))


def _penalties(
    sampling: SamplingParameters,
    state: State,
    rows: Array,  # int32 (1, n_rows)
) -> Array:  # (lanes, n_rows)
    """What is taken from the logits of chords begun of late."""
    recent = is_recent(sampling, state) & (state.begun < rows.shape[1])
    lanes = jnp.arange(len(state.begun))[:, None]
    zeros = jnp.zeros((len(lanes), rows.shape[1]))
    penalties = jnp.where(recent, sampling.penalty[:, None], 0)
    penalty = zeros.at[lanes, jnp.maximum(state.begun, 0)].add(penalties)
    return jnp.where(rows == state.hold[:, None], 0, penalty)
