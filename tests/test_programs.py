"""Compiled programs: how many there are, which are dropped, who shares them."""

from __future__ import annotations

import copy
import gc
import logging
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
from sklearn.base import clone

import pianolstm as pl
from pianolstm._jax import programs as module
from pianolstm._jax.programs import MAX_UNUSED_SIZES, Programs, hold, program, programs


@dataclass(frozen=True)
class Config:
    """Of a network, as far as programs know it."""

    size: int
    factor: float = 1.0


def n_maps() -> int:
    return len(Path("/proc/self/maps").read_text().splitlines())


needs_maps = pytest.mark.skipif(sys.platform != "linux", reason="memory maps are Linux's")


@pytest.fixture
def compiled(caplog):
    """Names of what JAX has compiled since the fixture was asked."""
    with caplog.at_level(logging.DEBUG, "jax._src.interpreters.pxla"), jax.log_compiles():
        caplog.clear()
        yield lambda: [r.args[0] for r in caplog.records if r.msg.startswith("Compiling ")]


def test_the_least_recently_used_are_dropped_by_weight():
    cache = Programs(max_weight=5)
    made = []

    def get(key, weight=1):
        return cache.get(key, "one size", weight, lambda: made.append(key) or key.upper())

    assert [get("a"), get("b", 2), get("c"), get("a")] == ["A", "B", "C", "A"]
    assert made == ["a", "b", "c"]
    get("d", 2)  # 6 in all: the oldest goes, which is b
    assert len(cache) == 3
    assert [get("a"), get("c"), get("d")] == ["A", "C", "D"]
    assert made == ["a", "b", "c", "d"]
    get("b", 2)
    assert made == ["a", "b", "c", "d", "b"]
    cache.clear()
    assert len(cache) == 0


def test_sizes_that_no_model_has_are_dropped():
    cache = Programs(max_weight=100)

    def sizes():
        return {size for _, _, size in cache._programs.values()}

    kept = [cache.hold(size) for size in range(3)]
    for size in range(6):
        cache.get(("f", size), size, 1, object)
        cache.get(("g", size), size, 1, object)
    # 0 to 2 have models, 5 is being compiled for, and of the others the latest stay.
    assert sizes() == {0, 1, 2, 5, *range(5 - MAX_UNUSED_SIZES, 5)}
    del kept[0]
    gc.collect()
    cache.get(("f", 6), 6, 1, object)
    assert sizes() == {1, 2, 6, 5, 4}


def test_models_of_a_size_hold_one_object():
    first = hold(("a size", 3))
    assert hold(("a size", 3)) is first
    assert pickle.loads(pickle.dumps(first)) is first
    assert copy.deepcopy(first) is first


def test_a_program_is_compiled_once_for_settings_and_shapes(compiled):
    @program(n_static=2)
    def scaled(config, offset, x, tree):
        """Scale."""
        return config.factor * x + offset + tree["y"]

    assert scaled.__name__ == "scaled"
    assert scaled.__doc__ == "Scale."
    x, tree = np.arange(3, dtype=np.float32), {"y": np.float32(1)}
    for _ in range(2):
        for config, offset in ((Config(1, 2.0), 0.5), (Config(1, 3.0), 0.5), (Config(1, 2.0), 0)):
            expected = config.factor * x + offset + 1
            np.testing.assert_array_equal(scaled(config, offset, x, tree), expected)
    assert compiled().count("jit(scaled)") == 3
    before = len(programs)
    scaled(Config(1, 2.0), 0.5, x[:2], tree)
    assert len(programs) == before + 1


@needs_maps
def test_what_is_dropped_gives_its_memory_maps_back(monkeypatch):
    monkeypatch.setattr(module, "programs", Programs(max_weight=3))

    @program()
    def sorted_often(config, x):
        for i in range(20):
            x = jax.numpy.sort(jax.numpy.tanh(x * i), axis=0)
        return x

    x = np.ones((8, 8), np.float32)
    after = []
    for size in range(12):
        sorted_often(Config(size), x)
        after.append(n_maps())
    assert after[2] - after[0] > 20  # it does take maps
    assert max(after[4:]) - after[3] < 10


def small(**settings):
    # As in test_host, whose programs need only be read from where JAX keeps them.
    defaults = {"units": 8, "embedding": 6, "window_size": 24, "batch_size": 8, "max_epochs": 1}
    defaults |= {"clock": "frames", "augment": 0}
    return pl.SequenceGenerator(**{**defaults, "dropout": 0.0, "random_state": 0, **settings})


def test_clones_and_folds_compile_nothing_anew(pieces, compiled):
    programs.clear()
    model = small().fit(pieces)
    music = model.generate(8, random_state=0)
    score = model.score(pieces)
    assert "jit(train_step)" in compiled()
    n = len(compiled())
    for _ in range(2):
        again = clone(model).fit(pieces)  # each is gone when the next comes, as a fold's
        assert again.generate(8, random_state=0) == music
        assert again.score(pieces) == score
    assert compiled()[n:] == []


@needs_maps
def test_many_sizes_in_one_process_leave_few_maps(pieces):
    maps = []
    for units in (7, 8, 9, 10, 11):  # the first three are of test_generator
        model = small(units=units, spell=False, recall=False).fit(pieces)
        model.generate(4, random_state=0)
        maps.append(n_maps())
    assert max(maps) < 20_000
    # Of sizes that no model has, two are kept beside the last.
    assert max(maps[3:]) < 1.1 * maps[2]
