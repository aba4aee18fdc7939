"""Chords drawn note by note, in lanes; see `pianolstm._model.note_decoder` for their probabilities.

Conventions
-----------
Lanes first, as in `pianolstm._decoding.state`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._decoding.history import Barred, is_barred
from pianolstm._decoding.random_numbers import row_at
from pianolstm._decoding.state import ForcedFrames, SamplingParameters
from pianolstm._decoding.stepping import StepWeights
from pianolstm._model.lstm import affine
from pianolstm._model.note_decoder import (
    END,
    STAY,
    First,
    Read,
    before_notes,
    first_change,
    first_of,
    note_logits,
)
from pianolstm._model.pitch_lstm import Range
from pianolstm._model.planes import unpack_words
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

    n: Array  # int32 (): draws so far
    is_open: Array  # bool (lanes,): whether there is more to come
    is_stuck: Array  # bool (lanes,): whether none was allowed to
    planes: Array  # bool (lanes, 256): the notes
    last: Array  # int32 (lanes,): the last pitch that was drawn
    hidden: Array  # (lanes, n_pitches, hidden): what predicts each pitch, before the ReLU
    nats: Array
    """(2, lanes): log-likelihood as the network has it, temperature 1, all allowed; and of all that
    was allowed, note by note, at the lane's temperature."""
    ends: Array  # bool (lanes,): whether the piece ends in place of a chord
    first: Array  # (lanes,): nats of all that was allowed of what changes first


class Asked(NamedTuple):
    """What a chord has to be."""

    before: Array  # bool (lanes, 128): what sounded in the frame before
    requirements: Requirements
    must_change: Array  # bool (lanes,): whether it is impossible that nothing does
    may_stay: Array  # bool (lanes,): whether it is allowed
    may_end: Array  # bool (lanes,): whether the piece may end in its place
    is_given: Array  # bool (lanes,): where the chord is given
    planes: Array  # bool (lanes, 256): that chord
    barred: Barred  # chords that it must not be


class _Given(NamedTuple):
    """What all notes of a chord have in common."""

    pitches: Range
    weights: StepWeights
    sampling: SamplingParameters
    asked: Asked

    @property
    def before(self) -> Array:  # bool (lanes, 128)
        return self.asked.before

    @property
    def requirements(self) -> Requirements:
        return self.asked.requirements


def sample_notes(
    pitches: Range,
    weights: StepWeights,
    hidden: tuple[Array, Array],  # (lanes, embedding), (lanes, n_pitches, state)
    asked: Asked,
    sampling: SamplingParameters,
    is_open: Array,  # bool (lanes,)
    u: Uniform,
) -> Spelling:
    """Draw a chord in each open lane, of notes that keep what is asked; or weigh a given one.

    `hidden` has the features, and the states of the pitches. Temperature, top_k and top_p hold for
    each draw: of what changes first, and of each note above it. Of `u` numbers from 0 to 130 ·
    `N_NUMBERS` are asked for.
    """
    # What the network does not hear it does not write, unless it must.
    is_heard = pitches.within(jnp.ones((1, pitches.n_pitches)), 0) > 0
    requirements = asked.requirements
    allowed = requirements.allowed & (is_heard | requirements.required)
    asked = asked._replace(requirements=requirements._replace(allowed=allowed))
    given = _Given(pitches, weights, sampling, asked)
    return lax.while_loop(
        lambda so_far: jnp.any(so_far.is_open),
        lambda so_far: _note(given, u, so_far),
        _first(given, u, hidden, is_open),
    )


