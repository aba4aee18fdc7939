"""What frames are written from, and what is written: arrays of all lanes.

Conventions
-----------
Settings and states have the lanes first. The vocabulary has its rows last, so that what is done to
chords is done by vectors.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import numpy as np

from pianolstm._decoding.history import empty_memory, nothing_recalled
from pianolstm._decoding.stepping import Carry
from pianolstm._model.networks import NetworkConfig

BLOCK = 64
"""Frames that one call writes at the most; Ctrl-C and deadlines act between two."""

N_BEGUN = 64
"""Chords last begun that a lane remembers, for the repetition penalty."""


class Vocabulary(NamedTuple):
    """What chords are.

    Attributes
    ----------
    bits : Array of uint32, shape (8, n_rows)
        Zero beyond the chords. (A word of all rows side by side: these are compared by vectors.)
    held : Array of int32, shape (n_rows,)
        The row that holds each chord on: the same pitches, none struck again. `HOLD` where that is
        outside the vocabulary, or -1 where such chords are not written.
    """

    bits: Any
    held: Any


class SamplingParameters(NamedTuple):
    """How each lane draws; arrays of shape (lanes,), if not said otherwise.

    Attributes
    ----------
    key : uint32, shape (lanes, 2)
    temperature : float32
        0 takes the most likely chord.
    top_k : int32
        Most likely chords that may be drawn.
    top_p : float32
        Share of the probability whose most likely chords may be drawn.
    penalty : float32
        Taken from the logit of a chord for each time it was begun of late.
    recent : int32
        Frames that are "of late".
    max_hold, max_silence : int32
        Frames that a chord, and a rest, may last.
    usual_hold : int32
        Frames after which a chord is held no longer if any other is allowed.
    may_end : bool
        Whether a piece may end, and another begin.
    n_allowed : float32
        How many chords may be drawn.
    is_proposed : bool
        Whether what is spelled is taken as it comes, for likelihoods that account for it.
    allowed : bool, shape (lanes, n_rows)
        Which chords may be drawn.
    pitches : uint32, shape (lanes, 4)
        Pitches that may sound in a chord that is spelled, or held on outside the vocabulary.
    max_notes, span, hand : int32
        How many notes it may have, how many semitones a hand may span, and of how many notes.
    may_rest : bool
        Whether it may have none.
    is_restricted : bool
        Whether there are chords that may not be drawn, in any frame.
    """

    key: Any
    temperature: Any
    top_k: Any
    top_p: Any
    penalty: Any
    recent: Any
    max_hold: Any
    max_silence: Any
    usual_hold: Any
    may_end: Any
    n_allowed: Any
    is_proposed: Any
    allowed: Any
    pitches: Any
    max_notes: Any
    span: Any
    hand: Any
    may_rest: Any
    is_restricted: Any


class ForcedFrames(NamedTuple):
    """What is known of the frames of a block.

    Attributes
    ----------
    is_forced : Array of bool, shape (BLOCK, lanes)
        Frames that are not drawn.
    ids : Array of int32, shape (BLOCK, lanes)
        Their tokens, from n_rows up outside the vocabulary.
    bits : Array of uint32, shape (BLOCK, lanes, 8)
        Their chords.
    held : Array of int32, shape (BLOCK, lanes)
        The tokens that hold them on, -1 for none.
    required, forbidden : Array of uint32, shape (BLOCK, lanes, 8)
        Pitches that a drawn chord must have and must not have. A pitch that must be struck again is
        struck anew where it did not sound before.
    """

    is_forced: Any
    ids: Any
    bits: Any
    held: Any
    required: Any
    forbidden: Any


class State(NamedTuple):
    """Where each lane is.

    Attributes
    ----------
    carry, features, holds
        Of the network, see `pianolstm._decoding.stepping.step`.
    position : Array of int32, shape (lanes,)
        The next frame; frames of the prime are below 0.
    past : Array of uint32, shape (lanes, 8)
        The last chord.
    hold : Array of int32, shape (lanes,)
        The row that holds it on, -1 for none.
    age, lasted : Array of int32, shape (lanes,)
        Frames for which it has been held, and since the network stepped; a piece that begins with
        the chord that another ended with holds it on.
    begun, begun_at : Array of int32, shape (lanes, N_BEGUN)
        Chords last begun, see `chord_number`, and when.
    memory : Memory
        What was heard; None where nothing is recalled.
    recalled : Recalled
        What is recalled for the next chord; None likewise.
    """

    carry: Any
    features: Any
    holds: Any
    position: Any
    past: Any
    hold: Any
    age: Any
    lasted: Any
    begun: Any
    begun_at: Any
    memory: Any
    recalled: Any


class Context(NamedTuple):
    """All that a frame is drawn from.

    Attributes
    ----------
    weights : dict
        The network, see `pianolstm._decoding.stepping.step_weights`.
    vocabulary : Vocabulary
    sampling : SamplingParameters
    forced : ForcedFrames
        Of this frame, without the axis of the block. Where it is given, nothing is drawn.
    state : State
    """

    weights: Any
    vocabulary: Any
    sampling: Any
    forced: Any
    state: Any


class Written(NamedTuple):
    """What a block has come to, arrays of shape (BLOCK, lanes).

    Attributes
    ----------
    tokens : int32
        Rows of the chords, n_rows outside the vocabulary; -1 where no chord was allowed.
    bits : uint32, shape (BLOCK, lanes, 8)
        The chords.
    log_p : float32
        Nats of the token, as the network has it: temperature 1, nothing forbidden.
    log_allowed : float32
        Nats of all that was allowed, at the lane's temperature; of a given chord, its own.
    """

    tokens: Any
    bits: Any
    log_p: Any
    log_allowed: Any


class Sample(NamedTuple):
    """What `sample` has come to; arrays of shape (lanes,).

    Attributes
    ----------
    ids : int32
        Rows, n_rows outside the vocabulary; -1 where no chord was allowed.
    bits : uint32, shape (lanes, 8)
        The chords.
    hold : int32
        The rows that hold them on, -1 for none.
    has_ended : bool
        Whether the piece before ended.
    log_p, log_allowed : float32
        As in `Written`.
    """

    ids: Any
    bits: Any
    hold: Any
    has_ended: Any
    log_p: Any
    log_allowed: Any


def initial_state(config: NetworkConfig, carry: Carry, features: Any, holds: Any) -> State:
    """The beginning of a piece, in one lane."""
    zero, none = np.zeros(1, np.int32), np.full(1, -1, np.int32)
    begun = np.full((1, N_BEGUN), -1, np.int32)
    past = np.zeros((1, 8), np.uint32)
    memory = empty_memory() if config.recall else None
    recalled = nothing_recalled() if config.recall else None
    counts = zero, past, none, zero, zero, begun, begun
    return State(carry, features, holds, *counts, memory, recalled)


def repeat_lanes(lane: Any, n_lanes: int) -> Any:
    """A state of one lane, or a part of it, in many."""
    return jax.tree.map(lambda a: jax.device_put(np.repeat(np.asarray(a), n_lanes, axis=0)), lane)
