"""The traced functions of a model: one step of training, several in one call, one of evaluation, each traced once.

Keras' models, losses, metrics and optimizers are used unchanged. A traced function takes flat arrays of any number of
rows, so the shorter last batch does not trace it again, and sums repeated rows of sparse gradients before the optimizer
sees them. The loss is a mean over examples, not over batches.

A call that holds several steps calls the traced step so many times, on a batch each, so its results are those of single
calls in every bit. While the optimizer moves the weights of one step, the next batch is already put into rows: of a
step over sparse rows, 2 to 5 ms, it saves a fifth to a quarter. It costs half a second when training begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

import keras
import tensorflow as tf

from shardtrain.arrays.rows import Examples
from shardtrain.errors import ModelError
from shardtrain.models.adapters import LABELS, InputAdapter, label_array
from shardtrain.models.optimizers import sum_repeated_rows
from shardtrain.training.devices import Replicas

EVALUATION_ROWS = 512  # rows a batch without training: past it the step gains nothing, and memory stays small
STEPS_A_CALL = 4  # more gained nothing

Logs = dict[str, float]


class Steps:
    """A compiled model with its two traced functions, each traced once, when it is first asked for.

    Attributes:
        model: the model.
        feed: how batches enter the functions.
        class_weights: what the loss of an example of each class is multiplied by in training; empty: by nothing.
        replicas: the devices that share the work; the model was made in their scope.

    Raises:
        ModelError: several devices, and a training step of the model's own.
    """

    def __init__(
        self,
        model: keras.Model,
        feed: InputAdapter,
        class_weights: Sequence[float] = (),
        replicas: Replicas | None = None,
    ) -> None:
        self.model = model
        self.feed = feed
        self.class_weights = class_weights
        self.replicas = replicas or Replicas()
        self._own_step = type(model).train_step is not keras.Model.train_step
        if self._own_step and self.replicas.count > 1:
            raise ModelError(
                f"the model has a train_step of its own, which cannot be divided among {self.replicas.count} devices; "
                f"train it on one, with --devices {self.replicas.devices[0]}"
            )
        self._arguments = (LABELS, *feed.specs) * self.replicas.count
        with self.replicas.scope():
            self._loss = keras.metrics.Mean(name="loss")
            model.optimizer.build(model.trainable_variables)
        self.replicas.build_metrics(model)

    @cached_property
    def train(self) -> Any:
        """Trains on the arguments of a batch; gives its loss, and the metrics of the epoch so far.

        Raises:
            ModelError: "accuracy" is not among the metrics.
        """
        traced = self._traced(self._train)
        _, logs = traced.structured_outputs
        if "accuracy" not in logs:
            raise ModelError(
                f"the model comes compiled with the metrics {sorted(logs)}; compile it with metrics=['accuracy'] as "
                "well, or leave it uncompiled"
            )
        return traced

    @cached_property
    def several(self) -> Any:
        """Trains on the arguments of `STEPS_A_CALL` batches; gives their losses, and the epoch's metrics so far."""
        each = self._arguments

        def steps(*arguments: tf.Tensor) -> Any:
            losses, logs = [], {}
            for start in range(0, len(arguments), len(each)):
                loss, logs = self.train(*arguments[start : start + len(each)])
                losses.append(loss)
            return tf.stack(losses), logs

        return tf.function(steps).get_concrete_function(*(each * STEPS_A_CALL))

    @cached_property
    def test(self) -> Any:
        """As `train`, without training."""
        return self._traced(self._test)

    def _traced(self, step: Callable[..., Any]) -> Any:
        """A step as a traced function of the arguments of a batch."""
        if self.replicas.count == 1:
            return tf.function(step).get_concrete_function(*self._arguments)

        def everywhere(*arguments: tf.Tensor) -> Any:
            loss = self.replicas.run(lambda *part, share: step(*part, share=share)[0], arguments)
            return loss, {**self.model.get_metrics_result(), "loss": self._loss.result()}

        return tf.function(everywhere).get_concrete_function(*self._arguments)

    def _train(self, y: tf.Tensor, *parts: tf.Tensor, share: tf.Tensor | None = None) -> Any:
        x = self.feed.assemble(*parts)
        weights = tf.gather(tf.constant(self.class_weights, tf.float32), y) if self.class_weights else None
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

    def _test(self, y: tf.Tensor, *parts: tf.Tensor, share: tf.Tensor | None = None) -> Any:
        x = self.feed.assemble(*parts)
        predicted = self._predicted(x, y, training=False)
        mean = self.model.compute_loss(x=x, y=y, y_pred=predicted, training=False)
        return mean if share is None else mean * share, self._measure(x, y, predicted, mean)

    def _predicted(self, x: Any, y: tf.Tensor, *, training: bool) -> tf.Tensor:
        predicted = self.model(x, training=training)
        return predicted if self.replicas.count == 1 else predicted[: tf.shape(y)[0]]  # less the row of an empty part

    def _measure(self, x: Any, y: tf.Tensor, predicted: tf.Tensor, mean: tf.Tensor) -> Any:
        """Take a batch, or a device's part of it, into the metrics; the loss is a mean over examples, not batches."""
        self._loss.update_state(mean * self.replicas.count, sample_weight=tf.shape(y)[0])  # Keras divided it by these
        return {**self.model.compute_metrics(x, y, predicted), "loss": self._loss.result()}

    def reset(self) -> None:
        """Start the metrics of a pass."""
        self.model.reset_metrics()
        self._loss.reset_state()

    def arguments(self, batch: Examples) -> list[tf.Tensor]:
        """A batch as the traced functions take it."""
        return [
            tf.convert_to_tensor(array)
            for x, y in self.replicas.parts(batch)
            for array in (label_array(y), *self.feed.arrays(x))
        ]

    def advance(self, batches: Sequence[Examples]) -> tuple[list[float], Mapping[str, Any]]:
        """Train on one batch or on `STEPS_A_CALL`; gives the loss of each, and the metrics of the epoch so far."""
        arguments = [argument for batch in batches for argument in self.arguments(batch)]
        if len(batches) == 1:
            loss, logs = self.train(*arguments)
            return [float(loss)], logs
        losses, logs = self.several(*arguments)
        return losses.numpy().tolist(), logs

    def evaluate(self, batches: Iterable[Examples]) -> Logs:
        """Metrics over all examples of the batches, without training."""
        self.reset()
        logs: Mapping[str, Any] = {}
        for batch in batches:
            _, logs = self.test(*self.arguments(batch))
        return numbers(logs)

    @property
    def metrics_variables(self) -> list[Any]:
        """What the metrics of a pass have counted so far."""
        return [*self.model.metrics_variables, *self._loss.variables]


def numbers(logs: Mapping[str, Any]) -> Logs:
    """Metrics as Python floats."""
    return {name: float(value) for name, value in logs.items()}
