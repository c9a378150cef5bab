"""Builds on shared storage: another machine goes on, and drivers and workers that come back late change nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from support.comparing import assert_same_folder
from support.forked import Forking
from support.hosts import ROOT, Driver, Host
from support.sampled import sampled

from shardtrain.pipeline import build as job
from shardtrain.pipeline import publishing, shards_job
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.publishing import PUBLISHING
from shardtrain.runtime.jobs import RECORD, JobFolder
from shardtrain.runtime.system import process_start
from shardtrain.shards import layout
from shardtrain.shards.verify import verify_shards

OPTIONS = BuildOptions(workers=1, min_df=1, rows_per_shard=200)
OTHER = replace(OPTIONS, seed=7, overwrite=True)
# Builds in small units; before a rename in the output, given by its number or the file's name, it stops, kills itself,
# or waits for its input to end.
BUILD = """
import json, os, signal, sys
from shardtrain.cli.main import main
from shardtrain.pipeline import build as job
corpus, out, how, at, *words = sys.argv[1:]
job.UNIT_BYTES = 1 << 14
renames, real = 0, os.replace
def replace(source, target):
    global renames
    if out in str(target):
        renames += 1
        if at in (str(renames), os.path.basename(target)):
            print("now", flush=True)
            sys.stdin.read() if how == "wait" else os.kill(os.getpid(), getattr(signal, how))
    real(source, target)
