"""What `SequenceGenerator` is given: checked, and the optimiser and learning rate made of it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from os import PathLike
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from pianolstm._learning.training import OPTIMIZERS
from pianolstm._model.config import ARCHITECTURES
from pianolstm.callbacks import Callback
from pianolstm.checks import check_bool, check_number, plain_params
from pianolstm.exceptions import InvalidInputError
from pianolstm.model import OptimizerFactory
from pianolstm.tokens import ChordTokenizer
from pianolstm.vocabulary import CLOCKS

if TYPE_CHECKING:
    from pianolstm.generator import SequenceGenerator

MAX_TRANSPOSITION = 60
"""Semitones: five octaves."""

_factories: dict[bytes, OptimizerFactory] = {}


def check_hyperparameters(estimator: SequenceGenerator) -> None:
    """Raise `InvalidInputError` where one is out of range or doesn't go with another."""
    given = SimpleNamespace(**plain_params(estimator))
    if given.arch not in ARCHITECTURES:
        raise InvalidInputError(
            f"arch must be one of {', '.join(ARCHITECTURES)}; got {estimator.arch!r}."
        )
    if given.clock not in CLOCKS:
        raise InvalidInputError(
            f"clock must be one of {', '.join(CLOCKS)}; got {estimator.clock!r}."
        )
    for name, low, high, whole in (
        ("window_size", 2, None, True),
        ("units", 1, None, True),
        ("embedding", 1, None, True),
        ("dropout", 0, 0.95, False),
        ("max_epochs", 1, None, True),
        ("validation_fraction", 0, 1, False),
        ("n_iter_no_change", 1, None, True),
    ):
        check_number(name, getattr(estimator, name), low, high, whole=whole)
    for name in ("spell", "recall", "early_stopping", "warm_start"):
        check_bool(name, getattr(estimator, name))
    check_number("clip_norm", estimator.clip_norm, 0, None)
    if given.clip_norm == 0:
        raise InvalidInputError(
            "clip_norm must be above 0, as gradients are scaled down to it; got 0. To clip "
            "next to nothing, give a large number."
        )
    if given.augment != "auto":
        check_number("augment", estimator.augment, 0, MAX_TRANSPOSITION, whole=True)
    if given.batch_size != "auto":
        check_number("batch_size", estimator.batch_size, 1, None, whole=True)
    if not callable(estimator.learning_rate):
        check_number("learning_rate", estimator.learning_rate, 0, None)
    _check_tokenizer(estimator.tokenizer)
    _check_callbacks(estimator.callbacks)
    known = isinstance(estimator.optimizer, str) and estimator.optimizer in OPTIMIZERS
    if not known and not callable(estimator.optimizer):
        raise InvalidInputError(
            f"optimizer must be one of {', '.join(OPTIMIZERS)}, or a callable that takes the "
            f"learning rate; got {estimator.optimizer!r}."
        )
    # What is wrong with them is told before any work.
    optimizer_of(estimator.optimizer)
    rate_at(estimator.learning_rate, 0)
    for name in ("time_budget", "checkpoint_minutes"):
        if getattr(estimator, name) is not None:
            check_number(name, getattr(estimator, name), 0, None)
    if estimator.checkpoint_minutes is not None and estimator.checkpoint_dir is None:
        raise InvalidInputError(
            f"checkpoint_minutes={estimator.checkpoint_minutes} needs a checkpoint_dir to write to."
        )
    if estimator.checkpoint_dir is not None and not isinstance(
        estimator.checkpoint_dir, (str, PathLike)
    ):
        raise InvalidInputError(
            f"checkpoint_dir must be a path or None; got {estimator.checkpoint_dir!r}."
        )
    if given.arch.startswith("hybrid") and given.window_size % 2:
        raise InvalidInputError(
            f"The hybrids pool by 2 and need an even window_size; got {given.window_size}, try "
            f"{given.window_size + 1}."
        )


def _check_tokenizer(tokenizer: Any) -> None:
    if isinstance(tokenizer, FrozenEstimator):
        tokenizer = tokenizer.estimator
        if isinstance(tokenizer, ChordTokenizer):
            check_is_fitted(tokenizer, "vocabulary_")
    if tokenizer is not None and not isinstance(tokenizer, ChordTokenizer):
        raise InvalidInputError(
            "tokenizer must be a ChordTokenizer, a FrozenEstimator around a fitted one, or "
            f"None; got {_described(tokenizer)}."
        )


def _check_callbacks(callbacks: Any) -> None:
    if not isinstance(callbacks, (list, tuple)):
        raise InvalidInputError(
            "callbacks must be a list of pianolstm.callbacks.Callback; got "
            f"{_described(callbacks)}. Wrap one in a list: [callback]."
        )
    for i, callback in enumerate(callbacks):
        if not isinstance(callback, Callback):
            raise InvalidInputError(
                "callbacks must be a list of pianolstm.callbacks.Callback; "
                f"callbacks[{i}] is {_described(callback)}."
            )


def optimizer_of(optimizer: str | OptimizerFactory) -> OptimizerFactory:
    """Makes the optimiser; one object for all that are alike, so that they compile once."""
    if isinstance(optimizer, str):
        return OPTIMIZERS[optimizer]
    made = optimizer(0.0)
    if not hasattr(made, "init") or not hasattr(made, "update"):
        raise InvalidInputError(
            "optimizer must make an optax.GradientTransformation of the learning rate; "
            f"{optimizer!r} made {made!r}."
        )
    try:
        return _factories.setdefault(pickle.dumps(optimizer), optimizer)
    except Exception as error:  # each type has its own
        raise InvalidInputError(
            f"optimizer={optimizer!r} can't be pickled ({error}); give a function of a "
            "module, or a functools.partial of one."
        ) from None


def rate_at(learning_rate: float | Callable[[int], float], step: int) -> float:
    """Learning rate after so many steps."""
    rate = float(learning_rate(step) if callable(learning_rate) else learning_rate)
    if not 0 <= rate < np.inf:
        raise InvalidInputError(
            f"learning_rate must be a finite number of at least 0; the schedule gave {rate} at "
            f"step {step}."
        )
    return rate


def _described(value: Any) -> str:
    """What was given, and what to write in place of a class."""
    if isinstance(value, type):
        return f"the class {value.__name__} (give an object of it: {value.__name__}())"
    return repr(value)
