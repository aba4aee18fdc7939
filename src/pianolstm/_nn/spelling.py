"""Chords written note by note: a probability for every frame, known or never seen.

A frame is spelled as its notes from the lowest up, and an end. Each note's pitch is drawn from a
softmax over the pitches above the last one and the end, given what predicts the frame and what has
been spelled of it; where the pitch sounded in the frame before, it is then drawn whether it is
struck again. So the probabilities of all frames add up to one.

For symbols, see `pianolstm._nn.corpus.spelled`.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from pianolstm._nn.corpus import LAST
from pianolstm._nn.lstm import from_numpy
from pianolstm.rolls import N_PITCHES

CHUNK = 1 << 10
"""Symbols whose softmax is computed at once."""

NEVER = -1e9
"""Logit, or log-likelihood, of what can't be."""

Weights: TypeAlias = dict[str, Array]


class Speller(nnx.Module):
    """The symbols' probabilities, from features of the frame and what is spelled so far.

    A hidden layer is the sum of the features' part, of a vector for each pitch that sounded in the
    frame before, and of one for each note that was spelled (as in NADE, Larochelle and Murray
    2011), through a ReLU.
    """

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs) -> None:
        normal = from_numpy(lambda rng, shape: rng.standard_normal(shape) / np.sqrt(shape[0]))
        self.read = nnx.Linear(width, hidden, kernel_init=normal, rngs=rngs)
        self.before = nnx.Param(normal(rngs.params(), (N_PITCHES, hidden)))
        self.spelled = nnx.Param(normal(rngs.params(), (LAST, hidden)))
        self.write = nnx.Linear(hidden, N_PITCHES + 1, kernel_init=normal, rngs=rngs)
        self.again = nnx.Linear(hidden, N_PITCHES, kernel_init=normal, rngs=rngs)

    def __call__(self, features: Array, symbols: Array, before: Array) -> Array:
        """Log-likelihood of frames.

        Parameters
        ----------
        features : Array, shape (n, width)
        symbols : Array of int, shape (n, length)
            Notes of each frame, then at least one `LAST`; or `SKIPPED` first.
        before : Array of uint32, shape (n, 4)
            Bits of the pitches that sounded in the frame before.

        Returns
        -------
        Array, shape (n,)
            Nats; `NEVER` of frames that are skipped.
        """
        weights = {
            "spelled": self.spelled[...],
            **{f"write_{k}": v for k, v in nnx.to_pure_dict(nnx.state(self.write)).items()},
            **{f"again_{k}": v for k, v in nnx.to_pure_dict(nnx.state(self.again)).items()},
        }
        planes = (before[..., None] >> jnp.arange(32, dtype=jnp.uint32)) & 1
        planes = planes.reshape(-1, N_PITCHES).astype(features.dtype)
        read = self.read(features) + planes @ self.before[...]
        symbols = symbols.astype(jnp.int32)
        return jnp.where(symbols[:, 0] < 0, NEVER, _log_p(weights, read, symbols, before))


@jax.custom_vjp
def _log_p(weights: Weights, read: Array, symbols: Array, before: Array) -> Array:
    """Log-likelihood of frames, 0 of those that are skipped, of all that is read of them.

    The symbols of all frames stand in one row, without what fills their lists, and are computed
    chunk by chunk: as many chunks as it takes. The way back computes them again, so that memory is
    bounded.
    """
    return _log_p_fwd(weights, read, symbols, before)[0]


