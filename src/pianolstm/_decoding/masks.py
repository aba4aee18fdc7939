"""What constraints leave for a frame."""

from __future__ import annotations

from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._decoding.chords import held_on
from pianolstm._decoding.notes import requirements_of
from pianolstm._decoding.random_numbers import row_at
from pianolstm._decoding.state import Context, ForcedFrames, Vocabulary
from pianolstm._model.networks import NetworkConfig
from pianolstm._model.planes import unpack_words
from pianolstm.constraints import has_and_lacks, satisfies
from pianolstm.rolls import N_PITCHES
from pianolstm.vocabulary import HOLD


class Masks(NamedTuple):
    """What may be drawn; of each lane."""

    allowed: Array  # bool (lanes, n_rows): chords of the vocabulary
    impossible: Array  # bool (lanes, n_rows): rows that strike again what does not sound
    held_too_long: Array  # int32 (lanes,): the chord that may be held no longer, -1 for none
    is_any: Array  # bool (lanes,): whether a row is left
    is_other: Array  # bool (lanes,): one that is not what sounds, held on
    may_spell: Array  # bool (lanes,): whether chords may be spelled
    may_hold: Array  # bool (lanes,): whether what sounds may be held on
    is_outside: Array  # bool (lanes,): whether that is outside the vocabulary
    may_end: Array  # bool (lanes,): whether the piece may end
    satisfies_recalled: Array  # bool (lanes,): of what is recalled outside the vocabulary


def constrain(config: NetworkConfig, context: Context) -> Masks:
    """What constraints leave for the frame."""
    _, vocabulary, sampling, forced, state = context
    allowed, n_allowed = _fitting(context)
    no = jnp.zeros(len(state.hold), bool)
    impossible, n_anew = no, n_allowed
    if config.spell:
        impossible = _strikes_silence(vocabulary, state.past)
        allowed &= ~impossible
        n_allowed = jnp.sum(allowed, axis=1, dtype=jnp.float32)
        n_anew = jnp.sum(allowed & ~strikes(vocabulary)[None], axis=1, dtype=jnp.float32)
    may_hold = (state.hold >= 0) & row_at(allowed, jnp.maximum(state.hold, 0))
    is_one = may_hold.astype(jnp.float32)
    n_others, n_anew = n_allowed - is_one, n_anew - is_one
    is_outside = satisfies_recalled = no
    if config.spell:
        is_outside = state.hold == sampling.allowed.shape[1] + HOLD
        keeps_held, satisfies_recalled = _satisfy_outside(context, is_outside)
        may_hold |= is_outside & keeps_held
    longest = jnp.where(
        state.hold == 0, jnp.minimum(sampling.max_hold, sampling.max_silence), sampling.max_hold
    )
    may_hold &= state.age < longest
    # With the clock of changes what sounds goes on before anything is drawn, and is no row.
    is_any = n_others > 0 if config.clock == "changes" else (n_others > 0) | may_hold
    may_hold &= (state.age < sampling.usual_hold) | (n_others == 0)
    held_too_long = jnp.where(may_hold, -1, state.hold)
    # Another piece strikes nothing again, so none begins where that is asked, or where all that is
    # left does.
    is_struck = jnp.any((forced.required[:, 4:] & state.past[:, :4]) > 0, axis=1)
    may_end = sampling.may_end & ~is_struck & (n_anew > 0)
    # What is written in the end when only the most likely is has to be known.
    may_spell = (sampling.temperature > 0) | ~is_any if config.spell else no
    left = allowed, impossible, held_too_long, is_any, n_others > 0
    return Masks(*left, may_spell, may_hold, is_outside, may_end, satisfies_recalled)


def strikes(vocabulary: Vocabulary) -> Array:  # bool (n_rows,)
    """Rows that strike a pitch again."""
    return jnp.any(vocabulary.bits[4:] > 0, axis=0)


def _strikes_silence(
    vocabulary: Vocabulary,
    past: Array,  # uint32 (lanes, 8)
) -> Array:  # bool (lanes, n_rows)
    """Rows that strike again what did not sound; a piece that begins strikes nothing again."""
    silent = ~past[:, :4]
    impossible = reduce(
        jnp.logical_or, ((vocabulary.bits[4 + i][None] & silent[:, i, None]) > 0 for i in range(4))
    )
    return lax.optimization_barrier(impossible)


def _fitting(context: Context) -> tuple[Array, Array]:  # bool (lanes, n_rows), (lanes,)
    """Chords that have all that the frame requires, and nothing of what it forbids; how many."""
    _, vocabulary, sampling, forced, state = context

    def fitting() -> tuple[Array, Array]:
        fits = sampling.allowed & _fitting_rows(vocabulary, forced, state.past)
        return fits, jnp.sum(fits, axis=1, dtype=jnp.float32)

    is_asked = jnp.any(forced.required > 0) | jnp.any(forced.forbidden > 0)
    return lax.cond(is_asked, fitting, lambda: (sampling.allowed, sampling.n_allowed))


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


def _satisfy_outside(
    context: Context,
    is_outside: Array,  # bool (lanes,)
) -> tuple[Array, Array]:  # bool (lanes,), bool (lanes,)
    """Whether what sounds, held on, and what is recalled keep what is asked.

    It is looked at where they are outside the vocabulary alone.
    """
    _, vocabulary, sampling, forced, state = context
    on = held_on(state.past)
    bits, is_open = on, is_outside
    if state.recalled is not None:
        is_new = state.recalled.ids >= len(vocabulary.held)
        bits, is_open = state.recalled.bits, is_open | is_new

    def kept() -> Array:
        fitting = requirements_of(sampling, forced)
        planes = unpack_words(jnp.concatenate([on, bits])) > 0
        before = planes[: len(is_open), :N_PITCHES]
        twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), (fitting, before))
        return satisfies(twice[0], planes, twice[1], jnp)

    n = len(is_open)
    keep = lax.cond(jnp.any(is_open), kept, lambda: jnp.zeros(2 * n, bool))
    return keep[:n], keep[n:]
