"""Writing music: one function for single pieces, many, primes and streams.

A block of frames is written in all lanes at once (see `pianolstm._decoding.stepping`); how many
frames is an argument of the compiled program, as are seeds, temperatures and constraints. Each lane
has its own clock, prime and settings.

A frame goes through stages: what constraints leave (`masks`); with the clock of changes, whether
what sounds goes on (`timing`); a row of the softmax (`rows`), what is recalled, notes (`notes`),
tried until all that is asked is kept; and what the frame makes of the state.

For the order of axes, see `pianolstm._decoding.state`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pianolstm._decoding.chords import chord_number, find, held_on, where
from pianolstm._decoding.history import Step, recalled, remember
from pianolstm._decoding.masks import Masks, constrain
from pianolstm._decoding.notes import (
    N_NUMBERS,
    Spelling,
    packed,
    requirements_of,
    sample_notes,
    sharpness_of,
)
from pianolstm._decoding.random_numbers import row_at, uniform
from pianolstm._decoding.rows import (
    Rows,
    draw_row,
    features_of,
    log_allowed,
    log_row,
    rows_of,
    times_begun,
)
from pianolstm._decoding.state import (
    BLOCK,
    Context,
    ForcedFrames,
    Sample,
    SamplingParameters,
    State,
    Vocabulary,
    Written,
    timing_of,
)
from pianolstm._decoding.stepping import StepWeights, step
from pianolstm._decoding.timing import Hazard, hazard_of
from pianolstm._jax.programs import LARGE_PROGRAM, program
from pianolstm._model.networks import NetworkConfig
from pianolstm._model.planes import begins_chord, unpack_words
from pianolstm.constraints import Requirements, satisfies
from pianolstm.rolls import N_PITCHES
from pianolstm.vocabulary import END, HOLD, OTHER

MAX_REJECTED = 8
"""Spellings of a frame that keep not what is asked, after which there are no more."""

SYMBOLS = 3 + (N_PITCHES + 2) * N_NUMBERS
"""Random numbers of an attempt: of the row, of taking what was spelled, of recalling, of notes."""

MAX_RECALLED = 2
"""Times in a row that a passage comes by being recalled; more often only if the network itself says
so. (Shares are counted over all that comes again, and real music hardly ever says a thing three
times in a row; without this what is written is caught in loops.)"""

TIMES = np.uint32(1 << 31)
"""The first of the random numbers of whether what sounds goes on, one an attempt."""


@program(weight=LARGE_PROGRAM)
def write_block(
    config: NetworkConfig,
    weights: StepWeights,
    vocabulary: Vocabulary,
    sampling: SamplingParameters,
    frames: ForcedFrames,
    state: State,
    n: Array,  # int32 (): at most `BLOCK`
    is_weighed: Array,  # bool ()
) -> tuple[State, Written]:
    """Write `n` frames in every lane.

    Where the network ends a piece, a new one begins at that frame. The random numbers of frame t
    are of threefry(key, (t, 0)), (t, 1), ..., `SYMBOLS` for each attempt.

    Log-likelihoods are computed if `is_weighed`, and are 0 if not.
    """
    n_lanes = len(sampling.key)

    def frame(i: Array, loop: tuple[State, Written]) -> tuple[State, Written]:
        state, written = loop
        forced = jax.tree.map(lambda a: a[i], frames)
        # Without the memory, since what a branch reads would be copied before it is written to.
        context = Context(weights, vocabulary, sampling, forced, state._replace(memory=None))

        def draw_none() -> Sample:
            zeros, words = jnp.zeros(n_lanes), jnp.zeros((n_lanes, 8), jnp.uint32)
            return Sample(state.hold, words, state.hold, jnp.zeros(n_lanes, bool), zeros, zeros)

        is_idle = jnp.all(forced.is_forced) & ~is_weighed
        drawn = lax.cond(is_idle, draw_none, lambda: sample(config, context, is_weighed))
        # Where no chord was allowed, what follows goes on from a rest.
        chord = Sample(
            jnp.where(forced.is_forced, forced.ids, jnp.maximum(drawn.ids, 0)),
            jnp.where(forced.is_forced[:, None], forced.bits, drawn.bits),
            jnp.where(forced.is_forced, forced.held, drawn.hold),
            drawn.has_ended & ~forced.is_forced,
            drawn.log_p,
            drawn.log_allowed,
        )
        tokens = jnp.where(forced.is_forced, forced.ids, drawn.ids)
        values = Written(tokens, chord.bits, drawn.log_p, drawn.log_allowed)
        written = jax.tree.map(lambda a, value: a.at[i].set(value), written, values)
        return _advance(config, weights, state, chord), written

    zeros = jnp.zeros((BLOCK, n_lanes))
    words = jnp.zeros((BLOCK, n_lanes, 8), jnp.uint32)
    written = Written(jnp.zeros((BLOCK, n_lanes), jnp.int32), words, zeros, zeros)
    return lax.fori_loop(0, n, frame, (state, written))


def _advance(config: NetworkConfig, weights: StepWeights, state: State, chord: Sample) -> State:
    """The state after a frame; the network steps, and what came is remembered."""
    ids, bits, hold, has_ended, _, _ = chord
    is_timed = config.clock == "changes"
    begins = begins_chord(state.past, bits) | (state.lasted == 0 if is_timed else state.hold < 0)
    is_step = begins | has_ended if is_timed else jnp.ones_like(begins)
    number = chord_number(ids, bits, len(weights["bias"]))
    timing = timing_of(config, state, has_ended)
    begun = Step(is_step, bits, ids, hold, number, has_ended, timing[:, 0])

    def stepped() -> State:
        first, _ = weights["begin"]
        carry = where(has_ended, first, state.carry)
        carry, stepped = step(config, weights, carry, ids, bits, timing)
        if is_timed:
            carry, stepped = where(is_step, (carry, stepped), (state.carry, state.stepped))
        return state._replace(carry=carry, stepped=stepped)

    new = lax.cond(jnp.any(is_step), stepped, lambda: state) if is_timed else stepped()
    if state.memory is not None:
        # Not in a branch, which would copy the memory.
        memory = remember(config, state.memory, begun)
        new = new._replace(memory=memory, recalled=recalled(memory))

    def added(a: Array, value: Array) -> Array:
        is_begun = begins & (ids != 0)
        return jnp.where(is_begun[:, None], jnp.concatenate([a[:, 1:], value[:, None]], 1), a)

    return new._replace(
        position=state.position + 1,
        past=bits,
        hold=hold,
        age=jnp.where(begins, 1, state.age + 1),
        lasted=jnp.where(is_step, 1, state.lasted + 1),
        since=jnp.where(has_ended, 1, state.since + 1),
        begun=added(state.begun, number),
        begun_at=added(state.begun_at, state.position),
    )


class _Spelled(NamedTuple):
    """Spellings of a frame, of each lane."""

    n_rejected: Array  # int32 (lanes,): how many were in vain
    is_cut: Array  # bool (lanes,): whether top-k or top-p leave them out
    ids: Array  # int32 (lanes,): what the last one gave, as in `Sample`
    bits: Array  # uint32 (lanes, 8)
    hold: Array  # int32 (lanes,)


class _Attempts(NamedTuple):
    """The draws of a frame, and what each lane has come to."""

    n: Array  # int32 (): how many
    is_open: Array  # bool (lanes,): draws again
    row: Array  # int32 (lanes,)
    above: Array  # (lanes,): only rows of a relative probability above this are drawn again
    goes_on: Array  # bool (lanes,): with the clock of changes, what sounds goes on
    has_ended: Array  # bool (lanes,)
    log_p: Array  # (lanes,)
    log_allowed: Array  # (lanes,)
    spelled: _Spelled


class _Stage(NamedTuple):
    """What the draws of a frame have in common."""

    context: Context
    masks: Masks
    recall: _RecallChoice | None
    time: Hazard | None
    is_weighed: Array  # bool ()


def sample(
    config: NetworkConfig,
    context: Context,
    is_weighed: Array,  # bool ()
) -> Sample:
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
    that is above one half, and nowhere if it is not allowed, or would come for the third time in a
    row. All else that is told here is of the
    network's part of the probability.
    """
    weights, _, sampling, _, state = context
    n_lanes = len(sampling.key)
    masks = constrain(config, context)
    stage = _Stage(
        context,
        masks,
        _choose_recalled(config, context, masks),
        hazard_of(weights, sampling, state) if config.clock == "changes" else None,
        is_weighed,
    )
    none, no = jnp.zeros(n_lanes, jnp.int32), jnp.zeros(n_lanes, bool)
    zeros = jnp.zeros(n_lanes)
    spelled = _Spelled(none, no, none, jnp.zeros((n_lanes, 8), jnp.uint32), none)
    start = _Attempts(jnp.int32(0), ~no, none, zeros, no, no, zeros, zeros, spelled)
    if stage.time is not None:
        start = _timed(stage, start)
    attempts = lax.while_loop(
        lambda attempts: jnp.any(attempts.is_open),
        lambda attempts: _attempt(config, stage, attempts),
        start,
    )
    return _outcome(config, stage, attempts)


