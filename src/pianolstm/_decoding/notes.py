"""Chords drawn note by note, in lanes; see `pianolstm._model.note_decoder` for their probabilities.

Conventions
-----------
Lanes first, as in `pianolstm._decoding.state`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._decoding.random_numbers import row_at
from pianolstm._decoding.state import ForcedFrames, SamplingParameters
from pianolstm._decoding.stepping import StepWeights
from pianolstm._model.lstm import affine
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


def sharpness_of(sampling: SamplingParameters) -> Array:
    """What logits are multiplied by, (lanes, 1); at temperature 0 all but the highest go under."""
    return jnp.minimum(1 / sampling.temperature, STEEP)[:, None]


def requirements_of(sampling: SamplingParameters, forced: ForcedFrames) -> Requirements:
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
    """Chords note by note."""

    n: Array  # int32 (): notes so far, of the lanes that are open
    is_open: Array  # bool (lanes,): whether there is more to come
    is_stuck: Array  # bool (lanes,): whether none was allowed to
    planes: Array  # bool (lanes, 256): the notes
    last: Array  # int32 (lanes,): the last pitch, -1 for none
    hidden: Array  # (lanes, units): what predicts the next one, before the ReLU
    nats: Array
    """(2, lanes): log-likelihood as the network has it, temperature 1, all allowed; and of all that
    was allowed, note by note, at the lane's temperature."""


class _Given(NamedTuple):
    """What all notes of a chord have in common."""

    weights: StepWeights
    before: Array  # bool (lanes, 128): what sounded in the frame before
    requirements: Requirements
    sampling: SamplingParameters
    is_forced: Array  # bool (lanes,): where the chord is given
    is_next: Array  # bool (lanes, 129): its pitches and its end
    facts: Array  # int32 (lanes, 129): of a pitch, in one number, so that one look finds all
    barred: Array | None  # bool (lanes,): where what sounded, held on, is no chord that may come


