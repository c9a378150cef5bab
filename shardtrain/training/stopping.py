"""Stop early and halve the learning rate, as Keras' callbacks of these names do with the options that `fit` gives them.

Keras computes in the same way; these need no Keras, and their state is plain values and arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from shardtrain.errors import CheckpointError
from shardtrain.runtime.schema import Fields, Integer, Number
from shardtrain.training.engine import Logs

_MIN_DELTA = 1e-4  # by which the loss must be lower for `Plateau`, as in Keras


class KeepBest:
    """Stop when the validation loss was not lower for `patience` epochs, and keep the weights of the best epoch.

    Attributes:
        best_epoch: from 0.
        best_weights: of it; None before the first epoch has ended.
    """

    schema = Fields({"best": Number(finite=False), "best_epoch": Integer(), "wait": Integer()}, others=True)

    def __init__(self, patience: int) -> None:
        self.best, self.best_epoch, self.wait = math.inf, 0, 0
        self.best_weights: list[Any] | None = None
        self._patience = patience

    def epoch_ends(self, epoch: int, logs: Logs, weights: Callable[[], list[Any]]) -> bool:
        """Return whether to stop; `weights` copies those of now."""
        self.wait += 1
        if self.best_weights is None or logs["val_loss"] < self.best:
            if logs["val_loss"] < self.best:
                self.best, self.wait = logs["val_loss"], 0
            self.best_epoch, self.best_weights = epoch, weights()
        return self.wait >= self._patience and epoch > 0

    def state(self) -> dict[str, Any]:
        """Return what it takes to go on."""
        return {name: getattr(self, name) for name in ("best", "best_epoch", "wait", "best_weights")}


class Plateau:
    """Halve the learning rate when the validation loss was not lower for `patience` epochs.

    Attributes:
        factor: by which the first rate is multiplied now.
    """

    schema = Fields({"best": Number(finite=False), "wait": Integer(), "factor": Number(0, 1)})

    def __init__(self, patience: int, factor: float) -> None:
        self.best, self.wait, self.factor = math.inf, 0, 1.0
        self._patience, self._by = patience, factor

    def epoch_ends(self, logs: Logs) -> None:
        """Take note of an epoch's loss."""
        if logs["val_loss"] < self.best - _MIN_DELTA:
            self.best, self.wait = logs["val_loss"], 0
            return
        self.wait += 1
        if self.wait >= self._patience:
            self.factor *= self._by
            self.wait = 0

    def state(self) -> dict[str, Any]:
        """Return what it takes to go on."""
        return {name: getattr(self, name) for name in ("best", "wait", "factor")}


def restore(hook: KeepBest | Plateau, saved: Mapping[str, Any]) -> None:
    """Set the state that `state` returned.

    Raises:
        CheckpointError: it cannot be one.
    """
    if (mismatch := hook.schema.mismatch(dict(saved))) is not None:
        raise CheckpointError(f"the checkpoint's {type(hook).__name__} makes no sense: {mismatch}")
    vars(hook).update(saved)
