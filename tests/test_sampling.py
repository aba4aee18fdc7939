"""Drawing: the stated distribution, and the same music however it is cut into blocks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pianolstm._nn import sampling
from pianolstm._nn.networks import NEVER, NetworkConfig, bind, initialise
from pianolstm._nn.training import seed_key
from pianolstm.windows import START

N_TOKENS = 30
END = 254  # the last row but one


def logits_over(rows, n_tokens, seed=0):
    logits = np.full(rows, NEVER, np.float32)
    # Chords on both sides of a row of 256, and a gap that can't be drawn between them.
    chosen = np.random.default_rng(seed).choice(rows, n_tokens, replace=False)
    logits[chosen] = np.random.default_rng(seed + 1).normal(size=n_tokens)
    return logits


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_have_the_stated_distribution(temperature):
    logits = logits_over(768, 40)
    uniforms = jax.random.uniform(jax.random.key(5), (100_000,))
    draw = jax.jit(jax.vmap(sampling.draw, in_axes=(None, None, 0)))
    tokens = np.asarray(draw(logits, temperature, uniforms))
    p = np.exp(logits.astype(np.float64) / temperature)
    p /= p.sum()
    counts = np.bincount(tokens, minlength=768)
    assert counts[p == 0].sum() == 0
    often = p * len(tokens) >= 5
    observed = np.append(counts[often], counts[~often].sum())
    expected = np.append(p[often], p[~often].sum()) * len(tokens)
    kept = expected > 0
    assert stats.chisquare(observed[kept], expected[kept]).pvalue > 1e-3


def test_draw_at_the_ends_of_the_uniform():
    logits = logits_over(512, 6)
    possible = np.flatnonzero(logits > NEVER)
    for u, expected in ((0.0, possible[0]), (np.nextafter(np.float32(1), 0), possible[-1])):
        assert sampling.draw(logits, jnp.float32(1), jnp.float32(u)) == expected


def test_temperature_zero_takes_the_most_likely():
    logits = logits_over(512, 20)
    for u in (0.0, 0.3, 0.99):
        assert sampling.draw(logits, jnp.float32(0), jnp.float32(u)) == np.argmax(logits)


def make(arch):
    config = NetworkConfig(arch, 256, units=6, embedding=5, dropout=0.0, window_size=8)
    vocabulary = np.zeros((256, 8), np.uint32)
    rng = np.random.default_rng(2)
    vocabulary[:N_TOKENS] = rng.integers(0, 2**32, (N_TOKENS, 8))
    bias = jnp.zeros(256).at[END].set(1.0)  # pieces end often
    params = initialise(config, jax.random.key(1), bias)
    return config, params, jnp.asarray(vocabulary)


def run(config, params, vocabulary, prime_length, n_frames, temperature=1.0, seed=9, max_hold=99):
    rng = np.random.default_rng(4)
    ids = rng.integers(0, N_TOKENS, prime_length).astype(np.int32)
    prime = ids, np.asarray(vocabulary)[ids]
    blocks = sampling.sample(
        config,
        params,
        vocabulary,
        N_TOKENS,
        prime,
        n_frames,
        temperature=temperature,
        max_hold=max_hold,
        key=seed_key(seed),
    )
    return ids, np.concatenate(list(blocks))


@partial(jax.jit, static_argnums=0)
def step(config, params, ids, bits, carry):
    return bind(config, params)(ids, bits, carry)


@pytest.mark.parametrize("prime_length", [0, 1, 11])
@pytest.mark.parametrize("arch", ["stacked", "hybrid", "bilstm"])
def test_sampling_equals_a_plain_loop(arch, prime_length):
    config, params, vocabulary = make(arch)
    ids, tokens = run(config, params, vocabulary, prime_length, 40)
    network = bind(config, params)
    table, bias = network.output(vocabulary, np.int32(N_TOKENS), goes_on=False)
    table, bias = np.asarray(table, np.float64), np.asarray(bias, np.float64)
    rows = [*range(N_TOKENS), END]
    begin = network.initial_carry(1), np.full((1, 1), START), np.zeros((1, 1, 8), np.uint32)

    def drawn(state, rows, key):
        carry, ids, bits = state
        features, carry = step(config, params, ids.astype(np.int32), bits, carry)
        logits = table[rows] @ np.asarray(features[0, 0], np.float64) + bias[rows]
        p = np.exp(logits - logits.max())
        u = float(jax.random.uniform(key))
        return carry, rows[int(np.searchsorted(np.cumsum(p) / p.sum(), u, side="right"))]

    state, expected, n_ends = begin, [], 0
    for t in range(prime_length + 40):
        if t < prime_length:
            carry, _ = drawn(state, rows, jax.random.key(0))
            token = int(ids[t])
        else:
            key = jax.random.fold_in(seed_key(9), t - prime_length)
            carry, token = drawn(state, rows, key)
            if token == END:  # a new piece begins at this frame
                n_ends += 1
                carry, token = drawn(begin, rows[:-1], jax.random.fold_in(key, 1))
            expected.append(token)
        state = carry, np.full((1, 1), token), np.asarray(vocabulary)[[[token]]]
    assert tokens.tolist() == expected
    assert n_ends > 0


@pytest.mark.parametrize("prime_length", [0, 5, 16, 23])
def test_blocks_do_not_show(prime_length, monkeypatch):
    config, params, vocabulary = make("hybrid")
    _, whole = run(config, params, vocabulary, prime_length, 21)
    monkeypatch.setattr(sampling, "BLOCK", 8)
    jax.clear_caches()
    _, blocks = run(config, params, vocabulary, prime_length, 21)
    jax.clear_caches()
    assert len(whole) == 21
    np.testing.assert_array_equal(blocks, whole)


def test_seeds_and_temperature_matter():
    config, params, vocabulary = make("lstm")
    _, one = run(config, params, vocabulary, 3, 40)
    _, again = run(config, params, vocabulary, 3, 40)
    _, other = run(config, params, vocabulary, 3, 40, seed=10)
    _, colder = run(config, params, vocabulary, 3, 40, temperature=0.3)
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()
    assert one.tolist() != colder.tolist()
    assert max(one.max(), other.max()) < N_TOKENS


@pytest.mark.parametrize("arch", ["lstm", "bilstm"])
@pytest.mark.parametrize("max_hold", [1, 3])
def test_no_chord_is_held_for_too_long(arch, max_hold):
    config, params, vocabulary = make(arch)
    # A network that would hold the prime's last chord for ever.
    ids, _ = run(config, params, vocabulary, 4, 1)
    params = {**params, "bias": params["bias"].at[int(ids[-1])].set(30.0)}
    ids, free = run(config, params, vocabulary, 4, 60)
    assert set(free.tolist()) == {int(ids[-1])}
    _, tokens = run(config, params, vocabulary, 4, 60, max_hold=max_hold)
    whole = np.concatenate([ids, tokens])
    begins = np.flatnonzero(np.append(True, whole[1:] != whole[:-1]))
    lengths = np.diff(begins, append=len(whole))
    assert lengths.max() == max_hold
