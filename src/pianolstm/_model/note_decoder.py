"""Chords written note by note: a probability for every frame, known or never seen.

A frame is spelled as its notes from the lowest up, and an end. Each note's pitch is drawn from a
softmax over the pitches above the last one and the end, given what predicts the frame and what has
been spelled of it; where the pitch sounded in the frame before, it is then drawn whether it is
struck again. So the probabilities of all frames add up to one.

For symbols, see `pianolstm._model.inputs.spelled`.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from pianolstm._jax.keys import Rngs
from pianolstm._model.inputs import LAST
from pianolstm._model.lstm import affine, from_numpy, zeros
from pianolstm.rolls import N_PITCHES

CHUNK = 1 << 10
"""Symbols whose softmax is computed at once."""

NEVER = -1e9
"""Logit, or log-likelihood, of what can't be."""

Weights: TypeAlias = dict[str, Array]
"""``spelled`` (LAST, hidden); ``kernel`` (hidden, 257) and ``bias`` (257,) give the logits of the
pitches, of the end, and of each pitch being struck again."""

Gradients: TypeAlias = tuple[Weights, Array]
"""Of the weights, and of what is read of the frames (n, hidden)."""

Kept: TypeAlias = tuple[Weights, Array, Array, Array, Array | None, Array, Array, Array]
"""What `_log_p` takes; places and planes as `_Chunk.of` takes them; how many symbols there are."""


class Speller(nnx.Module):
    """The symbols' probabilities, from features of the frame and what is spelled so far.

    A hidden layer is the sum of the features' part, of a vector for each pitch that sounded in the
    frame before, and of one for each note that was spelled (as in NADE, Larochelle and Murray
    2011), through a ReLU.
    """

    def __init__(self, width: int, hidden: int, *, rngs: Rngs) -> None:
        normal = from_numpy(lambda rng, shape: rng.standard_normal(shape) / np.sqrt(shape[0]))
        self.read = nnx.Linear(width, hidden, kernel_init=normal, bias_init=zeros, rngs=rngs)
        self.before = nnx.Param(normal(rngs.params(), (N_PITCHES, hidden)))
        self.spelled = nnx.Param(normal(rngs.params(), (LAST, hidden)))
        self.write = nnx.Linear(
            hidden, N_PITCHES + 1, kernel_init=normal, bias_init=zeros, rngs=rngs
        )
        self.again = nnx.Linear(hidden, N_PITCHES, kernel_init=normal, bias_init=zeros, rngs=rngs)

    def __call__(
        self,
        features: Array,  # (n, width)
        symbols: Array,  # int (n, length): notes, then at least one `LAST`; or `SKIPPED` first
        before: Array,  # uint32 (n, 4): bits of the pitches that sounded in the frame before
        barred: Array | None = None,  # bool (n,): where these, held on, are no chord to be spelled
    ) -> Array:  # (n,)
        """Log-likelihood of frames in nats; `NEVER` of those that are skipped."""
        dense = [nnx.to_pure_dict(nnx.state(layer)) for layer in (self.write, self.again)]
        weights = {
            "spelled": self.spelled[...],
            "kernel": jnp.concatenate([d["kernel"] for d in dense], axis=1),
            "bias": jnp.concatenate([d["bias"] for d in dense]),
        }
        read = self.read(features) + _planes(before).astype(features.dtype) @ self.before[...]
        symbols = symbols.astype(jnp.int32)
        log_p: Any = _log_p(weights, read, symbols, before, barred)
        return jnp.where(symbols[:, 0] < 0, NEVER, log_p)


def _planes(
    words: Array,  # uint32 (n, 4)
) -> Array:  # bool (n, 128)
    planes = (words[..., None] >> jnp.arange(32, dtype=jnp.uint32)[None, None]) & 1
    return planes.reshape(-1, N_PITCHES) > 0


@jax.custom_vjp
def _log_p(
    weights: Weights,
    read: Array,  # (n, hidden)
    symbols: Array,  # int32 (n, length)
    before: Array,  # uint32 (n, 4)
    barred: Array | None,  # bool (n,)
) -> Array:  # (n,)
    """Log-likelihood of frames, 0 of those that are skipped, of all that is read of them.

    The symbols of all frames stand in one row, without what fills their lists, and are computed
    chunk by chunk: as many chunks as it takes. The way back computes them again, so that memory is
    bounded.
    """
    return _log_p_fwd(weights, read, symbols, before, barred)[0]


