"""Commands with --executor give the bytes of one process, whoever dies: on Dask, and in `make soak` on Ray."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.comparing import assert_same_folder
from support.executors import Clustered, clustered, kill_at_one, mark, nothing
from support.renames import KILLED_AT_RENAME
from support.sampled import sampled

from shardtrain.cli.main import main
from shardtrain.datasets.demo import write_demo
from shardtrain.errors import CorpusFormatError, ExecutorError, WorkerDiedError
from shardtrain.inference import units
from shardtrain.pipeline import build as building
from shardtrain.pipeline import titles
from shardtrain.pipeline.build import build
from shardtrain.pipeline.build_record import read_build_record
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.engines.cluster import Cluster
from shardtrain.runtime.engines.examine import examine_engine
from shardtrain.runtime.engines.names import executor_name
from shardtrain.runtime.engines.opening import open_cluster, open_engine

SMALL = {"max_features": 400, "rows_per_shard": 200, "seed": 3}
UNIT_BYTES = 1 << 15
# Builds in small units, and kills itself at its Nth rename in the output.
DRIVER = (
    KILLED_AT_RENAME
    + """
import sys
from shardtrain.pipeline import build as building
from shardtrain.pipeline.options import BuildOptions

if __name__ == "__main__":
    corpus, out, executor, at = sys.argv[1:]
    building.UNIT_BYTES = 1 << 15
    killed_at_rename(int(at), out)
    building.build(corpus, out, BuildOptions(executor=executor, max_features=400, rows_per_shard=200, seed=3))
"""
)


@pytest.fixture(scope="module", params=["dask", pytest.param("ray", marks=pytest.mark.slow)])
def cluster(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clustered]:
    with clustered(request.param, tmp_path_factory.mktemp(request.param)) as started:
        yield started


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus") / "demo"
    write_demo(folder, documents=600, classes=3, seed=3)
    return folder


@pytest.fixture(autouse=True)
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(building, "UNIT_BYTES", UNIT_BYTES)
    monkeypatch.setattr(units, "UNIT_BYTES", UNIT_BYTES)


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """What one process builds."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "UNIT_BYTES", UNIT_BYTES)
        for kind in ("ngram", "sequence"):
            made[kind] = tmp_path_factory.mktemp("whole") / kind
            build(corpus, made[kind], BuildOptions(vectorizer=kind, **SMALL))
    return made


