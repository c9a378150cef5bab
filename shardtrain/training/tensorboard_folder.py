"""Find the files of TensorBoard events in a folder, and refuse a folder that holds another training's."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from shardtrain.errors import MissingExtraError, RunExistsError
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import RunFolder


def event_files(folder: Path) -> list[Path]:
    """List the event files that Keras' TensorBoard callback wrote to a folder."""
    return sorted(path for split in ("train", "validation") for path in (folder / split).glob("events.out.tfevents.*"))


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
