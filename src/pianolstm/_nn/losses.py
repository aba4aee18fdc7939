"""The softmax over a large vocabulary, without ever holding all its logits."""

from __future__ import annotations

from typing import TypeAlias

import jax
import jax.numpy as jnp
from jax import Array, lax

CHUNK_LOGITS = 2**23
"""Logits held at once: 32 MB, whatever the batch and the vocabulary."""

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
        logits = x @ table.T + bias
        loss, n_right = _sums(logits, jax.nn.logsumexp(logits, axis=-1), target, weight)
        return (sums[0] + loss, sums[1] + n_right), None

    sums, _ = lax.scan(
        chunk, (jnp.zeros(()), jnp.zeros(())), _chunks(table, features, targets, weights)
    )
    return sums


def _softmax_loss_fwd(
    features: Array, table: Array, bias: Array, targets: Array, weights: Array
) -> tuple[Sums, tuple]:
    def chunk(carry: tuple, rows: tuple[Array, ...]) -> tuple[tuple, Array]:
        (loss, n_right), d_table, d_bias = carry
        x, target, weight = rows
        logits = x @ table.T + bias
        log_z = jax.nn.logsumexp(logits, axis=-1)
        chunk_loss, chunk_right = _sums(logits, log_z, target, weight)
        columns = jnp.arange(table.shape[0])
        d_logits = jnp.exp(logits - log_z[:, None]) - (columns == target[:, None])
        d_logits = d_logits * weight[:, None]
        d_table = d_table + d_logits.T @ x
        d_bias = d_bias + d_logits.sum(0)
        return ((loss + chunk_loss, n_right + chunk_right), d_table, d_bias), d_logits @ table

    start = (jnp.zeros(()), jnp.zeros(())), jnp.zeros_like(table), jnp.zeros_like(bias)
    (sums, d_table, d_bias), d_features = lax.scan(
        chunk, start, _chunks(table, features, targets, weights)
    )
    d_features = d_features.reshape(-1, features.shape[1])[: len(features)]
    return sums, (d_features, d_table, d_bias)


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
        x, target, _ = rows
        logits = x @ table.T + bias
        log_p = _at(logits, target) - jax.nn.logsumexp(logits, axis=-1)
        return log_p, jnp.argmax(logits, axis=-1) == target

    n = len(features)
    log_p, right = lax.map(chunk, _chunks(table, features, targets, jnp.ones(n)))
    return log_p.reshape(-1)[:n], right.reshape(-1)[:n]


def _sums(logits: Array, log_z: Array, target: Array, weight: Array) -> Sums:
    n_right = jnp.sum(weight * (jnp.argmax(logits, axis=-1) == target))
    return jnp.sum(weight * (log_z - _at(logits, target))), n_right


def _at(logits: Array, target: Array) -> Array:
    return jnp.take_along_axis(logits, target[:, None], axis=-1)[:, 0]


def _chunks(table: Array, *arrays: Array) -> tuple[Array, ...]:
    """Arrays (n, …) as (n_chunks, rows, …), filled with zeros at the end."""
    n = len(arrays[0])
    rows = min(n, max(1, CHUNK_LOGITS // len(table)))
    n_chunks = -(-n // rows)
    filled = [jnp.pad(a, [(0, n_chunks * rows - n)] + [(0, 0)] * (a.ndim - 1)) for a in arrays]
    return tuple(a.reshape(n_chunks, rows, *a.shape[1:]) for a in filled)