def _first(
    given: _Given,
    u: Uniform,
    hidden: tuple[Array, Array],  # (lanes, embedding), (lanes, n_pitches, state)
    is_open: Array,  # bool (lanes,)
) -> Spelling:
    """What changes first, or that nothing does; with all that sounds on below it."""
    (features, heard), weights, before = hidden, given.weights, given.before
    asked, laid = given.asked, weights["weights"]
    first = first_logits(given.pitches, weights, hidden, before)
    is_possible = jnp.ones_like(first.logits, bool).at[:, STAY].set(~asked.must_change)
    ok, may_cease, may_strike = _may_change(given)
    u_note, u_again = u(jnp.arange(N_NUMBERS)).T
    planes = asked.planes.reshape(-1, 2, N_PITCHES)
    symbol = first_change(planes, before, jnp.zeros_like(is_open))
    picked = _pick(given, first.logits, (is_possible, is_possible & ok), symbol, u_note)
    symbol, pitch, is_change, is_stuck, nats = picked
    numbers = jnp.arange(N_PITCHES)[None]
    # One that sounds ends, or is struck again.
    sounded = row_at(before, pitch) & is_change
    must, must_not = ~row_at(may_cease, pitch), ~row_at(may_strike, pitch)
    was_struck = row_at(asked.planes, pitch + N_PITCHES)
    is_struck, log_again, log_asked = _strike(
        given, row_at(first.again, pitch), (sounded, must, must_not, was_struck), u_again
    )
    is_on = is_change & (~sounded | is_struck)
    new = (numbers == pitch[:, None]) & is_on[:, None]
    on = (before & (numbers < symbol[:, None])) | new
    start = Spelling(
        jnp.int32(1),
        is_open & is_change,
        is_open & is_stuck,
        jnp.concatenate([on, new & sounded[:, None]], axis=1),
        symbol,
        before_notes(laid, heard, affine(weights["read"], features)),
        jnp.where(is_open, nats + jnp.stack([log_again, log_asked]), 0),
        is_open & ~is_stuck & (symbol == END),
        nats[1],
    )
    return _with_all_below(given, start)


def first_logits(
    pitches: Range,
    weights: StepWeights,
    hidden: tuple[Array, Array],  # (lanes, embedding), (lanes, n_pitches, state)
    before: Array,  # bool (lanes, 128): what sounded
) -> First:
    """What may come first."""
    features, heard = hidden
    others = affine(weights["others"], features)[:, :2]
    read = Read(features, affine(weights["read_first"], features), others)
    return first_of(pitches, weights["weights"], heard, read, before)


def _with_all_below(given: _Given, start: Spelling) -> Spelling:
    """With what the notes so far tell of the pitches above them, note by note."""
    number = jnp.arange(N_PITCHES)[None]

    def lowest(left: Array) -> Array:  # bool (lanes, 128) -> int32 (lanes,)
        return jnp.min(jnp.where(left, number, N_PITCHES), axis=1)

    def add(loop: tuple[Array, Array]) -> tuple[Array, Array]:
        left, hidden = loop
        pitch = lowest(left)
        is_struck = row_at(start.planes, N_PITCHES + jnp.minimum(pitch, N_PITCHES - 1))
        is_one = pitch < N_PITCHES
        return left & (number != pitch[:, None]), _heard_below(
            given, hidden, pitch, is_struck, is_one
        )

    left = start.planes[:, :N_PITCHES] & start.is_open[:, None]
    _, hidden = lax.while_loop(lambda loop: jnp.any(loop[0]), add, (left, start.hidden))
    return start._replace(hidden=hidden)


def _heard_below(
    given: _Given,
    hidden: Array,  # (lanes, n_pitches, hidden)
    pitch: Array,  # int32 (lanes,)
    is_struck: Array,  # bool (lanes,): whether it is struck again
    is_one: Array,  # bool (lanes,): whether there is a note
) -> Array:  # (lanes, n_pitches, hidden)
    """With what a note tells of the pitches above it."""
    n = given.pitches.n_pitches
    table = given.weights["weights"].below
    place = pitch - given.pitches.lowest
    is_one &= (place >= 0) & (place < n)
    place = jnp.clip(place, 0, n - 1)

    def of_lane(place: Array) -> Array:  # int32 () -> (2, n_pitches, hidden)
        return lax.dynamic_slice_in_dim(table, n - 1 - place, n, axis=1)

    vectors = jax.vmap(of_lane)(place)
    vectors = vectors[:, 0] + jnp.where(is_struck[:, None, None], vectors[:, 1], 0)
    is_above = (jnp.arange(n)[None] > place[:, None]) & is_one[:, None]
    return hidden + jnp.where(is_above[..., None], vectors, 0)


