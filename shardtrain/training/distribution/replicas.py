"""Divide each step among the GPUs of a machine and among workers: the one room that knows TensorFlow's strategies.

`tf.distribute.MirroredStrategy` keeps a copy of all variables on each device of a process, and
`MultiWorkerMirroredStrategy` on those of all workers. A device computes its share of the batch's loss, gradients are
summed, and all copies get the same update, so a step equals that of one device within float tolerance, also for batches
that cannot be divided evenly. One more sum, of some numbers, carries the loss and the metrics.

Dropout is the exception: devices of one process draw the same numbers, workers draw their own (`worker_state`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples, Features, slice_rows
from shardtrain.errors import UsageError
from shardtrain.runtime.terminal import captured_stderr
from shardtrain.training.distribution.cluster import ALONE, Cluster
from shardtrain.training.distribution.team import Team


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
    """The devices that share each step; without any, the one that TensorFlow chooses.

    Args:
        devices: of this process, by TensorFlow's names, such as "GPU:0"; with several workers, none: all GPUs that
            each sees, or its processor.
        team: the workers, which have joined.

    Attributes:
        devices: of this process.
        team: the workers.
        local: parts per batch in this process.
        count: parts per batch in all workers.

    Raises:
        UsageError: several workers, and TensorFlow was used before.
    """

    def __init__(self, devices: Sequence[str] = (), team: Team | None = None) -> None:
        self.team = team or Team(ALONE)
        self._strategy: Any = None
        if self.team.size > 1:
            self._strategy = _workers(self.team.cluster)
            self.team.abort = _abort
            devices = [name.rpartition("device:")[2] for name in self._strategy.extended.worker_devices]
        elif devices:
            self._strategy = _mirrored(tuple(devices))
        self.devices = tuple(devices)
        self.local = max(1, len(self.devices))
        self.count = self.local * self.team.size

    def scope(self) -> contextlib.AbstractContextManager[Any]:
        """Return the context in which the variables of the model, its optimizer and metrics must be created."""
        scope: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
        return scope if self._strategy is None else self._strategy.scope()

    def run(self, step: Callable[..., tf.Tensor], arguments: Sequence[tf.Tensor]) -> tf.Tensor:
        """Call `step` on each device with that device's part of the arguments; return the sum of the results.

        For use in a traced function, with two parts or more.

        Args:
            step: takes the arguments of a part, and `share`: its rows divided by those of an average part.
            arguments: those of the parts of this process in order, the labels of each part first.
        """

        def on_device(number: int) -> tf.Tensor:
            part = self._part(arguments, number)
            rows = tf.cast(tf.shape(part[0])[0], tf.float32)
            total = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, rows)
            return step(*part, share=rows * self.count / total)

        return self._strategy.reduce(tf.distribute.ReduceOp.SUM, self._each(on_device), axis=None)

    def gather(
        self, step: Callable[..., tuple[tf.Tensor, tf.Tensor]], arguments: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Call `step` as `run` does; return the labels and the outputs of all parts, in order, and a sum.

        Args:
            step: takes the arguments of a part, and returns its outputs and numbers to sum.
            arguments: see `run`.
        """

        def on_device(number: int) -> tuple[tf.Tensor, ...]:
            part = self._part(arguments, number)
            return part[0], *step(*part)

        labels, outputs, numbers = self._each(on_device)
        total = self._strategy.reduce(tf.distribute.ReduceOp.SUM, numbers, axis=None)
        return self._strategy.gather(labels, axis=0), self._strategy.gather(outputs, axis=0), total

    def _part(self, arguments: Sequence[tf.Tensor], number: int) -> Sequence[tf.Tensor]:
        """Return the arguments of a part of this process."""
        each = len(arguments) // self.local
        return arguments[number * each : (number + 1) * each]

    def _each(self, on_device: Callable[[int], Any]) -> Any:
        """Call a function on each device of this process, with its number."""

        def call() -> Any:
            number = tf.distribute.get_replica_context().replica_id_in_sync_group
            number = number if isinstance(number, int) else int(tf.get_static_value(number))
            return on_device(number % self.local)

        return self._strategy.run(call)

    def values(self, variable: Any) -> list[npt.NDArray[Any]]:
        """Return a variable's values on the devices of this process: no other worker is asked."""
        if self._strategy is None:
            return [np.asarray(variable)]
        return [np.asarray(each) for each in self._strategy.experimental_local_results(variable.value)]

    def assign(self, variable: Any, values: Sequence[npt.NDArray[Any]]) -> None:
        """Set a variable's values on the devices of this process alone."""
        if self._strategy is None:
            variable.assign(values[0])
            return
        for each, value in zip(self._strategy.experimental_local_results(variable.value), values, strict=True):
            each.assign(value)

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
        """Divide this worker's rows of a batch among its devices; a part without rows has one of zeros, no label."""
        x, y = batch
        if self.count == 1:
            return [batch]
        bounds = [len(y) * number // self.local for number in range(self.local + 1)]
        return [
            (slice_rows(x, start, stop) if start < stop else _zero_row(x), y[start:stop])
            for start, stop in pairwise(bounds)
        ]


@tf.autograph.experimental.do_not_convert
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
def _mirrored(devices: tuple[str, ...]) -> tf.distribute.Strategy:
    """Return the one strategy for all trainings of a process: two would number their collective operations alike."""
    return tf.distribute.MirroredStrategy(list(devices))


@functools.cache
def _workers(cluster: Cluster) -> tf.distribute.Strategy:
    """Return the one strategy of this worker; all must call it, and it opens TensorFlow's server.

    TensorFlow's coordination service would end the process without a word where it finds another one dead, and lets
    processes wait for each other when they end: `team` notices losses instead.

    Raises:
        UsageError: TensorFlow was used before, or the port of this worker is in use.
    """
    from tensorflow.python.eager import context

    context.context().configure_coordination_service("")
    with captured_stderr():  # the search for devices prints
        gpus = tf.config.list_physical_devices("GPU")
    collective = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=collective.NCCL if gpus else collective.RING
    )
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        rpc_layer="grpc",
    )
    try:
        with captured_stderr():
            return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except tf.errors.UnknownError as error:
        raise UsageError(
            f"TensorFlow cannot listen at the port of {cluster.name(cluster.index)}, which is this process "
            f"({error.message}): it listens at all addresses of the machine, so the port must be free at each of them; "
            "choose other ports"
        ) from error
    except RuntimeError as error:
        raise UsageError(
            f"TensorFlow was used in this process before several workers began to train ({error}); begin with that"
        ) from error


def _abort(reason: str) -> None:
    """End the collective operations that wait for a lost worker."""
    from tensorflow.python.eager import context

    context.context().abort_collective_ops(tf.errors.UNAVAILABLE, reason)


def _zero_row(x: Features) -> Features:
    """Return a row of zeros: TensorFlow's sparse products do not accept matrices without rows."""
    if isinstance(x, Csr):
        return Csr(x.data[:0], x.indices[:0], np.zeros(2, np.int64), (1, x.shape[1]))
    return np.zeros((1, *x.shape[1:]), x.dtype)
