"""Writing music: one function for single pieces, many, primes and streams.

A block of frames is written in all lanes at once (see `pianolstm._decoding.stepping`); how many
frames is an argument of the compiled program, as are seeds, temperatures and constraints. Each lane
has its own clock, prime and settings.

For the order of axes, see `pianolstm._decoding.state`.
"""

from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pianolstm._decoding.history import recalled, remember
from pianolstm._decoding.notes import (
    LARGE,
    N_NUMBERS,
    packed,
    requirements_of,
    sample_notes,
    sharpness_of,
)
from pianolstm._decoding.random_numbers import row_at, sample_rows, uniform
from pianolstm._decoding.state import (
    BLOCK,
    Context,
    ForcedFrames,
    Sample,
    SamplingParameters,
    State,
    Vocabulary,
    Written,
)
from pianolstm._decoding.stepping import StepWeights, step
from pianolstm._jax.programs import LARGE_PROGRAM, program
from pianolstm._model.networks import NetworkConfig, begins_chord, unpack_words
from pianolstm.constraints import has_and_lacks, satisfies
from pianolstm.rolls import N_PITCHES
from pianolstm.vocabulary import END, HOLD, OTHER

MAX_REJECTED = 8
"""Spellings of a frame that keep not what is asked, after which there are no more."""

SYMBOLS = 3 + (N_PITCHES + 1) * N_NUMBERS
"""Random numbers of an attempt: of the row, of taking what was spelled, of recalling, of notes."""


@program(weight=LARGE_PROGRAM)
def write_block(
    config: NetworkConfig,
    weights: StepWeights,
    vocabulary: Vocabulary,
    sampling: SamplingParameters,
    frames: ForcedFrames,
    state: State,
    n: Array,
    is_weighed: Array,
) -> tuple[State, Written]:
    """Write `n` frames, at most `BLOCK`, in every lane.

    Where the network ends a piece, a new one begins at that frame. The random numbers of frame t
    are of threefry(key, (t, 0)), (t, 1), ..., `SYMBOLS` for each attempt.

    Log-likelihoods are computed if `is_weighed`, and are 0 if not.
    """
    n_lanes = len(sampling.key)

    def frame(i: Array, loop: tuple[State, Written]) -> tuple[State, Written]:
        state, written = loop
        forced = jax.tree.map(lambda a: a[i], frames)
        # Here, since what a branch reads would be copied before it is written to.
        found = recalled(state.memory) if config.recall else None
        context = Context(weights, vocabulary, sampling, forced, state._replace(memory=None), found)

        def draw_all() -> Sample:
            return sample(config, context, is_weighed)

        def draw_none() -> Sample:
            zeros, words = jnp.zeros(n_lanes), jnp.zeros((n_lanes, 8), jnp.uint32)
            return Sample(state.hold, words, state.hold, jnp.zeros(n_lanes, bool), zeros, zeros)

        is_idle = jnp.all(forced.is_forced) & ~is_weighed
        drawn = lax.cond(is_idle, draw_none, draw_all)
        # Where no chord was allowed, what follows goes on from a rest.
        ids = jnp.where(forced.is_forced, forced.ids, jnp.maximum(drawn.ids, 0))
        bits = jnp.where(forced.is_forced[:, None], forced.bits, drawn.bits)
        hold = jnp.where(forced.is_forced, forced.held, drawn.hold)
        new = begins_chord(state.past, bits) | (state.hold < 0)
        is_begun = new & (ids != 0)

        def added(a: Array, value: Array) -> Array:
            return jnp.where(is_begun[:, None], jnp.concatenate([a[:, 1:], value[:, None]], 1), a)

        carry = _where(drawn.has_ended, weights["begin"][0], state.carry)
        carry, features = step(config, weights, carry, ids, bits)
        number = chord_number(ids, bits, len(weights["bias"]))
        memory = state.memory
        if config.recall:
            began = drawn.has_ended & ~forced.is_forced
            memory = remember(memory, bits, ids, hold, number, began)
        state = State(
            carry,
            features,
            state.position + 1,
            bits,
            hold,
            jnp.where(new, 1, state.age + 1),
            added(state.begun, number),
            added(state.begun_at, state.position),
            memory,
        )
        tokens = jnp.where(forced.is_forced, forced.ids, drawn.ids)
        values = Written(tokens, bits, drawn.log_p, drawn.log_allowed)
        return state, jax.tree.map(lambda a, value: a.at[i].set(value), written, values)

    zeros = jnp.zeros((BLOCK, n_lanes))
    words = jnp.zeros((BLOCK, n_lanes, 8), jnp.uint32)
    written = Written(jnp.zeros((BLOCK, n_lanes), jnp.int32), words, zeros, zeros)
    return lax.fori_loop(0, n, frame, (state, written))


