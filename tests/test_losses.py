"""The chunked softmax against the plain one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pianolstm._model import losses

N, VOCABULARY, WIDTH = 11, 9, 4
HOLD_ROW, END_ROW, OTHER_ROW = 6, 7, 8
# Rows 1 and 4 strike pitches again that sound before some frames.
STRUCK = np.zeros((VOCABULARY, 4), np.uint32)
STRUCK[1] = [0, 0, 1 << 7, 0]
STRUCK[4] = [1, 0, 0, 1 << 31]
BEFORE = np.zeros((N, 4), np.uint32)
BEFORE[::2] = [1, 0, 0, 1 << 31]
BEFORE[7] = [3, 0, 1 << 7, 0]


@pytest.fixture
def case():
    """Features, table and bias, targets, weights; frames by either route and by both."""
    rng = np.random.default_rng(1)
    rows = jnp.asarray([0, 3, 5, HOLD_ROW, END_ROW, OTHER_ROW, OTHER_ROW, 1, HOLD_ROW, 2, 5])
    log_spelled = rng.normal(-2, 1, N)
    log_spelled[[1, 4]] = losses.NEVER  # what is not spelled at all
    return (
        jnp.asarray(rng.normal(size=(N, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(size=(VOCABULARY, WIDTH)), jnp.float32),
        jnp.asarray(rng.normal(size=VOCABULARY), jnp.float32),
        losses.Targets(
            rows.astype(jnp.int32),
            jnp.where(rows == HOLD_ROW, -1, HOLD_ROW).at[7].set(0).astype(jnp.int32),
            BEFORE,
            jnp.asarray(log_spelled, jnp.float32),
        ),
        jnp.asarray(rng.choice([0.5, 1.0, 2.5], N), jnp.float32).at[9].set(0),
    )


def impossible(targets):
    found = ((STRUCK & ~BEFORE[:, None]) > 0).any(2)
    found |= np.arange(VOCABULARY) == np.asarray(targets.barred)[:, None]
    return found


def plain_log_p(features, table, bias, targets):
    """Of each frame, as the sum of its two routes."""
    logits = jnp.where(impossible(targets), -jnp.inf, features @ table.T + bias)
    p = jax.nn.softmax(logits)
    by_row = jnp.where(targets.rows == OTHER_ROW, 0, p[jnp.arange(N), targets.rows])
    return jnp.log(by_row + p[:, OTHER_ROW] * jnp.exp(targets.log_spelled))


@pytest.mark.parametrize("rows", [1, 4, 100])  # one row a chunk, an uneven number, all at once
def test_loss_and_gradients_equal_the_plain_ones(case, rows, monkeypatch):
    monkeypatch.setattr(losses, "CHUNK_LOGITS", rows * VOCABULARY)
    features, table, bias, targets, weights = case
    arguments = features, table, bias, targets.log_spelled

    def ours(f, t, b, spelled):
        output, those = losses.Output(t, b, STRUCK), targets._replace(log_spelled=spelled)
        return 3.0 * losses.softmax_loss(f, output, those, weights)[0]

    def theirs(f, t, b, spelled):
        log_p = plain_log_p(f, t, b, targets._replace(log_spelled=spelled))
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
    output = losses.Output(table, bias, STRUCK)
    n_right = losses.softmax_loss(features, output, targets, weights)[1]
    assert float(n_right) == pytest.approx(np.sum(np.asarray(weights)[is_right]))
    log_p, right = losses.log_likelihoods(features, output, targets)
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
        array(jnp.uint32, vocabulary, 4),
        losses.Targets(
            array(jnp.int32, n),
            array(jnp.int32, n),
            array(jnp.uint32, n, 4),
            array(jnp.float32, n),
        ),
        array(jnp.float32, n),
    ]

    def loss(features, table, struck, targets, weights):
        output = losses.Output(table, table[:, 0], struck)
        return losses.softmax_loss(features, output, targets, weights)[0]

    step = jax.jit(jax.grad(loss, argnums=(0, 1)))
    temporary = step.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    assert temporary < 4 * n * vocabulary  # bytes of one float32 copy; 134 MB
