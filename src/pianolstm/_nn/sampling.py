"""Writing music: one program for single pieces, many, primes and streams.

A block of frames is written in all lanes at once (see `pianolstm._nn.stepping`); how many frames is
an argument of the compiled program, as are seeds, temperatures and constraints. Each lane has its
own clock, prime and settings.

Conventions
-----------
Settings and states have the lanes last, but for what is compared with the vocabulary: (lanes,
n_rows), since what is done to a row of chords is then done by vectors.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.extend.random import threefry2x32_p

from pianolstm._nn.networks import NetworkConfig, begins_chord
from pianolstm._nn.stepping import LANES, Carry, Laid, step

BLOCK = 64
"""Frames that one call writes at the most; Ctrl-C and deadlines act between two."""

N_BEGUN = 64
"""Chords last begun that a lane remembers, for the repetition penalty."""

FOLD = 16
"""Rows that are added up at once; divides the rows of the vocabulary."""

LARGE = 3e38
"""Nearly the largest float32."""


class Vocabulary(NamedTuple):
    """What chords are.

    Attributes
    ----------
    bits : Array of uint32, shape (n_rows, 8)
        Zero beyond the chords.
    held : Array of int32, shape (n_rows,)
        The token that holds each chord on: the same pitches, none struck again; -1 for none.
    """

    bits: Any
    held: Any


class Rules(NamedTuple):
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
    allowed : bool, shape (lanes, n_rows)
        Which.
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
    allowed: Any


class Frames(NamedTuple):
    """What is known of the frames of a block.

    Attributes
    ----------
    is_given : Array of bool, shape (BLOCK, lanes)
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

    is_given: Any
    ids: Any
    bits: Any
    held: Any
    required: Any
    forbidden: Any


class State(NamedTuple):
    """Where each lane is.

    Attributes
    ----------
    carry, features
        Of the network, see `pianolstm._nn.stepping.step`.
    clock : Array of int32, shape (lanes,)
        The next frame; frames of the prime are below 0.
    past : Array of uint32, shape (8, lanes)
        The last chord.
    hold : Array of int32, shape (lanes,)
        The token that holds it on, -1 for none.
    age : Array of int32, shape (lanes,)
        Frames for which it has been held.
    begun, begun_at : Array of int32, shape (N_BEGUN, lanes)
        Chords last begun, and when.
    """

    carry: Any
    features: Any
    clock: Any
    past: Any
    hold: Any
    age: Any
    begun: Any
    begun_at: Any


class Written(NamedTuple):
    """What a block has come to, arrays of shape (BLOCK, lanes).

    Attributes
    ----------
    tokens : int32
        -1 where no chord was allowed.
    log_p : float32
        Nats of the token, as the network has it: temperature 1, nothing forbidden.
    log_allowed : float32
        Nats of all that was allowed, at the lane's temperature; of a given chord, its own.
    """

    tokens: Any
    log_p: Any
    log_allowed: Any


def begin(carry: Carry, features: Any) -> State:
    """The beginning of a piece in every lane."""
    zeros, none = np.zeros(LANES, np.int32), np.full(LANES, -1, np.int32)
    begun = np.full((N_BEGUN, LANES), -1, np.int32)
    past = np.zeros((8, LANES), np.uint32)
    return State(carry, features, zeros, past, none, zeros, begun, begun)


