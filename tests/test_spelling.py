"""Two routes to a frame: probabilities that sum to one, and draws that follow them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

import pianolstm as pl
import reference
from pianolstm import constraints
from pianolstm._decoding import sampling
from pianolstm._decoding.batches import Batch, Decoder, Request, SamplingSettings, write_all
from pianolstm._decoding.notes import (
    N_NUMBERS,
    requirements_of,
    sample_notes,
)
from pianolstm._decoding.stepping import LANES
from pianolstm._model import note_decoder as spelling
from pianolstm._model.inputs import LAST, SKIPPED, spelled
from pianolstm._model.networks import NetworkConfig, bind
from pianolstm._model.note_decoder import NEVER, NoteDecoder
from pianolstm._model.pitch_lstm import Range
from pianolstm._model.planes import unpack_words
from pianolstm.chords import as_chords, as_words
from pianolstm.constraints import Requirements, limits_of, satisfies
from pianolstm.vocabulary import padded_vocabulary
from tiny_networks import (
    KNOWN,
    PASTS,
    PITCHES,
    agrees,
    chord,
    drawn_after,
    frames_after,
    log_p,
    make,
    notes_by_hand,
)


@pytest.mark.parametrize("arch", ["lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked"])
def test_the_probabilities_of_all_frames_sum_to_one(arch):
    config, params = make(arch)
    for past in PASTS:
        frames = frames_after(past)
        p = np.exp([piece[-1] for piece in log_p(config, params, [[*past, f] for f in frames])])
        assert p.sum() == pytest.approx(1, abs=1e-6)
        outside = [i for i, f in enumerate(frames) if not (f == KNOWN).all(1).any()]
        assert 0.05 < p[outside].sum() < 0.95


def test_both_routes_by_hand():
    """Rows of the softmax and notes, with plain sums in float64."""
    config, params = make()
    network = bind(config, params)
    table, bias, _ = network.output(padded_vocabulary(KNOWN), np.int32(len(KNOWN)), goes_on=True)
    table, bias = np.asarray(table, np.float64), np.asarray(bias, np.float64)
    for past in PASTS:
        hidden = hidden_after(network, past)
        logits = table @ hidden[0] + bias
        held = chord(reference.chord_of_bits(past[-1])[0]) if past else None
        may_hold = held is not None and not (held == KNOWN).all(1).any()
        if not may_hold:
            logits[-3] = -np.inf
        logits[impossible(past)] = -np.inf
        p = np.exp(logits - logits.max())
        p /= p.sum()
        frames = frames_after(past)
        found = [piece[-1] for piece in log_p(config, params, [[*past, f] for f in frames])]
        for frame, mine in zip(frames, found, strict=True):
            row = np.flatnonzero((frame == KNOWN).all(1))
            total = p[row[0]] if len(row) else p[-3] * (may_hold and (frame == held).all())
            total += p[-1] * np.exp(notes_by_hand(params, hidden, past, frame))
            assert mine == pytest.approx(np.log(total), abs=2e-5)


def impossible(past):
    """Rows of chords that strike again what did not sound."""
    before = reference.chord_of_bits(past[-1])[0] if past else frozenset()
    return [i for i, c in enumerate(KNOWN) if not reference.chord_of_bits(c)[1] <= before]


def softmax_after(config, params, past):
    """Logits of all rows in the frame after a past, float64; no chord outside sounds."""
    network = bind(config, params)
    table, bias, _ = network.output(padded_vocabulary(KNOWN), np.int32(len(KNOWN)), goes_on=True)
    logits = np.asarray(table, np.float64) @ hidden_after(network, past)[0]
    logits += np.asarray(bias, np.float64)
    logits[[*impossible(past), -3]] = -np.inf
    return logits


def hidden_after(network, past):
    """What predicts the next frame, and the state of each pitch, float64."""
    n = len(past)
    # Rests after it don't count, and all pasts have one length.
    past = [*past, *[chord()] * (max(map(len, PASTS)) - n)]
    bits = as_words(np.array([chord(), *past]))[None]
    rows = [np.flatnonzero((c == KNOWN).all(1)) for c in past]
    ids = np.array([[-1, *(r[0] if len(r) else 256 for r in rows)]], np.int32)
    (h, heard), _ = network.read(ids, bits, network.initial_carry(1))
    features = network.predict(h, None)
    return np.asarray(features[0, n], np.float64), np.asarray(heard[0, n], np.float64)


@pytest.mark.parametrize("past", PASTS)
def test_drawn_frames_have_the_stated_frequencies(past):
    config, params = make()
    frames = frames_after(past)
    p = np.exp([piece[-1] for piece in log_p(config, params, [[*past, f] for f in frames])])
    assert agrees(drawn_after(config, params, past, 100_000), frames, p) > 1e-3


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_frames_under_a_temperature_and_a_range(temperature, monkeypatch):
    """The temperature acts within each route; what a rule forbids is left out, the rest scaled."""
    monkeypatch.setattr(sampling, "MAX_REJECTED", 60)
    config, params = make()
    past, allowed = PASTS[1], PITCHES[:3]
    limits = limits_of(constraints.PitchRange(60, 62), KNOWN, fs=20, grid="seconds", spell=True)
    network = bind(config, params)
    table, bias, _ = network.output(padded_vocabulary(KNOWN), np.int32(len(KNOWN)), goes_on=True)
    hidden = hidden_after(network, past)
    logits = np.asarray(table, np.float64) @ hidden[0] + np.asarray(bias, np.float64)
    logits[impossible(past)] = -np.inf
    rows = [*range(len(KNOWN)), 253]
    other = np.exp(logits[-1]) / np.exp(logits).sum()
    tempered = np.exp(logits[rows] / temperature)
    tempered *= (1 - other) / tempered.sum()
    frames, p = frames_after(past), []
    for frame in frames:
        fits = reference.chord_of_bits(frame)[0] <= set(allowed)
        row = np.flatnonzero((frame == KNOWN).all(1))
        by_notes = notes_by_hand(params, hidden, past, frame, temperature=temperature)
        p.append(fits * (other * np.exp(by_notes) + (tempered[row[0]] if len(row) else 0)))
    counts = drawn_after(config, params, past, 100_000, limits, temperature=temperature)
    assert agrees(counts, frames, p) > 1e-3


@pytest.mark.parametrize("number", [0.0, 1 - 2.0**-24])
def test_notes_at_the_ends_of_the_uniform(number):
    """A pitch that is next to impossible is not written, whatever number it gets."""
    config, params = make()
    writer = Decoder(config, params, KNOWN, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits_of(None, KNOWN, fs=20, grid="seconds", spell=True)
    group = Batch(writer, [Request(np.zeros(2, np.uint32), SamplingSettings(), limits)] * LANES)
    free = jax.tree.map(lambda a: a[0], group._free)
    none = jnp.zeros((LANES, 256), bool)

    def u(k):
        return jnp.where(k % N_NUMBERS == 0, number, 0.5) * jnp.ones((LANES, 1))

    out = sample_notes(
        config.pitches,
        writer.weights["notes"],
        group.state.stepped.features,
        group.state.stepped.heard,
        none[:, :128],
        requirements_of(group.sampling, free)._replace(may_rest=jnp.zeros(LANES, bool)),
        group.sampling,
        jnp.ones(LANES, bool),
        (jnp.zeros(LANES, bool), none),
        u,
    )
    planes = np.asarray(out.planes)
    assert planes[:, PITCHES].any() and not np.delete(planes, PITCHES, axis=1).any()
    assert np.isfinite(out.nats).all()


def test_a_piece_does_not_end_where_a_note_must_be_struck_again():
    """Another piece would hold it on: it knows nothing of what sounded."""
    config, params = make(may_end=True)
    writer = Decoder(config, params, KNOWN, 99, fs=20, grid="seconds", tempo_map=None)
    roll = pl.PianoRoll.from_notes([0, 1], [1, 2], [60, 60], fs=20)
    limits = limits_of(constraints.Contains(roll), KNOWN, fs=20, grid="seconds", spell=True)
    pieces = [
        Request(np.array([0, key], np.uint32), SamplingSettings(), limits) for key in range(200)
    ]
    chords = [as_chords(written.bits)[1] for written in write_all(writer, pieces, 2)]
    assert all(60 in reference.chord_of_bits(c)[1] for c in chords)
    assert len({c.tobytes() for c in chords}) > 1


def test_rows_that_strike_again_what_is_silent_are_no_chance():
    """Where they alone fit, the chord is spelled, and never a rest written."""
    config, params = make(may_end=True)
    rule = constraints.PitchRange(61, 61) & constraints.MaxSilence(0)
    limits = limits_of(rule, KNOWN, fs=20, grid="seconds", spell=True)
    assert limits.allowed.tolist() == [False] * 5 + [True]
    for temperature in (0.0, 1.0):
        counts = drawn_after(config, params, [], 200, limits, temperature=temperature)
        assert list(counts) == [chord([61]).tobytes()]


def test_top_p_with_two_routes():
    """Chords of the vocabulary that are kept have their probabilities, scaled up."""
    config, params = make()
    past = PASTS[0]
    logits = softmax_after(config, params, past)
    p = np.exp(logits[: len(KNOWN)]) / np.exp(logits).sum()
    first, second, third = np.sort(p)[::-1][:3]
    kept = [c for c, share in zip(KNOWN, p, strict=True) if share >= second]
    counts = drawn_after(config, params, past, 100_000, top_p=first + second / 2)
    assert third < second
    assert agrees(counts, kept, p[p >= second]) > 1e-3


def test_candidates_are_drawn_as_any_other_music():
    config, params = make("stacked")
    writer = Decoder(config, params, KNOWN, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits_of(constraints.PitchRange(60, 62), KNOWN, fs=20, grid="seconds", spell=True)
    piece = Request(np.array([3, 4], np.uint32), SamplingSettings(), limits)
    plain, weighed = (
        write_all(writer, [piece], 100, is_weighed=is_weighed)[0] for is_weighed in (False, True)
    )
    assert np.array_equal(plain.bits, weighed.bits)


def test_notes_that_must_come_have_room():
    """However few may sound, and whatever is more likely."""
    config, params = make()
    rolls = [pl.PianoRoll.from_notes([0] * n, [8] * n, PITCHES[-n:], fs=20) for n in (1, 3)]
    for n, roll in zip((1, 3), rolls, strict=True):
        rule = constraints.Contains(roll) & constraints.MaxNotes(n)
        limits = limits_of(rule, KNOWN, fs=20, grid="seconds", spell=True)
        writer = Decoder(config, params, KNOWN, 99, fs=20, grid="seconds", tempo_map=None)
        pieces = [
            Request(np.array([0, key], np.uint32), SamplingSettings(), limits) for key in range(40)
        ]
        for written in write_all(writer, pieces, 8):
            for c in as_chords(written.bits):
                assert reference.chord_of_bits(c)[0] == set(PITCHES[-n:])


@pytest.mark.parametrize("draw", [{"top_k": 1}, {"top_p": 0.01}, {"top_p": 1e-46}])
def test_what_only_spelling_can_write_is_spelled(draw):
    """The end of a piece is no likelier chord."""
    config, params = make(may_end=True)
    roll = pl.PianoRoll.from_notes([0, 0], [2, 2], [60, 63], fs=20)
    limits = limits_of(constraints.Contains(roll), KNOWN, fs=20, grid="seconds", spell=True)
    writer = Decoder(config, params, KNOWN, 99, fs=20, grid="seconds", tempo_map=None)
    pieces = [
        Request(np.array([0, key], np.uint32), SamplingSettings(**draw), limits)
        for key in range(20)
    ]
    for written in write_all(writer, pieces, 2):
        for c in as_chords(written.bits):
            assert {60, 63} <= reference.chord_of_bits(c)[0] <= set(PITCHES)


def test_a_penalty_acts_on_spelled_chords_too():
    config, params = make()
    limits = limits_of(None, KNOWN, fs=20, grid="seconds", spell=True)
    writer = Decoder(config, params, KNOWN, 99, fs=20, grid="seconds", tempo_map=None)
    again = []
    for penalty in (1.0, 1e6):
        draw = SamplingSettings(repetition_penalty=penalty, recent=20, may_end=False)
        pieces = [Request(np.array([0, key], np.uint32), draw, limits) for key in range(16)]
        count = 0
        for written in write_all(writer, pieces, 12):
            chords = [c.tobytes() for c in as_chords(written.bits)]
            for t in range(1, 12):
                held = chord(reference.chord_of_bits(as_chords(written.bits)[t - 1])[0])
                is_new = chords[t] != held.tobytes() and written.tokens[t] != 0
                count += is_new and chords[t] in chords[:t]
        again.append(count)
    assert again[0] > 40 and again[1] < again[0] / 10


def test_a_lane_does_not_hear_the_settings_of_others():
    config, params = make("stacked")
    writer = Decoder(config, params, KNOWN, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits_of(None, KNOWN, fs=20, grid="seconds", spell=True)
    one = Request(np.array([5, 6], np.uint32), SamplingSettings(), limits)
    other = SamplingSettings(temperature=0.5, top_k=3, top_p=0.8, repetition_penalty=2.0, recent=9)
    others = [Request(np.array([9, i], np.uint32), other, limits) for i in range(LANES - 1)]
    (alone,) = write_all(writer, [one], 200, is_weighed=True)
    together = write_all(writer, [one, *others], 200, is_weighed=True)[0]
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a, b)


def test_top_k_and_top_p_take_chords_of_the_vocabulary_first():
    config, params = make()
    past = PASTS[0]
    known = {c.tobytes() for c in KNOWN}
    greedy = drawn_after(config, params, past, 64, temperature=0.0)
    assert len(greedy) == 1 and set(greedy) <= known
    assert drawn_after(config, params, past, 64, top_k=1) == greedy
    # One of them strikes again what did not sound.
    assert set(drawn_after(config, params, past, 400, top_k=len(KNOWN) - 1)) <= known
    assert not set(drawn_after(config, params, past, 400, top_k=len(KNOWN))) <= known
    # All of the vocabulary has less than this.
    assert not set(drawn_after(config, params, past, 400, top_p=0.999)) <= known


def test_likelihoods_of_writing_are_those_of_scoring():
    """Of drawn chords by either route, of chords held on, and of given ones."""
    config, params = make("stacked")
    writer = Decoder(config, params, KNOWN, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits_of(None, KNOWN, fs=20, grid="seconds", spell=True)
    prime = np.array([*PASTS[1], chord([60, 61]), *PASTS[0]])
    piece = Request(
        np.array([1, 2], np.uint32),
        SamplingSettings(may_end=False),
        limits,
        writer.forced(prime),
        len(prime),
    )
    (written,) = write_all(writer, [piece], 200, is_weighed=True)
    chords = as_chords(written.bits)
    (expected,) = log_p(config, params, [[*prime, *chords]])
    np.testing.assert_allclose(written.log_p, expected[len(prime) :], atol=1e-4)
    assert (written.tokens == 256).sum() > 20
    np.testing.assert_allclose(written.log_allowed[written.tokens < 256], 0, atol=1e-5)


def test_likelihoods_are_the_same_in_any_company_and_in_one_pass():
    rng = np.random.default_rng(0)
    config, params = make("hybrid")
    pieces = []
    for n in (3, 41, 1, 17, 90):
        piece = [chord()]
        while len(piece) < n:
            frames = frames_after(piece)
            piece.append(frames[rng.integers(len(frames))])
        pieces.append(piece)
    together = log_p(config, params, pieces)
    one_pass = NetworkConfig(**{**vars(config), "window_size": 128})
    for piece, found in zip(pieces, together, strict=True):
        np.testing.assert_allclose(log_p(config, params, [piece])[0], found, atol=1e-5)
        np.testing.assert_allclose(log_p(one_pass, params, [piece])[0], found, atol=1e-5)


def test_symbols_by_hand():
    chords = np.array([chord(), chord([3, 127], [64]), chord([0], [127])])
    assert spelled(chords).tolist() == [
        [LAST] * 4,
        [3, 128 + 64, 127, LAST],
        [0, 128 + 127, LAST, LAST],
    ]


@pytest.mark.parametrize("barred", [False, True])
@pytest.mark.parametrize("chunk", [4, 1024])
def test_chunks_do_not_show(chunk, barred, monkeypatch):
    """Each frame, and each gradient, as if it stood alone."""
    monkeypatch.setattr(spelling, "CHUNK", chunk)
    rng = np.random.default_rng(1)
    decoder, pitches = NoteDecoder(6, 5, 8, 7, rngs=nnx.Rngs(params=0)), Range(40, 30)
    features = rng.normal(size=(20, 6)).astype(np.float32)
    heard = rng.normal(size=(20, 30, 5)).astype(np.float32)
    sets = [[rng.choice(128, rng.integers(7), replace=False) for _ in range(2)] for _ in range(20)]
    chords = np.array([chord(*pair) for pair in sets])
    before = as_words(chords[rng.permutation(20)])[:, :4]
    symbols = spelled(chords)
    symbols[[0, 7, 19]] = SKIPPED
    is_barred = rng.random(20) < 0.5 if barred else None
    arrays = [features, heard, symbols, before, *([is_barred] if barred else [])]
    arrays = [jnp.asarray(a) for a in arrays]

    def log_p(x, heard, *rest):
        return decoder(pitches, heard, x, *rest)

    def one(*row):
        return log_p(*(a[None] for a in row))[0]

    alone = jax.jit(jax.value_and_grad(one, argnums=(0, 1)))
    singles = [alone(*row) for row in zip(*arrays, strict=True)]
    found, back = jax.vjp(lambda x, h: log_p(x, h, *arrays[2:]), *arrays[:2])
    np.testing.assert_allclose(found, [float(a) for a, _ in singles], rtol=1e-5)
    weights = rng.normal(size=20).astype(np.float32)
    for gradient, *expected in zip(
        back(jnp.asarray(weights)), *(b for _, b in singles), strict=True
    ):
        expected = [w * np.asarray(e) for w, e in zip(weights, expected, strict=True)]
        np.testing.assert_allclose(gradient, expected, atol=2e-5)
    assert np.flatnonzero(np.asarray(found) == NEVER).tolist() == [0, 7, 19]


@given(
    st.lists(st.sets(st.integers(40, 80), max_size=9), min_size=LANES, max_size=LANES),
    st.integers(0, 20),
    st.integers(1, 5),
    st.integers(0, 8),
)
def test_whole_chords_keep_what_constraints_ask(sets, span, hand, notes):
    rule = constraints.TwoHands(span, hand) & constraints.MaxNotes(notes)
    rule &= constraints.Scale("C major") & constraints.PitchRange(41, 79)
    limits = limits_of(rule, KNOWN[:1], fs=20, grid="seconds", spell=True)
    planes = unpack_words(as_words(np.array([chord(s) for s in sets]))) > 0
    none, many = jnp.zeros((LANES, 128), bool), jnp.ones(LANES, jnp.int32)
    asked = Requirements(
        jnp.broadcast_to(limits.pitches, (LANES, 128)),
        *(none,) * 3,
        *(many * n for n in (limits.max_notes, limits.span, limits.hand)),
        jnp.ones(LANES, bool),
    )
    assert satisfies(asked, planes, none, jnp).tolist() == rule.allows(sets).tolist()
