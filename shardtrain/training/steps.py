"""Trace the functions of a model: one training step, several steps per call, and one evaluation step.

Keras' models, losses, metrics and optimizers are used unchanged. A traced function takes flat arrays of any number of
rows, so the shorter last batch does not trace it again, and sums repeated rows of sparse gradients before the optimizer
sees them. The loss is a mean over examples, not over batches.

A call of several steps calls the traced step once per batch, so its results are bit-identical to single calls. While
the optimizer updates the weights of one step, the next batch is assembled: that saves a fifth to a quarter of a step
over sparse rows (2 to 5 ms), and costs half a second of tracing when training starts.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shardtrain.arrays.rows import Examples, Labels
from shardtrain.errors import ModelError
from shardtrain.models.adapters import LABELS, InputAdapter, label_array
from shardtrain.models.optimizers import sum_repeated_rows
from shardtrain.models.tracing import traced
from shardtrain.training.distribution.replicas import Replicas
from shardtrain.training.engine import Logs, numbers

STEPS_PER_CALL = 4  # more were not faster


class Steps:
    """A compiled model with its traced functions, each traced once, on first use.

    Attributes:
        model: the model.
        adapter: turns batches into arguments of the functions.
        class_weights: factors of the training loss of an example, by class; empty: none.
        replicas: the devices and workers that share the work; the model was made in their scope.

    Raises:
        ModelError: several of them, and a model that overrides `train_step`.
    """

    def __init__(
        self,
        model: keras.Model,
        adapter: InputAdapter,
        class_weights: Sequence[float] = (),
        replicas: Replicas | None = None,
    ) -> None:
        self.model = model
        self.adapter = adapter
        self.class_weights = class_weights
        self.replicas = replicas or Replicas()
        self._own_step = type(model).train_step is not keras.Model.train_step
        if self._own_step and self.replicas.count > 1:
            how = "in one process" if self.replicas.team.size > 1 else f"with --devices {self.replicas.devices[0]}"
            raise ModelError(
                f"the model overrides train_step, which cannot be divided among {self.replicas.count} devices; "
                f"train it on one, {how}"
            )
        self._arguments = (LABELS, *adapter.specs) * self.replicas.local
        with self.replicas.scope():
            self._loss = keras.metrics.Mean(name="loss")
            model.optimizer.build(model.trainable_variables)
            self._build_metrics()

    def _build_metrics(self) -> None:
        """Create the variables of the model's metrics, with a batch without rows.

        Keras would create them in the first step: too late to be mirrored on several devices, and TensorFlow traces a
        step that creates variables a second time. Metrics that do not take such a batch are left to the step on a
        single device, which makes them or says what fails.
        """
        labels = self.adapter.targets(tf.zeros([0], tf.int32))
        with contextlib.suppress(Exception) if self.replicas.count == 1 else contextlib.nullcontext():
            self.model.compute_metrics(None, labels, tf.zeros([0, self.model.output_shape[-1]]))

    @cached_property
    def train(self) -> Any:
        """The traced step: train on the arguments of a batch; return its loss and the epoch's metrics so far.

        Raises:
            ModelError: "accuracy" is not among the metrics.
        """
        step = self._traced(self._train, self._train_together)
        _, logs = step.structured_outputs
        if "accuracy" not in logs:
            raise ModelError(
                f"the model comes compiled with the metrics {sorted(logs)}; compile it with metrics=['accuracy'] as "
                "well, or pass it uncompiled"
            )
        return step

    @cached_property
    def train_several(self) -> Any:
        """The traced call: train on the arguments of `STEPS_PER_CALL` batches; return their losses and the metrics."""
        each = self._arguments

        def steps(*arguments: tf.Tensor) -> Any:
            losses, logs = [], {}
            for start in range(0, len(arguments), len(each)):
                loss, logs = self.train(arguments[start : start + len(each)])
                losses.append(loss)
            return tf.stack(losses), logs

        return traced(steps, each * STEPS_PER_CALL)

    @cached_property
    def test(self) -> Any:
        """The traced evaluation step: return labels and outputs for the rows of a batch, and the metrics so far."""
        return self._traced(self._test, self._test_together)

    def _traced(self, step: Callable[..., Any], together: Callable[..., Any]) -> Any:
        """Trace a step as a function of the arguments of a batch; `together` takes it on several devices."""
        return traced(step if self.replicas.count == 1 else together, self._arguments)

    def _train_together(self, *arguments: tf.Tensor) -> Any:
        def on_device(*part: tf.Tensor, share: tf.Tensor) -> tf.Tensor:
            loss, _ = self._train(*part, share=share)
            return tf.concat([tf.reshape(tf.cast(loss, tf.float32), [1]), self._sums()], axis=0)

        found = self.replicas.run(on_device, arguments)
        return found[0], self._results(found[1:])

    def _test_together(self, *arguments: tf.Tensor) -> Any:
        def on_device(*part: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            _, outputs, _ = self._test(*part)
            return outputs, self._sums()

        labels, outputs, sums = self.replicas.gather(on_device, arguments)
        return labels, outputs, self._results(sums)

    def _sums(self) -> tf.Tensor:
        """Return what the metrics have summed up on this device, as one array."""
        return tf.concat([tf.reshape(tf.cast(each, tf.float32), [-1]) for each in self.metrics_variables], axis=0)

    def _results(self, sums: tf.Tensor) -> Logs:
        """Return the metrics of the sums of all devices."""
        mapping, start = [], 0
        for variable in self.metrics_variables:
            size = int(np.prod(variable.shape, dtype=np.int64))
            value = tf.cast(tf.reshape(sums[start : start + size], variable.shape), variable.dtype)
            mapping.append((variable, value))
            start += size
        with keras.StatelessScope(state_mapping=mapping):
            return {**self.model.get_metrics_result(), "loss": self._loss.result()}

    def _train(self, y: tf.Tensor, *parts: tf.Tensor, share: tf.Tensor | None = None) -> Any:
        weights = tf.gather(tf.constant(self.class_weights, tf.float32), y) if self.class_weights else None
        x, y = self.adapter.assemble(*parts), self.adapter.targets(y)
        if self._own_step:
            logs = self.model.train_step((x, y) if weights is None else (x, y, weights))
            return logs["loss"], logs
        with tf.GradientTape() as tape:
            predicted = self._predicted(x, y, training=True)
            mean = self.model.compute_loss(x=x, y=y, y_pred=predicted, sample_weight=weights, training=True)
            loss = mean if share is None else mean * share
            scaled = self.model.optimizer.scale_loss(loss)
        variables = self.model.trainable_variables
        self.replicas.apply(self.model.optimizer, sum_repeated_rows(tape.gradient(scaled, variables)), variables)
        return loss, self._measure(x, y, predicted, mean)

    def _test(self, labels: tf.Tensor, *parts: tf.Tensor) -> Any:
        x, y = self.adapter.assemble(*parts), self.adapter.targets(labels)
        predicted = self._predicted(x, y, training=False)
        mean = self.model.compute_loss(x=x, y=y, y_pred=predicted, training=False)
        return labels, predicted, self._measure(x, y, predicted, mean)

    def _predicted(self, x: Any, y: tf.Tensor, *, training: bool) -> tf.Tensor:
        predicted = self.model(x, training=training)
        return predicted if self.replicas.count == 1 else predicted[: tf.shape(y)[0]]  # less the row of an empty part

    def _measure(self, x: Any, y: tf.Tensor, predicted: tf.Tensor, mean: tf.Tensor) -> Any:
        """Update the metrics with a batch or a device's part of it; the loss is a mean over examples, not batches."""
        self._loss.update_state(mean * self.replicas.count, sample_weight=tf.shape(y)[0])  # Keras divided it by these
        return {**self.model.compute_metrics(x, y, predicted), "loss": self._loss.result()}

    def reset(self) -> None:
        """Reset the metrics, before each pass over the examples."""
        self.model.reset_metrics()
        self._loss.reset_state()

    def arguments(self, batch: Examples) -> tuple[tf.Tensor, ...]:
        """Return a batch as the arguments of the traced functions."""
        return tuple(
            tensor
            for x, y in self.replicas.parts(batch)
            for tensor in (tf.convert_to_tensor(label_array(y)), *self.adapter.tensors(x))
        )

    def advance(self, batches: Sequence[Examples]) -> tuple[list[float], Mapping[str, Any]]:
        """Train on one batch or on `STEPS_PER_CALL`; return the loss of each and the metrics of the epoch so far."""
        arguments = tuple(argument for batch in batches for argument in self.arguments(batch))
        if len(batches) == 1:
            loss, logs = self.train(arguments)
            return [float(loss)], logs
        losses, logs = self.train_several(arguments)
        return losses.numpy().tolist(), logs

    def evaluate(self, batches: Iterable[Examples], each: Callable[[Labels, tf.Tensor], object] | None = None) -> Logs:
        """Compute the metrics over all examples of the batches, without training.

        Args:
            batches: rows and their classes.
            each: called with the classes of each batch, (rows,), and the model's outputs for them, (rows, units).
        """
        self.reset()
        logs: Mapping[str, Any] = {}
        for batch in batches:
            labels, outputs, logs = self.test(self.arguments(batch))
            if each is not None:
                each(labels.numpy(), outputs)
        return numbers(logs)

    @property
    def metrics_variables(self) -> list[Any]:
        """The variables in which metrics are accumulated."""
        return [*self.model.metrics_variables, *self._loss.variables]
