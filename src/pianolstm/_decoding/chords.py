"""Chords as words, in lanes."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

Tree = TypeVar("Tree")


def held_on(
    bits: Array,  # uint32 (lanes, 8)
) -> Array:  # uint32 (lanes, 8)
    """Chords held on."""
    return jnp.where(jnp.arange(8)[None] < 4, bits, 0)


def chord_number(
    ids: Array,  # int32 (lanes,)
    bits: Array,  # uint32 (lanes, 8)
    n_rows: int,
) -> Array:  # int32 (lanes,)
    """What tells chords from one another: their rows, or numbers above all rows.

    Of two chords that are no rows these are the same once in 2³⁰ times.
    """
    # A multiplication carries bits upwards alone, so shifts carry them down between two of them
    # (as the finalizer of MurmurHash3 does); each word begins from a number of its own.
    places = np.arange(1, 9, dtype=np.uint32) * np.uint32(0x9E3779B9)
    mixed = _mixed(jnp.sum(_mixed(bits ^ places[None]), axis=1, dtype=jnp.uint32))
    return jnp.where(ids < n_rows, ids, n_rows + (mixed >> 2).astype(jnp.int32))


def _mixed(x: Array) -> Array:  # uint32 (…) -> uint32 (…)
    """Each bit of the result depends on each that is given, one to one."""
    for factor in (0x85EBCA6B, 0xC2B2AE35):
        x = (x ^ (x >> 16)) * np.uint32(factor)
    return x ^ (x >> 16)


def where(
    which: Array,  # bool (lanes,)
    a: Tree,
    b: Tree,
) -> Tree:
    """Leaves (lanes, …) of one or the other."""
    return jax.tree.map(lambda x, y: jnp.where(which.reshape(-1, *[1] * (x.ndim - 1)), x, y), a, b)