def _may_change(
    given: _Given,
) -> tuple[Array, Array, Array]:  # bool (lanes, 130), bool (lanes, 128), bool (lanes, 128)
    """What may come first; which pitches may cease to sound, and which be struck again."""
    before, asked = given.before, given.requirements
    may_cease = ~asked.required & ~asked.struck
    may_strike = asked.allowed & ~asked.unstruck
    may_stay = jnp.where(before, asked.allowed & ~asked.struck, ~asked.required)
    # All below it stay as they are; what is asked above it needs room.
    n_wrong, n_sounding, n_asked = (
        jnp.pad(jnp.cumsum(a, axis=1, dtype=jnp.int32), ((0, 0), (1, 0)))
        for a in (~may_stay, before, asked.required)
    )
    n_notes = n_sounding[:, :-1] + n_asked[:, -1:] - n_asked[:, 1:]
    most = asked.max_notes[:, None]
    may_strike &= n_notes < most
    may_begin = asked.allowed & (n_notes < most)
    ok = jnp.where(before, may_strike | (may_cease & (n_notes <= most)), may_begin)
    n_before = n_sounding[:, -1]
    may_rest = (n_before > 0) | asked.may_rest
    keeps = (n_before <= asked.max_notes) & may_rest & given.asked.may_stay
    ok = (n_wrong == 0) & jnp.concatenate([ok, keeps[:, None]], axis=1)
    return jnp.append(ok, given.asked.may_end[:, None], axis=1), may_cease, may_strike


def _note(given: _Given, u: Uniform, so_far: Spelling) -> Spelling:
    """One note more, or the end, in each lane that is open."""
    on, again = note_logits(given.pitches, given.weights["weights"], so_far.hidden)
    symbols = jnp.arange(N_PITCHES + 1)
    above = symbols[None] > so_far.last[:, None]
    # The next note is the first pitch that sounds: none before it does.
    is_off = jnp.where(above[:, :-1], jax.nn.log_sigmoid(-on), 0)
    passed = jnp.pad(jnp.cumsum(is_off, axis=1), ((0, 0), (1, 0)))
    logits = passed + _with_end(jax.nn.log_sigmoid(on), 0)
    u_note, u_again = u(so_far.n * N_NUMBERS + jnp.arange(N_NUMBERS)).T
    may_come = above, above & _allowed(given.asked, so_far)
    planes = given.asked.planes
    left = planes[:, :N_PITCHES] & above[:, :-1]
    lowest = jnp.min(jnp.where(left, symbols[None, :-1], N_PITCHES), axis=1)
    symbol, pitch, is_note, is_stuck, nats = _pick(given, logits, may_come, lowest, u_note)
    facts = given.before, given.requirements.struck, given.requirements.unstruck
    sounded, must, must_not = (row_at(a, pitch) & is_note for a in facts)
    was_struck = row_at(planes, pitch + N_PITCHES)
    is_struck, log_again, log_asked = _strike(
        given, row_at(again, pitch), (sounded, must, must_not, was_struck), u_again
    )
    goes_on = so_far.is_open & is_note
    new = (symbols[None, :-1] == pitch[:, None]) & goes_on[:, None]
    nats = nats + jnp.stack([log_again, log_asked])
    return Spelling(
        so_far.n + 1,
        goes_on,
        so_far.is_stuck | (so_far.is_open & is_stuck),
        so_far.planes | jnp.concatenate([new, new & is_struck[:, None]], axis=1),
        jnp.where(goes_on, symbol, so_far.last),
        _heard_below(given, so_far.hidden, symbol, is_struck, goes_on),
        so_far.nats + jnp.where(so_far.is_open, nats, 0),
        so_far.ends,
        so_far.first,
    )


def _pick(
    given: _Given,
    logits: Array,  # (lanes, n)
    may_come: tuple[Array, Array],  # bool (lanes, n): what is possible, what is allowed of it
    next_one: Array,  # int32 (lanes,): of a given chord
    u: Array,  # (lanes,)
) -> tuple[Array, Array, Array, Array, Array]:
    """A symbol, drawn or of a given chord.

    Returns
    -------
    symbol, pitch : Array of int32, shape (lanes,)
        Pitches, or numbers from `N_PITCHES` on; the latter has the highest pitch in their place.
    is_pitch, is_stuck : Array of bool, shape (lanes,)
        Whether it is one, and whether nothing was allowed.
    nats : Array, shape (2, lanes)
        As in `Spelling`.
    """
    drawn = _draw(given, logits, may_come, u)
    symbol = jnp.where(given.asked.is_given, next_one, drawn.symbol)
    is_stuck = ~given.asked.is_given & drawn.is_stuck
    log_p = row_at(logits, symbol) - drawn.top - drawn.log_sum
    nats = jnp.stack([log_p, drawn.log_allowed])
    pitch = jnp.minimum(symbol, N_PITCHES - 1)
    return symbol, pitch, (symbol < N_PITCHES) & ~is_stuck, is_stuck, nats