@functools.partial(jax.jit, static_argnums=0)
def write(
    config: NetworkConfig,
    laid: Laid,
    vocabulary: Vocabulary,
    rules: Rules,
    frames: Frames,
    state: State,
    n: Array,
    is_weighed: Array,
) -> tuple[State, Written]:
    """Write `n` frames, at most `BLOCK`, in every lane.

    Where the network ends a piece, a new one begins at that frame. The uniform number of the first
    attempt at frame t, that of the second, ... are of threefry(key, (t, 0)), (t, 1), ...

    Log-likelihoods are computed if `is_weighed`, and are 0 if not.
    """

    def frame(i: Array, loop: tuple[State, Written]) -> tuple[State, Written]:
        state, written = loop
        given = jax.tree.map(lambda a: a[i], frames)

        def draw_all() -> tuple[Array, ...]:
            return draw(laid, vocabulary, rules, given, state, is_weighed)

        def draw_none() -> tuple[Array, ...]:
            zeros = jnp.zeros(LANES)
            return state.hold, jnp.zeros(LANES, bool), zeros, zeros

        is_idle = jnp.all(given.is_given) & ~is_weighed
        token, has_ended, log_p, log_allowed = lax.cond(is_idle, draw_none, draw_all)
        drawn = jnp.maximum(token, 0)
        ids = jnp.where(given.is_given, given.ids, drawn)
        bits = jnp.where(given.is_given[:, None], given.bits, vocabulary.bits[drawn])
        hold = jnp.where(given.is_given, given.held, vocabulary.held[drawn])
        new = begins_chord(state.past.T, bits) | (state.hold < 0)
        is_noted = new & (ids != 0)

        def noted(a: Array, value: Array) -> Array:
            return jnp.where(is_noted, jnp.concatenate([a[1:], value[None]]), a)

        carry = jax.tree.map(
            lambda a, b: _choose(has_ended, b, a, config), state.carry, laid["begin"][0]
        )
        carry, features = step(config, laid, carry, ids, bits)
        state = State(
            carry,
            features,
            state.clock + 1,
            bits.T,
            hold,
            jnp.where(new, 1, state.age + 1),
            noted(state.begun, ids),
            noted(state.begun_at, state.clock),
        )
        # A token of -1 is seen even where what follows goes on from a rest.
        token = jnp.where(given.is_given, given.ids, token)
        values = Written(token, log_p, log_allowed)
        return state, jax.tree.map(lambda a, value: a.at[i].set(value), written, values)

    zeros = jnp.zeros((BLOCK, LANES))
    written = Written(jnp.zeros((BLOCK, LANES), jnp.int32), zeros, zeros)
    return lax.fori_loop(0, n, frame, (state, written))


def _choose(which: Array, a: Array, b: Array, config: NetworkConfig) -> Array:
    """Leaves of a carry lane by lane."""
    if not config.is_causal:
        which = which.reshape(-1, *[1] * (a.ndim - 1))
    return jnp.where(which, a, b)


def draw(
    laid: Laid,
    vocabulary: Vocabulary,
    rules: Rules,
    given: Frames,
    state: State,
    is_weighed: Array,
) -> tuple[Array, Array, Array, Array]:
    """One token a lane, from the softmax of logits / temperature.

    By the inverse of its running sum, and no sort: a token that top-k or top-p leaves out is drawn
    again, from those that are more likely than it. So the tokens that they keep have the
    probabilities of the softmax, scaled up. (That a rejected token bounds the next draw is from
    the sampling kernels of FlashInfer.) A token is kept if fewer than top_k are more likely, and if
    those that are more likely have less than top_p of the probability.

    Where the end of the piece is drawn, the lane draws again, from the beginning of another.

    Parameters
    ----------
    laid, vocabulary, rules, state, is_weighed
        As for `write`.
    given : Frames
        Of this frame, without the axis of the block. Where it is given, nothing is drawn.

    Returns
    -------
    token : Array of int32, shape (lanes,)
        -1 where none is allowed.
    has_ended : Array of bool, shape (lanes,)
        Whether the piece before ended.
    log_p, log_allowed : Array, shape (lanes,)
        As in `Written`.
    """
    rows = jnp.arange(len(laid["bias"]), dtype=jnp.int32)
    end = len(rows) - 2
    allowed, left_out, is_possible = _allowed(vocabulary, rules, given, state)
    is_cut = (rules.top_k < len(rows)) | (rules.top_p < 1)

    def attempt(tries: _Tries) -> _Tries:
        features = jnp.where(tries.has_ended, laid["begin"][1], state.features)
        # Turned round after the product: the compiler would turn the product itself, which then
        # takes twice as long or more. Computed again for each draw, since to keep them costs every
        # frame more than it saves in those that draw twice.
        logits = lax.optimization_barrier(laid["table"] @ features)
        logits = lax.optimization_barrier(logits.T) + laid["bias"]
        may_end = rules.may_end & is_possible & ~tries.has_ended
        now = (allowed & (rows != left_out[:, None])) | ((rows == end) & may_end[:, None])

        def relative(logits: Array) -> Array:
            """Probabilities, relative to the most likely chord's."""
            highest = _highest(jnp.where(now, logits, -jnp.inf))
            return jnp.where(now, jnp.exp((logits - highest) * _sharpness(rules)), 0)

        p = lax.cond(
            jnp.any(rules.penalty > 0),
            lambda: relative(logits - _penalties(rules, state, rows)),
            lambda: relative(logits),
        )
        u = _uniform(rules.key, state.clock, tries.n)
        drawn = pick(jnp.where(p > tries.above[:, None], p, 0), u)

        def rejected() -> tuple[Array, Array]:
            bound = jnp.take_along_axis(p, drawn[:, None], axis=1)
            likelier = jnp.where(p > bound, p, 0)
            n, share = jnp.sum(jnp.sign(likelier), axis=1), jnp.sum(likelier, axis=1)
            is_kept = (n < rules.top_k) & (share < rules.top_p * jnp.sum(p, axis=1))
            is_kept |= n == 0  # the most likely is, even where nothing is allowed
            return tries.is_open & is_cut & ~is_kept & ~given.is_given, bound[:, 0]

        again, bound = lax.cond(
            jnp.any(is_cut), rejected, lambda: (jnp.zeros(LANES, bool), tries.above)
        )
        is_done = tries.is_open & ~again
        ends = is_done & (drawn == end) & ~given.is_given
        log_p, log_allowed = lax.cond(
            is_weighed,
            lambda: _weigh(logits, now, rules, given, drawn),
            lambda: (jnp.zeros(LANES), jnp.zeros(LANES)),
        )
        return _Tries(
            tries.n + 1,
            again | ends,
            jnp.where(tries.is_open, drawn, tries.token),
            jnp.where(again, bound, 0),
            tries.has_ended | ends,
            # Of a piece that ends: that it does, and what the next one begins with.
            tries.log_p + jnp.where(is_done, log_p, 0),
            tries.log_allowed + jnp.where(is_done, log_allowed, 0),
        )

    zeros, no = jnp.zeros(LANES), jnp.zeros(LANES, bool)
    token = jnp.zeros(LANES, jnp.int32)
    start = _Tries(jnp.int32(0), ~no, token, zeros, no, zeros, zeros)
    tries = lax.while_loop(lambda tries: jnp.any(tries.is_open), attempt, start)
    token = jnp.where(is_possible, tries.token, -1)
    return token, tries.has_ended, tries.log_p, tries.log_allowed


