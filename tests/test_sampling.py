"""Drawing: the stated distribution, and the same music whatever stands beside it."""

import platform
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.extend.random import threefry_2x32
from scipy import stats

from pianolstm._decoding import batches, random_numbers, sampling, stepping
from pianolstm._decoding import state as states
from pianolstm._decoding.batches import Batch, Decoder, Request, SamplingSettings, write_all
from pianolstm._decoding.history import barred, empty_memory
from pianolstm._decoding.state import repeat_lanes
from pianolstm._decoding.stepping import FEW, LANES, Stepped, rounds_alike
from pianolstm._jax.keys import fold, key_of, seed_key
from pianolstm._model.config import ARCHITECTURES, NetworkConfig
from pianolstm._model.networks import bind, initialise
from pianolstm._model.note_decoder import NEVER
from pianolstm.chords import find, held_on
from pianolstm.constraints import Limits
from pianolstm.exceptions import InvalidInputError
from pianolstm.windows import START
from tiny_networks import with_gates

N_TOKENS = 30
END = 254  # the last row but one
N_ROWS = 768


def rules(**changes):
    """Rules by which all rows may be drawn but for the last two."""
    fields = dict.fromkeys(states.SamplingParameters._fields)
    longest = np.full(LANES, batches.UNLIMITED, np.int32)
    fields |= {
        "key": np.tile(np.array([7, 11], np.uint32), (LANES, 1)),
        "temperature": np.ones(LANES, np.float32),
        "top_k": np.full(LANES, N_ROWS, np.int32),
        "top_p": np.ones(LANES, np.float32),
        "penalty": np.zeros(LANES, np.float32),
        "recent": np.zeros(LANES, np.int32),
        **dict.fromkeys(("max_hold", "max_silence", "usual_hold"), longest),
        "max_repeats": np.full(LANES, 99, np.int32),
        "may_end": np.zeros(LANES, bool),
        "n_allowed": np.full(LANES, N_ROWS - 2, np.float32),
        "is_proposed": np.zeros(LANES, bool),
        "allowed": np.tile(np.arange(N_ROWS) < N_ROWS - 2, (LANES, 1)),
        "pitches": np.full((LANES, 4), 2**32 - 1, np.uint32),
        **dict.fromkeys(("max_notes", "span", "hand"), np.full(LANES, 128, np.int32)),
        "may_rest": np.ones(LANES, bool),
        "is_restricted": np.zeros(LANES, bool),
    }
    for name, value in changes.items():
        fields[name] = np.broadcast_to(value, fields[name].shape).astype(fields[name].dtype)
    return states.SamplingParameters(**fields)


def logits_over(rows, n_tokens, seed=0):
    logits = np.full(rows, NEVER, np.float32)
    # Chords on both sides of a row of 256, and a gap that can't be drawn between them.
    chosen = np.random.default_rng(seed).choice(rows - 2, n_tokens, replace=False)
    logits[chosen] = np.random.default_rng(seed + 1).normal(size=n_tokens)
    return logits


@jax.jit
def draw(logits, rules, clock):
    """Tokens of eight lanes, with logits of their own."""
    zeros, words = np.zeros(LANES, np.int32), np.zeros((LANES, 8), np.uint32)
    laid = {
        "table": logits,
        "bias": jnp.zeros(logits.shape[1]),
        "project": (jnp.eye(LANES), jnp.zeros(LANES)),
        "begin": (None, Stepped(jnp.zeros((1, LANES)), None, None)),
    }
    begun = np.full((LANES, states.N_BEGUN), -1, np.int32)
    past = clock, words, zeros - 1, zeros, zeros, zeros, begun, begun, None, None
    state = states.State(None, Stepped(jnp.eye(LANES), None, None), *past)
    given = states.ForcedFrames(zeros > 0, zeros, words, zeros, words, words)
    n_rows = logits.shape[1]
    vocabulary = states.Vocabulary(jnp.zeros((8, n_rows), jnp.uint32), jnp.zeros(n_rows, int))
    config = NetworkConfig("lstm", n_rows, 4, 4, 0.0, 8)
    silent = repeat_lanes(empty_memory(), LANES)
    often = barred(silent, rules.max_repeats)
    all_of = states.Context(laid, vocabulary, rules, given, often, state)
    return sampling.sample(config, all_of, np.bool_(False)).ids