def sample(config: NetworkConfig, context: Context, is_weighed: Array) -> Sample:
    """One chord a lane, from the softmax of logits / temperature.

    By the inverse of its running sum, and no sort: a row that top-k or top-p leaves out is drawn
    again, from those that are more likely than it. So the rows that they keep have the
    probabilities of the softmax, scaled up. (That a rejected row bounds the next draw is from
    the sampling kernels of FlashInfer.) A row is kept if fewer than top_k are more likely, and if
    those that are more likely have less than top_p of the probability.

    Where the end of the piece is drawn, the lane draws again, from the beginning of another. Where
    "any other chord" is drawn, it is spelled; if it keeps not all that is asked, or is held for too
    long, all is drawn again. After `MAX_REJECTED` spellings in vain nothing more is spelled in this
    frame; where no row is left, the last of them has no more notes than are asked for.

    What is recalled (see `pianolstm._model.recall`) comes with its share, at temperature 0 where
    that is above one half, and nowhere if it is not allowed. All else that is told here is of the
    network's part of the probability.

    Parameters
    ----------
    config
        As for `write_block`.
    context : Context
    is_weighed
        As for `write_block`.

    Returns
    -------
    Sample
    """
    weights, vocabulary, sampling, forced, state, _ = context
    n_lanes, n_rows = len(sampling.key), len(weights["bias"])
    rows = jnp.arange(n_rows, dtype=jnp.int32)
    zeros, no = jnp.zeros(n_lanes), jnp.zeros(n_lanes, bool)
    masks = _masks(config, context)
    recall: Any = _choose_recalled(config, context, masks) if config.recall else None
    is_cut = (sampling.top_k < n_rows) | (sampling.top_p < 1)

    def attempt(attempts: _Attempts) -> _Attempts:
        features = jnp.where(attempts.has_ended[:, None], weights["begin"][1], state.features)
        # Computed again for each draw, since to keep them costs every frame more than it saves in
        # those that draw twice.
        logits = features @ weights["table"] + weights["bias"]
        may_end = masks.may_end & ~attempts.has_ended
        now = masks.allowed & (rows != masks.held_too_long[:, None])
        now |= (rows == n_rows + END) & may_end[:, None]
        if config.spell:
            can_hold = masks.is_outside & ~attempts.has_ended
            impossible = masks.impossible | ((rows == n_rows + HOLD) & ~can_hold[:, None])
            impossible |= _strikes(vocabulary) & attempts.has_ended[:, None]
            impossible = lax.optimization_barrier(impossible)  # or each use computes it again
            logits, now = jnp.where(impossible, -jnp.inf, logits), now & ~impossible
            now |= (rows == n_rows + HOLD) & (can_hold & masks.may_hold)[:, None]

        def relative(logits: Array) -> tuple[Array, Array]:
            """Probabilities, relative to the most likely row's, and the logit of that."""
            highest = jnp.max(jnp.where(now, logits, -jnp.inf), axis=1, keepdims=True)
            return jnp.where(now, jnp.exp((logits - highest) * sharpness_of(sampling)), 0), highest

        p, highest = lax.cond(
            jnp.any(sampling.penalty > 0),
            lambda: relative(logits - _penalties(sampling, state, rows)),
            lambda: relative(logits),
        )
        is_left = p > attempts.above[:, None]
        if config.spell:
            other = jnp.where(masks.may_spell, _other(logits, highest, sampling), 0)
            p = jnp.where(rows == n_rows + OTHER, other[:, None], p)
            # Where it is drawn no more, its share counts in top_p nevertheless.
            spells = (attempts.spelled.n_rejected < MAX_REJECTED) & ~attempts.spelled.is_cut
            is_left = jnp.where(rows == n_rows + OTHER, spells[:, None], is_left)
        u, u_taken = uniform(sampling.key, state.position, attempts.n * SYMBOLS + jnp.arange(2)).T
        drawn = sample_rows(jnp.where(is_left, p, 0), u)

        def rejected() -> tuple[Array, Array]:
            bound = jnp.take_along_axis(p, drawn[:, None], axis=1)
            # All chords outside the vocabulary count as less likely than those within; the end of
            # the piece is no chord.
            bound = jnp.where((drawn == n_rows + OTHER)[:, None], 0, bound)
            likelier = jnp.where((p > bound) & (rows < n_rows + END), p, 0)
            n, share = jnp.sum(jnp.sign(likelier), axis=1), jnp.sum(likelier, axis=1)
            is_kept = (n < sampling.top_k) & (share < sampling.top_p * jnp.sum(p, axis=1))
            is_kept |= n == 0  # the most likely is, even where nothing is allowed
            return attempts.is_open & is_cut & ~is_kept & ~forced.is_forced, bound[:, 0]

        is_retried, bound = lax.cond(jnp.any(is_cut), rejected, lambda: (no, attempts.above))
        bound = jnp.where(is_retried, bound, 0)
        spelled, is_done = attempts.spelled, attempts.is_open & ~is_retried
        notes = zeros, zeros
        fixed, is_recalled = forced, no
        if config.recall:
            is_recalled = (
                recall.is_recalled
                & ~attempts.has_ended
                & (drawn != n_rows + END)
                & ~forced.is_forced
            )
            is_done, is_retried = (
                is_done | (is_recalled & attempts.is_open),
                is_retried & ~is_recalled,
            )
            fixed = fixed._replace(
                is_forced=forced.is_forced | is_recalled,
                ids=jnp.where(is_recalled, recall.ids, forced.ids),
                bits=jnp.where(is_recalled[:, None], recall.bits, forced.bits),
            )
        chosen = jnp.where(fixed.is_forced, jnp.minimum(fixed.ids, n_rows + OTHER), drawn)
        if config.spell:
            is_other = attempts.is_open & (drawn == n_rows + OTHER) & ~fixed.is_forced
            # What top-k or top-p leaves out is spelled no more.
            spelled = spelled._replace(is_cut=spelled.is_cut | (is_other & is_retried))
            is_spelled = is_other & ~is_retried
            attempts, now_fixed = attempts._replace(spelled=spelled), context._replace(forced=fixed)
            spelled, chosen, is_done, notes = lax.cond(
                jnp.any(is_spelled) | is_weighed,
                lambda: _spell(now_fixed, masks, attempts, is_spelled, chosen, u_taken, is_weighed),
                lambda: (spelled, chosen, is_done, notes),
            )
            is_done &= attempts.is_open & ~is_retried
            is_retried |= is_spelled & ~is_done
        ends = is_done & (drawn == n_rows + END) & ~fixed.is_forced

        def weighed() -> tuple[Array, Array]:
            may_follow = now | ((rows == n_rows + OTHER) & masks.may_spell[:, None])
            log_p, log_allowed = _weigh(config, context, logits, may_follow, chosen, notes)
            if config.recall:
                new = spelled.bits, (drawn == n_rows + OTHER) & ~fixed.is_forced
                bits = _bits_of(vocabulary, state, chosen, new, fixed)
                is_same = jnp.all(bits == recall.bits, axis=1) & (chosen != n_rows + END)
                share = jnp.where(attempts.has_ended, 0, recall.share)
                log_p, log_allowed = _mixed(log_p, log_allowed, share, is_same, recall, is_recalled)
                log_allowed = jnp.where(forced.is_forced, log_p, log_allowed)
            return log_p, log_allowed

        log_p, log_allowed = lax.cond(is_weighed, weighed, lambda: (zeros, zeros))
        return _Attempts(
            attempts.n + 1,
            is_retried | ends,
            jnp.where(attempts.is_open, drawn, attempts.row),
            bound,
            attempts.has_ended | ends,
            # Of a piece that ends: that it does, and what the next one begins with.
            attempts.log_p + jnp.where(is_done, log_p, 0),
            attempts.log_allowed + jnp.where(is_done, log_allowed, 0),
            spelled,
        )

    none = jnp.zeros(n_lanes, jnp.int32)
    spelled = _Spelled(none, no, none, jnp.zeros((n_lanes, 8), jnp.uint32), none)
    start = _Attempts(jnp.int32(0), ~no, none, zeros, no, zeros, zeros, spelled)
    attempts = lax.while_loop(lambda attempts: jnp.any(attempts.is_open), attempt, start)
    is_possible = masks.is_any
    if config.spell:
        is_possible |= attempts.spelled.n_rejected < MAX_REJECTED
    row = jnp.where(is_possible, attempts.row, 0)
    drawn = row, vocabulary.bits[:, row].T, vocabulary.held[row]
    if config.spell:
        other = n_rows + OTHER
        held_on = _held_on(state.past)
        on = none + n_rows, held_on, none + n_rows + HOLD
        drawn = _where(row == n_rows + HOLD, on, drawn)
        drawn = _where(row == other, attempts.spelled[2:], drawn)
    if config.recall:
        is_recalled = recall.is_recalled & ~attempts.has_ended
        drawn = _where(is_recalled, (recall.ids, recall.bits, recall.hold), drawn)
        is_possible |= is_recalled
    ids, bits, hold = drawn
    ids = jnp.where(is_possible, ids, -1)
    # One over the draws that a chord took estimates what share of all draws keep what is asked.
    log_attempts = jnp.where(sampling.is_proposed, jnp.log1p(attempts.spelled.n_rejected), 0)
    log_allowed = attempts.log_allowed - log_attempts
    return Sample(ids, bits, hold, attempts.has_ended, attempts.log_p, log_allowed)


