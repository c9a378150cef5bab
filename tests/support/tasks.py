"""Tasks for workers in other processes, in a module that such a process imports at once."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path


def nothing() -> None:
    """Prepare a worker."""


def square(number: int) -> int:
    return number * number


def slow_square(number: int) -> int:
    """Take long enough for the pool to learn of a death before the others have done all tasks."""
    time.sleep(0.4)
    return number * number


def die_once(task: tuple[Path, int]) -> int:
    """Die by SIGKILL, as the kernel kills for memory, the first time that the task runs."""
    folder, number = task
    if number % 5 == 2:
        try:
            (folder / str(number)).touch(exist_ok=False)
        except FileExistsError:
            return number
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_at_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_always(task: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_unless_there(task: Path) -> str:
    """Die by SIGKILL while the file is not there, and leave it."""
    if not task.exists():
        task.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task.name


def straggle(task: tuple[int, float]) -> int:
    """Take so many seconds."""
    time.sleep(task[1])
    return task[0]


def allocate(num_bytes: int) -> int:
    """Hold so much memory for a moment."""
    held = bytearray(num_bytes)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    time.sleep(0.2)
    return len(held)


class Constants:
    """The function of a pass: it counts how often a process reads it, and how often it runs."""

    def __init__(self, folder: Path, size: int = 1 << 20) -> None:
        self.folder, self.content = folder, os.urandom(size)

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        (self.folder / f"read-{os.getpid()}-{time.monotonic_ns()}").touch()

    def __call__(self, task: int) -> int:
        time.sleep(0.01)
        (self.folder / f"ran-{task}").touch()
        return task * len(self.content)
