"""Checkpoints: what a kill costs, and what is refused."""

import functools
import os
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import pianolstm as pl
from pianolstm._model import networks

SETTINGS = {
    "clock": "frames",
    "augment": 0,
    "units": 8,
    "embedding": 6,
    "window_size": 24,
    "batch_size": 4,
    "max_epochs": 3,
    "spell": False,
    "recall": False,
    "random_state": 0,
}


class Killed(Exception):
    """Stands for a kill: nothing of the library catches it."""


class Kill(pl.callbacks.Callback):
    def __init__(self, after):
        self.left = after

    def on_batch_end(self, model, step, n_steps, loss):
        self.left -= 1
        if self.left < 0:
            raise Killed


def model(folder, **changes):
    return pl.SequenceGenerator(**{**SETTINGS, "checkpoint_dir": folder, **changes})


def assert_same(one, other):
    leaves = [
        jax.tree.leaves((m._model.state.params, m._model.state.average, m._model.state.opt_state))
        for m in (one, other)
    ]
    for a, b in zip(*leaves, strict=True):
        np.testing.assert_array_equal(a, b)
    for key in ("epoch", "loss", "val_loss", "accuracy"):
        np.testing.assert_array_equal(one.history_[key], other.history_[key])
    assert one.best_epoch_ == other.best_epoch_


@pytest.fixture(scope="module")
def pieces():
    return pl.datasets.load_chorales("train")[:6]


@pytest.fixture(scope="module")
def undisturbed(pieces):
    fitted = pl.SequenceGenerator(**SETTINGS).fit(pieces)
    assert len(fitted.history_["epoch"]) == 4
    return fitted