def _log_p_fwd(weights: Weights, read: Array, symbols: Array, before: Array) -> tuple[Array, tuple]:
    places, n = _in_a_row(symbols)

    def chunk(k: Array, log_p: Array) -> Array:
        one = _Chunk.of(k, places, symbols, before)
        found = one.log_p(weights, read[one.frame])
        return log_p.at[one.frame].add(jnp.where(one.place < n, found, 0))

    log_p = lax.fori_loop(0, -(-n // CHUNK), chunk, jnp.zeros(len(read), read.dtype))
    return log_p, (weights, read, symbols, before, places, n)


def _log_p_bwd(kept: tuple, cotangent: Array) -> tuple:
    weights, read, symbols, before, places, n = kept

    def chunk(k: Array, sums: tuple[Weights, Array]) -> tuple[Weights, Array]:
        d_weights, d_read = sums
        one = _Chunk.of(k, places, symbols, before)
        _, back = jax.vjp(one.log_p, weights, read[one.frame])
        more, rows = back(jnp.where(one.place < n, cotangent[one.frame], 0))
        return jax.tree.map(jnp.add, d_weights, more), d_read.at[one.frame].add(rows)

    zeros = jax.tree.map(jnp.zeros_like, weights), jnp.zeros_like(read)
    return *lax.fori_loop(0, -(-n // CHUNK), chunk, zeros), None, None


_log_p.defvjp(_log_p_fwd, _log_p_bwd)


def _in_a_row(symbols: Array) -> tuple[Array, Array]:
    """Where the symbols of all frames stand in the lists, one after the other; and how many."""
    n, length = symbols.shape
    # Rows of zeros, which fill a batch, have no end; they must not run into others.
    lengths = jnp.minimum(jnp.sum(symbols < LAST, axis=1) + 1, length)
    lengths = jnp.where(symbols[:, 0] < 0, 0, lengths)
    begin = jnp.cumsum(lengths) - lengths
    number = jnp.arange(length)
    to = jnp.where(number < lengths[:, None], begin[:, None] + number, n * length)
    places = jnp.arange(n * length, dtype=jnp.int32)
    return jnp.zeros_like(places).at[to.ravel()].set(places, mode="drop"), jnp.sum(lengths)


class _Chunk(NamedTuple):
    """Some symbols, and as many before them as a list may have.

    Attributes
    ----------
    place : Array of int32, shape (CHUNK,)
        Their numbers in the row of all.
    frame : Array of int32, shape (CHUNK,)
    number, symbols : Array of int32, shape (length + CHUNK,)
        Their numbers in their frames, and what they are; of those before too.
    can : Array of bool, shape (CHUNK,)
        Whether the note may be struck again.
    """

    place: Array
    frame: Array
    number: Array
    symbols: Array
    can: Array

    @classmethod
    def of(cls, k: Array, places: Array, symbols: Array, before: Array) -> _Chunk:
        """The k-th chunk."""
        length = symbols.shape[1]
        index = k * CHUNK + jnp.arange(-length, CHUNK)
        frame, number = jnp.divmod(places[jnp.clip(index, 0, len(places) - 1)], length)
        those, frame_now = symbols[frame, number], frame[length:]
        now = those[length:]
        word = before[frame_now, jnp.minimum(now % N_PITCHES, N_PITCHES - 1) // 32]
        sounded = (word >> (now % 32).astype(jnp.uint32)) & 1
        return cls(index[length:], frame_now, number, those, (now < LAST) & (sounded > 0))

    def log_p(self, weights: Weights, read: Array) -> Array:
        """Nats of each symbol: (CHUNK,)."""
        length = len(self.symbols) - CHUNK
        vectors = weights["spelled"][jnp.minimum(self.symbols, LAST - 1)]
        # What was spelled of a frame: a running sum that begins anew with each frame. (The
        # difference of two plain running sums would lose digits.)
        vectors *= (self.symbols < LAST)[:, None]
        _, sums = lax.associative_scan(_sum_on, ((self.number == 0)[:, None], vectors))
        at = length + jnp.arange(CHUNK) - 1
        is_first = self.number[length:] == 0
        hidden = jax.nn.relu(read + jnp.where(is_first[:, None], 0, sums[at]))
        now, past = self.symbols[length:], self.symbols[at]
        pitch = jnp.where(now < LAST, now % N_PITCHES, N_PITCHES)
        last = jnp.where(is_first, -1, past % N_PITCHES)
        row = jnp.arange(N_PITCHES + 1)
        logits = hidden @ weights["write_kernel"] + weights["write_bias"]
        logits = jnp.where(row > last[:, None], logits, NEVER)
        picked = jnp.sum(jnp.where(row == pitch[:, None], logits, 0), axis=1)
        log_p = picked - jax.nn.logsumexp(logits, axis=1)
        at = jnp.minimum(pitch, N_PITCHES - 1)
        again = jnp.sum(hidden * weights["again_kernel"].T[at], axis=1) + weights["again_bias"][at]
        log_again = jax.nn.log_sigmoid(jnp.where(now < N_PITCHES, -again, again))
        return log_p + jnp.where(self.can, log_again, 0)


def _sum_on(a: tuple[Array, Array], b: tuple[Array, Array]) -> tuple[Array, Array]:
    """Sums of two stretches of which the second may begin anew; whether, and the sum."""
    return a[0] | b[0], jnp.where(b[0], b[1], a[1] + b[1])
