"""What constraints leave for a frame."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._decoding.chords import held_on
from pianolstm._decoding.history import Barred, is_barred
from pianolstm._decoding.notes import requirements_of
from pianolstm._decoding.random_numbers import row_at
from pianolstm._decoding.state import Context, ForcedFrames, Vocabulary
from pianolstm._model.config import NetworkConfig
from pianolstm._model.planes import unpack_words
from pianolstm.constraints import has_and_lacks, satisfies
from pianolstm.rolls import N_PITCHES


class Masks(NamedTuple):
    """What may come; of each lane."""

    may_hold: Array  # bool (lanes,): whether what sounds may be held on, if there is nothing else
    may_go_on: Array  # bool (lanes,): whether it may be held on
    may_end: Array  # bool (lanes,): whether the piece may end
    may_recall: Array  # bool (lanes,): whether what is recalled may come
    is_restricted: Array  # bool (lanes,): whether not all chords may begin
    rows: RowMasks | None


class RowMasks(NamedTuple):
    """Which chords of the vocabulary may come."""

    allowed: Array  # bool (lanes, n_rows)
    is_other: Array  # bool (lanes,): whether there is one that is not what sounds, held on


def constrain(config: NetworkConfig, context: Context) -> Masks:
    """What constraints leave for the frame."""
    _, vocabulary, sampling, forced, _, state = context
    is_asked = jnp.any((forced.required | forced.forbidden) > 0, axis=1)
    is_restricted = sampling.is_restricted | is_asked
    is_rest = ~jnp.any(state.past[:, :4] > 0, axis=1)
    longest = jnp.where(
        is_rest, jnp.minimum(sampling.max_hold, sampling.max_silence), sampling.max_hold
    )
    # Another piece strikes nothing again, so none begins where that is asked.
    may_end = sampling.may_end & ~jnp.any((forced.required[:, 4:] & state.past[:, :4]) > 0, axis=1)
    is_usual, rows = state.age < sampling.usual_hold, None
    is_restricted |= jnp.any(context.barred.is_one, axis=1)
    if vocabulary is None:
        keeps_held, keeps_recalled = _satisfied(context, is_restricted)
        can_begin = sampling.may_rest | jnp.any(requirements_of(sampling, forced).allowed, axis=1)
        may_end &= can_begin
    else:
        allowed, n_allowed = _not_barred(context.barred, *_fitting(context, vocabulary))
        keeps_held = row_at(allowed, jnp.maximum(state.hold, 0))
        is_held = ((state.hold >= 0) & keeps_held).astype(n_allowed.dtype)
        is_other = n_allowed > is_held
        rows = RowMasks(allowed, is_other)
        is_restricted |= ~is_other
        is_usual |= ~is_other
        may_end &= is_other
        keeps_recalled = jnp.zeros_like(is_usual)
        if state.recalled is not None:
            n_rows, ids = allowed.shape[1], state.recalled.ids
            keeps_recalled = (ids < n_rows) & row_at(allowed, jnp.minimum(ids, n_rows - 1))
    may_hold = (state.hold >= 0) & keeps_held & (state.age < longest)
    may_go_on = may_hold & is_usual & ~is_barred(context.barred, held_on(state.past))
    may_recall = keeps_recalled
    if state.recalled is not None:
        may_recall &= may_go_on | ~holds_on(context, state.recalled.bits)
        may_recall &= ~is_barred(context.barred, state.recalled.bits)
    return Masks(may_hold, may_go_on, may_end, may_recall, is_restricted, rows)


def holds_on(
    context: Context,
    bits: Array,  # uint32 (lanes, 8)
) -> Array:  # bool (lanes,)
    """Whether chords are what sounds, held on."""
    state = context.state
    return (state.hold >= 0) & jnp.all(bits == held_on(state.past), axis=1)


def _fitting(
    context: Context, vocabulary: Vocabulary
) -> tuple[Array, Array]:  # bool (lanes, n_rows), (lanes,)
    """Chords that have all that the frame requires, and nothing of what it forbids; how many."""
    _, _, sampling, forced, _, state = context

    def fitting() -> tuple[Array, Array]:
        fits = sampling.allowed & _fitting_rows(vocabulary, forced, state.past)
        return fits, jnp.sum(fits, axis=1, dtype=jnp.float32)

    is_asked = jnp.any(forced.required > 0) | jnp.any(forced.forbidden > 0)
    return lax.cond(is_asked, fitting, lambda: (sampling.allowed, sampling.n_allowed))


def _not_barred(
    barred: Barred,
    allowed: Array,  # bool (lanes, n_rows)
    n_allowed: Array,  # (lanes,)
) -> tuple[Array, Array]:  # bool (lanes, n_rows), (lanes,)
    """Without the chords that would be said too often in a row, where there are others."""

    def less() -> tuple[Array, Array]:
        lanes, n_rows = jnp.arange(len(allowed))[:, None], allowed.shape[1]
        rows = jnp.where(barred.is_one, barred.ids, n_rows)  # what is beyond the rows is dropped
        left = allowed.at[lanes, rows].set(False, mode="drop")
        n_left = jnp.sum(left, axis=1, dtype=jnp.float32)
        is_any = n_left > 0
        return jnp.where(is_any[:, None], left, allowed), jnp.where(is_any, n_left, n_allowed)

    return lax.cond(jnp.any(barred.is_one), less, lambda: (allowed, n_allowed))


def _fitting_rows(
    vocabulary: Vocabulary,
    forced: ForcedFrames,
    past: Array,  # uint32 (lanes, 8)
) -> Array:  # bool (lanes, n_rows)
    # Struck again is only what sounds already.
    sounding = jnp.concatenate([jnp.full_like(past[:, :4], 0xFFFFFFFF), past[:, :4]], axis=1)
    required = forced.required & sounding
    fits = True
    for word in range(8):
        bits = vocabulary.bits[word][None]
        fits &= has_and_lacks(bits, required[:, word, None], forced.forbidden[:, word, None])
    return jnp.asarray(fits)


def _satisfied(
    context: Context,
    is_restricted: Array,  # bool (lanes,)
) -> tuple[Array, Array]:  # bool (lanes,), bool (lanes,)
    """Whether what sounds, held on, and what is recalled keep what is asked."""
    _, _, sampling, forced, _, state = context
    on = held_on(state.past)
    bits = on if state.recalled is None else state.recalled.bits

    def kept() -> Array:
        fitting = requirements_of(sampling, forced)
        planes = unpack_words(jnp.concatenate([on, bits])) > 0
        before = planes[: len(on), :N_PITCHES]
        twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), (fitting, before))
        return satisfies(twice[0], planes, twice[1], jnp)

    n = len(on)
    keep = lax.cond(jnp.any(is_restricted), kept, lambda: jnp.ones(2 * n, bool))
    return keep[:n], keep[n:]
