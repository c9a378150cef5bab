"""Find, measure and cut the files of TensorBoard events in a folder, and refuse one that holds another training's."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from shardtrain.errors import MissingExtraError, RunExistsError
from shardtrain.runtime.progress import say
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import TENSORBOARD, RunFolder


def event_files(folder: Path) -> list[Path]:
    """List the event files of a training in a folder."""
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


def events_folder(options: FitOptions, folder: RunFolder, *, new: bool) -> Path | None:
    """Return where a training writes its events; None without --tensorboard.

    Args:
        options: of the training, checked by `check_board`.
        folder: of the run.
        new: whether training starts from its beginning; events of an earlier start are removed.
    """
    if not options.tensorboard:
        return None
    where = options.tensorboard if isinstance(options.tensorboard, Path) else folder.path / TENSORBOARD
    for path in event_files(where) if new else ():
        path.unlink()
    return where


def event_bytes(folder: Path) -> dict[str, int]:
    """Return the sizes of the event files by path relative to their folder."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in event_files(folder)}


def cut_events(folder: Path, saved: Mapping[str, int]) -> None:
    """Remove the events written after `event_bytes` returned `saved`."""
    for path in event_files(folder):
        name = str(path.relative_to(folder))
        if name not in saved:
            path.unlink()
        elif path.stat().st_size > saved[name]:
            os.truncate(path, saved[name])
    if lost := [name for name, size in saved.items() if not _holds(folder / name, size)]:
        say(f"'{folder / lost[0]}' lacks events that were logged before the interruption")


def _holds(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size >= size