class _Spelled(NamedTuple):
    """Spellings of a frame, of each lane.

    How many were in vain, whether top-k or top-p leave them out, and what the last one gave, as in
    `Sample`.
    """

    n_rejected: Array
    is_cut: Array
    ids: Array
    bits: Array
    hold: Array


class _Attempts(NamedTuple):
    """The draws of a frame: how many, and for each lane what they have come to.

    Lanes that are open draw again, among rows of a relative probability above this.
    """

    n: Array
    is_open: Array
    row: Array
    above: Array
    has_ended: Array
    log_p: Array
    log_allowed: Array
    spelled: _Spelled


class _Masks(NamedTuple):
    """What constraints leave for a frame.

    Attributes
    ----------
    allowed : Array of bool, shape (lanes, n_rows)
        Chords of the vocabulary.
    impossible : Array of bool, shape (lanes, n_rows)
        Rows that strike again what does not sound; none of them is allowed.
    held_too_long : Array of int32, shape (lanes,)
        The chord that was held for too long, -1 for none.
    is_any : Array of bool, shape (lanes,)
        Whether a row is left.
    may_spell : Array of bool, shape (lanes,)
        Whether chords may be spelled.
    may_hold : Array of bool, shape (lanes,)
        Whether what sounds may be held on.
    is_outside : Array of bool, shape (lanes,)
        Whether that is outside the vocabulary.
    may_end : Array of bool, shape (lanes,)
        Whether the piece may end.
    satisfies_recalled : Array of bool, shape (lanes,)
        Whether what is recalled, if it is outside the vocabulary, keeps what is asked.
    """

    allowed: Array
    impossible: Array
    held_too_long: Array
    is_any: Array
    may_spell: Array
    may_hold: Array
    is_outside: Array
    may_end: Array
    satisfies_recalled: Array