class _DrawnNote(NamedTuple):
    """A pitch, or what may come in its place."""

    symbol: Array  # int32 (lanes,)
    top: Array  # (lanes,): the highest logit
    log_sum: Array  # (lanes,): log sum exp of all above it
    log_allowed: Array  # (lanes,): nats of all that is allowed, at the lane's temperature
    is_stuck: Array  # bool (lanes,): whether that is nothing


def _draw(
    given: _Given,
    logits: Array,  # (lanes, n)
    may_come: tuple[Array, Array],  # bool (lanes, n): what is possible, what is allowed of it
    u: Array,  # (lanes,)
) -> _DrawnNote:
    """A symbol by the inverse of the running sum, as far as top-k and top-p keep it."""
    above, ok = may_come
    sampling, n_lanes, n = given.sampling, len(u), logits.shape[1]
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
        n_likelier = jnp.sum(likelier, axis=2)
        total = jnp.sum(p, axis=1)
        is_kept = n_likelier < sampling.top_k[:, None]
        is_kept &= share < (sampling.top_p * total)[:, None]
        return jnp.where(is_kept | (n_likelier == 0) | ~is_cut[:, None], p, 0)

    kept = lax.cond(jnp.any(is_cut), cut, lambda: p)
    # All running sums by one product; what is added of weight 0 changes none.
    exact = lax.Precision.HIGHEST
    odds = jnp.concatenate([odds, kept])
    sums = jnp.matmul(odds, given.weights["sums"][:n], precision=exact)
    *sums, running = sums[:, :n].reshape(4, n_lanes, -1)
    plain, sharp, total = jnp.log(jnp.stack([x[:, -1] for x in sums]))
    drawn = jnp.sum(running <= (u * running[:, -1])[:, None], axis=1)
    # Rounding may leave the target at the last sum.
    symbols = jnp.arange(n)
    drawn = jnp.minimum(drawn, jnp.max(jnp.where(kept > 0, symbols[None], 0), axis=1))
    log_allowed = total - sharp + (top_ok - top) * sharpness[:, 0]
    return _DrawnNote(drawn, top, plain, log_allowed, top_ok == -jnp.inf)


def _strike(
    given: _Given,
    again: Array,  # (lanes,): logit of striking again
    facts: tuple[Array, Array, Array, Array],
    u: Array,  # (lanes,)
) -> tuple[Array, Array, Array]:  # bool (lanes,), (lanes,), (lanes,)
    """Whether a note that sounded is struck again; nats of that, and of what is asked of it.

    The facts are bool (lanes,): whether it sounded, must be, must not be, and is in a given chord.
    """
    sampling, sharpness = given.sampling, sharpness_of(given.sampling)[:, 0]
    sounded, must, must_not, was_struck = facts
    p_again = jax.nn.sigmoid(again * sharpness)
    is_sure = (sampling.top_k == 1) | (jnp.maximum(p_again, 1 - p_again) >= sampling.top_p)
    is_struck = u < jnp.where(is_sure, jnp.round(p_again), p_again)
    is_struck = jnp.where(given.asked.is_given, was_struck, (is_struck | must) & ~must_not)
    is_struck &= sounded
    signed = jnp.where(is_struck, again, -again)
    log_again = jnp.where(sounded, jax.nn.log_sigmoid(signed), 0)
    is_asked = sounded & (must | must_not)
    return is_struck, log_again, jnp.where(is_asked, jax.nn.log_sigmoid(signed * sharpness), 0)


def _allowed(asked: Asked, so_far: Spelling) -> Array:
    """Pitches that may come next, and the end: bool, (lanes, 129)."""
    requirements = asked.requirements
    symbols = jnp.arange(N_PITCHES + 1)[None]
    to_come = requirements.required & (symbols[:, :-1] > so_far.last[:, None])
    lowest = jnp.min(jnp.where(to_come, symbols[:, :-1], N_PITCHES), axis=1)
    # Others leave room for those that must come.
    n = jnp.sum(so_far.planes[:, :N_PITCHES], axis=1)
    room = requirements.max_notes - n - jnp.sum(to_come, axis=1)
    pitches = requirements.allowed & (requirements.required | (room > 0)[:, None])
    may_end = (n > 0) | requirements.may_rest
    may_end &= ~is_barred(asked.barred, packed(so_far.planes))
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
