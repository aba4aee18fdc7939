"""The softmax over a large vocabulary, without ever holding all its logits."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

CHUNK_LOGITS = 2**22
"""Logits held at once: 16 MB, whatever the batch and the vocabulary."""

Sums: TypeAlias = tuple[Array, Array]


@jax.custom_vjp
def softmax_loss(
    features: Array, table: Array, bias: Array, targets: Array, weights: Array
) -> Sums:
    """Weighted sum of the negative log-likelihoods of the targets, and of right first guesses.

    The logits of row n are ``features[n] @ table.T + bias``. They are made chunk by chunk over n.
    When a gradient is asked for, it is computed while a chunk's logits are there, so that they are
    neither kept nor made twice.

    Parameters
    ----------
    features : Array, shape (n, width)
    table : Array, shape (vocabulary, width)
    bias : Array, shape (vocabulary,)
    targets : Array of int32, shape (n,)
    weights : Array, shape (n,)
        Weight of each row; 0 leaves it out.

    Returns
    -------
    loss : Array, shape ()
        Nats.
    n_right : Array, shape ()
        Weighted count of rows whose target has the highest logit; it has no gradient.
    """

    def chunk(sums: Sums, rows: tuple[Array, ...]) -> tuple[Sums, None]:
        x, target, weight = rows
        loss, n_right, *_ = _chunk_loss(x, table, bias, target, weight)
        return (sums[0] + loss, sums[1] + n_right), None

    start = jnp.zeros(()), jnp.zeros(())
    return lax.scan(chunk, start, _chunks(table, features, targets, weights))[0]


def _softmax_loss_fwd(
    features: Array, table: Array, bias: Array, targets: Array, weights: Array
) -> tuple[Sums, tuple]:
    def chunk(carry: tuple, rows: tuple[Array, ...]) -> tuple[tuple, Array]:
        (loss, n_right), d_table, d_bias = carry
        x, target, weight = rows
        chunk_loss, chunk_right, exps, total = _chunk_loss(x, table, bias, target, weight)
        # The gradient of the logits is exps * scale less the weight at the target; both parts go
        # through the products on their own, so that it is never written down.
        scale = weight / total
        weight_x = weight[:, None] * x
        d_table = (d_table + exps.T @ (x * scale[:, None])).at[target].add(-weight_x)
        d_bias = (d_bias + scale @ exps).at[target].add(-weight)
        d_x = (exps @ table) * scale[:, None] - weight[:, None] * table[target]
        return ((loss + chunk_loss, n_right + chunk_right), d_table, d_bias), d_x

    start = (jnp.zeros(()), jnp.zeros(())), jnp.zeros_like(table), jnp.zeros_like(bias)
    (sums, d_table, d_bias), d_features = lax.scan(
        chunk, start, _chunks(table, features, targets, weights)
    )
    return sums, (d_features.reshape(-1, table.shape[1])[: len(features)], d_table, d_bias)


def _softmax_loss_bwd(gradients: tuple[Array, Array, Array], cotangents: Sums) -> tuple:
    d_features, d_table, d_bias = (g * cotangents[0] for g in gradients)
    return d_features, d_table, d_bias, None, None


softmax_loss.defvjp(_softmax_loss_fwd, _softmax_loss_bwd)


def log_likelihoods(
    features: Array, table: Array, bias: Array, targets: Array
) -> tuple[Array, Array]:
    """Log-likelihood of each target, and whether it has the highest logit; chunk by chunk.

    Parameters
    ----------
    features, table, bias, targets
        As for `softmax_loss`.

    Returns
    -------
    log_p : Array, shape (n,)
        Nats.
    right : Array of bool, shape (n,)
    """

    def chunk(rows: tuple[Array, ...]) -> tuple[Array, Array]:
        x, target = rows
        logits = x @ table.T + bias
        at_target = _at(logits, target)
        return at_target - jax.nn.logsumexp(logits, axis=-1), at_target >= jnp.max(logits, axis=-1)

    n = len(features)
    log_p, right = lax.map(chunk, _chunks(table, features, targets))
    return log_p.reshape(-1)[:n], right.reshape(-1)[:n]


def _chunk_loss(
    x: Array, table: Array, bias: Array, target: Array, weight: Array
) -> tuple[Array, Array, Array, Array]:
    """Loss and right guesses of a chunk; exps of its logits less their maximum, and their sums."""
    logits = x @ table.T + bias
    highest = jnp.max(logits, axis=-1)
    at_target = _at(logits, target)
    exps = jnp.exp(logits - highest[:, None])
    total = jnp.sum(exps, axis=-1)
    loss = jnp.sum(weight * (jnp.log(total) + highest - at_target))
    return loss, jnp.sum(weight * (at_target >= highest)), exps, total


def _at(logits: Array, target: Array) -> Array:
    return jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]


def _chunks(table: Array, *arrays: Array) -> tuple[Array, ...]:
    """Arrays (n, …) as (n_chunks, rows, …), filled with zeros at the end."""
    n = len(arrays[0])
    fewest = -(-n * len(table) // CHUNK_LOGITS)
    # A few chunks more are cheaper than rows of zeros.
    n_chunks = next((k for k in range(fewest, fewest + fewest // 4 + 1) if n % k == 0), fewest)
    rows = -(-n // n_chunks)
    filled = [jnp.pad(a, [(0, n_chunks * rows - n)] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
    return tuple(a.reshape(n_chunks, rows, *a.shape[1:]) for a in filled)
