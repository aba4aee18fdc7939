"""Random keys, for JAX and without it."""

from __future__ import annotations

from typing import Any, TypeAlias, TypeVar

import jax
import numpy as np
from jax import Array

KEYS = "threefry2x32"
"""Kind of the random keys: the same bits on all devices and versions."""


ROTATIONS = (13, 15, 26, 6), (17, 29, 16, 24)
"""Of the rounds of threefry-2x32, in turn four of each."""


Words = TypeVar("Words", np.ndarray, Array)

Rngs: TypeAlias = Any
"""Source of initial parameters: `Keys`, or `nnx.Rngs`, of which Flax takes either."""


def seed_key(seed: int | Array) -> Array:  # () -> key ()
    """The key of a seed."""
    return jax.random.key(seed, impl=KEYS)


def key_of(seed: int) -> np.ndarray:  # uint32 (2,)
    """The same as its words; it compiles nothing."""
    return np.array([0, seed], np.uint32)


def fold(
    key: np.ndarray,  # uint32 (2,)
    number: int,
) -> np.ndarray:  # uint32 (2,)
    """Another key, made of this one and a number, as by `jax.random.fold_in`; compiles nothing."""
    counter = np.array([0, number], np.uint32)
    return np.concatenate(threefry(key[:1], key[1:], counter[:1], counter[1:]))


def threefry(
    key: Words,  # uint32 (…)
    key_: Words,  # uint32 (…)
    a: Words,  # uint32 (…)
    b: Words,  # uint32 (…)
) -> tuple[Words, Words]:  # uint32 (…), uint32 (…)
    """Threefry-2x32 (Salmon et al. 2011): two words of random bits, of two of a key and a counter.

    As in JAX, but without its loop: what is looped over is copied, which takes longer than all the
    rounds.
    """
    keys = key, key_, key ^ key_ ^ np.uint32(0x1BD11BDA)
    a, b = a + keys[0], b + keys[1]
    for i in range(5):
        for rotation in ROTATIONS[i % 2]:
            a = a + b
            b = a ^ ((b << rotation) | (b >> (32 - rotation)))
        a, b = a + keys[(i + 1) % 3], b + keys[(i + 2) % 3] + np.uint32(i + 1)
    return a, b


class Keys:
    """The keys of initial parameters, one after the other, as `nnx.Rngs` gives them.

    It compiles nothing.

    Parameters
    ----------
    seed : int
    """

    def __init__(self, seed: int) -> None:
        self._key, self._n_given = key_of(seed), 0

    def params(self) -> np.ndarray:  # uint32 (2,)
        """The next key."""
        self._n_given += 1
        return fold(self._key, self._n_given - 1)
