"""Settings that all tests share."""

from __future__ import annotations

import os
import shutil
import tempfile

import numpy as np
import pytest
from hypothesis import settings

import pianolstm as pl
from pianolstm._jax import host

os.environ.setdefault("MPLBACKEND", "Agg")  # no window opens

# What one process has compiled, the others, and those that tests start, need not compile again;
# nor need it itself, when a size comes back that no model has had for a while.
PROGRAMS = "JAX_COMPILATION_CACHE_DIR"
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


# The library's own code says how arrays are broadcast, and of what type they become.
for name, value in (("rank", "raise"), ("dtype", "strict")):
    _, context, _ = host.SETTINGS[f"jax_numpy_{name}_promotion"]
    host.SETTINGS[f"jax_numpy_{name}_promotion"] = (value,), context, value


def pytest_configure(config):
    if PROGRAMS not in os.environ and not hasattr(config, "workerinput"):
        config.compiled_programs = tempfile.mkdtemp(prefix="pianolstm-")
        os.environ[PROGRAMS] = config.compiled_programs


def pytest_unconfigure(config):
    if hasattr(config, "compiled_programs"):
        shutil.rmtree(config.compiled_programs, ignore_errors=True)


# The same examples in every run; `--hypothesis-profile=thorough` looks for others.
settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, database=None
)
settings.register_profile("thorough", max_examples=1000, deadline=None, database=None)
settings.load_profile("default")


@pytest.fixture(scope="session")
def pieces():
    """Four short pieces of chance."""
    rng = np.random.default_rng(3)
    rolls = []
    for n in (150, 90, 120, 60):
        start = np.sort(rng.integers(0, n - 8, n // 3))
        length, pitch = rng.integers(1, 8, n // 3), rng.integers(50, 75, n // 3)
        rolls.append(pl.PianoRoll.from_notes(start, start + length, pitch, n_frames=n))
    return rolls
