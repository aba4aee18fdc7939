"""The bodies of the five networks, each with its sequence and its step side by side.

A body turns the vectors of chords into what predicts the next one. It has the parameters, the
function of a sequence (`__call__`), that of one step on parameters laid out (`step`), and the
states that both begin with.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, TypeAlias, TypedDict

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from pianolstm._jax.keys import Rngs
from pianolstm._model.config import NetworkConfig
from pianolstm._model.lstm import Affine, LSTMCarry, LSTMLayer, affine, from_numpy, zeros

RecurrentCarry: TypeAlias = tuple[LSTMCarry, ...]
"""State of each layer."""

HybridCarry: TypeAlias = tuple[Array, Array, tuple[RecurrentCarry, RecurrentCarry]]
"""Inputs that the convolution still sees (batch, CONV_FRAMES - 1, in_features), its last output
(batch, 1, units), and a state for each phase. `step` takes both as (lanes, features)."""

BodyCarry: TypeAlias = Any
"""`RecurrentCarry`, `HybridCarry` or nothing: what the body at hand takes and gives."""

CONV_FRAMES = 5
"""Frames that the hybrid's convolution sees."""

# Variance 1 / (inputs of a unit), as in Flax (LeCun et al. 1998).
lecun = from_numpy(lambda rng, shape: rng.standard_normal(shape) / np.sqrt(np.prod(shape[:-1])))


class RecurrentBody(nnx.Module):
    """One LSTM layer or more, one above the other."""

    def __init__(
        self, in_features: int, units: int, n_layers: int, dropout: float, *, rngs: Rngs
    ) -> None:
        widths = [in_features] + [units] * n_layers
        self.layers = nnx.List([LSTMLayer(w, units, rngs=rngs) for w in widths[:-1]])
        self.dropout = dropout

    def initial_carry(self, batch: int, xp: ModuleType = jnp) -> RecurrentCarry:
        return tuple(layer.initial_carry(batch, xp) for layer in self.layers)

    @property
    def mask_widths(self) -> list[int]:
        """Widths of the dropout masks between layers."""
        return [layer.cell.hidden_features for layer in self.layers[1:]]

    def __call__(
        self,
        x: Array,  # (batch, time, in_features)
        carry: RecurrentCarry,
        valid: Array,  # bool (batch, time)
        masks: Sequence[Array] | None,  # bool (batch, 1, width) for each of `mask_widths`
    ) -> tuple[Array, RecurrentCarry]:  # (batch, time, units)
        carries = []
        for i, (layer, layer_carry) in enumerate(zip(self.layers, carry, strict=True)):
            if i > 0:
                x = drop(x, self.dropout, None if masks is None else masks[i - 1])
            x, layer_carry = layer(x, layer_carry)
            carries.append(layer_carry)
        return x, tuple(carries)

    def step_weights(self) -> list[Affine]:
        """What `step` takes."""
        return [layer.step_weights() for layer in self.layers]

    @staticmethod
    def step(
        weights: list[Affine],
        x: Array,  # (lanes, in_features)
        carry: RecurrentCarry,
    ) -> tuple[Array, RecurrentCarry]:  # (lanes, units)
        """The function of one frame, on parameters laid out."""
        carries = []
        for layer, layer_carry in zip(weights, carry, strict=True):
            x, layer_carry = LSTMLayer.step(layer, x, layer_carry)
            carries.append(layer_carry)
        return x, tuple(carries)

    @staticmethod
    def first_carry(config: NetworkConfig) -> BodyCarry:
        """State of `step` before the first frame, in one lane; without compiling."""
        zeros = np.zeros((1, config.units), np.float32)
        return ((zeros, zeros),) * config.n_layers


class HybridWeights(TypedDict):
    """What `HybridBody.step` takes: of the convolution as one product, and of the layers."""

    conv: Affine
    recurrent: list[Affine]


