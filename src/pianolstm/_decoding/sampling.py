"""Writing music: one function for single pieces, many, primes and streams.

A block of frames is written in all lanes at once (see `pianolstm._decoding.stepping`); how many
frames is an argument of the compiled program, as are seeds, temperatures and constraints. Each lane
has its own clock, prime and settings.

A frame goes through stages: what constraints leave (`masks`); with the clock of changes, whether
what sounds goes on (`timing`); what is recalled, or what the network draws, notes (`spelling`) or a
row of the softmax (`rows`), tried until all that is asked is kept; and what the frame makes of the
state.

For the order of axes, see `pianolstm._decoding.state`.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pianolstm._decoding.chords import chord_number, held_on, where
from pianolstm._decoding.history import Step, barred, recalled, remember
from pianolstm._decoding.masks import Masks, constrain, holds_on
from pianolstm._decoding.notes import first_logits
from pianolstm._decoding.proposals import Draw, Given, Proposal
from pianolstm._decoding.random_numbers import uniform
from pianolstm._decoding.rows import Rows, is_possible, log_allowed, propose_row, rows_of
from pianolstm._decoding.spelling import MAX_TRIED, propose_chord
from pianolstm._decoding.spelling import N_NUMBERS as N_PER_CHORD
from pianolstm._decoding.state import (
    BLOCK,
    Context,
    ForcedFrames,
    Sample,
    SamplingParameters,
    State,
    Vocabulary,
    Written,
    hidden_of,
    match_of,
    times_begun,
    timing_of,
)
from pianolstm._decoding.stepping import StepWeights, chord_features, step
from pianolstm._decoding.timing import Hazard, hazard_of
from pianolstm._jax.programs import LARGE_PROGRAM, program
from pianolstm._model.config import NetworkConfig
from pianolstm._model.gates import gate_logit, log_mixed
from pianolstm._model.note_decoder import STAY, log_first_of
from pianolstm._model.planes import NEVER, begins_chord, unpack_words
from pianolstm.vocabulary import END

FIRST = np.uint32(1)
"""The first of the random numbers of draws; the one before is of recalling."""

N_NUMBERS = np.uint32(N_PER_CHORD)
"""Random numbers of a draw."""

MAX_RECALLED = 8
"""Times in a row that a passage comes by being recalled; more often only if the network itself says
so. (Nine of ten pieces of the study's training part have none more often. Gates learn how often a
passage comes, but what is written leads to where the training pieces never were.)"""

TIMES = np.uint32(1 << 31)
"""The first of the random numbers of whether what sounds goes on, one an attempt."""


@program(weight=LARGE_PROGRAM)
def write_block(
    config: NetworkConfig,
    weights: StepWeights,
    vocabulary: Vocabulary | None,
    sampling: SamplingParameters,
    frames: ForcedFrames,
    state: State,
    n: Array,  # int32 (): at most `BLOCK`
    is_weighed: Array,  # bool ()
) -> tuple[State, Written]:
    """Write `n` frames in every lane.

    Where the network ends a piece, a new one begins at that frame. The random numbers of frame t
    are of threefry(key, (t, 0)), (t, 1), ..., `N_NUMBERS` for each draw.

    Log-likelihoods are computed if `is_weighed`, and are 0 if not.
    """
    n_lanes = len(sampling.key)

    def frame(i: Array, loop: tuple[State, Written]) -> tuple[State, Written]:
        state, written = loop
        forced = jax.tree.map(lambda a: a[i], frames)
        # Without the memory, since what a branch reads would be copied before it is written to.
        assert state.memory is not None
        often = barred(state.memory, sampling.max_repeats)
        context = Context(weights, vocabulary, sampling, forced, often, state._replace(memory=None))

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
    number = chord_number(ids, bits, config.n_rows)
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
    assert state.memory is not None
    # Not in a branch, which would copy the memory.
    memory = remember(config, state.memory, begun)
    new = new._replace(memory=memory)
    if config.recall:
        new = new._replace(recalled=recalled(memory))

    def added(a: Array, value: Array) -> Array:
        is_begun = begins & jnp.any(bits[:, :4] > 0, axis=1)
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


class _Attempts(NamedTuple):
    """The draws of a frame, and what each lane has come to."""

    n: Array  # int32 (): how many
    is_open: Array  # bool (lanes,): draws again
    bound: Array  # (lanes,): see `Draw`
    n_rejected: Array  # int32 (lanes,)
    goes_on: Array  # bool (lanes,): with the clock of changes, what sounds goes on
    has_ended: Array  # bool (lanes,)
    ids: Array  # int32 (lanes,): as in `Sample`
    bits: Array  # uint32 (lanes, 8)
    hold: Array  # int32 (lanes,)
    log_p: Array  # (lanes,)
    log_allowed: Array  # (lanes,)


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
    """One chord a lane: what goes on, what is recalled, or what the network draws.

    With the clock of changes it is drawn first whether what sounds goes on. What is recalled (see
    `pianolstm._model.recall`) comes with its share, at temperature 0 where that is above one half,
    and nowhere if it is not allowed, or has come `MAX_RECALLED` times in a row. Else the network
    draws, notes (`pianolstm._decoding.spelling`) or a row (`pianolstm._decoding.rows`), again and
    again until what it draws may come. Where it draws the end of the piece, the lane draws again,
    from the beginning of another.
    """
    _, _, sampling, _, _, state = context
    n_lanes = len(sampling.key)
    masks = constrain(config, context)
    time = hazard_of(context.weights, sampling, state) if config.clock == "changes" else None
    stage = _Stage(context, masks, None, time, is_weighed)
    none, no = jnp.zeros(n_lanes, jnp.int32), jnp.zeros(n_lanes, bool)
    zeros, words = jnp.zeros(n_lanes), jnp.zeros((n_lanes, 8), jnp.uint32)
    start = _Attempts(
        jnp.int32(0), ~no, zeros, none, no, no, none - 1, words, none - 1, zeros, zeros
    )
    if stage.time is not None:
        start = _timed(config, stage, start)
    if state.recalled is not None:
        stage = stage._replace(recall=_choose_recalled(config, context, masks, start.is_open))
    attempts = lax.while_loop(
        lambda attempts: jnp.any(attempts.is_open),
        lambda attempts: _attempt(config, stage, attempts),
        start,
    )
    return _outcome(config, stage, attempts)


def _timed(config: NetworkConfig, stage: _Stage, start: _Attempts) -> _Attempts:
    """With the clock of changes: the lanes in which what sounds goes on.

    Where a row is to be drawn and not all may be, that is for `_begin` to say.
    """
    _, _, sampling, forced, _, state = stage.context
    assert stage.time is not None
    is_given = begins_chord(state.past, forced.bits) | (state.lasted == 0)
    u = uniform(sampling.key, state.position, jnp.full(1, TIMES, jnp.uint32))[:, 0]
    drawn = stage.masks.may_go_on & (u >= stage.time.hazard)
    if not config.spell:
        drawn &= ~stage.masks.is_restricted
    goes_on = jnp.where(forced.is_forced, ~is_given, drawn)
    log_p = jnp.where(goes_on & stage.is_weighed, stage.time.log_goes_on, 0)
    return start._replace(
        is_open=~goes_on & (stage.is_weighed | ~forced.is_forced),
        goes_on=goes_on,
        log_p=log_p,
        log_allowed=jnp.where(forced.is_forced, log_p, 0),
    )


def _attempt(config: NetworkConfig, stage: _Stage, attempts: _Attempts) -> _Attempts:
    """One draw in each lane that is open."""
    context, masks = stage.context, stage.masks
    rows = None if config.spell else rows_of(config, context, masks, attempts.has_ended)
    time = _begin(config, stage, attempts, rows) if stage.time is not None else None
    goes_on = jnp.zeros_like(attempts.goes_on) if time is None else time.goes_on
    given, is_recalled = _given(stage, attempts, goes_on)
    is_open = attempts.is_open & ~goes_on
    draw = Draw(
        attempts.has_ended,
        attempts.bound,
        attempts.n_rejected,
        given,
        stage.is_weighed,
    )
    first = FIRST + attempts.n.astype(jnp.uint32) * N_NUMBERS
    if rows is None:
        proposal = propose_chord(config, context, masks, draw, is_open & ~given.is_given, first)
    else:
        proposal = propose_row(config, context, draw, rows, first)
    ends = is_open & proposal.ends
    is_rejected = is_open & ~proposal.is_taken
    n_rejected = attempts.n_rejected + is_rejected.astype(jnp.int32)
    is_again = is_rejected
    if config.spell:
        is_again &= n_rejected < MAX_TRIED
    # A chord, the end of a piece, or that what sounds goes on.
    is_done = attempts.is_open & ~is_rejected
    is_chord = is_done & ~ends & ~goes_on
    drawn = proposal.ids, proposal.bits, proposal.hold
    if stage.recall is not None:
        drawn = where(is_recalled, stage.recall.chord, drawn)
    ids, bits, hold = where(is_chord, drawn, (attempts.ids, attempts.bits, attempts.hold))
    log_p, log_allowed = _weighed(stage, attempts, proposal, (given, is_recalled), time)
    return _Attempts(
        attempts.n + 1,
        is_again | ends,
        proposal.bound,
        n_rejected,
        attempts.goes_on | (attempts.is_open & goes_on),
        attempts.has_ended | ends,
        ids,
        bits,
        hold,
        # Of a piece that ends: that it does, and what the next one begins with.
        attempts.log_p + jnp.where(is_done, log_p, 0),
        attempts.log_allowed + jnp.where(is_done, log_allowed, 0),
    )


class _Begin(NamedTuple):
    """Whether a chord begins; of an attempt."""

    goes_on: Array  # bool (lanes,): what sounds goes on
    log_p: Array  # (lanes,): nats of that, or of beginning one; temperature 1
    log_allowed: Array  # (lanes,): of both as far as they are allowed, less that of chords that are


def _begin(config: NetworkConfig, stage: _Stage, attempts: _Attempts, rows: Rows | None) -> _Begin:
    """Whether what sounds goes on after all, where constraints leave not all chords that may begin.

    What is left has its probabilities scaled up: those of chords that begin by the hazard, and that
    of going on. Where chords are rows their share is computed; where they are spelled, this is
    drawn again with each that was not taken.
    """
    _, _, sampling, forced, _, state = stage.context
    masks, time = stage.masks, stage.time
    assert time is not None
    is_drawn = masks.is_restricted & ~forced.is_forced & ~attempts.has_ended
    if rows is None:
        is_drawn &= attempts.n_rejected > 0
    may_go_on = masks.may_go_on & ~attempts.has_ended
    left = jnp.zeros_like(time.hazard)
    if rows is not None:
        share = lax.cond(jnp.any(is_drawn), lambda: _row_share(config, stage, rows), lambda: left)
        left = jnp.where(is_drawn, share, 0)
    begins = jnp.log(time.hazard) + left
    both = jnp.logaddexp(begins, jnp.where(may_go_on, jnp.log1p(-time.hazard), -jnp.inf))
    u = uniform(sampling.key, state.position, TIMES + attempts.n.astype(jnp.uint32)[None])[:, 0]
    goes_on = is_drawn & may_go_on & ~(u < jnp.exp(begins - both))
    is_first = ~attempts.has_ended
    log_p = jnp.where(goes_on, time.log_goes_on, time.log_ends)
    allowed = both - jnp.where(goes_on, 0, left)
    return _Begin(goes_on, jnp.where(is_first, log_p, 0), jnp.where(is_first, allowed, 0))


def _row_share(config: NetworkConfig, stage: _Stage, rows: Rows) -> Array:  # (lanes,)
    """Nats of all rows that may begin, and of what is recalled."""
    sampling = stage.context.sampling
    is_end = jnp.arange(config.n_rows)[None] == config.n_rows + END
    possible = jnp.where(is_end & ~sampling.may_end[:, None], -jnp.inf, rows.logits)
    found = log_allowed(sampling, rows._replace(logits=possible))
    if stage.recall is None:
        return found
    gate = stage.recall.gate
    by_network = found + jax.nn.log_sigmoid(-gate)
    recalled = jnp.where(stage.recall.may_follow, jax.nn.log_sigmoid(gate), -jnp.inf)
    return jnp.logaddexp(by_network, recalled)


def _outcome(config: NetworkConfig, stage: _Stage, attempts: _Attempts) -> Sample:
    """The chords that the draws have come to."""
    _, _, sampling, _, _, state = stage.context
    held = jnp.maximum(state.hold, 0), held_on(state.past), state.hold
    chord = where(attempts.goes_on, held, (attempts.ids, attempts.bits, attempts.hold))
    if stage.masks.rows is not None:
        # The draw of a row takes what there is, if only to have one.
        is_one = is_possible(config, stage.masks, stage.masks.rows) | attempts.goes_on
        if stage.recall is not None:
            is_one |= stage.recall.is_recalled
        chord = where(is_one, chord, (jnp.full_like(state.hold, -1), *chord[1:]))
    else:
        # Where nothing else can come, what sounds is held on.
        # (Another piece may begin with it, too.)
        is_last = (chord[0] < 0) & stage.masks.may_hold
        chord = where(is_last & ~sampling.is_proposed, held, chord)
    ids, bits, hold = chord
    # One over the draws that a chord took estimates what share of all draws keep what is asked.
    log_attempts = jnp.where(
        sampling.is_proposed, jnp.log1p(attempts.n_rejected.astype(jnp.float32)), 0
    )
    log_all = attempts.log_allowed
    if config.spell:
        log_all -= log_attempts
    return Sample(ids, bits, hold, attempts.has_ended, attempts.log_p, log_all)


class _RecallChoice(NamedTuple):
    """What is recalled for a frame."""

    gate: Array  # (lanes,): logit of its part of the probability
    may_follow: Array  # bool (lanes,): whether it is allowed
    is_recalled: Array  # bool (lanes,): whether it is what is written, if the piece does not end
    chord: tuple[Array, Array, Array]  # ids, bits and hold as in `Sample`


def _choose_recalled(
    config: NetworkConfig,
    context: Context,
    masks: Masks,
    is_open: Array,  # bool (lanes,): where a chord is to be drawn
) -> _RecallChoice:
    """What is recalled, and whether it is allowed and drawn."""
    _, _, sampling, _, _, state = context
    assert state.recalled is not None
    _, bits, ids, hold, _, in_a_row, _ = state.recalled
    never = jnp.full(len(ids), NEVER)
    gate = lax.cond(jnp.any(is_open), lambda: _gate(config, context), lambda: never)
    may_follow = masks.may_recall & (in_a_row < MAX_RECALLED)
    times = times_begun(sampling, state, chord_number(ids, bits, config.n_rows))
    often = jnp.where(holds_on(context, bits), 0, times.astype(gate.dtype) * sampling.penalty)
    often = jax.nn.sigmoid(gate) * jnp.exp(-often)
    u = uniform(sampling.key, state.position, jnp.zeros(1, jnp.uint32))[:, 0]
    is_recalled = may_follow & (jnp.where(sampling.temperature > 0, u, 0.5) < often)
    return _RecallChoice(gate, may_follow & (gate > NEVER), is_recalled, (ids, bits, hold))


def _gate(config: NetworkConfig, context: Context) -> Array:  # (lanes,)
    """Logit of that what is recalled is taken."""
    weights, _, _, _, _, state = context
    assert state.recalled is not None
    match, log_p = match_of(state.recalled), jnp.zeros(len(state.hold))
    no = jnp.zeros(len(state.hold), bool)
    hidden = hidden_of(config, context, no)
    if config.spell:
        before = unpack_words(state.past[:, :4]) > 0
        known = chord_features(weights, hidden), state.stepped.heard
        first = first_logits(config.pitches, weights["notes"], known, before)
        if config.clock == "changes":
            logits = first.logits
            barred = jnp.where(state.lasted > 0, NEVER, logits[:, STAY])
            first = first._replace(logits=logits.at[:, STAY].set(barred))
        log_p = log_first_of(first, state.recalled.bits, before)
    else:
        match = match._replace(
            classes=jnp.where(state.recalled.ids < config.n_rows, match.classes, 0)
        )
    return gate_logit(weights["gate"], hidden, match, log_p)


def _given(
    stage: _Stage,
    attempts: _Attempts,
    goes_on: Array,  # bool (lanes,)
) -> tuple[Given, Array]:  # bool (lanes,)
    """Chords that are given, or recalled; and where they are recalled."""
    forced, recall = stage.context.forced, stage.recall
    if recall is None:
        return Given(forced.is_forced, forced.ids, forced.bits), jnp.zeros_like(goes_on)
    is_recalled = recall.is_recalled & ~attempts.has_ended & ~forced.is_forced & ~goes_on
    ids, bits, _ = recall.chord
    given = Given(
        forced.is_forced | is_recalled,
        jnp.where(is_recalled, ids, forced.ids),
        jnp.where(is_recalled[:, None], bits, forced.bits),
    )
    return given, is_recalled


def _weighed(
    stage: _Stage,
    attempts: _Attempts,
    proposal: Proposal,
    given: tuple[Given, Array],
    time: _Begin | None,
) -> tuple[Array, Array]:  # (lanes,), (lanes,)
    """Log-likelihood of what came, and of all that is allowed."""
    (fixed, is_recalled), forced = given, stage.context.forced
    log_p, log_all = proposal.log_p, proposal.log_allowed
    if stage.recall is not None:
        recall = stage.recall
        bits = jnp.where(fixed.is_given[:, None], fixed.bits, proposal.bits)
        is_same = jnp.all(bits == recall.chord[1], axis=1) & ~proposal.ends
        gate = jnp.where(attempts.has_ended, NEVER, recall.gate)
        log_p = log_mixed(gate, is_same, log_p)
        # Of what is recalled all is allowed, or nothing.
        log_all += jnp.where(recall.may_follow, 0, jax.nn.log_sigmoid(-gate))
        log_all = jnp.where(is_recalled, 0, log_all)
    if time is not None:
        log_p = time.log_p + jnp.where(time.goes_on, 0, log_p)
        log_all = time.log_allowed + jnp.where(time.goes_on, 0, log_all)
    log_all = jnp.where(forced.is_forced, log_p, log_all)
    return jnp.where(stage.is_weighed, log_p, 0), jnp.where(stage.is_weighed, log_all, 0)
