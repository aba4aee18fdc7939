"""Chords as words of bits and as planes, compiled; how long they are held."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from pianolstm._model.lstm import along

NEVER = -1e9
"""Logit, or log-likelihood, of what can't be."""

N_AGES = 16
"""Classes of how long a chord has been held: half octaves of frames, the last from 180 on."""


def unpack_words(bits: Array) -> Array:  # uint32 (…, n) -> (…, 32 * n)
    """Words to planes of 0 and 1, in the order of `pianolstm.chords.unpack`."""
    shifts = jnp.arange(32, dtype=jnp.uint32)
    planes = (bits[..., None] >> along(shifts, bits)) & 1
    return planes.reshape(*bits.shape[:-1], 32 * bits.shape[-1]).astype(jnp.float32)


def begins_chord(
    before: Array,  # uint32 (…, 8)
    bits: Array,  # uint32 (…, 8)
) -> Array:  # bool (…)
    """Whether each chord is not the one before it held on."""
    changes = jnp.any(bits[..., :4] != before[..., :4], axis=-1)
    return changes | jnp.any(bits[..., 4:] > 0, axis=-1)


def age_class(ages: Array) -> Array:  # int32 (…) -> int32 (…)
    """Half octaves, so that ages that are rare share a vector with their neighbours."""
    return jnp.minimum(2 * jnp.log2(ages.astype(jnp.float32) + 1), N_AGES - 1).astype(jnp.int32)
