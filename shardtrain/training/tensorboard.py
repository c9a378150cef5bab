"""Write TensorBoard events once per epoch with Keras' callback.

Keras' callback has hooks for every step even if it writes once per epoch, which would prevent several steps per call;
they are removed. `state` truncates events when training is resumed, so that each point is written exactly once.
"""

from __future__ import annotations

import keras

from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import RunFolder
from shardtrain.training.tensorboard_folder import events_folder


class EpochBoard(keras.callbacks.TensorBoard):
    """Keras' TensorBoard callback without its hooks per step, which write nothing here."""

    on_train_batch_begin = keras.callbacks.Callback.on_train_batch_begin
    on_train_batch_end = keras.callbacks.Callback.on_train_batch_end


def make_board(options: FitOptions, folder: RunFolder, *, new: bool) -> tuple[keras.callbacks.Callback, ...]:
    """Return the callback for `options`: one, or none without --tensorboard.

    Args:
        options: of the training, checked by `check_board`.
        folder: of the run.
        new: whether training starts from its beginning; events of an earlier start are removed.
    """
    where = events_folder(options, folder, new=new)
    return () if where is None else (EpochBoard(where),)