@pytest.mark.parametrize("minutes", [None, 0])
@pytest.mark.parametrize("dies_after", [[0], [20], [3, 15, 10]])
def test_a_killed_fit_ends_as_if_nothing_had_happened(
    tmp_path, pieces, undisturbed, minutes, dies_after
):
    for after in dies_after:
        with pytest.raises(Killed):
            model(tmp_path, checkpoint_minutes=minutes, callbacks=[Kill(after)]).fit(pieces)
    assert_same(model(tmp_path, checkpoint_minutes=minutes).fit(pieces), undisturbed)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def halving(step):
    return 0.01 * 0.5 ** (step // 10)


def test_schedule_optimiser_and_transpositions_go_on_too(tmp_path, pieces):
    changes = {
        "optimizer": functools.partial(optax.adamw, weight_decay=0.01),
        "learning_rate": halving,
        "augment": 4,
    }
    undisturbed = model(None, **changes).fit(pieces)
    with pytest.raises(Killed):
        model(tmp_path, callbacks=[Kill(25)], checkpoint_minutes=0, **changes).fit(pieces)
    for other in (
        {"learning_rate": lambda step: halving(step + 1)},
        {"optimizer": functools.partial(optax.adamw, weight_decay=0.02)},
        {"augment": 3},
    ):
        with pytest.raises(pl.InvalidInputError, match="the checkpoint of another fit"):
            model(tmp_path, **{**changes, **other}).fit(pieces)
    assert_same(model(tmp_path, **changes).fit(pieces), undisturbed)
    assert undisturbed.history_["learning_rate"][-1] < 0.01 / 4


def test_a_kill_costs_one_checkpoint_at_the_most(tmp_path, pieces):
    steps = []

    class Count(pl.callbacks.Callback):
        def on_batch_end(self, model, step, n_steps, loss):
            steps.append((len(model.history_["epoch"]), step))

    with pytest.raises(Killed):
        model(tmp_path, checkpoint_minutes=0, callbacks=[Kill(13)]).fit(pieces)
    model(tmp_path, checkpoint_minutes=0, callbacks=[Count()]).fit(pieces)
    whole = []
    steps, whole = whole, steps
    model(tmp_path / "other", callbacks=[Count()]).fit(pieces)
    # The 14th step was done but not kept; it and what follows is done again.
    assert whole == steps[13:]


def test_the_checkpoint_is_the_best_model_so_far(tmp_path, pieces, undisturbed):
    with pytest.raises(Killed):
        model(tmp_path, callbacks=[Kill(20)]).fit(pieces)
    loaded = pl.SequenceGenerator.load(tmp_path / "checkpoint.safetensors")
    n = len(loaded.history_["epoch"])
    assert 1 < n < 4
    assert loaded.history_["val_loss"] == undisturbed.history_["val_loss"][:n]
    assert loaded.checkpoint_dir is None  # a folder of the machine that trained it
    held_out = [pieces[i] for i in loaded.held_out_]
    assert -loaded.score(held_out) == pytest.approx(min(loaded.history_["val_loss"]), abs=1e-4)


def test_a_finished_fit_begins_anew(tmp_path, pieces, undisturbed):
    for _ in range(2):
        assert_same(model(tmp_path).fit(pieces), undisturbed)
    loaded = pl.SequenceGenerator.load(tmp_path / "checkpoint.safetensors")
    assert loaded.generate(9, random_state=0) == undisturbed.generate(9, random_state=0)


@pytest.mark.parametrize("changes", [{"learning_rate": 0.003}, {"random_state": 1}, {"units": 9}])
def test_the_checkpoint_of_other_settings_is_refused(tmp_path, pieces, changes):
    with pytest.raises(Killed):
        model(tmp_path, callbacks=[Kill(20)]).fit(pieces)
    with pytest.raises(
        pl.InvalidInputError, match="checkpoint of another fit, with other settings"
    ):
        model(tmp_path, **changes).fit(pieces)


def test_the_checkpoint_of_other_pieces_is_refused(tmp_path, pieces):
    with pytest.raises(Killed):
        model(tmp_path, callbacks=[Kill(20)]).fit(pieces)
    with pytest.raises(pl.InvalidInputError, match="checkpoint of another fit"):
        model(tmp_path).fit(pieces[::-1])


def test_what_does_not_change_the_outcome_may_change(tmp_path, pieces, undisturbed):
    with pytest.raises(Killed):
        model(tmp_path, callbacks=[Kill(20)]).fit(pieces)
    again = model(tmp_path, verbose=1, time_budget=600, checkpoint_minutes=5).fit(pieces)
    assert_same(again, undisturbed)


def test_a_seed_drawn_by_a_killed_fit_is_used_again(tmp_path, pieces):
    with pytest.raises(Killed):
        model(tmp_path, random_state=None, callbacks=[Kill(20)]).fit(pieces)
    again = model(tmp_path, random_state=None).fit(pieces)
    seeded = pl.SequenceGenerator(**{**SETTINGS, "random_state": again._model.seed}).fit(pieces)
    assert_same(again, seeded)


def test_ctrl_c_leaves_the_checkpoint_to_go_on_from(tmp_path, pieces, undisturbed):
    class Interrupt(Kill):
        def on_batch_end(self, model, step, n_steps, loss):
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt

    with pytest.warns(UserWarning, match="interrupted"):
        model(tmp_path, callbacks=[Interrupt(20)]).fit(pieces)
    assert_same(model(tmp_path).fit(pieces), undisturbed)


def test_a_process_killed_at_any_moment_can_be_resumed(tmp_path, pieces, undisturbed):
    """Once with kill -9; `benchmarks/kill.py` does it ten times at random moments."""
    code = (
        "import sys, pianolstm as pl\n"
        f"settings = {SETTINGS!r}\n"
        "pieces = pl.datasets.load_chorales('train')[:6]\n"
        "pl.SequenceGenerator(**settings, checkpoint_dir=sys.argv[1], checkpoint_minutes=0)"
        ".fit(pieces)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)])
    deadline = time.monotonic() + 120
    while not (tmp_path / "checkpoint.safetensors").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert_same(model(tmp_path, checkpoint_minutes=0).fit(pieces), undisturbed)


def test_a_grown_vocabulary_keeps_what_was_learned():
    tree = {
        "chords_in": {"own": jnp.arange(512.0).reshape(256, 2), "pitch": jnp.ones((256, 2))},
        "chords_out": {"own": jnp.arange(512.0).reshape(256, 2) + 1000},
        "bias": jnp.arange(256.0),
        "body": {"bias": jnp.arange(256.0)},  # as long as the vocabulary, but not of it
    }
    grown = networks.grow(tree, n_old=3, n_new=260, rows_before=256, n_rows=512, bias=-7.0)
    assert grown["bias"].tolist() == [0, 1, 2, *[-7] * 257, *[0] * 250, 254, 255]
    own = grown["chords_out"]["own"]
    assert own.shape == (512, 2)
    assert own[:3].tolist() == tree["chords_out"]["own"][:3].tolist()
    assert own[-2:].tolist() == tree["chords_out"]["own"][-2:].tolist()
    assert not own[3:-2].any()
    assert grown["body"]["bias"].tolist() == tree["body"]["bias"].tolist()
    assert grown["chords_in"]["pitch"].shape == (256, 2)
    # Moments of an optimiser have the names of their parameters.
    moments = networks.grow(optax.adam(0.1).init(tree), 3, 260, 256, 512, 0.0)[0].mu
    assert moments["bias"].shape == (512,) and moments["body"]["bias"].shape == (256,)
