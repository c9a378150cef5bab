"""Run tasks on the workers of a Dask scheduler.

Dask itself runs the tasks of a worker that dies elsewhere, as often as its setting
`distributed.scheduler.allowed-failures` says. A task that fails is not run again: it would fail again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Any

from shardtrain.errors import ExecutorError, MissingExtraError
from shardtrain.runtime.engines.engine import Answered, Engine, as_ours, died, lost, packed
from shardtrain.runtime.engines.names import DASK
from shardtrain.runtime.engines.work import call_packed
from shardtrain.runtime.progress import say
from shardtrain.runtime.schema import Fields, Text, check, parse_json

_CONNECT_SECONDS = 30
_SILENT_SECONDS = 2  # of waiting for it
_POLL_SECONDS = 0.1  # for the file of a scheduler that starts
_SCHEDULER_FILE = Fields({"address": Text(".+", "an address")}, others=True)
_FETCH_SECONDS = 30  # for a result, once its task has ended


@contextlib.contextmanager
def _told(message: str) -> Iterator[None]:
    """Say what the block waits for if it takes long."""
    timer = threading.Timer(_SILENT_SECONDS, say, [message])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class DaskEngine(Engine):
    """The workers of a Dask scheduler that runs already.

    Args:
        address: of the scheduler, such as tcp://HOST:8786, or its file, whose name ends in .json.
    """

    kind = DASK

    def __init__(self, address: str) -> None:
        try:
            import distributed
        except ImportError as error:
            raise MissingExtraError(
                f"--executor {DASK}:{address} needs the package distributed; install it with `pip install "
                "'shardtrain[dask]'`, here and on all workers"
            ) from error
        self._log = logging.getLogger("distributed.client")  # says with a traceback what we say in a line
        self._level = self._log.level
        self._log.setLevel(logging.CRITICAL)
        try:
            with _told(f"waiting for the Dask scheduler at {address}, up to {_CONNECT_SECONDS} s"):
                self._client = distributed.Client(
                    _address_in(Path(address)) if address.endswith(".json") else address,
                    timeout=_CONNECT_SECONDS,
                    set_as_default=False,
                    name="shardtrain",
                )
        except (OSError, ValueError) as error:  # a TimeoutError is an OSError
            raise ExecutorError(
                f"no Dask scheduler answers at '{address}' ({error}); start it with `dask scheduler`, or check the "
                "address"
            ) from error
        if not self._workers:
            say(f"waiting for a worker of the Dask scheduler at {address}")
            self._client.wait_for_workers(1)

    @property
    def _workers(self) -> dict[str, Any]:
        """The workers, by address, as the scheduler knows them now.

        The scheduler itself is asked: what a client keeps of it, and `scheduler_info` returns, may be replaced by a
        version without workers in between.

        Raises:
            WorkerDiedError: the scheduler is gone.
        """
        try:
            found: dict[str, Any] = self._client.sync(self._client.scheduler.identity)["workers"]
        except (OSError, AttributeError) as error:  # without a connection there is no `scheduler`
            raise lost(DASK, "its scheduler does not answer") from error
        return found

    @property
    def disconnected(self) -> bool:
        """Whether the connection to the scheduler is lost."""
        return bool(self._client.status != "running")

    @property
    def slots(self) -> int:
        """Threads of all workers."""
        return sum(worker["nthreads"] for worker in self._workers.values())

    @property
    def tasks_per_process(self) -> int:
        """Threads of the worker that has most."""
        return max((worker["nthreads"] for worker in self._workers.values()), default=1)

    @property
    def worker_bytes(self) -> int | None:
        """Least memory limit of a worker."""
        return min(
            (worker["memory_limit"] for worker in self._workers.values() if worker["memory_limit"]), default=None
        )

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        """Submit a call to any worker."""
        return self._submit(packed(function, arguments))

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> Sequence[Future[Any]]:
        """Submit a call to each worker."""
        content = packed(function, arguments)
        return [self._submit(content, workers=[address]) for address in self._workers]

    def _submit(self, content: bytes, **where: Any) -> Future[Any]:
        ours = Answered()
        self._client.loop.add_callback(self._follow, ours, self._begin(ours, content, where), content, where)
        return ours

    def _begin(self, ours: Answered, content: bytes, where: Mapping[str, Any]) -> Any:
        """Submit an attempt at a task."""
        theirs = self._client.submit(call_packed, content, pure=False, **where)
        ours.on_cancel = partial(_cancel, theirs)
        return theirs

    async def _follow(self, ours: Answered, theirs: Any, content: bytes, where: Mapping[str, Any]) -> None:
        """Answer a future with the outcome of its task.

        A result lies on its worker until it is fetched. If all workers die meanwhile, the scheduler may leave the task
        in its state "no-worker" even when there are new ones, so a result that does not come is computed again.
        """
        from distributed import wait

        while not ours.done():
            with contextlib.suppress(Exception):
                await wait([theirs])
            fetched = asyncio.ensure_future(_outcome(theirs))
            if (await asyncio.wait({fetched}, timeout=_FETCH_SECONDS))[0]:
                ours.answer(fetched.result)
                return
            fetched.cancel()
            theirs = self._begin(ours, content, where)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Disconnect; the scheduler drops what this client still waits for."""
        self._client.close()
        self._log.setLevel(self._level)


def _address_in(path: Path) -> str:
    """Return the address in a file that a scheduler writes when it has started, which is waited for.

    Raises:
        ExecutorError: there is none, or it is something else.
    """
    started = time.monotonic()
    while True:
        try:
            content = parse_json(path.read_bytes())
            check(content, _SCHEDULER_FILE)
            return str(content["address"])
        except FileNotFoundError as error:
            if time.monotonic() - started > _CONNECT_SECONDS:
                raise ExecutorError(
                    f"no Dask scheduler has written its file '{path}' within {_CONNECT_SECONDS} s; start it with "
                    "`dask scheduler --scheduler-file FILE`, or check the path"
                ) from error
        except (OSError, ValueError) as error:
            if time.monotonic() - started > _SILENT_SECONDS:  # it is not just being written
                raise ExecutorError(
                    f"'{path}' is no file of a Dask scheduler ({error}); name the one of `dask scheduler "
                    "--scheduler-file FILE`, or an address such as tcp://HOST:8786"
                ) from error
        time.sleep(_POLL_SECONDS)


def _cancel(theirs: Any) -> None:
    if theirs.client.status == "running":
        theirs.cancel(force=True)


async def _outcome(theirs: Any) -> Any:
    """Return the result of a task that has ended, or raise what ended it."""
    from distributed import KilledWorker

    if theirs.status == "cancelled":
        raise lost(DASK, "its scheduler dropped a task")
    try:
        return await theirs.result()
    except KilledWorker as error:
        raise died(DASK, f"the last one was {error.last_worker.address}") from None
    except Exception as error:
        raise as_ours(error, DASK) from None