@jax.jit
def draw_all(logits, rules, clocks):
    return jax.lax.map(lambda clock: draw(logits, rules, clock), clocks)


def drawn(logits, rules, n):
    """Many tokens, eight frames at a time."""
    wide = jnp.broadcast_to(logits, (LANES, len(logits)))
    clocks = jnp.arange(n, dtype=jnp.int32).reshape(-1, LANES)
    return np.asarray(draw_all(wide, rules, clocks)).ravel()


def in_order(n_rows):
    """Rows in the order in which `pick` adds them up."""

    def place(row):
        digits, n = [], n_rows
        while n > 1:
            n = -(-n // random_numbers.FOLD)
            digits.append(row // n)
            row %= n
        return digits[::-1]

    return sorted(range(n_rows), key=place)


def kept_by(p, top_k=None, top_p=None):
    """The stated distribution, by sorting: what both keep."""
    least = 0
    if top_k is not None:
        least = np.sort(p)[::-1][top_k - 1]
    if top_p is not None:
        ordered = np.sort(p)[::-1]
        least = max(least, ordered[np.searchsorted(np.cumsum(ordered) / p.sum(), top_p)])
    p = np.where(p >= least, p, 0)
    return p / p.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "is_masked"),
    [
        (1.0, None, None, False),
        (0.5, None, None, False),
        (1.7, None, None, True),
        (1.0, 7, None, False),
        (1.0, None, 0.8, False),
        (1.3, 20, 0.6, True),
    ],
)
def test_draws_have_the_stated_distribution(temperature, top_k, top_p, is_masked):
    logits = logits_over(N_ROWS, 40)
    allowed = np.ones(N_ROWS, bool)
    if is_masked:
        allowed[np.argsort(-logits)[[0, 3, 4, 11]]] = False
    given = {"top_k": top_k, "top_p": top_p}
    changes = {name: value for name, value in given.items() if value is not None}
    allowed[-2:] = False
    changes |= {"temperature": temperature, "allowed": allowed, "n_allowed": allowed.sum()}
    tokens = drawn(logits, rules(**changes), 100_000)
    p = np.where(allowed, np.exp(logits.astype(np.float64) / temperature), 0)
    p = kept_by(p, **given)
    counts = np.bincount(tokens, minlength=N_ROWS)
    assert counts[p == 0].sum() == 0
    often = p * len(tokens) >= 5
    observed = np.append(counts[often], counts[~often].sum())
    expected = np.append(p[often], p[~often].sum()) * len(tokens)
    kept = expected > 0
    assert stats.chisquare(observed[kept], expected[kept]).pvalue > 1e-3


