"""Run tasks on an executor that a function of the user's returns, such as one of loky, mpi4py or parsl."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures import Executor as FuturesExecutor
from functools import reduce
from typing import Any

from shardtrain.errors import ExecutorError, UsageError
from shardtrain.runtime.engines.engine import Engine, packed
from shardtrain.runtime.engines.work import call_packed
from shardtrain.runtime.executors import start_together

_SIZES = ("max_workers", "_max_workers", "num_workers")  # where executors say how many work
_MOST_ASKED = 1024  # calls for all workers, of an executor that says no true number


class GivenEngine(Engine):
    """An executor of the user's.

    Args:
        name: MODULE:CALLABLE; the module may lie in the current folder.
        workers: how many tasks it runs at once; None: as many as it says itself.
    """

    def __init__(self, name: str, workers: int | None) -> None:
        self.kind = name
        self._executor = _called(name)
        if isinstance(self._executor, ProcessPoolExecutor):
            start_together(self._executor)
        said = next((size for each in _SIZES if isinstance(size := getattr(self._executor, each, None), int)), None)
        if not (workers or said):
            self.shutdown()
            raise UsageError(
                f"--executor {name}: this executor does not say how many tasks it runs at once; give --workers N"
            )
        self._slots = said or workers or 1
        self._most = workers or self._slots

    @property
    def slots(self) -> int:
        """As many as it says, or as `--workers` says."""
        return self._slots

    @property
    def tasks_per_process(self) -> int:
        """Of an executor of threads, all that run at once."""
        return min(self._slots, self._most) if isinstance(self._executor, ThreadPoolExecutor) else 1

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        """Submit a call.

        Raises:
            ExecutorError: the executor was shut down before, as one that is made only once.
        """
        try:
            return self._executor.submit(call_packed, packed(function, arguments))
        except BrokenExecutor:
            raise
        except RuntimeError as error:
            raise ExecutorError(
                f"--executor {self.kind}: this executor takes no task ({error}); return a new one from each call"
            ) from error

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> Sequence[Future[Any]]:
        """Submit as many calls as it runs at once, or `_MOST_ASKED`; which worker takes which is its own choice."""
        return [self.submit(function, *arguments) for _ in range(min(self.slots, _MOST_ASKED))]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down."""
        self._executor.shutdown(wait)


def _called(name: str) -> FuturesExecutor:
    """Import the function and call it.

    Raises:
        UsageError: it cannot be imported, fails, or does not return an executor.
    """
    module, _, path = name.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        function = reduce(getattr, path.split("."), importlib.import_module(module))
    except (ImportError, AttributeError) as error:
        raise UsageError(f"--executor {name} cannot be imported ({error})") from error
    except Exception as error:
        raise UsageError(f"--executor {name} cannot be imported ({type(error).__name__}: {error})") from error
    try:
        made = function() if callable(function) else function
    except Exception as error:
        raise UsageError(f"--executor {name}: the call failed ({type(error).__name__}: {error})") from error
    if not isinstance(made, FuturesExecutor):
        raise UsageError(f"--executor {name} returns a {type(made).__name__}, which is no concurrent.futures.Executor")
    return made