os.replace = replace
command = ["build", corpus, "--out", out, "--workers", "1", "--min-df", "1", "--rows-per-shard", "200", *words]
sys.exit(main(command))
"""
MIDDLE = "12"  # a rename after some units were counted


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.csv"
    lines = [f'"{"ab"[n % 2]}",{" ".join(f"w{n * k % 83}" for k in range(1, 30))}' for n in range(900)]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Uninterrupted builds, by seed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "UNIT_BYTES", 1 << 14)
        for options in (OPTIONS, OTHER):
            build(corpus, folder / str(options.seed), options)
    return {options.seed: folder / str(options.seed) for options in (OPTIONS, OTHER)}


@pytest.fixture(autouse=True)
def _small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "UNIT_BYTES", 1 << 14)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    (tmp_path / "disk").mkdir()
    return tmp_path / "disk"


def begun(building: Forking, host: Host, corpus: Path, out: Path, how: str, at: str = MIDDLE, *words: str) -> Driver:
    driver = host.start(BUILD, corpus, out, how, at, *words, server=building)
    assert driver.line("now", "error") == "now"
    return driver


def counted(out: Path) -> dict[Path, int]:
    """When the postings of each counted unit were written."""
    return {path: path.stat().st_mtime_ns for path in out.rglob("scratch/run/*/*") if not path.name.endswith("partial")}


@pytest.mark.parametrize("kind", sampled(["nfs4", "ext4"]))
def test_a_build_goes_on_on_another_machine_where_the_storage_is_shared(
    kind: str, building: Forking, corpus: Path, whole: dict[int, Path], disk: Path
) -> None:
    with begun(building, Host("node7", disk, kind=kind), corpus, disk / "out", "SIGKILL") as first:
        first.end()
        before = counted(disk / "out")
        assert before
        with begun(building, Host("node8", disk, kind=kind), corpus, disk / "out", "wait", layout.MEASURED) as second:
            assert (counted(disk / "out").items() >= before.items()) is (kind == "nfs4")
            code, told = second.end()
    assert code == 0, told
    assert_same_folder(disk / "out", whole[OPTIONS.seed])


@pytest.mark.parametrize(
    ("kind", "said"), sampled([("nfs4", "resuming the interrupted"), ("ext4", "the machine was restarted")])
)
def test_after_a_restart_of_its_machine_a_build_goes_on_where_the_storage_is_shared(
    kind: str, said: str, building: Forking, corpus: Path, whole: dict[int, Path], disk: Path
) -> None:
    host = Host("node7", disk, kind=kind)
    with begun(building, host, corpus, disk / "out", "SIGKILL") as first:
        first.end()
    host.restart()
    assert said in host.run(BUILD, corpus, disk / "out", "wait", "none", server=building)
    assert_same_folder(disk / "out", whole[OPTIONS.seed])


@pytest.mark.parametrize("kind", sampled(["nfs4", "ext4"]))
def test_a_second_driver_is_told_which_process_builds(
    kind: str, building: Forking, corpus: Path, whole: dict[int, Path], disk: Path
) -> None:
    out = disk / "out"
    with begun(building, Host("node7", disk, kind=kind), corpus, out, "wait") as first:
        for node in ("node7", "node8"):
            with Host(node, disk, kind=kind).start(BUILD, corpus, out, "wait", "none", server=building) as second:
                code, said = second.end()
            assert code == 1
            where = f"error: another build is running in '{out}' (process {first.process.pid} on node7, since "
            assert said.splitlines()[-1].startswith(where)
        assert first.end()[0] == 0
    assert_same_folder(out, whole[OPTIONS.seed])


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("at", "meanwhile"),
    sampled(product(["3", MIDDLE, layout.MEASURED], ["the same job", "another job"]), (5,)),
)
def test_a_stopped_driver_whose_folder_was_taken_over_publishes_nothing_when_it_goes_on(
    at: str, meanwhile: str, building: Forking, corpus: Path, whole: dict[int, Path], disk: Path
) -> None:
    out, words = disk / "out", () if meanwhile == "the same job" else ("--seed", "7", "--overwrite")
    seed = OPTIONS.seed if meanwhile == "the same job" else OTHER.seed
    with (
        begun(building, Host("node7", disk), corpus, out, "SIGSTOP", at) as first,
        begun(building, Host("node8", disk), corpus, out, "wait", "4", *words) as second,
    ):
        first.go_on()
        code, said = first.end()
        assert code == 1, said
        assert f"was taken over by process {second.process.pid} on node8" in said.splitlines()[-1]
        assert not (out / layout.MANIFEST).exists()
        assert second.end()[0] == 0
    assert_same_folder(out, whole[seed])


# Workers that outlive their driver.


@pytest.fixture
def orphaned(corpus: Path, tmp_path: Path) -> Iterator[Path]:
    """An output whose driver was killed, while its workers go on until the file LINGER in the same folder is gone."""
    linger, out = tmp_path / "LINGER", tmp_path / "out"
    command = [sys.executable, "-m", "shardtrain", "build", corpus, "--out", out, "--min-df", "1"]
    command += ["--rows-per-shard", "200", "--executor", "support.executors:lingering"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "LINGER": str(linger)}
    linger.touch()
    driver = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    while not list(out.rglob("scratch/run/*/*.partial")):
        assert driver.poll() is None
        time.sleep(0.01)
    driver.kill()
    driver.wait()
    try:
        yield out
    finally:
        let_go_on(linger)


def let_go_on(linger: Path) -> None:
    """Let the workers that outlived their driver finish their tasks, and wait until they have ended."""
    linger.unlink(missing_ok=True)
    for mark in linger.parent.glob(f"{linger.name}-*"):
        process = int(mark.name.rpartition("-")[2])
        end = time.monotonic() + 30
        while process_start(process):
            if time.monotonic() > end:
                os.kill(process, signal.SIGKILL)
            time.sleep(0.01)


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("when", "job_of"), sampled(product(["while it runs", "after it"], ["another job", "the same job"]), (1,))
)
def test_workers_that_outlive_their_driver_never_damage_what_is_built_in_its_folder(
    job_of: str, when: str, orphaned: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # units are as large as for the orphans
    options = OTHER if job_of == "another job" else OPTIONS
    build(corpus, tmp_path / "alone", options)
    if when == "while it runs":
        with monkeypatch.context() as patch:
            patch.setattr(job, "place_split", interrupt)
            with pytest.raises(KeyboardInterrupt):
                build(corpus, orphaned, options)
        let_go_on(tmp_path / "LINGER")
    build(corpus, orphaned, options)
    let_go_on(tmp_path / "LINGER")
    assert_same_folder(orphaned, tmp_path / "alone")


# Folders of versions that had no folder of each job.


def as_of_older_version(out: Path) -> None:
    """Change the records in a working folder to those of a version without folders of jobs."""
    working = out / layout.WORKING
    record = json.loads((working / RECORD).read_text())
    (working / RECORD).write_text(json.dumps({**record, "boot": record.pop("store")}))
    if (working / PUBLISHING).exists():
        begun = json.loads((working / PUBLISHING).read_text())
        assert begun.pop("ready") == layout.READY
        (working / PUBLISHING).write_text(json.dumps(begun))


STEPS = ["place_split", "first_manifest", "publish", "_put_in_place", "_remove_older"]


@pytest.mark.parametrize(("step", "overwrite"), sampled(product(STEPS, [False, True]), (0, 5, 6, 9)))
def test_what_an_older_version_left_is_read_and_finished(
    step: str, overwrite: bool, corpus: Path, whole: dict[int, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, options = tmp_path / "out", replace(OTHER, overwrite=overwrite)
    if overwrite:
        shutil.copytree(whole[OPTIONS.seed], out)
    owner = {"publish": shards_job, "place_split": job, "first_manifest": job}.get(step, publishing.Publication)
    with monkeypatch.context() as patch:
        patch.setattr(JobFolder, "place_of", lambda folder, _: folder.path)
        patch.setattr(owner, step, interrupt)
        with pytest.raises(KeyboardInterrupt):
            build(corpus, out, options)
    as_of_older_version(out)
    if overwrite and step.startswith("_"):
        assert verify_shards(out, advance=lambda _: None).faults == ()
    with monkeypatch.context() as patch:
        if step not in ("place_split", "first_manifest"):
            patch.setattr(job, "place_split", interrupt)  # what is made is not made again
        build(corpus, out, options)
    assert_same_folder(out, whole[OTHER.seed])


def test_a_record_of_a_publication_names_no_folder_but_its_own(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publishing.Publication, "_put_in_place", interrupt)
    with pytest.raises(KeyboardInterrupt):
        build(corpus, tmp_path / "out", OPTIONS)
    record = tmp_path / "out" / layout.WORKING / PUBLISHING
    whole = json.loads(record.read_text())
    for ready in ("..", "../../other", "/tmp", "0123/ready", 7, None):
        record.write_text(json.dumps(whole))
        assert publishing.begun_publication(tmp_path / "out") is not None
        record.write_text(json.dumps({**whole, "ready": ready}))
        assert publishing.begun_publication(tmp_path / "out") is None, ready
