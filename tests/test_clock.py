"""The clock of changes: steps from chord to chord, and the likelihood of each frame."""

from dataclasses import replace
from functools import partial
from itertools import islice, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit

import pianolstm as pl
import reference
from pianolstm import constraints
from pianolstm._decoding import timing
from pianolstm._decoding.batches import Batch, Decoder, Request, SamplingSettings, write_all
from pianolstm._decoding.history import barred
from pianolstm._decoding.sampling import sample
from pianolstm._decoding.state import Context
from pianolstm._decoding.stepping import LANES
from pianolstm._jax.keys import key_of
from pianolstm._learning import training
from pianolstm._model import durations
from pianolstm._model.config import ARCHITECTURES, NetworkConfig
from pianolstm._model.inputs import Reader
from pianolstm._model.likelihood import evaluate
from pianolstm._model.networks import bind, initialise
from pianolstm._model.planes import NEVER
from pianolstm._model.recall import LENGTHS, Recalled
from pianolstm.chords import as_chords, as_words, held_on
from pianolstm.constraints import limits_of
from pianolstm.tokens import TokenCorpus
from pianolstm.vocabulary import Corpus, runs
from tiny_networks import (
    NONE,
    agrees,
    chord,
    notes_by_hand,
    try_for_long,
    with_gates,
    with_notes_of,
)

PITCHES = (60, 61, 62, 127)  # nothing can follow the last
KNOWN = np.array(
    [chord(), chord([60]), chord([60, 62]), chord([61, 127]), chord([60], [62]), chord([], [61])]
)
PIECE = [
    *[chord([60])] * 3,
    chord([60, 62]),
    chord([60], [62]),
    *[chord([60, 62])] * 4,
    *[chord()] * 2,
    chord([61, 62]),
    chord([61, 127]),
    chord([61], [127]),
    chord([61], [127]),
    chord([127]),
]
SHARES = np.linspace(0, 0.7, 1 + len(LENGTHS))


def make(arch="lstm", recall=False):
    """A network of four pitches whose chords may last for long, with three frames to a quarter."""
    config = NetworkConfig(
        arch, 0, 8, 6, 0.0, 8, spell=True, recall=recall, clock="changes", beat=3
    )
    rng = np.random.default_rng(3)
    params = initialise(config, 5, None, rng.normal(-0.3, 1, durations.N_CLASSES).astype("f4"))
    params["holds"]["write"] = rng.normal(0, 1, params["holds"]["write"].shape).astype("f4")
    for name in ("lasted", "metre_next"):
        params[name] = rng.normal(0, 1, params[name].shape).astype("f4")
    params = with_gates(params, np.stack([SHARES, SHARES[::-1]]), seed=6)
    return config, with_notes_of(params, PITCHES)


def frames_after(past):
    """All frames of the pitches that may follow: each is off, sounds, or is struck again."""
    before = reference.chord_of_bits(past[-1])[0] if past else frozenset()
    states = product(*[(0, 1, 2) if p in before else (0, 1) for p in PITCHES])
    return [
        chord(*([p for p, s in zip(PITCHES, state, strict=True) if s == i] for i in (1, 2)))
        for state in states
    ]


def corpus_of(pieces, clock="changes"):
    table = np.unique(np.concatenate([KNOWN, *(np.array(p) for p in pieces)]), axis=0)
    index = {words.tobytes(): i for i, words in enumerate(table)}
    tokens = [np.array([index[c.tobytes()] for c in piece], np.int32) for piece in pieces]
    corpus = TokenCorpus(tokens, table, 3, "beats", [None] * len(tokens))
    return Corpus.of(KNOWN, corpus, clock)


def log_p(config, params, pieces):
    corpus = corpus_of(pieces)
    found = evaluate(config, params, None, corpus, None)
    for piece, tokens in zip(found, pieces, strict=True):
        assert piece.frames.tolist() == list(range(len(tokens)))
    return [piece.log_p for piece in found]


def test_runs_by_hand():
    corpus = corpus_of([PIECE])
    assert corpus.durations[0].tolist() == [3, 1, 5, 2, 1, 1, 1, 1, 1]
    chords = corpus.chords[corpus.tokens[0]]
    expected = [PIECE[i] for i in (0, 3, 4, 9, 11, 12, 13, 14, 15)]
    assert np.array_equal(chords, expected)
    # Of one frame, of none; a rest that begins; the same flags again.
    held = np.array([0, 1, 1])
    for tokens, heads, lengths in (
        ([2], [2], [1]),
        ([], [], []),
        ([0, 0, 2, 1, 1, 2, 2], [0, 2, 2, 2], [2, 3, 1, 1]),
    ):
        found = runs(np.array(tokens, np.int32), held)
        assert [a.tolist() for a in found] == [heads, lengths]


