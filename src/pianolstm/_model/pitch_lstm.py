"""An LSTM for each pitch, all with the same weights: what is heard is heard in every key.

Each pitch has a state of its own, that reads what sounds and what begins around it, as intervals:
the same music a tone higher gives the same states a tone higher. What is not the same in all keys
(range, register, what hands can do) is a vector that each pitch has beside. (Tied over pitches, as
in the networks of Johnson 2017.)

Conventions
-----------
Pitches stand side by side, those of the network's range alone: `Range`. "Planes" are two bits of
each: whether it sounds, and whether it begins or is struck again.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from pianolstm._jax.keys import Rngs
from pianolstm._model.lstm import Affine, LSTMLayer, from_numpy, no_draw
from pianolstm._model.planes import N_AGES, age_class, unpack_words
from pianolstm.chords import unpack
from pianolstm.rolls import N_PITCHES

PitchCarry: TypeAlias = tuple[Array, Array, Array]
"""Cells and outputs of all pitches, (batch, n_pitches, units) each, and what sounded, uint32
(batch, 4)."""

N_INTERVALS = 2 * N_PITCHES - 1
"""From 127 semitones below to as many above."""

MULTIPLE = 8
"""Of pitches, at which a range may begin and end."""

USUAL_NOTES = 5
"""Notes of a frame that the first weights of intervals are made for."""

normal = from_numpy(lambda rng, shape: rng.standard_normal(shape))
intervals = from_numpy(lambda rng, shape: rng.standard_normal(shape) / np.sqrt(2 * USUAL_NOTES))


@dataclass(frozen=True)
class Range:
    """Pitches that a network hears and writes one by one."""

    lowest: int
    n_pitches: int

    @classmethod
    def around(
        cls,
        chords: np.ndarray,  # uint64 (n, 4)
        margin: int,
        others: Range | None = None,
    ) -> Range:
        """The pitches of some chords and so many more each way, and those of a range.

        Its ends are multiples of `MULTIPLE`, so that few sizes are compiled.
        """
        sounding = np.flatnonzero(unpack(chords)[:, :N_PITCHES].any(axis=0))
        first, last = (sounding[0] - margin, sounding[-1] + margin) if len(sounding) else (60, 60)
        if others is not None:
            first, last = min(first, others.lowest), max(last, others.lowest + others.n_pitches - 1)
        lowest = max(0, first // MULTIPLE * MULTIPLE)
        end = min(N_PITCHES, (last // MULTIPLE + 1) * MULTIPLE)
        return cls(int(lowest), int(end - lowest))

    def of(self, planes: Array) -> Array:  # (…, 128) -> (…, n_pitches)
        """Those of all."""
        return planes[..., self.lowest : self.lowest + self.n_pitches]

    def within(
        self,
        values: Array,  # (…, n_pitches)
        outside: float,
    ) -> Array:  # (…, 128)
        """The reverse, with the same value for all others."""
        above = N_PITCHES - self.lowest - self.n_pitches
        pads = [(0, 0)] * (values.ndim - 1) + [(self.lowest, above)]
        return jnp.pad(values, pads, constant_values=outside)


ALL_PITCHES = Range(0, N_PITCHES)


class Intervals(nnx.Module):
    """Vectors of intervals, and of intervals less their octaves, for each plane."""

    def __init__(self, width: int, *, rngs: Rngs) -> None:
        self.interval = nnx.Param(intervals(rngs.params(), (2, N_INTERVALS, width)))
        self.pitch_class = nnx.Param(no_draw(2, 12, width))

    def table(self, n_pitches: int) -> Array:  # (2, 2 * n_pitches - 1, width)
        """A vector for each interval, from ``1 - n_pitches`` on."""
        first = N_PITCHES - n_pitches
        n = 2 * n_pitches - 1
        octaves = -(-n // 12)
        classes = jnp.tile(jnp.roll(self.pitch_class[...], n_pitches - 1, axis=1), (1, octaves, 1))
        return self.interval[...][:, first : first + n] + classes[:, :n]


def from_everywhere(table: Array) -> Array:  # (2, 2 * n - 1, width) -> (2 * n, n, width)
    """The vector of each plane's each pitch for each pitch, which is that of their interval.

    (The rows are those of the table, each shifted by one: as the table over and over, cut into rows
    that are shorter by one. Picking them one by one takes the way back much longer.)
    """
    _, length, width = table.shape
    n = (length + 1) // 2
    rows = jnp.tile(table, (1, n, 1))[:, n - 1 : n - 1 + n * (length - 1)]
    return rows.reshape(2, n, length - 1, width)[:, :, :n].reshape(2 * n, n, width)


class PitchLSTM(nnx.Module):
    """Reads chords; gives a state of each pitch after each.

    Parameters
    ----------
    width, units : int
        Features read, and features of a state.
    """

    def __init__(self, width: int, units: int, *, rngs: Rngs) -> None:
        self.heard = Intervals(width, rngs=rngs)
        self.bias = nnx.Param(no_draw(width))
        self.pitch = nnx.Param(no_draw(N_PITCHES, width))
        self.lasted = nnx.Param(0.1 * normal(rngs.params(), (N_AGES, width)))
        self.layer = LSTMLayer(width, units, rngs=rngs)

    def initial_carry(self, batch: int, pitches: Range, xp: ModuleType) -> PitchCarry:
        """States of a piece's beginning, see `ChordNetwork.initial_carry`."""
        kernel = self.layer.cell.dense_h.kernel[...]
        zeros = xp.zeros((batch, pitches.n_pitches, len(kernel)), kernel.dtype)
        return zeros, zeros, xp.zeros((batch, 4), np.uint32)

    def __call__(
        self,
        bits: Array,  # uint32 (batch, time, 8)
        ages: Array,  # int32 (batch, time): frames that the chord before each lasted
        carry: PitchCarry,
        pitches: Range,
        valid: Array | None = None,  # bool (batch, time)
    ) -> tuple[Array, PitchCarry]:  # (batch, time, n_pitches, units)
        """Run over a sequence from a state; at a step that is not valid states are set to zero."""
        c, h, sounded = carry
        batch, time, _ = bits.shape
        n, units = pitches.n_pitches, c.shape[-1]
        # Time first, as the layer has it inside.
        bits = jnp.swapaxes(bits, 0, 1)
        before = jnp.concatenate([sounded[None], bits[:-1, :, :4]])
        x = inputs(
            self.reading(pitches),
            bits.reshape(-1, 8),
            before.reshape(-1, 4),
            ages.T.reshape(-1),
            pitches,
        )
        x = jnp.swapaxes(x.reshape(time, batch * n, -1), 0, 1)
        state = c.reshape(batch * n, units), h.reshape(batch * n, units)
        valid = None if valid is None else jnp.repeat(valid, n, axis=0)
        x, (c, h) = self.layer(x, state, valid=valid)
        heard = jnp.swapaxes(x.reshape(batch, n, time, units), 1, 2)
        return heard, (c.reshape(batch, n, units), h.reshape(batch, n, units), bits[-1, :, :4])

    def reading(self, pitches: Range) -> Reading:
        """What `inputs` takes."""
        table = from_everywhere(self.heard.table(pitches.n_pitches))
        of_pitch = self.pitch[...][pitches.lowest : pitches.lowest + pitches.n_pitches]
        return Reading(
            table.reshape(len(table), -1), of_pitch + self.bias[...][None], self.lasted[...]
        )


