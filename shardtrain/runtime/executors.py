"""Run a function over tasks in this thread, in a thread pool or in spawned processes; results come as they finish.

Work is a top-level function and a picklable task, so the result does not depend on where it runs. Processes are
spawned, not forked, because forking a process with threads or mapped HDF5 files is not safe. Starting one costs about
a second, so a pool is started once and kept for all passes. Threads are for work that holds a model, which cannot be
pickled: kernels, numpy's sorts and TensorFlow run without the GIL.

A pool is any executor of `concurrent.futures`. If its workers die, it is started again with one worker fewer, and the
tasks that were lost run again: a task is a pure function that commits its files, so running it twice changes nothing.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from multiprocessing import connection
from types import TracebackType
from typing import Any, Generic, Protocol, TypeVar

from shardtrain.errors import WorkerDiedError
from shardtrain.runtime.interrupts import SpawnContext, uninterrupted
from shardtrain.runtime.progress import warn

Task = TypeVar("Task")
Result = TypeVar("Result")

MAX_DEATHS = 3  # times that workers may die with no task finished in between
_ANSWER_SECONDS = 2.0  # after which tasks are lost that an executor with a dead worker has not called failed


class Executor(Protocol):
    """Run a function over tasks; a context manager."""

    @property
    def workers(self) -> int:
        """How many tasks run at once."""
        ...

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield the index of each task with `function(task)`, as they finish.

        If tasks fail, those that run already are awaited and yielded; then the exception of the first in order is
        raised, whichever failed first: an error does not depend on the number of workers.
        """
        ...

    def __enter__(self) -> Executor: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Serial:
    """Run tasks one after the other in this thread."""

    workers = 1

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield the index of each task with `function(task)`, in order."""
        for number, task in enumerate(tasks):
            yield number, function(task)

    def __enter__(self) -> Serial:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class Pool:
    """Run tasks in an executor of `concurrent.futures`, at most two pending per worker, which bounds memory.

    Args:
        start: makes the executor with a number of workers.
        workers: at first; one fewer each time that workers die, but at least one.
    """

    def __init__(self, start: Callable[[int], FuturesExecutor], workers: int) -> None:
        self.workers = workers
        self._start = start
        self._pool = start(workers)
        self._deaths = 0  # since a task finished

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield the index of each task with `function(task)`, as they finish; see `Executor.run`.

        Raises:
            WorkerDiedError: workers died `MAX_DEATHS` times with no task finished in between.
        """
        state: _Running[Result] = _Running(waiting=_Waiting(len(tasks)))
        try:
            while state.unfinished:
                self._submit(state, function, tasks)
                for number, result in state.collect(self._died):
                    self._deaths = 0
                    yield number, result
                if state.lost and not state.pending:
                    self._start_again()
                    state.wait_again()
        finally:
            state.cancel(after=-1)
        state.raise_failure()

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order: for results that go on as a stream and not on record.

        Raises:
            WorkerDiedError: workers died `MAX_DEATHS` times with no task finished in between.
        """
        left = iter(tasks)
        begun: deque[Task] = deque()  # in order
        pending: deque[Future[Result]] = deque()  # of the first of them
        try:
            while True:
                begun.extend(islice(left, max(0, 2 * self.workers - len(begun))))
                if not begun:
                    return
                try:
                    pending.extend(self._pool.submit(function, task) for task in islice(begun, len(pending), None))
                    result = self._result(pending[0])
                except (BrokenExecutor, CancelledError):
                    pending.clear()
                    self._start_again()
                    continue
                self._deaths = 0
                begun.popleft()
                pending.popleft()
                yield result
        finally:
            for future in pending:
                future.cancel()

    def _result(self, future: Future[Result]) -> Result:
        """Wait for a result; a task that is not answered after a death counts as cancelled, see `_Running.collect`."""
        while not wait([future], timeout=_ANSWER_SECONDS).done:
            if self._died():
                raise CancelledError
        return future.result()

    def _submit(self, state: _Running[Result], function: Callable[[Task], Result], tasks: Sequence[Task]) -> None:
        """Submit waiting tasks, in order."""
        while state.may_begin and not state.lost and len(state.pending) < 2 * self.workers:
            number = state.waiting.pop()
            try:
                state.pending[self._pool.submit(function, tasks[number])] = number
            except BrokenExecutor:
                state.lost.append(number)

    def _died(self) -> bool:
        """Return whether a worker of an executor that can tell it has died."""
        return bool(getattr(self._pool, "died", False))

    def _start_again(self) -> None:
        """Replace an executor whose workers died.

        Raises:
            WorkerDiedError: this happened too often.
        """
        self._deaths += 1
        disconnected = getattr(self._pool, "disconnected", False)
        self._pool.shutdown(wait=True, cancel_futures=True)
        if self._deaths == MAX_DEATHS:
            raise WorkerDiedError(
                f"worker processes died {MAX_DEATHS} times in a row, probably out of memory; finished work is kept: "
                "run the same command again with fewer --workers or more memory"
            )
        if disconnected:
            warn("the connection to the workers was lost; their tasks are run again when it is there again")
        else:
            self.workers = max(1, self.workers - 1)
            warn(
                f"a worker process died, probably out of memory; its tasks are run again with {self.workers} "
                f"worker{'s' * (self.workers != 1)}"
            )
        self._pool = self._start(self.workers)

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)


@dataclass
class _Waiting:
    """The tasks that wait to be submitted, in order: those from `begun` to `number`, and before them some `again`."""

    number: int
    begun: int = 0
    again: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.again) or self.begun < self.number

    @property
    def first(self) -> int:
        """The first task that waits."""
        return self.again[0] if self.again else self.begun

    def pop(self) -> int:
        """Return the first task, which then waits no more."""
        if self.again:
            return self.again.pop(0)
        self.begun += 1
        return self.begun - 1


@dataclass
class _Running(Generic[Result]):
    """The tasks of a call of `Pool.run`, by index.

    Attributes:
        waiting: to be submitted, in order.
        pending: submitted and not finished, by future.
        failures: the exceptions of tasks.
        lost: tasks whose worker died.
    """

    waiting: _Waiting
    pending: dict[Future[Result], int] = field(default_factory=dict)
    failures: dict[int, BaseException] = field(default_factory=dict)
    lost: list[int] = field(default_factory=list)

    @property
    def unfinished(self) -> bool:
        """Whether there is something to wait for or to submit."""
        return bool(self.pending or self.lost or self.may_begin)

    @property
    def may_begin(self) -> bool:
        """Whether a task waits that decides the outcome: after a failure only those before it do."""
        return bool(self.waiting) and self.waiting.first < min(self.failures, default=self.waiting.first + 1)

    def collect(self, died: Callable[[], bool]) -> Iterator[tuple[int, Result]]:
        """Wait until a submitted task has ended, and yield the results of all that have; `died`: whether a worker has.

        An executor may leave a task unanswered that is submitted while a worker dies (CPython, gh-109047).
        """
        ended = wait(self.pending, timeout=_ANSWER_SECONDS, return_when=FIRST_COMPLETED).done
        if not ended and died():
            self.lost += self.pending.values()
            self.pending.clear()
        for future in ended:
            number = self.pending.pop(future)
            error = CancelledError() if future.cancelled() else future.exception()
            if isinstance(error, BrokenExecutor):
                self.lost.append(number)
            elif error is None:
                yield number, future.result()
            elif not isinstance(error, CancelledError):
                self.failures[number] = error
                self.cancel(after=number)
            elif number < min(self.failures, default=number + 1):  # by the executor, not by this pool
                self.lost.append(number)

    def wait_again(self) -> None:
        """Let the lost tasks wait, in order."""
        self.waiting.again = sorted([*self.lost, *self.waiting.again])
        self.lost = []

    def cancel(self, *, after: int) -> None:
        """Cancel what has not begun of the tasks after one."""
        for future, number in self.pending.items():
            if number > after:
                future.cancel()

    def raise_failure(self) -> None:
        """Raise the exception of the first task that failed, in the order of tasks."""
        if self.failures:
            raise self.failures[min(self.failures)]


def threads(workers: int) -> Pool:
    """Return a pool of threads of this process."""
    return Pool(partial(ThreadPoolExecutor, thread_name_prefix="shardtrain-worker"), workers)


def processes(workers: int, *, prepare: Callable[[], None]) -> Pool:
    """Return a pool of spawned processes; each calls `prepare` first, so that imports are done before the first task.

    The processes start immediately.
    """
    return Pool(partial(_Processes, prepare=prepare), workers)


def start_together(executor: ProcessPoolExecutor) -> None:
    """Let an executor start all its processes with its first task, before the thread that watches them.

    `ProcessPoolExecutor` starts spawned processes one by one, with tasks, while a thread of it watches those that run.
    If one dies meanwhile, the thread may fail, or wait for the one that is being started without ever ending it. Forked
    ones it does start together. An executor that has begun is left as it is.
    """
    if not executor._processes:
        vars(executor)["_safe_to_dynamically_spawn_children"] = False  # which Python 3.11.4 to 3.13 looks at


class _Processes(ProcessPoolExecutor):
    """A pool of spawned processes, all started at once, that can be shut down whenever one of them dies."""

    def __init__(self, workers: int, prepare: Callable[[], None]) -> None:
        self._context = SpawnContext()
        with uninterrupted():  # a pool that is half started cannot be shut down
            super().__init__(workers, self._context, _prepare_worker, (prepare,))
            start_together(self)
            with contextlib.suppress(BrokenExecutor):  # the first task will find it
                for _ in range(workers):  # elsewhere each starts a process, as none is idle
                    self.submit(_no_op)

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        """Submit a call, which may start a process.

        Raises:
            BrokenProcessPool: a process has died; what the executor raises while it ends the others may be anything.
        """
        try:
            return super().submit(function, *arguments, **keywords)
        except Exception as error:
            if isinstance(error, BrokenExecutor) or not self.died:
                raise
            raise BrokenProcessPool(f"a worker process died: {error}") from error

    @property
    def died(self) -> bool:
        """Whether a process has ended, which none does before the pool is shut down."""
        return bool(connection.wait([each.sentinel for each in self._context.made if each.pid is not None], 0))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes: after their tasks, or at once if one has died."""
        if self.died:
            for each in self._context.made:
                if each.pid is not None:
                    each.kill()
        super().shutdown(wait, cancel_futures=cancel_futures)


def _no_op() -> None:
    pass


def _prepare_worker(prepare: Callable[[], None]) -> None:
    """Ignore Ctrl-C, which reaches the whole process group and is the parent's to handle; exit with the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    with contextlib.suppress(Exception):  # what fails here fails in the first task, where it is reported
        prepare()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)  # a killed parent cannot shut its workers down; they would wait for tasks forever