def _timed(stage: _Stage, start: _Attempts) -> _Attempts:
    """With the clock of changes: the lanes in which it is plain that what sounds goes on."""
    _, _, sampling, forced, state = stage.context
    assert stage.time is not None
    is_given = begins_chord(state.past, forced.bits) | (state.lasted == 0)
    u = uniform(sampling.key, state.position, jnp.full(1, TIMES, jnp.uint32))[:, 0]
    drawn = ~_is_restricted(stage) & stage.masks.may_hold & (u >= stage.time.hazard)
    goes_on = jnp.where(forced.is_forced, ~is_given, drawn)
    log_p = jnp.where(goes_on & stage.is_weighed, stage.time.log_goes_on, 0)
    return start._replace(
        is_open=~goes_on & (stage.is_weighed | ~forced.is_forced),
        row=jnp.where(goes_on, state.hold, start.row),
        goes_on=goes_on,
        log_p=log_p,
        log_allowed=jnp.where(forced.is_forced, log_p, 0),
    )


def _is_restricted(stage: _Stage) -> Array:  # bool (lanes,)
    """Where constraints leave not all chords that might begin."""
    _, _, sampling, forced, _ = stage.context
    is_asked = jnp.any((forced.required | forced.forbidden) > 0, axis=1)
    return sampling.is_restricted | is_asked | ~stage.masks.is_other


