"""Write TensorBoard events once per epoch with Keras' callback, and refuse a folder that holds another training's.

Keras' callback has hooks for every step even if it writes once per epoch, which would prevent several steps per call;
they are removed. `state` truncates events when training is resumed, so that each point is written exactly once.
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
    """Keras' TensorBoard callback without its hooks per step, which write nothing here."""

    on_train_batch_begin = keras.callbacks.Callback.on_train_batch_begin
    on_train_batch_end = keras.callbacks.Callback.on_train_batch_end


def check_board(options: FitOptions, folder: RunFolder | None) -> None:
    """Check, before anything is written, that tensorboard is installed and its folder holds no other training's events.

    Args:
        options: of the training.
        folder: of its run, which may hold an interrupted run or one to be replaced.

    Raises:
        MissingExtraError: tensorboard is not installed.
        RunExistsError: the folder holds events of another training.
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
                f"'{options.tensorboard}' holds events of another training, whose curves would be mixed with this "
                "one's; choose another folder for --tensorboard, or delete it"
            )


def make_board(options: FitOptions, folder: RunFolder, *, new: bool) -> tuple[keras.callbacks.Callback, ...]:
    """Return the callback for `options`: one, or none without --tensorboard.

    Args:
        options: of the training, checked by `check_board`.
        folder: of the run.
        new: whether training starts from its beginning; events of an earlier start are removed.
    """
    if not options.tensorboard:
        return ()
    where = options.tensorboard if isinstance(options.tensorboard, Path) else folder.path / TENSORBOARD
    for path in event_files(where) if new else ():
        path.unlink()
    return (EpochBoard(where),)
