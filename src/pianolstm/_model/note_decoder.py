"""Chords written note by note: a probability for every frame, known or never seen.

First the lowest pitch that changes is drawn, by a softmax over all pitches, over that none does,
and over that the piece ends: a pitch that is silent begins; one that sounds ends, or is struck
again. Below it all is as it was.
Above it each pitch in turn, from the lowest up, sounds or does not, given what is written below it;
and where it sounded, it is then drawn whether it is struck again. So the probabilities of all
frames add up to one; and of all frames in which something begins, where it is barred that nothing
changes.

All pitches have the same weights, and hear what is written as intervals, see
`pianolstm._model.pitch_lstm`.

For symbols, see `pianolstm._model.inputs.spelled`.
"""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from pianolstm._jax.keys import Rngs
from pianolstm._model.inputs import ENDS, LAST
from pianolstm._model.lstm import affine, from_numpy, no_draw, zeros
from pianolstm._model.pitch_lstm import Intervals, Range, from_everywhere
from pianolstm._model.planes import NEVER, unpack_words
from pianolstm.rolls import N_PITCHES

CHUNK = 128
"""Frames whose notes are computed at once."""

STAY, END = N_PITCHES, N_PITCHES + 1
"""What may come in place of a pitch that changes: nothing does; the piece ends."""

N_FIRST = N_PITCHES + 2
"""All that may come first."""

OUTSIDE = -20.0
"""Logit of a note that is outside of the pitches that the network hears."""

FIRST_BIAS = (-3.5, -2.0)
"""Logits of a note, and of its being struck again, before anything is learned."""

OTHERS_BIAS = (0.0, -3.0)
"""Those of that nothing changes, and that the piece ends."""


class NoteWeights(NamedTuple):
    """What frames are computed with; for the range of a network."""

    hear: Array  # (state, hidden)
    of_pitch: Array  # (n_pitches, hidden)
    below: Array
    """(2 * n_pitches, n_pitches * hidden): of each plane's each note for each pitch, 0 for those
    that are not above it; to draw notes a table of intervals, (2, 2 * n_pitches - 1, hidden)."""
    hidden: Array  # (hidden, hidden)
    hidden_bias: Array  # (hidden,)
    write: Array  # (hidden, 2): a note, struck again
    write_bias: Array  # (n_pitches, 2)
    hear_first: Array  # (state, first)
    write_first: Array  # (first, 3): begins, changes where it sounds, is then struck again
    write_first_bias: Array  # (n_pitches, 3)


class Read(NamedTuple):
    """What the features of frames add."""

    note: Array  # (n, hidden)
    first: Array  # (n, first)
    others: Array  # (n, 2): logits of that nothing changes, and that the piece ends


class Spelled(NamedTuple):
    """What frames come to."""

    log_p: Array  # (n,): nats; `NEVER` of those that are skipped
    right: Array  # bool (n,): whether each draw was the likeliest
    log_first: Array | None  # (n,): nats of what changes first in what is recalled


class First(NamedTuple):
    """What is drawn first."""

    logits: Array  # (n, N_FIRST)
    again: Array  # (n, 128): logits of a pitch that changes being struck again, where it sounded


Frames: TypeAlias = tuple[Array, Array, Array | None, Array, Array, Array]
"""States (n, n_pitches, state), what the features add (n, hidden), what dropout keeps and scales up
(n, hidden); notes bool (n, 2, 128), what sounded before bool (n, 128), the pitch above which they
are written int32 (n,)."""


