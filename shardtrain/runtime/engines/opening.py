"""Open the engine that a name stands for; each is imported only here, and only when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from shardtrain.runtime.engines.cluster import Cluster
from shardtrain.runtime.engines.engine import Engine
from shardtrain.runtime.engines.names import DASK, RAY, ExecutorName


def open_cluster(
    name: ExecutorName,
    folder: Path,
    *,
    workers: int | None = None,
    memory_limit: int = 0,
    prepare: Callable[[], None],
) -> Cluster:
    """Return the executor of a job, which begins when it is entered.

    Args:
        name: of an executor that is not local.
        folder: of the job, which all workers must see.
        workers: tasks under way at once, at most; None: as many as the workers run at once.
        memory_limit: bytes of a worker, for an engine that reserves them; 0 reserves none.
        prepare: what a worker does before its first task.

    It raises what `open_engine` raises.
    """
    return Cluster(
        partial(open_engine, name, workers=workers, memory_limit=memory_limit), folder, most=workers, prepare=prepare
    )


def open_engine(name: ExecutorName, *, workers: int | None = None, memory_limit: int = 0) -> Engine:
    """Connect to a cluster, or make the user's executor.

    Args:
        name: of an executor that is not local.
        workers: tasks at once, for an executor that does not say it.
        memory_limit: bytes of a worker, for an engine that reserves them; 0 reserves none.

    Raises:
        MissingExtraError: the engine's package is not installed.
        ExecutorError: the cluster does not answer.
        UsageError: the user's function cannot be imported, or returns no executor.
    """
    if name.kind == RAY:
        from shardtrain.runtime.engines.ray_engine import RayEngine

        return RayEngine(name.address, memory_limit)
    if name.kind == DASK:
        from shardtrain.runtime.engines.dask_engine import DaskEngine

        return DaskEngine(name.address)
    from shardtrain.runtime.engines.given_engine import GivenEngine

    return GivenEngine(name.kind, workers)
