"""One frame at a time in lanes is the network's own function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pianolstm._decoding.state import repeat_lanes
from pianolstm._decoding.stepping import LANES, step, step_weights
from pianolstm._model.config import ARCHITECTURES, NetworkConfig
from pianolstm._model.networks import bind, initialise
from pianolstm._model.pitch_lstm import Range
from pianolstm.windows import START

N_TOKENS = 30


@pytest.mark.parametrize("spell", [False, True])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_step_is_the_networks(arch, spell):
    config = NetworkConfig(
        arch, 0 if spell else 256, units=6, embedding=5, dropout=0.0, window_size=8, spell=spell,
        pitches=Range(40, 24),
    )  # fmt: skip
    rng = np.random.default_rng(2)
    words = np.zeros((256, 8), np.uint32)
    words[:N_TOKENS] = rng.integers(0, 2**32, (N_TOKENS, 8)) & rng.integers(0, 2**32, (N_TOKENS, 8))
    words[0] = 0
    words[7:14, 4:] = 0  # chords that can be held
    params = initialise(config, 1)
    params = jax.tree.map(
        lambda leaf: leaf + 0.3 * rng.standard_normal(leaf.shape).astype(np.float32), params
    )
    laid = step_weights(config, params, words, N_TOKENS)
    network = bind(config, params)
    start = jnp.full((LANES, 1), START, jnp.int32), jnp.zeros((LANES, 1, 8), jnp.uint32)

    def read(ids, bits, carry):
        (h, heard), carry = network.read(ids, bits, carry)
        return (network.dense(h)[:, 0], None if heard is None else heard[:, 0]), carry

    def agree(stepped, expected):
        np.testing.assert_allclose(stepped.hidden, expected[0], atol=1e-5)
        assert (stepped.heard is not None) == spell
        if spell:
            np.testing.assert_allclose(stepped.heard, expected[1], atol=1e-5)

    expected, theirs = read(*start, network.initial_carry(LANES))
    one = jax.jit(step, static_argnums=0)
    begin = repeat_lanes(laid["begin"], LANES)
    none = np.zeros((LANES, 2), np.int32)
    ours, stepped = one(config, laid, begin, start[0][:, 0], start[1][:, 0], none)
    agree(stepped, expected)
    every = jax.jit(lambda ids, bits, carry: read(ids[:, None], bits[:, None], carry))
    ids = np.zeros(LANES, np.int32)
    for t in range(21):
        ids = rng.integers(0, N_TOKENS, LANES).astype(np.int32) if t % 3 == 0 else ids
        bits = words[ids]
        if t % 5 == 2:  # a chord outside the vocabulary
            ids[3], bits[3] = 256 + t, rng.integers(0, 2**20, 8)
        expected, theirs = every(ids, bits, theirs)
        ours, stepped = one(config, laid, ours, ids, bits, none)
        agree(stepped, expected)
        ids = np.minimum(ids, N_TOKENS - 1)
    if spell:
        return
    table, bias = network.output(jnp.asarray(words), np.int32(N_TOKENS), goes_on=False)
    np.testing.assert_allclose(laid["table"], table.T, rtol=1e-6)
    np.testing.assert_array_equal(laid["bias"], bias)
