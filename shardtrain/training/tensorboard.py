"""TensorBoard: Keras' callback, told of epochs, and whose events a folder holds.

Keras' callback listens to every step even where it writes once an epoch, which would keep the loop from making several
steps a call. How events go on after an interruption is in `state`: a point is there exactly once.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import keras

from shardtrain.errors import MissingExtraError, RunExistsError
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import TENSORBOARD, RunFolder
from shardtrain.training.state import event_files


class EpochBoard(keras.callbacks.TensorBoard):
    """Keras' TensorBoard callback without its hooks of steps, in which it has nothing to write."""

    on_train_batch_begin = keras.callbacks.Callback.on_train_batch_begin
    on_train_batch_end = keras.callbacks.Callback.on_train_batch_end


def check_board(options: FitOptions, folder: RunFolder | None) -> None:
    """Refuse, before anything is made, what would fail or mix the curves of two trainings.

    Args:
        options: of the training.
        folder: of its run, which may hold an interrupted training or one that is to be replaced.

    Raises:
        MissingExtraError: tensorboard is not installed.
        RunExistsError: the folder for events holds those of another training.
    """
    if not options.tensorboard:
        return
    if importlib.util.find_spec("tensorboard") is None:
        raise MissingExtraError(
            "--tensorboard needs tensorboard; install it with: pip install 'shardtrain[tensorboard]'"
        )
    if isinstance(options.tensorboard, Path) and event_files(options.tensorboard):
        before = None if folder is None else folder.config().get("options", {}).get("tensorboard")
        if before != str(options.tensorboard):
            raise RunExistsError(
                f"'{options.tensorboard}' holds events of another training, with whose curves these would mix; choose "
                "another folder for --tensorboard, or delete it"
            )


def make_board(options: FitOptions, folder: RunFolder, *, new: bool) -> tuple[keras.callbacks.Callback, ...]:
    """The callback that `options` ask for, if any.

    Args:
        options: of the training, which `check_board` was given.
        folder: of the run.
        new: whether the training starts at its beginning; events that it wrote when it was begun before are removed.
    """
    if not options.tensorboard:
        return ()
    where = options.tensorboard if isinstance(options.tensorboard, Path) else folder.path / TENSORBOARD
    for path in event_files(where) if new else ():
        path.unlink()
    return (EpochBoard(where),)
