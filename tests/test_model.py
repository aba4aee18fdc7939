"""What a fitted model is, and who holds it: a call that fails changes nothing."""

from __future__ import annotations

import errno
import inspect
import itertools
import json
import os
import sys
import tempfile
import warnings
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.frozen import FrozenEstimator

import pianolstm as pl
from pianolstm._learning import training
from pianolstm.model import Model
from pianolstm.rolls import PianoRoll

PACKAGE = str(Path(pl.__file__).parent)


def melody(n_frames, first, step, *, fs=4):
    """Notes of two frames each, up by a step modulo an octave."""
    starts = np.arange(0, n_frames, 2)
    pitches = 60 + (first + step * np.arange(len(starts))) % 12
    return pl.PianoRoll.from_notes(starts, starts + 2, pitches, fs=fs)


PIECES = [melody(20 + 4 * i, i, 1 + i) for i in range(6)]


def small(**changed):
    base = {
        "clock": "frames",
        "augment": 0,
        "units": 4,
        "embedding": 4,
        "window_size": 8,
        "batch_size": 4,
        "max_epochs": 1,
        "dropout": 0.0,
        "spell": False,
        "random_state": 5,
    }
    return pl.SequenceGenerator(**base | changed)


@contextmanager
def failing(at, error):
    """Raise at the n-th call of a function of the library."""
    n_calls = 0

    def on_event(frame, event, _):
        nonlocal n_calls
        # (A generator is called when it is thrown away, too, where nobody catches an error.)
        is_generator = frame.f_code.co_flags & inspect.CO_GENERATOR
        is_ours = frame.f_code.co_filename.startswith(PACKAGE) and not is_generator
        if event == "call" and is_ours:
            n_calls += 1
            if n_calls == at:
                sys.setprofile(None)
                raise error

    sys.setprofile(on_event)
    try:
        yield
    finally:
        sys.setprofile(None)


def state_of(estimator):
    """All that later calls depend on, as values."""
    model = estimator.__dict__.get("_model")
    if model is None:
        return None
    timeless = {name: column for name, column in model.history.items() if name != "seconds"}
    leaves = [] if model.state is None else jax.tree.leaves(vars(model.state))
    digest = replace(model, history=timeless).digest
    return [digest, model.train_state.epoch, *(np.asarray(leaf).tobytes() for leaf in leaves)]


def check_public(estimator):
    """What users see is that of the model that the estimator holds."""
    model = estimator.__dict__.get("_model")
    names = {name for name in vars(estimator) if name.endswith("_") and name[0] != "_"}
    if model is None:
        assert names == set()
        return
    assert estimator.tokenizer_ is model.tokenizer
    assert estimator.history_ == model.history
    assert estimator.held_out_ == list(model.held_out)
    assert (estimator.best_epoch_, estimator.fs_, estimator.grid_) == (
        model.best_epoch,
        model.fs,
        model.grid,
    )
    assert estimator.n_parameters_ == sum(a.size for a in jax.tree.leaves(model.params))


def n_calls_of(call, estimator):
    """Calls of the library's functions that a call of the estimator makes."""
    n_calls = 0

    def on_event(frame, event, _):
        nonlocal n_calls
        n_calls += event == "call" and frame.f_code.co_filename.startswith(PACKAGE)

    sys.setprofile(on_event)
    try:
        call(estimator)
    finally:
        sys.setprofile(None)
    return n_calls


def through_a_file(estimator):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        estimator.save(path)
        return pl.SequenceGenerator.load(path)


