"""Start a worker of a training on each node of a Ray cluster that has cores, with all of its cores and GPUs.

Ray only places processes: the workers talk to each other as elsewhere. The chief runs on the machine of this process,
with its streams, if that is such a node; otherwise what it printed is shown when it has ended.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from shardtrain.errors import ExecutorError, MissingExtraError
from shardtrain.runtime.engines.ray_engine import RayEngine
from shardtrain.runtime.progress import say
from shardtrain.runtime.terminal import tell, write_data
from shardtrain.training.distribution.cluster import Cluster
from shardtrain.training.distribution.local import free_ports, start_worker

_POLL = 0.5  # seconds
_ENDING = 30.0  # seconds in which all others end by themselves when one has ended


def run_on_ray(address: str, words: Sequence[str]) -> int:
    """Run a command in a worker per node; return the exit code of the chief.

    Args:
        address: of the cluster; "auto": that of RAY_ADDRESS, or one that runs on this machine.
        words: of the command, such as ["fit", "shards"].

    Raises:
        MissingExtraError: Ray is not installed.
        ExecutorError: no cluster answers, or it has no node with cores.
    """
    try:
        engine = RayEngine("" if address == "auto" else address, 0)
    except MissingExtraError as error:
        raise MissingExtraError(
            "--ray needs the package ray; install it with `pip install 'shardtrain[ray]'`, here and on all nodes"
        ) from error
    try:
        return _run(words)
    finally:
        engine.shutdown()


def _run(words: Sequence[str]) -> int:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = ray.get_runtime_context().get_node_id()
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= 1]
    nodes.sort(key=lambda node: (node["NodeID"] != here, node["NodeManagerAddress"], node["NodeID"]))
    if not nodes:
        raise ExecutorError("no node of the Ray cluster has a core; start nodes with more")
    say(f"Ray: {len(nodes)} node{'s, a worker on each' if len(nodes) > 1 else ', so one worker'}")

    def on_node(node: dict[str, Any], function: Any, *arguments: Any, **how: Any) -> Any:
        strategy = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
        remote = ray.remote(max_retries=0)(function)
        return remote.options(scheduling_strategy=strategy, **{"num_cpus": 0, **how}).remote(*arguments)

    ports = ray.get([on_node(node, _free_port, node["NodeManagerAddress"]) for node in nodes])
    addresses = tuple(f"{node['NodeManagerAddress']}:{port}" for node, port in zip(nodes, ports, strict=True))
    chief: subprocess.Popen[bytes] | None = None
    tasks = {}
    for index, node in enumerate(nodes):
        cluster = Cluster(addresses=addresses, index=index)
        if node["NodeID"] == here:
            chief = start_worker(cluster, words)
            continue
        has = node["Resources"]
        whole = {"num_cpus": int(has["CPU"]), "num_gpus": int(has.get("GPU", 0))}
        tasks[index] = on_node(node, _work, cluster, list(words), os.getcwd(), **whole)
    return _wait(chief, tasks)


def _wait(chief: subprocess.Popen[bytes] | None, tasks: dict[int, Any]) -> int:
    """Wait until all have ended, and pass an interruption on; return the exit code of the chief."""
    import ray

    codes: dict[int, int] = {}
    printed: dict[int, tuple[bytes, bytes]] = {}
    ended_at: float | None = None
    try:
        while len(codes) < len(tasks) + (chief is not None):
            try:
                ready, _ = ray.wait([task for number, task in tasks.items() if number not in codes] or [ray.put(0)])
                for number, task in tasks.items():
                    if task in ready:
                        codes[number], *rest = _result(task)
                        printed[number] = (rest[0], rest[1])
                if chief is not None and chief.poll() is not None:
                    codes[0] = chief.returncode
                if codes and ended_at is None and (0 in codes or any(codes.values())):
                    ended_at = time.monotonic()
                if ended_at is not None and time.monotonic() - ended_at > _ENDING:
                    break
                time.sleep(_POLL)
            except KeyboardInterrupt:  # the chief, or the first worker, tells the others
                if chief is not None:
                    chief.send_signal(signal.SIGINT)
                else:
                    ray.cancel(tasks[0])
    finally:
        if chief is not None:
            chief.kill()
            chief.communicate()
        for task in tasks.values():
            with contextlib.suppress(Exception):  # it has just ended
                ray.cancel(task, force=True)
    if 0 in printed:
        tell(*printed[0][1].decode(errors="replace").splitlines())
        write_data(printed[0][0].decode(errors="replace"))
    elif codes.get(0, 1) and 0 not in codes:
        for _, text in printed.values():
            tell(*text.decode(errors="replace").splitlines())
    code = codes.get(0, next((each for each in codes.values() if each), 1))
    return code if code >= 0 else 1


def _result(task: Any) -> tuple[int, bytes, bytes]:
    import ray
    from ray.exceptions import RayError

    try:
        found: tuple[int, bytes, bytes] = ray.get(task)
    except RayError as error:
        return 1, b"", f"error: a worker on Ray ended: {type(error).__name__}\n".encode()
    return found


def _free_port(host: str) -> int:
    """Return a port of this node that is free now; a task."""
    return free_ports(1, host)[0]


def _work(cluster: Cluster, words: list[str], folder: str) -> tuple[int, bytes, bytes]:
    """Run a worker on this node to its end; a task. An interruption is passed on to it."""
    with (
        tempfile.TemporaryFile() as out,
        tempfile.TemporaryFile() as text,
        start_worker(cluster, words, cwd=folder, stdout=out, stderr=text) as worker,
    ):
        while True:
            try:
                code = worker.wait()
                break
            except KeyboardInterrupt:
                worker.send_signal(signal.SIGINT)
            except BaseException:
                worker.kill()
                raise
        out.seek(0)
        text.seek(0)
        return code, out.read(), text.read()
