"""Run passes: one function over many tasks, with progress, timing and a share of the memory for each worker."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.executors import Executor
from shardtrain.runtime.machine import give_back_freed_memory
from shardtrain.runtime.progress import progress
from shardtrain.runtime.records import Records
from shardtrain.runtime.schema import Choice, Schema

Task = TypeVar("Task")
Result = TypeVar("Result")
Sizes = Sequence[int] | npt.NDArray[np.int64]

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
        self, title: str, function: Callable[[Task], Result], tasks: Sequence[Task], sizes: Sizes, **how: Any
    ) -> list[Result]:
        """Run a pass and return its results in order; the arguments are those of `stream`."""
        found = dict(self.stream(title, function, tasks, sizes, **how))
        return [found[i] for i in range(len(tasks))]

    def do(self, title: str, function: Callable[[Task], None], tasks: Sequence[Task], sizes: Sizes, **how: Any) -> None:
        """Run a pass whose tasks only write files; the arguments are those of `stream`."""
        for _ in self.stream(title, function, tasks, sizes, **how):
            pass

    def stream(
        self,
        title: str,
        function: Callable[[Task], Result],
        tasks: Sequence[Task],
        sizes: Sizes,
        *,
        name: str,
        unit: str = "B",
        schema: Schema = NOTHING,
        encode: Callable[[Result], Any] = lambda result: result,
        decode: Callable[[Any], Result] = lambda record: record,
        fits: Callable[[Task, Result], bool] = lambda task, result: True,
    ) -> Iterator[tuple[int, Result]]:
        """Run a pass and yield the number and the result of each task, once, in any order, so that none are held.

        Tasks that are on record already are not run again. A record that is damaged or does not fit its schema or its
        task counts as none.

        Args:
            title: of the pass.
            function: what is done with each task, and what they have in common, which workers get once; the files of
                a task are committed when it returns.
            tasks: what it is done with; each is taken when its turn comes, so they may be made then.
            sizes: of the tasks, in `unit`s, for the progress bar.
            name: of the pass's file of records; where names are equal, tasks of equal number have equal results.
            unit: of the sizes.
            schema: of a result as JSON values.
            encode: a result as JSON values.
            decode: the reverse.
            fits: whether a result on record can be that of its task.
        """
        _enter(title)
        lasting, total = title not in self.details, int(np.sum(sizes, dtype=np.int64))
        records, done = Records(self.scratch / f"{name}.records", schema), np.zeros(len(tasks), np.bool_)
        with self.timed(title), progress(title, total=total, unit=unit, lasting=lasting) as shown:
            for number, record in records.read():
                with contextlib.suppress(ValueError):
                    if number < len(tasks) and not done[number] and fits(tasks[number], result := decode(record)):
                        done[number] = True
                        shown.skip(int(sizes[number]))
                        yield number, result
            missing = np.flatnonzero(~done)
            with records:
                function = partial(_task_of, title, function)
                for place, result in self.executor.run(function, _Chosen(tasks, missing)):
                    number = int(missing[place])
                    records.add(number, encode(result))
                    shown.add(int(sizes[number]))
                    yield number, result


@dataclass(frozen=True, eq=False)
class _Chosen(Sequence[Task]):
    """The tasks with some numbers."""

    tasks: Sequence[Task]
    numbers: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        return self.tasks[int(self.numbers[place])]


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
