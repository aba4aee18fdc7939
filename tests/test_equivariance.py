"""What is heard is heard in every key: transposed music has transposed probabilities."""

from dataclasses import replace

import numpy as np
import pytest

import test_clock
import tiny_networks
from pianolstm._decoding.batches import Decoder, Request, SamplingSettings, write_all
from pianolstm._jax.keys import key_of
from pianolstm._model.networks import ARCHITECTURES
from pianolstm._model.note_decoder import NEVER
from pianolstm._model.pitch_lstm import Range
from pianolstm.chords import as_chords, transpose_chords
from pianolstm.constraints import limits_of
from tiny_networks import KNOWN, chord

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
        "bias": np.where(np.arange(256) == 255, 0, NEVER).astype("f4"),
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
        decoder = Decoder(moved, params, KNOWN, 99, fs=20, grid="seconds", tempo_map=None)
        forced = decoder.forced(transpose_chords(prime, step))
        limits = limits_of(None, KNOWN, fs=20, grid="seconds", spell=True)
        settings = SamplingSettings(may_end=False)
        request = Request(key_of(3), settings, limits, forced, len(prime))
        written.append(as_chords(write_all(decoder, [request], 30)[0].bits))
    assert np.array_equal(transpose_chords(written[0], 5), written[1])
    assert len(np.unique(written[0], axis=0)) > 10
