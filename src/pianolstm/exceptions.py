"""Errors and warnings of the library.

Every error says what was expected, what was got and what to do. scikit-learn's own
`NotFittedError` and `ConvergenceWarning` are used where they apply.
"""

from __future__ import annotations

__all__ = [
    "DataLossWarning",
    "InvalidInputError",
    "MidiError",
    "ModelFileError",
    "PianoLSTMError",
    "StoreError",
]


class PianoLSTMError(Exception):
    """Base of the errors that pianolstm raises on purpose."""


class InvalidInputError(PianoLSTMError, ValueError):
    """A parameter or an input is not of the kind that was asked for."""


class MidiError(PianoLSTMError, ValueError):
    """A MIDI file can't be read; the message names the file and what is wrong with it."""


class ModelFileError(PianoLSTMError, ValueError):
    """A saved model can't be read."""


class StoreError(PianoLSTMError, RuntimeError):
    """A `TokenStore` is being written by another process, or was spoiled by one."""


class DataLossWarning(UserWarning):
    """Something was left out or replaced; the message counts it."""
