"""Writing music: one program for single pieces, many, primes and streams.

A block of frames is written in all lanes at once (see `pianolstm._nn.stepping`); how many frames is
an argument of the compiled program, as are seeds, temperatures and constraints. Each lane has its
own clock, prime and settings.

Conventions
-----------
Settings and states have the lanes last, but for what is compared with the vocabulary: (lanes,
n_rows), since the sums over chords are then sums of rows.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from pianolstm._nn.corpus import ROW_MULTIPLE
from pianolstm._nn.keys import KEYS
from pianolstm._nn.networks import NetworkConfig, begins_chord
from pianolstm._nn.stepping import LANES, Carry, Laid, step

BLOCK = 64
"""Frames that one call writes at the most; Ctrl-C and deadlines act between two."""

N_BEGUN = 64
"""Chords last begun that a lane remembers, for the repetition penalty."""

LARGEST = 0x3F800001
"""One more than the bits of 1.0, the largest probability relative to the most likely chord's."""


class Vocabulary(NamedTuple):
    """What chords are.

    Attributes
    ----------
    bits : Array of uint32, shape (8, n_rows)
        Zero beyond the chords.
    held : Array of int32, shape (n_rows,)
        The token that holds each chord on: the same pitches, none struck again; -1 for none.
    """

    bits: Array
    held: Array


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
    allowed : bool, shape (lanes, n_rows)
        Chords that may be drawn.
    """

    key: Array
    temperature: Array
    top_k: Array
    top_p: Array
    penalty: Array
    recent: Array
    max_hold: Array
    max_silence: Array
    usual_hold: Array
    may_end: Array
    allowed: Array


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

    carry: Carry
    features: Array
    clock: Array
    past: Array
    hold: Array
    age: Array
    begun: Array
    begun_at: Array


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


def begin(laid: Laid) -> State:
    """The beginning of a piece in every lane."""
    carry, features = laid["begin"]
    zeros, none = jnp.zeros(LANES, jnp.int32), jnp.full(LANES, -1, jnp.int32)
    begun = jnp.full((N_BEGUN, LANES), -1, jnp.int32)
    past = jnp.zeros((8, LANES), jnp.uint32)
    return State(carry, features, zeros, past, none, zeros, begun, begun)


# A lane's products are too small for more than one core; pieces beyond the lanes take the others.
@partial(jax.jit, static_argnums=0, compiler_options={"xla_cpu_multi_thread_eigen": False})
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

    Where the network ends a piece, a new one begins at that frame. Frame t is drawn with one
    uniform number from ``fold_in(key, t)``; the first frame of a new piece with one from
    ``fold_in(fold_in(key, t), 1)``.

    Log-likelihoods are computed if `is_weighed`, and are 0 if not.
    """
    rows = jnp.arange(len(laid["bias"]), dtype=jnp.int32)

    def frame(i: Array, loop: tuple[State, Written]) -> tuple[State, Written]:
        state, written = loop
        given = jax.tree.map(lambda a: a[i], frames)

        def draw_all() -> tuple[Array, ...]:
            return _draw_frame(laid, vocabulary, rules, given, state, rows, is_weighed)

        def draw_none() -> tuple[Array, ...]:
            zeros = jnp.zeros(LANES)
            return state.hold, jnp.zeros(LANES, bool), zeros, zeros

        is_idle = jnp.all(given.is_given) & ~is_weighed
        token, has_ended, log_p, log_allowed = lax.cond(is_idle, draw_none, draw_all)
        drawn = jnp.maximum(token, 0)
        ids = jnp.where(given.is_given, given.ids, drawn)
        bits = jnp.where(given.is_given[:, None], given.bits, vocabulary.bits[:, drawn].T)
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