class Reading(NamedTuple):
    """What each pitch reads a chord by."""

    heard: Array  # (2 * n_pitches, n_pitches * width)
    bias: Array  # (n_pitches, width)
    lasted: Array  # (N_AGES, width)


def inputs(
    reading: Reading,
    bits: Array,  # uint32 (n, 8)
    before: Array,  # uint32 (n, 4): bits of the pitches that sounded before
    ages: Array,  # int32 (n,): frames that they lasted
    pitches: Range,
) -> Array:  # (n, n_pitches, width)
    """What each pitch's LSTM reads."""
    heard, bias, lasted = reading
    sounds = pitches.of(unpack_words(bits[:, :4]))
    begins = pitches.of(unpack_words((bits[:, :4] & ~before) | bits[:, 4:]))
    x = jnp.concatenate([sounds, begins], axis=1) @ heard
    x = x.reshape(len(x), *bias.shape)
    return jax.nn.relu(x + bias[None] + lasted[age_class(ages)][:, None])


def step(
    weights: tuple[Reading, Affine],
    bits: Array,  # uint32 (lanes, 8)
    ages: Array,  # int32 (lanes,)
    carry: PitchCarry,
    pitches: Range,
) -> PitchCarry:
    """The function of one frame, on parameters laid out."""
    c, h, sounded = carry
    reading, layer = weights
    x = inputs(reading, bits, sounded, ages, pitches)
    state = c.reshape(-1, c.shape[-1]), h.reshape(-1, h.shape[-1])
    _, (c_, h_) = LSTMLayer.step(layer, x.reshape(-1, x.shape[-1]), state)
    return c_.reshape(c.shape), h_.reshape(h.shape), bits[:, :4]