EACH = [*((arch, False) for arch in ARCHITECTURES), ("lstm", True)]
"""Each network; what is recalled does not depend on the body."""


@pytest.mark.parametrize(("arch", "recall"), EACH)
def test_the_probabilities_of_all_frames_sum_to_one_at_every_age(arch, recall):
    config, params = make(arch, recall)
    for n in (0, 1, 3, 4, 5, 7, 9, 10, 12, 13, 15, 16):
        past = (PIECE + PIECE)[:n] if recall else PIECE[:n]
        frames = frames_after(past)
        p = np.exp([x[-1] for x in log_p(config, params, [[*past, f] for f in frames])])
        assert p.sum() == pytest.approx(1, abs=1e-6)
        if past:
            goes_on = [np.array_equal(f, held_on(past[-1])) for f in frames]
            assert 0.02 < p[goes_on].sum() < 0.98
            assert p[~np.array(goes_on)].max() > 0.005


@pytest.mark.parametrize(("arch", "recall"), EACH)
def test_no_frame_depends_on_those_after_it(arch, recall):
    config, params = make(arch, recall)
    piece = PIECE + PIECE
    (whole,) = log_p(config, params, [piece])
    # A piece that ends at a frame, in the middle of a chord or not, has the same until there.
    parts = log_p(config, params, [piece[: n + 1] for n in range(len(piece))])
    for n, part in enumerate(parts):
        np.testing.assert_allclose(part, whole[: n + 1], atol=2e-5)


def test_likelihoods_by_a_reference_that_knows_nothing_of_runs():
    """Frame by frame, each from a past of frames: notes and hazards by plain sums."""
    config, params = make()
    (found,) = log_p(config, params, [PIECE])
    for t, frame in enumerate(PIECE):
        assert found[t] == pytest.approx(plain_log_p(config, params, PIECE[:t], frame), abs=3e-5)


def plain_log_p(config, params, past, frame):
    # Walk back over the frames for the chords that began, and count.
    steps = []
    for i, c in enumerate(past):
        if i == 0 or not np.array_equal(c, held_on(past[i - 1])):
            steps.append([c, 0])
        steps[-1][1] += 1
    network = bind(config, params)
    ids = np.array([[-1, *[0] * len(steps)]], np.int32)
    bits = as_words(np.array([chord(), *(c for c, _ in steps)]))[None]
    lengths = [0, *(n for _, n in steps)]
    # Each chord begins where those before it have ended: four quarter notes are 48 positions.
    ends = [4 * (sum(lengths[: i + 1]) % 12) for i in range(len(lengths))]
    timing = np.array([[(0, 0), *zip(lengths, ends, strict=True)]], np.int32)
    (h, heard), _ = network.read(ids, bits, network.initial_carry(1), None, timing[:, :-1])
    age = lengths[-1]
    ends = 1.0
    if age:
        ends = expit(np.asarray(network.holds(h))[0, -1, age - 1].astype(float))
        if np.array_equal(frame, held_on(past[-1])):
            return np.log1p(-ends)
    features = network.predict(h[:, -1:], timing[:, -1:])
    hidden = np.asarray(features, np.float64)[0, 0], np.asarray(heard, np.float64)[0, -1]
    return np.log(ends) + np.log(chords_by_hand(params, hidden, past)[frame.tobytes()])


def chords_by_hand(params, hidden, past):
    """Probability of each chord that may begin, which is not what sounds, held on."""
    found = {}
    for c in frames_after(past):
        if past and np.array_equal(c, held_on(past[-1])):
            continue
        nats = notes_by_hand(params, hidden, past, c, PITCHES, barred=bool(past))
        found[c.tobytes()] = np.exp(nats)
    assert sum(found.values()) == pytest.approx(1, abs=1e-6)
    return found


def decoder_of(arch="lstm", recall=False, window_size=8):
    config, params = make(arch, recall)
    config = replace(config, window_size=window_size)
    grid = {"fs": 20, "grid": "seconds", "tempo_map": None}
    return Decoder(config, params, NONE, 999, **grid)


