"""Uniform numbers, and drawing from a row of weights."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array, lax

from pianolstm._jax.keys import threefry

FOLD = 16
"""Rows that are added up at once; divides the rows of the vocabulary."""


def uniform(key: Array, position: Array, number: Array) -> Array:
    """Numbers in [0, 1) of each key, frame and number (k,): (lanes, k), 24 bits of each."""
    shape = len(key), len(number)
    counts = (jnp.broadcast_to(a.astype(jnp.uint32), shape) for a in (position[:, None], number))
    bits, _ = threefry(key[:, :1], key[:, 1:], *counts)
    bits = lax.optimization_barrier(bits)  # or each use makes code of its own
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def sample_rows(weights: Array, u: Array) -> Array:
    """Rows with probabilities in proportion to their weights, by the inverse of the running sum.

    Weights are added up sixteen by sixteen, and their sums again; then the sum that passes the
    target is sought from the last back to the first. (The compiler's own running sum takes longer
    than all the rest.)

    Parameters
    ----------
    weights : Array, shape (lanes, n_rows)
    u : Array, shape (lanes,)
        In [0, 1).

    Returns
    -------
    Array of int32, shape (lanes,)
        Never a row of weight 0, if there is another.
    """
    levels = [_sixteens(weights)]
    while levels[-1].shape[2] > 1:
        levels.append(_sixteens(jnp.sum(levels[-1], axis=1)))
    total = jnp.sum(levels[-1], axis=1)[:, 0]
    row, target = jnp.zeros(len(u), jnp.int32), u * total
    for level in reversed(levels):
        picked, target = _invert(level[jnp.arange(len(u)), :, row], target)
        row = picked * level.shape[2] + row
    return row


def row_at(a: Array, i: Array) -> Array:
    """One element of each row."""
    return a[jnp.arange(len(a)), i]


def _sixteens(x: Array) -> Array:
    """Every n-th row together, as (lanes, 16, n); zeros make up what lacks."""
    n = -(-x.shape[1] // FOLD)
    x = jnp.pad(x, ((0, 0), (0, FOLD * n - x.shape[1])))
    return x.reshape(len(x), FOLD, n)


def _invert(weights: Array, target: Array) -> tuple[Array, Array]:
    """Where the running sum of each lane passes the target, and what is left of the target."""
    at = jnp.arange(FOLD)
    # Sums that differ by a weight of zero are equal, whatever their order: so none is picked.
    sums = jnp.sum(jnp.where((at[None] <= at[:, None])[None], weights[:, None], 0), axis=2)
    # Rounding may leave the target above the last sum.
    last = jnp.max(jnp.where(weights > 0, at[None], 0), axis=1)
    i = jnp.minimum(jnp.sum(sums <= target[:, None], axis=1), last)
    before = jnp.sum(jnp.where(at[None] < i[:, None], weights, 0), axis=1)
    return i.astype(jnp.int32), target - before
