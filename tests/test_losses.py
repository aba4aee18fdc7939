"""The chunked softmax against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pianolstm._nn import losses

N, VOCABULARY, WIDTH = 11, 9, 4


@pytest.fixture
def case():
    rng = np.random.default_rng(1)
    return (
        jnp.asarray(rng.normal(size=(N, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(size=(VOCABULARY, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(size=VOCABULARY), jnp.float32),
        jnp.asarray(rng.integers(0, VOCABULARY, N), jnp.int32),
        jnp.asarray(rng.choice([0.0, 1.0, 2.5], N), jnp.float32),
    )


def plain(features, table, bias, targets, weights):
    log_p = jax.nn.log_softmax(features @ table.T + bias)
    return -jnp.sum(weights * log_p[jnp.arange(len(targets)), targets])


@pytest.mark.parametrize("rows", [1, 4, 100])  # one row a chunk, an uneven number, all at once
def test_loss_and_gradients_equal_the_plain_ones(case, rows, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", rows * VOCABULARY)
    features, table, bias, targets, weights = case

    def ours(f, t, b):
        return 3.0 * losses.softmax_loss(f, t, b, targets, weights)[0]

    def theirs(f, t, b):
        return 3.0 * plain(f, t, b, targets, weights)

    np.testing.assert_allclose(
        ours(features, table, bias), theirs(features, table, bias), rtol=1e-6
    )
    mine = jax.grad(ours, argnums=(0, 1, 2))(features, table, bias)
    other = jax.grad(theirs, argnums=(0, 1, 2))(features, table, bias)
    for a, b in zip(mine, other, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 4, 100])
def test_right_guesses_are_counted(case, rows, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", rows * VOCABULARY)
    features, table, bias, targets, weights = case
    guesses = np.argmax(np.asarray(features @ table.T + bias), axis=1)
    targets = targets.at[2].set(int(guesses[2])).at[5].set(int(guesses[5]))
    weights = weights.at[2].set(2.5)
    expected = np.sum(np.asarray(weights)[guesses == np.asarray(targets)])
    n_right = losses.softmax_loss(features, table, bias, targets, weights)[1]
    assert float(n_right) == pytest.approx(expected)
    log_p, right = losses.log_likelihoods(features, table, bias, targets)
    np.testing.assert_array_equal(right, guesses == np.asarray(targets))
    expected = jax.nn.log_softmax(features @ table.T + bias)[jnp.arange(N), targets]
    np.testing.assert_allclose(log_p, expected, atol=1e-6)


def test_the_logits_are_never_whole():
    """No array of the compiled step is as large as all logits together."""
    n, vocabulary = 4096, 8192
    shapes = [(n, 8), (vocabulary, 8), (vocabulary,)]
    arguments = [jax.ShapeDtypeStruct(s, jnp.float32) for s in shapes]
    arguments += [
        jax.ShapeDtypeStruct((n,), jnp.int32),
        jax.ShapeDtypeStruct((n,), jnp.float32),
    ]
    step = jax.jit(jax.grad(lambda *a: losses.softmax_loss(*a)[0], argnums=(0, 1, 2)))
    temporary = step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 4 * n * vocabulary  # bytes of one float32 copy; 134 MB