def request(decoder, seed=0, prime=(), constraint=None, **settings):
    limits = limits_of(constraint, NONE, fs=20, grid="seconds", spell=True)
    forced = decoder.forced(np.array(prime, np.uint64).reshape(-1, 4))
    settings = SamplingSettings(**{"may_end": False, **settings})
    return Request(key_of(seed), settings, limits, forced, len(prime))


@partial(jax.jit, static_argnums=0)
def first_chords(config, weights, vocabulary, sampling, free, state, n):
    often = barred(state.memory, sampling.max_repeats)

    def one(row, drawn):
        timed = state._replace(position=row * LANES + jnp.arange(LANES))
        context = Context(weights, vocabulary, sampling, free, often, timed)
        return drawn.at[row].set(sample(config, context, False).bits)

    return jax.lax.fori_loop(0, n, one, jnp.zeros((10_000, LANES, 8), jnp.uint32))


def drawn_after(decoder, past, n, constraint=None, **settings):
    """How often each frame comes first after a past: a dict of bits to counts."""
    requests = [request(decoder, i, past, constraint, **settings) for i in range(LANES)]
    batch = Batch(decoder, requests)
    while batch.position[0] < 0:
        batch.advance(int(min(decoder.block, -batch.position[0])))
    free = jax.tree.map(lambda a: a[0], batch._free)
    arrays = decoder.weights, decoder.vocabulary, batch.sampling, free, batch.state
    words = np.asarray(first_chords(decoder.config, *arrays, n // LANES))[: n // LANES]
    found, counts = np.unique(words.reshape(-1, 8).view("<u8"), axis=0, return_counts=True)
    return {f.astype(np.uint64).tobytes(): c for f, c in zip(found, counts, strict=True)}


def probabilities_after(decoder, past):
    frames = frames_after(past)
    found = log_p(decoder.config, decoder.params, [[*past, f] for f in frames])
    return frames, np.exp([piece[-1] for piece in found])


@pytest.mark.parametrize(
    ("arch", "recall", "n"),
    [("lstm", False, 0), ("lstm", False, 10), ("hybrid", True, 31), ("bilstm", True, 10)],
)
def test_drawn_frames_have_the_stated_frequencies(arch, recall, n):
    past = (PIECE + PIECE)[:n]
    decoder = decoder_of(arch, recall)
    frames, p = probabilities_after(decoder, past)
    assert agrees(drawn_after(decoder, past, 80_000), frames, p) > 1e-3


@pytest.mark.parametrize(
    "rule",
    [
        constraints.PitchRange(60, 62),
        constraints.MaxNotes(1),
        constraints.MaxSilence(0),
        constraints.MaxHold(0.05),
    ],
)
def test_what_constraints_leave_keeps_its_proportions(rule, monkeypatch):
    try_for_long(monkeypatch)
    decoder, past = decoder_of(window_size=6), PIECE[:12]
    frames, p = probabilities_after(decoder, past)
    sounding = [sorted(reference.chord_of_bits(f)[0]) for f in frames]
    p = np.where(rule.allows(sounding), p, 0)
    if isinstance(rule, constraints.MaxSilence):
        p[[not s for s in sounding]] = 0
    if isinstance(rule, constraints.MaxHold):
        p[[np.array_equal(f, held_on(past[-1])) for f in frames]] = 0
    assert 0 < p.sum() < 0.99
    assert agrees(drawn_after(decoder, past, 80_000, rule), frames, p) > 1e-3


def test_what_is_left_where_a_chord_is_barred_keeps_its_proportions(monkeypatch):
    try_for_long(monkeypatch)
    decoder = decoder_of(window_size=6)
    first, second = chord([60, 61]), chord([60, 61, 62])
    past = [first, first, second, second, second, first]  # said for the second time, with `second`
    frames, p = probabilities_after(decoder, past)
    p[[np.array_equal(f, second) for f in frames]] = 0
    assert 0.5 < p.sum() < 0.9
    found = drawn_after(decoder, past, 80_000, constraints.MaxRepeats(1))
    assert agrees(found, frames, p) > 1e-3


def tempered(logits, temperature, n=400):
    """Probabilities of the durations 1 to n."""
    h = expit(np.append(logits, np.repeat(logits[-1], n)).astype(float))[:n]
    p = h * np.cumprod(np.append(1, 1 - h[:-1]))
    p **= 1 / temperature
    return p / p.sum()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("spike", [0, 5])
def test_durations_under_a_temperature(temperature, spike):
    rng = np.random.default_rng(1)
    logits = np.full(durations.N_CLASSES, -0.7, np.float32)
    logits[:100] = rng.normal(-1.5, 1, 100)
    share = 0.3 * (spike > 0)
    p = tempered(logits, 1.0) * (1 - share)
    p[spike - 1] += share
    p = p ** (1 / temperature) / np.sum(p ** (1 / temperature))
    alive = np.append(1, 1 - np.cumsum(p))
    never = jnp.array([NEVER])
    for age in (1, 2, 4, 5, 6, 20):
        found = timing._tempered(
            jnp.asarray(logits)[None],
            jnp.array([age]),
            jnp.array([[1 / temperature]]),
            jnp.log(jnp.array([share])) - jnp.log1p(-jnp.array([share])) if spike else never,
            jnp.array([spike]),
        )
        assert float(found[0]) == pytest.approx(p[age - 1] / alive[age - 1], rel=2e-3)


def test_without_temperature_chords_last_as_long_as_is_likeliest():
    logits = np.full(durations.N_CLASSES, -3.0, np.float32)
    logits[6] = 1.0
    for age in range(1, 9):
        nothing = jnp.array([NEVER]), jnp.zeros(1, jnp.int32)
        steep = jnp.array([[1e9]])
        found = timing._tempered(jnp.asarray(logits)[None], jnp.array([age]), steep, *nothing)
        assert float(found[0]) == pytest.approx(float(age >= 7), abs=1e-3)


@pytest.mark.parametrize(("arch", "recall"), EACH)
def test_what_is_written_weighs_what_it_scores(arch, recall):
    decoder = decoder_of(arch, recall)
    requests = [request(decoder, i, PIECE[:n]) for i, n in enumerate((0, 3, 8, 15))]
    for one, written in zip(
        requests, write_all(decoder, requests, 40, is_weighed=True), strict=True
    ):
        music = [*PIECE[: one.n_prime], *as_chords(written.bits)]
        (expected,) = log_p(decoder.config, decoder.params, [music])
        np.testing.assert_allclose(written.log_p, expected[one.n_prime :], atol=1e-4)
        (plain,) = write_all(decoder, [one], 40)
        assert np.array_equal(plain.bits, written.bits)
        assert len(np.unique(music, axis=0)) > 3


@pytest.mark.parametrize("recall", [False, True])
def test_given_frames_weigh_what_they_score(recall):
    decoder = decoder_of("stacked", recall)
    one = request(decoder, 0, PIECE + PIECE)
    batch = Batch(decoder, [one], n_lanes=LANES)
    written = batch.advance(len(PIECE) * 2, is_weighed=True)
    (expected,) = log_p(decoder.config, decoder.params, [PIECE + PIECE])
    np.testing.assert_allclose(written.log_p[:, 0], expected, atol=1e-4)
    np.testing.assert_allclose(written.log_allowed[:, 0], expected, atol=1e-4)


@pytest.mark.parametrize("arch", ["lstm", "hybrid_stacked", "bilstm"])
def test_neighbours_blocks_and_states_do_not_show(arch):
    decoder = decoder_of(arch, recall=True)
    settings = {}, {"temperature": 0.6}, {"top_p": 0.8}, {"top_k": 2}, {"repetition_penalty": 2.0}
    requests = [
        request(decoder, i, PIECE[: 5 * (i % 3)], recent=60, **settings[i % 5]) for i in range(9)
    ]
    whole = write_all(decoder, requests, 50)
    for i in (0, 3, 8):
        (alone,) = write_all(decoder, [requests[i]], 50)
        assert np.array_equal(alone.bits, whole[i].bits)
    batch = Batch(decoder, requests[:1])
    parts = [batch.advance(n).bits for n in (1, 2, 4)]
    resumed = Batch(
        decoder,
        requests[:1],
        jax.tree.map(lambda a: np.asarray(a)[:1], batch.state),
        batch.position,
    )
    while len(np.concatenate(parts)) < 50:
        parts.append(resumed.advance(min(decoder.block, 9)).bits)
    assert np.array_equal(np.concatenate(parts)[:50, 0], whole[0].bits)


def test_the_network_steps_where_a_chord_begins(monkeypatch):
    decoder = decoder_of()
    batch = Batch(decoder, [request(decoder)])
    before = None
    for _ in range(30):
        carry = jax.tree.leaves(batch.state.carry)
        bits = batch.advance(1).bits[0, 0]
        now = jax.tree.leaves(batch.state.carry)
        goes_on = before is not None and np.array_equal(bits, before * (np.arange(8) < 4))
        assert goes_on == all(np.array_equal(a[0], b[0]) for a, b in zip(carry, now, strict=True))
        before = bits


SETTINGS = {
    "clock": "changes",
    "augment": 0,
    "units": 8,
    "embedding": 6,
    "window_size": 16,
    "batch_size": 4,
    "max_epochs": 2,
    "random_state": 3,
}
ROLLS = pl.datasets.load_chorales("train")[:8]
RULES = constraints.Scale("C major") & constraints.MaxHold(1) & constraints.PitchRange(48, 80)


@pytest.fixture(scope="module")
def fitted():
    return pl.SequenceGenerator(**SETTINGS).fit(ROLLS)


def test_frames_have_likelihoods_and_probabilities(fitted):
    other = [roll[:90] for roll in pl.datasets.load_chorales("test")[:2]]
    nats = fitted.surprise(other)
    assert [len(n) for n in nats] == [90, 90]
    frames = -np.concatenate(nats).mean()
    assert fitted.score(other) == pytest.approx(frames)
    assert fitted.score(other, per="second") == pytest.approx(frames * fitted.fs_)
    n_notes = sum(len(roll.notes) for roll in other)
    assert fitted.score(other, per="note") == pytest.approx(frames * 180 / n_notes)
    # Of a chord of the vocabulary the likelihood is the probability.
    closed = pl.SequenceGenerator(**{**SETTINGS, "spell": False}).fit(ROLLS)
    (p,), (nats,) = closed.predict_proba(ROLLS[:1]), closed.surprise(ROLLS[:1])
    tokens = closed.tokenizer_.transform(ROLLS[:1])[0].tokens
    known = tokens < closed.tokenizer_.n_tokens_
    np.testing.assert_allclose(p[known, tokens[known]], np.exp(-nats[known]), rtol=1e-3, atol=1e-6)
    assert known.mean() > 0.5 and (p.sum(1) < 1 + 1e-5).all()


def test_what_is_written_alone_in_a_batch_and_streamed(fitted):
    prime = ROLLS[0][:20]
    alone = fitted.generate(60, prime=prime, random_state=5)
    first, *_ = fitted.generate(60, n_pieces=3, prime=[prime] * 3, random_state=[5, 6, 7])
    assert first == alone
    stream = fitted.stream(prime=prime, random_state=5)
    frames = [next(stream) for _ in range(23)]
    frames += list(islice(fitted.stream(state=stream.state), 37))
    sounding = [tuple(np.flatnonzero(row)) for row in np.asarray(alone) > 0]
    assert [frame.pitches for frame in frames] == sounding
    # Settings may change while a chord sounds.
    fork = stream.fork()
    fork.set(temperature=0.1)
    quick = [next(fork).pitches for _ in range(60)]
    assert quick != [next(stream).pitches for _ in range(60)]


def test_rules_candidates_and_infilling(fitted):
    written = fitted.generate(200, constraints=RULES, random_state=1)
    assert RULES.allows([np.flatnonzero(row) for row in np.asarray(written) > 0]).all()
    new = np.append(True, (np.diff(np.asarray(written) > 0, axis=0) != 0).any(1))
    new |= written.onset.any(1)
    assert np.diff(np.flatnonzero(np.append(new, True))).max() <= fitted.fs_
    assert len(fitted.generate(40, n_candidates=3, top_p=0.9, random_state=2)) == 40
    roll, keep = ROLLS[1], np.ones((len(ROLLS[1]), 128), bool)
    keep[20:30], keep[40:50, :60] = False, False
    whole = fitted.infill(roll, keep, n_particles=16, random_state=0)
    assert ((np.asarray(whole) > 0) == (np.asarray(roll) > 0))[keep].all()
    assert whole != roll


def test_a_model_comes_back_learns_more_and_resumes(fitted, tmp_path):
    fitted.save(tmp_path / "model.safetensors")
    loaded = pl.SequenceGenerator.load(tmp_path / "model.safetensors")
    assert loaded.clock == "changes" and loaded._model == fitted._model
    again = [m.generate(50, random_state=4) for m in (loaded, fitted)]
    assert again[0] == again[1]
    more = pl.datasets.load_chorales("train")[8:10]
    loaded.extend(more[:1]).partial_fit(more)
    assert np.isfinite(loaded.score(more))
    with pytest.raises(
        pl.exceptions.InvalidInputError, match="clock='changes'; got clock='frames'"
    ):
        loaded.set_params(clock="frames", warm_start=True).fit(ROLLS)

    class Killed(Exception):
        pass

    class Kill(pl.callbacks.Callback):
        def on_epoch_end(self, model):
            if model.history_["epoch"][-1] == 1:
                raise Killed

    settings = {**SETTINGS, "checkpoint_dir": tmp_path, "augment": 2}
    with pytest.raises(Killed):
        pl.SequenceGenerator(**settings, callbacks=[Kill()]).fit(ROLLS)
    resumed = pl.SequenceGenerator(**settings).fit(ROLLS)
    straight = pl.SequenceGenerator(**{**settings, "checkpoint_dir": None}).fit(ROLLS)
    biases = [m._model.params["decoder"]["write_pitch"].tolist() for m in (resumed, straight)]
    assert biases[0] == biases[1]
    assert resumed.history_["val_loss"] == straight.history_["val_loss"]


def test_a_clock_is_one_of_two():
    with pytest.raises(pl.exceptions.InvalidInputError, match="frames, changes; got 'beats'"):
        pl.SequenceGenerator(clock="beats").fit(ROLLS)


def test_losses_are_nats_a_frame():
    """Of training and of validation, so that both clocks compare."""
    settings = {**SETTINGS, "dropout": 0.0, "recall": False, "max_epochs": 1, "learning_rate": 0.0}
    model = pl.SequenceGenerator(**settings).fit(ROLLS[:6], X_val=ROLLS[:3])
    assert model.history_["val_loss"][-1] == pytest.approx(-model.score(ROLLS[:3]), rel=1e-5)
    # Training learns where pieces end, too.
    assert model.history_["loss"][-1] == pytest.approx(-model.score(ROLLS[:6]), rel=0.06)


@pytest.mark.parametrize("recall", [False, True])
def test_training_counts_what_scores_count(recall):
    """The same piece through windows and carried along: durations, metre, chords, what recurs."""
    config, params = make(recall=recall)
    music = [*PIECE, *PIECE]
    corpus = corpus_of([music])
    n = len(corpus.tokens[0])
    dataset = pl.WindowDataset(corpus.tokens, window_size=n, timing=corpus.timing)
    (batch,) = dataset.batches(1, shuffle=False)
    assert batch.timing[0, :10, 1].tolist() == [0, 0, 12, 16, 36, 44, 0, 4, 8, 12]
    assert batch.first.tolist() == [0]
    reader = Reader(corpus, spell=True)
    targets = reader.targets(batch.targets, batch.inputs)
    weights = np.ones(batch.targets.shape, np.float32)
    its = Recalled(*(a[None, :n] for a in Recalled.along(corpus, 0, spell=True)))
    recalled = reader.recalled(its, batch.targets) if recall else None
    assert (its.classes.max() >= 6 and recalled is None) or recalled.is_next[0, -5:].all()
    arrays = *reader.inputs(batch.inputs), *targets, weights, batch.timing, recalled
    rest = (
        np.zeros((256, 8), np.uint32),
        np.int32(corpus.n_tokens),
        training.TrainingBatch(*arrays),
        None,
    )
    loss, sums = jax.jit(partial(training._sums, config))(params, *rest)
    # The last chord lasts for a frame, so that nothing is known of its end.
    assert corpus.durations[0][-1] == 1
    assert float(loss) == pytest.approx(-log_p(config, params, [music])[0].sum(), rel=1e-5)
    assert sums[2] == len(music) - 1  # frames whose chord has ended


def test_a_piece_alone_is_cut_where_a_bar_may_begin():
    roll = pl.PianoRoll.concatenate(ROLLS[:3])
    model = pl.SequenceGenerator(**{**SETTINGS, "window_size": 10})
    train, held_out, numbers = model._split(TokenCorpus.of([roll]), None, 0)
    (first,), (second,), (whole,) = train.tokens, held_out.tokens, TokenCorpus.of([roll]).tokens
    start = len(whole) - len(second)
    assert (start % 16, numbers) == (0, [0])
    assert len(second) >= len(whole) / 10 > len(second) - 16
    assert np.array_equal(first, whole[: start - 10])
    assert np.array_equal(second, whole[start:])
    with pytest.raises(pl.InvalidInputError, match="expected 45 frames or more"):
        model._split(TokenCorpus.of([roll[:30]]), None, 0)


def test_defaults():
    model = pl.SequenceGenerator()
    assert (model.clock, model._augment()) == ("changes", 6)
    assert pl.SequenceGenerator(spell=False)._augment() == 0
    with pytest.raises(pl.InvalidInputError, match="augment must be a whole number; got 'none'"):
        pl.SequenceGenerator(augment="none").fit(ROLLS)