CALLS = {
    "fit": lambda e: e.fit(PIECES[:3]),
    "fit without validation": lambda e: e.set_params(early_stopping=False).fit(PIECES[2:4]),
    "partial_fit": lambda e: e.partial_fit(PIECES[3:5]),
    "extend": lambda e: e.extend(PIECES[5:]),
    "goes on": lambda e: e.set_params(warm_start=True),
    "begins anew": lambda e: e.set_params(warm_start=False),
    "wider": lambda e: e.set_params(embedding=6),
    "as wide": lambda e: e.set_params(embedding=4),
    "another grid": lambda e: e.partial_fit([melody(20, 0, 1, fs=5)]),
    "save and load": through_a_file,
}


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(st.sampled_from(sorted(CALLS)), st.none() | st.integers(1, 1600)),
        min_size=2,
        max_size=7,
    )
)
def test_calls_that_fail_leave_what_those_before_them_made(calls):
    """In any order, failures between: the model is that of the calls that succeeded."""
    tried, reference = small(), small()
    for name, at in calls:
        call, before = CALLS[name], dict(tried.__dict__)
        try:
            with failing(at, MemoryError()):
                after = call(tried)
        except (MemoryError, pl.InvalidInputError, NotFittedError) as error:
            if not isinstance(error, MemoryError):
                with pytest.raises(type(error)):
                    call(reference)
            assert tried.__dict__.get("_model") is before.get("_model")
            check_public(tried)
            tried.set_params(**reference.get_params())  # set_params is no one call
            continue
        tried, reference = after, call(reference)
    assert tried.get_params() == reference.get_params()
    assert state_of(tried) == state_of(reference)
    check_public(tried)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(["fit", "partial_fit", "extend"]),
    st.booleans(),
    st.floats(0, 1),
    st.sampled_from([KeyboardInterrupt, MemoryError]),
)
def test_an_interruption_at_any_moment_leaves_a_whole_model(name, is_fitted, share, error):
    def make():
        model = small(max_epochs=3)
        return model.fit(PIECES[:3]) if is_fitted else model

    if name == "extend" and not is_fitted:
        return
    model, n_calls = make(), n_calls_of(CALLS[name], make())
    before = model.__dict__.get("_model")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        try:
            with failing(1 + int(share * (n_calls - 1)), error()):
                CALLS[name](model)
        except error:
            assert model.__dict__.get("_model") is before
    check_public(model)
    if not hasattr(model, "tokenizer_"):
        return
    again = through_a_file(model)
    assert again._model == model._model
    assert model.generate(4, random_state=1) == again.generate(4, random_state=1)
    assert np.isfinite(model.score(PIECES))


def test_a_second_ctrl_c_leaves_the_model_as_it_was(monkeypatch):
    """The first comes while it trains, the second while the best model is looked for."""

    class Interrupt(pl.callbacks.Callback):
        def on_epoch_end(self, model):
            raise KeyboardInterrupt

    def again(*_, **__):
        raise KeyboardInterrupt

    model = small(callbacks=[Interrupt()])
    monkeypatch.setattr(training.Trainer, "best", again)
    with pytest.raises(KeyboardInterrupt):
        model.fit(PIECES[:3])
    check_public(model)
    assert not hasattr(model, "tokenizer_")


def test_checkpoints_know_where_pieces_begin(tmp_path):
    whole = PianoRoll.concatenate(PIECES[:3])

    class Stop(pl.callbacks.Callback):
        def on_epoch_end(self, model):
            raise RuntimeError

    def cut(*at):
        ends = (0, *at, len(whole))
        return [whole[a:b] for a, b in itertools.pairwise(ends)]

    held_out = PIECES[4:]
    with pytest.raises(RuntimeError):
        small(checkpoint_dir=tmp_path, max_epochs=3, callbacks=[Stop()]).fit(
            cut(20, 44), X_val=held_out
        )
    model = small(checkpoint_dir=tmp_path, max_epochs=3)
    with pytest.raises(pl.InvalidInputError, match="is the checkpoint of another fit"):
        model.fit(cut(16, 40), X_val=held_out)
    resumed = model.fit(cut(20, 44), X_val=held_out)
    assert resumed._model.params["bias"].tolist() == (
        small(max_epochs=3).fit(cut(20, 44), X_val=held_out)._model.params["bias"].tolist()
    )


def test_a_warm_start_goes_on_from_its_own_checkpoint(tmp_path):
    """Without a seed given, that of the fit which was not finished is taken."""

    class Stop(pl.callbacks.Callback):
        def on_epoch_end(self, model):
            raise RuntimeError

    model = small(random_state=None).fit(PIECES[:3])
    model.set_params(warm_start=True, checkpoint_dir=tmp_path, max_epochs=3, callbacks=[Stop()])
    with pytest.raises(RuntimeError):
        model.fit(PIECES[:3])
    unfinished = pl.SequenceGenerator.load(tmp_path / "checkpoint.safetensors")
    assert unfinished._model.epoch == 2
    model.set_params(callbacks=[]).fit(PIECES[:3])
    assert model.history_["epoch"] == [0, 1, 2, 3, 4]


def test_a_warm_start_without_a_gain_keeps_its_best_epoch():
    model = small(max_epochs=3, learning_rate=0.05, recall=False).fit(PIECES[:3])
    best, music = model.best_epoch_, model.generate(8, random_state=0)
    # Steps so long that nothing is gained.
    model.set_params(warm_start=True, max_epochs=9, learning_rate=30.0, n_iter_no_change=2)
    model.fit(PIECES[:3])
    assert model.history_["epoch"] == list(range(6))  # two epochs without a gain
    assert model.best_epoch_ == best
    assert model.generate(8, random_state=0) == music


