"""A file under its final name is whole: after a failure, a kill or on a full disk, nothing half-written is left."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from support.comparing import assert_same_folder
from support.disk import small_disk
from support.sampled import sampled

from shardtrain.errors import DiskFullError, StorageError
from shardtrain.runtime.atomic import (
    commit_bytes,
    commit_file,
    commit_folder,
    commit_json,
    committed,
    remove_partials,
)

ROOT = Path(__file__).resolve().parents[2]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_only_when_it_is_whole(tmp_path):
    path = tmp_path / "a"
    with committed(path) as file:
        file.write(b"one")
        file.flush()
        assert not path.exists()
    assert path.read_bytes() == b"one"
    assert names(tmp_path) == ["a"]


def test_the_file_being_written_can_be_read_back(tmp_path):
    with committed(tmp_path / "a") as file:
        file.write(b"head")
        file.seek(0)
        assert file.read() == b"head"


@pytest.mark.parametrize("failure", [ValueError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("before", [None, b"old"], ids=["where nothing was", "over an older file"])
def test_a_failure_leaves_everything_as_it_was(failure, before, tmp_path):
    path = tmp_path / "a"
    if before is not None:
        path.write_bytes(before)

    def write():
        with committed(path) as file:
            file.write(b"new")
            raise failure

    with pytest.raises(failure):
        write()
    assert names(tmp_path) == ([] if before is None else ["a"])
    assert before is None or path.read_bytes() == before


@pytest.mark.parametrize("synced", [True, False])
def test_a_commit_replaces_the_older_file_in_one_step(synced, tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with open(path, "rb") as reader, committed(path, synced=synced) as file:
        file.write(b"new")
        file.flush()
        assert reader.read() == b"old"
    assert path.read_bytes() == b"new"


def test_a_killed_commit_leaves_the_old_file_and_one_partial_that_the_next_commit_replaces(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = f"""
        import os, signal
        from shardtrain.runtime.atomic import committed
        with committed({str(path)!r}) as file:
            file.write(b"x" * 100_000)
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], cwd=ROOT, check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert names(tmp_path)[0] == "a"
    assert re.fullmatch(r"a\.[0-9a-f]{16}\.partial", names(tmp_path)[1])
    commit_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_partials_are_swept_and_nothing_else(tmp_path):
    (tmp_path / "below").mkdir()
    left = f".{'0123456789abcdef'}.partial"
    for name in ("a", f"a{left}", f"b.h5{left}", f"c{left}.keras", "a.partial", "partial", f"below/d{left}"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / f"linked{left}").symlink_to(tmp_path / "a")
    remove_partials(tmp_path, "b.h5")
    assert f"b.h5{left}" not in names(tmp_path)
    assert f"a{left}" in names(tmp_path)
    remove_partials(tmp_path)
    assert names(tmp_path) == ["a", "a.partial", "below", "partial"]
    assert names(tmp_path / "below") == [f"d{left}"]
    remove_partials(tmp_path, below=True)
    assert names(tmp_path / "below") == []


def test_a_commit_that_is_being_made_is_not_swept_by_another(tmp_path):
    with committed(tmp_path / "a") as first:
        first.write(b"first")
        commit_bytes(tmp_path / "a", b"second")
        assert len(names(tmp_path)) == 2
    assert (tmp_path / "a").read_bytes() == b"first"
    assert names(tmp_path) == ["a"]


def test_two_attempts_at_one_file_never_write_to_the_same_place(tmp_path):
    """An engine that retries may have both alive: each publishes whole bytes, the later one last."""
    with committed(tmp_path / "a", synced=False) as slow:
        slow.write(b"whole" * 100)
        with committed(tmp_path / "a", synced=False) as fast:
            fast.write(b"whole" * 100)
        assert (tmp_path / "a").read_bytes() == b"whole" * 100
    assert (tmp_path / "a").read_bytes() == b"whole" * 100


@pytest.mark.parametrize("plant", ["link", "folder", "link in the place of the file"])
def test_what_is_planted_where_files_are_made_is_never_written_to(plant, tmp_path):
    (tmp_path / "secret").write_text("precious")
    target = tmp_path / "a"
    if plant == "folder":
        (tmp_path / "a.partial").mkdir()
    else:
        (target if plant.endswith("file") else tmp_path / "a.partial").symlink_to(tmp_path / "secret")
    commit_bytes(target, b"new")
    assert (tmp_path / "secret").read_text() == "precious"
    assert not target.is_symlink()
    assert target.read_bytes() == b"new"