def sample_notes(
    weights: StepWeights,
    features: Array,  # (lanes, embedding)
    before: Array,  # bool (lanes, 128): what sounded in the frame before
    requirements: Requirements,
    sampling: SamplingParameters,
    is_open: Array,  # bool (lanes,)
    forced: tuple[Array, Array],  # bool (lanes,), bool (lanes, 256): where a chord is given, which
    u: Uniform,
    barred: Array | None = None,  # bool (lanes,)
) -> Spelling:
    """Draw a chord in each open lane, of notes that keep what is asked; or weigh a given one.

    Temperature, top_k and top_p hold for each note. Of `u` numbers from 0 to 129 · `N_NUMBERS` are
    asked for. Where it is `barred`, what sounded before, held on, is no chord that may come.
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
        affine((kernel, bias), features)
        + before.astype(jnp.float32) @ weights["speller"]["before"],
        jnp.zeros((2, n_lanes)),
    )
    is_next = _with_end(planes[:, :N_PITCHES], True)
    asked = planes[:, N_PITCHES:], before, requirements.struck, requirements.unstruck
    facts = reduce(jnp.add, (a.astype(jnp.int32) << i for i, a in enumerate(asked)))
    facts = _with_end(facts, 0)
    given = _Given(weights, before, requirements, sampling, is_forced, is_next, facts, barred)
    return lax.while_loop(
        lambda so_far: jnp.any(so_far.is_open), lambda so_far: _note(given, u, so_far), start
    )


def _note(given: _Given, u: Uniform, so_far: Spelling) -> Spelling:
    """One note more, or the end, in each lane that is open."""
    kernel, bias = given.weights["speller"]["write"]
    written = affine((kernel, bias), jax.nn.relu(so_far.hidden))
    may_come = _may_come(given, so_far)
    u_note, u_again = u(so_far.n * N_NUMBERS + jnp.arange(N_NUMBERS)).T
    drawn = _draw(given, written[:, : N_PITCHES + 1], may_come, u_note)
    symbols = jnp.arange(N_PITCHES + 1)
    forced = jnp.min(jnp.where(given.is_next & may_come.above, symbols[None], N_PITCHES), axis=1)
    symbol = jnp.where(given.is_forced, forced, drawn.symbol)
    log_p = row_at(written, symbol) - drawn.top - drawn.log_sum
    is_stuck = ~given.is_forced & drawn.is_stuck
    is_note = (symbol < N_PITCHES) & ~is_stuck
    again = row_at(written, symbol + N_PITCHES + 1)
    is_all = may_come.is_all & (symbol == N_PITCHES - 1)
    is_struck, log_again, log_asked = _strike(given, again, symbol, is_note, is_all, u_again)
    goes_on = so_far.is_open & is_note
    new = (symbols[None, :-1] == symbol[:, None]) & goes_on[:, None]
    number = symbol % N_PITCHES + jnp.where(is_struck, N_PITCHES, 0)
    vector = given.weights["speller"]["spelled"][number]
    nats = jnp.stack([log_p + log_again, drawn.log_allowed + log_asked])
    return Spelling(
        so_far.n + 1,
        goes_on,
        so_far.is_stuck | (so_far.is_open & is_stuck),
        so_far.planes | jnp.concatenate([new, new & is_struck[:, None]], axis=1),
        jnp.where(goes_on, symbol, so_far.last),
        so_far.hidden + jnp.where(goes_on[:, None], vector, 0),
        so_far.nats + jnp.where(so_far.is_open, nats, 0),
    )


class _MayCome(NamedTuple):
    """What may come next."""

    above: Array  # bool (lanes, 129): pitches above the last one, and the end
    ok: Array  # bool (lanes, 129): those that are allowed
    is_all: Array  # bool (lanes,): with the highest pitch there would be all that sounded before


def _may_come(given: _Given, so_far: Spelling) -> _MayCome:
    symbols = jnp.arange(N_PITCHES + 1)[None]
    above = symbols > so_far.last[:, None]
    is_all = jnp.zeros(len(so_far.last), bool)
    if given.barred is not None:
        same = so_far.planes == jnp.pad(given.before, ((0, 0), (0, N_PITCHES)))
        is_held = given.barred & jnp.all(same, axis=1)
        above &= ~((symbols == N_PITCHES) & is_held[:, None])
        # After the highest pitch that there is nothing could follow.
        is_highest = jnp.arange(2 * N_PITCHES)[None] == N_PITCHES - 1
        is_all = given.barred & jnp.all(same | is_highest, axis=1)
    return _MayCome(above, above & _allowed(given.requirements, so_far), is_all)


class _DrawnNote(NamedTuple):
    """A pitch, or the end."""

    symbol: Array  # int32 (lanes,)
    top: Array  # (lanes,): the highest logit
    log_sum: Array  # (lanes,): log sum exp of all above it
    log_allowed: Array  # (lanes,): nats of all that is allowed, at the lane's temperature
    is_stuck: Array  # bool (lanes,): whether that is nothing


def _draw(
    given: _Given,
    logits: Array,  # (lanes, 129)
    may_come: _MayCome,
    u: Array,  # (lanes,)
) -> _DrawnNote:
    """A symbol by the inverse of the running sum, as far as top-k and top-p keep it."""
    above, ok, _ = may_come
    sampling, n_lanes = given.sampling, len(u)
    sharpness = sharpness_of(sampling)
    is_cut = (sampling.top_k <= N_PITCHES) | (sampling.top_p < 1)
    top, top_ok = (jnp.max(jnp.where(now, logits, -jnp.inf), axis=1) for now in (above, ok))
    past, left = logits - top[:, None], (logits - top_ok[:, None]) * sharpness
    parts = (above, past), (above, past * sharpness), (ok, left)
    past = jnp.concatenate([jnp.where(now, x, -jnp.inf) for now, x in parts])
    odds = jnp.exp(lax.optimization_barrier(past))  # or each use makes code of its own
    p = odds[2 * n_lanes :]

    def cut() -> Array:
        likelier = p[:, None] > p[:, :, None]
        share = jnp.sum(jnp.where(likelier, p[:, None], 0), axis=2)
        n = jnp.sum(likelier, axis=2)
        total = jnp.sum(p, axis=1)
        is_kept = (n < sampling.top_k[:, None]) & (share < (sampling.top_p * total)[:, None])
        return jnp.where(is_kept | (n == 0) | ~is_cut[:, None], p, 0)

    kept = lax.cond(jnp.any(is_cut), cut, lambda: p)
    # All running sums by one product; what is added of weight 0 changes none.
    speller, exact = given.weights["speller"], lax.Precision.HIGHEST
    sums = jnp.matmul(jnp.concatenate([odds, kept]), speller["sums"], precision=exact)
    *sums, running = sums[:, : N_PITCHES + 1].reshape(4, n_lanes, -1)
    plain, sharp, total = jnp.log(jnp.stack([x[:, -1] for x in sums]))
    drawn = jnp.sum(running <= (u * running[:, -1])[:, None], axis=1)
    # Rounding may leave the target at the last sum.
    symbols = jnp.arange(N_PITCHES + 1)
    drawn = jnp.minimum(drawn, jnp.max(jnp.where(kept > 0, symbols[None], 0), axis=1))
    log_allowed = total - sharp + (top_ok - top) * sharpness[:, 0]
    return _DrawnNote(drawn, top, plain, log_allowed, top_ok == -jnp.inf)


def _strike(
    given: _Given,
    again: Array,  # (lanes,): logit of striking again
    symbol: Array,  # int32 (lanes,)
    is_note: Array,  # bool (lanes,)
    is_all: Array,  # bool (lanes,): unless it is struck, the chord would be that before, held on
    u: Array,  # (lanes,)
) -> tuple[Array, Array, Array]:  # bool (lanes,), (lanes,), (lanes,)
    """Whether a note that sounded is struck again; nats of that, and of what is asked of it."""
    sampling, sharpness = given.sampling, sharpness_of(given.sampling)[:, 0]
    fact = row_at(given.facts, symbol)
    is_forced_strike, sounded, must, must_not = ((fact >> i) & 1 > 0 for i in range(4))
    p_again = jax.nn.sigmoid(again * sharpness)
    is_sure = (sampling.top_k == 1) | (jnp.maximum(p_again, 1 - p_again) >= sampling.top_p)
    is_struck = u < jnp.where(is_sure, jnp.round(p_again), p_again)
    is_struck = ((is_struck | must | is_all) & ~must_not & sounded & ~given.is_forced) | (
        is_forced_strike & given.is_forced
    )
    can = sounded & is_note & ~is_all
    signed = jnp.where(is_struck, again, -again)
    log_again = jnp.where(can, jax.nn.log_sigmoid(signed), 0)
    is_asked = can & (must | must_not)
    return is_struck, log_again, jnp.where(is_asked, jax.nn.log_sigmoid(signed * sharpness), 0)


def _allowed(requirements: Requirements, so_far: Spelling) -> Array:
    """Pitches that may come next, and the end: bool, (lanes, 129)."""
    symbols = jnp.arange(N_PITCHES + 1)[None]
    to_come = requirements.required & (symbols[:, :-1] > so_far.last[:, None])
    lowest = jnp.min(jnp.where(to_come, symbols[:, :-1], N_PITCHES), axis=1)
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
    shifts = jnp.arange(32, dtype=jnp.uint32)[None, None]
    bits = planes.reshape(-1, 8, 32).astype(jnp.uint32) << shifts
    return jnp.sum(bits, axis=2, dtype=jnp.uint32)