def _attempt(config: NetworkConfig, stage: _Stage, attempts: _Attempts) -> _Attempts:
    """One draw in each lane that is open."""
    context, masks = stage.context, stage.masks
    _, _, sampling, forced, state = context
    n_rows = len(context.weights["bias"])
    rows = rows_of(config, context, masks, attempts.has_ended)
    log_time = _begin(config, stage, attempts, rows) if stage.time is not None else None
    goes_on = jnp.zeros_like(attempts.goes_on) if log_time is None else log_time.goes_on
    u, u_taken = uniform(sampling.key, state.position, attempts.n * SYMBOLS + jnp.arange(2)).T
    spells = (attempts.spelled.n_rejected < MAX_REJECTED) & ~attempts.spelled.is_cut
    drawn = draw_row(config, sampling, rows.p, attempts.above, spells, u)
    is_retried = attempts.is_open & drawn.is_cut & ~forced.is_forced & ~goes_on
    bound = jnp.where(is_retried, drawn.bound, 0)
    fixed, is_recalled = _fixed(stage, attempts, drawn.row, goes_on)
    is_retried &= ~is_recalled
    is_done = attempts.is_open & ~is_retried
    chosen = jnp.where(fixed.is_forced, jnp.minimum(fixed.ids, n_rows + OTHER), drawn.row)
    spelled, notes = attempts.spelled, (jnp.zeros_like(u), jnp.zeros_like(u))
    if config.spell:
        is_other = (drawn.row == n_rows + OTHER) & ~fixed.is_forced & ~goes_on
        is_other &= attempts.is_open
        # What top-k or top-p leaves out is spelled no more.
        spelled = spelled._replace(is_cut=spelled.is_cut | (is_other & is_retried))
        is_spelled = is_other & ~is_retried
        now = attempts._replace(spelled=spelled)
        spelled, chosen, is_done, notes = lax.cond(
            jnp.any(is_spelled) | stage.is_weighed,
            lambda: _spell(config, stage, fixed, now, is_spelled, chosen, u_taken),
            lambda: (spelled, chosen, is_done, notes),
        )
        is_done &= attempts.is_open & ~is_retried
        is_retried |= is_spelled & ~is_done
    ends = is_done & (drawn.row == n_rows + END) & ~fixed.is_forced & ~goes_on
    came = _Came(drawn.row, chosen, notes, fixed, is_recalled, log_time)
    zeros = jnp.zeros_like(u)
    log_p, log_allowed = lax.cond(
        stage.is_weighed,
        lambda: _weigh(config, stage, attempts, rows, spelled, came),
        lambda: (zeros, zeros),
    )
    return _Attempts(
        attempts.n + 1,
        is_retried | ends,
        jnp.where(attempts.is_open, jnp.where(goes_on, state.hold, drawn.row), attempts.row),
        bound,
        attempts.goes_on | (attempts.is_open & goes_on),
        attempts.has_ended | ends,
        # Of a piece that ends: that it does, and what the next one begins with.
        attempts.log_p + jnp.where(is_done, log_p, 0),
        attempts.log_allowed + jnp.where(is_done, log_allowed, 0),
        spelled,
    )


