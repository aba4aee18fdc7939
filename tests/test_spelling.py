"""Chords note by note: probabilities that sum to one, and draws that follow them."""

from dataclasses import replace

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
from pianolstm._decoding.batches import Batch, Decoder, Request, SamplingSettings, write_all
from pianolstm._decoding.history import barred
from pianolstm._decoding.notes import (
    N_NUMBERS,
    Asked,
    requirements_of,
    sample_notes,
)
from pianolstm._decoding.stepping import LANES, chord_features
from pianolstm._model import note_decoder as spelling
from pianolstm._model.config import NetworkConfig
from pianolstm._model.inputs import LAST, SKIPPED, spelled
from pianolstm._model.networks import bind
from pianolstm._model.note_decoder import NEVER, NoteDecoder
from pianolstm._model.pitch_lstm import Range
from pianolstm._model.planes import unpack_words
from pianolstm.chords import as_chords, as_words
from pianolstm.constraints import Requirements, limits_of, satisfies
from tiny_networks import (
    NONE,
    PASTS,
    PITCHES,
    agrees,
    chord,
    drawn_after,
    frames_after,
    log_p,
    make,
    notes_by_hand,
    try_for_long,
)


@pytest.mark.parametrize("arch", ["lstm", "bilstm", "stacked", "hybrid", "hybrid_stacked"])
def test_the_probabilities_of_all_frames_sum_to_one(arch):
    config, params = make(arch)
    for past in PASTS:
        frames = frames_after(past)
        p = np.exp([piece[-1] for piece in log_p(config, params, [[*past, f] for f in frames])])
        assert p.sum() == pytest.approx(1, abs=1e-6)
        assert 0.02 < p.max() < 0.95


def test_frames_by_hand():
    """By loops over pitches and notes, with plain sums in float64."""
    config, params = make()
    network = bind(config, params)
    for past in PASTS:
        hidden = hidden_after(network, past)
        frames = frames_after(past)
        found = [piece[-1] for piece in log_p(config, params, [[*past, f] for f in frames])]
        for frame, mine in zip(frames, found, strict=True):
            assert mine == pytest.approx(notes_by_hand(params, hidden, past, frame), abs=2e-5)


def hidden_after(network, past):
    """What predicts the next frame, and the state of each pitch, float64."""
    n = len(past)
    # Rests after it don't count, and all pasts have one length.
    past = [*past, *[chord()] * (max(map(len, PASTS)) - n)]
    bits = as_words(np.array([chord(), *past]))[None]
    ids = np.array([[-1, *[0] * len(past)]], np.int32)
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
    """The temperature acts on each draw; what a rule forbids is left out, the rest scaled up."""
    try_for_long(monkeypatch)
    config, params = make()
    config = replace(config, window_size=6)
    past, allowed = PASTS[1], PITCHES[:3]
    limits = limits_of(constraints.PitchRange(60, 62), NONE, fs=20, grid="seconds", spell=True)
    hidden = hidden_after(bind(config, params), past)
    frames, p = frames_after(past), []
    for frame in frames:
        fits = reference.chord_of_bits(frame)[0] <= set(allowed)
        nats = notes_by_hand(params, hidden, past, frame, temperature=temperature)
        p.append(fits * np.exp(nats))
    counts = drawn_after(config, params, past, 100_000, limits, temperature=temperature)
    assert agrees(counts, frames, p) > 1e-3