@pytest.mark.parametrize(
    ("first", "second"), [("sgd", "adam"), ("adam", "rmsprop"), ("adam", "sgd")]
)
def test_another_optimizer_begins_with_moments_of_its_own(first, second):
    model = small(optimizer=first).fit(PIECES[:3])
    loaded = through_a_file(model)  # no moments are saved
    for one in (model, loaded):
        one.set_params(optimizer=second, warm_start=True)
    params = [one.partial_fit(PIECES[:3])._model.state.opt_state for one in (model, loaded)]
    shapes = [jax.tree.map(np.shape, p) for p in params]
    assert shapes[0] == shapes[1]


def test_what_users_do_to_what_they_see_changes_no_model():
    tokenizer = pl.ChordTokenizer().fit(PIECES[:3])
    model = small(tokenizer=FrozenEstimator(tokenizer)).fit(PIECES[:3])
    digest, score = replace(model._model).digest, model.score(PIECES)
    tokenizer.partial_fit(PIECES[3:])
    model.history_["loss"].append(0.0)
    assert replace(model._model).digest == digest
    assert model.score(PIECES) == score


def test_ctrl_c_before_the_first_step_keeps_the_model_with_a_warning():
    model = small().fit(PIECES[:3])
    before = model._model
    message = "interrupted in epoch 1; the model is as it was"
    with pytest.warns(ConvergenceWarning, match=message), failing(20, KeyboardInterrupt()):
        model.fit(PIECES[3:])
    assert model._model is before
    nothing = small()
    with pytest.raises(KeyboardInterrupt), failing(20, KeyboardInterrupt()):
        nothing.fit(PIECES[3:])
    assert not hasattr(nothing, "tokenizer_")


def test_callbacks_see_the_model_of_the_epoch(tmp_path):
    held_out, seen = PIECES[3:5], []

    class Look(pl.callbacks.Callback):
        def on_fit_begin(self, model):
            self.on_epoch_end(model)

        def on_epoch_end(self, model):
            path = tmp_path / f"{len(seen)}.safetensors"
            model.save(path)
            seen.append((model.score(held_out), model.generate(8, random_state=0), path))
            epoch = len(seen) - 1
            assert model.history_["epoch"] == list(range(epoch + 1))
            assert model.best_epoch_ == epoch

    model = small(max_epochs=4, learning_rate=0.05, callbacks=[Look()])
    model.fit(PIECES[:3], X_val=held_out)
    losses = [-score for score, *_ in seen]
    assert losses == pytest.approx(model.history_["val_loss"], rel=1e-6)
    assert len({round(loss, 6) for loss in losses}) == 5
    for score, music, path in seen:
        loaded = pl.SequenceGenerator.load(path)
        assert loaded.score(held_out) == score
        assert loaded.generate(8, random_state=0) == music
    best = int(np.argmin(losses))
    assert model.best_epoch_ == best
    assert model.generate(8, random_state=0) == seen[best][1]


def test_a_callback_that_raises_leaves_the_model_as_it_was():
    class Raise(pl.callbacks.Callback):
        def on_epoch_end(self, model):
            raise RuntimeError("no more")

    model = small(callbacks=[Raise()])
    with pytest.raises(RuntimeError, match="no more"):
        model.fit(PIECES[:3])
    assert not hasattr(model, "history_")
    model.set_params(callbacks=[]).fit(PIECES[:3])
    before = model._model
    with pytest.raises(RuntimeError, match="no more"):
        model.set_params(callbacks=[Raise()]).fit(PIECES[3:])
    assert model._model is before


def test_a_refused_checkpoint_costs_nothing(tmp_path):
    class Stop(pl.callbacks.Callback):
        def on_epoch_end(self, model):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        small(checkpoint_dir=tmp_path, max_epochs=3, callbacks=[Stop()]).fit(PIECES[:3])
    model = small(max_epochs=2, learning_rate=0.01).fit(PIECES[:3])
    before = model._model
    with pytest.raises(pl.InvalidInputError, match="is the checkpoint of another fit"):
        model.set_params(checkpoint_dir=tmp_path).fit(PIECES[:3])
    assert model._model is before
    assert len(model.history_["epoch"]) == 3


def test_a_full_disk_is_a_warning_and_training_goes_on(tmp_path, monkeypatch):
    n_written, replace_file = 0, os.replace

    def full(source, target):
        nonlocal n_written
        n_written += 1
        if n_written in (2, 3):
            raise OSError(errno.ENOSPC, "No space left on device")
        replace_file(source, target)

    monkeypatch.setattr(os, "replace", full)
    model = small(checkpoint_dir=tmp_path, max_epochs=3)
    with pytest.warns(RuntimeWarning, match="can't be written.*No space left.*training goes on"):
        model.fit(PIECES[:3])
    assert model.history_["epoch"] == [0, 1, 2, 3]
    plain = small(max_epochs=3).fit(PIECES[:3])
    assert plain.generate(8, random_state=0) == model.generate(8, random_state=0)
    assert os.listdir(tmp_path) == ["checkpoint.safetensors"]
    assert n_written == 4  # the last says that the fit has ended
    found = pl.SequenceGenerator.load(tmp_path / "checkpoint.safetensors")
    assert found.generate(8, random_state=0) == model.generate(8, random_state=0)