class _Begin(NamedTuple):
    """Whether a chord begins; of an attempt."""

    goes_on: Array  # bool (lanes,): what sounds goes on
    log_p: Array  # (lanes,): nats of that, or of beginning one; temperature 1
    log_allowed: Array  # (lanes,): of both as far as they are allowed, less that of chords that are


def _begin(config: NetworkConfig, stage: _Stage, attempts: _Attempts, rows: Rows) -> _Begin:
    """Whether what sounds goes on, where constraints leave not all chords that might begin.

    What is left has its probabilities scaled up: those of chords that begin by the hazard, and that
    of going on.
    """
    _, _, sampling, forced, state = stage.context
    masks, time = stage.masks, stage.time
    assert time is not None
    n_rows = rows.logits.shape[1]
    is_restricted = _is_restricted(stage) & ~forced.is_forced & ~attempts.has_ended

    def share() -> Array:
        """Nats of all chords that may begin."""
        is_end = jnp.arange(n_rows)[None] == n_rows + END
        possible = jnp.where(is_end & ~sampling.may_end[:, None], -jnp.inf, rows.logits)
        found = log_allowed(config, sampling, possible, _may_follow(rows, masks))
        if stage.recall is None:
            return found
        by_network = found + jnp.log1p(-stage.recall.share)
        recalled = jnp.where(stage.recall.may_follow, jnp.log(stage.recall.share), -jnp.inf)
        return jnp.logaddexp(by_network, recalled)

    left = lax.cond(jnp.any(is_restricted), share, lambda: jnp.zeros_like(time.hazard))
    left = jnp.where(is_restricted, left, 0)
    may_hold = masks.may_hold & ~attempts.has_ended
    begins = jnp.log(time.hazard) + left
    both = jnp.logaddexp(begins, jnp.where(may_hold, jnp.log1p(-time.hazard), -jnp.inf))
    u = uniform(sampling.key, state.position, TIMES + attempts.n.astype(jnp.uint32)[None])[:, 0]
    goes_on = is_restricted & may_hold & ~(u < jnp.exp(begins - both))
    is_first = ~attempts.has_ended
    log_p = jnp.where(goes_on, time.log_goes_on, time.log_ends)
    allowed = both - jnp.where(goes_on, 0, left)
    return _Begin(goes_on, jnp.where(is_first, log_p, 0), jnp.where(is_first, allowed, 0))


def _may_follow(rows: Rows, masks: Masks) -> Array:  # bool (lanes, n_rows)
    """Rows that may be drawn, any other chord among them."""
    n_rows = rows.allowed.shape[1]
    is_other = jnp.arange(n_rows)[None] == n_rows + OTHER
    return rows.allowed | (is_other & masks.may_spell[:, None])


