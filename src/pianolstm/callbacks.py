"""What other code can do while `SequenceGenerator.fit` runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pianolstm.generator import SequenceGenerator

__all__ = ["Callback", "ProgressBar"]


class Callback:
    """Base of callbacks; each method may be overridden, none need be.

    Examples
    --------
    >>> import pianolstm as pl
    >>> class StopBelow(pl.callbacks.Callback):
    ...     def __init__(self, nats):
    ...         self.nats = nats
    ...     def on_epoch_end(self, model):
    ...         return model.history_["val_loss"][-1] < self.nats
    >>> model = pl.SequenceGenerator(callbacks=[StopBelow(0.5)])
    """

    def on_fit_begin(self, model: SequenceGenerator) -> None:
        """Called when everything is ready; `history_` holds epoch 0, before training."""

    def on_batch_end(self, model: SequenceGenerator, step: int, n_steps: int, loss: float) -> None:
        """Called after step `step` of about `n_steps` of an epoch, with that batch's loss."""

    def on_epoch_end(self, model: SequenceGenerator) -> bool | None:
        """Called when an epoch stands in `history_`; True stops the training."""
        return None

    def on_fit_end(self, model: SequenceGenerator) -> None:
        """Called when the best parameters are in place."""


class ProgressBar(Callback):
    """A bar for each epoch, with the loss so far; ``verbose=1`` adds one."""

    def __init__(self) -> None:
        self._bar: Any = None

    def on_batch_end(self, model: SequenceGenerator, step: int, n_steps: int, loss: float) -> None:
        """Advance the bar."""
        if self._bar is None:
            from tqdm.auto import tqdm

            epoch = int(model.history_["epoch"][-1]) + 1
            self._bar = tqdm(total=n_steps, desc=f"epoch {epoch}", unit="batch", leave=True)
        self._bar.update(1)
        self._bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    def on_epoch_end(self, model: SequenceGenerator) -> None:
        """Close the bar with the losses of the epoch."""
        if self._bar is None:
            return
        last = {k: model.history_[k][-1] for k in ("loss", "val_loss")}
        self._bar.total = self._bar.n
        self._bar.set_postfix({k: f"{v:.3f}" for k, v in last.items() if not math.isnan(v)})
        self._bar.close()
        self._bar = None

    def on_fit_end(self, model: SequenceGenerator) -> None:
        """Close a bar that an interruption left open."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None
