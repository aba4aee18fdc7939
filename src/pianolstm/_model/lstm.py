"""The LSTM layer: the parameters of a Flax cell on a schedule made for training.

Time goes by in chunks of some steps. Forwards, the inputs of a chunk are projected in one product
before its steps are taken. Backwards, all factors that do not depend on the gradients carried are
made for a chunk at once, its steps carry the gradients of c and h alone, and the gradients of the
kernels are one product each after them, where automatic differentiation would add up one small
product a step. What a chunk needs stays in the cache; only outputs, cells and activated gates go to
memory.

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

Affine: TypeAlias = tuple[Any, Any]
"""Kernel and bias."""

CHUNK_ROWS = 1280
"""Rows (steps times batch) whose gates are made at once: they stay in the processor's cache."""

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
    rngs : Keys
        Source of the initial parameters.
    """

    def __init__(self, in_features: int, units: int, *, rngs: Any) -> None:
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
        x, valid = jnp.swapaxes(x, 0, 1), None if valid is None else valid.T
        if reverse:
            x, valid = x[::-1], None if valid is None else valid[::-1]
        kernel, recurrent = self.cell.dense_i.kernel[...], self.cell.dense_h.kernel[...]
        outputs, carry = _run(x, valid, kernel, bias[...], recurrent, carry)
        return jnp.swapaxes(outputs[::-1] if reverse else outputs, 0, 1), carry

    def initial_carry(self, batch: int, xp: Any = jnp) -> Carry:
        """A state of zeros; see `ChordNetwork.initial_carry`."""
        kernel = self.cell.dense_h.kernel[...]
        zeros = xp.zeros((batch, self.cell.hidden_features), kernel.dtype)
        return zeros, zeros

    def step_weights(self) -> Affine:
        """What `step` takes: both kernels in one, and the bias."""
        kernels = self.cell.dense_i.kernel[...], self.cell.dense_h.kernel[...]
        bias = self.cell.dense_h.bias
        assert bias is not None
        return np.concatenate(kernels), bias[...]

    @staticmethod
    def step(weights: Affine, x: Array, carry: Carry) -> tuple[Array, Carry]:
        """The layer's function of one step, x (lanes, in_features), on parameters laid out."""
        c, h = carry
        gates = affine(weights, jnp.concatenate([x, h], axis=1))
        i, f, g, o = jnp.split(gates, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return h, (c, h)


@jax.custom_vjp
def _run(
    x: Array, valid: Array | None, kernel: Array, bias: Array, recurrent: Array, carry: Carry
) -> tuple[Array, Carry]:
    """Outputs (time, batch, units) and last carry of inputs (time, batch, in_features)."""
    (outputs, *_), carry = _forward(x, valid, kernel, bias, recurrent, carry, keep=False)
    return outputs, carry


def _run_fwd(
    x: Array, valid: Array | None, kernel: Array, bias: Array, recurrent: Array, carry: Carry
) -> tuple:
    kept, last = _forward(x, valid, kernel, bias, recurrent, carry, keep=True)
    return (kept[0], last), (x, kernel, recurrent, carry, kept)


def _forward(
    x: Array,
    valid: Array | None,
    kernel: Array,
    bias: Array,
    recurrent: Array,
    carry: Carry,
    *,
    keep: bool,
) -> tuple[tuple[Array, ...], Carry]:
    """Outputs of all steps, if `keep` also cells and activated gates; and the last carry."""
    (time, batch, _), units = x.shape, recurrent.shape[0]
    n = _chunk_length(time, batch)
    scale = np.full(4 * units, 0.5, x.dtype)  # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2
    scale[2 * units : 3 * units] = 1

    def chunk(k: Array, state: tuple) -> tuple:
        inputs = lax.dynamic_slice_in_dim(x, k * n, n)
        gates = (_rows(inputs) @ kernel + bias).reshape(n, batch, -1)
        if valid is not None:
            now = lax.dynamic_slice_in_dim(valid, k * n, n)
            gates = jnp.where(now[..., None], gates, BLANK)

        def step(j: Array, state: tuple) -> tuple:
            kept, (c, h) = state
            activated = jnp.tanh((_at(gates, j) + h @ recurrent) * scale) * scale + (1 - scale)
            i, f, g, o = jnp.split(activated, 4, axis=-1)
            c = f * c + i * g
            h = o * jnp.tanh(c)
            new = (h, c, activated)[: len(kept)]
            kept = tuple(
                lax.dynamic_update_index_in_dim(a, value, k * n + j, 0)
                for a, value in zip(kept, new, strict=True)
            )
            return kept, (c, h)

        return lax.fori_loop(0, n, step, state)

    widths = (units, units, 4 * units) if keep else (units,)
    kept = tuple(jnp.zeros((time, batch, width), x.dtype) for width in widths)
    return lax.fori_loop(0, time // n, chunk, (kept, carry))


def _run_bwd(residuals: tuple, cotangents: tuple) -> tuple:
    x, kernel, recurrent, (c0, h0), (outputs, cells, activated) = residuals
    d_outputs, d_carry = cotangents
    n = _chunk_length(*x.shape[:2])

    def chunk(sums: tuple, arrays: tuple) -> tuple[tuple, Array]:
        d_kernel, d_bias, d_recurrent, d_carry = sums
        x, d_outputs, outputs, cells, activated, c_before, h_before = arrays
        # All that does not depend on the gradients carried, for the whole chunk at once.
        before = jnp.concatenate([c_before[None], cells[:-1]])
        i, f, g, o = jnp.split(activated, 4, axis=-1)
        tanh_c = jnp.tanh(cells)
        slope = jnp.concatenate(
            [g * i * (1 - i), before * f * (1 - f), i * (1 - g**2), tanh_c * o * (1 - o)], axis=-1
        )

        def step(carry: Carry, now: tuple) -> tuple[Carry, Array]:
            d_c, d_h = carry
            slope, to_c, f, d_output = now
            d_h = d_h + d_output
            d_c = d_c + d_h * to_c
            d_gates = slope * jnp.concatenate([d_c, d_c, d_c, d_h], axis=-1)
            return (d_c * f, d_gates @ recurrent.T), d_gates

        steps = slope, o * (1 - tanh_c**2), f, d_outputs
        d_carry, d_gates = lax.scan(step, d_carry, steps, reverse=True)
        d_gates = _rows(d_gates)
        before = jnp.concatenate([h_before[None], outputs[:-1]])
        sums = (
            d_kernel + _rows(x).T @ d_gates,
            d_bias + jnp.sum(d_gates, axis=0),
            d_recurrent + _rows(before).T @ d_gates,
            d_carry,
        )
        return sums, (d_gates @ kernel.T).reshape(x.shape)

    chunks = [a.reshape(-1, n, *a.shape[1:]) for a in (x, d_outputs, outputs, cells, activated)]
    ends = [
        jnp.concatenate([first[None], a[n - 1 : -1 : n]])
        for first, a in ((c0, cells), (h0, outputs))
    ]
    zeros = jnp.zeros_like(kernel), jnp.zeros_like(kernel[0]), jnp.zeros_like(recurrent)
    sums, d_x = lax.scan(chunk, (*zeros, d_carry), (*chunks, *ends), reverse=True)
    d_kernel, d_bias, d_recurrent, d_carry = sums
    return d_x.reshape(x.shape), None, d_kernel, d_bias, d_recurrent, d_carry


_run.defvjp(_run_fwd, _run_bwd)


def _chunk_length(time: int, batch: int) -> int:
    """Steps of a chunk: a divisor of all steps, near `CHUNK_ROWS` rows."""
    longest = max(1, min(time, CHUNK_ROWS // batch))
    n = next(n for n in range(longest, 0, -1) if time % n == 0)
    return n if 2 * n >= longest else time


def _rows(a: Array) -> Array:
    """One row a step and sequence. A product of matrices is faster than one of three axes."""
    return a.reshape(-1, a.shape[-1])


def _at(a: Array, i: Array) -> Array:
    return lax.dynamic_index_in_dim(a, i, 0, keepdims=False)


def affine(weights: Affine, x: Array) -> Array:
    """The product with a kernel, and a bias."""
    kernel, bias = weights
    return x @ kernel + bias


def from_numpy(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> Any:
    """A Flax initialiser that draws with NumPy, where JAX would compile for seconds."""

    def init(key: Any, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        if isinstance(key, Tracer):  # under eval_shape, which asks for shapes alone
            return jnp.zeros(shape, dtype)
        # A key of `Keys`, or of nnx.Rngs.
        words = key if isinstance(key, np.ndarray) else np.asarray(jax.random.key_data(key))
        rng = np.random.default_rng(words)
        return jax.device_put(np.asarray(draw(rng, shape), dtype))

    return init


def no_draw(*shape: int) -> Array:
    """Zeros, without compiling."""
    return jax.device_put(np.zeros(shape, np.float32))


zeros = from_numpy(lambda _, shape: np.zeros(shape))


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
