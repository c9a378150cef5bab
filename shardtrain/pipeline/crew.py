"""Choose who runs the passes of a job: this process, processes of this machine, or workers of an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from shardtrain.errors import UsageError
from shardtrain.pipeline.options import ResourceOptions
from shardtrain.runtime.engines.cluster import Cluster
from shardtrain.runtime.engines.engine import Engine
from shardtrain.runtime.engines.opening import open_cluster
from shardtrain.runtime.executors import Executor, Serial, processes, threads
from shardtrain.runtime.passes import PROCESS_BYTES, UNIT_MEMORY, Workers
from shardtrain.runtime.process import own_process

_MIB = 1 << 20


@contextmanager
def crew(
    options: ResourceOptions, folder: Path, local: Callable[[], Workers], *, prepare: Callable[[], None]
) -> Iterator[tuple[Executor, Workers]]:
    """Start the executor of a job; yield it with the workers among which memory is divided.

    On an engine each worker process has all of `--memory-limit`, as this process has, and divides it among the tasks
    that it runs at once.

    Args:
        options: of the job.
        folder: of scratch files, which all workers must see.
        local: gives the workers of this machine.
        prepare: what a worker does before its first task.

    Raises:
        UsageError: workers of an engine have less memory than they need.

    It also raises what `open_cluster` raises.
    """
    if options.executor_name.local:
        workers = local()
        with _local(workers, prepare) as executor:
            yield executor, workers
        return
    cluster = open_cluster(
        options.executor_name, folder, workers=options.workers, memory_limit=options.memory_limit, prepare=prepare
    )
    with cluster:
        _check_memory(cluster.engine, options.memory_limit)
        yield cluster, Workers(cluster.engine.tasks_per_process)


def _local(workers: Workers, prepare: Callable[[], None]) -> Executor:
    if workers.sharing > 1:
        return threads(workers.number)
    return Serial() if workers.number == 1 else processes(workers.number, prepare=partial(_prepared, prepare))


def _prepared(prepare: Callable[[], None]) -> None:
    """Prepare a process of ours."""
    own_process()
    prepare()


def _check_memory(engine: Engine, memory_limit: int) -> None:
    """Check that a worker has the memory of `--memory-limit`, and that it is enough for the tasks of a process.

    Raises:
        UsageError: one of them is not so.
    """
    has, tasks = engine.worker_bytes, engine.tasks_per_process
    if has is not None and has < memory_limit:
        raise UsageError(
            f"--memory-limit {memory_limit // _MIB}MiB is the memory of one worker, and a worker of {engine.kind} has "
            f"{has // _MIB} MiB; pass --memory-limit {has // _MIB}MiB, or start workers with more"
        )
    needed = -(-(PROCESS_BYTES + tasks * UNIT_MEMORY) // _MIB)
    if needed > memory_limit // _MIB:
        raise UsageError(
            f"a worker of {engine.kind} runs {tasks} tasks at once, which takes {needed} MiB; pass --memory-limit "
            f"{needed}MiB, or start workers with fewer threads"
        )


def engine_record(executor: Executor, driver_bytes: int) -> dict[str, object]:
    """Return what build.json says of an engine: its name, and the peak of any process; empty where there is none.

    Args:
        executor: of the job.
        driver_bytes: peak of this process.
    """
    if not isinstance(executor, Cluster):
        return {}
    return {"executor": executor.engine.kind, "peak_memory_bytes": max(driver_bytes, executor.peak_bytes)}