class _Tries(NamedTuple):
    """The draws of a frame: how many, and for each lane what they have come to.

    Lanes that are open draw again, among chords of a relative probability above this.
    """

    n: Array
    is_open: Array
    token: Array
    above: Array
    has_ended: Array
    log_p: Array
    log_allowed: Array


def _allowed(
    vocabulary: Vocabulary, rules: Rules, given: Frames, state: State
) -> tuple[Array, Array, Array]:
    """Chords that constraints allow: (lanes, n_rows); the one of them that was held for too long.

    That is -1 where there is none. And whether any chord is left.
    """

    def asked() -> tuple[Array, Array]:
        fits = rules.allowed & _asked(vocabulary, given, state.past)
        return fits, jnp.sum(fits, axis=1, dtype=jnp.float32)

    is_asked = jnp.any(given.required > 0) | jnp.any(given.forbidden > 0)
    allowed, n_allowed = lax.cond(is_asked, asked, lambda: (rules.allowed, rules.n_allowed))
    longest = jnp.where(
        state.hold == 0, jnp.minimum(rules.max_hold, rules.max_silence), rules.max_hold
    )
    may_hold = (state.hold >= 0) & allowed[jnp.arange(LANES), jnp.maximum(state.hold, 0)]
    has_others = n_allowed > may_hold
    may_hold &= state.age < longest
    is_possible = has_others | may_hold
    may_hold &= (state.age < rules.usual_hold) | ~has_others
    return allowed, jnp.where(may_hold, -1, state.hold), is_possible


def _asked(vocabulary: Vocabulary, given: Frames, past: Array) -> Array:
    """Chords that have all that the frame requires, and nothing of what it forbids."""
    # Struck again is only what sounds already.
    sounding = jnp.concatenate([jnp.full_like(past[:4], 0xFFFFFFFF), past[:4]])
    required = given.required & sounding.T
    fits = True
    for word in range(8):
        bits = vocabulary.bits[:, word]
        need, ban = required[:, word, None], given.forbidden[:, word, None]
        fits &= ((bits & need) == need) & ((bits & ban) == 0)
    return jnp.asarray(fits)


def _penalties(rules: Rules, state: State, rows: Array) -> Array:
    """What is taken from the logits of chords begun of late: (lanes, n_rows)."""
    is_recent = (state.begun >= 0) & (state.clock - state.begun_at <= rules.recent)
    is_recent &= state.begun < len(rows)
    lanes = jnp.broadcast_to(jnp.arange(LANES), state.begun.shape)
    zeros = jnp.zeros((LANES, len(rows)))
    penalty = zeros.at[lanes, jnp.maximum(state.begun, 0)].add(is_recent * rules.penalty)
    return jnp.where(rows == state.hold[:, None], 0, penalty)


