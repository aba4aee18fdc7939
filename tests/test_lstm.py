"""The LSTM layer against Flax's cell run step by step and against NumPy, forward and gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from pianolstm._model import lstm
from pianolstm._model.lstm import LSTMLayer

BATCH, TIME, FEATURES, UNITS = 3, 8, 5, 4
TOLERANCE = 1e-5


@pytest.fixture(params=[1280, 4 * BATCH, 3 * BATCH, 1])
def chunk_rows(request, monkeypatch):
    """Chunks of 8, 4, 2 and 1 steps."""
    monkeypatch.setattr(lstm, "CHUNK_ROWS", request.param)


@pytest.fixture(scope="module")
def case():
    rng = np.random.default_rng(0)
    layer = LSTMLayer(FEATURES, UNITS, rngs=nnx.Rngs(params=1))
    arrays = {
        "x": rng.normal(size=(BATCH, TIME, FEATURES)),
        "c": rng.normal(size=(BATCH, UNITS)),
        "h": rng.normal(size=(BATCH, UNITS)),
        # Cotangents of the outputs and of the last carry: different everywhere.
        "d_out": rng.normal(size=(BATCH, TIME, UNITS)),
        "d_c": rng.normal(size=(BATCH, UNITS)),
        "d_h": rng.normal(size=(BATCH, UNITS)),
    }
    return layer, {k: jnp.asarray(v, jnp.float32) for k, v in arrays.items()}


def flax_steps(cell, x, carry):
    outputs = []
    for t in range(x.shape[1]):
        carry, h = cell(carry, x[:, t])
        outputs.append(h)
    return jnp.stack(outputs, axis=1), carry


def numpy_lstm(w_i, w_h, b, x, c, h):
    """Outputs, last carry, and what the backward pass needs; one step after another."""
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731 (the equation)
    outputs, tape = [], []
    for t in range(x.shape[1]):
        a = x[:, t] @ w_i + h @ w_h + b
        i, f, g, o = np.split(a, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        tape.append((x[:, t], c, h, i, f, g, o))
        c = f * c + i * g
        h = o * np.tanh(c)
        tape[-1] += (c,)
        outputs.append(h)
    return np.stack(outputs, 1), (c, h), tape


def numpy_gradient(w_i, w_h, tape, d_out, d_c, d_h):
    """Backpropagation through time, written out."""
    d_w_i, d_w_h, d_b = np.zeros_like(w_i), np.zeros_like(w_h), np.zeros(w_h.shape[1])
    d_x = []
    for t in reversed(range(len(tape))):
        x, c_before, h_before, i, f, g, o, c = tape[t]
        d_h = d_h + d_out[:, t]
        d_o = d_h * np.tanh(c) * o * (1 - o)
        d_c = d_c + d_h * o * (1 - np.tanh(c) ** 2)
        d_i, d_f = d_c * g * i * (1 - i), d_c * c_before * f * (1 - f)
        d_g = d_c * i * (1 - g**2)
        d_a = np.concatenate([d_i, d_f, d_g, d_o], axis=1)
        d_w_i += x.T @ d_a
        d_w_h += h_before.T @ d_a
        d_b += d_a.sum(0)
        d_x.append(d_a @ w_i.T)
        d_h, d_c = d_a @ w_h.T, d_c * f
    return d_w_i, d_w_h, d_b, np.stack(d_x[::-1], 1), d_c, d_h


def parameters(layer):
    cell = layer.cell
    arrays = (cell.dense_i.kernel[...], cell.dense_h.kernel[...], cell.dense_h.bias[...])
    return tuple(np.asarray(a, np.float64) for a in arrays)


@pytest.mark.usefixtures("chunk_rows")
def test_forward_equals_flax_and_numpy(case):
    layer, a = case
    ours, (c, h) = layer(a["x"], (a["c"], a["h"]))
    flax, (flax_c, flax_h) = flax_steps(layer.cell, a["x"], (a["c"], a["h"]))
    wide = {k: np.asarray(v, np.float64) for k, v in a.items()}
    numpy, (np_c, np_h), _ = numpy_lstm(*parameters(layer), wide["x"], wide["c"], wide["h"])
    for other, other_c, other_h in ((flax, flax_c, flax_h), (numpy, np_c, np_h)):
        np.testing.assert_allclose(ours, other, atol=TOLERANCE)
        np.testing.assert_allclose(c, other_c, atol=TOLERANCE)
        np.testing.assert_allclose(h, other_h, atol=TOLERANCE)


@pytest.mark.usefixtures("chunk_rows")
def test_gradient_equals_flax_and_numpy(case):
    layer, a = case
    graph, state = nnx.split(layer)

    def weighed(run):
        def loss(state, x, c, h):
            outputs, (last_c, last_h) = run(nnx.merge(graph, state), x, (c, h))
            return (
                jnp.sum(outputs * a["d_out"])
                + jnp.sum(last_c * a["d_c"])
                + jnp.sum(last_h * a["d_h"])
            )

        return jax.grad(loss, argnums=(0, 1, 2, 3))(state, a["x"], a["c"], a["h"])

    ours = weighed(lambda m, x, carry: m(x, carry))
    flax = weighed(lambda m, x, carry: flax_steps(m.cell, x, carry))
    for mine, theirs in zip(jax.tree.leaves(ours), jax.tree.leaves(flax), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=TOLERANCE)

    wide = {k: np.asarray(v, np.float64) for k, v in a.items()}
    w_i, w_h, b = parameters(layer)
    *_, tape = numpy_lstm(w_i, w_h, b, wide["x"], wide["c"], wide["h"])
    d_w_i, d_w_h, d_b, d_x, d_c, d_h = numpy_gradient(
        w_i, w_h, tape, wide["d_out"], wide["d_c"], wide["d_h"]
    )
    gradient = nnx.to_pure_dict(ours[0])["cell"]
    np.testing.assert_allclose(gradient["dense_i"]["kernel"], d_w_i, atol=TOLERANCE)
    np.testing.assert_allclose(gradient["dense_h"]["kernel"], d_w_h, atol=TOLERANCE)
    np.testing.assert_allclose(gradient["dense_h"]["bias"], d_b, atol=TOLERANCE)
    for mine, theirs in zip(ours[1:], (d_x, d_c, d_h), strict=True):
        np.testing.assert_allclose(mine, theirs, atol=TOLERANCE)


def test_one_step_is_the_cell(case):
    layer, a = case
    ours, carry = layer(a["x"][:, :1], (a["c"], a["h"]))
    flax, flax_carry = flax_steps(layer.cell, a["x"][:, :1], (a["c"], a["h"]))
    np.testing.assert_array_equal(ours, flax)
    np.testing.assert_array_equal(carry, flax_carry)


@pytest.mark.usefixtures("chunk_rows")
def test_reverse_runs_from_the_end(case):
    layer, a = case
    ours, carry = layer(a["x"], (a["c"], a["h"]), reverse=True)
    turned, turned_carry = layer(a["x"][:, ::-1], (a["c"], a["h"]))
    np.testing.assert_allclose(ours, turned[:, ::-1], atol=TOLERANCE)
    np.testing.assert_allclose(carry, turned_carry, atol=TOLERANCE)


@pytest.mark.usefixtures("chunk_rows")
def test_invalid_steps_set_the_state_to_zero(case):
    layer, a = case
    valid = jnp.array([[False] * 2 + [True] * 6, [True] * 8, [False] * 7 + [True]])
    ours, _ = layer(a["x"], layer.initial_carry(BATCH), valid=valid)
    for row, skipped in enumerate((2, 0, 7)):
        alone, _ = layer(a["x"][row : row + 1, skipped:], layer.initial_carry(1))
        np.testing.assert_allclose(ours[row, skipped:], alone[0], atol=TOLERANCE)
        assert not np.any(np.asarray(ours[row, :skipped]))


@pytest.mark.parametrize(
    ("time", "batch", "rows", "steps"),
    [
        (200, 64, 1280, 20),
        (200, 16, 1280, 50),  # 80 does not divide it
        (200, 2000, 1280, 1),
        (30, 1, 1280, 30),
        (7, 3, 12, 7),  # a prime: 1 step at a time would be slower than all
        (202, 64, 1280, 202),
    ],
)
def test_chunks_divide_the_steps(time, batch, rows, steps, monkeypatch):
    monkeypatch.setattr(lstm, "CHUNK_ROWS", rows)
    assert lstm._chunk_length(time, batch) == steps


def test_initial_parameters(case):
    layer, _ = case
    _, w_h, b = parameters(layer)
    for gate in np.split(w_h, 4, axis=1):
        np.testing.assert_allclose(gate @ gate.T, np.eye(UNITS), atol=1e-6)
    expected = np.zeros(4 * UNITS)
    expected[UNITS : 2 * UNITS] = 1  # the forget gate is the second
    np.testing.assert_array_equal(b, expected)