def _masks(config: NetworkConfig, context: Context) -> _Masks:
    """What constraints leave for the frame."""
    _, vocabulary, sampling, forced, state, _ = context

    def fitting() -> tuple[Array, Array]:
        fits = sampling.allowed & _fitting_rows(vocabulary, forced, state.past)
        return fits, jnp.sum(fits, axis=1, dtype=jnp.float32)

    is_asked = jnp.any(forced.required > 0) | jnp.any(forced.forbidden > 0)
    allowed, n_allowed = lax.cond(is_asked, fitting, lambda: (sampling.allowed, sampling.n_allowed))
    longest = jnp.where(
        state.hold == 0, jnp.minimum(sampling.max_hold, sampling.max_silence), sampling.max_hold
    )
    impossible = is_outside = may_spell = satisfies_recalled = jnp.zeros(len(state.hold), bool)
    n_anew = n_allowed
    if config.spell:
        # What is struck again has sounded; a piece that begins strikes nothing again.
        silent = ~state.past[:, :4]
        impossible = reduce(
            jnp.logical_or, ((vocabulary.bits[4 + i] & silent[:, i, None]) > 0 for i in range(4))
        )
        impossible = lax.optimization_barrier(impossible)
        allowed &= ~impossible
        n_allowed = jnp.sum(allowed, axis=1, dtype=jnp.float32)
        n_anew = jnp.sum(allowed & ~_strikes(vocabulary), axis=1, dtype=jnp.float32)
    may_hold = (state.hold >= 0) & row_at(allowed, jnp.maximum(state.hold, 0))
    n_others, n_anew = n_allowed - may_hold, n_anew - may_hold
    if config.spell:
        is_outside = state.hold == sampling.allowed.shape[1] + HOLD
        keeps_held, satisfies_recalled = _satisfy_outside(context, is_outside)
        may_hold |= is_outside & keeps_held
    may_hold &= state.age < longest
    is_any = (n_others > 0) | may_hold
    may_hold &= (state.age < sampling.usual_hold) | (n_others == 0)
    held_too_long = jnp.where(may_hold, -1, state.hold)
    # Another piece strikes nothing again, so none begins where that is asked, or where all that is
    # left does.
    is_struck = jnp.any((forced.required[:, 4:] & state.past[:, :4]) > 0, axis=1)
    may_end = sampling.may_end & ~is_struck & (n_anew > 0)
    if config.spell:
        # What is written in the end when only the most likely is has to be known.
        may_spell = (sampling.temperature > 0) | ~is_any
    masks = allowed, impossible, held_too_long, is_any, may_spell, may_hold, is_outside, may_end
    return _Masks(*masks, satisfies_recalled)