class HybridBody(nnx.Module):
    """Convolution over the past, max pooling by 2, LSTM layers.

    The pool that ends at the frame before the target holds two frames; the LSTM steps from pool to
    pool, two frames at a time, with one carry for the even and one for the odd targets. So each
    frame has a prediction, and a sequence takes half as many steps as frames.
    """

    def __init__(
        self, in_features: int, units: int, n_layers: int, dropout: float, *, rngs: Rngs
    ) -> None:
        self.conv = nnx.Conv(
            in_features,
            units,
            kernel_size=(CONV_FRAMES,),
            padding="VALID",
            kernel_init=lecun,
            bias_init=zeros,
            rngs=rngs,
        )
        self.recurrent = RecurrentBody(units, units, n_layers, dropout, rngs=rngs)
        self.in_features, self.units = in_features, units

    def initial_carry(self, batch: int, xp: ModuleType = jnp) -> HybridCarry:
        dtype = self.conv.kernel[...].dtype
        seen = xp.zeros((batch, CONV_FRAMES - 1, self.in_features), dtype)
        last = xp.zeros((batch, 1, self.units), dtype)
        phase = self.recurrent.initial_carry(batch, xp)
        return seen, last, (phase, phase)

    @property
    def mask_widths(self) -> list[int]:
        """Widths of the dropout masks between layers, first of one phase, then of the other."""
        return 2 * self.recurrent.mask_widths

    def __call__(
        self,
        x: Array,  # (batch, time, in_features)
        carry: HybridCarry,
        valid: Array,  # bool (batch, time)
        masks: Sequence[Array] | None,  # bool (batch, 1, width) for each of `mask_widths`
    ) -> tuple[Array, HybridCarry]:  # (batch, time, units)
        seen, last, (next_phase, other_phase) = carry
        batch, time, _ = x.shape
        inputs = jnp.concatenate([seen, x], axis=1)
        local = jax.nn.relu(self.conv(inputs))  # (batch, time, units)
        # Outputs of the ReLU are at least 0, so that zeros before the start never win.
        pooled = jnp.maximum(local, jnp.concatenate([last, local[:, :-1]], axis=1))
        carry_on = inputs[:, time:], local[:, -1:]
        if time == 1:
            h, stepped = self.recurrent(pooled, next_phase, valid, masks)
            return h, (*carry_on, (other_phase, stepped))
        if time % 2:
            raise ValueError(f"the hybrid takes an even number of frames, got {time}")
        phases = pooled.reshape(batch, time // 2, 2, -1)
        phases = jnp.moveaxis(phases, 2, 0).reshape(2 * batch, time // 2, -1)
        both = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), next_phase, other_phase)
        if masks is not None:
            n = len(masks) // 2
            pairs = zip(masks[:n], masks[n:], strict=True)
            masks = [jnp.concatenate(pair) for pair in pairs]
        h, both = self.recurrent(phases, both, valid, masks)
        h = jnp.moveaxis(h.reshape(2, batch, time // 2, -1), 0, 2).reshape(batch, time, -1)
        next_phase = jax.tree.map(lambda leaf: leaf[:batch], both)
        other_phase = jax.tree.map(lambda leaf: leaf[batch:], both)
        return h, (*carry_on, (next_phase, other_phase))

    def step_weights(self) -> HybridWeights:
        """What `step` takes."""
        kernel, bias = self.conv.kernel[...], self.conv.bias
        assert bias is not None
        return {
            "conv": (kernel.reshape(-1, kernel.shape[-1]), bias[...]),
            "recurrent": self.recurrent.step_weights(),
        }

    @staticmethod
    def step(
        weights: HybridWeights,
        x: Array,  # (lanes, in_features)
        carry: HybridCarry,
    ) -> tuple[Array, HybridCarry]:  # (lanes, units)
        """The function of one frame, on parameters laid out."""
        seen, last, (next_phase, other_phase) = carry
        seen = jnp.concatenate([seen, x], axis=1)  # frames side by side
        local = jax.nn.relu(affine(weights["conv"], seen))
        h, stepped = RecurrentBody.step(weights["recurrent"], jnp.maximum(local, last), next_phase)
        return h, (seen[:, x.shape[1] :], local, (other_phase, stepped))

    @staticmethod
    def first_carry(config: NetworkConfig) -> BodyCarry:
        """State of `step` before the first frame, in one lane; without compiling."""
        phase = RecurrentBody.first_carry(config)
        seen = np.zeros((1, (CONV_FRAMES - 1) * config.embedding), np.float32)
        return seen, np.zeros((1, config.units), np.float32), (phase, phase)


class BidirectionalBody(nnx.Module):
    """LSTMs in both directions over the past window.

    What predicts the next frame is the forward state at the window's last frame and the backward
    state at its first: each has read everything. Nothing is carried.
    """

    def __init__(self, in_features: int, units: int, *, rngs: Rngs) -> None:
        self.forwards = LSTMLayer(in_features, units, rngs=rngs)
        self.backwards = LSTMLayer(in_features, units, rngs=rngs)

    def initial_carry(self, batch: int, xp: ModuleType = jnp) -> tuple[()]:
        return ()

    mask_widths: tuple[int, ...] = ()
    """It has no layer above another."""

    def __call__(
        self,
        x: Array,  # (batch, time, in_features)
        carry: tuple[()],
        valid: Array,  # bool (batch, time)
        masks: Sequence[Array] | None,  # of no layer
    ) -> tuple[Array, tuple[()]]:  # (batch, 1, 2 * units)
        batch = x.shape[0]
        last, _ = self.forwards(x, self.forwards.initial_carry(batch), valid=valid)
        first, _ = self.backwards(x, self.backwards.initial_carry(batch), valid=valid, reverse=True)
        begin = jnp.argmax(valid, axis=1)  # padding is on the left
        first = jnp.take_along_axis(first, begin[:, None, None], axis=1)
        return jnp.concatenate([last[:, -1:], first], axis=-1), carry


def dropout_masks(
    key: Array,  # key (batch,)
    rate: float,  # share of the features set to zero
    widths: Sequence[int],
) -> list[Array]:  # bool (batch, 1, width) for each width
    """Which features dropout keeps.

    One mask for all frames of a window (Gal and Ghahramani 2016), drawn by the key of its row, so
    that it is the same on whatever device the row is; all at once, since each draw is a program of
    its own to the compiler.
    """

    def of_row(key: Array) -> Array:  # key () -> bool (1, sum(widths))
        return jax.random.bernoulli(key, 1 - rate, (1, sum(widths)))

    return jnp.split(jax.vmap(of_row)(key), np.cumsum(widths)[:-1], axis=2)


def drop(
    x: Array,  # (batch, time, width)
    rate: float,
    mask: Array | None,  # bool (batch, 1, width)
) -> Array:  # (batch, time, width)
    """Features, some set to zero and the others scaled up; None keeps all."""
    return x if mask is None else jnp.where(mask, x / (1 - rate), 0)
