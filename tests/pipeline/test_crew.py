"""Laws of who runs a build's passes: memory of workers elsewhere is checked before anything is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from shardtrain.datasets.demo import write_demo
from shardtrain.errors import UsageError
from shardtrain.pipeline.crew import crew
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.plan import plan_build
from shardtrain.runtime.engines import opening
from shardtrain.runtime.engines.engine import Engine
from shardtrain.runtime.passes import PROCESS_BYTES, UNIT_MEMORY, Workers

MIB = 1 << 20


class Small(Engine):
    """Two workers of some threads each, with a limit of memory."""

    kind = "small"
    threads = 1
    limit: int | None = None

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2 * self.threads)

    @property
    def slots(self) -> int:
        return 2 * self.threads

    @property
    def tasks_per_process(self) -> int:
        return self.threads

    @property
    def worker_bytes(self) -> int | None:
        return self.limit

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **_: Any) -> Future[Any]:
        return self._pool.submit(function, *arguments)

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> Sequence[Future[Any]]:
        return [self.submit(function, *arguments)]

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._pool.shutdown(wait, cancel_futures=cancel_futures)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> type[Small]:
    made = type("Made", (Small,), {})
    monkeypatch.setattr(opening, "open_engine", lambda name, **how: made())
    return made


def nothing() -> None:
    pass


def started(folder: Path, **options: Any) -> tuple[int, Workers]:
    """Start and end the workers of a build; return their number and how memory is divided."""
    chosen = BuildOptions(executor="small:pool", **options)
    with crew(chosen, folder, Workers, prepare=nothing) as (executor, workers):
        return executor.workers, workers


def test_a_worker_has_the_whole_limit_and_divides_it_among_its_own_tasks(small: type[Small], tmp_path: Path) -> None:
    assert started(tmp_path) == (2, Workers(1))
    small.threads = 4
    number, workers = started(tmp_path, memory_limit=1 << 30)
    assert number == 8
    assert workers.task_budget(1 << 30) == ((1 << 30) - PROCESS_BYTES) // 4 // 2


def test_a_limit_that_the_engine_does_not_allow_is_refused(small: type[Small], tmp_path: Path) -> None:
    small.limit = 512 * MIB
    assert started(tmp_path, memory_limit=512 * MIB)[0] == 2
    with pytest.raises(UsageError) as raised:
        started(tmp_path, memory_limit=1 << 30)
    assert "a worker of small has 512 MiB; pass --memory-limit 512MiB" in raised.value.on_command_line


def test_more_threads_than_a_worker_has_memory_for_are_refused(small: type[Small], tmp_path: Path) -> None:
    small.threads = 16
    needed = -(-(PROCESS_BYTES + 16 * UNIT_MEMORY) // MIB)
    with pytest.raises(UsageError) as raised:
        started(tmp_path, memory_limit=512 * MIB)
    assert f"takes {needed} MiB; pass --memory-limit {needed}MiB" in raised.value.on_command_line
    assert started(tmp_path, memory_limit=needed * MIB)[0] == 32


def test_a_plan_does_not_ask_workers_elsewhere(tmp_path: Path) -> None:
    write_demo(tmp_path / "demo", documents=60, classes=2, seed=1)
    plan = plan_build(tmp_path / "demo", tmp_path / "out", BuildOptions(executor="ray:nowhere:1"))
    line = next(line for line in plan.lines() if line.startswith("workers:"))
    assert line == "workers: those of ray:nowhere:1, which a plan does not ask; the memory is that of each"


def test_the_memory_of_threads_of_a_users_executor_is_that_of_one_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pools.py").write_text(
        "from concurrent.futures import ThreadPoolExecutor\ndef eight():\n    return ThreadPoolExecutor(8)\n"
    )
    monkeypatch.chdir(tmp_path)
    how = {"executor": "pools:eight", "memory_limit": 256 * MIB}
    with (
        pytest.raises(UsageError, match="a worker of pools:eight runs 8 tasks at once, which takes"),
        crew(BuildOptions(**how), tmp_path, local=lambda: Workers(1), prepare=int),
    ):
        pass
    with crew(BuildOptions(**how, workers=1), tmp_path, local=lambda: Workers(1), prepare=int) as (_, workers):
        assert workers == Workers(1)