@pytest.mark.parametrize("number", [0.0, 1 - 2.0**-24])
def test_notes_at_the_ends_of_the_uniform(number):
    """A pitch that is next to impossible is not written, whatever number it gets."""
    config, params = make()
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits_of(None, NONE, fs=20, grid="seconds", spell=True)
    group = Batch(writer, [Request(np.zeros(2, np.uint32), SamplingSettings(), limits)] * LANES)
    free, stepped = jax.tree.map(lambda a: a[0], group._free), group.state.stepped
    none, no = jnp.zeros((LANES, 256), bool), jnp.zeros(LANES, bool)
    nothing_barred = barred(group.state.memory, group.sampling.max_repeats)

    def u(k):
        return jnp.where(k % N_NUMBERS == 0, number, 0.5) * jnp.ones((LANES, 1))

    out = sample_notes(
        config.pitches,
        writer.weights["notes"],
        (chord_features(writer.weights, stepped.hidden), stepped.heard),
        Asked(
            none[:, :128],
            requirements_of(group.sampling, free)._replace(may_rest=no),
            no,
            ~no,
            no,
            no,
            none,
            nothing_barred,
        ),
        group.sampling,
        ~no,
        u,
    )
    planes = np.asarray(out.planes)
    assert planes[:, PITCHES].any() and not np.delete(planes, PITCHES, axis=1).any()
    assert np.isfinite(out.nats).all()


def test_a_piece_does_not_end_where_a_note_must_be_struck_again():
    """Another piece would hold it on: it knows nothing of what sounded."""
    config, params = make(may_end=True)
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    roll = pl.PianoRoll.from_notes([0, 1], [1, 2], [60, 60], fs=20)
    limits = limits_of(constraints.Contains(roll), NONE, fs=20, grid="seconds", spell=True)
    pieces = [
        Request(np.array([0, key], np.uint32), SamplingSettings(), limits) for key in range(200)
    ]
    chords = [as_chords(written.bits)[1] for written in write_all(writer, pieces, 2)]
    assert all(60 in reference.chord_of_bits(c)[1] for c in chords)
    assert len({c.tobytes() for c in chords}) > 1


def test_what_must_strike_again_is_no_chance_at_the_beginning():
    """Where one pitch alone fits, it begins, and never a rest is written."""
    config, params = make(may_end=True)
    rule = constraints.PitchRange(61, 61) & constraints.MaxSilence(0)
    limits = limits_of(rule, NONE, fs=20, grid="seconds", spell=True)
    for temperature in (0.0, 1.0):
        counts = drawn_after(config, params, [], 200, limits, temperature=temperature)
        assert list(counts) == [chord([61]).tobytes()]


def test_where_nothing_else_may_come_what_sounds_is_held_on():
    """For longer than usual, and where another piece begins: there is always a rest."""
    config, params = make(may_end=True)
    config = replace(config, pitches=Range(40, 40))
    writer = Decoder(config, params, NONE, 2, fs=20, grid="seconds", tempo_map=None)
    # Of pitches that the network doesn't hear.
    limits = limits_of(constraints.PitchRange(10, 20), NONE, fs=20, grid="seconds", spell=True)
    pieces = [
        Request(np.array([0, key], np.uint32), SamplingSettings(), limits) for key in range(8)
    ]
    for written in write_all(writer, pieces, 30):
        assert not written.bits.any() and (written.tokens == 0).all()


def test_top_p_and_top_k_act_on_each_draw():
    """What changes first is among the likeliest; and so is each note above it."""
    config, params = make()
    past = PASTS[0]
    hidden = hidden_after(bind(config, params), past)
    frames = frames_after(past)
    p = np.exp([notes_by_hand(params, hidden, past, frame) for frame in frames])
    before = reference.chord_of_bits(past[-1])[0]

    def first(frame):
        sounding, struck = reference.chord_of_bits(frame)
        return min([q for q in PITCHES if (q in sounding) != (q in before) or q in struck] or [128])

    by_first = {}
    for frame, share in zip(frames, p, strict=True):
        by_first[first(frame)] = by_first.get(first(frame), 0) + share
    likeliest = sorted(by_first, key=by_first.get)[::-1]
    for draw in ({"top_k": 2}, {"top_p": sum(by_first[q] for q in likeliest[:2]) - 1e-3}):
        counts = drawn_after(config, params, past, 4000, **draw)
        firsts = {first(np.frombuffer(f, np.uint64)) for f in counts}
        assert firsts == set(likeliest[:2])
    # The likeliest draw each time is one chord.
    greedy = drawn_after(config, params, past, 64, temperature=0.0)
    assert len(greedy) == 1
    assert drawn_after(config, params, past, 64, top_k=1) == greedy