def killing(monkeypatch: pytest.MonkeyPatch, title: str, kill: Callable[[], None]) -> list[str]:
    """Kill when a pass with this title has its second result; return where the kills are noted."""
    run, killed = Cluster.run, []

    def watched(self: Cluster, function: Any, tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        for number, found in enumerate(run(self, function, tasks)):
            if function.args[0] == title and number == 1:
                kill()
                killed.append(title)
            yield found

    monkeypatch.setattr(Cluster, "run", watched)
    return killed


@pytest.mark.parametrize("kind", sampled(["ngram", "sequence"]))
def test_a_build_has_the_bytes_of_one_process(
    kind: str, cluster: Clustered, corpus: Path, whole: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    cluster.complete()
    monkeypatch.chdir(tmp_path)  # workers have another current folder
    (tmp_path / "corpus").symlink_to(corpus)
    build("corpus", "out", BuildOptions(vectorizer=kind, executor=cluster.name, **SMALL))
    assert_same_folder(out, whole[kind])
    record = read_build_record(out)
    assert record is not None
    assert (record.executor, record.workers) == (cluster.kind, 2)
    assert record.peak_bytes > 0
    assert main(["report", "out", "--out", "page.html"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert f"with 2 workers of {cluster.kind}." in page
    assert "Anonymous memory of the process that drove the build; of any process: peak" in page


@pytest.mark.parametrize("title", sampled([titles.COUNT, titles.NORMS, titles.VECTORIZE], (2,)))
def test_a_killed_worker_changes_no_byte(
    title: str,
    cluster: Clustered,
    corpus: Path,
    whole: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    killed = killing(monkeypatch, title, lambda: cluster.kill(0))
    build(corpus, tmp_path / "out", BuildOptions(executor=cluster.name, **SMALL))
    assert killed == [title]
    assert capfd.readouterr().out == ""  # where results go
    assert_same_folder(tmp_path / "out", whole["ngram"])


@pytest.mark.parametrize("first", ["cluster", pytest.param("processes", marks=pytest.mark.slow)])
def test_a_build_whose_driver_was_killed_is_finished_on_another_executor(
    first: str, cluster: Clustered, corpus: Path, whole: dict[str, Path], tmp_path: Path
) -> None:
    script, out, names = tmp_path / "driver.py", tmp_path / "out", [cluster.name, "processes"]
    script.write_text(DRIVER)
    begun, other = names if first == "cluster" else names[::-1]
    killed = subprocess.run([sys.executable, script, corpus, out, begun, "15"], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert sum(path.read_bytes().count(b"\n") for path in out.rglob("*.records")) >= 5
    build(corpus, out, BuildOptions(executor=other, resume=True, **SMALL))
    assert_same_folder(out, whole["ngram"])


def test_two_attempts_at_every_task_change_no_byte(corpus: Path, whole: dict[str, Path], tmp_path: Path) -> None:
    build(corpus, tmp_path / "out", BuildOptions(executor="support.executors:zombies", **SMALL))
    assert_same_folder(tmp_path / "out", whole["ngram"])


def test_a_bad_row_is_the_error_of_one_process(cluster: Clustered, corpus: Path, tmp_path: Path) -> None:
    rows = 4 * (corpus / "train.csv").read_text().splitlines()
    for place in (1500, 1800):  # beyond the first records, which the driver reads
        rows[place] = '"1"'
    (tmp_path / "train.csv").write_text("\n".join(rows))
    said = []
    for executor in ("processes", cluster.name):
        with pytest.raises(CorpusFormatError) as raised:
            build(tmp_path / "train.csv", tmp_path / "out", BuildOptions(executor=executor, **SMALL))
        said.append(str(raised.value))
    assert said[0] == said[1]
    assert "line 1,501" in said[0]


def test_tasks_that_have_not_begun_are_cancelled_when_a_command_is_interrupted(
    cluster: Clustered, tmp_path: Path
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    with open_cluster(executor_name(cluster.name), tmp_path, prepare=nothing) as opened:
        results = opened.run(mark, [(marks, number) for number in range(40)])
        next(results)
        results.close()  # as an interruption does
    time.sleep(0.5)
    begun = len(list(marks.iterdir()))
    time.sleep(0.5)
    assert len(list(marks.iterdir())) == begun <= 6  # two run, two more are given out, and as many when one has ended


def test_predictions_and_metrics_are_those_of_one_process(
    cluster: Clustered, corpus: Path, whole: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["fit", str(whole["ngram"]), "--out", str(run), "--epochs", "1"]) == 0
    said = []
    for name in ("processes", cluster.name):
        out = tmp_path / f"{cluster.kind}-{len(said)}.csv"
        there = ["--executor", name]
        assert (
            main(["predict", str(run), "--input", str(corpus / "train.csv"), "--output", str(out), "--proba", *there])
            == 0
        )
        capsys.readouterr()
        assert main(["evaluate", str(run), str(corpus / "train.csv"), *there]) == 0
        said.append((out.read_bytes(), capsys.readouterr().out))
    assert said[0] == said[1]


def test_conversions_and_recompressed_shards_are_those_of_one_process(
    cluster: Clustered, whole: dict[str, Path], tmp_path: Path
) -> None:
    rng = np.random.default_rng(1)
    np.save(tmp_path / "x.npy", rng.standard_normal((4000, 5)).astype(np.float32))
    np.save(tmp_path / "y.npy", rng.integers(0, 3, 4000))
    made = {}
    for name in ("processes", cluster.name):
        there, folder = ["--executor", name], tmp_path / str(len(made))
        table = [str(tmp_path / "x.npy"), "--y", str(tmp_path / "y.npy"), "--rows-per-shard", "1000"]
        assert main(["convert", *table, "--out", str(folder / "converted"), *there]) == 0
        packed = ["--out", str(folder / "packed"), "--compress", "zstd"]
        assert main(["recompress", str(whole["ngram"]), *packed, *there]) == 0
        made[name] = folder
    for kind in ("converted", "packed"):
        assert_same_folder(made[cluster.name] / kind, made["processes"] / kind)


def test_an_engine_is_examined_worker_by_worker(cluster: Clustered, tmp_path: Path) -> None:
    cluster.complete()
    found = examine_engine(executor_name(cluster.name), tmp_path)
    assert (found.slots, found.problem) == (2, None)
    assert sum(node.workers for node in found.nodes) == 2
    assert all(node.shared and "numpy" in node.versions and node.memory_bytes for node in found.nodes)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cluster", ["dask"], indirect=True)
def test_workers_are_counted_while_a_client_of_dask_refreshes_what_it_knows_of_them(cluster: Clustered) -> None:
    dask = pytest.importorskip("dask")
    cluster.complete()
    with dask.config.set({"distributed.client.scheduler-info-interval": "1ms"}):
        engine = open_engine(executor_name(cluster.name))
    try:
        assert {engine.slots for _ in range(200)} == {2}
    finally:
        engine.shutdown()


@pytest.mark.slow
def test_a_task_that_kills_its_workers_ends_the_command_in_one_line(cluster: Clustered, tmp_path: Path) -> None:
    opened = open_cluster(executor_name(cluster.name), tmp_path, prepare=nothing)
    with opened, pytest.raises(WorkerDiedError) as raised:
        list(opened.run(kill_at_one, range(3)))
    assert f"workers of {cluster.kind} died again and again with the same task" in str(raised.value)
    assert "run the same command again" in str(raised.value)


def test_a_dask_scheduler_that_does_not_answer_is_waited_for_aloud(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dask_engine = pytest.importorskip("shardtrain.runtime.engines.dask_engine")
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_engine, "_SILENT_SECONDS", 0.1)
    monkeypatch.setattr(dask_engine, "_CONNECT_SECONDS", 1)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        with pytest.raises(ExecutorError, match=f"no Dask scheduler answers at '{address}'"):
            dask_engine.DaskEngine(address)
    assert f"waiting for the Dask scheduler at {address}, up to 1 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no Dask scheduler has written its file '{}' within 1 s"),
        ("garbage", "'{}' is no file of a Dask scheduler"),
        ("{}", "'{}' is no file of a Dask scheduler .*expected an address"),
        ('{"address": 8786}', "'{}' is no file of a Dask scheduler .*expected an address"),
    ],
)
def test_a_file_of_a_dask_scheduler_is_waited_for_and_examined(
    content: str | None, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dask_engine = pytest.importorskip("shardtrain.runtime.engines.dask_engine")
    pytest.importorskip("distributed")
    monkeypatch.setattr(dask_engine, "_SILENT_SECONDS", 0.2)
    monkeypatch.setattr(dask_engine, "_CONNECT_SECONDS", 1)
    path = tmp_path / "scheduler.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ExecutorError, match=said.format(re.escape(str(path)))):
        dask_engine.DaskEngine(str(path))


@pytest.mark.parametrize("cluster", ["dask"], indirect=True)
def test_a_file_of_a_dask_scheduler_may_appear_while_it_is_waited_for(cluster: Clustered, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    cluster.complete()
    path = tmp_path / "scheduler.json"
    address = cluster.name.partition(":")[2]
    written = threading.Timer(0.5, lambda: path.write_text(json.dumps({"address": address, "workers": {}})))
    written.start()
    engine = open_engine(executor_name(f"dask:{path}"))
    try:
        assert engine.slots == 2
    finally:
        engine.shutdown()
        written.join()


@pytest.mark.parametrize("cluster", ["dask"], indirect=True)
def test_rows_that_are_skipped_are_recorded_alike(
    cluster: Clustered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("corpus").mkdir()
    rows = "".join(f"{number % 2},some words of {number % 7}\n" for number in range(60))
    Path("corpus/train.csv").write_text(rows + '0,"broken" here\n')
    cluster.complete()
    for executor in ("processes", cluster.name):
        build("corpus", Path(executor[:4]), BuildOptions(executor=executor, on_bad_row="skip"))
    assert_same_folder(Path("proc"), Path("dask"))
    part = json.loads(Path("dask/manifest.json").read_text())["build"]["parts"][0]
    assert [(row["path"], row["line"]) for row in part["rejected"]] == [("train.csv", 61)]
