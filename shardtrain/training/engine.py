"""What the training loop needs of an engine: steps, evaluation, hooks around them, and a state that can be restored."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.rows import Examples, Labels
from shardtrain.loader.split import Split

EVALUATION_ROWS = 512  # rows per batch of an evaluation: more are not faster, and memory stays small
Logs = dict[str, float]
# Called with the classes of a batch, (rows,), and the outputs for its rows as probabilities, (rows, units).
EachBatch = Callable[[Labels, npt.NDArray[np.float32]], object]


class Engine(ABC):
    """Trains one model; a hook does nothing unless an engine has something to do there.

    Attributes:
        stop: whether the training is to end after the epoch, or with `watches_batches` after the step.
        watches_batches: whether hooks are called around every step.
    """

    stop: bool
    watches_batches: bool = False

    @abstractmethod
    def steps_per_call(self, train: Split, batch_size: int) -> int:
        """Return on how many batches `advance` is called at once."""

    @abstractmethod
    def training_begins(self, epochs: int, steps: int, saved: Mapping[str, Any] | None = None) -> None:
        """Begin a training of at most `epochs` epochs of `steps` steps, or go on with a saved one.

        Raises:
            CheckpointError: the state is of another model or other hooks.
        """

    def epoch_begins(self, epoch: int) -> None:  # noqa: B027 - a hook
        """Hook before epoch `epoch`, from 0."""

    def batch_begins(self, step: int) -> None:  # noqa: B027 - a hook
        """Hook before a step of an epoch, from 0."""

    def batch_ends(self, step: int, logs: Logs) -> None:  # noqa: B027 - a hook
        """Hook after it."""

    def validation_begins(self) -> None:  # noqa: B027 - a hook
        """Hook before the validation of an epoch."""

    def validation_ends(self, logs: Logs) -> None:  # noqa: B027 - a hook
        """Hook after it."""

    @abstractmethod
    def epoch_ends(self, epoch: int, logs: Logs) -> Logs:
        """Hook after an epoch; return its metrics and what hooks added to them, such as the learning rate."""

    @abstractmethod
    def training_ends(self, logs: Logs) -> None:
        """Hook after the last epoch: restores the best weights."""

    @abstractmethod
    def reset(self) -> None:
        """Begin to sum up the metrics of an epoch."""

    @abstractmethod
    def advance(self, batches: Sequence[Examples]) -> tuple[list[float], Mapping[str, Any]]:
        """Take a step on each batch; return their losses and the metrics of the epoch so far."""

    @abstractmethod
    def evaluate(self, batches: Iterable[Examples], each: EachBatch | None = None) -> Logs:
        """Compute the metrics over all examples of the batches, without training; see `EachBatch`."""

    @abstractmethod
    def capture_variables(self) -> dict[str, Any]:
        """Capture the described values of the model, its optimizer and its metrics."""

    def capture_worker(self) -> dict[str, Any]:
        """Capture what differs between workers, as JSON values; see `distribution.worker_state`."""
        return {}

    def join_workers(self, variables: dict[str, Any], workers: Sequence[dict[str, Any]]) -> None:  # noqa: B027
        """Replace, in variables that were captured, what differs between workers by what holds for all of them."""

    @abstractmethod
    def capture_hooks(self) -> list[dict[str, Any]]:
        """Capture the class and plain attributes of each hook."""


def numbers(logs: Mapping[str, Any]) -> Logs:
    """Return metrics as Python floats."""
    return {name: float(value) for name, value in logs.items()}


def capture_generators() -> dict[str, Any]:
    """Capture the global random generators of Python and numpy."""
    return {"python": random.getstate(), "numpy": np.random.get_state()}


def restore_generators(saved: Mapping[str, Any]) -> None:
    """Restore the generators that `capture_generators` returned."""
    random.setstate(saved["python"])
    np.random.set_state(saved["numpy"])