def test_a_failed_call_is_reported_with_its_name_and_the_file(tmp_path, monkeypatch):
    real = os.replace
    for name, said in (("replace", "rename"), ("open", "open")):
        with monkeypatch.context() as patched:
            patched.setattr(os, name, lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
            with pytest.raises(StorageError, match=rf"/a' could not be written: Input/output error \({said}\)"):
                commit_bytes(tmp_path / "a", b"new")
    assert real is os.replace
    assert names(tmp_path) == []


def test_where_only_the_sync_of_the_folder_fails_the_message_says_that_the_file_is_there(tmp_path, monkeypatch):
    def fail(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match="is there and complete, but might not survive"):
        commit_bytes(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"new"


def test_a_file_of_another_library_gets_its_final_name(tmp_path):
    (tmp_path / "temporary").write_bytes(b"new")
    (tmp_path / "final").write_bytes(b"old")
    commit_file(tmp_path / "temporary", tmp_path / "final")
    assert names(tmp_path) == ["final"]
    assert (tmp_path / "final").read_bytes() == b"new"


@pytest.mark.parametrize("files", [3, 300], ids=["few files", "many files"])
@pytest.mark.parametrize("before", [False, True], ids=["where nothing was", "over an empty folder"])
def test_a_folder_gets_its_final_name_with_all_that_is_in_it(before, files, tmp_path):
    staged = tmp_path / "staged"
    (staged / "below").mkdir(parents=True)
    for place in range(files):
        (staged / "below" / f"{place}").write_bytes(b"one")
    if before:
        (tmp_path / "a").mkdir()
    commit_folder(staged, tmp_path / "a")
    assert names(tmp_path) == ["a"]
    assert len(names(tmp_path / "a" / "below")) == files


def test_a_folder_is_never_committed_over_files(tmp_path):
    for name in ("staged", "a"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_bytes(b"one")
    with pytest.raises(OSError, match="not empty"):
        commit_folder(tmp_path / "staged", tmp_path / "a")
    assert [names(tmp_path), names(tmp_path / "a"), names(tmp_path / "staged")] == [["a", "staged"], ["a"], ["staged"]]


def test_json_is_read_back_and_what_is_no_json_is_refused_without_a_trace(tmp_path):
    value = {"text": "Märkte", "number": 0.1, "list": [1, None, True]}
    commit_json(tmp_path / "a.json", value)
    assert json.loads((tmp_path / "a.json").read_bytes()) == value
    for bad in (float("nan"), float("inf"), {1, 2}):
        with pytest.raises((ValueError, TypeError)):
            commit_json(tmp_path / "b.json", bad)
    assert names(tmp_path) == ["a.json"]


# A full disk: a real file system of a few pages.

PAGE = 4096


@pytest.fixture
def corpus(tmp_path) -> Path:
    lines = [
        json.dumps({"label": "ab"[i % 2], "text": " ".join(f"w{i * j % 977}" for j in range(1, 40))})
        for i in range(1000)
    ]
    path = tmp_path / "corpus.jsonl"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("synced", [True, False])
def test_a_full_disk_is_an_error_of_its_own_and_leaves_the_old_file(synced, tmp_path):
    with small_disk(tmp_path / "disk", 16 * PAGE) as disk:
        commit_bytes(disk / "a", b"old" * 1000)

        def write():
            with committed(disk / "a", synced=synced) as file:
                file.write(os.urandom(20 * PAGE))

        with pytest.raises(DiskFullError, match=r"no room left on the disk while writing .*/a'.*free some space"):
            write()
        assert names(disk) == ["a"]
        assert (disk / "a").read_bytes() == b"old" * 1000


def test_a_shard_that_does_not_fit_the_disk_is_refused_wherever_the_disk_ends(tmp_path):
    """In a process of its own, which has to end well: libhdf5 can crash at exit after a failed write."""
    code = """
        import sys
        from pathlib import Path
        from support.handmade import make_rows, write_shard
        from shardtrain.errors import DiskFullError, StorageError
        disk, outcomes = Path(sys.argv[1]), []
        rows = make_rows("sequence", 2000)
        for free in range(24):  # pages; the shard takes more
            (disk / "other").write_bytes(b"x" * (40 - free) * 4096)
            try:
                write_shard(disk / "shard.h5", rows)
            except Exception as error:
                outcomes.append(type(error).__name__)
            assert [path.name for path in disk.iterdir()] == ["other"]
        print(*outcomes)
    """
    with small_disk(tmp_path / "disk", 40 * PAGE) as disk:
        done = run_python("-c", textwrap.dedent(code), str(disk))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.split() == ["DiskFullError"] * 24


@pytest.mark.heavy
@pytest.mark.parametrize("kind", sampled(["ngram", "sequence"]))
def test_a_build_on_a_full_disk_says_so_wherever_the_disk_ends_and_goes_on_when_there_is_room(kind, corpus, tmp_path):
    """Every few pages from a disk without room to one on which the build just fits.

    The estimate is set aside, as if something else filled the disk while the build runs.
    """
    code = """
        import sys
        from pathlib import Path
        from shardtrain.pipeline import build as job
        from shardtrain.pipeline.build import build
        from shardtrain.pipeline.options import BuildOptions
        job.disk_ratio = lambda settings: 0
        corpus, disk, kind = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
        options = BuildOptions(vectorizer=kind, workers=1)
        outcomes = []
        for free in range(0, 4096, 71):
            (disk / "other").write_bytes(b"x" * (4096 - free) * 4096)
            try:
                build(corpus, disk / "out", options)
                break
            except Exception as error:
                outcomes.append(type(error).__name__)
            assert not (disk / "out" / "manifest.json").exists()
        else:
            raise SystemExit("never fitted")
        print(*outcomes)
    """
    from shardtrain.pipeline.build import build
    from shardtrain.pipeline.options import BuildOptions

    with small_disk(tmp_path / "disk", 4096 * PAGE) as disk:
        done = run_python("-c", textwrap.dedent(code), str(corpus), str(disk), kind)
        assert done.returncode == 0, done.stderr
        build(corpus, tmp_path / "whole", BuildOptions(vectorizer=kind, workers=1))
        assert_same_folder(disk / "out", tmp_path / "whole")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) > 3
    assert set(done.stdout.split()) == {"DiskFullError"}


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_a_disk_that_is_too_small_is_said_before_work_starts(kind, corpus, tmp_path, capsys):
    from shardtrain.pipeline.build import build
    from shardtrain.pipeline.options import BuildOptions

    with small_disk(tmp_path / "disk", 2 * corpus.stat().st_size // PAGE * PAGE) as disk:
        with pytest.raises(DiskFullError, match=r"needs about [\d.]+ MB .* has [\d.]+ kB"):
            build(corpus, disk / "out", BuildOptions(vectorizer=kind))
        assert names(disk) == []
    assert "counting n-grams" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "options"),
    [
        pytest.param("ag_news", {}, id="n-grams of ag_news", marks=pytest.mark.slow),
        pytest.param("ag_news", {"min_df": 1}, id="rare n-grams of ag_news"),
        pytest.param("ag_news", {"vectorizer": "sequence"}, id="sequences of ag_news", marks=pytest.mark.slow),
        pytest.param("dbpedia", {}, id="n-grams of dbpedia", marks=pytest.mark.slow),
        pytest.param("dbpedia", {"min_df": 1}, id="rare n-grams of dbpedia", marks=pytest.mark.slow),
        pytest.param("dbpedia", {"vectorizer": "sequence"}, id="sequences of dbpedia"),
    ],
)
def test_a_build_takes_no_more_disk_than_was_estimated(name, options, data, tmp_path):
    from shardtrain.pipeline import build as job
    from shardtrain.pipeline.build import build
    from shardtrain.pipeline.options import BuildOptions

    chosen = BuildOptions(workers=1, **options)
    num_bytes = sum((data / name / split).stat().st_size for split in ("train.csv", "test.csv"))
    ratio = job.disk_ratio(chosen.settings(chosen.vectorizer))
    with small_disk(tmp_path / "disk", ratio * num_bytes + (1 << 20)) as disk:
        build(data / name, disk / "out", chosen)
        assert "manifest.json" in names(disk / "out")


def test_the_build_command_ends_with_one_line_and_exit_code_1_on_a_full_disk(corpus, tmp_path, capsys):
    from shardtrain.cli.main import main

    with small_disk(tmp_path / "disk", 100 * PAGE) as disk:
        assert main(["build", str(corpus), "--out", str(disk / "out"), "--workers", "1"]) == 1
        assert names(disk) == []
    said = capsys.readouterr().err
    assert said.splitlines()[-1].startswith("error: the build needs about ")
    assert "Traceback" not in said


def test_a_full_disk_leaves_older_shards_as_they_are(corpus, tmp_path, monkeypatch):
    from shardtrain.loader.shards import open_shards
    from shardtrain.pipeline import build as job
    from shardtrain.pipeline.build import build
    from shardtrain.pipeline.options import BuildOptions

    with small_disk(tmp_path / "disk", 4096 * PAGE) as disk:
        build(corpus, disk / "out", BuildOptions(workers=1))
        before = {path.name: path.read_bytes() for path in (disk / "out").rglob("*.*") if path.is_file()}
        taken = os.statvfs(disk)
        (disk / "other").write_bytes(b"x" * (taken.f_bavail - 60) * PAGE)
        with pytest.raises(DiskFullError):
            build(corpus, disk / "out", BuildOptions(workers=1, seed=2, overwrite=True))
        monkeypatch.setattr(job, "disk_ratio", lambda settings: 0)  # and when the disk fills up meanwhile
        with pytest.raises(DiskFullError, match="while writing"):
            build(corpus, disk / "out", BuildOptions(workers=1, seed=2, overwrite=True))
        assert {path.name: path.read_bytes() for path in (disk / "out").rglob("*.*") if path.is_file()} == before
        with open_shards(disk / "out") as shards:
            assert sum(len(y) for _, y in shards.train.batches(100)) == shards.train.num_examples


def run_python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python with the project and the tests' own modules on its path."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, cwd=ROOT, env=environment
    )
