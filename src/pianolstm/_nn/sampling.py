"""Writing music: one frame after another, in compiled blocks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pianolstm._nn.corpus import ROW_MULTIPLE
from pianolstm._nn.evaluation import initial_carry, output_table
from pianolstm._nn.networks import NEVER, NetworkConfig, Params, bind
from pianolstm.windows import START

BLOCK = 256
"""Frames written by one call of the compiled program; Ctrl-C acts between two."""


def sample(
    config: NetworkConfig,
    params: Params,
    vocabulary: Array,
    n_tokens: int,
    prime: tuple[np.ndarray, np.ndarray],
    n_frames: int,
    *,
    temperature: float,
    max_hold: int,
    key: Array,
) -> Iterator[np.ndarray]:
    """Continue a prime; where the network ends the piece, a new one begins at that frame.

    Parameters
    ----------
    config, params
        The network.
    vocabulary : Array of uint32, shape (n_rows, 8)
        Bits of the rows of the softmax.
    n_tokens : int
        How many rows are chords.
    prime : tuple of ndarray, shapes (n_prime,) and (n_prime, 8)
        Ids and bits of the frames to continue.
    n_frames : int
        Frames to write after the prime.
    temperature : float
        The logits are divided by it; 0 takes the most likely chord.
    max_hold : int
        Frames that a chord is held at the most.
    key : Array
        Frame i after the prime is drawn with ``fold_in(key, i)``.

    Yields
    ------
    ndarray of int32
        Tokens after the prime, in blocks.
    """
    output = output_table(config, params, vocabulary, np.int32(n_tokens), goes_on=False)
    carry = initial_carry(config, 1, params)
    begin = carry, jnp.full((1, 1), START, jnp.int32), jnp.zeros((1, 1, 8), jnp.uint32)
    state = begin, jnp.int32(0)
    ids, bits = prime
    n_prime = len(ids)
    for first in range(0, n_prime + n_frames, BLOCK):
        given_ids = np.zeros(BLOCK, np.int32)
        given_bits = np.zeros((BLOCK, 8), np.uint32)
        given = ids[first : first + BLOCK]
        given_ids[: len(given)] = given
        given_bits[: len(given)] = bits[first : first + BLOCK]
        n = min(BLOCK, n_prime + n_frames - first)
        state, tokens = _block(
            config,
            params,
            output,
            vocabulary,
            np.int32(n_tokens),
            state,
            begin,
            (given_ids, given_bits),
            np.int32(len(given)),
            np.int32(n),
            np.int32(first - n_prime),
            np.float32(temperature),
            np.int32(max_hold),
            key,
        )
        if n > len(given):
            yield np.asarray(tokens)[len(given) : n]


@partial(jax.jit, static_argnums=0)
def _block(
    config: NetworkConfig,
    params: Params,
    output: tuple[Array, Array],
    vocabulary: Array,
    n_tokens: Array,
    state: Any,
    begin: Any,
    given: tuple[Array, Array],
    n_given: Array,
    n: Array,
    first: Array,
    temperature: Array,
    max_hold: Array,
    key: Array,
) -> tuple[Any, Array]:
    """`n` frames: the first `n_given` as given, the others drawn.

    The state is that of the network, its last input, and for how many frames that chord has been
    held.
    """
    network = bind(config, params)
    table, bias = output
    rows, end = jnp.arange(len(bias)), len(bias) - 2
    bias_of_chords = jnp.where(rows < n_tokens, bias, NEVER)
    bias = jnp.where(rows == end, bias, bias_of_chords)

    def step(state: Any, bias: Array, key: Array) -> tuple[Any, Array]:
        carry, ids, bits = state
        features, carry = network(ids, bits, carry)
        logits = table @ features[0, 0] + bias
        return carry, draw(logits, temperature, jax.random.uniform(key))

    def drawn(state: Any, held: Array, i: Array) -> tuple[Any, Array, Array]:
        frame_key = jax.random.fold_in(key, first + i)
        last = state[1][0, 0]
        too_long = (rows == last) & (held >= max_hold)
        carry, token = step(state, jnp.where(too_long, NEVER, bias), frame_key)
        carry, token = lax.cond(
            token == end,
            lambda: step(
                begin,
                jnp.where(too_long, NEVER, bias_of_chords),
                jax.random.fold_in(frame_key, 1),
            ),
            lambda: (carry, token),
        )
        return carry, token, vocabulary[token]

    def read(state: Any, held: Array, i: Array) -> tuple[Any, Array, Array]:
        carry, ids, bits = state
        return network(ids, bits, carry)[1], given[0][i], given[1][i]

    def frame(i: Array, loop: Any) -> Any:
        (state, held), tokens = loop
        carry, token, chord = lax.cond(i < n_given, read, drawn, state, held, i)
        held = jnp.where(token == state[1][0, 0], held + 1, 1)
        state = carry, token[None, None], chord[None, None]
        return (state, held), tokens.at[i].set(token)

    return lax.fori_loop(0, n, frame, (state, jnp.zeros(BLOCK, jnp.int32)))


def draw(logits: Array, temperature: Array, u: Array) -> Array:
    """One token from the softmax of logits / temperature, by the inverse of its sum.

    One uniform number a token, and no sort: the row of 256 tokens that it falls in, then the token
    in the row.

    Parameters
    ----------
    logits : Array, shape (n_rows,)
        `NEVER` where a token can't be drawn.
    temperature : Array, shape ()
        0 gives the most likely token.
    u : Array, shape ()
        In [0, 1).

    Returns
    -------
    Array of int32, shape ()
    """
    logits = logits - jnp.max(logits)
    p = jnp.exp(logits / jnp.maximum(temperature, 1e-6)).reshape(-1, ROW_MULTIPLE)
    rows = jnp.sum(p, axis=1)
    row, rest = _invert(rows, u * jnp.sum(rows))
    column, _ = _invert(p[row], rest)
    token = row * ROW_MULTIPLE + column
    return jnp.where(temperature > 0, token, jnp.argmax(logits)).astype(jnp.int32)


def _invert(weights: Array, target: Array) -> tuple[Array, Array]:
    """Where the running sum of the weights passes the target, and what is left of the target."""
    sums = jnp.cumsum(weights)
    # Rounding may carry the target past the last weight above zero.
    last = len(weights) - 1 - jnp.argmax(weights[::-1] > 0)
    i = jnp.minimum(jnp.sum(sums <= target), last)
    return i, target - jnp.where(i > 0, sums[i - 1], 0)
