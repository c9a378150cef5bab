"""Write TensorBoard events without TensorFlow: the points that Keras' callback writes, with tensorboard's own classes.

`tensorboard` would import TensorFlow where it opens a file (`tensorboard.compat.tf`), so files are opened here: a file
per split and process, to which each call appends whole records. As with Keras' callback, whose events `state` cuts,
`tensorboard_folder` removes what was written after a checkpoint.
"""

from __future__ import annotations

import itertools
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from shardtrain.runtime.atomic import make_folder, without_following
from shardtrain.runtime.storage import storage_errors
from shardtrain.training.engine import Logs

_VERSION = "brain.Event:2"  # of the format, in the first record of a file
_VALIDATION = "val_"  # begins the names of metrics of the validation split
_numbers = itertools.count()  # of the logs of this process


class EventLog:
    """Appends points to event files, which are made when they get their first.

    Args:
        folder: of the events, with a folder for each split.

    Attributes:
        folder: the same.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}.{os.getpid()}.{next(_numbers)}.v2"

    def add_validation(self, step: int, logs: Logs) -> None:
        """Write the metrics of a validation after `step` steps.

        Raises:
            StorageError: the file cannot be written.
        """
        self._add("validation", step, {f"evaluation_{name}_vs_iterations": value for name, value in logs.items()})

    def add_epoch(self, epoch: int, logs: Logs, learning_rate: float) -> None:
        """Write the metrics of an epoch, from 0, and the learning rate after it.

        Raises:
            StorageError: a file cannot be written.
        """
        own = {f"epoch_{name}": value for name, value in logs.items() if not name.startswith(_VALIDATION)}
        of_validation = {name.removeprefix(_VALIDATION): logs[name] for name in logs if name.startswith(_VALIDATION)}
        self._add("train", epoch, {**own, "epoch_learning_rate": learning_rate})
        self._add("validation", epoch, {f"epoch_{name}": value for name, value in of_validation.items()})

    def _add(self, split: str, step: int, values: Mapping[str, float]) -> None:
        """Write a point of each curve."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb
        from tensorboard.summary.writer.record_writer import RecordWriter

        path = self.folder / split / self._name
        make_folder(path.parent)
        with (
            storage_errors(path, "write", kept="the training can be resumed"),
            open(path, "ab", opener=without_following) as file,
        ):
            records = RecordWriter(file)
            if not file.tell():
                records.write(Event(wall_time=time.time(), file_version=_VERSION).SerializeToString())
            for name, value in values.items():
                point = Event(wall_time=time.time(), step=step, summary=scalar_pb(name, value))
                records.write(point.SerializeToString())
