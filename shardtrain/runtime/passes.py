"""Run passes: one function over many tasks, with progress, timing and a share of the memory for each worker."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

from shardtrain.runtime.atomic import committed
from shardtrain.runtime.executors import Executor
from shardtrain.runtime.machine import give_back_freed_memory
from shardtrain.runtime.progress import progress
from shardtrain.runtime.schema import Choice, Schema, read_sealed, sealed

Task = TypeVar("Task")
Result = TypeVar("Result")

PROCESS_BYTES = 110 << 20  # what numpy, scipy and numba take in a process before any work
UNIT_BYTES = 4 << 20  # of a corpus file in one unit; fixed, so that results cannot depend on memory or workers
UNIT_MEMORY = 14 * UNIT_BYTES  # while a unit is indexed: its documents, their terms and the tables
NOTHING = Choice((None,))  # the result of a task that only writes files
_LEAST_BUDGET = 16 << 20
LONG_MEMORY = 18  # of a byte of text in a unit that one document makes long; 11 to 17 were measured


@dataclass
class Passes:
    """The passes of one build.

    Attributes:
        executor: where tasks run.
        scratch: folder of intermediate files.
        budget: bytes that one task may hold beyond its process and the unit's own.
        sharing: how many tasks run at once in this process.
        details: titles of passes that are of interest with --verbose only.
        spans: title, begin and end of each finished pass, by the clock `time.perf_counter`.
    """

    executor: Executor
    scratch: Path
    budget: int
    sharing: int = 1
    details: frozenset[str] = frozenset()
    spans: list[tuple[str, float, float]] = field(default_factory=list)

    @contextlib.contextmanager
    def timed(self, title: str) -> Iterator[None]:
        """Add the time that the context takes to `spans`."""
        started = time.perf_counter()
        yield
        self.spans.append((title, started, time.perf_counter()))

    @property
    def room(self) -> int:
        """Bytes that this process may hold between two passes."""
        return self.budget * self.sharing

    @property
    def seconds(self) -> dict[str, float]:
        """Time of each finished pass, by title."""
        sums: dict[str, float] = {}
        for title, start, stop in self.spans:
            sums[title] = sums.get(title, 0.0) + stop - start
        return sums

    def run(
        self,
        title: str,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        sizes: Sequence[int],
        *,
        names: Sequence[str],
        unit: str = "B",
        schema: Schema = NOTHING,
        encode: Callable[[Result], Any] = lambda result: result,
        decode: Callable[[Any], Result] = lambda record: record,
        fits: Callable[[Task, Result], bool] = lambda task, result: True,
    ) -> list[Result]:
        """Run a pass and return its results in order; tasks that are on record already are not run again.

        A record that is damaged or does not fit its schema or its task counts as none.

        Args:
            title: of the pass.
            function: what is done with each task; its files are committed when it returns.
            tasks: what it is done with.
            sizes: of the tasks, in `unit`s, for the progress bar.
            names: of the tasks' records; equal names mean equal results.
            unit: of the sizes.
            schema: of a result as JSON values.
            encode: a result as JSON values.
            decode: the reverse.
            fits: whether a result on record can be that of its task.
        """
        paths = [self.scratch / f"{name}.json" for name in names]
        results: dict[int, Result] = {}
        _enter(title)
        lasting = title not in self.details
        with self.timed(title), progress(title, total=sum(sizes), unit=unit, lasting=lasting) as shown:
            for i in (i for i, path in enumerate(paths) if path.exists()):
                with contextlib.suppress(ValueError):
                    result = decode(read_sealed(paths[i], schema))
                    if fits(tasks[i], result):
                        results[i] = result
                        shown.skip(sizes[i])
            missing = [i for i in range(len(tasks)) if i not in results]
            for number, result in self.executor.run(partial(_task_of, title, function), [tasks[i] for i in missing]):
                i = missing[number]
                results[i] = result
                with committed(paths[i], synced=False) as file:
                    file.write(json.dumps(sealed(encode(result), schema)).encode())
                shown.add(sizes[i])
        return [results[i] for i in range(len(tasks))]


def _task_of(title: str, function: Callable[[Task], Result], task: Task) -> Result:
    """Run a task of a pass."""
    _enter(title)
    return function(task)


@lru_cache(maxsize=1)
def _enter(title: str) -> None:
    """Begin a pass in this process: return the memory that the previous pass freed to the system."""
    give_back_freed_memory()


@dataclass(frozen=True)
class Workers:
    """Those who run the tasks of a pass: this process alone, threads of it, or processes beside it.

    Attributes:
        number: of tasks that run at once.
        processes: of which there are anonymous memory, this one included.
    """

    number: int = 1
    processes: int = 1

    @property
    def sharing(self) -> int:
        """How many tasks run at once in this process."""
        return self.number if self.processes == 1 else 1

    def longest_unit(self, memory_limit: int, density: int) -> int:
        """Return the bytes of the longest unit that one worker can index while the others index usual ones."""
        free = memory_limit - self.processes * PROCESS_BYTES - (self.number - 1) * UNIT_MEMORY
        return free // (LONG_MEMORY * density)

    def task_budget(self, memory_limit: int) -> int:
        """Return the bytes for the data of one task."""
        return max((memory_limit - self.processes * PROCESS_BYTES) // self.number // 2, _LEAST_BUDGET)


def affordable_processes(cores: int, memory_limit: int) -> Workers:
    """Return as many processes as the memory allows, at most `cores`, or this process alone."""
    for number in range(cores, 1, -1):
        if PROCESS_BYTES + number * (PROCESS_BYTES + UNIT_MEMORY) <= memory_limit:
            return Workers(number, number + 1)
    return Workers()


def affordable_workers(cores: int, memory_limit: int) -> Workers:
    """Return as many workers as the memory allows, at most `cores`: threads where it has no room for two processes.

    Threads share what a process takes before any work; but their Python code, such as a reader of JSON, takes turns.
    """
    found = affordable_processes(cores, memory_limit)
    if found.number > 1:
        return found
    return Workers(max(1, min(cores, (memory_limit - PROCESS_BYTES) // UNIT_MEMORY)))
