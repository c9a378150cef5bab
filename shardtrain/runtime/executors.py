"""Where units of work run: in this thread, in threads, or in spawned processes. Results come in the tasks' order.

Work is a top-level function and a picklable task, so where it runs cannot matter. Processes are spawned, not forked:
a fork of a process that holds threads or mapped HDF5 files is not safe. Starting one costs about a second, so a
pool is started for real work only and kept for all passes. Threads are for work that holds a model, which cannot be
sent to a process: kernels, numpy's sorts and TensorFlow run without the GIL.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Protocol, TypeVar

from shardtrain.errors import ShardtrainError

Task = TypeVar("Task")
Result = TypeVar("Result")


class Executor(Protocol):
    """Runs a function over tasks; a context manager."""

    workers: int

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order; the first failure is raised and ends the work."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Serial:
    """One task after the other in this process."""

    workers = 1

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order."""
        for task in tasks:
            yield function(task)

    def __enter__(self) -> Serial:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Threads:
    """Tasks in `workers` threads of this process, at most two a worker under way, so that memory stays bounded."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="shardtrain-worker")

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order."""
        return _bounded(self._pool, function, tasks, 2 * self.workers)

    def __enter__(self) -> Threads:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


class Processes:
    """Tasks in `workers` spawned processes, at most two a worker under way, so that memory stays bounded.

    The processes are started at once, and each calls `prepare` first: what it loads is ready when work comes.
    """

    def __init__(self, workers: int, *, prepare: Callable[[], None]) -> None:
        self.workers = workers
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=multiprocessing.get_context("spawn"),
            initializer=_prepare_worker,
            initargs=(prepare,),
        )
        self._pool.submit(_nothing)  # spawned processes start with the first task, all of them

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order.

        Raises:
            ShardtrainError: a worker died; what `function` raised is raised as it is.
        """
        try:
            yield from _bounded(self._pool, function, tasks, 2 * self.workers)
        except BrokenProcessPool as error:
            raise ShardtrainError(
                "a worker process died, most likely killed for want of memory; run the same command again, "
                "with fewer --workers or more memory"
            ) from error

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _bounded(
    pool: Pool, function: Callable[[Task], Result], tasks: Sequence[Task], most: int
) -> Iterator[Result]:  # fmt: skip
    """The results of a pool in order, at most so many of them under way or waiting to be taken."""
    waiting: list[Future[Result]] = []
    try:
        for task in tasks:
            waiting.append(pool.submit(function, task))
            if len(waiting) >= most:
                yield waiting.pop(0).result()
        while waiting:
            yield waiting.pop(0).result()
    finally:
        for future in waiting:
            future.cancel()


def _nothing() -> None:
    pass


def _prepare_worker(prepare: Callable[[], None]) -> None:
    """Leave Ctrl-C, which reaches the whole process group, to the parent; end when the parent ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    prepare()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent cannot tell its workers; they would wait for tasks for ever