class NoteDecoder(nnx.Module):
    """Probabilities of notes, from the state of each pitch and the features of the frame.

    A pitch's first hidden layer is the sum of its state's part, of the features', of a vector for
    each note written below it by its interval (as in NADE, Larochelle and Murray 2011), and of one
    of its own.

    Parameters
    ----------
    width : int
        Features of a frame.
    state, hidden, first : int
        Of a pitch's state; of both hidden layers; of the layer that tells what changes first.
    """

    def __init__(self, width: int, state: int, hidden: int, first: int, *, rngs: Rngs) -> None:
        normal = from_numpy(lambda rng, shape: rng.standard_normal(shape) / np.sqrt(shape[0]))
        small = from_numpy(lambda rng, shape: 0.02 * rng.standard_normal(shape))
        quiet = from_numpy(lambda rng, shape: 0.05 * rng.standard_normal(shape))
        seldom = from_numpy(lambda rng, shape: np.array(OTHERS_BIAS))
        self.hear = nnx.Param(normal(rngs.params(), (state, hidden)))
        self.read = nnx.Linear(width, hidden, kernel_init=quiet, bias_init=zeros, rngs=rngs)
        self.below = Intervals(hidden, rngs=rngs)
        self.pitch = nnx.Param(no_draw(N_PITCHES, hidden))
        self.hidden = nnx.Linear(hidden, hidden, kernel_init=normal, bias_init=zeros, rngs=rngs)
        self.write = nnx.Param(small(rngs.params(), (hidden, 2)))
        self.bias = nnx.Param(jax.device_put(np.array(FIRST_BIAS, np.float32)))
        self.write_pitch = nnx.Param(no_draw(N_PITCHES, 2))
        self.hear_first = nnx.Param(normal(rngs.params(), (state, first)))
        self.read_first = nnx.Linear(width, first, kernel_init=quiet, bias_init=zeros, rngs=rngs)
        self.write_first = nnx.Param(small(rngs.params(), (first, 3)))
        self.first_pitch = nnx.Param(no_draw(N_PITCHES, 3))
        self.others = nnx.Linear(width, 2, kernel_init=small, bias_init=seldom, rngs=rngs)

    def __call__(
        self,
        pitches: Range,
        heard: Array,  # (n, n_pitches, state)
        features: Array,  # (n, width)
        symbols: Array,  # int (n, length): as of `pianolstm._model.inputs.Targets`
        before: Array,  # uint32 (n, 4): bits of the pitches that sounded in the frame before
        barred: Array,  # bool (n,): where these, held on, are no chord to be written
        keep: Array | None = None,  # (n, hidden): what dropout keeps, scaled up
        *,
        goes_on: bool = False,  # whether it is given that the piece does not end
        recalled: Array | None = None,  # uint32 (n, 8): chords that are recalled
    ) -> Spelled:
        """Log-likelihood of frames."""
        is_skipped, ends = symbols[:, 0] < 0, symbols[:, 0] == ENDS
        symbols = symbols.astype(jnp.int32)
        planes = jnp.any(symbols[:, :, None] == jnp.arange(LAST)[None, None], axis=1)
        planes = planes.reshape(-1, 2, N_PITCHES)
        planes = planes.at[:, 0].set(jnp.any(planes, axis=1))  # what is struck again sounds
        weights, read = self.weights(pitches), self.reading(features)
        sounded = unpack_words(before) > 0
        first = first_of(pitches, weights, heard, read, sounded)
        is_possible = jnp.stack([~barred, jnp.full_like(barred, not goes_on)], axis=1)
        logits = first.logits.at[:, STAY:].set(
            jnp.where(is_possible, first.logits[:, STAY:], NEVER)
        )
        first = first._replace(logits=logits)
        symbol = first_change(planes, sounded, ends)
        nats, right = log_first(first, symbol, planes[:, 0], sounded)
        is_alone = is_skipped | (symbol >= STAY)
        frames = heard, read.note, keep, planes, sounded, symbol
        found: Any = _log_above(pitches, weights, frames, is_alone)
        above, n_wrong = found
        return Spelled(
            jnp.where(is_skipped, NEVER, nats + above),
            right & (n_wrong == 0) & ~is_skipped,
            None if recalled is None else log_first_of(first, recalled, sounded),
        )

    def reading(self, features: Array) -> Read:  # (n, width)
        """What features add."""
        return Read(self.read(features), self.read_first(features), self.others(features))

    def weights(self, pitches: Range) -> NoteWeights:
        """What frames are computed with."""
        n = pitches.n_pitches
        table = self.below.table(n)
        at = jnp.arange(n)
        is_above = at[None] > jnp.tile(at, 2)[:, None]
        below = jnp.where(is_above[..., None], from_everywhere(table), 0)
        return self._weights(pitches, below.reshape(2 * n, -1))

    def step_weights(self, pitches: Range) -> NoteWeights:
        """What single notes are drawn with."""
        return self._weights(pitches, self.below.table(pitches.n_pitches))

    def _weights(self, pitches: Range, below: Array) -> NoteWeights:
        at = slice(pitches.lowest, pitches.lowest + pitches.n_pitches)
        bias = self.hidden.bias
        assert bias is not None
        return NoteWeights(
            self.hear[...],
            self.pitch[...][at],
            below,
            self.hidden.kernel[...],
            bias[...],
            self.write[...],
            self.write_pitch[...][at] + self.bias[...][None],
            self.hear_first[...],
            self.write_first[...],
            self.first_pitch[...][at],
        )