def _satisfy_outside(context: Context, is_outside: Array) -> tuple[Array, Array]:
    """Whether what sounds, held on, and what is recalled keep what is asked, each (lanes,).

    It is looked at where they are outside the vocabulary alone.
    """
    _, vocabulary, sampling, forced, state, recalled = context
    held_on = _held_on(state.past)
    bits, is_open = held_on, is_outside
    if recalled is not None:
        bits, is_open = recalled.bits, is_open | (recalled.ids >= len(vocabulary.held))

    def kept() -> Array:
        fitting = requirements_of(sampling, forced)
        planes = unpack_words(jnp.concatenate([held_on, bits])) > 0
        before = planes[: len(is_open), :N_PITCHES]
        twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), (fitting, before))
        return satisfies(twice[0], planes, twice[1], jnp)

    n = len(is_open)
    keep = lax.cond(jnp.any(is_open), kept, lambda: jnp.zeros(2 * n, bool))
    return keep[:n], keep[n:]


class _RecallChoice(NamedTuple):
    """What is recalled for a frame; arrays of shape (lanes,), but for `bits` (lanes, 8).

    Attributes
    ----------
    share : Array
        Its part of the probability.
    may_follow, is_recalled : Array of bool
        Whether it is allowed; whether it is what is written, if the piece does not end.
    ids, bits, hold : Array
        As in `Sample`.
    """

    share: Array
    may_follow: Array
    is_recalled: Array
    ids: Array
    bits: Array
    hold: Array


def _choose_recalled(config: NetworkConfig, context: Context, masks: _Masks) -> _RecallChoice:
    """What is recalled, and whether it is allowed and drawn."""
    weights, _, sampling, _, state, (classes, bits, ids, hold) = context
    n_rows = len(weights["bias"])
    share = weights["recall"][classes]
    is_known = ids < n_rows
    row = jnp.where(is_known, ids, 0)
    holds = (state.hold >= 0) & jnp.all(bits == _held_on(state.past), axis=1)
    may_follow = is_known & row_at(masks.allowed, row) & (row != masks.held_too_long)
    if config.spell:
        may_follow |= ~is_known & masks.satisfies_recalled & (masks.may_hold | ~holds)
    else:
        share = jnp.where(is_known, share, 0)
    times = _times_begun(sampling, state, chord_number(ids, bits, n_rows))
    often = share * jnp.exp(-jnp.where(holds, 0, times * sampling.penalty))
    u = uniform(sampling.key, state.position, jnp.full(1, 2))[:, 0]
    is_recalled = may_follow & (jnp.where(sampling.temperature > 0, u, 0.5) < often)
    return _RecallChoice(share, may_follow & (classes > 0), is_recalled, ids, bits, hold)


