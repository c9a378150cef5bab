"""Stop early and halve the learning rate, as Keras' callbacks of these names do with the options that `fit` gives them.

Keras computes in the same way; these need no Keras, and their state is plain values and arrays.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from shardtrain.errors import CheckpointError
from shardtrain.metrics.names import HIGHER_IS_BETTER
from shardtrain.runtime.schema import Fields, Integer, Number
from shardtrain.training.engine import Logs

_MIN_DELTA = 1e-4  # by which the loss must be lower for `Plateau`, as in Keras


def is_better(monitor: str, logs: Logs, before: Logs) -> bool:
    """Return whether the metric `monitor` of the validation split is better in an epoch than in one before."""
    return _cost(monitor, logs) < _cost(monitor, before)


def _cost(monitor: str, logs: Logs) -> float:
    """Return a metric as a number of which the lower is the better one."""
    return -logs[f"val_{monitor}"] if HIGHER_IS_BETTER[monitor] else logs[f"val_{monitor}"]


class KeepBest:
    """Stop when a metric of the validation split was not better for `patience` epochs, and keep the best weights.

    Args:
        patience: epochs.
        monitor: name of the metric.

    Attributes:
        best: the best metric so far, negative where a higher one is better.
        best_epoch: from 0.
        best_weights: of it; None before the first epoch has ended.
    """

    schema = Fields({"best": Number(finite=False), "best_epoch": Integer(), "wait": Integer()}, others=True)

    def __init__(self, patience: int, monitor: str = "loss") -> None:
        self.best, self.best_epoch, self.wait = math.inf, 0, 0
        self.best_weights: list[Any] | None = None
        self._patience, self._monitor = patience, monitor

    def epoch_ends(self, epoch: int, logs: Logs, weights: Callable[[], list[Any]]) -> bool:
        """Return whether to stop; `weights` copies those of now."""
        self.wait += 1
        cost = _cost(self._monitor, logs)
        if self.best_weights is None or cost < self.best:
            if cost < self.best:
                self.best, self.wait = cost, 0
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
