"""What was written and read, kept step by step, and what of it is recalled."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp
import numpy as np
from jax import Array

from pianolstm._model.config import NetworkConfig
from pianolstm._model.planes import begins_chord
from pianolstm._model.recall import LENGTHS, LONGEST_PASSAGE, MEMORY, MOST_AGREEING

Data: TypeAlias = Any
"""An array: of NumPy outside of compiled functions, of JAX in them."""


class Memory(NamedTuple):
    """What the last steps were, in lanes, each with places of a ring."""

    signatures: Data  # uint32 (lanes, MEMORY): tell steps apart, 0 none
    agree: Data
    """int32 (lanes, MEMORY): how many steps up to each agree with as many up to the last, of other
    pieces too. (At the last one's place: up to the one that it replaced.)"""
    steps: Data  # uint32 (lanes, MEMORY, 11): bits, rows that write and hold on, durations
    newest: Data  # int32 (lanes,): place of the last step
    past: Data  # uint32 (lanes, 8): the last chord
    age: Data  # int32 (lanes,): for how many frames it has been held, with the clock of frames
    length: Data  # int32 (lanes,): steps of the piece so far


def empty_memory() -> Memory:
    """The beginning of a piece, in one lane."""
    return Memory(
        np.zeros((1, MEMORY), np.uint32),
        np.zeros((1, MEMORY), np.int32),
        np.zeros((1, MEMORY, 11), np.uint32),
        np.zeros(1, np.int32),
        np.zeros((1, 8), np.uint32),
        np.zeros(1, np.int32),
        np.zeros(1, np.int32),
    )


class Barred(NamedTuple):
    """Chords that would complete a passage too often in a row, one for each length of it."""

    is_one: Array  # bool (lanes, LONGEST_PASSAGE): for which lengths there is one
    bits: Array  # uint32 (lanes, LONGEST_PASSAGE, 8)
    ids: Array  # int32 (lanes, LONGEST_PASSAGE): the rows that write them


class Step(NamedTuple):
    """What is to be remembered of each lane."""

    is_one: Array  # bool (lanes,): whether there is anything
    bits: Array  # uint32 (lanes, 8): the chord
    ids: Array  # int32 (lanes,): the row that writes it
    hold: Array  # int32 (lanes,): the row that holds it on
    number: Array  # int32 (lanes,): tells chords from one another
    begins: Array  # bool (lanes,): whether it begins a piece, so that all before is forgotten
    lasted: Array  # int32 (lanes,): frames of the chord before it


def remember(config: NetworkConfig, memory: Memory, step: Step) -> Memory:
    """Remember a step in each lane that has one."""
    past = jnp.where(step.begins[:, None], 0, memory.past)
    age = jnp.where(step.begins, 0, memory.age)
    age = jnp.where(begins_chord(past, step.bits), 0, age + 1)
    length = jnp.where(step.begins, 0, memory.length) + 1
    sign = step.number.astype(jnp.uint32)
    if config.clock == "frames":
        # Else each held chord would agree with itself; chords that begin agree whatever their time.
        sign += age.astype(jnp.uint32) * np.uint32(0x9E3779B1)
    sign = (sign * 2) | 1
    n = memory.agree.shape[1]
    lanes, place = jnp.arange(len(sign)), (memory.newest + 1) % n
    # A piece that begins as another ended holds on what sounds: what is heard is one step.
    goes_on = step.begins & (memory.signatures[lanes, memory.newest] == sign)
    is_new = step.is_one & ~goes_on
    is_one = is_new[:, None]
    is_same = memory.signatures == sign[:, None]
    if config.clock == "changes":
        is_same &= jnp.arange(n)[None] != place[:, None]  # it will have no duration
    agree = jnp.roll(memory.agree, 1, axis=1) + 1
    agree = jnp.where(is_one, jnp.where(is_same, agree, 0), memory.agree)
    # Rings are written to where they are, of lanes without a step with what is there.
    old = memory.signatures[lanes, place]
    signatures = memory.signatures.at[lanes, place].set(jnp.where(is_new, sign, old))
    before = memory.steps[lanes, memory.newest]
    lasted = before.at[:, 10].set(step.lasted.astype(jnp.uint32))
    steps = memory.steps.at[lanes, memory.newest].set(jnp.where(is_one, lasted, before))
    rows = jnp.stack([step.ids, step.hold, jnp.zeros_like(step.ids)], axis=1).astype(jnp.uint32)
    row = jnp.concatenate([step.bits, rows], axis=1)
    steps = steps.at[lanes, place].set(jnp.where(is_one, row, steps[lanes, place]))
    return Memory(
        signatures,
        agree,
        steps,
        jnp.where(is_new, place, memory.newest),
        jnp.where(step.is_one[:, None], step.bits, memory.past),
        jnp.where(step.is_one, age, memory.age),
        jnp.where(step.is_one, length, memory.length),
    )


class Recalled(NamedTuple):
    """What is recalled for the next chord."""

    classes: Data  # int32 (lanes,): as from `pianolstm._model.recall.find_sources`
    bits: Data  # uint32 (lanes, 8)
    ids: Data  # int32 (lanes,): the row that writes the chord
    hold: Data  # int32 (lanes,): the row that holds it on
    duration: Data  # int32 (lanes,): frames of the chord before it
    in_a_row: Data  # int32 (lanes,): how often the passage that it goes on with has just come
    lag: Data  # int32 (lanes,): how many steps it lies back


def nothing_recalled() -> Recalled:
    """The beginning of a piece, in one lane."""
    zero = np.zeros(1, np.int32)
    return Recalled(zero, np.zeros((1, 8), np.uint32), zero, zero, zero, zero, zero + 1)


def recalled(memory: Memory) -> Recalled:
    """What is recalled for the next chord."""
    n = memory.agree.shape[1]
    # Places by how late they are; that of the last step stands for the one that it replaced.
    late = jnp.arange(n, dtype=jnp.int32)[None] - memory.newest[:, None]
    late = jnp.where(late < 0, late + n, late)
    # Of other pieces nothing is recalled.
    agree = jnp.minimum(memory.agree, memory.length[:, None] - n + late)
    longest = jnp.max(agree, axis=1, keepdims=True)
    lengths = jnp.array((1, *LENGTHS), agree.dtype)
    classes = jnp.sum(longest >= lengths[None, 1:], axis=1)
    agrees = agree >= lengths[classes][:, None]
    latest = jnp.max(jnp.where(agrees, late, 0), axis=1)
    place, lanes = (memory.newest + 1 + latest) % n, jnp.arange(len(latest))
    steps = memory.steps[lanes, place]
    ids, hold = steps[:, 8:10].astype(jnp.int32).T
    last = (place - 1) % n
    duration = memory.steps[lanes, last, 10].astype(jnp.int32)
    # As many steps as it is back agree: the passage between came twice.
    lag = n - latest
    in_a_row = 1 + jnp.minimum(agree[lanes, last], MOST_AGREEING) // lag
    return Recalled(classes, steps[:, :8], ids, hold, duration, in_a_row, lag)


def barred(
    memory: Memory,
    max_repeats: Array,  # int32 (lanes,)
) -> Barred:
    """The chords with which a passage would come more than `max_repeats` times in a row.

    A passage is of two steps or more, up to `LONGEST_PASSAGE`, not all the same. It is complete for
    the n-th time when n - 1 times as many steps as it has agree with those that lie it back.
    """
    n, lags = memory.agree.shape[1], jnp.arange(1, LONGEST_PASSAGE + 1, dtype=jnp.int32)
    place = (memory.newest[:, None] - lags[None]) % n
    after = (place + 1) % n
    agree, signs, same = (
        jnp.take_along_axis(a, at, axis=1)
        for a, at in (
            (memory.agree, place),
            (memory.signatures, after),
            (memory.signatures, memory.newest[:, None]),
        )
    )
    # Its last step apart, a passage is constant where that many agree with the step before.
    is_constant = (agree[:, :1] >= lags[None] - 2) & (signs == same)
    is_one = (agree + 1 >= max_repeats[:, None] * lags[None]) & (lags[None] > 1) & ~is_constant
    steps = jnp.take_along_axis(memory.steps, after[..., None], axis=1)
    return Barred(is_one, steps[..., :8], steps[..., 8].astype(jnp.int32))


def is_barred(
    those: Barred,
    bits: Array,  # uint32 (lanes, 8)
) -> Array:  # bool (lanes,)
    """Whether chords are among those that are barred."""
    is_same = jnp.all(those.bits == bits[:, None], axis=2)
    return jnp.any(those.is_one & is_same, axis=1)
