"""Chords drawn note by note, until one keeps all that is asked: for networks that spell."""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

from pianolstm._decoding.chords import chord_number, where
from pianolstm._decoding.masks import Masks, holds_on
from pianolstm._decoding.notes import N_NUMBERS as N_PER_NOTE
from pianolstm._decoding.notes import (
    Asked,
    Spelling,
    packed,
    requirements_of,
    sample_notes,
    sharpness_of,
)
from pianolstm._decoding.proposals import Draw, Proposal
from pianolstm._decoding.random_numbers import uniform
from pianolstm._decoding.state import Context, features_of, times_begun
from pianolstm._model.config import NetworkConfig
from pianolstm._model.planes import unpack_words
from pianolstm.constraints import Requirements, satisfies
from pianolstm.rolls import N_PITCHES

MAX_REJECTED = 8
"""Chords of a frame that are not taken, after which the next is that keeps what is asked."""

MAX_TRIED = MAX_REJECTED + 2
"""Chords of a frame that are tried at the most; the last has no more notes than are asked for."""

N_NUMBERS = 1 + (N_PITCHES + 2) * N_PER_NOTE
"""Random numbers that a chord is drawn with: of taking it, of notes."""


def propose_chord(
    config: NetworkConfig,
    context: Context,
    masks: Masks,
    draw: Draw,
    is_open: Array,  # bool (lanes,)
    first: Array,  # uint32 (): number of its first random number
) -> Proposal:
    """A chord of notes that are allowed, in each open lane; or the likelihood of a given one.

    What is drawn from allowed notes alone comes too often, by one over the share that they had of
    the probability: so it is taken with that probability, and chords come as often as they would if
    all notes were drawn, and chords that are not allowed drawn again. (Of what changes first the
    share is the same for all chords: it matters only beside that what sounds goes on.) After
    `MAX_REJECTED` the next chord is taken. Where chords are proposals, their likelihoods account
    for it.

    A chord begun of late is taken as much less often as its logit would be lowered, were it a row.
    """
    weights, _, sampling, _, _, state = context
    _, begin = weights["begin"]
    is_new = draw.has_ended
    heard = where(is_new, begin.heard, state.stepped.heard)
    asked = _asked(config, context, masks, draw)
    out = sample_notes(
        config.pitches,
        weights["notes"],
        (features_of(config, context, is_new), heard),
        asked,
        sampling,
        is_open | draw.is_weighed,
        lambda k: uniform(sampling.key, state.position, first + 1 + k.astype(jnp.uint32)),
    )
    u = uniform(sampling.key, state.position, first[None])[:, 0]
    bits = packed(out.planes)
    zero = jnp.zeros_like(state.hold)
    is_taken = _is_taken(config, context, masks, draw, (asked.requirements, asked.before), out, u)
    log_p, log_allowed = jnp.where(draw.is_weighed, out.nats, 0)
    return Proposal(
        zero,
        bits,
        zero,
        out.ends,
        is_taken | asked.is_given | out.ends,
        draw.bound,
        log_p,
        jnp.where(asked.is_given, log_p, log_allowed),
    )


def _asked(config: NetworkConfig, context: Context, masks: Masks, draw: Draw) -> Asked:
    """What the next chord of each lane has to be."""
    _, _, sampling, forced, _, state = context
    is_new, given = draw.has_ended, draw.given
    fitting = requirements_of(sampling, forced)
    fewest = jnp.maximum(jnp.sum(fitting.required, axis=1), jnp.where(fitting.may_rest, 0, 1))
    is_last = draw.n_rejected == MAX_TRIED - 1
    most = jnp.where(is_last, jnp.minimum(fewest, fitting.max_notes), fitting.max_notes)
    is_rest = ~jnp.any(state.past[:, :4] > 0, axis=1)
    # Another piece that begins as this one ended holds it on, all the same.
    may_stay = (state.hold < 0) | masks.may_go_on | (is_new & ~is_rest)
    is_timed = config.clock == "changes"
    barred = context.barred
    # Rather than nothing at all, what is barred.
    is_kept = ~(is_last & ~masks.may_hold)
    return Asked(
        # Another piece has nothing before it.
        (unpack_words(state.past[:, :4]) > 0) & ~is_new[:, None],
        fitting._replace(max_notes=most),
        (state.lasted > 0) & ~is_new if is_timed else jnp.zeros_like(is_new),
        may_stay,
        masks.may_end & ~is_new,
        given.is_given,
        unpack_words(given.bits) > 0,
        barred._replace(is_one=barred.is_one & is_kept[:, None]),
    )


def _is_taken(
    config: NetworkConfig,
    context: Context,
    masks: Masks,
    draw: Draw,
    asked: tuple[Requirements, Array],  # and what sounded before, bool (lanes, 128)
    out: Spelling,
    u: Array,  # (lanes,)
) -> Array:  # bool (lanes,)
    """Which of the chords that were drawn are taken."""
    _, _, sampling, _, _, state = context
    fitting, before = asked
    bits = packed(out.planes)
    holds = holds_on(context, bits)
    number = chord_number(jnp.zeros_like(state.hold), bits, 0)
    times = times_begun(sampling, state, number).astype(u.dtype)
    penalty = jnp.where(holds, 0, times * sampling.penalty) * sharpness_of(sampling)[:, 0]
    share = out.nats[1] - out.first
    if config.clock == "changes":
        share += jnp.where(masks.may_go_on & ~draw.has_ended, out.first, 0)
    is_sure = sampling.is_proposed | (sampling.temperature == 0)
    is_sure |= draw.n_rejected >= MAX_REJECTED
    is_taken = (is_sure | (u < jnp.exp(share - penalty))) & ~out.is_stuck
    is_taken &= masks.may_go_on | ~holds
    return is_taken & satisfies(fitting, out.planes, before, jnp)
