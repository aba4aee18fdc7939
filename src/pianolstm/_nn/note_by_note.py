"""Chords drawn note by note, in lanes; see `pianolstm._nn.spelling` for their probabilities.

Conventions
-----------
As in `pianolstm._nn.sampling`: features have the lanes last, what is compared with pitches first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._nn.networks import unpack_words
from pianolstm._nn.stepping import LANES, Laid
from pianolstm.rolls import N_PITCHES

LARGE = 3e38
"""Nearly the largest float32."""

Uniform = Callable[[Array], Array]
"""Numbers in [0, 1) for each lane, of the how-manieth draw."""


class Asked(NamedTuple):
    """What a chord has to keep; planes (lanes, 128) of bool, others (lanes,).

    Attributes
    ----------
    allowed : Array
        Pitches that may sound.
    required, struck, unstruck : Array
        Pitches that must sound; that must be struck again where they sounded before, and must not.
    max_notes, span, hand : Array of int32
        Notes at most; semitones and notes of a hand at most.
    may_rest : Array of bool
        Whether nothing may sound.
    """

    allowed: Array
    required: Array
    struck: Array
    unstruck: Array
    max_notes: Array
    span: Array
    hand: Array
    may_rest: Array


def asked_of(rules: Any, given: Any) -> Asked:
    """What the rules of each lane, and its frame, ask of a chord."""
    required, forbidden = unpack_words(given.required) > 0, unpack_words(given.forbidden) > 0
    return Asked(
        (unpack_words(rules.pitches) > 0) & ~forbidden[:, :N_PITCHES],
        required[:, :N_PITCHES],
        required[:, N_PITCHES:],
        forbidden[:, N_PITCHES:],
        rules.max_notes,
        rules.span,
        rules.hand,
        rules.may_rest,
    )


def keeps(asked: Asked, planes: Array, before: Array) -> Array:
    """Whether chords keep what is asked: bool, (lanes,).

    Parameters
    ----------
    asked : Asked
    planes : Array of bool, shape (lanes, 256)
    before : Array of bool, shape (lanes, 128)
        What sounded in the frame before.
    """
    sounding, struck = planes[:, :N_PITCHES], planes[:, N_PITCHES:]
    pitch = jnp.arange(N_PITCHES)
    wrong = (sounding & ~asked.allowed) | (asked.required & ~sounding)
    wrong |= (asked.struck & before & ~struck) | (asked.unstruck & struck)
    # The left hand takes from below all that it can; the right hand has to take the others.
    n_below = jnp.cumsum(sounding, axis=1)
    left = sounding & (pitch <= (jnp.argmax(sounding, axis=1) + asked.span)[:, None])
    right = sounding & ~(left & (n_below <= asked.hand[:, None]))
    highest = N_PITCHES - 1 - jnp.argmax(right[:, ::-1], axis=1)
    is_wide = (highest - jnp.argmax(right, axis=1) > asked.span) & jnp.any(right, axis=1)
    fits = (n_below[:, -1] <= asked.max_notes) & (asked.may_rest | (n_below[:, -1] > 0))
    return fits & ~is_wide & (jnp.sum(right, axis=1) <= asked.hand) & ~jnp.any(wrong, axis=1)


class Spelling(NamedTuple):
    """Chords note by note; arrays of shape (lanes,) if not said otherwise.

    Attributes
    ----------
    n : Array of int32, shape ()
        Notes so far, of the lane that has most.
    is_open, is_stuck : Array of bool
        Whether there is more to come; whether none was allowed to.
    planes : Array of bool, shape (lanes, 256)
        The notes.
    last : Array of int32
        The last pitch, -1 for none.
    hidden : Array, shape (units, lanes)
        What predicts the next one, before the ReLU.
    log_p : Array
        Nats as the network has it: temperature 1, all allowed.
    log_allowed : Array
        Nats of all that was allowed, note by note, at the lane's temperature.
    """

    n: Array
    is_open: Array
    is_stuck: Array
    planes: Array
    last: Array
    hidden: Array
    log_p: Array
    log_allowed: Array


def spell_out(
    laid: Laid,
    features: Array,
    before: Array,
    asked: Asked,
    rules: Any,
    is_open: Array,
    given: tuple[Array, Array],
    u: Uniform,
) -> Spelling:
    """Draw a chord in each open lane, of notes that keep what is asked; or weigh a given one.

    Parameters
    ----------
    laid : dict
        See `pianolstm._nn.stepping.lay_out`.
    features : Array, shape (embedding, lanes)
    before : Array of bool, shape (lanes, 128)
        What sounded in the frame before.
    asked : Asked
    rules : Rules
        Temperature, top_k and top_p hold for each note.
    is_open : Array of bool, shape (lanes,)
    given : tuple of Array of bool, shapes (lanes,) and (lanes, 256)
        Where a chord is given, and which.
    u : callable
        Gives numbers in [0, 1) for the draws with the numbers 0, 1, ….

    Returns
    -------
    Spelling
    """
    is_given, planes = given
    kernel, bias = laid["speller"]["read"]
    start = Spelling(
        jnp.int32(0),
        is_open,
        jnp.zeros(LANES, bool),
        jnp.zeros((LANES, 2 * N_PITCHES), bool),
        jnp.full(LANES, -1),
        kernel @ features + bias + laid["speller"]["before"] @ before.T.astype(jnp.float32),
        jnp.zeros(LANES),
        jnp.zeros(LANES),
    )
    symbols = jnp.arange(N_PITCHES + 1)
    sharpness = jnp.minimum(1 / rules.temperature, LARGE)[:, None]
    tempered = 1 / jnp.maximum(rules.temperature, 1e-6)

    def note(so_far: Spelling) -> Spelling:
        hidden = jax.nn.relu(so_far.hidden)
        kernel, bias = laid["speller"]["write"]
        above = symbols > so_far.last[:, None]
        logits = jnp.where(above, (kernel @ hidden + bias).T, -jnp.inf)
        ok = above & _allowed(asked, so_far)
        # Drawn by the inverse of the running sum.
        highest = jnp.max(jnp.where(ok, logits, -jnp.inf), axis=1, keepdims=True)
        p = jnp.where(ok, jnp.exp((logits - highest) * sharpness), 0)
        likelier = p[:, None] > p[:, :, None]
        share = jnp.sum(likelier * p[:, None], axis=2)
        kept = jnp.sum(likelier, axis=2) < rules.top_k[:, None]
        kept &= share < (rules.top_p * jnp.sum(p, axis=1))[:, None]
        sums = jnp.cumsum(jnp.where(kept, p, 0), axis=1)
        drawn = jnp.sum(sums <= u(2 * so_far.n)[:, None] * sums[:, -1:], axis=1)
        drawn = jnp.minimum(drawn, jnp.argmax(sums, axis=1))  # rounding may leave it beyond
        next_given = jnp.pad(planes[:, :N_PITCHES], ((0, 0), (0, 1)), constant_values=True)
        symbol = jnp.where(is_given, jnp.argmax(next_given & above, axis=1), drawn)
        is_stuck = ~is_given & ~jnp.any(ok, axis=1)
        log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), symbol[:, None], 1)[:, 0]
        scaled = logits * tempered[:, None]
        log_allowed = jax.nn.logsumexp(scaled, axis=1, where=ok) - jax.nn.logsumexp(scaled, axis=1)
        # Whether it is struck again, where it sounded.
        at = jnp.minimum(symbol, N_PITCHES - 1)[:, None]
        kernel, bias = laid["speller"]["again"]
        again = jnp.take_along_axis((kernel @ hidden + bias).T, at, 1)[:, 0]
        p_again = jax.nn.sigmoid(again * sharpness[:, 0])
        is_cut = (rules.top_k == 1) | (jnp.maximum(p_again, 1 - p_again) >= rules.top_p)
        is_struck = u(2 * so_far.n + 1) < jnp.where(is_cut, jnp.round(p_again), p_again)
        must, must_not = (jnp.take_along_axis(a, at, 1)[:, 0] for a in asked[2:4])
        is_struck = (is_struck | must) & ~must_not
        is_struck = jnp.where(
            is_given, jnp.take_along_axis(planes[:, N_PITCHES:], at, 1)[:, 0], is_struck
        )
        is_note = (symbol < N_PITCHES) & ~is_stuck
        can = jnp.take_along_axis(before, at, 1)[:, 0] & is_note
        is_struck &= can | is_given
        signed = jnp.where(is_struck, again, -again)
        log_p += jnp.where(can, jax.nn.log_sigmoid(signed), 0)
        is_asked = can & (must | must_not)
        log_allowed += jnp.where(is_asked, jax.nn.log_sigmoid(signed * tempered), 0)
        goes_on = so_far.is_open & is_note
        new = jnp.arange(2 * N_PITCHES)
        new = (new == at) | ((new == at + N_PITCHES) & is_struck[:, None])
        vector = laid["speller"]["spelled"][at[:, 0] + N_PITCHES * is_struck].T
        return Spelling(
            so_far.n + 1,
            goes_on,
            so_far.is_stuck | (so_far.is_open & is_stuck),
            so_far.planes | (new & goes_on[:, None]),
            jnp.where(goes_on, at[:, 0], so_far.last),
            so_far.hidden + jnp.where(goes_on, vector, 0),
            so_far.log_p + jnp.where(so_far.is_open, log_p, 0),
            so_far.log_allowed + jnp.where(so_far.is_open, log_allowed, 0),
        )

    return lax.while_loop(lambda spelling: jnp.any(spelling.is_open), note, start)


def _allowed(asked: Asked, so_far: Spelling) -> Array:
    """Pitches that may come next, and the end: bool, (lanes, 129)."""
    symbols = jnp.arange(N_PITCHES + 1)
    to_come = asked.required & (symbols[:-1] > so_far.last[:, None])
    lowest = jnp.where(jnp.any(to_come, axis=1), jnp.argmax(to_come, axis=1), N_PITCHES)
    n = jnp.sum(so_far.planes[:, :N_PITCHES], axis=1)
    may_end = (n > 0) | asked.may_rest
    pitches = asked.allowed & (n < asked.max_notes)[:, None]
    ok = jnp.concatenate([pitches, may_end[:, None]], axis=1)
    return ok & (symbols <= lowest[:, None])


def packed(planes: Array) -> Array:
    """Planes (lanes, 256) as words: uint32, (lanes, 8)."""
    bits = planes.reshape(LANES, 8, 32).astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)
    return jnp.sum(bits, axis=2, dtype=jnp.uint32)
