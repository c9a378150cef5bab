"""Run tasks on a worker of any engine: check what it has, get the function of a pass, and measure memory.

A task carries the name and the SHA-256 of a file with the function of its pass, which holds constants such as the
vocabulary; each worker reads it once per pass. The digest came with the task, so no file that somebody else put there
is ever unpickled. Without the file a task does not begin: an attempt that waited in a queue longer than its driver
lived changes nothing any more.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from shardtrain.errors import ExecutorError
from shardtrain.runtime.machine import cores, memory_bytes
from shardtrain.runtime.memory import PROGRAM_BYTES, MemoryMeter, anonymous_bytes
from shardtrain.runtime.process import own_process
from shardtrain.version import __version__

P = ParamSpec("P")
Made = TypeVar("Made")
Versions = tuple[tuple[str, str], ...]
_KEPT_FUNCTIONS = 2  # of the last passes: two drivers may share a worker


@dataclass(frozen=True)
class Answer:
    """The result of a task, and the peak of anonymous memory of its process meanwhile, in bytes."""

    result: Any
    peak_bytes: int


@dataclass(frozen=True)
class Call:
    """The function of a pass as tasks carry it; calling it with a task runs the task.

    Attributes:
        path: of the file that holds the function.
        digest: SHA-256 of the file.
        versions: of the driver.
        prepare: what a process does before its first task.
        owned: whether it may be tuned for that.
    """

    path: str
    digest: str
    versions: Versions
    prepare: Callable[[], None]
    owned: bool

    def __call__(self, task: Any) -> Answer:
        """Run a task.

        Raises:
            ExecutorError: this worker has other versions, or does not see the file.
        """
        check_versions(self.versions)
        if not os.path.exists(self.path):
            raise not_shared(self.path)
        prepare_once(self.prepare, self.owned)
        function = _function(self.path, self.digest)
        with _metered() as meter:
            result = function(task)
        return Answer(result, meter.peak_bytes)


@dataclass(frozen=True)
class WorkerFacts:
    """What a worker process says of itself.

    Attributes:
        host: name of its machine.
        process: its number there.
        cores: that it may run on.
        memory_bytes: that it can use.
        versions: see `versions`.
        sees: whether it sees the file that it was asked for.
    """

    host: str
    process: int
    cores: int
    memory_bytes: int
    versions: Versions
    sees: bool


def greet(path: str) -> WorkerFacts:
    """Describe this worker; `path` is a file that the driver wrote."""
    return WorkerFacts(
        host=host(),
        process=os.getpid(),
        cores=cores(),
        memory_bytes=memory_bytes(),
        versions=versions(),
        sees=os.path.exists(path),
    )


def host() -> str:
    """Return the name of this machine."""
    return socket.gethostname()


@lru_cache(maxsize=1)
def versions() -> Versions:
    """Return the versions that must be the same everywhere: they decide results, or how values are sent."""
    import numpy as np

    python = ".".join(platform.python_version_tuple()[:2])
    return ("shardtrain", __version__), ("Python", python), ("numpy", np.__version__)


def check_versions(expected: Versions, found: Versions | None = None, where: str | None = None) -> None:
    """Compare the versions of a worker with those of the driver; by default those of this process.

    Raises:
        ExecutorError: they differ.
    """
    found = versions() if found is None else found
    if found != expected:
        differ = [(a, b) for a, b in zip(found, expected, strict=True) if a != b]
        theirs, ours = (", ".join(f"{name} {number}" for name, number in pair) for pair in zip(*differ, strict=True))
        raise ExecutorError(
            f"a worker on {where or host()} has {theirs}, this command {ours}; install the same versions on all "
            "machines"
        )


def not_shared(path: str, where: str | None = None) -> ExecutorError:
    """Return the error for a worker that does not see a file of the driver."""
    return ExecutorError(
        f"a worker on {where or host()} does not see '{path}', which this command wrote; all workers must see the "
        "folders of the corpus and of the output under the same paths: use a folder that all machines share"
    )


def made_once(maxsize: int) -> Callable[[Callable[P, Made]], Callable[P, Made]]:
    """Decorate a function so that its last results are kept; threads that need the same one wait for it."""

    def decorate(function: Callable[P, Made]) -> Callable[P, Made]:
        lock, cached = threading.Lock(), lru_cache(maxsize=maxsize)(function)

        @wraps(function)
        def locked(*arguments: P.args, **keywords: P.kwargs) -> Made:
            with lock:
                return cached(*arguments, **keywords)  # type: ignore[arg-type]

        return locked

    return decorate


@made_once(maxsize=8)
def prepare_once(prepare: Callable[[], None], owned: bool) -> None:
    """Prepare this process, such as by compiling kernels, unless that was done; `owned`: it may be tuned as a whole."""
    if owned:
        own_process()
    prepare()


@made_once(maxsize=_KEPT_FUNCTIONS)
def _function(path: str, digest: str) -> Callable[[Any], Any]:
    """Read the function of a pass.

    Raises:
        ExecutorError: the file is not what the driver wrote.
    """
    try:
        content = Path(path).read_bytes()
    except FileNotFoundError:
        raise not_shared(path) from None
    if hashlib.sha256(content).hexdigest() != digest:
        raise ExecutorError(f"'{path}', as a worker on {host()} sees it, is not what this command wrote; run it again")
    function: Callable[[Any], Any] = pickle.loads(content)
    return function


@contextmanager
def _metered() -> Iterator[MemoryMeter]:
    """Measure the memory of this process beyond what it held before its first task."""
    with MemoryMeter(baseline_bytes=_baseline()) as meter:
        yield meter


@made_once(maxsize=1)
def _baseline() -> int:
    return max(0, anonymous_bytes(os.getpid()) - PROGRAM_BYTES)


def call_packed(content: bytes) -> Any:
    """Call a function that was packed with its arguments, so that no engine looks into them."""
    function, arguments = pickle.loads(content)
    return function(*arguments)
