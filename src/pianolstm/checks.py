"""Checks of what users give."""

from __future__ import annotations

import math
import secrets
from typing import TYPE_CHECKING, Any

import numpy as np

from pianolstm.exceptions import InvalidInputError

if TYPE_CHECKING:
    from sklearn.base import BaseEstimator

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
    seed = plain(random_state)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
        raise InvalidInputError(
            "random_state must be an int from 0 to 2**32 - 1, a numpy.random.Generator or None; "
            f"got {random_state!r}."
        )
    return seed


def plain(value: Any) -> Any:
    """A number, bool or string of NumPy, or an array of no axes, as Python's own; else itself."""
    is_numpy = isinstance(value, np.generic) or (isinstance(value, np.ndarray) and value.ndim == 0)
    return value.item() if is_numpy else value


def plain_params(estimator: BaseEstimator) -> dict[str, Any]:
    """An estimator's parameters, `plain`: what is computed with, and what JSON holds."""
    params = estimator.get_params(deep=False)
    return {name: plain(value) for name, value in params.items()}


def check_bool(name: str, value: Any) -> None:
    """Raise unless it is True or False."""
    if not isinstance(plain(value), bool):
        raise InvalidInputError(f"{name} must be True or False; got {value!r}.")


def check_number(
    name: str, value: Any, low: float, high: float | None, *, whole: bool = False
) -> None:
    """Raise unless it is a finite number within limits, both included."""
    value = plain(value)
    kinds = (int,) if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        what = "a whole number" if whole else "a finite number"
        raise InvalidInputError(f"{name} must be {what}; got {value!r}.")
    if value < low or (high is not None and value > high):
        limits = f"at least {low}" if high is None else f"between {low} and {high}"
        raise InvalidInputError(f"{name} must be {limits}; got {value!r}.")