def _weigh(
    logits: Array, allowed: Array, rules: Rules, given: Frames, token: Array
) -> tuple[Array, Array]:
    """Log-likelihood of the tokens that come, and of all that is allowed."""
    last = logits.shape[1] - 1
    came = jnp.where(given.is_given, jnp.minimum(given.ids, last), jnp.maximum(token, 0))
    log_p = jnp.take_along_axis(logits, came[:, None], axis=1)[:, 0] - _log_sum(logits)
    # What is allowed may be too unlikely for a float, but not for its logarithm.
    tempered = logits / jnp.maximum(rules.temperature, 1e-6)[:, None]
    log_allowed = _log_sum(jnp.where(allowed, tempered, -jnp.inf)) - _log_sum(tempered)
    return log_p, jnp.where(given.is_given, log_p, log_allowed)


def _log_sum(x: Array) -> Array:
    """log sum exp of each lane; minus infinity where all are."""
    highest = jnp.maximum(_highest(x), -LARGE)
    return jnp.log(jnp.sum(jnp.exp(x - highest), axis=1)) + highest[:, 0]


def _sharpness(rules: Rules) -> Array:
    """What logits are multiplied by; at temperature 0 all but the highest go under."""
    return jnp.minimum(1 / rules.temperature, LARGE)[:, None]


def _uniform(key: Array, clock: Array, attempt: Array) -> Array:
    """Numbers in [0, 1) of each key, frame and attempt, 24 bits of each."""
    # One call in place of two of fold_in and one of uniform, each of which is a loop to compile.
    count = clock.astype(jnp.uint32), jnp.full(LANES, attempt.astype(jnp.uint32))
    bits = threefry2x32_p.bind(key[:, 0], key[:, 1], *count)[0]
    return (bits >> 8).astype(jnp.float32) * 2.0**-24


def pick(weights: Array, u: Array) -> Array:
    """Rows with probabilities in proportion to their weights, by the inverse of the running sum.

    Weights are added up sixteen by sixteen, and their sums again; then the sum that passes the
    target is sought from the last back to the first. (The compiler's own running sum takes longer
    than all the rest.)

    Parameters
    ----------
    weights : Array, shape (lanes, n_rows)
    u : Array, shape (lanes,)
        In [0, 1).

    Returns
    -------
    Array of int32, shape (lanes,)
        Never a row of weight 0, if there is another.
    """
    levels = [_sixteens(weights)]
    while levels[-1].shape[2] > 1:
        levels.append(_sixteens(functools.reduce(jnp.add, _columns(levels[-1]))))
    total = functools.reduce(jnp.add, _columns(levels[-1]))[:, 0]
    row, target = jnp.zeros(LANES, jnp.int32), u * total
    for level in reversed(levels):
        picked, target = _invert(level[jnp.arange(LANES), :, row], target)
        row = picked * level.shape[2] + row
    return row


def _sixteens(x: Array) -> Array:
    """Every n-th row together, as (lanes, 16, n); zeros make up what lacks."""
    n = -(-x.shape[1] // FOLD)
    x = jnp.pad(x, ((0, 0), (0, FOLD * n - x.shape[1])))
    return x.reshape(LANES, FOLD, n)


def _columns(x: Array) -> list[Array]:
    return [x[:, i] for i in range(FOLD)]


def _highest(x: Array) -> Array:
    """The largest number of each lane: (lanes, 1)."""
    # Columns of a row side by side: the compiler's own maximum takes nine times as long.
    columns = functools.reduce(lambda a, b: jnp.where(a > b, a, b), _columns(_sixteens(x)))
    return jnp.max(columns, axis=1, keepdims=True)


def _invert(weights: Array, target: Array) -> tuple[Array, Array]:
    """Where the running sum of each lane passes the target, and what is left of the target."""
    at = jnp.arange(FOLD)
    # Sums that differ by a weight of zero are equal, whatever their order: so none is picked.
    sums = jnp.sum(jnp.where(at <= at[:, None], weights[:, None], 0), axis=2)
    # Rounding may leave the target above the last sum.
    last = jnp.max(jnp.where(weights > 0, at, 0), axis=1)
    i = jnp.minimum(jnp.sum(sums <= target[:, None], axis=1), last)
    before = jnp.sum(jnp.where(at < i[:, None], weights, 0), axis=1)
    return i.astype(jnp.int32), target - before
