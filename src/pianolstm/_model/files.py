"""Models as one ``.safetensors`` file: arrays, and settings as JSON in the header."""

from __future__ import annotations

import json
import math
from os import PathLike, fspath
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from pianolstm._model.networks import Leaf, Params
from pianolstm.exceptions import ModelFileError
from pianolstm.files import write_atomically

FORMAT = "pianolstm-model"
FORMAT_VERSION = 1

Arrays: TypeAlias = dict[str, np.ndarray]
"""Arrays by name, of any shapes and types."""

Header: TypeAlias = dict[str, Any]
"""Settings by name: anything that JSON holds."""


def write_model(path: str | PathLike[str], arrays: Arrays, header: Header) -> None:
    """Write a model; under its own name only when it is whole."""
    from safetensors.numpy import save

    target = Path(path)
    metadata = {
        "format": FORMAT,
        "format_version": str(FORMAT_VERSION),
        "header": json.dumps(header, allow_nan=False),
    }
    # safetensors silently misorders arrays that are not contiguous; ascontiguousarray makes a
    # number an array of one.
    data = save(
        {k: np.ascontiguousarray(v).reshape(np.shape(v)) for k, v in arrays.items()}, metadata
    )
    try:
        write_atomically(target, data)
    except FileNotFoundError:
        raise ModelFileError(
            f"{target}: there is no folder {target.parent}; make it first."
        ) from None


def read_model(path: str | PathLike[str]) -> tuple[Arrays, Header]:
    """Read a model's arrays and header.

    Raises
    ------
    ModelFileError
        If there is no such file, or it is no model, cut short, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    name = fspath(path)
    if not Path(path).is_file():
        raise ModelFileError(f"{name}: there is no such file.")
    try:
        with safe_open(name, framework="numpy") as file:
            metadata = file.metadata() or {}
            arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (no dict)
    except (SafetensorError, OSError) as error:
        raise ModelFileError(
            f"{name}: expected a whole .safetensors file as SequenceGenerator.save writes it; got "
            f"one that can't be read ({error}). It may be cut short: save the model again."
        ) from None
    if metadata.get("format") != FORMAT:
        raise ModelFileError(
            f"{name}: the file holds arrays but no pianolstm model; expected one that "
            "SequenceGenerator.save wrote."
        )
    if metadata.get("format_version") != str(FORMAT_VERSION):
        raise ModelFileError(
            f"{name}: the file has format version {metadata.get('format_version')}, this release "
            f"of pianolstm reads version {FORMAT_VERSION}; use the release that wrote it, or "
            "train again."
        )
    return arrays, json.loads(metadata["header"])


def without_nan(history: dict[str, list[float]]) -> dict[str, list[float | None]]:
    """A history as JSON holds it: None for what is not finite."""
    return {k: [v if math.isfinite(v) else None for v in values] for k, values in history.items()}


def with_nan(history: dict[str, list[float | None]]) -> dict[str, list[float]]:
    """The reverse of `without_nan`."""
    nan = float("nan")
    return {k: [nan if v is None else v for v in values] for k, values in history.items()}


def named_leaves(tree: Params | Leaf, prefix: str = "") -> dict[str, Leaf]:
    """Leaves of a nested dict by dotted names."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    named: dict[str, Leaf] = {}
    for key, value in tree.items():
        named.update(named_leaves(value, f"{prefix}.{key}" if prefix else str(key)))
    return named


def fill_leaves(
    tree: Params | Leaf, arrays: Arrays, name: str, prefix: str = ""
) -> Params | np.ndarray:
    """The nested dict with arrays in place of its leaves.

    Raises
    ------
    ModelFileError
        If an array is missing or has another shape; it names the leaf and both shapes.
    """
    if isinstance(tree, dict):
        return {
            key: fill_leaves(value, arrays, name, f"{prefix}.{key}" if prefix else str(key))
            for key, value in tree.items()
        }
    if prefix not in arrays:
        raise ModelFileError(f"{name}: the parameter {prefix} of shape {tree.shape} is missing.")
    if arrays[prefix].shape != tree.shape:
        raise ModelFileError(
            f"{name}: the parameter {prefix} has shape {arrays[prefix].shape}; the settings in the "
            f"file call for {tree.shape}."
        )
    return arrays[prefix]
