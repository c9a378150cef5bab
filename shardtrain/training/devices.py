"""Train on several GPUs of one machine: divide the rows of each batch among them.

`tf.distribute.MirroredStrategy` keeps a copy of all variables on each device. A device computes its share of the
batch's loss, gradients are summed, and all copies get the same update, so a step equals that of one device within float
tolerance, also for batches that cannot be divided evenly. Dropout is the exception: all devices draw the same numbers.
"""

from __future__ import annotations

import contextlib
import functools
import platform
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples, Features, slice_rows
from shardtrain.errors import UsageError
from shardtrain.runtime.machine import cores
from shardtrain.training.resume import versions


def devices_for(asked: Sequence[str]) -> tuple[str, ...]:
    """Return the devices to train on: `asked`, else all GPUs if there are several; empty: TensorFlow chooses one.

    Raises:
        UsageError: there is no such device, or one is named twice.
    """
    available = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    if missing := [device for device in asked if device not in available]:
        raise UsageError(f"there is no device '{missing[0]}' for --devices; available are {', '.join(available)}")
    if len(set(asked)) != len(asked):
        raise UsageError(f"--devices {' '.join(asked)} names a device twice")
    gpus = tuple(name for name in available if name.startswith("GPU:"))
    return tuple(asked) or (gpus if len(gpus) > 1 else ())


class Replicas:
    """The devices that share each step, by TensorFlow's names; without any, the one that TensorFlow chooses.

    Attributes:
        devices: such as "GPU:0".
        count: parts per batch.
    """

    def __init__(self, devices: Sequence[str] = ()) -> None:
        self.devices = tuple(devices)
        self.count = max(1, len(self.devices))
        self._strategy = _strategy(self.devices) if devices else None

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the variables of the model, its optimizer and metrics must be created."""
        return self._strategy.scope() if self._strategy is not None else contextlib.nullcontext()

    def run(self, step: Callable[..., tf.Tensor], arguments: Sequence[tf.Tensor]) -> tf.Tensor:
        """Call `step` on each device with that device's part of the arguments; return the sum of the results.

        For use in a traced function, with two devices or more.

        Args:
            step: takes the arguments of a part, and `share`: its rows divided by those of an average part.
            arguments: those of all parts in order, the labels of each part first.
        """
        assert self._strategy is not None
        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, self._each(step, arguments), axis=None)

    def gather(self, step: Callable[..., tf.Tensor], arguments: Sequence[tf.Tensor]) -> tf.Tensor:
        """Do as `run`, but return the rows of all results, in the order of the parts."""
        assert self._strategy is not None
        return tf.concat(self._strategy.experimental_local_results(self._each(step, arguments)), axis=0)

    def _each(self, step: Callable[..., tf.Tensor], arguments: Sequence[tf.Tensor]) -> Any:
        """Return the result of each device; see `run`."""
        assert self._strategy is not None
        each = len(arguments) // self.count
        rows = [tf.shape(arguments[number * each])[0] for number in range(self.count)]

        def on_device() -> tf.Tensor:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            number = number if isinstance(number, int) else int(tf.get_static_value(number))
            share = tf.cast(rows[number] * self.count, tf.float32) / tf.cast(tf.add_n(rows), tf.float32)
            return step(*arguments[number * each : (number + 1) * each], share=share)

        return self._strategy.run(on_device)

    def apply(self, optimizer: keras.optimizers.Optimizer, gradients: Sequence[Any], variables: Sequence[Any]) -> None:
        """Update the variables with the sum of all devices' gradients; must be called on each device."""
        clip = _clipping(optimizer) if self.count > 1 else None
        if clip is not None:
            # Keras clips each device's gradients and then sums: give each device its share of the clipped sum instead
            pairs = [pair for pair in zip(gradients, variables, strict=True) if pair[0] is not None]
            context = tf.distribute.get_replica_context()
            sums = context.all_reduce(tf.distribute.ReduceOp.SUM, [gradient for gradient, _ in pairs])
            gradients, variables = [each / self.count for each in clip(sums)], [variable for _, variable in pairs]
        optimizer.apply(gradients, variables)

    def parts(self, batch: Examples) -> list[Examples]:
        """Divide the rows of a batch among the devices; a part without rows has one row of zeros and no label."""
        x, y = batch
        if self.count == 1:
            return [batch]
        bounds = [len(y) * number // self.count for number in range(self.count + 1)]
        return [
            (slice_rows(x, start, stop) if start < stop else _zero_row(x), y[start:stop])
            for start, stop in pairwise(bounds)
        ]

    def build_metrics(self, model: keras.Model, labels: tf.Tensor) -> None:
        """Create the variables of a model's metrics, which Keras creates in the first step, too late to be mirrored.

        `labels` are those of a batch without rows.
        """
        if self.count > 1:
            with self.scope():
                model.compute_metrics(None, labels, tf.zeros([0, model.output_shape[-1]]))


def _clipping(optimizer: keras.optimizers.Optimizer) -> Callable[[list[tf.Tensor]], list[tf.Tensor]] | None:
    """Return the optimizer's clipping of gradients as a function; None if it does not clip."""
    if (norm := optimizer.clipnorm) is not None:
        return lambda gradients: [tf.clip_by_norm(gradient, norm) for gradient in gradients]
    if (total := optimizer.global_clipnorm) is not None:
        return lambda gradients: tf.clip_by_global_norm(gradients, total)[0]
    if (value := optimizer.clipvalue) is not None:
        return lambda gradients: [tf.clip_by_value(gradient, -value, value) for gradient in gradients]
    return None


@functools.cache
def _strategy(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """Return the one strategy for all trainings of a process: two would number their collective operations alike."""
    return tf.distribute.MirroredStrategy(list(devices))


def _zero_row(x: Features) -> Features:
    """Return a row of zeros: TensorFlow's sparse products do not accept matrices without rows."""
    if isinstance(x, Csr):
        return Csr(x.data[:0], x.indices[:0], np.zeros(2, np.int64), (1, x.shape[1]))
    return np.zeros((1, *x.shape[1:]), x.dtype)


def keras_versions() -> dict[str, str]:
    """Return the versions of the packages that training with Keras runs on."""
    return {**versions(), "tensorflow": tf.__version__, "keras": keras.__version__}


def environment(devices: Sequence[str]) -> dict[str, Any]:
    """Return what bit-identical results depend on besides the job; `devices` share the work."""
    return {
        **keras_versions(),
        "machine": platform.machine(),
        "processors": cores(),
        "threads of an operation": tf.config.threading.get_intra_op_parallelism_threads(),
        "threads between operations": tf.config.threading.get_inter_op_parallelism_threads(),
        "GPUs": len(tf.config.list_physical_devices("GPU")),
        "devices": list(devices),
    }
