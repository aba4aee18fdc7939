"""The LSTM layer: the parameters of a Flax cell on a schedule made for training.

The inputs of all steps are projected in one product before the scan. The backward pass carries
only what depends on the carry (the gradients of h and c); the gradient of the recurrent kernel is
one product over all steps after it, where automatic differentiation would add up one small product
a step.

Conventions
-----------
Sequences are (batch, time, features) outside and (time, batch, features) inside the scan. Gates
are in Flax's order: input, forget, cell, output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.core import Tracer

Carry: TypeAlias = tuple[Array, Array]
"""Cell state c and output h, each (batch, units), as in Flax."""

UNROLL = 2
"""Steps of the scan in one turn of its loop: more gain nothing and compile longer."""

BLANK = -1e9
"""Gate input that closes a gate."""


class LSTMLayer(nnx.Module):
    """One LSTM layer over a sequence.

    Computes the same function as its `nnx.OptimizedLSTMCell` run step by step. The recurrent
    kernel is orthogonal for each gate and the forget gate's bias is 1 (Jozefowicz et al. 2015).

    Parameters
    ----------
    in_features, units : int
        Widths of input and output.
    rngs : nnx.Rngs
        Source of the initial parameters.
    """

    def __init__(self, in_features: int, units: int, *, rngs: nnx.Rngs) -> None:
        self.cell = nnx.OptimizedLSTMCell(
            in_features,
            units,
            kernel_init=from_numpy(_glorot),
            recurrent_kernel_init=from_numpy(_orthogonal_per_gate),
            bias_init=from_numpy(_forget_bias_one),
            rngs=rngs,
        )

    def __call__(
        self, x: Array, carry: Carry, *, valid: Array | None = None, reverse: bool = False
    ) -> tuple[Array, Carry]:
        """Run over a sequence.

        Parameters
        ----------
        x : Array, shape (batch, time, in_features)
            Inputs.
        carry : tuple of Array
            State before the first step (before the last, if `reverse`).
        valid : Array of bool, shape (batch, time), default=None
            At a step that is not valid the state is set to zero.
        reverse : bool, default=False
            Run from the last step to the first.

        Returns
        -------
        outputs : Array, shape (batch, time, units)
        carry : tuple of Array
            State after the last step taken.
        """
        if x.shape[1] == 1 and valid is None:
            carry, h = self.cell(carry, x[:, 0])
            return h[:, None], carry
        bias = self.cell.dense_h.bias
        assert bias is not None
        # Time first before the product: the inputs are a fraction of the gates.
        gates = jnp.swapaxes(x, 0, 1) @ self.cell.dense_i.kernel[...] + bias[...]
        if valid is not None:
            gates = jnp.where(valid.T[..., None], gates, BLANK)
        outputs, carry = _scan(gates, self.cell.dense_h.kernel[...], carry, reverse)
        return jnp.swapaxes(outputs, 0, 1), carry

    def initial_carry(self, batch: int) -> Carry:
        """A state of zeros."""
        zeros = jnp.zeros((batch, self.cell.hidden_features))
        return zeros, zeros


def _step(gates: Array, c: Array) -> tuple[Array, Array, tuple[Array, ...]]:
    """Equations of the cell from its gates' inputs: new c, new h, activated gates."""
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    i, f, g, o = jax.nn.sigmoid(i), jax.nn.sigmoid(f), jnp.tanh(g), jax.nn.sigmoid(o)
    c = f * c + i * g
    return c, o * jnp.tanh(c), (i, f, g, o)


@jax.custom_vjp
def _forward_scan(gates: Array, kernel: Array, carry: Carry) -> tuple[Array, Carry]:
    """Outputs (time, batch, units) and last carry, from the projected inputs."""

    def step(carry: Carry, gates_t: Array) -> tuple[Carry, Array]:
        c, h = carry
        c, h, _ = _step(gates_t + h @ kernel, c)
        return (c, h), h

    carry, outputs = lax.scan(step, carry, gates, unroll=UNROLL)
    return outputs, carry


def _forward_scan_fwd(gates: Array, kernel: Array, carry: Carry) -> tuple:
    def step(carry: Carry, gates_t: Array) -> tuple[Carry, tuple]:
        c, h = carry
        new_c, new_h, activated = _step(gates_t + h @ kernel, c)
        return (new_c, new_h), (new_h, new_c, jnp.concatenate(activated, axis=-1))

    last, (outputs, cells, activated) = lax.scan(step, carry, gates, unroll=UNROLL)
    return (outputs, last), (kernel, carry, outputs, cells, activated)


def _forward_scan_bwd(residuals: tuple, cotangents: tuple) -> tuple:
    kernel, (c0, h0), outputs, cells, activated = residuals
    d_outputs, (d_c, d_h) = cotangents
    before = jnp.concatenate([c0[None], cells[:-1]])
    kernel_t = kernel.T

    def step(carry: Carry, step_t: tuple) -> tuple[Carry, Array]:
        d_c, d_h = carry
        d_out, c_before, c, gates = step_t
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        d_h = d_h + d_out
        tanh_c = jnp.tanh(c)
        d_c = d_c + d_h * o * (1 - tanh_c**2)
        d_gates = jnp.concatenate(
            [
                d_c * g * i * (1 - i),
                d_c * c_before * f * (1 - f),
                d_c * i * (1 - g**2),
                d_h * tanh_c * o * (1 - o),
            ],
            axis=-1,
        )
        return (d_c * f, d_gates @ kernel_t), d_gates

    d_carry, d_gates = lax.scan(
        step, (d_c, d_h), (d_outputs, before, cells, activated), reverse=True, unroll=UNROLL
    )
    h_before = jnp.concatenate([h0[None], outputs[:-1]])
    units = h0.shape[-1]
    d_kernel = h_before.reshape(-1, units).T @ d_gates.reshape(-1, 4 * units)
    return d_gates, d_kernel, d_carry


_forward_scan.defvjp(_forward_scan_fwd, _forward_scan_bwd)


def _scan(gates: Array, kernel: Array, carry: Carry, reverse: bool) -> tuple[Array, Carry]:
    if not reverse:
        return _forward_scan(gates, kernel, carry)
    outputs, carry = _forward_scan(gates[::-1], kernel, carry)
    return outputs[::-1], carry


def from_numpy(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> Any:
    """A Flax initialiser that draws with NumPy, where JAX would compile for seconds."""

    def init(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        if isinstance(key, Tracer):  # under eval_shape, which asks for shapes alone
            return jnp.zeros(shape, dtype)
        rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
        return jnp.asarray(draw(rng, shape), dtype)

    return init


def _orthogonal_per_gate(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    units = shape[0]
    q, r = np.linalg.qr(rng.standard_normal((4, units, units)))
    # Signs of the diagonal of r make it uniform over orthogonal matrices (Mezzadri 2007).
    q *= np.sign(np.einsum("gii->gi", r))[:, None, :]
    return np.concatenate(q, axis=1)


def _glorot(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    limit = np.sqrt(6 / sum(shape))
    return rng.uniform(-limit, limit, shape)


def _forget_bias_one(_: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    gates = np.zeros((4, shape[0] // 4))
    gates[1] = 1
    return gates.ravel()
