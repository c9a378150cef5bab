"""Define what an engine is, and turn what happens in it into futures of `concurrent.futures`."""

from __future__ import annotations

import pickle
import threading
from abc import abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future
from typing import Any

from shardtrain.errors import ExecutorError, WorkerDiedError


class Engine(FuturesExecutor):
    """An executor whose workers others start.

    Attributes:
        kind: for messages and records: "ray", "dask" or MODULE:CALLABLE.
        owned: whether its processes run nothing but tasks of ours, so that they may be tuned as a whole.
    """

    kind: str
    owned = False

    @property
    @abstractmethod
    def slots(self) -> int:
        """How many tasks all workers together run at once, now."""

    @property
    def tasks_per_process(self) -> int:
        """How many tasks one process runs at once."""
        return 1

    @property
    def worker_bytes(self) -> int | None:
        """Memory that the engine lets the smallest worker have; None if it sets no limit."""
        return None

    @abstractmethod
    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> Sequence[Future[Any]]:
        """Call a function once on every worker or every machine, as well as the engine can."""


class Answered(Future[Any]):
    """A future of a task elsewhere; it can be cancelled while the task runs, too, and then calls `on_cancel`."""

    def __init__(self) -> None:
        super().__init__()
        self.on_cancel: Callable[[], object] = lambda: None
        self._deciding = threading.RLock()

    def cancel(self) -> bool:
        """Cancel the task, unless it has ended."""
        with self._deciding:
            if self.done():
                return self.cancelled()
            super().cancel()
            self.set_running_or_notify_cancel()
        self.on_cancel()
        return True

    def answer(self, outcome: Callable[[], Any]) -> None:
        """Set the result to that of `outcome`, or the exception to what it raises; no effect once cancelled."""
        try:
            result, error = outcome(), None
        except BaseException as raised:
            result, error = None, raised
        with self._deciding:
            if self.done():
                return
            self.set_running_or_notify_cancel()
            if error is None:
                self.set_result(result)
            else:
                self.set_exception(error)


def packed(function: Callable[..., Any], arguments: Sequence[Any]) -> bytes:
    """Pack a call for `work.call_packed`."""
    return pickle.dumps((function, tuple(arguments)), protocol=pickle.HIGHEST_PROTOCOL)


def died(kind: str, reason: str) -> WorkerDiedError:
    """Return the error for a task whose workers died as often as the engine runs it again."""
    return WorkerDiedError(
        f"workers of {kind} died again and again with the same task, probably out of memory ({reason}); finished work "
        "is kept: run the same command again with fewer --workers or more memory"
    )


def lost(kind: str, reason: str) -> WorkerDiedError:
    """Return the error for an engine that is gone."""
    return WorkerDiedError(
        f"the connection to {kind} was lost ({reason}); finished work is kept: run the same command again, with this "
        "or another --executor"
    )


def as_ours(error: BaseException, kind: str) -> BaseException:
    """Return the error to report for what a task raised: a worker may lack the package."""
    ours = isinstance(error, ImportError) and (error.name or "").startswith("shardtrain")
    if ours or (isinstance(error, AttributeError) and "<module 'shardtrain" in str(error)):  # pickle's
        return ExecutorError(
            f"a worker of {kind} has no shardtrain, or another version of it ({error}); install the same versions of "
            "shardtrain, Python and numpy on all machines"
        )
    return error