def test_candidates_are_drawn_as_any_other_music():
    config, params = make("stacked")
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits_of(constraints.PitchRange(60, 62), NONE, fs=20, grid="seconds", spell=True)
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
        limits = limits_of(rule, NONE, fs=20, grid="seconds", spell=True)
        writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
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
    limits = limits_of(constraints.Contains(roll), NONE, fs=20, grid="seconds", spell=True)
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    pieces = [
        Request(np.array([0, key], np.uint32), SamplingSettings(**draw), limits)
        for key in range(20)
    ]
    for written in write_all(writer, pieces, 2):
        for c in as_chords(written.bits):
            assert {60, 63} <= reference.chord_of_bits(c)[0] <= set(PITCHES)


def test_a_penalty_acts_on_spelled_chords_too():
    config, params = make()
    limits = limits_of(None, NONE, fs=20, grid="seconds", spell=True)
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    again = []
    for penalty in (1.0, 1e6):
        draw = SamplingSettings(repetition_penalty=penalty, recent=20, may_end=False)
        pieces = [Request(np.array([0, key], np.uint32), draw, limits) for key in range(16)]
        count = 0
        for written in write_all(writer, pieces, 12):
            chords = [c.tobytes() for c in as_chords(written.bits)]
            for t in range(1, 12):
                held = chord(reference.chord_of_bits(as_chords(written.bits)[t - 1])[0])
                is_new = chords[t] not in (held.tobytes(), chord().tobytes())
                count += is_new and chords[t] in chords[:t]
        again.append(count)
    assert again[0] > 15 and again[1] < again[0] / 10


def test_a_lane_does_not_hear_the_settings_of_others():
    config, params = make("stacked")
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits_of(None, NONE, fs=20, grid="seconds", spell=True)
    one = Request(np.array([5, 6], np.uint32), SamplingSettings(), limits)
    other = SamplingSettings(temperature=0.5, top_k=3, top_p=0.8, repetition_penalty=2.0, recent=9)
    others = [Request(np.array([9, i], np.uint32), other, limits) for i in range(LANES - 1)]
    (alone,) = write_all(writer, [one], 200, is_weighed=True)
    together = write_all(writer, [one, *others], 200, is_weighed=True)[0]
    for a, b in zip(alone, together, strict=True):
        assert np.array_equal(a, b)


def test_likelihoods_of_writing_are_those_of_scoring():
    """Of drawn chords, of chords held on, and of given ones."""
    config, params = make("stacked")
    writer = Decoder(config, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
    limits = limits_of(None, NONE, fs=20, grid="seconds", spell=True)
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
    assert len(np.unique(chords, axis=0)) > 20
    np.testing.assert_allclose(written.log_allowed, 0, atol=1e-4)


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
    is_barred = rng.random(20) < 0.5 if barred else np.zeros(20, bool)
    arrays = [features, heard, symbols, before, is_barred]
    arrays = [jnp.asarray(a) for a in arrays]

    def log_p(x, heard, *rest):
        return decoder(pitches, heard, x, *rest)[0]

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
    limits = limits_of(rule, NONE, fs=20, grid="seconds", spell=True)
    planes = unpack_words(as_words(np.array([chord(s) for s in sets]))) > 0
    none, many = jnp.zeros((LANES, 128), bool), jnp.ones(LANES, jnp.int32)
    asked = Requirements(
        jnp.broadcast_to(limits.pitches, (LANES, 128)),
        *(none,) * 3,
        *(many * n for n in (limits.max_notes, limits.span, limits.hand)),
        jnp.ones(LANES, bool),
    )
    assert satisfies(asked, planes, none, jnp).tolist() == rule.allows(sets).tolist()