def test_chords_too_rare_for_the_vocabulary_are_saved():
    model = small(tokenizer=pl.ChordTokenizer(min_count=4)).fit(PIECES[:3])
    loaded = through_a_file(model)
    assert len(model.tokenizer_.seen_) > model.tokenizer_.n_tokens_
    n_before = model.tokenizer_.n_tokens_
    assert loaded.extend(PIECES[3:])._model == model.extend(PIECES[3:])._model
    assert model.tokenizer_.n_tokens_ > n_before


def old_file(path, model, change):
    """A file of a model, whose arrays and header are changed to what they were once."""
    model.save(path)
    arrays = load_file(path)
    length = int.from_bytes(path.read_bytes()[:8], "little")
    metadata = json.loads(path.read_bytes()[8 : 8 + length])["__metadata__"]
    header = json.loads(metadata["header"])
    change(arrays, header)
    save_file(arrays, path, {**metadata, "header": json.dumps(header)})
    return path


def test_files_from_before_there_was_a_model_are_read(tmp_path):
    """They have no counts of rare chords, and the network among the settings."""
    model = small(tokenizer=pl.ChordTokenizer(min_count=4), spell=False).fit(PIECES[:3])

    def change(arrays, header):
        del header["network"], arrays["seen"], arrays["seen_counts"]

    old = pl.SequenceGenerator.load(old_file(tmp_path / "old.safetensors", model, change))
    assert old.generate(8, random_state=0) == model.generate(8, random_state=0)
    assert np.array_equal(old.tokenizer_.seen_, model.tokenizer_.vocabulary_)


def test_files_that_counted_what_is_recalled_are_read(tmp_path):
    """Their shares become those of gates that read nothing else."""
    model = small(spell=False, recall=True).fit(PIECES[:3])
    counts = np.array([[5, *range(10, 0, -1)], [0, *range(9, -1, -1)]])

    def change(arrays, header):
        for name in [n for n in arrays if n.startswith("params.gate.")]:
            del arrays[name]
        arrays["recalled"] = counts

    old = pl.SequenceGenerator.load(old_file(tmp_path / "old.safetensors", model, change))
    gate = old._model.params["gate"]
    share = (counts[1] + 0.5) / (counts[0] + 1)
    np.testing.assert_allclose(1 / (1 + np.exp(-gate["shares"])), share, rtol=1e-5)
    assert not np.any(gate["write"]) and np.isfinite(old.score(PIECES[3:]))


def test_files_whose_networks_spelled_otherwise_are_refused(tmp_path):
    model = small(spell=True).fit(PIECES[:3])

    def change(arrays, header):
        del arrays["params.decoder.others.kernel"]

    path = old_file(tmp_path / "old.safetensors", model, change)
    with pytest.raises(pl.ModelFileError, match=r"old\.safetensors: written by an earlier version"):
        pl.SequenceGenerator.load(path)


@pytest.mark.parametrize("is_frozen", [False, True])
def test_another_grid_is_refused(is_frozen):
    other = [melody(20, 0, 1, fs=5)] * 2
    tokenizer = FrozenEstimator(pl.ChordTokenizer().fit(PIECES)) if is_frozen else None
    model = small(tokenizer=tokenizer, warm_start=True).fit(PIECES[:3])
    before = model._model
    with pytest.raises(pl.InvalidInputError, match=r"X has fs=5.*the model goes on from fs=4"):
        model.fit(other)
    assert model._model is before
    if is_frozen:
        with pytest.raises(pl.InvalidInputError, match="the tokenizer was fitted on fs=4"):
            small(tokenizer=tokenizer).fit(other)


def test_models_are_compared_by_what_is_saved():
    model = small().fit(PIECES[:3])._model
    assert model == replace(model, state=None)
    assert model != replace(model, longest_hold=model.longest_hold + 1)
    assert model != replace(model, params={**model.params, "bias": model.params["bias"] + 1})
    assert model != "a model"
    with pytest.raises(AttributeError):
        model.seed = 3


def test_an_extension_leaves_the_model_before_as_it_was():
    model = small().fit(PIECES[:3])
    before, digest = model._model, model._model.digest
    model.extend(PIECES[3:])
    assert isinstance(before, Model)
    assert replace(before).digest == digest  # made anew: nothing in it has changed
    assert model._model != before