def _log_p_fwd(
    weights: Weights,
    read: Array,  # (n, hidden)
    symbols: Array,  # int32 (n, length)
    before: Array,  # uint32 (n, 4)
    barred: Array | None,  # bool (n,)
) -> tuple[Array, Kept]:  # (n,)
    places, n = _in_a_row(symbols)
    planes = jnp.any(symbols[:, :, None] == jnp.arange(LAST)[None, None], axis=1)

    def chunk(k: Array, log_p: Array) -> Array:  # int32 (), (n,) -> (n,)
        one = _Chunk.of(k, places, symbols, before, planes, barred)
        found = one.log_p(weights, read[one.frame])
        return log_p.at[one.frame].add(jnp.where(one.place < n, found, 0))

    log_p = lax.fori_loop(0, -(-n // CHUNK), chunk, jnp.zeros(len(read), read.dtype))
    return log_p, (weights, read, symbols, before, barred, places, planes, n)


def _log_p_bwd(
    kept: Kept,
    cotangent: Array,  # (n,)
) -> tuple[Weights, Array, None, None, None]:  # (n, hidden)
    weights, read, symbols, before, barred, places, planes, n = kept

    def chunk(k: Array, sums: Gradients) -> Gradients:  # k: int32 ()
        d_weights, d_read = sums
        one = _Chunk.of(k, places, symbols, before, planes, barred)
        _, back = jax.vjp(one.log_p, weights, read[one.frame])
        more, rows = back(jnp.where(one.place < n, cotangent[one.frame], 0))
        return jax.tree.map(jnp.add, d_weights, more), d_read.at[one.frame].add(rows)

    zeros = jax.tree.map(jnp.zeros_like, weights), jnp.zeros_like(read)
    return *lax.fori_loop(0, -(-n // CHUNK), chunk, zeros), None, None, None


_log_p.defvjp(_log_p_fwd, _log_p_bwd)


def _in_a_row(
    symbols: Array,  # int32 (n, length)
) -> tuple[Array, Array]:  # int32 (n * length,), int32 ()
    """Where the symbols of all frames stand in the lists, one after the other; and how many."""
    n, length = symbols.shape
    # Rows of zeros, which fill a batch, have no end; they must not run into others.
    lengths = jnp.minimum(jnp.sum(symbols < LAST, axis=1) + 1, length)
    lengths = jnp.where(symbols[:, 0] < 0, 0, lengths)
    begin = jnp.cumsum(lengths) - lengths
    number = jnp.arange(length)[None]
    to = jnp.where(number < lengths[:, None], begin[:, None] + number, n * length)
    places = jnp.arange(n * length, dtype=jnp.int32)
    return jnp.zeros_like(places).at[to.ravel()].set(places, mode="drop"), jnp.sum(lengths)


class _Chunk(NamedTuple):
    """Some symbols."""

    place: Array  # int32 (CHUNK,): their numbers in the row of all
    frame: Array  # int32 (CHUNK,)
    pitch: Array  # int32 (CHUNK,): `N_PITCHES` for the end
    last: Array  # int32 (CHUNK,): pitch of the note before, -1 for none
    is_struck: Array  # bool (CHUNK,): whether the note is struck again
    can: Array  # bool (CHUNK,): whether it may be, and may not
    may_end: Array  # bool (CHUNK,): whether the chord may end here
    planes: Array  # bool (CHUNK, LAST): what is spelled of the frame so far

    @classmethod
    def of(
        cls,
        k: Array,  # int32 ()
        places: Array,  # int32 (n * length,)
        symbols: Array,  # int32 (n, length)
        before: Array,  # uint32 (n, 4)
        planes: Array,  # bool (n, LAST)
        barred: Array | None,  # bool (n,)
    ) -> _Chunk:
        """The k-th chunk."""
        index = k * CHUNK + jnp.arange(CHUNK)
        frame, number = jnp.divmod(places[jnp.minimum(index, len(places) - 1)], symbols.shape[1])
        now, last = symbols[frame, number], symbols[frame, jnp.maximum(number, 1) - 1]
        pitch = jnp.where(now < LAST, now % N_PITCHES, N_PITCHES)
        word = before[frame, jnp.minimum(pitch, N_PITCHES - 1) // 32]
        sounded = (word >> (pitch % 32).astype(jnp.uint32)) & 1
        # Notes ascend: those before this one are below it.
        so_far = planes[frame] & (jnp.arange(LAST)[None] % N_PITCHES < pitch[:, None])
        can, may_end = (now < LAST) & (sounded > 0), jnp.ones(CHUNK, bool)
        if barred is not None:
            # What sounds, held on, is no chord that begins: its notes can't be all.
            held = jnp.pad(_planes(before[frame]), ((0, 0), (0, N_PITCHES)))
            may_end = ~barred[frame] | jnp.any(so_far != held, axis=1)
            # After the highest pitch that there is nothing could follow.
            is_highest = jnp.arange(LAST)[None] == N_PITCHES - 1
            is_all = (pitch == N_PITCHES - 1) & jnp.all((so_far == held) | is_highest, axis=1)
            can &= ~barred[frame] | ~is_all
        last = jnp.where(number == 0, -1, last % N_PITCHES)
        return cls(index, frame, pitch, last, now >= N_PITCHES, can, may_end, so_far)

    def log_p(
        self,
        weights: Weights,
        read: Array,  # (CHUNK, hidden)
    ) -> Array:  # (CHUNK,)
        """Nats of each symbol."""
        # Rows are picked, and vectors added up, by products: the way back of a look-up is slow.
        hidden = jax.nn.relu(read + self.planes.astype(read.dtype) @ weights["spelled"])
        logits = affine((weights["kernel"], weights["bias"]), hidden)
        row = jnp.arange(logits.shape[1])[None]
        above = (row > self.last[:, None]) & (
            row < N_PITCHES + jnp.where(self.may_end, 1, 0)[:, None]
        )
        again = jnp.sum(jnp.where(row == self.pitch[:, None] + N_PITCHES + 1, logits, 0), axis=1)
        logits = jnp.where(above, logits, NEVER)
        picked = jnp.sum(jnp.where(row == self.pitch[:, None], logits, 0), axis=1)
        log_p = picked - jax.nn.logsumexp(logits, axis=1)
        log_again = jax.nn.log_sigmoid(jnp.where(self.is_struck, again, -again))
        return log_p + jnp.where(self.can, log_again, 0)
