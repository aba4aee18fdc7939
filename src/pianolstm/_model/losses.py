"""The softmax over a large vocabulary, without ever holding all its logits."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._model.gates import log_mixed
from pianolstm._model.lstm import affine
from pianolstm._model.planes import NEVER

CHUNK_LOGITS = 2**22
"""Logits held at once: 16 MB, whatever the batch and the vocabulary."""

Sums: TypeAlias = tuple[Array, Array]
"""Weighted sums of nats and of right first guesses, each ()."""

Rows: TypeAlias = tuple[Array, ...]
"""Arrays with a row for each frame."""

Running: TypeAlias = tuple[Sums, Array, Array]
"""Sums of the chunks so far, gradients of the table (n_rows, width) and of the bias (n_rows,)."""


class Output(NamedTuple):
    """The softmax."""

    table: Array  # (n_rows, width)
    bias: Array  # (n_rows,)


class TargetRows(NamedTuple):
    """What is predicted."""

    rows: Array  # int32 (n,): of the softmax
    barred: Array  # int32 (n,): a row that is impossible, -1 for none
    gate: Array  # (n,): logit of that what is recalled is taken, see `pianolstm._model.gates`
    is_recalled: Array  # bool (n,): whether the target is what is recalled


@jax.custom_vjp
def softmax_loss(
    features: Array,  # (n, width)
    output: Output,
    targets: TargetRows,  # of n frames
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
        loss, n_right, *_ = _chunk_loss(x, output, TargetRows(*target), weight)
        return (sums[0] + loss, sums[1] + n_right), None

    start = jnp.zeros(()), jnp.zeros(())
    return lax.scan(chunk, start, _chunks(output, features, weights, *targets))[0]


def _softmax_loss_fwd(
    features: Array,  # (n, width)
    output: Output,
    targets: TargetRows,
    weights: Array,  # (n,)
) -> tuple[Sums, tuple[Array, ...]]:  # gradients: (n, width), (n_rows, width), (n_rows,), (n,)
    table, bias = output

    def chunk(carry: Running, rows: Rows) -> tuple[Running, Rows]:
        (loss, n_right), d_table, d_bias = carry
        x, weight, *target = rows
        row, _, gate, _ = target = TargetRows(*target)
        chunk_loss, chunk_right, exps, total, by_network = _chunk_loss(x, output, target, weight)
        # Of the share that the network has in the target's probability.
        d_gate = weight * (jax.nn.sigmoid(gate) - (1 - by_network))
        weight = weight * by_network
        # The gradient of the logits is exps * scale less the weight at the target; both parts go
        # through the products on their own, so that it is never written down.
        scale = weight / total
        d_table = (d_table + exps.T @ (x * scale[:, None])).at[row].add(-weight[:, None] * x)
        d_bias = (d_bias + scale @ exps).at[row].add(-weight)
        d_x = (exps @ table) * scale[:, None] - weight[:, None] * table[row]
        return ((loss + chunk_loss, n_right + chunk_right), d_table, d_bias), (d_x, d_gate)

    start = (jnp.zeros(()), jnp.zeros(())), jnp.zeros_like(table), jnp.zeros_like(bias)
    (sums, d_table, d_bias), (d_features, d_gate) = lax.scan(
        chunk, start, _chunks(output, features, weights, *targets)
    )
    n = len(features)
    d_features = d_features.reshape(-1, table.shape[1])[:n]
    return sums, (d_features, d_table, d_bias, d_gate.reshape(-1)[:n])


def _softmax_loss_bwd(
    gradients: tuple[Array, ...],  # as `_softmax_loss_fwd` gives them
    cotangents: Sums,
) -> tuple[Array, Output, TargetRows, None]:  # (n, width)
    d_features, d_table, d_bias, d_gate = (g * cotangents[0] for g in gradients)
    nothing: Any = None
    targets = TargetRows(nothing, nothing, d_gate, nothing)
    return d_features, Output(d_table, d_bias), targets, nothing


softmax_loss.defvjp(_softmax_loss_fwd, _softmax_loss_bwd)


def log_likelihoods(
    features: Array,  # (n, width)
    output: Output,
    rows: Array,  # int32 (n,)
    barred: Array,  # int32 (n,)
) -> tuple[Array, Array]:  # (n,), bool (n,)
    """Nats of rows by the network, and whether each has the highest logit; chunk by chunk."""

    def chunk(part: Rows) -> tuple[Array, Array]:  # (n,), bool (n,)
        x, row, its_barred = part
        logits = logits_of(x, output, its_barred)
        at_target = jnp.take_along_axis(logits, row[:, None], axis=-1)[:, 0]
        log_p = at_target - jax.nn.logsumexp(logits, axis=-1)
        return log_p, at_target >= jnp.max(logits, axis=-1)

    n = len(features)
    log_p, right = lax.map(chunk, _chunks(output, features, rows, barred))
    return log_p.reshape(-1)[:n], right.reshape(-1)[:n]


def logits_of(
    x: Array,  # (n, width)
    output: Output,
    barred: Array,  # int32 (n,)
) -> Array:  # (n, n_rows)
    """Logits of all rows; `NEVER` of those that are impossible. For arguments, see `TargetRows`."""
    table, bias = output
    impossible = jnp.arange(len(table))[None] == barred[:, None]
    return jnp.where(impossible, NEVER, affine((table.T, bias), x))


def _chunk_loss(
    x: Array,  # (n, width)
    output: Output,
    targets: TargetRows,
    weight: Array,  # (n,)
) -> tuple[Array, Array, Array, Array, Array]:  # (), (), (n, n_rows), (n,), (n,)
    """Loss and right guesses of a chunk; exps of its logits less their maximum, and their sums.

    And the share of each target's probability that is the network's.
    """
    logits = logits_of(x, output, targets.barred)
    highest = jnp.max(logits, axis=-1)
    at_target = jnp.take_along_axis(logits, targets.rows[:, None], axis=-1)[:, 0]
    exps = jnp.exp(logits - highest[:, None])
    total = jnp.sum(exps, axis=-1)
    log_p = at_target - highest - jnp.log(total)
    mixed = log_mixed(targets.gate, targets.is_recalled, log_p)
    by_network = jnp.exp(jax.nn.log_sigmoid(-targets.gate) + log_p - mixed)
    n_right = jnp.sum(jnp.where(at_target >= highest, weight, 0))
    return -jnp.sum(weight * mixed), n_right, exps, total, by_network


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
