"""The five networks: causal, equal in a stream and at once, and as the equations say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pianolstm._jax.host import SETTINGS
from pianolstm._learning import training
from pianolstm._model import bodies, networks
from pianolstm._model.config import ARCHITECTURES, NetworkConfig
from pianolstm._model.gates import Match, RecalledBatch
from pianolstm._model.inputs import ENDS, LAST, SKIPPED
from pianolstm._model.likelihood import evaluate
from pianolstm._model.networks import bind, initialise
from pianolstm.vocabulary import Corpus, PitchBernoulli, padded_vocabulary
from pianolstm.windows import PAD, START

TIME, BATCH = 12, 2  # more frames than the convolution sees, and twice the pool


def make(arch, *, dropout=0.0, window_size=TIME, spell=False):
    config = NetworkConfig(arch, 0 if spell else 256, 7, 6, dropout, window_size, spell)
    params = initialise(config, 3)
    if spell:
        return config, params
    # Own vectors start at zero; a test of what is heard needs them to differ.
    for name in ("chords_in", "chords_out"):
        own = jax.random.normal(jax.random.key(4), params[name]["own"].shape)
        params[name] = {**params[name], "own": own}
    return config, params


def row_keys(seed, n):
    return jax.random.split(jax.random.key(seed), n)


@partial(jax.jit, static_argnums=0)
def apply(config, params, ids, bits, carry, key=None):
    return bind(config, params)(ids, bits, carry, key)


def frames(seed=0, batch=BATCH, time=TIME, *, held=False):
    """Random chords, all struck again; if `held`, two of three frames hold the one before."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 200, (batch, time)).astype(np.int32)
    bits = rng.integers(0, 2**32, (batch, time, 8)).astype(np.uint32)
    if held:
        bits[..., 4:] = 0
        begun = np.arange(time) // 3 * 3
        ids, bits = ids[:, begun], bits[:, begun]
    return ids, bits


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_a_stream_equals_the_whole(arch):
    config, params = make(arch)
    network = bind(config, params)
    ids, bits = frames(held=True)
    ids[:, 0] = START
    whole, whole_carry = apply(config, params, ids, bits, network.initial_carry(BATCH))
    carry, parts = network.initial_carry(BATCH), []
    for t in range(TIME):
        part, carry = apply(config, params, ids[:, t : t + 1], bits[:, t : t + 1], carry)
        parts.append(part)
    stream = jnp.concatenate(parts, axis=1)
    if arch == "bilstm":
        stream = stream[:, -1:]
    np.testing.assert_allclose(stream, whole, atol=1e-5)
    for a, b in zip(jax.tree.leaves(carry), jax.tree.leaves(whole_carry), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("arch", [a for a in ARCHITECTURES if a != "bilstm"])
def test_later_frames_never_change_a_prediction(arch):
    config, params = make(arch)
    network = bind(config, params)
    ids, bits = frames(held=True)
    carry = network.initial_carry(BATCH)
    before, _ = apply(config, params, ids, bits, carry)
    other_ids, other_bits = frames(seed=1)  # all struck again: what was held no longer is
    for t in range(TIME):
        # Input t is frame t - 1 of the piece; it may change predictions from t on, not before.
        changed_ids, changed_bits = ids.copy(), bits.copy()
        changed_ids[:, t:], changed_bits[:, t:] = other_ids[:, t:], other_bits[:, t:]
        after, _ = apply(config, params, changed_ids, changed_bits, carry)
        np.testing.assert_array_equal(after[:, :t], before[:, :t])
        assert np.all(np.any(np.asarray(after[:, t] != before[:, t]), axis=-1))


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_changing_frame_t_and_later_never_changes_the_prediction_for_t(arch):
    """From tokens to likelihoods, through the windows: the claim as users read it."""
    config, params = make(arch, window_size=6)
    rng = np.random.default_rng(0)
    n_tokens, n_frames = 9, 20
    # The last chord is outside the vocabulary: with it, probabilities have all there is.
    chords = rng.integers(0, 2**63, (n_tokens + 1, 4)).astype(np.uint64)
    chords[::2, 2:] = 0  # these can be held
    chords[-1, 2:] = 0
    tokens = rng.integers(0, n_tokens, n_frames).astype(np.int32)
    tokens[5:8], tokens[13:18] = 2, 4
    bernoulli = PitchBernoulli(np.full(128, 0.5), 1e-12)
    spelled = 128 * np.log(0.5)

    def likelihoods(pieces):
        vocabulary = padded_vocabulary(chords[:-1])
        rows = np.append(np.arange(n_tokens), -1).astype(np.int32)
        ones = [np.ones(len(tokens), np.int32) for tokens in pieces]
        corpus = Corpus(pieces, chords, rows, np.arange(len(chords)), chords[:-1], ones)
        return [p.log_p for p in evaluate(config, params, vocabulary, corpus, bernoulli)]

    # A history of t frames, then each chord there is: the distribution of frame t.
    prefixes = [
        np.append(tokens[:t], c).astype(np.int32) for t in range(n_frames) for c in range(10)
    ]
    log_p = np.array([p[-1] for p in likelihoods(prefixes)]).reshape(n_frames, 10)
    log_p[:, -1] -= spelled
    # It is one distribution, so that it can't depend on which chord is at t ...
    np.testing.assert_allclose(np.exp(log_p).sum(axis=1), 1, atol=1e-5)
    # ... and a whole piece gives frame t what the piece that ends there gives it.
    (whole,) = likelihoods([tokens])
    np.testing.assert_allclose(whole, log_p[np.arange(n_frames), tokens], atol=1e-5)
    for t in (3, 8, 15):
        changed = tokens.copy()
        changed[t:] = (changed[t:] + 1 + np.arange(n_frames - t)) % n_tokens
        (other,) = likelihoods([changed])
        np.testing.assert_allclose(other[:t], whole[:t], atol=1e-6)
        assert other[t] == pytest.approx(log_p[t, changed[t]], abs=1e-5)
        assert np.abs(other[t + 1 :] - whole[t + 1 :]).max() > 1e-3


def test_the_bilstm_is_validated_on_frames_of_all_positions():
    """At equal distances all frames might be on the beat, where chords begin."""
    config, params = make("bilstm", window_size=6)
    chords = np.arange(4, dtype=np.uint64)[:, None] * np.uint64(2**40) * np.ones(4, np.uint64)
    rows = np.arange(4, dtype=np.int32)
    rng = np.random.default_rng(0)
    pieces = [rng.integers(0, 4, n).astype(np.int32) for n in (401, 3, 82)]
    ones = [np.ones(len(tokens), np.int32) for tokens in pieces]
    corpus = Corpus(pieces, chords, rows, rows, chords, ones)
    rest = config, params, padded_vocabulary(chords), corpus, PitchBernoulli(np.ones(128) / 2, 0.5)
    every, some, again = evaluate(*rest), evaluate(*rest, stride=8), evaluate(*rest, stride=8)
    for piece, all_of, few, same in zip(pieces, every, some, again, strict=True):
        np.testing.assert_array_equal(all_of.frames, np.arange(len(piece)))
        np.testing.assert_array_equal(few.frames // 8, np.arange(-(-len(piece) // 8)))
        assert few.frames[-1] < len(piece)
        np.testing.assert_allclose(few.log_p, all_of.log_p[few.frames], rtol=1e-5)
        np.testing.assert_array_equal(few.right, all_of.right[few.frames])
        np.testing.assert_array_equal(few.frames, same.frames)
    # 50 frames: each position of eight comes 6 times on average.
    counts = np.bincount(some[0].frames % 8, minlength=8)
    assert counts.min() >= 1 and counts.max() <= 14


def test_hybrid_pools_and_steps_as_written():
    """Frame by frame: convolution over five frames, pool over two, an LSTM step from h at t - 2."""
    config, params = make("hybrid")
    network = bind(config, params)
    ids, bits = frames()
    features, _ = network(ids, bits, network.initial_carry(BATCH))
    # Every chord of these frames is struck again, so that none has been held.
    x = np.asarray(network.chords_in.of(ids, bits) + network.held[...][0])
    kernel = np.asarray(params["body"]["conv"]["kernel"])  # (5, in, out)
    bias = np.asarray(params["body"]["conv"]["bias"])
    local, hs, carries = [], [], {}
    cell = network.body.recurrent.layers[0].cell
    for t in range(TIME):
        total = bias.copy()
        for k in range(bodies.CONV_FRAMES):
            if t - k >= 0:
                total = total + x[:, t - k] @ kernel[bodies.CONV_FRAMES - 1 - k]
        local.append(np.maximum(total, 0))
        pooled = np.maximum(local[t], local[t - 1] if t else 0)
        zeros = (jnp.zeros((BATCH, 7)), jnp.zeros((BATCH, 7)))
        carries[t], h = cell(carries.get(t - 2, zeros), jnp.asarray(pooled))
        hs.append(h)
    h = jnp.stack(hs, axis=1)
    expected = network.project(jax.nn.relu(network.dense(h)))
    np.testing.assert_allclose(features, expected, atol=1e-5)


def test_bilstm_reads_its_window_in_both_directions():
    config, params = make("bilstm")
    network = bind(config, params)
    ids, bits = frames()
    ids[1, :5] = PAD
    bits[1, :5] = 0
    ids[1, 5] = START
    features, _ = network(ids, bits, network.initial_carry(BATCH))
    for row, first in ((0, 0), (1, 5)):
        x = network.chords_in.of(ids[row, first:], bits[row, first:])
        if row == 1:
            x = x.at[0].set(network.start[...])
        x = x + network.held[...][0]  # every chord here is struck again
        body = network.body
        states = []
        for layer, sequence in ((body.forwards, x), (body.backwards, x[::-1])):
            carry = layer.initial_carry(1)
            for frame in sequence:
                carry, h = layer.cell(carry, frame[None])
            states.append(h)
        h = jnp.concatenate(states, axis=-1)
        expected = network.project(jax.nn.relu(network.dense(h)))
        np.testing.assert_allclose(features[row], expected, atol=1e-5)


def test_a_chord_is_the_sum_of_its_pitches_and_its_own_vector():
    config, params = make("lstm")
    vectors = bind(config, params).chords_in
    bits = np.zeros((2, 8), np.uint32)
    bits[:, 60 // 32] = 1 << (60 % 32)  # pitch 60 sounds
    bits[:, (128 + 67) // 32] = 1 << ((128 + 67) % 32)  # pitch 67 is struck again
    pitch, own = np.asarray(vectors.pitch[...]), np.asarray(vectors.own[...])
    known, unknown = vectors.of(np.array([17, 256]), bits)
    np.testing.assert_allclose(unknown, pitch[60] + pitch[128 + 67], rtol=1e-6)
    np.testing.assert_allclose(known, pitch[60] + pitch[128 + 67] + own[17], rtol=1e-6)


def test_dropout_has_one_mask_for_all_frames():
    wide, narrow = bodies.dropout_masks(row_keys(0, 3), 0.25, [4000, 30])
    assert (wide.shape, narrow.shape) == ((3, 1, 4000), (3, 1, 30))
    dropped = np.asarray(bodies.drop(jnp.ones((3, 50, 4000)), 0.25, wide))
    assert np.array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
    assert set(np.unique(dropped)) == {0.0, np.float32(1 / 0.75)}
    assert (dropped == 0).mean() == pytest.approx(0.25, abs=0.02)
    rows = np.asarray(wide[:, 0], float)
    assert np.abs(np.corrcoef(rows) - np.eye(3)).max() < 0.06  # each row has its own
    assert abs(np.corrcoef(rows[0, :30], np.asarray(narrow[0, 0], float))[0, 1]) < 0.6
    x = jnp.ones((3, 50, 7))
    np.testing.assert_array_equal(bodies.drop(x, 0.25, None), x)


@pytest.mark.parametrize(
    ("arch", "spell", "widths"),
    [
        ("lstm", False, []),
        ("stacked", False, [6]),
        ("stacked", True, [6, 3, 6]),
        ("bilstm", False, []),
        ("hybrid_stacked", False, [6, 6]),
    ],
)
def test_each_place_has_a_mask_of_its_own(arch, spell, widths, monkeypatch):
    """Vectors, the body's output, the dense layer's; between layers, of each phase; of pitches."""
    asked = []

    def masks(key, rate, widths):
        asked.append(widths)
        return [jnp.ones((len(key), 1, width), bool) for width in widths]

    monkeypatch.setattr(networks, "dropout_masks", masks)
    config = NetworkConfig(arch, 0 if spell else 256, 6, 5, 0.5, 12, spell)
    params = initialise(config, 3)
    network = bind(config, params)
    ids, bits = frames()
    kept, _ = network(ids, bits, network.initial_carry(len(ids)), row_keys(0, len(ids)))
    assert asked == [[5, 12 if arch == "bilstm" else 6, 6, *widths]]
    assert [m.shape[2] for m in jax.tree.leaves(network.masks(row_keys(0, 2)))[-len(widths) :]] == (
        widths or [5, 12 if arch == "bilstm" else 6, 6]
    )
    # With every feature kept and scaled up by 2 it is another function, but no random one.
    assert np.isfinite(np.asarray(kept)).all()


@pytest.mark.parametrize("arch", ["bilstm", "stacked", "hybrid"])
def test_dropout_acts_in_every_network(arch):
    config, params = make(arch, dropout=0.5)
    ids, bits = frames()
    carry = bind(config, params).initial_carry(BATCH)
    plain, _ = apply(config, params, ids, bits, carry)
    one, _ = apply(config, params, ids, bits, carry, row_keys(0, len(ids)))
    two, _ = apply(config, params, ids, bits, carry, row_keys(1, len(ids)))
    assert not np.allclose(one, plain)
    assert not np.allclose(one, two)


@pytest.mark.parametrize("goes_on", [True, False])
def test_padding_is_never_chosen(goes_on):
    config, params = make("lstm")
    _, bias = bind(config, params).output(
        np.zeros((256, 8), np.uint32), np.int32(5), goes_on=goes_on
    )
    impossible = np.ones(256, bool)
    impossible[[0, 1, 2, 3, 4, 255] + ([] if goes_on else [254])] = False
    np.testing.assert_array_equal(np.asarray(bias) == networks.NEVER, impossible)
    assert np.all(np.asarray(bias)[~impossible] == 0)


@pytest.mark.parametrize(
    ("arch", "spell"), [*((arch, False) for arch in ARCHITECTURES), ("lstm", True)]
)
def test_gradients_equal_finite_differences_in_float64(arch, spell):
    """Of the whole loss: chord vectors, layers, softmax in chunks, notes, gates."""
    with SETTINGS["jax_enable_x64"][1](True):
        config, params = make(arch, window_size=6, spell=spell)
        noise = np.random.default_rng(8)  # or units that are silent are so at their very kink
        params = jax.tree.map(
            lambda leaf: jnp.asarray(leaf, jnp.float64) + 0.1 * noise.standard_normal(leaf.shape),
            params,
        )
        # What the gate reads of the network's own probability has no gradient.
        likely = params["gate"]["likely"]
        params["gate"] = {**params["gate"], "likely": jnp.zeros_like(likely)}
        ids, bits = frames(held=True, time=6)
        rng = np.random.default_rng(2)
        n_targets = 6 if config.is_causal else 1
        rows = rng.integers(0, 200, (BATCH, n_targets)).astype(np.int32)
        barred = np.where(rng.random(rows.shape) < 0.5, -1, rng.integers(200, 253, rows.shape))
        symbols = np.full((*rows.shape, 4), LAST)
        for i in np.ndindex(rows.shape):
            pitches = np.sort(rng.choice(128, int(rng.integers(1, 4)), replace=False))
            symbols[i][: len(pitches)] = pitches + 128 * rng.integers(0, 2, len(pitches))
        if spell:
            symbols[1, 3, 0], symbols[0, 2, 0], symbols[0, 4, 0] = SKIPPED, ENDS, LAST
            barred[0, 4] = -1  # nothing changes
        weights = rng.random((BATCH, n_targets))
        if spell:
            weights[1, 3] = 0
        vocabulary = rng.integers(0, 2**32, (256, 8)).astype(np.uint32)
        vocabulary[:100, 4:] = vocabulary[200:] = 0
        match = Match(*(rng.integers(0, n, rows.shape) for n in (11, 5, 14)))
        chords = rng.integers(0, 2**32, (*rows.shape, 8)).astype(np.uint32)
        recalled = RecalledBatch(match, chords, rng.random(rows.shape) < 0.5, rows)

        @jax.jit
        def loss(params):
            arrays = ids, bits, rows, barred, symbols, weights, None, recalled
            batch = training.TrainingBatch(*arrays)
            return training._sums(config, params, vocabulary, np.int32(200), batch, None)[0]

        gradient = jax.jit(jax.grad(loss))(params)
        leaves, structure = jax.tree.flatten(params)
        for seed in range(3):
            rng = np.random.default_rng(seed)
            way = jax.tree.unflatten(structure, [rng.standard_normal(x.shape) for x in leaves])
            way["gate"]["likely"] *= 0
            ahead, behind = (
                loss(jax.tree.map(lambda p, d, s=sign: p + s * 1e-7 * d, params, way))
                for sign in (1, -1)
            )
            products = jax.tree.map(jnp.vdot, gradient, way)
            along = sum(map(float, jax.tree.leaves(products)))
            assert along == pytest.approx(float(ahead - behind) / 2e-7, rel=1e-6)
            assert abs(along) > 1e-3
