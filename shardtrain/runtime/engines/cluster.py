"""Run passes on an engine: the executor of a job whose workers may be on other machines.

Before the first pass every worker is asked for its versions and for a file in the job's folder, and begins to compile
kernels. The function of a pass is pickled once, into that folder; its tasks name the file. Results come as they finish,
with the peak memory of their worker.
"""

from __future__ import annotations

import hashlib
import pickle
import secrets
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shardtrain.errors import ExecutorError, ShardtrainError, WorkerDiedError
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.engines.engine import Engine, as_ours
from shardtrain.runtime.engines.work import Call, WorkerFacts, check_versions, greet, not_shared, prepare_once, versions
from shardtrain.runtime.executors import Pool

Task = TypeVar("Task")
Result = TypeVar("Result")

_ALL = 0  # in place of a number of workers: as many as there are
_PREFIX = "pass-"  # of the files with the functions of passes


@dataclass(frozen=True)
class Greeted:
    """What the workers of an engine say at the start.

    Attributes:
        kind: of the engine.
        slots: tasks that they run at once.
        workers: what those say that were reached.
    """

    kind: str
    slots: int
    workers: tuple[WorkerFacts, ...]


class Cluster:
    """The executor of a job on an engine; a context manager.

    Args:
        start: makes the engine.
        folder: of the job, which all workers must see.
        most: tasks under way at once, at most; None: as many as the workers run at once.
        prepare: what a worker does before its first task.

    Attributes:
        engine: where tasks run.
        peak_bytes: the largest peak of a worker process that ran a task.
    """

    def __init__(
        self, start: Callable[[], Engine], folder: Path, *, most: int | None, prepare: Callable[[], None]
    ) -> None:
        self._start = start
        self._folder, self._most, self._prepare = folder, most, prepare
        self._pool = Pool(self._started, _ALL)
        self._warming: Sequence[Future[Any]] = ()
        self.peak_bytes = 0

    def _started(self, workers: int) -> Engine:
        """Return a new engine: the first, or another one for one whose workers died, of which fewer are used."""
        self.engine = self._start()
        self._most = self._most if workers == _ALL else workers
        return self.engine

    @property
    def workers(self) -> int:
        """How many tasks run at once."""
        return self._pool.workers

    def __enter__(self) -> Cluster:
        try:
            for left in self._folder.glob(f"{_PREFIX}*"):
                left.unlink(missing_ok=True)
            check(greeted(self.engine, self._folder), self._folder)
            self._resize()
            with suppress(BrokenExecutor):  # a worker has died since; the first task will find it
                self._warming = self.engine.everywhere(prepare_once, self._prepare, self.engine.owned)
        except BaseException:
            self.engine.shutdown()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        for future in self._warming:
            future.cancel()
        self._pool.__exit__(*reason)

    def _resize(self) -> None:
        """Let as many tasks be under way as the workers that there are now run at once."""
        self._pool.workers = max(1, min(self._most or self.engine.slots, self.engine.slots))

    def run(self, function: Callable[[Task], Result], tasks: Sequence[Task]) -> Iterator[tuple[int, Result]]:
        """Yield the index of each task with `function(task)`, as they finish; see `Executor.run`."""
        with self._sent(function) as call:
            for number, answer in self._pool.run(call, tasks):
                self.peak_bytes = max(self.peak_bytes, answer.peak_bytes)
                yield number, answer.result

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Yield `function(task)` for each task, in order."""
        with self._sent(function) as call:
            for answer in self._pool.map(call, tasks):
                self.peak_bytes = max(self.peak_bytes, answer.peak_bytes)
                yield answer.result

    @contextmanager
    def _sent(self, function: Callable[..., Any]) -> Iterator[Call]:
        """Write the function of a pass to the job's folder for the workers; it goes when the pass ends."""
        self._resize()
        content = pickle.dumps(function, protocol=pickle.HIGHEST_PROTOCOL)
        path = self._folder / f"{_PREFIX}{secrets.token_hex(8)}"
        with committed(path, synced=False) as file:
            file.write(content)
        try:
            yield Call(str(path), hashlib.sha256(content).hexdigest(), versions(), self._prepare, self.engine.owned)
        finally:
            path.unlink(missing_ok=True)


def greeted(engine: Engine, folder: Path) -> Greeted:
    """Ask every worker what it is, and whether it sees a file in a folder; one that dies before it answers is none.

    Raises:
        ExecutorError: one cannot answer, or all die before they do.
    """
    path = folder / f"{_PREFIX}{secrets.token_hex(8)}"
    workers: list[WorkerFacts] = []
    died = False
    with committed(path, synced=False) as file:
        file.write(b"")
    try:
        for future in engine.everywhere(greet, str(path)):
            died = True  # unless it answers
            with suppress(WorkerDiedError, BrokenExecutor, CancelledError):
                workers.append(_answer(engine, future))
    except BrokenExecutor:  # one died while others were still to be asked
        died = True
    finally:
        path.unlink(missing_ok=True)
    if died and not workers:
        raise ExecutorError(f"all workers of {engine.kind} died before they answered; check how they were started")
    return Greeted(engine.kind, engine.slots, tuple(workers))


def _answer(engine: Engine, future: Future[WorkerFacts]) -> WorkerFacts:
    try:
        return future.result()
    except (ShardtrainError, BrokenExecutor, CancelledError):
        raise
    except Exception as error:
        found = as_ours(error, engine.kind)
        if found is not error:
            raise found from error
        raise ExecutorError(
            f"a worker of {engine.kind} cannot run tasks ({type(error).__name__}: {error}); check how it was started"
        ) from error


def check(found: Greeted, folder: Path) -> None:
    """Check that a job can run on the workers.

    Raises:
        ExecutorError: there are none, they have other versions, or they do not share the folder.
    """
    if not found.workers:
        raise ExecutorError(f"{found.kind} has no worker; start some, and run the same command again")
    for worker in found.workers:
        check_versions(versions(), worker.versions, worker.host)
        if not worker.sees:
            raise not_shared(str(folder), worker.host)
