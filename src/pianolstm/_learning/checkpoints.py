"""Checkpoints: all that training has come to, in one file, which is a model file too."""

from __future__ import annotations

import warnings
from pathlib import Path

import jax
import numpy as np

from pianolstm._learning.training import Progress
from pianolstm._model.files import Arrays, Header, read_model, with_nan, write_model
from pianolstm.exceptions import InvalidInputError
from pianolstm.model import TrainState

NAME = "checkpoint.safetensors"


class Checkpoint:
    """The checkpoint of a folder.

    Parameters
    ----------
    folder : Path
        Made when the first one is written.

    Attributes
    ----------
    fingerprint : str
        Of the settings and the data of this fit; another's checkpoint is refused.
    seed : int or None
        Of this fit; at first that of the fit that was not finished, if there is one.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NAME
        self.fingerprint = ""
        self.seed: int | None = None
        self._arrays: Arrays = {}
        self._header: Header | None = None
        if self.path.exists():
            arrays, header = read_model(self.path)
            training = header.get("training")
            if training is not None and not training["finished"]:
                self._arrays, self._header = arrays, header
                self.seed = training.get("seed", header["seed"])

    def resume(self, progress: Progress) -> Progress:
        """Where the fit that was not finished had come to; else the progress given.

        Raises
        ------
        InvalidInputError
            If it was another fit.
        """
        if self._header is None:
            return progress
        found = self._header["training"]
        if found["fingerprint"] != self.fingerprint:
            raise InvalidInputError(
                f"{self.path} is the checkpoint of another fit, with other settings or pieces. "
                "Give the same ones to go on, choose another checkpoint_dir, or delete the file."
            )
        state = self._state("state", progress.state, found["epoch"], found["n_steps"])
        best = state
        if not found["best_is_state"]:
            best = self._state(
                "best", progress.state, found["best_state_epoch"], found["best_state_n_steps"]
            )
        self._arrays = {}
        return Progress(
            state,
            best,
            with_nan(self._header["history"]),
            self._header["best_epoch"],
            float("inf") if found["best_loss"] is None else found["best_loss"],
            found["step"],
            np.array(found["totals"]),
        )

    def write(self, progress: Progress, arrays: Arrays, header: Header, *, finished: bool) -> None:
        """Keep the progress, beside the best model so far, in place of what was kept before.

        Where that can't be written, as on a full disk, a `RuntimeWarning` says so: training is
        worth more than what is kept of it. What was kept before stays.
        """
        best_is_state = progress.best.params is progress.state.params
        arrays = dict(arrays)
        if not finished:
            arrays |= _flat("state", progress.state)
            if not best_is_state:
                arrays |= _flat("best", progress.best)
        best_loss = progress.best_loss
        training = {
            "fingerprint": self.fingerprint,
            "seed": self.seed,
            "finished": finished,
            "epoch": progress.state.epoch,
            "n_steps": progress.state.n_steps,
            "step": progress.step,
            "totals": progress.totals.tolist(),
            "best_loss": best_loss if np.isfinite(best_loss) else None,
            "best_is_state": best_is_state,
            "best_state_epoch": progress.best.epoch,
            "best_state_n_steps": progress.best.n_steps,
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_model(self.path, arrays, {**header, "training": training})
        except OSError as error:
            goes_on = "the fit has ended" if finished else "training goes on"
            warnings.warn(
                f"The checkpoint {self.path} can't be written ({error}); {goes_on}, and what was "
                "kept before stays. Make room, or choose another checkpoint_dir.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _state(self, name: str, like: TrainState, epoch: int, n_steps: int) -> TrainState:
        tree = like.params, like.average, like.opt_state
        leaves, structure = jax.tree.flatten(tree)
        found = [jax.device_put(self._arrays[f"{name}.{i}"]) for i in range(len(leaves))]
        params, average, opt_state = jax.tree.unflatten(structure, found)
        return TrainState(params, average, opt_state, epoch, n_steps)


def _flat(name: str, state: TrainState) -> Arrays:
    leaves = jax.tree.leaves((state.params, state.average, state.opt_state))
    return {f"{name}.{i}": np.asarray(leaf) for i, leaf in enumerate(leaves)}
