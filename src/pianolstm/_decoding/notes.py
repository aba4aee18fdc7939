"""Chords drawn note by note, in lanes; see `pianolstm._model.note_decoder` for their probabilities.

Conventions
-----------
Lanes first, as in `pianolstm._decoding.state`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._decoding.random_numbers import row_at
from pianolstm._decoding.stepping import StepWeights
from pianolstm._model.networks import unpack_words
from pianolstm.constraints import Requirements
from pianolstm.rolls import N_PITCHES

LARGE = 3e38
"""Nearly the largest float32."""

STEEP = 1e9
"""The inverse of temperature 0; logits times this are finite still, `NEVER` too."""

N_NUMBERS = 2
"""Random numbers that a note is drawn with: of the pitch or the end, and of striking again."""

Uniform = Callable[[Array], Array]
"""Numbers in [0, 1), (lanes, k), of the draws with k numbers."""


def sharpness_of(sampling: Any) -> Array:
    """What logits are multiplied by, (lanes, 1); at temperature 0 all but the highest go under."""
    return jnp.minimum(1 / sampling.temperature, STEEP)[:, None]


def requirements_of(sampling: Any, forced: Any) -> Requirements:
    """What the rules of each lane, and its frame, ask of a chord."""
    required, forbidden = unpack_words(forced.required) > 0, unpack_words(forced.forbidden) > 0
    return Requirements(
        (unpack_words(sampling.pitches) > 0) & ~forbidden[:, :N_PITCHES],
        required[:, :N_PITCHES],
        required[:, N_PITCHES:],
        forbidden[:, N_PITCHES:],
        sampling.max_notes,
        sampling.span,
        sampling.hand,
        sampling.may_rest,
    )


class Spelling(NamedTuple):
    """Chords note by note; arrays of shape (lanes,) if not said otherwise.

    Attributes
    ----------
    n : Array of int32, shape ()
        Notes so far, of the lanes that are open.
    is_open, is_stuck : Array of bool
        Whether there is more to come; whether none was allowed to.
    planes : Array of bool, shape (lanes, 256)
        The notes.
    last : Array of int32
        The last pitch, -1 for none.
    hidden : Array, shape (lanes, units)
        What predicts the next one, before the ReLU.
    nats : Array, shape (2, lanes)
        Log-likelihood as the network has it, temperature 1, all allowed; and of all that was
        allowed, note by note, at the lane's temperature.
    """

    n: Array
    is_open: Array
    is_stuck: Array
    planes: Array
    last: Array
    hidden: Array
    nats: Array


def sample_notes(
    weights: StepWeights,
    features: Array,
    before: Array,
    requirements: Requirements,
    sampling: Any,
    is_open: Array,
    forced: tuple[Array, Array],
    u: Uniform,
    barred: Array | None = None,
) -> Spelling:
    """Draw a chord in each open lane, of notes that keep what is asked; or weigh a given one.

    Parameters
    ----------
    weights : dict
        See `pianolstm._decoding.stepping.step_weights`.
    features : Array, shape (lanes, embedding)
    before : Array of bool, shape (lanes, 128)
        What sounded in the frame before.
    requirements : Requirements
    sampling : SamplingParameters
        Temperature, top_k and top_p hold for each note.
    is_open : Array of bool, shape (lanes,)
    forced : tuple of Array of bool, shapes (lanes,) and (lanes, 256)
        Where a chord is given, and which.
    u : callable
        Gives numbers in [0, 1); those from 0 to 129 · `N_NUMBERS` are asked for.
    barred : Array of bool, shape (lanes,), default=None
        Where what sounded before, held on, is no chord that may come.

    Returns
    -------
    Spelling
    """
    is_forced, planes = forced
    n_lanes = len(is_open)
    kernel, bias = weights["speller"]["read"]
    start = Spelling(
        jnp.int32(0),
        is_open,
        jnp.zeros(n_lanes, bool),
        jnp.zeros((n_lanes, 2 * N_PITCHES), bool),
        jnp.full(n_lanes, -1),
        features @ kernel + bias + before.astype(jnp.float32) @ weights["speller"]["before"],
        jnp.zeros((2, n_lanes)),
    )
    symbols = jnp.arange(N_PITCHES + 1)
    sharpness = sharpness_of(sampling)
    is_cut = (sampling.top_k <= N_PITCHES) | (sampling.top_p < 1)
    is_next = _with_end(planes[:, :N_PITCHES], True)
    # What is known of a pitch, in one number, so that one look finds it all.
    facts = planes[:, N_PITCHES:] + 2 * before + 4 * requirements.struck + 8 * requirements.unstruck
    facts = _with_end(facts.astype(jnp.int32), 0)

    def note(so_far: Spelling) -> Spelling:
        kernel, bias = weights["speller"]["write"]
        written = jax.nn.relu(so_far.hidden) @ kernel + bias
        logits = written[:, : N_PITCHES + 1]
        above = symbols > so_far.last[:, None]
        is_all = jnp.zeros(n_lanes, bool)
        if barred is not None:
            same = so_far.planes == jnp.pad(before, ((0, 0), (0, N_PITCHES)))
            is_held = barred & jnp.all(same, axis=1)
            above &= ~((symbols == N_PITCHES) & is_held[:, None])
            # After the highest pitch that there is nothing could follow.
            is_highest = jnp.arange(2 * N_PITCHES) == N_PITCHES - 1
            is_all = barred & jnp.all(same | is_highest, axis=1)
        ok = above & _allowed(requirements, so_far)
        top, top_ok = (jnp.max(jnp.where(now, logits, -jnp.inf), axis=1) for now in (above, ok))
        past, left = logits - top[:, None], (logits - top_ok[:, None]) * sharpness
        parts = (above, past), (above, past * sharpness), (ok, left)
        past = jnp.concatenate([jnp.where(now, x, -jnp.inf) for now, x in parts])
        odds = jnp.exp(lax.optimization_barrier(past))  # or each use makes code of its own
        p = odds[2 * n_lanes :]

        def cut() -> Array:
            likelier = p[:, None] > p[:, :, None]
            share = jnp.sum(likelier * p[:, None], axis=2)
            n = jnp.sum(likelier, axis=2)
            total = jnp.sum(p, axis=1)
            is_kept = (n < sampling.top_k[:, None]) & (share < (sampling.top_p * total)[:, None])
            return jnp.where(is_kept | (n == 0) | ~is_cut[:, None], p, 0)

        kept = lax.cond(jnp.any(is_cut), cut, lambda: p)
        # All running sums by one product; what is added of weight 0 changes none.
        exact = lax.Precision.HIGHEST
        sums = jnp.matmul(
            jnp.concatenate([odds, kept]), weights["speller"]["sums"], precision=exact
        )
        *sums, running = sums[:, : N_PITCHES + 1].reshape(4, n_lanes, -1)
        plain, sharp, total = jnp.log(jnp.stack([x[:, -1] for x in sums]))
        u_note, u_again = u(so_far.n * N_NUMBERS + jnp.arange(N_NUMBERS)).T
        drawn = jnp.sum(running <= (u_note * running[:, -1])[:, None], axis=1)
        # Rounding may leave the target at the last sum.
        drawn = jnp.minimum(drawn, jnp.max(jnp.where(kept > 0, symbols, 0), axis=1))
        forced_symbol = jnp.min(jnp.where(is_next & above, symbols, N_PITCHES), axis=1)
        symbol = jnp.where(is_forced, forced_symbol, drawn)
        again, fact = row_at(written, symbol + N_PITCHES + 1), row_at(facts, symbol)
        log_p = row_at(written, symbol) - top - plain
        log_allowed = total - sharp + (top_ok - top) * sharpness[:, 0]
        # Whether it is struck again, where it sounded.
        is_forced_strike, sounded, must, must_not = ((fact >> i) & 1 > 0 for i in range(4))
        p_again = jax.nn.sigmoid(again * sharpness[:, 0])
        is_sure = (sampling.top_k == 1) | (jnp.maximum(p_again, 1 - p_again) >= sampling.top_p)
        is_struck = u_again < jnp.where(is_sure, jnp.round(p_again), p_again)
        is_all &= symbol == N_PITCHES - 1
        is_struck = ((is_struck | must | is_all) & ~must_not & sounded & ~is_forced) | (
            is_forced_strike & is_forced
        )
        is_stuck = ~is_forced & (top_ok == -jnp.inf)
        is_note = (symbol < N_PITCHES) & ~is_stuck
        can = sounded & is_note & ~is_all
        signed = jnp.where(is_struck, again, -again)
        log_p += jnp.where(can, jax.nn.log_sigmoid(signed), 0)
        is_asked = can & (must | must_not)
        log_allowed += jnp.where(is_asked, jax.nn.log_sigmoid(signed * sharpness[:, 0]), 0)
        goes_on = so_far.is_open & is_note
        new = (symbols[:-1] == symbol[:, None]) & goes_on[:, None]
        vector = weights["speller"]["spelled"][symbol % N_PITCHES + N_PITCHES * is_struck]
        return Spelling(
            so_far.n + 1,
            goes_on,
            so_far.is_stuck | (so_far.is_open & is_stuck),
            so_far.planes | jnp.concatenate([new, new & is_struck[:, None]], axis=1),
            jnp.where(goes_on, symbol, so_far.last),
            so_far.hidden + jnp.where(goes_on[:, None], vector, 0),
            so_far.nats + jnp.where(so_far.is_open, jnp.stack([log_p, log_allowed]), 0),
        )

    return lax.while_loop(lambda spelling: jnp.any(spelling.is_open), note, start)


def _allowed(requirements: Requirements, so_far: Spelling) -> Array:
    """Pitches that may come next, and the end: bool, (lanes, 129)."""
    symbols = jnp.arange(N_PITCHES + 1)
    to_come = requirements.required & (symbols[:-1] > so_far.last[:, None])
    lowest = jnp.min(jnp.where(to_come, symbols[:-1], N_PITCHES), axis=1)
    # Others leave room for those that must come.
    room = requirements.max_notes - so_far.n - jnp.sum(to_come, axis=1)
    pitches = requirements.allowed & (requirements.required | (room > 0)[:, None])
    may_end = (so_far.n > 0) | requirements.may_rest
    ok = _with_end(pitches, False) | ((symbols == N_PITCHES) & may_end[:, None])
    return ok & (symbols <= lowest[:, None])


def _with_end(planes: Array, value: float) -> Array:
    """Planes (lanes, 128) and a column for the end."""
    return jnp.pad(planes, ((0, 0), (0, 1)), constant_values=value)


def packed(planes: Array) -> Array:
    """Planes (lanes, 256) as words: uint32, (lanes, 8)."""
    bits = planes.reshape(-1, 8, 32).astype(jnp.uint32) << jnp.arange(32, dtype=jnp.uint32)
    return jnp.sum(bits, axis=2, dtype=jnp.uint32)
