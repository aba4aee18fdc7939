"""Checks of what users give."""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np

from pianolstm.exceptions import InvalidInputError

RandomState = int | np.random.Generator | None


def as_seed(random_state: RandomState) -> int:
    """A seed below 2**32 from what the user gave.

    Raises
    ------
    InvalidInputError
        If it is no int from 0 to 2**32 - 1, Generator or None.
    """
    if random_state is None:
        return secrets.randbits(32)
    if isinstance(random_state, np.random.Generator):
        return int(random_state.integers(2**32))
    is_int = isinstance(random_state, (int, np.integer)) and not isinstance(random_state, bool)
    if not is_int or not 0 <= random_state < 2**32:
        raise InvalidInputError(
            "random_state must be an int from 0 to 2**32 - 1, a numpy.random.Generator or None; "
            f"got {random_state!r}."
        )
    return int(random_state)


def check_number(
    name: str, value: Any, low: float, high: float | None, *, whole: bool = False
) -> None:
    """Raise unless it is a finite number within limits, both included."""
    kinds = (int, np.integer) if whole else (int, float, np.integer, np.floating)
    if isinstance(value, bool) or not isinstance(value, kinds) or not np.isfinite(value):
        what = "a whole number" if whole else "a finite number"
        raise InvalidInputError(f"{name} must be {what}; got {value!r}.")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"between {low} and {high}"
        raise InvalidInputError(f"{name} must be {limits}; got {value!r}.")
