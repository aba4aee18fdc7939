"""Random keys, and the random numbers of writing."""

from __future__ import annotations

import jax
from jax import Array

KEYS = "threefry2x32"
"""Kind of the random keys: the same bits on all devices and versions."""


def seed_key(seed: int | Array) -> Array:
    """The key of a seed."""
    return jax.random.key(seed, impl=KEYS)
