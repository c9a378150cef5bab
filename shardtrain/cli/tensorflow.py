"""Import TensorFlow for the commands that need it, without the messages that its libraries print at start."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.runtime.backend import check_backend
from shardtrain.runtime.terminal import captured_stderr
from shardtrain.training.distribution.cluster import this_cluster

if TYPE_CHECKING:
    from shardtrain.inference.run import Run
    from shardtrain.loader.info import DatasetInfo
    from shardtrain.training.options import FitOptions


def load_for(run: Run, module: str | None) -> None:
    """Import TensorFlow if the model of a run needs Keras, or a user's module is given, which is imported then."""
    if module is not None or run.needs_keras:
        load_tensorflow(module)


def load_tensorflow(module: str | None) -> None:
    """Import TensorFlow and then, if given, the user's module."""
    with quiet_tensorflow():
        from shardtrain.models.user_models import import_module
    if module is not None:
        import_module(module)


def check_if_keras_is_asked_for(options: FitOptions) -> None:
    """Refuse another backend for Keras before shards are opened, where --engine keras is given.

    Raises:
        UsageError: another backend than TensorFlow is chosen.
    """
    if options.engine == "keras":
        check_backend()


def load_for_training(options: FitOptions, description: DatasetInfo, out: Path | str | None = None) -> None:
    """Import TensorFlow if the training, or an interrupted one in the folder `out`, needs it.

    Raises:
        UsageError: options that do not fit together, or another backend is chosen for Keras.
    """
    from shardtrain.models.names import model_name
    from shardtrain.training.recipes import choose
    from shardtrain.training.resume import as_begun
    from shardtrain.training.run_folder import RunFolder

    if out is not None:
        options = as_begun(options, RunFolder(Path(out)))
    chosen, _ = choose(options, model_name(options.model, description.kind), description)
    if chosen.engine == "keras":
        load_tensorflow(None)


@contextlib.contextmanager
def quiet_tensorflow() -> Iterator[None]:
    """Import TensorFlow and run the block without the messages that its libraries print at start.

    They write to file descriptor 2 before they read a log level, so the descriptor is redirected to a scratch file;
    if the block raises an error, its contents are printed. With TF_CPP_MIN_LOG_LEVEL set nothing is redirected.

    Raises:
        UsageError: another backend is chosen for Keras.
    """
    check_backend()
    if "TF_CPP_MIN_LOG_LEVEL" in os.environ or "tensorflow" in sys.modules:
        yield
        return
    alone = this_cluster().size == 1
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2" if alone else "3"  # errors; none where a lost worker would fill the screen
    with captured_stderr():
        with _uncollected():
            import tensorflow as tf

        if alone:  # several workers start TensorFlow together
            tf.config.list_logical_devices()  # the search for devices prints as well
        yield


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Run the block without garbage collection, and let later ones pass over what it made.

    Python would look through the modules that are imported again and again, for a fifth of the time that they take.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()
