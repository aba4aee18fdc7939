"""Infilling: what is kept stays, and what is written fits what follows."""

import numpy as np
import pytest

import pianolstm as pl


def piece(key, n=60):
    """A scale up or down that depends on its first chord."""
    pitches = 60 + (np.arange(n) * key) % 12
    return pl.PianoRoll.from_notes(np.arange(n), np.arange(n) + 1, pitches)


def closed(**changes):
    # As the one that learns a sequence in test_generator, so that programs are shared.
    settings = {"units": 48, "embedding": 24, "window_size": 24, "batch_size": 8, "dropout": 0.0}
    settings |= {
        "clock": "frames",
        "augment": 0,
        "spell": False,
        "recall": False,
        "learning_rate": 0.01,
        "random_state": 0,
    }
    return pl.SequenceGenerator(arch="hybrid", **settings, early_stopping=False, **changes)


@pytest.fixture(scope="module")
def model():
    return closed(max_epochs=40).fit([piece(key) for key in (1, 5, 7, 11) for _ in range(3)])


def log_p(model, roll):
    return float(model._log_likelihoods(*model._seen([roll]))[0].sum())


def test_kept_frames_stay_and_the_rest_fits(model):
    gains = []
    for key, seed in ((1, 0), (5, 1), (7, 2), (11, 3)):
        roll = piece(key)
        keep = np.ones(60, bool)
        keep[:6] = keep[20:24] = False  # the beginning follows from what comes after it
        whole = model.infill(roll, keep, n_particles=32, random_state=seed)
        assert len(whole) == 60
        assert (np.asarray(whole)[keep] == np.asarray(roll)[keep]).all()
        assert whole == model.infill(roll, keep, n_particles=32, random_state=seed)
        # Left to right: written without a look at what follows.
        begun = model.generate(6, random_state=seed)
        first = pl.PianoRoll.concatenate([begun, roll[6:20]])
        gap = model.generate(4, prime=first, random_state=seed)
        plain = pl.PianoRoll.concatenate([first, gap, roll[24:]])
        gains.append(log_p(model, whole) - log_p(model, plain))
    assert np.mean(gains) > 5
    assert min(gains) > -1


def test_kept_pitches_stay(model):
    rng = np.random.default_rng(0)
    rolls = [
        pl.PianoRoll.from_notes(
            np.repeat(np.arange(0, 80, 2), 2),
            np.repeat(np.arange(0, 80, 2), 2) + 2,
            np.stack([rng.integers(48, 53, 40), rng.integers(60, 64, 40)], 1).ravel(),
        )
        for _ in range(8)
    ]
    # As in test_host.
    two = pl.SequenceGenerator(
        units=8, embedding=6, window_size=24, batch_size=8, dropout=0.0, max_epochs=2,
        clock="frames", augment=0, random_state=0,
    ).fit(rolls)  # fmt: skip
    roll = rolls[0]
    keep = np.zeros((80, 128), bool)
    keep[:, :56] = True  # the lower voice
    whole = two.infill(roll, keep, n_particles=16, random_state=1)
    assert (np.asarray(whole)[keep] == np.asarray(roll)[keep]).all()
    assert (np.asarray(whole)[~keep] != np.asarray(roll)[~keep]).any()
    # A voice that no chord of the vocabulary has.
    moved = roll.transpose(-10)
    whole = two.infill(moved, keep, n_particles=16, random_state=1)
    assert (np.asarray(whole)[keep] == np.asarray(moved)[keep]).all()
    with pytest.raises(pl.InvalidInputError, match="no chord of the vocabulary at frame 0"):
        closed(max_epochs=1).fit(rolls).infill(moved, keep)


def test_particles_in_a_dead_end_are_given_up(model):
    roll = piece(1)
    keep = np.ones((60, 128), bool)
    keep[10:14] = False
    keep[14, :62] = keep[14, 66:] = True  # of frame 14 some pitches, and frame 15 on, are kept
    keep[14, 62:66] = False
    whole = model.infill(
        roll, keep, n_particles=16, constraints=pl.constraints.MaxHold(0.05), random_state=0
    )
    assert (np.asarray(whole)[keep] == np.asarray(roll)[keep]).all()
    alone = pl.constraints.Scale([0]) & pl.constraints.PitchRange(60, 60)
    rule = alone & pl.constraints.MaxSilence(0) & pl.constraints.MaxHold(0.1)
    with pytest.raises(pl.InvalidInputError, match="at frame 2; loosen"):
        model.infill(roll, keep[:, 0] & (np.arange(60) < 10), constraints=rule, random_state=0)


def test_all_or_nothing_kept(model):
    roll = piece(5)
    assert model.infill(roll, np.ones(60, bool)) == roll
    assert len(model.infill(roll, np.zeros(60, bool), n_particles=8, random_state=0)) == 60


def test_chords_outside_the_vocabulary_are_kept_too(model):
    roll = pl.PianoRoll.concatenate([piece(1, 20), piece(1, 20).transpose(30), piece(1, 20)])
    keep = np.ones(60, bool)
    keep[25:31] = False
    whole = model.infill(roll, keep, n_particles=8, random_state=0)
    assert (np.asarray(whole)[keep] == np.asarray(roll)[keep]).all()


@pytest.mark.parametrize(
    ("keep", "match"),
    [
        (np.ones(59, bool), r"keep must be bool.*shape \(60,\) or \(60, 128\); got bool of shape"),
        (np.ones(60), "got float64"),
    ],
)
def test_masks_of_another_kind(model, keep, match):
    with pytest.raises(pl.InvalidInputError, match=match):
        model.infill(piece(1), keep)