def _outcome(config: NetworkConfig, stage: _Stage, attempts: _Attempts) -> Sample:
    """The chords that the draws have come to."""
    weights, vocabulary, sampling, _, state = stage.context
    n_rows, n_lanes = len(weights["bias"]), len(sampling.key)
    is_possible = stage.masks.is_any | attempts.goes_on
    if config.spell:
        is_possible |= attempts.spelled.n_rejected < MAX_REJECTED
    row = jnp.where(is_possible, attempts.row, 0)
    drawn = row, vocabulary.bits[:, row].T, vocabulary.held[row]
    if config.spell:
        none = jnp.zeros(n_lanes, jnp.int32)
        on = none + n_rows, held_on(state.past), none + n_rows + HOLD
        drawn = where(row == n_rows + HOLD, on, drawn)
        is_other = (row == n_rows + OTHER) & ~attempts.goes_on
        drawn = where(is_other, tuple(attempts.spelled[2:]), drawn)
    if stage.recall is not None:
        recall = stage.recall
        is_recalled = recall.is_recalled & ~attempts.has_ended & ~attempts.goes_on
        drawn = where(is_recalled, (recall.ids, recall.bits, recall.hold), drawn)
        is_possible |= is_recalled
    ids, bits, hold = drawn
    ids = jnp.where(is_possible, ids, -1)
    # One over the draws that a chord took estimates what share of all draws keep what is asked.
    log_attempts = jnp.where(sampling.is_proposed, jnp.log1p(attempts.spelled.n_rejected), 0)
    log_all = attempts.log_allowed - log_attempts
    return Sample(ids, bits, hold, attempts.has_ended, attempts.log_p, log_all)


class _RecallChoice(NamedTuple):
    """What is recalled for a frame."""

    share: Array  # (lanes,): its part of the probability
    may_follow: Array  # bool (lanes,): whether it is allowed
    is_recalled: Array  # bool (lanes,): whether it is what is written, if the piece does not end
    ids: Array  # int32 (lanes,): as in `Sample`
    bits: Array  # uint32 (lanes, 8)
    hold: Array  # int32 (lanes,)


def _choose_recalled(config: NetworkConfig, context: Context, masks: Masks) -> _RecallChoice | None:
    """What is recalled, and whether it is allowed and drawn."""
    weights, _, sampling, _, state = context
    if state.recalled is None:
        return None
    classes, bits, ids, hold, _, in_a_row = state.recalled
    n_rows = len(weights["bias"])
    share = weights["recall"][0][classes]
    is_known = ids < n_rows
    row = jnp.where(is_known, ids, 0)
    holds = (state.hold >= 0) & jnp.all(bits == held_on(state.past), axis=1)
    may_follow = is_known & row_at(masks.allowed, row) & (row != masks.held_too_long)
    if config.spell:
        may_follow |= ~is_known & masks.satisfies_recalled & (masks.may_hold | ~holds)
    else:
        share = jnp.where(is_known, share, 0)
    may_follow &= in_a_row < MAX_RECALLED
    times = times_begun(sampling, state, chord_number(ids, bits, n_rows)).astype(jnp.float32)
    often = share * jnp.exp(-jnp.where(holds, 0, times * sampling.penalty))
    u = uniform(sampling.key, state.position, jnp.full(1, 2))[:, 0]
    is_recalled = may_follow & (jnp.where(sampling.temperature > 0, u, 0.5) < often)
    return _RecallChoice(share, may_follow & (classes > 0), is_recalled, ids, bits, hold)


def _fixed(
    stage: _Stage,
    attempts: _Attempts,
    row: Array,  # int32 (lanes,)
    goes_on: Array,  # bool (lanes,)
) -> tuple[ForcedFrames, Array]:  # bool (lanes,)
    """Chords that are given, or recalled; and where they are recalled."""
    forced, recall = stage.context.forced, stage.recall
    if recall is None:
        return forced, jnp.zeros_like(goes_on)
    ends = row == len(stage.context.weights["bias"]) + END
    is_recalled = recall.is_recalled & ~attempts.has_ended & ~ends & ~forced.is_forced & ~goes_on
    fixed = forced._replace(
        is_forced=forced.is_forced | is_recalled,
        ids=jnp.where(is_recalled, recall.ids, forced.ids),
        bits=jnp.where(is_recalled[:, None], recall.bits, forced.bits),
    )
    return fixed, is_recalled


