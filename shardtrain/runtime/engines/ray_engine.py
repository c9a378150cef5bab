"""Run tasks on a Ray cluster, each in a worker process of its own with one core and a share of its node's memory.

Ray itself runs the tasks of a worker or a node that dies elsewhere. A task that fails is not run again.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from shardtrain.errors import ExecutorError, MissingExtraError
from shardtrain.runtime.engines.engine import Answered, Engine, as_ours, died, packed
from shardtrain.runtime.engines.names import RAY
from shardtrain.runtime.engines.work import call_packed

_CONNECT_SECONDS = 10
_RETRIES = 3  # of a task whose worker or node died
_TOKEN = "; if the cluster asks for a token (`ray start` says so), set RAY_AUTH_MODE=token here, too"


class RayEngine(Engine):
    """The nodes of a Ray cluster.

    Args:
        address: as `ray.init` takes it; empty: RAY_ADDRESS, a cluster that runs on this machine, or a new one here.
        memory_limit: bytes that each task reserves of its node's memory; 0: none.
    """

    kind = RAY
    owned = True

    def __init__(self, address: str, memory_limit: int) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
        except ImportError as error:
            raise MissingExtraError(
                f"--executor {RAY} needs the package ray; install it with `pip install 'shardtrain[ray]'`, here and on "
                "all nodes"
            ) from error
        self._ray = ray
        self._ours = not ray.is_initialized()
        if self._ours:
            named, noted = address or os.environ.get("RAY_ADDRESS", ""), ""
            try:
                noted = "" if named else _noted()
                _reach(named or noted)
                ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR)
            except (OSError, ValueError, RuntimeError) as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                token = "" if isinstance(error, OSError) and error.errno else _TOKEN
                step = "start it with `ray start --head`, or check the address"
                if noted:
                    step = "it was started here and has died: `ray stop` forgets it"
                raise ExecutorError(
                    f"no Ray cluster answers at '{named or noted or 'auto'}' ({reason}); {step}{token}"
                ) from error
            _let_cluster_print(False)
        self._memory = memory_limit
        self._run = ray.remote(max_retries=_RETRIES)(call_packed)
        if not self.slots:
            self.shutdown()
            raise ExecutorError(
                f"no node of the Ray cluster has a core and {memory_limit >> 20} MiB of memory for a worker; lower "
                "--memory-limit, or start nodes with more"
            )

    @property
    def _nodes(self) -> dict[str, dict[str, float]]:
        """The resources of each living node, by its id."""
        return {node["NodeID"]: node["Resources"] for node in self._ray.nodes() if node["Alive"]}

    @property
    def slots(self) -> int:
        """Tasks for which all nodes have cores and memory."""
        return sum(self._slots_of(has) for has in self._nodes.values())

    def _slots_of(self, has: dict[str, float]) -> int:
        by_cores = int(has.get("CPU", 0))
        return min(by_cores, int(has.get("memory", 0) // self._memory)) if self._memory else by_cores

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        """Submit a call to any node."""
        return self._submit(packed(function, arguments), num_cpus=1, memory=self._memory)

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> Sequence[Future[Any]]:
        """Submit a call to each node that has cores; it waits for none."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        content = packed(function, arguments)
        return [
            self._submit(content, num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False))
            for node, has in self._nodes.items()
            if has.get("CPU")
        ]

    def _submit(self, content: bytes, **how: Any) -> Future[Any]:
        ours = Answered()
        reference = self._run.options(**how).remote(content)
        ours.on_cancel = partial(self._cancel, reference)
        reference.future().add_done_callback(lambda done: ours.answer(partial(_outcome, done)))
        return ours

    def _cancel(self, reference: Any) -> None:
        with contextlib.suppress(Exception):  # it has just ended
            self._ray.cancel(reference)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Disconnect, unless the program was connected before."""
        if self._ours:
            self._ray.shutdown()
            _let_cluster_print(True)


def _reach(address: str) -> None:
    """Connect to a HOST:PORT once, because Ray tries for minutes; other addresses are Ray's own words.

    Raises:
        OSError: nothing answers.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if separator and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()


def _noted() -> str:
    """Return the address of the cluster that Ray takes for running here, that of the last `ray start`; empty: none."""
    utils: Any = importlib.import_module("ray._private.utils")
    return (utils.read_ray_address() or "") if hasattr(utils, "read_ray_address") else ""


def _let_cluster_print(yes: bool) -> None:
    """Decide whether Ray prints the ends of other nodes' logs on standard output, where results go.

    It does so at each death of a node, whatever `log_to_driver` says (listen_error_messages in ray/_private/worker.py).
    """
    worker: Any = importlib.import_module("ray._private.worker")
    if hasattr(worker, "_worker_logs_enabled"):
        worker._worker_logs_enabled = yes


def _outcome(done: Future[Any]) -> Any:
    """Return the result of a task, or raise what ended it."""
    from ray.exceptions import RayError, RayTaskError

    try:
        return done.result()
    except RayTaskError as error:
        raise as_ours(error.cause, RAY) from None
    except RayError as error:
        raise died(RAY, type(error).__name__) from None
