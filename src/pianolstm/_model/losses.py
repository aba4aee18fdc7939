"""The softmax over a large vocabulary, without ever holding all its logits; routes to a frame.

A frame that is a row of the vocabulary may be written as that row, or as "any other chord" (the
last row) and then note by note. Its likelihood is the sum of both.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._model.lstm import affine
from pianolstm._model.note_decoder import NEVER
from pianolstm.vocabulary import OTHER

CHUNK_LOGITS = 2**22
"""Logits held at once: 16 MB, whatever the batch and the vocabulary."""

Sums: TypeAlias = tuple[Array, Array]
"""Weighted sums of nats and of right first guesses, each ()."""

Rows: TypeAlias = tuple[Array, ...]
"""Arrays with a row for each frame."""

Running: TypeAlias = tuple[Sums, Array, Array]
"""Sums of the chunks so far, gradients of the table (n_rows, width) and of the bias (n_rows,)."""


class Output(NamedTuple):
    """The softmax.

    A row that strikes pitches again is possible only where they sounded in the frame before, unless
    `struck` is None.
    """

    table: Array  # (n_rows, width)
    bias: Array  # (n_rows,)
    struck: Array | None  # uint32 (n_rows, 4): bits of the pitches that a row strikes again


class Targets(NamedTuple):
    """What is predicted."""

    rows: Array  # int32 (n,): of the softmax; the last where the frame is no row
    barred: Array  # int32 (n,): a row that is impossible, -1 for none
    before: Array  # uint32 (n, 4): bits of the pitches that sounded in the frame before
    log_spelled: Array  # (n,): nats of the frame's notes, given that they are spelled


@jax.custom_vjp
def softmax_loss(
    features: Array,  # (n, width)
    output: Output,
    targets: Targets,  # of n frames
    weights: Array,  # (n,): 0 leaves a frame out
) -> Sums:
    """Weighted sum of the negative log-likelihoods of the targets, and of right first guesses.

    The logits of frame n are ``features[n] @ table.T + bias``. They are made chunk by chunk over n.
    When a gradient is asked for, it is computed while a chunk's logits are there, so that they are
    neither kept nor made twice. The count of right guesses, frames whose target has the highest
    logit, has none.
    """

    def chunk(sums: Sums, rows: Rows) -> tuple[Sums, None]:
        x, weight, *target = rows
        loss, n_right, *_ = _chunk_loss(x, output, Targets(*target), weight)
        return (sums[0] + loss, sums[1] + n_right), None

    start = jnp.zeros(()), jnp.zeros(())
    return lax.scan(chunk, start, _chunks(output, features, weights, *targets))[0]


def _softmax_loss_fwd(
    features: Array,  # (n, width)
    output: Output,
    targets: Targets,
    weights: Array,  # (n,)
) -> tuple[Sums, tuple[Array, ...]]:  # gradients: (n, width), (n_rows, width), (n_rows,), (n,)
    table, bias, _ = output

    def chunk(carry: Running, rows: Rows) -> tuple[Running, Rows]:
        (loss, n_right), d_table, d_bias = carry
        x, weight, *target = rows
        chunk_loss, chunk_right, exps, total, by_row = _chunk_loss(
            x, output, Targets(*target), weight
        )
        # The gradient of the logits is exps * scale less the weight, shared by both routes; these
        # parts go through the products on their own, so that it is never written down.
        scale = weight / total
        at_row, at_other, row = weight * by_row, weight * (1 - by_row), target[0]
        d_table = (d_table + exps.T @ (x * scale[:, None])).at[row].add(-at_row[:, None] * x)
        d_table = d_table.at[OTHER].add(-at_other @ x)
        d_bias = (d_bias + scale @ exps).at[row].add(-at_row).at[OTHER].add(-jnp.sum(at_other))
        d_x = (exps @ table) * scale[:, None] - at_row[:, None] * table[row]
        d_x -= at_other[:, None] * table[OTHER][None]
        return ((loss + chunk_loss, n_right + chunk_right), d_table, d_bias), (d_x, -at_other)

    start = (jnp.zeros(()), jnp.zeros(())), jnp.zeros_like(table), jnp.zeros_like(bias)
    (sums, d_table, d_bias), (d_features, d_spelled) = lax.scan(
        chunk, start, _chunks(output, features, weights, *targets)
    )
    n = len(features)
    d_features = d_features.reshape(-1, table.shape[1])[:n]
    return sums, (d_features, d_table, d_bias, d_spelled.reshape(-1)[:n])


def _softmax_loss_bwd(
    gradients: tuple[Array, ...],  # as `_softmax_loss_fwd` gives them
    cotangents: Sums,
) -> tuple[Array, Output, Targets, None]:  # (n, width)
    d_features, d_table, d_bias, d_spelled = (g * cotangents[0] for g in gradients)
    nothing: Any = None
    output = Output(d_table, d_bias, nothing)
    return d_features, output, Targets(nothing, nothing, nothing, d_spelled), nothing


softmax_loss.defvjp(_softmax_loss_fwd, _softmax_loss_bwd)


def log_likelihoods(
    features: Array,  # (n, width)
    output: Output,
    targets: Targets,
) -> tuple[Array, Array]:  # (n,), bool (n,)
    """Nats of each target, and whether it has the highest logit; chunk by chunk."""

    def chunk(rows: Rows) -> tuple[Array, Array]:  # (n,), bool (n,)
        x, *target = rows
        logits = logits_of(x, output, target[1], target[2])
        at_target, joint, _ = _routes(logits, Targets(*target))
        return joint - jax.nn.logsumexp(logits, axis=-1), at_target >= jnp.max(logits, axis=-1)

    n = len(features)
    log_p, right = lax.map(chunk, _chunks(output, features, *targets))
    return log_p.reshape(-1)[:n], right.reshape(-1)[:n]


def logits_of(
    x: Array,  # (n, width)
    output: Output,
    barred: Array,  # int32 (n,)
    before: Array,  # uint32 (n, 4)
) -> Array:  # (n, n_rows)
    """Logits of all rows; `NEVER` of those that are impossible. For arguments, see `Targets`."""
    table, bias, struck = output
    logits = affine((table.T, bias), x)
    impossible = jnp.arange(len(table))[None] == barred[:, None]
    if struck is not None:
        silent = ~before
        for word in range(4):
            impossible |= (struck[None, :, word] & silent[:, word, None]) > 0
    return jnp.where(impossible, NEVER, logits)


def _chunk_loss(
    x: Array,  # (n, width)
    output: Output,
    targets: Targets,
    weight: Array,  # (n,)
) -> tuple[Array, Array, Array, Array, Array]:  # (), (), (n, n_rows), (n,), (n,)
    """Loss and right guesses of a chunk; exps of its logits less their maximum, and their sums.

    And the share of each likelihood that is due to the target's own row.
    """
    logits = logits_of(x, output, targets.barred, targets.before)
    highest = jnp.max(logits, axis=-1)
    at_target, joint, by_row = _routes(logits, targets)
    exps = jnp.exp(logits - highest[:, None])
    total = jnp.sum(exps, axis=-1)
    loss = jnp.sum(weight * (jnp.log(total) + highest - joint))
    return loss, jnp.sum(jnp.where(at_target >= highest, weight, 0)), exps, total, by_row


def _routes(
    logits: Array,  # (n, n_rows)
    targets: Targets,
) -> tuple[Array, Array, Array]:  # (n,), (n,), (n,)
    """Logit of the target's row, of both routes together, and the share of the row in that."""
    at_target = jnp.take_along_axis(logits, targets.rows[:, None], axis=-1)[:, 0]
    is_row = targets.rows != logits.shape[-1] + OTHER
    by_row = jnp.where(is_row, at_target, -jnp.inf)
    joint = jnp.logaddexp(by_row, logits[:, OTHER] + targets.log_spelled)
    return at_target, joint, jnp.exp(by_row - joint)


def _chunks(
    output: Output,
    *arrays: Array,  # (n, …)
) -> tuple[Array, ...]:  # (n_chunks, rows, …)
    """Arrays cut in chunks, filled with zeros at the end."""
    n = len(arrays[0])
    fewest = -(-n * len(output.bias) // CHUNK_LOGITS)
    # A few chunks more are cheaper than rows of zeros.
    n_chunks = next((k for k in range(fewest, fewest + fewest // 4 + 1) if n % k == 0), fewest)
    rows = -(-n // n_chunks)
    filled = [jnp.pad(a, [(0, n_chunks * rows - n)] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
    return tuple(a.reshape(n_chunks, rows, *a.shape[1:]) for a in filled)