class _Came(NamedTuple):
    """What an attempt has come to."""

    row: Array  # int32 (lanes,): drawn
    chosen: Array  # int32 (lanes,): row of the chord
    notes: tuple[Array, Array]  # (lanes,): nats of its notes, and of all notes that were allowed
    fixed: ForcedFrames  # chords that are given or recalled
    is_recalled: Array  # bool (lanes,)
    time: _Begin | None


def _weigh(
    config: NetworkConfig,
    stage: _Stage,
    attempts: _Attempts,
    rows: Rows,
    spelled: _Spelled,
    came: _Came,
) -> tuple[Array, Array]:  # (lanes,), (lanes,)
    """Log-likelihood of what came, and of all that is allowed."""
    _, vocabulary, sampling, forced, state = stage.context
    n_rows = rows.logits.shape[1]
    log_p = log_row(config, rows.logits, came.chosen, came.notes[0])
    log_all = log_allowed(config, sampling, rows.logits, _may_follow(rows, stage.masks))
    log_all = jnp.where(came.fixed.is_forced, log_p, log_all + came.notes[1])
    if stage.recall is not None:
        recall = stage.recall
        new = spelled.bits, (came.row == n_rows + OTHER) & ~came.fixed.is_forced
        bits = _bits_of(vocabulary, state, came.chosen, new, came.fixed)
        is_same = jnp.all(bits == recall.bits, axis=1) & (came.chosen != n_rows + END)
        share = jnp.where(attempts.has_ended, 0, recall.share)
        log_p += jnp.log1p(-share)
        log_p = jnp.where(is_same, jnp.logaddexp(log_p, jnp.log(share)), log_p)
        # Of what is recalled all is allowed, or nothing.
        log_all += jnp.where(recall.may_follow, 0, jnp.log1p(-share))
        log_all = jnp.where(came.is_recalled, 0, log_all)
    if came.time is not None:
        log_p = came.time.log_p + jnp.where(came.time.goes_on, 0, log_p)
        log_all = came.time.log_allowed + jnp.where(came.time.goes_on, 0, log_all)
    if stage.recall is not None or came.time is not None:
        log_all = jnp.where(forced.is_forced, log_p, log_all)
    return log_p, log_all


def _bits_of(
    vocabulary: Vocabulary,
    state: State,
    chosen: Array,  # int32 (lanes,)
    spelled: tuple[Array, Array],  # uint32 (lanes, 8), bool (lanes,)
    fixed: ForcedFrames,
) -> Array:  # uint32 (lanes, 8)
    """Bits of the chords that came, of rows, spelled, or told."""
    bits, is_spelled = spelled
    hold = chosen == len(vocabulary.held) + HOLD
    bits = jnp.where(is_spelled[:, None], bits, vocabulary.bits[:, chosen].T)
    bits = jnp.where(hold[:, None] & ~is_spelled[:, None], held_on(state.past), bits)
    return jnp.where(fixed.is_forced[:, None], fixed.bits, bits)