def _draw_frame(
    laid: Laid,
    vocabulary: Vocabulary,
    rules: Rules,
    given: Frames,
    state: State,
    rows: Array,
    is_weighed: Array,
) -> tuple[Array, Array, Array, Array]:
    """Tokens (-1 where none is allowed), whether the piece before ended, and both likelihoods."""
    end = len(rows) - 2
    is_hold = rows == state.hold[:, None]
    allowed = rules.allowed
    is_asked = jnp.any(given.required > 0) | jnp.any(given.forbidden > 0)
    allowed = lax.cond(
        is_asked, lambda a: a & _asked(vocabulary, given, state.past), lambda a: a, allowed
    )
    longest = jnp.where(
        state.hold == 0, jnp.minimum(rules.max_hold, rules.max_silence), rules.max_hold
    )
    allowed &= ~(is_hold & (state.age >= longest)[:, None])
    is_usual = state.age < rules.usual_hold
    others = allowed & ~(is_hold & ~is_usual[:, None])
    allowed = jnp.where(jnp.any(others, axis=1, keepdims=True), others, allowed)
    is_possible = jnp.any(allowed, axis=1)
    penalty = lax.cond(
        jnp.any(rules.penalty > 0),
        lambda: jnp.where(is_hold, 0, _penalties(rules, state, len(rows))),
        lambda: jnp.zeros_like(rules.allowed, jnp.float32),
    )
    keys = jax.vmap(jax.random.fold_in)(jax.random.wrap_key_data(rules.key, impl=KEYS), state.clock)
    uniforms = jax.vmap(jax.random.uniform)

    def attempt(tries: tuple) -> tuple:
        """Draw; lanes whose piece ends draw again, from the beginning of another."""
        token, has_ended, is_open, log_p, log_allowed = tries
        u = lax.cond(
            jnp.any(has_ended),
            lambda: jnp.where(
                has_ended, uniforms(jax.vmap(lambda k: jax.random.fold_in(k, 1))(keys)), 0.0
            ),
            lambda: uniforms(keys),
        )
        features = jnp.where(has_ended, laid["begin"][1], state.features)
        # Turned round after the product: the compiler would turn the product itself, which then
        # takes four times as long.
        logits = lax.optimization_barrier(laid["table"] @ features).T + laid["bias"]
        may_end = rules.may_end & is_possible & ~has_ended
        now = allowed | ((rows == end) & may_end[:, None])
        drawn = draw(logits - penalty, now, rules, u)
        more = lax.cond(
            is_weighed,
            lambda: _weigh(logits, now, rules, given, drawn),
            lambda: (jnp.zeros(LANES), jnp.zeros(LANES)),
        )
        # Of a piece that ends: that it does, and what the next one begins with.
        log_p = log_p + jnp.where(is_open, more[0], 0)
        log_allowed = log_allowed + jnp.where(is_open, more[1], 0)
        token = jnp.where(is_open, drawn, token)
        ends = is_open & (token == end) & ~given.is_given
        return token, has_ended | ends, ends, log_p, log_allowed

    start = jnp.zeros(LANES, jnp.int32), jnp.zeros(LANES, bool), jnp.ones(LANES, bool)
    token, has_ended, _, log_p, log_allowed = lax.while_loop(
        lambda tries: jnp.any(tries[2]),
        attempt,
        (*start, jnp.zeros(LANES), jnp.zeros(LANES)),
    )
    return jnp.where(is_possible, token, -1), has_ended, log_p, log_allowed


def _asked(vocabulary: Vocabulary, given: Frames, past: Array) -> Array:
    """Chords that have all that the frame requires, and nothing of what it forbids."""
    # Struck again is only what sounds already.
    sounding = jnp.concatenate([jnp.full_like(past[:4], 0xFFFFFFFF), past[:4]])
    required = given.required & sounding.T
    fits = True
    for word in range(8):
        bits = vocabulary.bits[word]
        need, ban = required[:, word, None], given.forbidden[:, word, None]
        fits &= ((bits & need) == need) & ((bits & ban) == 0)
    return jnp.asarray(fits)


def _penalties(rules: Rules, state: State, n_rows: int) -> Array:
    """What is taken from the logits of chords begun of late: (lanes, n_rows)."""
    is_recent = (state.begun >= 0) & (state.clock - state.begun_at <= rules.recent)
    is_recent &= state.begun < n_rows
    lanes = jnp.broadcast_to(jnp.arange(LANES), state.begun.shape)
    zeros = jnp.zeros((LANES, n_rows))
    return zeros.at[lanes, jnp.maximum(state.begun, 0)].add(is_recent * rules.penalty)