def first_of(
    pitches: Range,
    weights: NoteWeights,
    heard: Array,  # (n, n_pitches, state)
    read: Read,
    sounded: Array,  # bool (n, 128)
) -> First:
    """What is drawn first: logits of the lowest pitch that changes, of none, of the end."""
    kernel = weights.hear_first
    x = _rows(heard) @ kernel
    x = jax.nn.relu(x.reshape(*heard.shape[:2], -1) + read.first[:, None])
    logits = (_rows(x) @ weights.write_first).reshape(*x.shape[:2], 3)
    begins, changes, again = jnp.moveaxis(logits + weights.write_first_bias[None], 2, 0)
    changes = pitches.within(changes, 0.0)
    change = jnp.where(sounded, changes, pitches.within(begins, OUTSIDE))
    return First(
        jnp.concatenate([change, read.others], axis=1),
        pitches.within(again, 0.0),
    )


def first_change(
    planes: Array,  # bool (n, 2, 128)
    sounded: Array,  # bool (n, 128)
    ends: Array,  # bool (n,)
) -> Array:  # int32 (n,)
    """The lowest pitch that changes, `STAY` or `END`."""
    sounds, again = planes[:, 0], planes[:, 1]
    changes = (sounds != sounded) | (again & sounded)
    symbol = jnp.min(jnp.where(changes, jnp.arange(N_PITCHES, dtype=jnp.int32)[None], STAY), axis=1)
    return jnp.where(ends, END, symbol)


def log_first_of(
    first: First,
    bits: Array,  # uint32 (n, 8)
    sounded: Array,  # bool (n, 128)
) -> Array:  # (n,)
    """Nats of what changes first in some chords, given that the piece does not end."""
    first = first._replace(logits=first.logits.at[:, END].set(NEVER))
    planes = unpack_words(bits).reshape(-1, 2, N_PITCHES) > 0
    symbol = first_change(planes, sounded, jnp.zeros(len(bits), bool))
    return log_first(first, symbol, planes[:, 0], sounded)[0]


def log_first(
    first: First,
    symbol: Array,  # int32 (n,)
    sounds: Array,  # bool (n, 128)
    sounded: Array,  # bool (n, 128)
) -> tuple[Array, Array]:  # (n,), bool (n,)
    """Nats of what came first, and whether it is the likeliest."""
    is_it = jnp.arange(N_FIRST)[None] == symbol[:, None]
    log_p = jnp.sum(jnp.where(is_it, first.logits, 0), axis=1)
    right = log_p >= jnp.max(first.logits, axis=1)
    log_p -= jax.nn.logsumexp(first.logits, axis=1)
    # One that sounded ends, or is struck again.
    signed = jnp.where(is_it[:, :N_PITCHES] & sounded, jnp.where(sounds, 1, -1) * first.again, 0)
    signed, is_old = jnp.sum(signed, axis=1), jnp.any(is_it[:, :N_PITCHES] & sounded, axis=1)
    log_p += jnp.where(is_old, jax.nn.log_sigmoid(signed), 0)
    return log_p, right & (~is_old | (signed >= 0))


def before_notes(
    weights: NoteWeights,
    heard: Array,  # (n, n_pitches, state)
    read: Array,  # (n, hidden)
) -> Array:  # (n, n_pitches, hidden)
    """The first hidden layer of each pitch, before the ReLU, where nothing is written below it."""
    x = (_rows(heard) @ weights.hear).reshape(*heard.shape[:2], -1)
    return x + weights.of_pitch[None] + read[:, None]


def note_logits(
    pitches: Range,
    weights: NoteWeights,
    hidden: Array,  # (n, n_pitches, hidden): before the ReLU
    keep: Array | None = None,  # (n, hidden)
) -> tuple[Array, Array]:  # (n, 128) each
    """Logits of pitches: that it sounds, and that it is struck again where it sounded."""
    x = jax.nn.relu(hidden)
    if keep is not None:
        x = x * keep[:, None]
    x = jax.nn.relu(affine((weights.hidden, weights.hidden_bias), _rows(x)))
    logits = (x @ weights.write).reshape(*hidden.shape[:2], 2) + weights.write_bias[None]
    sounds, again = jnp.moveaxis(logits, 2, 0)
    return pitches.within(sounds, OUTSIDE), pitches.within(again, 0.0)


def _rows(x: Array) -> Array:  # (n, n_pitches, width) -> (n * n_pitches, width)
    return x.reshape(-1, x.shape[-1])


