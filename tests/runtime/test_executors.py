"""Laws of executors: every task is done once, whoever dies; the error of the first task in order is raised."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Executor as FuturesExecutor
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sampled import sampled
from support.tasks import die_at_three, die_once, nothing, slow_square, square

from shardtrain.errors import WorkerDiedError
from shardtrain.runtime import executors, interrupts
from shardtrain.runtime.executors import MAX_DEATHS, Pool, Serial, processes, threads


def fail_from(task: tuple[int, int, float]) -> int:
    number, first, seconds = task
    time.sleep(seconds)
    if number >= first:
        raise ValueError(number)
    return number


class Late(interrupts._Process):
    """The first process is killed while the second starts."""

    made: ClassVar[list[Late]] = []

    def start(self) -> None:
        super().start()
        Late.made.append(self)
        if len(Late.made) == 2:
            os.kill(Late.made[0].pid or 0, signal.SIGKILL)
            time.sleep(0.3)  # time for the pool to learn of it


class Early(interrupts._Process):
    """The first process is killed: when it has started, or while the second starts, which then fails as it may."""

    made: ClassVar[list[Early]] = []
    error: ClassVar[Exception | None] = None

    def start(self) -> None:
        if Early.made and Early.error is not None:
            error, Early.error = Early.error, None
            Early.made[0].end()
            raise error
        super().start()
        Early.made.append(self)
        if len(Early.made) == 1 and Early.error is None:
            self.end()
            time.sleep(0.3)  # the pool has learned of it

    def end(self) -> None:
        os.kill(self.pid or 0, signal.SIGKILL)
        connection.wait([self.sentinel])


def finished_before(failure: type[Exception], match: str, results: Iterator[tuple[int, int]]) -> list[int]:
    """The tasks whose results come before the failure, ascending."""
    done: list[int] = []
    with pytest.raises(failure, match=match):
        done.extend(number for number, _ in results)
    return sorted(done)


def test_a_killed_worker_costs_its_tasks_and_they_run_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with processes(2, prepare=nothing) as pool:
        done = list(pool.run(die_once, [(tmp_path, number) for number in range(8)]))
        assert sorted(done) == [(number, number) for number in range(8)]
        assert pool.workers == 1
        assert sorted(pool.run(square, range(4))) == [(0, 0), (1, 1), (2, 4), (3, 9)]
    assert "a worker process died" in capsys.readouterr().err


def test_results_in_order_survive_a_killed_worker(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with processes(2, prepare=nothing) as pool:
        assert list(pool.map(die_once, [(tmp_path, number) for number in range(8)])) == [*range(8)]
        assert list(pool.map(square, iter(range(9)))) == [number**2 for number in range(9)]
        with pytest.raises(WorkerDiedError, match="died 3 times in a row"):
            list(pool.map(die_at_three, range(6)))
    assert "a worker process died" in capsys.readouterr().err


def test_a_task_that_kills_every_worker_ends_the_run() -> None:
    with processes(1, prepare=nothing) as pool:  # which of the later tasks two would finish is chance
        done = finished_before(WorkerDiedError, "fewer workers", pool.run(die_at_three, range(6)))
    assert done == [0, 1, 2]


@pytest.mark.parametrize("workers", [1, 2, 5])
@settings(max_examples=40)
@given(first=st.integers(0, 12), slow=st.sets(st.integers(0, 11)))
def test_the_failure_of_the_first_task_is_raised_however_tasks_are_timed(
    workers: int, first: int, slow: set[int]
) -> None:
    tasks = [(number, first, 0.002 * (number in slow)) for number in range(12)]
    with threads(workers) as pool:
        if first >= len(tasks):
            assert sorted(number for number, _ in pool.run(fail_from, tasks)) == list(range(len(tasks)))
        else:
            done = finished_before(ValueError, f"^{first}$", pool.run(fail_from, tasks))
            assert done == list(range(first))


def test_what_ran_beside_a_failure_is_yielded_before_the_failure_is_raised() -> None:
    tasks = [(number, 2, 0.05 * (number < 2)) for number in range(20)]
    with threads(4) as pool:
        assert finished_before(ValueError, "^2$", pool.run(fail_from, tasks)) == [0, 1]


def test_no_more_than_two_tasks_per_worker_are_pending() -> None:
    lock, running, most = threading.Lock(), [0], [0]

    class Counted(ThreadPoolExecutor):
        def submit(self, *arguments: Any, **keywords: Any) -> Any:
            with lock:
                running[0] += 1
                most[0] = max(most[0], running[0])
            future = super().submit(*arguments, **keywords)
            future.add_done_callback(lambda _: running.__setitem__(0, running[0] - 1))
            return future

    with Pool(Counted, 3) as pool:
        assert len(list(pool.run(square, range(100)))) == 100
    assert most[0] <= 6


def test_any_executor_that_breaks_is_started_again_with_fewer_workers() -> None:
    started: list[int] = []

    class Breaking(ThreadPoolExecutor):
        def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
            if len(started) < MAX_DEATHS:
                raise BrokenProcessPool("gone")
            return super().submit(function, *arguments, **keywords)

    def start(workers: int) -> FuturesExecutor:
        started.append(workers)
        return Breaking(workers)

    with Pool(start, 4) as pool:
        assert sorted(pool.run(square, range(3))) == [(0, 0), (1, 1), (2, 4)]
    assert started == [4, 3, 2]


class Cancelling(ThreadPoolExecutor):
    """Cancels every third task, as an executor does whose workers are taken from it."""

    submitted = 0

    def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
        Cancelling.submitted += 1
        if Cancelling.submitted % 3:
            return super().submit(function, *arguments, **keywords)
        future: Future[Any] = Future()
        future.cancel()
        future.set_running_or_notify_cancel()
        return future


def test_tasks_that_the_executor_cancels_run_again() -> None:
    with Pool(Cancelling, 4) as pool:
        assert sorted(pool.run(square, range(20))) == [(number, number**2) for number in range(20)]
        assert list(pool.map(square, range(20))) == [number**2 for number in range(20)]


def test_tasks_that_are_never_answered_after_a_death_run_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executors, "_ANSWER_SECONDS", 0.01)
    started: list[int] = []

    class Silent(ThreadPoolExecutor):
        died = True

        def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Any:
            return Future() if len(started) == 1 else super().submit(function, *arguments, **keywords)

    def start(workers: int) -> FuturesExecutor:
        started.append(workers)
        return Silent(workers)

    with Pool(start, 2) as pool:
        assert sorted(pool.run(square, range(5))) == [(0, 0), (1, 1), (2, 4), (3, 9), (4, 16)]
    started.clear()
    with Pool(start, 2) as pool:
        assert list(pool.map(square, range(5))) == [0, 1, 4, 9, 16]
    assert started == [2, 1]


def test_a_worker_that_starts_while_another_dies_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "_Process", Late)
    with processes(2, prepare=nothing) as pool:
        assert sorted(pool.run(slow_square, range(3))) == [(0, 0), (1, 1), (2, 4)]
        assert pool.workers == 1
    assert not any(each.is_alive() for each in Late.made)


@pytest.mark.parametrize(
    "error", sampled([None, ValueError("bad value(s) in fds_to_keep"), OSError("bad descriptor")], (0, 1))
)
def test_a_worker_that_dies_while_the_pool_starts_costs_a_worker(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    Early.made, Early.error = [], error
    monkeypatch.setattr(interrupts, "_Process", Early)
    with processes(3, prepare=nothing) as pool:
        assert sorted(pool.run(slow_square, range(3))) == [(0, 0), (1, 1), (2, 4)]
        assert pool.workers == 2
    assert not any(each.is_alive() for each in Early.made)


@settings(max_examples=40)
@given(st.lists(st.integers(0, 9)))
def test_serial_equals_a_pool(numbers: list[int]) -> None:
    with threads(3) as pool:
        assert sorted(pool.run(square, numbers)) == list(Serial().run(square, numbers))
        assert list(pool.map(square, numbers)) == list(map(square, numbers))
