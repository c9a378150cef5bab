"""Executors that tests name as MODULE:CALLABLE, and clusters of Dask and Ray on this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

SPAWN = multiprocessing.get_context("spawn")
_DASK = """
import os, signal, sys, time
import dask
from distributed import LocalCluster

if __name__ == "__main__":
    dask.config.set({"distributed.deploy.lost-worker-timeout": "1h"})  # a busy machine restarts workers late
    cluster = LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1",
                           memory_limit=0, local_directory=sys.argv[1])
    print(cluster.scheduler_address, flush=True)
    for line in sys.stdin:
        if line == "complete\\n":
            while len(cluster.scheduler.workers) < 2:
                time.sleep(0.05)
        else:
            os.kill(cluster.workers[int(line) % 2].process.process.pid, signal.SIGKILL)
        print("done", flush=True)
    cluster.close()
"""
SECOND_NODE = "127.0.0.3"  # of Ray, which is the one that is killed
_RAY = f"""
import sys
from ray.cluster_utils import Cluster

if __name__ == "__main__":
    cluster = Cluster()
    add = lambda address: cluster.add_node(node_ip_address=address, num_cpus=1, object_store_memory=100 << 20,
                                           **({{}} if address != "127.0.0.2" else {{"include_dashboard": False}}))
    add("127.0.0.2")
    second = add("{SECOND_NODE}")
    print(cluster.address, flush=True)
    for line in sys.stdin:
        if line == "complete\\n":
            print("done", flush=True)
            continue
        cluster.remove_node(second, allow_graceful=False)
        print("done", flush=True)
        second = add("{SECOND_NODE}")
    cluster.shutdown()
"""


class Clustered:
    """A cluster of two workers or nodes on loopback addresses, run by a process that this one started."""

    def __init__(self, process: subprocess.Popen[str], kind: str) -> None:
        self.process = process
        self.kind = kind
        self.name = f"{kind}:{self._line()}"

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline().strip()
        assert line, "the cluster did not start"
        return line

    def kill(self, number: int) -> None:
        """Kill a worker, or the second node, by SIGKILL; another one takes its place."""
        self._do(str(number))

    def complete(self) -> None:
        """Wait until those that were killed have been replaced."""
        self._do("complete")

    def _do(self, what: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{what}\n")
        self.process.stdin.flush()
        assert self._line() == "done"


@contextlib.contextmanager
def clustered(kind: str, folder: Path) -> Iterator[Clustered]:
    """Start a cluster, and end it."""
    import pytest  # not in the workers that import this module

    pytest.importorskip({"dask": "distributed", "ray": "ray"}[kind], reason=f"the extra {kind} is not installed")
    script = folder / f"{kind}_cluster.py"
    script.write_text({"dask": _DASK, "ray": _RAY}[kind])
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(
            [sys.executable, script, folder], stdin=-1, stdout=-1, stderr=log, text=True, env=environment
        )
        try:
            yield Clustered(process, kind)
        finally:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.wait(60)
            process.stdout.close()


def mark(task: tuple[Path, int]) -> int:
    """Leave a mark that the task has begun, and take a while."""
    folder, number = task
    (folder / str(number)).touch()
    time.sleep(0.2)
    return number


def kill_at_one(task: int) -> int:
    """Kill the worker that runs the task 1."""
    if task == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return task


def nothing() -> None:
    """Prepare a worker."""


def two_threads() -> Executor:
    return ThreadPoolExecutor(2)


def two_processes() -> Executor:
    return ProcessPoolExecutor(2, SPAWN)


def without_size() -> Executor:
    class Executed(Executor):
        def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_result(function(*arguments))
            return future

    return Executed()


def no_executor() -> int:
    return 7


def failing() -> Executor:
    raise RuntimeError("no licence")


def made_before() -> Executor:
    executor = ThreadPoolExecutor(2)
    executor.shutdown()
    return executor


def unreachable() -> Executor:
    class Unreachable(ThreadPoolExecutor):
        def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(OSError("no route to host"))
            return future

    return Unreachable(2)


def dying_at_once() -> Executor:
    return ProcessPoolExecutor(2, SPAWN, os._exit, (1,))


def dying_while_another_starts() -> Executor:
    """Two processes; the first one dies before the second one is started, which makes the file FIRST."""
    return ProcessPoolExecutor(2, Hesitating(), _end_if_first, (os.environ["FIRST"],))


class Hesitating(type(SPAWN)):  # type: ignore[misc]
    """Starts a process when those before it have ended, and 0.2 s later."""

    made: ClassVar[list[Any]] = []

    def Process(self, *arguments: Any, **keywords: Any) -> Any:  # noqa: N802
        for each in self.made:
            each.join()
        time.sleep(0.2)
        self.made.append(SPAWN.Process(*arguments, **keywords))
        return self.made[-1]


def _end_if_first(file: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.close(os.open(file, os.O_CREAT | os.O_EXCL))
        os._exit(1)


def boundless() -> Executor:
    class Boundless(ThreadPoolExecutor):
        max_workers = 10**9

    return Boundless(2)


def old_numpy() -> Executor:
    return ProcessPoolExecutor(1, SPAWN, _change, ("numpy", "__version__", "1.0.0"))


def another_disk() -> Executor:
    return ProcessPoolExecutor(1, SPAWN, _hide)


def _change(module: str, name: str, value: str) -> None:
    setattr(__import__(module), name, value)


def _hide() -> None:
    os.path.exists = lambda path: False  # type: ignore[assignment]


def lingering() -> Executor:
    """Workers that outlive their driver: they rename nothing while the file LINGER is there, and end a second later."""
    return ProcessPoolExecutor(2, SPAWN, _linger, (os.environ["LINGER"],))


def _linger(file: str) -> None:
    rename = os.replace
    process = Path(f"{file}-{os.getpid()}")
    process.touch()
    threading.Thread(target=_end_without, args=(file,), daemon=True).start()

    def wait_and_rename(source: str, target: str) -> None:
        while os.path.exists(file):
            time.sleep(0.01)
        rename(source, target)

    os.replace = wait_and_rename  # type: ignore[assignment]


def _end_without(file: str) -> None:
    while os.path.exists(file):
        time.sleep(0.01)
    time.sleep(1)
    os._exit(0)


class Zombies(ThreadPoolExecutor):
    """Runs every task twice: the second attempt, which nobody awaits, begins together with the first."""

    attempts = 0

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        Zombies.attempts += 1
        together = threading.Barrier(2)

        def attempt() -> Any:
            with contextlib.suppress(threading.BrokenBarrierError):
                together.wait(1)
            return function(*arguments)

        super().submit(attempt)
        return super().submit(attempt)


def zombies() -> Executor:
    return Zombies(4)