def test_pick_at_the_ends_of_the_uniform():
    weights = np.exp(logits_over(N_ROWS, 6))
    possible = [row for row in in_order(N_ROWS) if weights[row] > 0]
    u = np.full(LANES, 0, np.float32)
    u[1::2] = np.nextafter(np.float32(1), 0)
    rows = random_numbers.sample_rows(jnp.broadcast_to(weights, (LANES, N_ROWS)), u)
    assert rows.tolist() == [possible[0], possible[-1]] * (LANES // 2)


@pytest.mark.parametrize("n_rows", [256, 768, 4352])
def test_pick_is_the_inverse_of_the_running_sum(n_rows):
    rng = np.random.default_rng(1)
    weights = rng.integers(0, 4, (LANES, n_rows)).astype(np.float32)  # sums are exact
    order = in_order(n_rows)
    for _ in range(10):
        u = rng.random(LANES).astype(np.float32)
        rows = np.asarray(random_numbers.sample_rows(jnp.asarray(weights), u))
        for lane in range(LANES):
            sums = np.cumsum(weights[lane, order])
            passed = np.searchsorted(sums, np.float32(u[lane] * sums[-1]), side="right")
            assert rows[lane] == order[passed]


def test_temperature_zero_takes_the_most_likely_allowed():
    logits = logits_over(N_ROWS, 20)
    allowed = np.arange(N_ROWS) < N_ROWS - 2
    allowed[np.argmax(logits)] = False
    second = np.argsort(-logits)[1]
    for changes in ({"temperature": 0}, {"top_k": 1}):
        tokens = drawn(logits, rules(allowed=allowed, **changes), 8 * LANES)
        assert set(tokens.tolist()) == {second}


def test_the_settings_of_a_lane_are_its_own():
    logits = jnp.stack([logits_over(N_ROWS, 300, seed) for seed in range(LANES)])
    mixed = rules(
        temperature=[1, 0, 0.5, 1, 1, 2, 1, 1],
        top_k=[N_ROWS, N_ROWS, 5, N_ROWS, 3, 9, 1, N_ROWS],
        top_p=[1, 1, 1, 0.3, 1, 0.9, 1, 1],
    )
    for frame in range(5):
        clock = jnp.full(LANES, frame, jnp.int32)
        together = draw(logits, mixed, clock)
        for lane in range(LANES):
            alone = states.SamplingParameters(
                *(np.repeat(a[lane : lane + 1], LANES, axis=0) for a in mixed)
            )
            assert draw(logits, alone, clock)[lane] == together[lane]


def make(arch, units=16, embedding=16, *, spell=False, **changes):
    settings = {"dropout": 0.0, "window_size": 8, "spell": spell, **changes}
    config = NetworkConfig(arch, 0 if spell else 256, units, embedding, **settings)
    rng = np.random.default_rng(2)
    chords = rng.integers(0, 2**63, (N_TOKENS, 4)).astype(np.uint64)
    chords[0] = 0
    chords[: N_TOKENS // 2, 2:] = 0  # the others are struck again
    bias = np.zeros(256, np.float32)
    bias[END] = 4.0  # pieces end often
    params = initialise(config, 1, None if spell else bias)
    if spell:
        others = {**params["decoder"]["others"], "bias": np.array([0, 4], np.float32)}
        params["decoder"] = {**params["decoder"], "others": others}
    return config, params, chords


def writer_of(arch, usual_hold=99, **changes):
    config, params, chords = make(arch)
    params = {**params, **changes}
    return Decoder(config, params, chords, usual_hold, fs=20, grid="seconds", tempo_map=None)


def piece(writer, prime_length=0, seed=9, allowed=None, limits=None, **draw):
    chords = make("lstm")[2][np.random.default_rng(4).integers(0, N_TOKENS, prime_length)]
    given = writer.forced(chords)
    key = np.asarray(jax.random.key_data(seed_key(seed)))
    everything = np.ones(len(writer.chords), bool)
    limits = limits or Limits(everything if allowed is None else allowed)
    return Request(key, SamplingSettings(**draw), limits, given, prime_length)


def run(writer, n_frames, *args, **kwargs):
    """Tokens of the prime, and those written after it."""
    one = piece(writer, *args, **kwargs)
    return one.forced.ids, write_all(writer, [one], n_frames)[0].tokens


@pytest.mark.parametrize(
    ("arch", "recall_and_spell"),
    [
        *((arch, False) for arch in ARCHITECTURES if arch != "bilstm"),
        # What is recalled and spelled is the same for all: twice, with layers and with phases.
        ("stacked", True),
        ("hybrid_stacked", True),
    ],
)
def test_few_lanes_write_the_bits_that_many_do(arch, recall_and_spell):
    config, params, chords = make(arch, recall=recall_and_spell, spell=recall_and_spell)
    if recall_and_spell:
        params = with_gates(params, np.tile(np.linspace(0, 0.9, 11), (2, 1)), seed=1)
    writer = Decoder(config, params, chords, 99, fs=20, grid="seconds", tempo_map=None)
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        assert writer.n_lanes(1) == FEW
    if writer.n_lanes(1) == LANES:
        pytest.skip("products of few rows add up in another order here")
    settings = {}, {"top_p": 0.9}, {"temperature": 0.7}, {"top_k": 3}
    pieces = [piece(writer, 9, seed, **settings[seed % 4]) for seed in range(LANES)]
    pairs = [Batch(writer, pieces[i : i + FEW]) for i in range(0, LANES, FEW)]
    whole = Batch(writer, pieces)
    assert (whole.n_lanes, pairs[0].n_lanes) == (LANES, FEW)
    for _ in range(3):
        expected = whole.advance(writer.block, is_weighed=True)
        parts = [pair.advance(writer.block, is_weighed=True) for pair in pairs]
        for together, *apart in zip(expected, *parts, strict=True):
            assert np.array_equal(together, np.concatenate(apart, axis=1))
    assert len(np.unique(expected.bits, axis=0)) > 3
    states = (jax.tree.leaves(group.state) for group in (whole, *pairs))
    for together, *apart in zip(*states, strict=True):
        assert np.array_equal(together, np.concatenate(apart))


def test_few_lanes_are_used_where_products_agree(monkeypatch):
    config = make("lstm")[0]
    laid = {"layer": jnp.ones((6, 5)), "begin": jnp.ones((3, 3))}
    shapes = []

    def products(config, rows, kernels, *, wrong=0.0, lane=0):
        shapes.extend(kernel.shape for kernel in kernels)
        found = [np.ones((len(x), 5), np.float32) for x in rows]
        # What a machine would do that adds up batches of eight in another order, in one lane.
        found[0][lane % len(rows[0])] += wrong * (len(rows[0]) == LANES)
        return found

    monkeypatch.setattr(stepping, "_products", products)
    assert rounds_alike(config, laid)
    assert set(shapes) == {(6, 5)}
    assert not rounds_alike(make("bilstm")[0], laid)
    for lane in (0, LANES - 1):
        monkeypatch.setattr(stepping, "_products", partial(products, wrong=1e-6, lane=lane))
        assert not rounds_alike(config, laid)
    monkeypatch.setattr(batches, "rounds_alike", lambda config, laid: False)
    assert [writer_of("lstm").n_lanes(n) for n in (1, 2, 3)] == [LANES] * 3


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_keys_are_those_of_jax(seed, number):
    assert np.array_equal(key_of(seed), jax.random.key_data(seed_key(seed)))
    folded = jax.random.fold_in(seed_key(seed), np.uint32(number))
    assert np.array_equal(fold(key_of(seed), number), jax.random.key_data(folded))


@partial(jax.jit, static_argnums=0)
def step(config, params, ids, bits, carry):
    return bind(config, params)(ids, bits, carry)


@pytest.mark.parametrize("prime_length", [0, 1, 11])
@pytest.mark.parametrize("arch", ["stacked", "hybrid", "bilstm"])
def test_sampling_equals_a_plain_loop(arch, prime_length):
    writer = writer_of(arch)
    config, params = writer.config, writer.params
    ids, tokens = run(writer, 40, prime_length)
    words = np.asarray(writer.vocabulary.bits).T
    network = bind(config, params)
    table, bias = network.output(jnp.asarray(words), np.int32(N_TOKENS), goes_on=False)
    table, bias = np.asarray(table, np.float64), np.asarray(bias, np.float64)
    rows = [row for row in in_order(256) if row < N_TOKENS or row == END]
    key = jax.random.key_data(seed_key(9))
    begin = network.initial_carry(1), np.full((1, 1), START), np.zeros((1, 1, 8), np.uint32)

    def draw(state, rows, *count):
        carry, ids, bits = state
        features, carry = step(config, params, ids.astype(np.int32), bits, carry)
        logits = table[rows] @ np.asarray(features[0, 0], np.float64) + bias[rows]
        p = np.exp(logits - logits.max())
        u = (int(threefry_2x32(key, np.array(count, np.uint32))[0]) >> 8) / 2**24
        return carry, rows[int(np.searchsorted(np.cumsum(p) / p.sum(), u, side="right"))]

    state, expected, n_ends = begin, [], 0
    for t in range(prime_length + 40):
        if t < prime_length:
            carry, _ = draw(state, rows, 0, 1)
            token = int(ids[t])
        else:
            carry, token = draw(state, rows, t - prime_length, 1)
            if token == END:  # a new piece begins at this frame
                n_ends += 1
                others = [row for row in rows if row != END]
                number = 1 + int(sampling.N_NUMBERS)
                carry, token = draw(begin, others, t - prime_length, number)
            expected.append(token)
        state = carry, np.full((1, 1), token), words[[[token]]]
    assert tokens.tolist() == expected
    assert n_ends > 0


@pytest.mark.parametrize("prime_length", [0, 5, 16, 23])
def test_blocks_do_not_show(prime_length):
    writer = writer_of("hybrid")
    _, whole = run(writer, 21, prime_length)
    writer.block = 8
    _, blocks = run(writer, 21, prime_length)
    assert len(whole) == 21
    np.testing.assert_array_equal(blocks, whole)


@pytest.mark.parametrize("arch", ["stacked", "hybrid", "bilstm"])
def test_a_piece_does_not_depend_on_its_neighbours(arch):
    writer = writer_of(arch)
    pieces = [
        piece(writer, prime_length, seed, **draw)
        for prime_length, seed, draw in [
            (0, 1, {}),
            (3, 2, {"temperature": 0.4}),
            (70, 3, {"top_p": 0.5}),
            (1, 4, {"top_k": 2}),
            (0, 5, {"repetition_penalty": 3.0, "recent": 30}),
            (0, 6, {"may_end": False}),
            (9, 7, {"temperature": 0.0}),
            (9, 8, {}),
            (2, 9, {"top_k": 9, "top_p": 0.9}),
        ]
    ]
    together = write_all(writer, pieces, 50)  # two groups of lanes
    backwards = write_all(writer, pieces[::-1], 50)[::-1]
    for i, one in enumerate(pieces):
        alone = write_all(writer, [one], 50)[0].tokens
        assert together[i].tokens.tolist() == alone.tolist() == backwards[i].tokens.tolist()


def test_likelihoods_are_those_of_the_network():
    writer = writer_of("stacked")
    one = piece(writer, 4, temperature=2.0, allowed=np.arange(N_TOKENS) % 3 > 0, may_end=False)
    (written,) = write_all(writer, [one], 12, is_weighed=True)
    tokens = np.append(one.forced.ids, written.tokens)
    words = np.asarray(writer.vocabulary.bits).T
    network = bind(writer.config, writer.params)
    ids = jnp.asarray(np.append(START, tokens))[None]
    bits = jnp.asarray(np.concatenate([np.zeros((1, 8), np.uint32), words[tokens]]))[None]
    features, _ = network(ids, bits, network.initial_carry(1))
    table, bias = network.output(jnp.asarray(words), np.int32(N_TOKENS), goes_on=False)
    logits = np.asarray(features[0] @ table.T + bias, np.float64)[4:16]
    log_p = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    expected = log_p[np.arange(12), written.tokens]
    np.testing.assert_allclose(written.log_p, expected, atol=1e-4)
    halved = logits / 2 - np.logaddexp.reduce(logits / 2, axis=1, keepdims=True)
    allowed = np.flatnonzero(np.arange(N_TOKENS) % 3 > 0)
    mass = np.logaddexp.reduce(halved[:, allowed], axis=1)
    np.testing.assert_allclose(written.log_allowed, mass, atol=1e-4)


def test_seeds_and_temperature_matter():
    writer = writer_of("stacked")
    one, again = (run(writer, 40, 3)[1].tolist() for _ in range(2))
    assert one == again
    assert one != run(writer, 40, 3, seed=10)[1].tolist()
    assert one != run(writer, 40, 3, temperature=0.3)[1].tolist()
    assert max(one) < N_TOKENS


def holds(writer, tokens):
    """For how many frames each chord lasts, until another follows or it is struck again."""
    chords = writer.chords[tokens]
    new = np.any(chords[1:, :2] != chords[:-1, :2], axis=1) | np.any(chords[1:, 2:], axis=1)
    begins = np.flatnonzero(np.append(True, new))
    return np.diff(begins, append=len(tokens))


@pytest.mark.parametrize("arch", ["stacked", "bilstm"])
@pytest.mark.parametrize("max_hold", [1, 3])
def test_no_chord_is_held_for_too_long(arch, max_hold):
    # A network that would hold one chord for ever; it begins by a strike of the same pitches.
    _, params, chords = make(arch)
    chords = chords.copy()
    chords[20, :2] = chords[5, :2]
    bias = params["bias"].at[5].set(40.0).at[20].set(20.0)

    def write(usual_hold=99, **limits):
        writer = Decoder(
            make(arch)[0],
            {**params, "bias": bias},
            chords,
            usual_hold,
            fs=20,
            grid="seconds",
            tempo_map=None,
        )
        one = piece(writer, limits=Limits(np.ones(N_TOKENS, bool), **limits))
        return writer, write_all(writer, [one], 60)[0].tokens

    assert set(write()[1].tolist()) == {5}
    for writer, tokens in (write(usual_hold=max_hold), write(max_hold=max_hold)):
        lengths = holds(writer, tokens)
        assert set(tokens.tolist()) == {5, 20}
        assert lengths.max() == max_hold


def test_the_usual_hold_gives_way_and_a_rule_does_not():
    writer = writer_of("stacked", usual_hold=2)
    only = np.arange(N_TOKENS) == 4
    assert run(writer, 9, allowed=only)[1].tolist() == [4] * 9
    with pytest.raises(
        InvalidInputError, match="leave no chord that the model can write at frame 5"
    ):
        run(writer, 9, limits=Limits(only, max_hold=5))


def test_what_comes_after_the_end_of_a_piece_is_of_no_account():
    """A piece beside one with a long prime is computed on, and may come to a dead end there."""
    writer = writer_of("stacked")
    short = piece(writer, limits=Limits(np.arange(N_TOKENS) == 4, max_hold=5))
    first, _ = write_all(writer, [short, piece(writer, 70)], 5)
    assert first.tokens.tolist() == [4] * 5
    short.name = " of piece 0"
    with pytest.raises(InvalidInputError, match="at frame 5 of piece 0; loosen"):
        write_all(writer, [short, piece(writer, 70)], 6)


def test_likelihoods_do_not_depend_on_neighbours():
    writer = writer_of("stacked")  # its pieces end often, in other lanes at other frames
    pieces = [piece(writer, n, seed) for n, seed in ((0, 1), (3, 2), (5, 3), (0, 4))]
    together = write_all(writer, pieces, 60, is_weighed=True)
    for one, written in zip(pieces, together, strict=True):
        (alone,) = write_all(writer, [one], 60, is_weighed=True)
        np.testing.assert_array_equal(written.log_p, alone.log_p)
        np.testing.assert_array_equal(written.log_allowed, alone.log_allowed)
        assert (alone.log_p < 0).all()


def test_what_is_hardly_possible_has_a_likelihood():
    _, params, _ = make("stacked")
    bias = np.asarray(params["bias"]).copy()
    bias[5] = -300.0  # e^-300 is no float32
    writer = writer_of("stacked", bias=jnp.asarray(bias))
    for temperature in (1.0, 0.0):
        one = piece(writer, 3, allowed=np.arange(N_TOKENS) == 5, temperature=temperature)
        (written,) = write_all(writer, [one], 20, is_weighed=True)
        assert set(written.tokens.tolist()) == {5}
        assert (written.log_p < -250).all() and np.isfinite(written.log_allowed).all()
        if temperature == 1:
            np.testing.assert_allclose(written.log_allowed, written.log_p, rtol=1e-4)


@pytest.mark.parametrize("draw", [{}, {"top_p": 0.5}, {"top_k": 2}, {"temperature": 0.0}])
def test_a_frame_that_nothing_fits_is_told(draw):
    writer = writer_of("stacked")
    required = np.zeros((9, 8), np.uint32)
    required[7] = 0xFFFFFFFF
    limits = Limits(np.ones(N_TOKENS, bool), required, np.zeros_like(required))
    with pytest.raises(InvalidInputError, match="at frame 7;"):
        run(writer, 20, limits=limits, **draw)


def test_silence_has_a_limit_of_its_own():
    _, params, _ = make("stacked")
    writer = writer_of("stacked", bias=params["bias"].at[0].set(40.0))
    assert set(run(writer, 30)[1].tolist()) == {0}
    _, tokens = run(writer, 30, limits=Limits(np.ones(N_TOKENS, bool), max_silence=4))
    assert holds(writer, tokens).max() == 4
    assert (tokens == 0).sum() == 24


def test_what_a_frame_requires_and_forbids():
    writer = writer_of("stacked")
    rng = np.random.default_rng(8)
    words = np.asarray(writer.vocabulary.bits).T[:N_TOKENS]
    n = 100
    required = (
        words[rng.integers(1, N_TOKENS, n)]
        & rng.integers(0, 2**32, (n, 8))
        & rng.integers(0, 2**32, (n, 8))
    )
    required, forbidden = required.astype(np.uint32), np.zeros((n, 8), np.uint32)
    required[:, 4:] = 0
    required[:20] = 0
    forbidden[5:15] = words[7] & ~words[3] & ~words[0]
    limits = Limits(np.ones(N_TOKENS, bool), required, forbidden)
    _, tokens = run(writer, n + 10, 3, limits=limits)
    chosen = words[tokens[:n]]
    assert ((chosen & required) == required).all()
    assert ((chosen & forbidden) == 0).all()
    assert len(set(tokens.tolist())) > 5


def test_a_pitch_is_struck_again_only_where_it_sounded():
    writer = writer_of("stacked")
    words = np.asarray(writer.vocabulary.bits).T[:N_TOKENS]
    struck = 20  # has pitches struck again
    required = np.zeros((2, 8), np.uint32)
    required[0, :4] = words[struck, :4]
    required[1] = words[struck]  # each of its pitches sounded in the frame before
    limits = Limits(np.ones(N_TOKENS, bool), required, np.zeros_like(required))
    for seed in range(5):
        _, tokens = run(writer, 2, seed=seed, limits=limits)
        assert ((words[tokens[1]] & required[1]) == required[1]).all()
    # Alone, at the first frame, nothing sounded: any chord with those pitches will do.
    limits = Limits(np.arange(N_TOKENS) != struck, required[1:] * 0 + words[3], required[1:] * 0)
    assert run(writer, 1, limits=limits)[1][0] == 3


def test_repetition_is_penalised_where_chords_begin():
    _, params, _ = make("stacked")
    bias = np.asarray(params["bias"]).copy()
    bias[3], bias[END] = 4.0, -30.0  # chord 3 can be held; it is by far the likeliest
    plain = writer_of("stacked", bias=jnp.asarray(bias))
    _, free = run(plain, 400)
    _, damped = run(plain, 400, repetition_penalty=50.0, recent=40)

    def begun(tokens):
        new = np.append(True, tokens[1:] != tokens[:-1])
        return tokens[new]

    share = [(begun(tokens) == 3).mean() for tokens in (free, damped)]
    assert share[1] < share[0] / 2
    # Held on, it is as likely as ever: logit 4 against 29 others.
    after = damped[1:][damped[:-1] == 3]
    assert (after == 3).mean() > 0.4
    # What was begun longer ago than it looks back is no repetition.
    assert run(plain, 60, repetition_penalty=50.0, recent=0)[1].tolist() == free[:60].tolist()


def test_deadline_returns_what_is_ready():
    writer = writer_of("stacked")
    whole = write_all(writer, [piece(writer)], 500)[0].tokens
    (part,) = write_all(writer, [piece(writer)], 500, deadline=0.0)
    assert len(part.tokens) == states.BLOCK
    assert part.tokens.tolist() == whole[: states.BLOCK].tolist()


def test_held_on_drops_what_is_struck_again():
    _, _, chords = make("stacked")
    held = held_on(chords)
    assert (held[:, :2] == chords[:, :2]).all() and (held[:, 2:] == 0).all()
    writer = writer_of("stacked")
    expected = find(chords, held)
    assert np.asarray(writer.vocabulary.held)[:N_TOKENS].tolist() == expected.tolist()