def _bits_of(
    vocabulary: Vocabulary,
    state: State,
    chosen: Array,
    spelled: tuple[Array, Array],
    fixed: ForcedFrames,
) -> Array:
    """Bits of the chords that came, (lanes, 8), of rows, spelled, or told."""
    bits, is_spelled = spelled
    hold = chosen == len(vocabulary.held) + HOLD
    bits = jnp.where(is_spelled[:, None], bits, vocabulary.bits[:, chosen].T)
    bits = jnp.where(hold[:, None] & ~is_spelled[:, None], _held_on(state.past), bits)
    return jnp.where(fixed.is_forced[:, None], fixed.bits, bits)


def _mixed(
    log_p: Array,
    log_allowed: Array,
    share: Array,
    is_same: Array,
    recall: _RecallChoice,
    is_recalled: Array,
) -> tuple[Array, Array]:
    """Likelihoods by the network, and of what is recalled, together."""
    log_p += jnp.log1p(-share)
    log_p = jnp.where(is_same, jnp.logaddexp(log_p, jnp.log(share)), log_p)
    # Of what is recalled all is allowed, or nothing.
    log_allowed += jnp.where(recall.may_follow, 0, jnp.log1p(-share))
    return log_p, jnp.where(is_recalled, 0, log_allowed)


def _strikes(vocabulary: Vocabulary) -> Array:
    """Rows that strike a pitch again: bool, (n_rows,)."""
    return jnp.any(vocabulary.bits[4:] > 0, axis=0)


def _spell(
    context: Context,
    masks: _Masks,
    attempts: _Attempts,
    is_spelled: Array,
    chosen: Array,
    u_taken: Array,
    is_weighed: Array,
) -> tuple[_Spelled, Array, Array, tuple[Array, Array]]:
    """Spell chords in some lanes; weigh the notes of what came in the others, if they are weighed.

    What is drawn from allowed notes alone comes too often, by one over the share that they had of
    the probability: so it is taken with that probability, and chords come as often as they would if
    all notes were drawn, and chords that are not allowed drawn again. Where chords are proposals,
    their likelihoods account for it; where no row is left, nothing is lost.

    A chord begun of late is taken as much less often as its logit would be lowered, were it a row.

    Returns
    -------
    spelled : _Spelled
    came : Array of int32, shape (lanes,)
        Rows of the softmax of what came.
    is_done : Array of bool, shape (lanes,)
        False of what was spelled in vain.
    notes : tuple of Array, shape (lanes,)
        Nats of the notes of what came, and of all notes that were allowed.
    """
    weights, vocabulary, sampling, forced, state, _ = context
    n_rows = len(vocabulary.held)
    features = jnp.where(attempts.has_ended[:, None], weights["begin"][1], state.features)
    before = (unpack_words(state.past[:, :4]) > 0) & ~attempts.has_ended[:, None]
    fitting = requirements_of(sampling, forced)
    # The last spelling for a frame that no row fits: the fewest notes that keep what is asked.
    is_last = ~masks.is_any & (attempts.spelled.n_rejected == MAX_REJECTED - 1)
    fewest = jnp.maximum(jnp.sum(fitting.required, axis=1), ~fitting.may_rest)
    most = jnp.where(is_last, jnp.minimum(fewest, fitting.max_notes), fitting.max_notes)
    fitting = fitting._replace(max_notes=most)
    on = _held_on(state.past)
    bits = jnp.where(forced.is_forced[:, None], forced.bits, vocabulary.bits[:, chosen].T)
    bits = jnp.where((chosen == n_rows + HOLD)[:, None], on, bits)

    def u(k: Array) -> Array:
        return uniform(sampling.key, state.position, attempts.n * SYMBOLS + 3 + k)

    out = sample_notes(
        weights,
        features,
        before,
        fitting,
        sampling,
        is_spelled | is_weighed,
        (~is_spelled, unpack_words(bits) > 0),
        u,
    )
    bits = packed(out.planes)
    held_on = _held_on(bits)
    holds = (state.hold >= 0) & jnp.all(bits == on, axis=1)
    ids, hold = jnp.split(_find(vocabulary, jnp.concatenate([bits, held_on])), 2)
    hold = jnp.where(hold == n_rows, n_rows + HOLD, hold)
    on_outside = holds & ~attempts.has_ended & (state.hold == n_rows + HOLD)
    row = jnp.where((ids == n_rows) & on_outside, n_rows + HOLD, ids)
    times = _times_begun(sampling, state, chord_number(ids, bits, n_rows))
    share = jnp.where(masks.is_any, out.nats[1], 0)
    share -= jnp.where(holds, 0, times * sampling.penalty) * sharpness_of(sampling)[:, 0]
    is_taken = sampling.is_proposed | is_last | (u_taken < jnp.exp(share))
    is_done = ~out.is_stuck & is_taken & satisfies(fitting, out.planes, before, jnp)
    is_done &= masks.may_hold | ~holds
    chosen = jnp.where(chosen == n_rows + END, chosen, jnp.minimum(row, n_rows + OTHER))
    notes = jnp.where(chosen == n_rows + END, -jnp.inf, out.nats[0])
    is_new = is_spelled & is_done
    new = _Spelled(
        attempts.spelled.n_rejected + (is_spelled & ~is_done),
        attempts.spelled.is_cut,
        *_where(is_new, (ids, bits, hold), attempts.spelled[2:]),
    )
    return new, chosen, is_done | ~is_spelled, (notes, jnp.where(is_spelled, out.nats[1], 0))


