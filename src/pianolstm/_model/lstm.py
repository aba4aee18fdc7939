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
from types import ModuleType
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.core import Tracer

from pianolstm._jax.keys import Rngs

LSTMCarry: TypeAlias = tuple[Array, Array]
"""Cell state c and output h, each (batch, units), as in Flax."""

Affine: TypeAlias = tuple[Array | np.ndarray, Array | np.ndarray]
"""Kernel (in_features, out_features) and bias (out_features,)."""

Initializer: TypeAlias = Callable[..., Array]
"""Gives parameters of a key, a shape and a type, as Flax asks for them."""

Kept: TypeAlias = tuple[Array, ...]
"""Outputs, cells (time, batch, units) and activated gates (time, batch, 4 * units) of all steps."""

State: TypeAlias = tuple[Kept, LSTMCarry]
"""What steps on the way forth hand on."""

Residuals: TypeAlias = tuple[Array, Array, Array, LSTMCarry, Kept]
"""Of the way back: inputs, both kernels, first carry, and what is kept of the steps."""

Sums: TypeAlias = tuple[Array, Array, Array, LSTMCarry]
"""Gradients of kernel, bias and recurrent kernel so far, and of the carry."""

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

    def __init__(self, in_features: int, units: int, *, rngs: Rngs) -> None:
        self.cell = nnx.OptimizedLSTMCell(
            in_features,
            units,
            kernel_init=from_numpy(_glorot),
            recurrent_kernel_init=from_numpy(_orthogonal_per_gate),
            bias_init=from_numpy(_forget_bias_one),
            rngs=rngs,
        )

    def __call__(
        self,
        x: Array,  # (batch, time, in_features)
        carry: LSTMCarry,
        *,
        valid: Array | None = None,  # bool (batch, time)
        reverse: bool = False,
    ) -> tuple[Array, LSTMCarry]:  # (batch, time, units)
        """Run over a sequence from a state; give the outputs, and the state after all steps.

        At a step that is not valid the state is set to zero. `reverse` runs from the last step to
        the first.
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

    def initial_carry(self, batch: int, xp: ModuleType = jnp) -> LSTMCarry:
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
    def step(
        weights: Affine,
        x: Array,  # (lanes, in_features)
        carry: LSTMCarry,
    ) -> tuple[Array, LSTMCarry]:  # (lanes, units)
        """The layer's function of one step, on parameters laid out."""
        c, h = carry
        gates = affine(weights, jnp.concatenate([x, h], axis=1))
        i, f, g, o = jnp.split(gates, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return h, (c, h)


@jax.custom_vjp
def _run(
    x: Array,  # (time, batch, in_features)
    valid: Array | None,  # bool (time, batch)
    kernel: Array,  # (in_features, 4 * units)
    bias: Array,  # (4 * units,)
    recurrent: Array,  # (units, 4 * units)
    carry: LSTMCarry,
) -> tuple[Array, LSTMCarry]:  # (time, batch, units)
    """Outputs and last carry."""
    (outputs, *_), carry = _forward(x, valid, kernel, bias, recurrent, carry, keep=False)
    return outputs, carry


def _run_fwd(
    x: Array,  # (time, batch, in_features)
    valid: Array | None,  # bool (time, batch)
    kernel: Array,  # (in_features, 4 * units)
    bias: Array,  # (4 * units,)
    recurrent: Array,  # (units, 4 * units)
    carry: LSTMCarry,
) -> tuple[tuple[Array, LSTMCarry], Residuals]:  # (time, batch, units)
    kept, last = _forward(x, valid, kernel, bias, recurrent, carry, keep=True)
    return (kept[0], last), (x, kernel, recurrent, carry, kept)


def _forward(
    x: Array,  # (time, batch, in_features)
    valid: Array | None,  # bool (time, batch)
    kernel: Array,  # (in_features, 4 * units)
    bias: Array,  # (4 * units,)
    recurrent: Array,  # (units, 4 * units)
    carry: LSTMCarry,
    *,
    keep: bool,
) -> State:
    """Outputs of all steps, if `keep` also cells and activated gates; and the last carry."""
    (time, batch, _), units = x.shape, recurrent.shape[0]
    n = _chunk_length(time, batch)
    scale = np.full(4 * units, 0.5, x.dtype)  # sigmoid(x) = tanh(x / 2) / 2 + 1 / 2
    scale[2 * units : 3 * units] = 1
    scale = scale[None]

    def chunk(k: Array, state: State) -> State:  # k: int32 ()
        inputs = lax.dynamic_slice_in_dim(x, k * n, n)
        gates = affine((kernel, bias), _rows(inputs)).reshape(n, batch, -1)
        if valid is not None:
            now = lax.dynamic_slice_in_dim(valid, k * n, n)
            gates = jnp.where(now[..., None], gates, BLANK)

        def step(j: Array, state: State) -> State:  # j: int32 ()
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


def _run_bwd(
    residuals: Residuals,
    cotangents: tuple[Array, LSTMCarry],  # (time, batch, units)
) -> tuple[Array, None, Array, Array, Array, LSTMCarry]:  # gradients of what `_run` takes
    x, kernel, recurrent, (c0, h0), (outputs, cells, activated) = residuals
    d_outputs, d_carry = cotangents
    n = _chunk_length(*x.shape[:2])

    def chunk(
        sums: Sums,
        arrays: tuple[Array, ...],  # of a chunk, (n, batch, …), and carried to it, (batch, units)
    ) -> tuple[Sums, Array]:  # (n, batch, in_features)
        d_kernel, d_bias, d_recurrent, d_carry = sums
        x, d_outputs, outputs, cells, activated, c_before, h_before = arrays
        # All that does not depend on the gradients carried, for the whole chunk at once.
        before = jnp.concatenate([c_before[None], cells[:-1]])
        i, f, g, o = jnp.split(activated, 4, axis=-1)
        tanh_c = jnp.tanh(cells)
        slope = jnp.concatenate(
            [g * i * (1 - i), before * f * (1 - f), i * (1 - g**2), tanh_c * o * (1 - o)], axis=-1
        )

        def step(carry: LSTMCarry, now: tuple[Array, ...]) -> tuple[LSTMCarry, Array]:  # (batch, …)
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


def _rows(a: Array) -> Array:  # (time, batch, width) -> (time * batch, width)
    """One row a step and sequence. A product of matrices is faster than one of three axes."""
    return a.reshape(-1, a.shape[-1])


def _at(a: Array, i: Array) -> Array:  # (n, …), int32 () -> (…)
    return lax.dynamic_index_in_dim(a, i, 0, keepdims=False)


def affine(weights: Affine, x: Array) -> Array:  # (n, in_features) -> (n, out_features)
    """The product with a kernel, and a bias."""
    kernel, bias = weights
    x = x @ kernel
    return x + along(bias, x[..., 0])


def along(
    vector: Array | np.ndarray,  # (n,)
    x: Array,  # (…)
) -> Array | np.ndarray:  # (1, …, 1, n)
    """A vector as the last axis beside others, said and not left to broadcasting."""
    return vector.reshape((1,) * x.ndim + vector.shape)


def from_numpy(draw: Callable[[np.random.Generator, tuple[int, ...]], np.ndarray]) -> Initializer:
    """A Flax initialiser that draws with NumPy, where JAX would compile for seconds."""

    def init(
        key: Array | np.ndarray,  # key (), or its words, uint32 (2,)
        shape: tuple[int, ...],
        dtype: jax.typing.DTypeLike = jnp.float32,
    ) -> Array:  # (*shape)
        if isinstance(key, Tracer):  # under eval_shape, which asks for shapes alone
            return jnp.zeros(shape, dtype)
        # A key of `Keys`, or of nnx.Rngs.
        words = key if isinstance(key, np.ndarray) else np.asarray(jax.random.key_data(key))
        rng = np.random.default_rng(words)
        return jax.device_put(np.asarray(draw(rng, shape), dtype))

    return init


def no_draw(*shape: int) -> Array:  # (*shape)
    """Zeros, without compiling."""
    return jax.device_put(np.zeros(shape, np.float32))


zeros = from_numpy(lambda _, shape: np.zeros(shape))


def _orthogonal_per_gate(
    rng: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:  # float64 (units, 4 * units)
    units = shape[0]
    q, r = np.linalg.qr(rng.standard_normal((4, units, units)))
    # Signs of the diagonal of r make it uniform over orthogonal matrices (Mezzadri 2007).
    q *= np.sign(np.einsum("gii->gi", r))[:, None, :]
    return np.concatenate(q, axis=1)


def _glorot(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:  # float64 (*shape)
    limit = np.sqrt(6 / sum(shape))
    return rng.uniform(-limit, limit, shape)


def _forget_bias_one(
    _: np.random.Generator, shape: tuple[int, ...]
) -> np.ndarray:  # float64 (4 * units,)
    gates = np.zeros((4, shape[0] // 4))
    gates[1] = 1
    return gates.ravel()