def _spell(
    config: NetworkConfig,
    stage: _Stage,
    fixed: ForcedFrames,
    attempts: _Attempts,
    is_spelled: Array,  # bool (lanes,)
    chosen: Array,  # int32 (lanes,)
    u_taken: Array,  # (lanes,)
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
    weights, vocabulary, sampling, _, state = stage.context
    n_rows, before = len(vocabulary.held), _before(stage, attempts)
    fitting, is_last = _fitting_notes(stage, fixed, attempts)
    on = held_on(state.past)
    bits = jnp.where(fixed.is_forced[:, None], fixed.bits, vocabulary.bits[:, chosen].T)
    bits = jnp.where((chosen == n_rows + HOLD)[:, None], on, bits)
    barred = None
    if config.clock == "changes":
        barred = (state.lasted > 0) & ~attempts.has_ended
    out = sample_notes(
        config.pitches,
        weights["notes"],
        features_of(config, stage.context, attempts.has_ended),
        _heard(stage, attempts),
        before,
        fitting,
        sampling,
        is_spelled | stage.is_weighed,
        (~is_spelled, unpack_words(bits) > 0),
        lambda k: uniform(sampling.key, state.position, attempts.n * SYMBOLS + 3 + k),
        barred,
    )
    return _accept(config, stage, attempts, (fitting, is_last), out, (is_spelled, chosen, u_taken))


def _accept(
    config: NetworkConfig,
    stage: _Stage,
    attempts: _Attempts,
    asked: tuple[Requirements, Array],  # as `_fitting_notes` gives it
    out: Spelling,
    drawn: tuple[Array, Array, Array],  # is_spelled, chosen and u_taken of `_spell`
) -> tuple[_Spelled, Array, Array, tuple[Array, Array]]:
    """Which of the chords that were spelled are taken; as `_spell`."""
    _, vocabulary, sampling, _, state = stage.context
    masks, n_rows = stage.masks, len(vocabulary.held)
    (fitting, is_last), (is_spelled, chosen, u_taken) = asked, drawn
    before = _before(stage, attempts)
    bits, on = packed(out.planes), held_on(state.past)
    holds = (state.hold >= 0) & jnp.all(bits == on, axis=1)
    ids, hold = jnp.split(find(vocabulary, jnp.concatenate([bits, held_on(bits)])), 2)
    hold = jnp.where(hold == n_rows, n_rows + HOLD, hold)
    row = ids
    if config.clock == "frames":
        on_outside = holds & ~attempts.has_ended & (state.hold == n_rows + HOLD)
        row = jnp.where((ids == n_rows) & on_outside, n_rows + HOLD, ids)
    times = times_begun(sampling, state, chord_number(ids, bits, n_rows)).astype(jnp.float32)
    share = jnp.where(masks.is_any, out.nats[1], 0)
    share -= jnp.where(holds, 0, times * sampling.penalty) * sharpness_of(sampling)[:, 0]
    is_taken = sampling.is_proposed | is_last | (u_taken < jnp.exp(share))
    is_done = ~out.is_stuck & is_taken & satisfies(fitting, out.planes, before, jnp)
    is_done &= masks.may_hold | ~holds
    chosen = jnp.where(chosen == n_rows + END, chosen, jnp.minimum(row, n_rows + OTHER))
    notes = jnp.where(chosen == n_rows + END, -jnp.inf, out.nats[0])
    new = _Spelled(
        attempts.spelled.n_rejected + (is_spelled & ~is_done).astype(jnp.int32),
        attempts.spelled.is_cut,
        *where(is_spelled & is_done, (ids, bits, hold), tuple(attempts.spelled[2:])),
    )
    return new, chosen, is_done | ~is_spelled, (notes, jnp.where(is_spelled, out.nats[1], 0))


def _heard(stage: _Stage, attempts: _Attempts) -> Array:  # (lanes, n_pitches, state)
    """States of the pitches."""
    _, first = stage.context.weights["begin"]
    return where(attempts.has_ended, first.heard, stage.context.state.stepped.heard)


def _before(stage: _Stage, attempts: _Attempts) -> Array:  # bool (lanes, 128)
    """Pitches that sounded in the frame before; another piece has none."""
    sounded = unpack_words(stage.context.state.past[:, :4]) > 0
    return sounded & ~attempts.has_ended[:, None]


def _fitting_notes(
    stage: _Stage, fixed: ForcedFrames, attempts: _Attempts
) -> tuple[Requirements, Array]:  # bool (lanes,)
    """What is asked of a chord that is spelled; and whether it is the last try.

    The last spelling for a frame that no row fits has the fewest notes that keep what is asked.
    """
    fitting = requirements_of(stage.context.sampling, fixed)
    is_last = ~stage.masks.is_any & (attempts.spelled.n_rejected == MAX_REJECTED - 1)
    fewest = jnp.maximum(jnp.sum(fitting.required, axis=1), jnp.where(fitting.may_rest, 0, 1))
    most = jnp.where(is_last, jnp.minimum(fewest, fitting.max_notes), fitting.max_notes)
    return fitting._replace(max_notes=most), is_last