def chord_number(ids: Array, bits: Array, n_rows: int) -> Array:
    """What tells chords from one another: their rows, or numbers above all rows.

    Of two chords outside the vocabulary these are the same once in 2³⁰ times.
    """
    # Multiplicative hashing (Knuth 1998, section 6.4), with an odd factor for each word.
    factors = np.arange(8, dtype=np.uint32) * np.uint32(0x9E3779B2) + np.uint32(0x85EBCA6B)
    mixed = (bits ^ (bits >> 15)) * factors
    mixed = jnp.sum(mixed ^ (mixed >> 13), axis=1, dtype=jnp.uint32)
    return jnp.where(ids < n_rows, ids, n_rows + (mixed >> 2).astype(jnp.int32))


def _held_on(bits: Array) -> Array:
    """Chords (lanes, 8) held on."""
    return bits * (jnp.arange(8) < 4)


def _find(vocabulary: Vocabulary, bits: Array) -> Array:
    """The row of each chord (n, 8), as many as there are for none."""
    same = reduce(jnp.logical_and, (vocabulary.bits[i] == bits[:, i, None] for i in range(8)))
    n_rows = len(vocabulary.held)
    # Padding looks like a rest, which is the first row.
    return jnp.min(jnp.where(same, jnp.arange(n_rows, dtype=jnp.int32), n_rows), axis=1)


def _where(which: Array, a: Any, b: Any) -> Any:
    """Leaves (lanes, …) of one or the other."""
    return jax.tree.map(
        lambda x, y: jnp.where(which.reshape(-1, *[1] * (x.ndim - 1)), x, y), tuple(a), tuple(b)
    )


def _fitting_rows(vocabulary: Vocabulary, forced: ForcedFrames, past: Array) -> Array:
    """Chords that have all that the frame requires, and nothing of what it forbids."""
    # Struck again is only what sounds already.
    sounding = jnp.concatenate([jnp.full_like(past[:, :4], 0xFFFFFFFF), past[:, :4]], axis=1)
    required = forced.required & sounding
    fits = True
    for word in range(8):
        bits = vocabulary.bits[word]
        fits &= has_and_lacks(bits, required[:, word, None], forced.forbidden[:, word, None])
    return jnp.asarray(fits)