def _weigh(
    logits: Array, allowed: Array, rules: Rules, given: Frames, token: Array
) -> tuple[Array, Array]:
    """Log-likelihood of the tokens that come, and of all that is allowed."""
    n_rows = logits.shape[1]
    came = jnp.where(given.is_given, jnp.minimum(given.ids, n_rows - 1), jnp.maximum(token, 0))
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), came[:, None], axis=1)[:, 0]
    tempered = jax.nn.log_softmax(logits / jnp.maximum(rules.temperature, 1e-6)[:, None])
    log_allowed = jax.nn.logsumexp(jnp.where(allowed, tempered, -jnp.inf), axis=1)
    return log_p, jnp.where(given.is_given, log_p, log_allowed)


def draw(logits: Array, allowed: Array, rules: Rules, u: Array) -> Array:
    """One token a lane, from the softmax of logits / temperature, by the inverse of its sum.

    One uniform number a token, and no sort: the least likely chord that top-k or top-p keeps is
    found by bisection over the bits of a probability, so that it is exact.

    Parameters
    ----------
    logits : Array, shape (lanes, n_rows)
    allowed : Array of bool, shape (lanes, n_rows)
    rules : Rules
        Its temperature, top_k and top_p are read. Both may keep more where chords are as likely as
        the least likely kept. top_p keeps the fewest most likely chords whose probability, among
        those of top_k, is at least top_p.
    u : Array, shape (lanes,)
        In [0, 1).

    Returns
    -------
    Array of int32, shape (lanes,)
    """
    highest = jnp.max(jnp.where(allowed, logits, -jnp.inf), axis=1, keepdims=True)
    scaled = (logits - highest) / jnp.maximum(rules.temperature, 1e-6)[:, None]
    p = jnp.where(allowed, jnp.exp(scaled), 0)
    p = lax.cond(
        jnp.any(rules.top_k < len(logits[0])),
        lambda p: _at_least(p, jnp.sign, rules.top_k.astype(jnp.float32)),
        lambda p: p,
        p,
    )
    p = lax.cond(
        jnp.any(rules.top_p < 1),
        lambda p: jnp.where(
            # Rounding must not show where nothing is to be left out.
            (rules.top_p < 1)[:, None],
            _at_least(p, lambda p: p, rules.top_p * jnp.sum(p, axis=1)),
            p,
        ),
        lambda p: p,
        p,
    )
    p = p.reshape(len(p), -1, ROW_MULTIPLE)
    # The row of chords in which the running sum passes the target, then the chord in the row.
    sums = jnp.sum(p, axis=2)
    row, rest = _invert(sums, u * jnp.sum(sums, axis=1))
    column, _ = _invert(jnp.take_along_axis(p, row[:, None, None], axis=1)[:, 0], rest)
    token = row * ROW_MULTIPLE + column
    return lax.cond(
        jnp.any(rules.temperature == 0),
        lambda: jnp.where(
            rules.temperature > 0, token, jnp.argmax(p.reshape(len(p), -1), axis=1)
        ).astype(jnp.int32),
        lambda: token.astype(jnp.int32),
    )


def _at_least(p: Array, measure: Any, wanted: Array) -> Array:
    """Keep the fewest largest p whose measures add up to what is wanted, or all."""
    bits = lax.bitcast_convert_type(p, jnp.int32)  # in the order of p, which is not negative
    measures = measure(p)

    def halve(_: Array, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        kept = jnp.sum(jnp.where(bits >= middle[:, None], measures, 0), axis=1)
        enough = kept >= wanted
        return jnp.where(enough, middle, low), jnp.where(enough, high, middle)

    start = jnp.zeros(len(p), jnp.int32), jnp.full(len(p), LARGEST, jnp.int32)
    low, _ = lax.fori_loop(0, 30, halve, start)
    return jnp.where(bits >= low[:, None], p, 0)


def _invert(weights: Array, target: Array) -> tuple[Array, Array]:
    """Where the running sum of each row passes the target, and what is left of the target."""
    sums = jnp.cumsum(weights, axis=1)
    # The sums are not added up one by one: rounding may raise them where the weight is zero, and
    # may leave the target above the last of them.
    is_possible = weights > 0
    is_past = is_possible & (sums > target[:, None])
    last = weights.shape[1] - 1 - jnp.argmax(is_possible[:, ::-1], axis=1)
    i = jnp.where(jnp.any(is_past, axis=1), jnp.argmax(is_past, axis=1), last)
    before = jnp.take_along_axis(sums, jnp.maximum(i - 1, 0)[:, None], axis=1)[:, 0]
    return i, target - jnp.where(i > 0, before, 0)
