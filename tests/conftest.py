"""Settings that all tests share."""

from __future__ import annotations

import os

from hypothesis import settings

os.environ.setdefault("MPLBACKEND", "Agg")  # no window opens

# The same examples in every run; `--hypothesis-profile=thorough` looks for others.
settings.register_profile(
    "default", max_examples=50, deadline=None, derandomize=True, database=None
)
settings.register_profile("thorough", max_examples=1000, deadline=None, database=None)
settings.load_profile("default")