def _penalties(sampling: SamplingParameters, state: State, rows: Array) -> Array:
    """What is taken from the logits of chords begun of late: (lanes, n_rows)."""
    is_recent = _is_recent(sampling, state) & (state.begun < len(rows))
    lanes = jnp.arange(len(state.begun))[:, None]
    zeros = jnp.zeros((len(lanes), len(rows)))
    penalties = is_recent * sampling.penalty[:, None]
    penalty = zeros.at[lanes, jnp.maximum(state.begun, 0)].add(penalties)
    return jnp.where(rows == state.hold[:, None], 0, penalty)


def _is_recent(sampling: SamplingParameters, state: State) -> Array:
    """Which of the chords begun count: bool, (lanes, N_BEGUN)."""
    ago = state.position[:, None] - state.begun_at
    return (state.begun >= 0) & (ago <= sampling.recent[:, None])


def _times_begun(sampling: SamplingParameters, state: State, number: Array) -> Array:
    """How often a chord, see `chord_number`, was begun of late: (lanes,)."""
    return jnp.sum((state.begun == number[:, None]) & _is_recent(sampling, state), axis=1)


def _weigh(
    config: NetworkConfig,
    context: Context,
    logits: Array,
    allowed: Array,
    chosen: Array,
    notes: tuple[Array, Array],
) -> tuple[Array, Array]:
    """Log-likelihood of the chords that come, by rows and notes, and of all that is allowed."""
    n_rows = logits.shape[1]
    sharpness = sharpness_of(context.sampling)
    known, other = logits, None
    if config.spell:
        known = jnp.where(jnp.arange(n_rows) == n_rows + OTHER, -jnp.inf, logits)
        other = logits[:, OTHER]
    highest, total, total_allowed = _sums(known, sharpness)
    at_row = jnp.take_along_axis(known - highest, chosen[:, None], axis=1)[:, 0]
    # What is allowed may be too unlikely for a float, but not for its logarithm.
    may_follow = jnp.where(allowed, known, -jnp.inf)
    most = jnp.maximum(jnp.max(may_follow, axis=1, keepdims=True), -LARGE)
    log_allowed = jnp.log(jnp.sum(jnp.exp((may_follow - most) * sharpness), axis=1))
    log_allowed += ((most - highest) * sharpness)[:, 0]
    if other is not None:
        other -= highest[:, 0]
        # As likely as without temperature.
        share = other - total + total_allowed
        at_row = jnp.logaddexp(at_row, other + notes[0])
        total = jnp.logaddexp(total, other)
        may_be = jnp.where(allowed[:, OTHER], share, -jnp.inf)
        log_allowed = jnp.logaddexp(log_allowed, may_be)
        total_allowed = jnp.logaddexp(total_allowed, share)
    log_p, log_allowed = at_row - total, log_allowed - total_allowed
    return log_p, jnp.where(context.forced.is_forced, log_p, log_allowed + notes[1])


def _sums(logits: Array, sharpness: Array) -> tuple[Array, Array, Array]:
    """The highest logit of each lane; log sum exp of all, and of all times sharpness, above it."""
    highest = jnp.max(logits, axis=1, keepdims=True)
    past = logits - highest
    plain, sharp = (jnp.log(jnp.sum(jnp.exp(x), axis=1)) for x in (past, past * sharpness))
    return highest, plain, sharp


def _other(logits: Array, highest: Array, sampling: SamplingParameters) -> Array:
    """Probability of any other chord, relative to that of the row that has the highest logit.

    Temperature acts within the chords of the vocabulary, and within those outside, and leaves it as
    likely as it is that a chord is the one or the other.
    """
    is_known = jnp.arange(logits.shape[1]) != logits.shape[1] + OTHER

    def tempered() -> Array:
        sharpness = sharpness_of(sampling)
        most, plain, sharp = _sums(jnp.where(is_known, logits, -jnp.inf), sharpness)
        share = logits[:, OTHER] - most[:, 0] - plain
        share += sharp + ((most - highest) * sharpness)[:, 0]
        # The same for each lane, whether others have a temperature or not.
        return jnp.where(sampling.temperature == 1, direct, share)

    direct = logits[:, OTHER] - highest[:, 0]
    relative = lax.cond(jnp.any(sampling.temperature != 1), tempered, lambda: direct)
    # Where no row of the vocabulary is left, any number above 0 will do.
    return jnp.exp(jnp.clip(relative, -60, 60))
