"""What is heard is heard in all keys: transposed music has transposed probabilities."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator

import pianolstm as pl
import test_clock
import tiny_networks
from pianolstm._decoding.batches import Decoder, Request, SamplingSettings, write_all
from pianolstm._jax.keys import key_of
from pianolstm._model.config import ARCHITECTURES
from pianolstm._model.pitch_lstm import Range
from pianolstm.chords import as_chords, transpose_chords
from pianolstm.constraints import limits_of
from tiny_networks import NONE, chord

PITCHES = Range(40, 40)
MODULES = {"frames": tiny_networks, "changes": test_clock}
"""What makes networks with each clock."""


def music(n, seed):
    """Chords of chance, some notes struck again, some chords held on."""
    rng, piece = np.random.default_rng(seed), [chord([57, 60])]
    while len(piece) < n:
        before = np.flatnonzero([int(piece[-1][p // 64]) >> (p % 64) & 1 for p in range(128)])
        sounding = rng.choice(np.arange(48, 72), rng.integers(1, 5), replace=False)
        kept = before[rng.random(len(before)) < 0.7]
        struck = kept[rng.random(len(kept)) < 0.3]
        piece.append(chord(kept) if rng.random() < 0.3 else chord([*sounding, *kept], struck))
    return np.array(piece)


def same_in_all_keys(arch, clock):
    """A network without what each pitch has of its own, that writes notes alone."""
    config, params = MODULES[clock].make(arch)
    rng = np.random.default_rng(0)
    hearing, decoder = params["hearing"], params["decoder"]
    own = ("pitch", "write_pitch", "first_pitch")
    decoder = {k: np.zeros_like(v) if k in own else v for k, v in decoder.items()}
    # Not zero, as at first, but the same for each pitch.
    decoder["below"] = {
        k: rng.normal(0, 0.3, v.shape).astype("f4") for k, v in decoder["below"].items()
    }
    params = {
        **params,
        "chords_in": {k: np.zeros_like(v) for k, v in params["chords_in"].items()},
        "hearing": {**hearing, "pitch": np.zeros_like(hearing["pitch"])},
        "decoder": decoder,
    }
    return replace(config, pitches=PITCHES), params


@pytest.mark.parametrize("clock", ["frames", "changes"])
@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_transposed_music_is_as_likely(arch, clock):
    config, params = same_in_all_keys(arch, clock)
    piece, log_p = music(40, 1), MODULES[clock].log_p
    (expected,) = log_p(config, params, [list(piece)])
    for step in (-7, 5):
        moved = replace(config, pitches=Range(PITCHES.lowest + step, PITCHES.n_pitches))
        (found,) = log_p(moved, params, [list(transpose_chords(piece, step))])
        np.testing.assert_allclose(found, expected, atol=1e-4)
    (other,) = log_p(moved, params, [list(transpose_chords(piece, step - 1))])
    assert np.abs(other - expected).max() > 0.01  # the ends of the range do not move along


@pytest.mark.parametrize("clock", ["frames", "changes"])
def test_what_follows_a_transposed_prime_is_transposed(clock):
    config, params = same_in_all_keys("stacked", clock)
    prime, written = music(20, 2), []
    for step in (0, 5):
        moved = replace(config, pitches=Range(PITCHES.lowest + step, PITCHES.n_pitches))
        decoder = Decoder(moved, params, NONE, 99, fs=20, grid="seconds", tempo_map=None)
        forced = decoder.forced(transpose_chords(prime, step))
        limits = limits_of(None, NONE, fs=20, grid="seconds", spell=True)
        settings = SamplingSettings(may_end=False)
        request = Request(key_of(3), settings, limits, forced, len(prime))
        written.append(as_chords(write_all(decoder, [request], 30)[0].bits))
    assert np.array_equal(transpose_chords(written[0], 5), written[1])
    assert len(np.unique(written[0], axis=0)) > 10


def test_ranges_by_hand():
    low, high = np.array([chord([60, 64])]), np.array([chord([2], [126])])
    assert Range.around(low, 6) == Range(48, 24)  # from 54 to 70
    assert Range.around(low, 0) == Range(56, 16)
    assert Range.around(low, 6, Range(40, 8)) == Range(40, 32)
    assert Range.around(high, 6) == Range(0, 128)
    assert Range.around(np.array([chord()]), 6) == Range(56, 8)
    planes = np.arange(256).reshape(2, 128)
    heard = Range(48, 24).of(planes)
    assert heard.tolist() == [list(range(48, 72)), list(range(176, 200))]
    back = np.asarray(Range(48, 24).within(heard, -1))
    assert np.array_equal(back, np.where(np.arange(128) // 24 == 2, planes, -1))


@pytest.mark.parametrize("is_frozen", [False, True])
def test_pitches_beyond_the_range_are_written_only_where_they_must(is_frozen):
    """They cost twenty nats each, until the model is told of pieces that have them."""

    def melody(shift):
        at = np.arange(60)
        return pl.PianoRoll.from_notes(at, at + 1, 60 + shift + at * 7 % 5, fs=4)

    tokenizer = pl.ChordTokenizer(max_tokens=2)
    model = pl.SequenceGenerator(
        tokenizer=FrozenEstimator(tokenizer.fit([melody(0)])) if is_frozen else tokenizer,
        units=8, embedding=16, window_size=8, batch_size=4, max_epochs=2, recall=False,
        random_state=0,
    ).fit([melody(0), melody(2), melody(1)])  # fmt: skip
    assert model._model.config.pitches == Range(48, 32)
    music = np.asarray(model.generate(200, random_state=0, temperature=1.5))
    assert music[:, 48:80].any() and not np.delete(music, np.arange(48, 80), axis=1).any()
    must = pl.PianoRoll.from_notes([3], [5], [100], fs=4)
    music = model.generate(20, random_state=0, constraints=pl.constraints.Melody(must))
    assert np.asarray(music)[3:5, 100].all()
    assert -25 < model.score([melody(36)]) < -18
    (model.partial_fit if is_frozen else model.extend)([melody(36)])  # a frozen one stays
    assert model._model.config.pitches == Range(48, 64)
    assert model.score([melody(36)]) > -12
