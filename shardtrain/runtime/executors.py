"""Run a function over tasks in this thread, in a thread pool or in spawned processes; results keep the tasks' order.

Work is a top-level function and a picklable task, so the result does not depend on where it runs. Processes are
spawned, not forked, because forking a process with threads or mapped HDF5 files is not safe. Starting one costs about
a second, so a pool is started once and kept for all passes. Threads are for work that holds a model, which cannot be
pickled: kernels, numpy's sorts and TensorFlow run without the GIL.
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
from shardtrain.runtime.interrupts import SpawnContext

Task = TypeVar("Task")
Result = TypeVar("Result")


class Executor(Protocol):
    """Run a function over tasks; a context manager."""

    workers: int

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order; the first exception is raised and ends the iteration."""
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Serial:
    """Run tasks one after the other in this thread."""

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
    """Run tasks in `workers` threads of this process, at most two pending per worker, which bounds memory."""

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
    """Run tasks in `workers` spawned processes, at most two pending per worker, which bounds memory.

    The processes start immediately and call `prepare` first, so that its imports are done before the first task.
    """

    def __init__(self, workers: int, *, prepare: Callable[[], None]) -> None:
        self.workers = workers
        self._pool = ProcessPoolExecutor(
            workers,
            mp_context=SpawnContext(),
            initializer=_prepare_worker,
            initargs=(prepare,),
        )
        self._pool.submit(_no_op)  # the first task starts all processes

    def map(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order.

        Raises:
            ShardtrainError: a worker process died. Exceptions of `function` are raised unchanged.
        """
        try:
            yield from _bounded(self._pool, function, tasks, 2 * self.workers)
        except BrokenProcessPool as error:
            raise ShardtrainError(
                "a worker process died, probably out of memory; run the same command again with fewer --workers or "
                "more memory"
            ) from error

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


def _bounded(
    pool: Pool, function: Callable[[Task], Result], tasks: Sequence[Task], max_pending: int
) -> Iterator[Result]:
    """Yield the results of a pool in order; at most `max_pending` tasks are submitted and not yet yielded."""
    pending: list[Future[Result]] = []
    try:
        for task in tasks:
            pending.append(pool.submit(function, task))
            if len(pending) >= max_pending:
                yield pending.pop(0).result()
        while pending:
            yield pending.pop(0).result()
    finally:
        for future in pending:
            future.cancel()


def _no_op() -> None:
    pass


def _prepare_worker(prepare: Callable[[], None]) -> None:
    """Ignore Ctrl-C, which reaches the whole process group and is the parent's to handle; exit with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    prepare()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent cannot shut its workers down; they would wait for tasks forever
