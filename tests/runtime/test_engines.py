"""Laws of workers elsewhere: what a pass sends, what workers must have, and what is left of it afterwards."""

from __future__ import annotations

import os
import pickle
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest
from support.executors import Hesitating, Zombies
from support.tasks import Constants, allocate, die_always, die_unless_there, nothing, straggle

from shardtrain.errors import ExecutorError, MissingExtraError, UsageError, WorkerDiedError
from shardtrain.runtime.engines.cluster import Cluster
from shardtrain.runtime.engines.engine import Answered, packed
from shardtrain.runtime.engines.names import ExecutorName, executor_name
from shardtrain.runtime.engines.opening import open_cluster, open_engine
from shardtrain.runtime.engines.work import Call
from shardtrain.runtime.executors import MAX_DEATHS
from shardtrain.runtime.memory import anonymous_bytes


def opened(function: str, folder: Path, workers: int | None = None) -> Cluster:
    return open_cluster(executor_name(f"support.executors:{function}"), folder, workers=workers, prepare=nothing)


@pytest.fixture(scope="module")
def processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with opened("two_processes", tmp_path_factory.mktemp("job")) as cluster:
        yield cluster


def test_the_constants_of_a_pass_are_read_once_per_worker_and_tasks_stay_small(
    processes: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    submit = processes.engine.submit

    def counted(function: Any, /, *arguments: Any) -> Any:
        sent.append(len(packed(function, arguments)))
        return submit(function, *arguments)

    monkeypatch.setattr(processes.engine, "submit", counted)
    done = dict(processes.run(Constants(tmp_path), range(40)))
    assert done == {task: task << 20 for task in range(40)}
    assert 1 <= len(list(tmp_path.glob("read-*"))) <= 2
    assert len(sent) == 40
    assert max(sent) < 1000  # of a function of a megabyte


def test_a_pass_leaves_nothing_in_the_folder(processes: Cluster, tmp_path: Path) -> None:
    list(processes.run(Constants(tmp_path, 10), range(4)))
    assert list(processes._folder.iterdir()) == []


def test_results_in_order_are_those_of_the_tasks_in_order(processes: Cluster, tmp_path: Path) -> None:
    assert list(processes.map(Constants(tmp_path, 3), range(9))) == [3 * task for task in range(9)]


@pytest.mark.skipif(not anonymous_bytes(os.getpid()), reason="memory is measured on Linux")
def test_the_peak_of_a_worker_is_measured_there(processes: Cluster) -> None:
    list(processes.run(allocate, [1 << 20]))
    before = processes.peak_bytes
    list(processes.run(allocate, [300 << 20]))
    assert processes.peak_bytes >= before + (280 << 20)


def test_a_straggler_does_not_hold_back_the_results_of_others(tmp_path: Path) -> None:
    with opened("two_threads", tmp_path) as cluster:
        tasks = [(number, 0.5 * (number == 0)) for number in range(4)]
        assert [number for number, _ in cluster.run(straggle, tasks)][-1] == 0


def test_an_executor_whose_worker_dies_is_made_again_and_its_tasks_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with opened("two_processes", tmp_path) as cluster:
        assert dict(cluster.run(die_unless_there, [tmp_path / "a", tmp_path / "b"])) == {0: "a", 1: "b"}
        assert "its tasks are run again with 1 worker" in capsys.readouterr().err
        assert dict(cluster.run(straggle, [(5, 0.0)])) == {0: 5}
        assert cluster.workers == 1
        with pytest.raises(WorkerDiedError, match=f"died {MAX_DEATHS} times in a row.*run the same command again"):
            list(cluster.run(die_always, range(3)))


def test_a_process_that_is_started_while_another_dies_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIRST", str(tmp_path / "first"))
    with pytest.raises(ExecutorError, match="died before they answered"):
        opened("dying_while_another_starts", tmp_path).__enter__()
    assert len(Hesitating.made) == 2
    assert not any(each.is_alive() for each in Hesitating.made)


def test_a_worker_that_dies_ends_a_stream_in_one_line(tmp_path: Path) -> None:
    with (
        opened("two_processes", tmp_path) as cluster,
        pytest.raises(WorkerDiedError, match="run the same command again"),
    ):
        list(cluster.map(die_always, range(3)))


def test_workers_with_other_versions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match=r"has numpy 1\.0\.0, this command numpy .*; install the same versions"):
        opened("old_numpy", tmp_path).__enter__()


def test_workers_that_do_not_see_the_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match=f"does not see '{tmp_path}'.*use a folder that all machines share"):
        opened("another_disk", tmp_path).__enter__()


def test_a_task_whose_driver_has_gone_does_not_begin(tmp_path: Path) -> None:
    from shardtrain.runtime.engines.work import versions

    with pytest.raises(ExecutorError, match="does not see"):
        Call(str(tmp_path / "pass-gone"), "", versions(), nothing, owned=False)(0)


def test_a_pass_that_somebody_else_wrote_is_not_unpickled(tmp_path: Path) -> None:
    from shardtrain.runtime.engines.work import versions

    forged = tmp_path / "pass-forged"
    forged.write_bytes(pickle.dumps(Constants(tmp_path, 1)))
    with pytest.raises(ExecutorError, match="is not what this command wrote"):
        Call(str(forged), "0" * 64, versions(), nothing, owned=False)(0)
    assert list(tmp_path.glob("read-*")) == []


