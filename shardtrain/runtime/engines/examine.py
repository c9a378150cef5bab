"""Try an engine: connect, and ask every worker what it is and whether it shares a folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardtrain.errors import ExecutorError, ShardtrainError
from shardtrain.runtime.engines.cluster import Greeted, check, greeted
from shardtrain.runtime.engines.names import ExecutorName
from shardtrain.runtime.engines.opening import open_engine


@dataclass(frozen=True, kw_only=True)
class Node:
    """A machine with workers.

    Attributes:
        host: its name.
        workers: that were reached on it; Ray starts those of a node when there is work, so it is 1 there.
        cores: that a worker may run on.
        memory_bytes: that a worker can use.
        versions: of shardtrain, Python and numpy.
        shared: whether it sees the folder.
    """

    host: str
    workers: int
    cores: int
    memory_bytes: int
    versions: dict[str, str]
    shared: bool


@dataclass(frozen=True, kw_only=True)
class EngineExamined:
    """What was found of an engine.

    Attributes:
        name: of the executor.
        slots: tasks that its workers run at once.
        worker_bytes: memory that it lets a worker have; None: it sets no limit.
        nodes: its machines, by name.
        problem: why nothing can be run there; None: it can.
    """

    name: str
    slots: int = 0
    worker_bytes: int | None = None
    nodes: tuple[Node, ...] = ()
    problem: str | None = None


def examine_engine(name: ExecutorName, folder: Path, workers: int | None = None) -> EngineExamined:
    """Try an engine; `workers` are the tasks at once of an executor that does not say it.

    Raises:
        UsageError: the user's function cannot be imported, or returns no executor.
    """
    folder = folder.absolute()
    try:
        engine = open_engine(name, workers=workers)
    except ExecutorError as error:
        return EngineExamined(name=str(name), problem=error.on_command_line)
    try:
        found = greeted(engine, folder)
        limit, problem = engine.worker_bytes, _problem(found, folder)
    except (ShardtrainError, OSError) as error:
        said = error.on_command_line if isinstance(error, ShardtrainError) else str(error)
        return EngineExamined(name=str(name), problem=said)
    finally:
        engine.shutdown()
    return EngineExamined(name=str(name), slots=found.slots, worker_bytes=limit, nodes=_nodes(found), problem=problem)


def _nodes(found: Greeted) -> tuple[Node, ...]:
    groups: dict[str, list[int]] = {}
    for number, worker in enumerate(found.workers):
        groups.setdefault(worker.host, []).append(number)
    made = []
    for host, numbers in sorted(groups.items()):
        workers = [found.workers[number] for number in numbers]
        made.append(
            Node(
                host=host,
                workers=len({worker.process for worker in workers}),
                cores=workers[0].cores,
                memory_bytes=min(worker.memory_bytes for worker in workers),
                versions=dict(workers[0].versions),
                shared=all(worker.sees for worker in workers),
            )
        )
    return tuple(made)


def _problem(found: Greeted, folder: Path) -> str | None:
    try:
        check(found, folder)
    except ExecutorError as error:
        return error.on_command_line
    return None
