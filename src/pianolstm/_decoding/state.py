"""What frames are written from, and what is written: arrays of all lanes.

Conventions
-----------
Settings and states have the lanes first. The vocabulary has its rows last, so that what is done to
chords is done by vectors.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pianolstm._decoding.history import (
    Barred,
    Data,
    Memory,
    Recalled,
    empty_memory,
    nothing_recalled,
)
from pianolstm._decoding.stepping import Carry, Stepped, StepWeights, chord_features, timed
from pianolstm._model.config import NetworkConfig
from pianolstm._model.gates import Match
from pianolstm._model.recall import N_LAGS, N_TIMES
from pianolstm.vocabulary import metrical_position

Tree = TypeVar("Tree")

BLOCK = 64
"""Frames that one call writes at the most; Ctrl-C and deadlines act between two."""

N_BEGUN = 64
"""Chords last begun that a lane remembers, for the repetition penalty."""


class Vocabulary(NamedTuple):
    """What the rows of the softmax are."""

    bits: Data
    """uint32 (8, n_rows): zero beyond the chords. (A word of all rows side by side: these are
    compared by vectors.)"""
    held: Data
    """int32 (n_rows,): the row that holds each chord on, the same pitches, none struck again; -1
    where that is outside the vocabulary."""


class SamplingParameters(NamedTuple):
    """How each lane draws."""

    key: Data  # uint32 (lanes, 2)
    temperature: Data  # (lanes,): 0 takes the most likely chord
    top_k: Data  # int32 (lanes,): most likely chords that may be drawn
    top_p: Data  # (lanes,): share of the probability whose most likely chords may be drawn
    penalty: Data  # (lanes,): taken from a chord's logit for each time it was begun of late
    recent: Data  # int32 (lanes,): frames that are "of late"
    max_hold: Data  # int32 (lanes,): frames that a chord may last
    max_silence: Data  # int32 (lanes,): and a rest
    usual_hold: Data  # int32 (lanes,): after which it is held no longer, if another is allowed
    max_repeats: Data  # int32 (lanes,): times in a row that a passage may come
    may_end: Data  # bool (lanes,): whether a piece may end, and another begin
    n_allowed: Data  # (lanes,): how many chords may be drawn
    is_proposed: Data  # bool (lanes,): spelled chords are taken as they come, by likelihoods for it
    allowed: Data  # bool (lanes, n_rows): which chords may be drawn
    pitches: Data  # uint32 (lanes, 4): that may sound in a chord that is spelled
    max_notes: Data  # int32 (lanes,): how many notes it may have
    span: Data  # int32 (lanes,): semitones that a hand may span
    hand: Data  # int32 (lanes,): notes of a hand
    may_rest: Data  # bool (lanes,): whether it may have no note
    is_restricted: Data  # bool (lanes,): whether there are chords that may not come, in any frame


class ForcedFrames(NamedTuple):
    """What is known of the frames of a block."""

    is_forced: Data  # bool (BLOCK, lanes): frames that are not drawn
    ids: Data  # int32 (BLOCK, lanes): their rows, from n_rows up outside the vocabulary; 0 spelled
    bits: Data  # uint32 (BLOCK, lanes, 8): their chords
    held: Data  # int32 (BLOCK, lanes): the rows that hold them on, -1 for none; 0 spelled
    required: Data
    """uint32 (BLOCK, lanes, 8): pitches that a drawn chord must have. One that must be struck again
    is struck anew where it did not sound before."""
    forbidden: Data  # uint32 (BLOCK, lanes, 8): pitches that it must not have


class State(NamedTuple):
    """Where each lane is."""

    carry: Carry  # of the network
    stepped: Stepped  # what predicts the next chord
    position: Data  # int32 (lanes,): the next frame; frames of the prime are below 0
    past: Data  # uint32 (lanes, 8): the last chord
    hold: Data  # int32 (lanes,): the row that holds it on, 0 where spelled; -1 for none
    age: Data  # int32 (lanes,): frames for which it has been held
    lasted: Data
    """int32 (lanes,): frames since the network stepped. (A piece that begins with the chord that
    another ended with holds it on, but it is a chord that begins.)"""
    since: Data  # int32 (lanes,): frames since the piece began
    begun: Data  # int32 (lanes, N_BEGUN): chords last begun, see `chord_number`
    begun_at: Data  # int32 (lanes, N_BEGUN): and when
    memory: Memory | None  # what was heard; None where it is not looked at
    recalled: Recalled | None  # what is recalled for the next chord


class Context(NamedTuple):
    """All that a frame is drawn from."""

    weights: StepWeights
    vocabulary: Vocabulary | None  # None where chords are spelled
    sampling: SamplingParameters
    forced: ForcedFrames  # of this frame; where it is given, nothing is drawn
    barred: Barred  # what would be said too often in a row
    state: State


class Written(NamedTuple):
    """What a block has come to."""

    tokens: Data
    """int32 (BLOCK, lanes): rows of the chords, 0 where they are spelled; -1 where no chord was
    allowed."""
    bits: Data  # uint32 (BLOCK, lanes, 8): the chords
    log_p: Data  # (BLOCK, lanes): nats by the network, temperature 1, nothing forbidden
    log_allowed: Data
    """(BLOCK, lanes): nats of all that was allowed, at the lane's temperature; of a given chord,
    its own."""


class Sample(NamedTuple):
    """What a frame has come to."""

    ids: Data  # int32 (lanes,): rows, 0 where chords are spelled; -1 where none was allowed
    bits: Data  # uint32 (lanes, 8): the chords
    hold: Data  # int32 (lanes,): the rows that hold them on, -1 for none
    has_ended: Data  # bool (lanes,): whether the piece before ended
    log_p: Data  # (lanes,): as in `Written`
    log_allowed: Data  # (lanes,)


def initial_state(
    config: NetworkConfig,
    carry: Carry,  # of one lane
    stepped: Stepped,
) -> State:
    """The beginning of a piece, in one lane."""
    zero, none = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    begun = np.full((1, N_BEGUN), -1, np.int32)
    past = np.zeros((1, 8), np.uint32)
    recalled = nothing_recalled() if config.recall else None
    counts = zero, past, none, zero, zero, zero, begun, begun
    return State(carry, stepped, *counts, empty_memory(), recalled)


def timing_of(
    config: NetworkConfig,
    state: State,
    has_ended: Array,  # bool (lanes,): where another piece begins
) -> Array:  # int32 (lanes, 2)
    """Of what has sounded up to the next frame, as `Corpus.timing` has it."""
    position = metrical_position(state.since, config.beat)
    return jnp.where(has_ended[:, None], 0, jnp.stack([state.lasted, position], axis=1))


def hidden_of(
    config: NetworkConfig,
    context: Context,
    has_ended: Array,  # bool (lanes,): where another piece begins
) -> Array:  # (lanes, units)
    """What predicts the next chord of each lane, before the last layers."""
    weights, _, _, _, _, state = context
    _, first = weights["begin"]
    hidden = jnp.where(has_ended[:, None], first.hidden, state.stepped.hidden)
    return timed(config, weights, hidden, timing_of(config, state, has_ended))


def features_of(
    config: NetworkConfig,
    context: Context,
    has_ended: Array,  # bool (lanes,)
) -> Array:  # (lanes, embedding)
    """What predicts the next chord of each lane."""
    return chord_features(context.weights, hidden_of(config, context, has_ended))


def match_of(recalled: Recalled) -> Match:  # of shape (lanes,)
    """What is recalled from, as gates take it."""
    times = jnp.clip(recalled.in_a_row - 1, 0, N_TIMES - 1)
    # Exact for all that there may be, as a logarithm is not.
    octaves = jnp.asarray(2 ** np.arange(1, N_LAGS), jnp.int32)
    lags = jnp.sum(recalled.lag[:, None] >= octaves[None], axis=1)
    return Match(recalled.classes, times, lags)


def times_begun(
    sampling: SamplingParameters,
    state: State,
    number: Array,  # int32 (lanes,): see `chord_number`
) -> Array:  # int32 (lanes,)
    """How often a chord was begun of late."""
    return jnp.sum((state.begun == number[:, None]) & is_recent(sampling, state), axis=1)


def is_recent(sampling: SamplingParameters, state: State) -> Array:  # bool (lanes, N_BEGUN)
    """Which of the chords begun count."""
    ago = state.position[:, None] - state.begun_at
    return (state.begun >= 0) & (ago <= sampling.recent[:, None])


def repeat_lanes(lane: Tree, n_lanes: int) -> Tree:
    """A state of one lane, or a part of it, in many."""
    return jax.tree.map(lambda a: jax.device_put(np.repeat(np.asarray(a), n_lanes, axis=0)), lane)