def test_what_a_killed_driver_left_is_removed(tmp_path: Path) -> None:
    left = tmp_path / "pass-0123456789abcdef"
    left.touch()
    with opened("two_threads", tmp_path):
        assert not left.exists()


def test_two_attempts_at_every_task_give_its_result_once(tmp_path: Path) -> None:
    Zombies.attempts = 0
    with opened("zombies", tmp_path) as cluster:
        assert dict(cluster.run(straggle, [(number, 0.0) for number in range(10)])) == {n: n for n in range(10)}
    assert Zombies.attempts >= 10


def test_no_more_tasks_are_under_way_than_workers_are_asked_for(tmp_path: Path) -> None:
    with opened("two_threads", tmp_path, workers=1) as cluster:
        assert cluster.workers == 1
    with opened("two_threads", tmp_path, workers=5) as cluster:
        assert cluster.workers == 2


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("no_executor", "returns a int, which is no concurrent.futures.Executor"),
        ("nowhere", "cannot be imported"),
        ("failing", "the call failed (RuntimeError: no licence)"),
        ("without_size", "does not say how many tasks it runs at once; give --workers N"),
    ],
)
def test_what_is_no_executor_is_refused(function: str, message: str) -> None:
    with pytest.raises(UsageError) as raised:
        open_engine(executor_name(f"support.executors:{function}"))
    assert message in raised.value.on_command_line


@pytest.mark.parametrize("content", ["raise RuntimeError('no licence')", "def pool(:"], ids=["fails", "is no Python"])
def test_a_module_that_cannot_be_imported_is_refused(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unimportable.py").write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="unimportable:pool cannot be imported"):
        open_engine(executor_name("unimportable:pool"))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("made_before", r"takes no task \(.*\); return a new one from each call"),
        ("unreachable", r"cannot run tasks \(OSError: no route to host\); check how it was started"),
        ("dying_at_once", "died before they answered; check how they were started"),
    ],
)
def test_an_executor_that_does_not_work_is_said_in_one_line(function: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match=message):
        opened(function, tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


def test_an_executor_of_boundless_size_is_asked_a_bounded_number_of_times(tmp_path: Path) -> None:
    with opened("boundless", tmp_path, workers=2) as cluster:
        assert dict(cluster.run(straggle, [(1, 0.0), (2, 0.0)])) == {0: 1, 1: 2}


def test_an_executor_that_does_not_say_its_size_takes_that_of_the_command(tmp_path: Path) -> None:
    with opened("without_size", tmp_path, workers=3) as cluster:
        assert cluster.workers == 3
        assert sorted(cluster.run(straggle, [(1, 0.0), (2, 0.0)])) == [(0, 1), (1, 2)]


@pytest.mark.parametrize(("extra", "package"), [("dask", "distributed"), ("ray", "ray")])
def test_a_missing_package_is_said_in_one_line(extra: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError) as raised:
        open_engine(executor_name(f"{extra}:127.0.0.1:1"))
    assert f"pip install 'shardtrain[{extra}]'" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_ray_cluster_that_is_not_there_is_said_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        for name in (f"ray:{address}", f"ray://{address}"):
            with pytest.raises(
                ExecutorError, match=f"no Ray cluster answers at .*{address}.* refused.*ray start --head"
            ):
                open_engine(executor_name(name))
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(ExecutorError, match="no Ray cluster answers"):
            open_engine(executor_name("ray"))
        monkeypatch.delenv("RAY_ADDRESS")
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(address)  # of a cluster that was killed
        with pytest.raises(ExecutorError, match=f"no Ray cluster answers at '{address}' .*; it was started here and"):
            open_engine(executor_name("ray"))


@pytest.mark.parametrize(
    ("text", "kind", "address"),
    [
        ("processes", "processes", ""),
        ("ray", "ray", ""),
        ("ray:10.0.0.1:6379", "ray", "10.0.0.1:6379"),
        ("ray://10.0.0.1:10001", "ray", "ray://10.0.0.1:10001"),
        ("dask:tcp://10.0.0.1:8786", "dask", "tcp://10.0.0.1:8786"),
        ("dask:scheduler.json", "dask", "scheduler.json"),
        ("package.module:Class.method", "package.module:Class.method", ""),
    ],
)
def test_names_of_executors(text: str, kind: str, address: str) -> None:
    assert executor_name(text) == ExecutorName(kind, address)


@pytest.mark.parametrize("text", ["", "dask", "dask:", "spark", "module:", ":function", "a b:c", "module:1"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected processes, ray"):
        executor_name(text)


def test_a_cancelled_future_ends_at_once_and_takes_no_answer() -> None:
    future, cancelled = Answered(), []
    future.on_cancel = lambda: cancelled.append(True)
    assert future.cancel()
    assert future.cancel()
    future.answer(lambda: 1)
    assert wait([future], timeout=0).done == {future}
    assert (future.cancelled(), cancelled) == (True, [True])
    answered = Answered()
    answered.answer(lambda: 1 // 0)
    assert isinstance(answered.exception(0), ZeroDivisionError)
    assert not answered.cancel()
