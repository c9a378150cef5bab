"""Train with Keras: a compiled model's traced steps, and Keras' callbacks around them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from shardtrain.arrays.rows import Examples
from shardtrain.loader.split import Split
from shardtrain.models.outputs import as_probabilities
from shardtrain.training import state
from shardtrain.training.distribution import worker_state
from shardtrain.training.engine import EachBatch, Engine, Logs, numbers, restore_generators
from shardtrain.training.steps import STEPS_PER_CALL, Steps

MULTI_STEP_FROM = 100  # steps per epoch from which tracing several steps per call pays within a few epochs


class KerasEngine(Engine):
    """An engine (`training.engine`) of the traced steps of a model.

    Args:
        steps: of the model.
        callbacks: of the training and of the user.
        meaning: of the model's outputs, "probabilities" or "logits".

    Attributes:
        steps: of the model.
        watches_batches: whether a callback has hooks that are called for every batch.
    """

    def __init__(self, steps: Steps, callbacks: Sequence[keras.callbacks.Callback], meaning: str) -> None:
        self.steps = steps
        self._meaning = meaning
        _ = steps.train  # traced here, so that the first epoch's time is that of its steps alone
        self.watches_batches = any(_watches_batches(callback) for callback in callbacks)
        self._recorded: Logs = {}
        recorder = keras.callbacks.LambdaCallback(on_epoch_end=self._record)
        self._given = [*callbacks, recorder]
        self._callbacks: Any = None

    @property
    def stop(self) -> bool:
        """Whether the training is to end."""
        return bool(self.steps.model.stop_training)

    @stop.setter
    def stop(self, value: bool) -> None:
        self.steps.model.stop_training = value

    def steps_per_call(self, train: Split, batch_size: int) -> int:
        """Return the steps per call: several where that pays and no callback has hooks per batch."""
        long = train.steps_per_epoch(batch_size) >= MULTI_STEP_FROM
        return STEPS_PER_CALL if long and not self.watches_batches and train.kind == "ngram" else 1

    def training_begins(self, epochs: int, steps: int, saved: Mapping[str, Any] | None = None) -> None:
        """Call the callbacks' hooks for the start of training, and restore a saved state."""
        self._callbacks = callbacks = keras.callbacks.CallbackList(
            list(self._given), add_history=True, model=self.steps.model, verbose=0, epochs=epochs, steps=steps
        )
        state.warn_of_unsaved_attributes(callbacks.callbacks)
        if saved is not None:
            state.check_callbacks(callbacks.callbacks, saved["callbacks"])
        callbacks.on_train_begin()
        if saved is None:
            return
        if saved["position"]["step"]:
            callbacks.on_epoch_begin(saved["position"]["epoch"])
        state.restore_variables(self.steps, saved["variables"])
        state.restore_callbacks(callbacks.callbacks, saved["callbacks"], epochs=len(saved["history"]))
        restore_generators(saved["generators"])
        if self.steps.replicas.team.size > 1:
            totals = saved["variables"]["metrics"]["values"]
            worker_state.restore(*self._own, saved.get("workers", ()), totals)
        self.stop = saved["stop"]

    def epoch_begins(self, epoch: int) -> None:
        """Call the callbacks."""
        self._callbacks.on_epoch_begin(epoch)

    def batch_begins(self, step: int) -> None:
        """Call the callbacks."""
        self._callbacks.on_train_batch_begin(step)

    def batch_ends(self, step: int, logs: Logs) -> None:
        """Call the callbacks."""
        self._callbacks.on_train_batch_end(step, logs)

    def validation_begins(self) -> None:
        """Call the callbacks."""
        self._callbacks.on_test_begin()

    def validation_ends(self, logs: Logs) -> None:
        """Call the callbacks."""
        self._callbacks.on_test_end(logs)

    def epoch_ends(self, epoch: int, logs: Logs) -> Logs:
        """Call the callbacks; return the metrics with those that they added."""
        self._callbacks.on_epoch_end(epoch, logs)
        return self._recorded

    def training_ends(self, logs: Logs) -> None:
        """Call the callbacks, of which early stopping restores the best weights."""
        model = self.steps.model
        model.optimizer.finalize_variable_values(model.trainable_variables)
        self._callbacks.on_train_end(logs)

    def reset(self) -> None:
        """Reset the metrics."""
        self.steps.reset()

    def advance(self, batches: Sequence[Examples]) -> tuple[list[float], Mapping[str, Any]]:
        """Train on the batches."""
        return self.steps.advance(batches)

    def evaluate(self, batches: Iterable[Examples], each: EachBatch | None = None) -> Logs:
        """Evaluate on the batches."""
        if each is None:
            return self.steps.evaluate(batches)
        return self.steps.evaluate(batches, lambda y, out: each(y, np.asarray(as_probabilities(out, self._meaning))))

    def capture_variables(self) -> dict[str, Any]:
        """Capture the variables of model, optimizer and metrics."""
        return state.capture_variables(self.steps)

    @property
    def _own(self) -> tuple[keras.Model, list[Any], Any]:
        return self.steps.model, self.steps.metrics_variables, self.steps.replicas

    def capture_worker(self) -> dict[str, Any]:
        """Capture random states and sums of metrics."""
        return worker_state.capture(*self._own)

    def join_workers(self, variables: dict[str, Any], workers: Sequence[dict[str, Any]]) -> None:
        """Put the sums of all workers in place of those of the chief."""
        metrics = variables["metrics"]
        metrics["values"] = worker_state.summed(workers, metrics["described"])

    def capture_hooks(self) -> list[dict[str, Any]]:
        """Capture the callbacks."""
        return state.capture_callbacks(self._callbacks.callbacks)

    def _record(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Record an epoch's metrics with those that callbacks added, such as the learning rate."""
        self._recorded = numbers(logs)


def _watches_batches(callback: keras.callbacks.Callback) -> bool:
    """Return whether a callback overrides a hook that is called for every batch."""
    hooks = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
    own = [getattr(getattr(callback, hook), "__func__", None) for hook in hooks]
    return own != [getattr(keras.callbacks.Callback, hook) for hook in hooks]
