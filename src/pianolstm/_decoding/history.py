"""What was written and read, kept frame by frame, and what of it is recalled."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pianolstm._model.networks import begins_chord
from pianolstm._model.recall import LENGTHS, MEMORY


class Memory(NamedTuple):
    """What the last frames were, in lanes; a ring of `MEMORY` places.

    Attributes
    ----------
    signatures : Array of uint32, shape (lanes, 2 * MEMORY)
        Numbers that tell frames from one another, 0 for none; the ring twice, so that all of it
        stands in a row from any place on.
    agree : Array of int32, shape (lanes, MEMORY)
        From `MEMORY` frames before the last one up to the frame before it: how many frames up to
        that one agree with as many up to the last, at most 32.
    frames : Array of uint32, shape (lanes, MEMORY, 10)
        The chords' bits; the rows of the softmax that write them and hold them on.
    newest : Array of int32, shape (lanes,)
        Place of the last frame, the same in all lanes.
    past : Array of uint32, shape (lanes, 8)
        The last chord.
    age : Array of int32, shape (lanes,)
        For how many frames it has been held.
    piece : Array of int32, shape (lanes,)
        How many pieces have ended.
    """

    signatures: Any
    agree: Any
    frames: Any
    newest: Any
    past: Any
    age: Any
    piece: Any


def empty_memory() -> Memory:
    """The beginning of a piece, in one lane."""
    return Memory(
        np.zeros((1, 2 * MEMORY), np.uint32),
        np.zeros((1, MEMORY), np.int32),
        np.zeros((1, MEMORY, 10), np.uint32),
        np.zeros(1, np.int32),
        np.zeros((1, 8), np.uint32),
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
    )


def remember(
    memory: Memory, bits: Array, ids: Array, hold: Array, number: Array, begins: Array
) -> Memory:
    """Remember a frame in every lane.

    Parameters
    ----------
    memory : Memory
    bits : Array of uint32, shape (lanes, 8)
        The chord.
    ids, hold : Array of int32, shape (lanes,)
        The rows that write it and hold it on.
    number : Array of int32, shape (lanes,)
        Tells chords from one another.
    begins : Array of bool, shape (lanes,)
        Whether it is the first frame of a piece: all before is forgotten.
    """
    past = jnp.where(begins[:, None], 0, memory.past)
    age = jnp.where(begins, 0, memory.age)
    age = jnp.where(begins_chord(past, bits), 0, age + 1)
    piece = memory.piece + begins
    # Frames of other pieces have other numbers: nothing has to be cleared.
    factors = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B)
    sign = number.astype(jnp.uint32)
    sign += age.astype(jnp.uint32) * factors[0] + piece.astype(jnp.uint32) * factors[1]
    sign = (sign * 2) | 1
    n = memory.agree.shape[1]
    place = (memory.newest[0] + 1) % n
    window = lax.dynamic_slice_in_dim(memory.signatures, place, n, 1)
    agree = jnp.where(window == sign[:, None], jnp.minimum(memory.agree, LENGTHS[-1] - 1) + 1, 0)
    signatures = lax.dynamic_update_index_in_dim(memory.signatures, sign, place, 1)
    rows = jnp.stack([ids, hold], axis=1).astype(jnp.uint32)
    frame = jnp.concatenate([bits, rows], axis=1)
    return Memory(
        lax.dynamic_update_index_in_dim(signatures, sign, place + n, 1),
        agree.astype(memory.agree.dtype),
        lax.dynamic_update_index_in_dim(memory.frames, frame, place, 1),
        jnp.full_like(memory.newest, place),
        bits,
        age,
        piece,
    )


class Recalled(NamedTuple):
    """What is recalled for the next frame; arrays of shape (lanes,) if not said otherwise.

    Attributes
    ----------
    classes : Array of int32
        As from `pianolstm._model.recall.find_sources`.
    bits : Array of uint32, shape (lanes, 8)
    ids, hold : Array of int32
        The rows that write the chord and hold it on.
    """

    classes: Any
    bits: Any
    ids: Any
    hold: Any


def recalled(memory: Memory) -> Recalled:
    """What is recalled for the next frame."""
    n = memory.agree.shape[1]
    longest = jnp.max(memory.agree, axis=1, keepdims=True)
    lengths = jnp.array((1, *LENGTHS), memory.agree.dtype)
    classes = jnp.sum(longest >= lengths[1:], axis=1)
    numbers = jnp.arange(n, dtype=jnp.int32)
    agrees = memory.agree >= lengths[classes][:, None]
    latest = jnp.max(jnp.where(agrees, numbers, 0), axis=1)
    place = (memory.newest[0] + 1 + latest) % n
    frames = memory.frames[jnp.arange(len(place)), place]
    ids, hold = frames[:, 8:].astype(jnp.int32).T
    return Recalled(classes, frames[:, :8], ids, hold)
