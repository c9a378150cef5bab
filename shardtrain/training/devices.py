"""Training on several GPUs of one machine: the rows of every step's batch are divided among them.

`tf.distribute.MirroredStrategy` keeps a copy of all variables on each device. A device computes its share of the
batch's loss, gradients are added up, and all copies move alike, so a step is that of one device to float tolerance,
for batches that cannot be divided evenly as well. Without dropout, that is: all devices draw the same numbers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples, Features
from shardtrain.errors import UsageError


def devices_for(asked: Sequence[str]) -> tuple[str, ...]:
    """The devices to train on: those asked for, else all GPUs if there are several; empty: TensorFlow chooses one.

    Raises:
        UsageError: there is no such device, or one is named twice.
    """
    there = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    if missing := [device for device in asked if device not in there]:
        raise UsageError(f"there is no device '{missing[0]}' to train on; there are {', '.join(there)}")
    if len(set(asked)) != len(asked):
        raise UsageError(f"--devices {' '.join(asked)} names a device twice")
    gpus = tuple(name for name in there if name.startswith("GPU:"))
    return tuple(asked) or (gpus if len(gpus) > 1 else ())


class Replicas:
    """The devices that train together, as TensorFlow names them; without any, the one that TensorFlow chooses.

    Attributes:
        devices: such as "GPU:0".
        count: parts that a batch is divided into.
    """

    def __init__(self, devices: Sequence[str] = ()) -> None:
        self.devices = tuple(devices)
        self.count = max(1, len(self.devices))
        self._strategy = _strategy(self.devices) if devices else None

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Where variables have to be made: of the model, its optimizer and metrics."""
        return self._strategy.scope() if self._strategy is not None else contextlib.nullcontext()

    def run(self, step: Callable[..., tf.Tensor], arguments: Sequence[tf.Tensor]) -> tf.Tensor:
        """Call `step` on each device with that device's part of the arguments; gives the sum of the results.

        For use in a traced function, with two devices or more.

        Args:
            step: takes the arguments of a part, and `share`: its rows over those of an average part.
            arguments: those of the parts, one after the other, the labels of each first.
        """
        assert self._strategy is not None
        each = len(arguments) // self.count
        rows = [tf.shape(arguments[number * each])[0] for number in range(self.count)]

        def on_device() -> tf.Tensor:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            number = number if isinstance(number, int) else int(tf.get_static_value(number))
            share = tf.cast(rows[number] * self.count, tf.float32) / tf.cast(tf.add_n(rows), tf.float32)
            return step(*arguments[number * each : (number + 1) * each], share=share)

        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, self._strategy.run(on_device), axis=None)

    def apply(self, optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Move the variables by the sum of all devices' gradients; to be called on each of them."""
        clip = _clipping(optimizer) if self.count > 1 else None
        if clip is not None:
            # Keras clips what each device has and then adds up, so each gets its share of what was added up and clipped
            pairs = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
            context = tf.distribute.get_replica_context()
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [gradient for gradient, _ in pairs])
            gradients, variables = [each / self.count for each in clip(sums)], [variable for _, variable in pairs]
        optimizer.apply(gradients, variables)

    def parts(self, batch: Examples) -> list[Examples]:
        """The rows of a batch divided among the devices; a part without labels has one row, of zeros."""
        x, y = batch
        if self.count == 1:
            return [batch]
        bounds = [len(y) * number // self.count for number in range(self.count + 1)]
        return [
            (_rows(x, start, stop) if start < stop else _nothing(x), y[start:stop]) for start, stop in pairwise(bounds)
        ]

    def build_metrics(self, model: keras.Model) -> None:
        """Make the variables of a model's metrics, which are otherwise made in the first step, too late for a copy."""
        if self.count > 1:
            with self.scope():
                model.compute_metrics(None, tf.zeros([0], tf.int32), tf.zeros([0, model.output_shape[-1]]))


def _clipping(optimizer: keras.optimizers.Optimizer) -> Callable[[list[tf.Tensor]], list[tf.Tensor]] | None:
    """How the optimizer clips gradients; None if it does not."""
    if (norm := optimizer.clipnorm) is not None:
        return lambda gradients: [tf.clip_by_norm(gradient, norm) for gradient in gradients]
    if (total := optimizer.global_clipnorm) is not None:
        return lambda gradients: tf.clip_by_global_norm(gradients, total)[0]
    if (value := optimizer.clipvalue) is not None:
        return lambda gradients: [tf.clip_by_value(gradient, -value, value) for gradient in gradients]
    return None


@functools.cache
def _strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """One for all trainings of a process: two would give their sums over the devices the same numbers."""
    return tf.distribute.MirroredStrategy(list(devices))


def _rows(x: Features, start: int, stop: int) -> Features:
    return x.rows(start, stop) if isinstance(x, Csr) else x[start:stop]


def _nothing(x: Features) -> Features:
    """One row of zeros: TensorFlow's sparse products do not take matrices without rows."""
    if isinstance(x, Csr):
        return Csr(x.data[:0], x.indices[:0], np.zeros(2, np.int64), (1, x.shape[1]))
    return np.zeros((1, *x.shape[1:]), x.dtype)
