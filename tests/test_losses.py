"""The chunked softmax against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pianolstm._model import losses
from pianolstm._model.planes import NEVER

N, VOCABULARY, WIDTH = 11, 9, 4


@pytest.fixture
def case():
    """Features, table and bias, targets, weights; what is recalled comes, or not, or is nothing."""
    rng = np.random.default_rng(1)
    rows = jnp.asarray([0, 3, 5, 6, 7, 8, 8, 1, 6, 2, 5], jnp.int32)
    gate = rng.normal(0, 2, N)
    gate[[1, 4]] = NEVER
    return (
        jnp.asarray(rng.normal(size=(N, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(size=(VOCABULARY, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(size=VOCABULARY), jnp.float32),
        losses.TargetRows(
            rows,
            jnp.where(jnp.arange(N) % 3 == 0, -1, (rows + 2) % VOCABULARY).astype(jnp.int32),
            jnp.asarray(gate, jnp.float32),
            jnp.arange(N) % 2 == 0,
        ),
        jnp.asarray(rng.choice([0.5, 1.0, 2.5], N), jnp.float32).at[9].set(0),
    )


def impossible(targets):
    return np.arange(VOCABULARY) == np.asarray(targets.barred)[:, None]


def plain_log_p(features, table, bias, targets):
    """Of each frame, by the network alone."""
    logits = jnp.where(impossible(targets), -jnp.inf, features @ table.T + bias)
    return jax.nn.log_softmax(logits)[jnp.arange(N), targets.rows]


def mixed_log_p(features, table, bias, targets):
    """Of each frame, as the sum of both ways to it."""
    p, g = jnp.exp(plain_log_p(features, table, bias, targets)), jax.nn.sigmoid(targets.gate)
    return jnp.log(g * targets.is_recalled + (1 - g) * p)


@pytest.mark.parametrize("rows", [1, 4, 100])  # one row a chunk, an uneven number, all at once
def test_loss_and_gradients_equal_the_plain_ones(case, rows, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", rows * VOCABULARY)
    features, table, bias, targets, weights = case
    arguments = features, table, bias, targets.gate

    def ours(f, t, b, gate):
        output, those = losses.Output(t, b), targets._replace(gate=gate)
        return 3.0 * losses.softmax_loss(f, output, those, weights)[0]

    def theirs(f, t, b, gate):
        log_p = mixed_log_p(f, t, b, targets._replace(gate=gate))
        return -3.0 * jnp.sum(weights * log_p)

    np.testing.assert_allclose(ours(*arguments), theirs(*arguments), rtol=1e-6)
    mine = jax.grad(ours, argnums=(0, 1, 2, 3))(*arguments)
    other = jax.grad(theirs, argnums=(0, 1, 2, 3))(*arguments)
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_right_guesses_are_counted(case, rows, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", rows * VOCABULARY)
    features, table, bias, targets, weights = case
    logits = np.array(features @ table.T + bias)
    logits[impossible(targets)] = -np.inf
    guesses = np.argmax(logits, axis=1)
    targets = targets._replace(rows=targets.rows.at[2].set(guesses[2]).at[10].set(guesses[10]))
    weights = weights.at[2].set(2.5)
    is_right = guesses == np.asarray(targets.rows)
    assert is_right.any() and not is_right.all()
    output = losses.Output(table, bias)
    n_right = losses.softmax_loss(features, output, targets, weights)[1]
    assert float(n_right) == pytest.approx(np.sum(np.asarray(weights)[is_right]))
    log_p, right = losses.log_likelihoods(features, output, *targets[:2])
    np.testing.assert_array_equal(right, is_right)
    expected = plain_log_p(features, table, bias, targets)
    np.testing.assert_allclose(log_p, expected, rtol=1e-5)


def test_the_logits_are_never_whole():
    """No array of the compiled step is as large as all logits together."""
    n, vocabulary = 4096, 8192

    def array(kind, *shape):
        return jax.ShapeDtypeStruct(shape, kind)

    arguments = [
        array(jnp.float32, n, 8),
        array(jnp.float32, vocabulary, 8),
        losses.TargetRows(
            array(jnp.int32, n),
            array(jnp.int32, n),
            array(jnp.float32, n),
            array(jnp.bool_, n),
        ),
        array(jnp.float32, n),
    ]

    def loss(features, table, targets, weights):
        output = losses.Output(table, table[:, 0])
        return losses.softmax_loss(features, output, targets, weights)[0]

    step = jax.jit(jax.grad(loss, argnums=(0, 1)))
    temporary = step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 4 * n * vocabulary  # bytes of one float32 copy; 134 MB