def _frames_log_p(
    pitches: Range, weights: NoteWeights, frames: Frames
) -> tuple[Array, Array]:  # (n,), (n,)
    """Log-likelihood of the notes above a pitch; and how many draws were not the likeliest."""
    heard, read, keep, notes, before, at = frames
    sounds, again = notes[:, 0], notes[:, 1] & before
    planes = pitches.of(notes.astype(heard.dtype)).reshape(len(notes), -1)
    hidden = before_notes(weights, heard, read)
    hidden = hidden + (planes @ weights.below).reshape(hidden.shape)
    is_on, is_struck = note_logits(pitches, weights, hidden, keep)
    # Likelier than not where above 0.
    is_on, is_struck = jnp.where(sounds, is_on, -is_on), jnp.where(again, is_struck, -is_struck)
    has_struck = sounds & before
    nats = jax.nn.log_sigmoid(is_on) + jnp.where(has_struck, jax.nn.log_sigmoid(is_struck), 0)
    is_above = jnp.arange(N_PITCHES)[None] > at[:, None]
    is_wrong = is_above & ((is_on < 0) | (has_struck & (is_struck < 0)))
    return jnp.sum(jnp.where(is_above, nats, 0), axis=1), jnp.sum(
        is_wrong, axis=1, dtype=nats.dtype
    )


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _log_above(
    pitches: Range,
    weights: NoteWeights,
    frames: Frames,
    is_skipped: Array,  # bool (n,)
) -> tuple[Array, Array]:  # (n,), (n,)
    """As `_frames_log_p`; 0 of those that are skipped.

    They are computed chunk by chunk, as many chunks as it takes; the way back computes them again,
    so that memory is bounded.
    """
    return _log_above_fwd(pitches, weights, frames, is_skipped)[0]


def _log_above_fwd(
    pitches: Range, weights: NoteWeights, frames: Frames, is_skipped: Array
) -> tuple[tuple[Array, Array], tuple[NoteWeights, Frames, Array, Array]]:
    places, n = _in_a_row(is_skipped)

    def chunk(k: Array, sums: tuple[Array, Array]) -> tuple[Array, Array]:  # k: int32 ()
        at, is_one = _chunk(k, places, n)
        found = _frames_log_p(pitches, weights, jax.tree.map(lambda a: a[at], frames))
        log_p, n_wrong = (
            a.at[at].add(jnp.where(is_one, b, 0)) for a, b in zip(sums, found, strict=True)
        )
        return log_p, n_wrong

    zeros = jnp.zeros(len(is_skipped), frames[0].dtype)
    sums = lax.fori_loop(0, -(-n // CHUNK), chunk, (zeros, zeros))
    return sums, (weights, frames, places, n)


def _log_above_bwd(
    pitches: Range,
    kept: tuple[NoteWeights, Frames, Array, Array],
    cotangents: tuple[Array, Array],  # (n,), (n,)
) -> tuple[NoteWeights, Any, None]:
    weights, (heard, read, *others), places, n = kept

    def chunk(k: Array, sums: Any) -> Any:  # k: int32 ()
        at, is_one = _chunk(k, places, n)
        rest = jax.tree.map(lambda a: a[at], others)

        def log_p(weights: NoteWeights, heard: Array, read: Array) -> Array:
            return _frames_log_p(pitches, weights, (heard, read, *rest))[0]

        _, back = jax.vjp(log_p, weights, heard[at], read[at])
        d_weights, *d_frames = back(jnp.where(is_one, cotangents[0][at], 0))
        sum_weights, sum_frames = sums
        added = jax.tree.map(lambda a, b: a.at[at].add(b), sum_frames, tuple(d_frames))
        return jax.tree.map(jnp.add, sum_weights, d_weights), added

    start = jax.tree.map(jnp.zeros_like, (weights, (heard, read)))
    d_weights, d_frames = lax.fori_loop(0, -(-n // CHUNK), chunk, start)
    return d_weights, (*d_frames, None, None, None, None), None


_log_above.defvjp(_log_above_fwd, _log_above_bwd)


def _in_a_row(
    is_skipped: Array,  # bool (n,)
) -> tuple[Array, Array]:  # int32 (n,), int32 ()
    """Where the frames are that are not skipped, one after the other; and how many."""
    number = jnp.arange(len(is_skipped), dtype=jnp.int32)
    n = jnp.sum(~is_skipped, dtype=jnp.int32)
    to = jnp.where(is_skipped, len(number), jnp.cumsum(~is_skipped, dtype=jnp.int32) - 1)
    return jnp.zeros_like(number).at[to].set(number, mode="drop"), n


def _chunk(
    k: Array,  # int32 ()
    places: Array,  # int32 (n,)
    n: Array,  # int32 (): how many there are
) -> tuple[Array, Array]:  # int32 (CHUNK,), bool (CHUNK,)
    """Frames of the k-th chunk, and which of them there are."""
    index = k * CHUNK + jnp.arange(CHUNK, dtype=jnp.int32)
    return places[jnp.minimum(index, len(places) - 1)], index < n
