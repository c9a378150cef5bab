"""Laws of jobs: the first difference is named as the command line writes it."""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shardtrain.errors import (
    DiskFullError,
    LabelError,
    NoRoomError,
    ScratchError,
    ShardsExistError,
    ShardsNotFoundError,
    StorageError,
    UsageError,
    WorkerDiedError,
)
from shardtrain.runtime.jobs import Job, JobFolder, KeptWorkError
from shardtrain.runtime.storage import check_output_file, check_output_folder


@pytest.mark.parametrize(
    ("before", "now", "said"),
    [
        ({"embeddings": None}, {"embeddings": "a.txt"}, "--embeddings was none, it is a.txt now"),
        ({"ngram_range": [1, 2]}, {"ngram_range": [1, 3]}, "--ngram-range was 1 2, it is 1 3 now"),
        ({"devices": []}, {"devices": ["GPU:0"]}, "--devices was none, it is GPU:0 now"),
        ({"binary": False}, {"binary": True}, "--binary was false, it is true now"),
        ({"space": {"units": [4]}}, {"space": {"units": [4, 8]}}, "--units was 4, it is 4 8 now"),
        ({"space": {"units": [4]}}, {"space": {"rate": [4]}}, "--units was 4, it is none now"),
        (
            {"space": {"units": {"low": 4, "high": 8}}},
            {"space": {"units": {"low": 2, "high": 8}}},
            "--units was 4:8, it is 2:8 now",
        ),
        ({"space": {"units": [4, 8]}}, {"space": {"units": {"low": 4, "high": 8}}}, "--units was 4 8, it is 4:8 now"),
        ({"seed": 1}, {"seed": 1}, ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_difference_is_written_as_options_are(before: dict[str, Any], now: dict[str, Any], said: str) -> None:
    assert Job(record={"options": now}).differs_from({"options": before}) == said


# The folder in which a job is done: ours alone, and never emptied but by success and `overwrite`.


def folder_at(path: Path) -> JobFolder:
    return JobFolder(path=path, owner=path, noun="build", error=ShardsExistError, missing=ShardsNotFoundError)


JOB, OTHER = (Job(record={"options": {"seed": seed}}) for seed in (1, 2))


@pytest.mark.parametrize(
    "planted", ["a link to a folder", "a dangling link", "a folder with a file", "a file", "a pipe"]
)
def test_what_no_job_made_is_refused_and_left_alone(planted: str, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "important").write_text("precious")
    working = tmp_path / ".building"
    if planted == "a folder with a file":
        victim.rename(working)
        victim = working
    elif planted == "a file":
        working.write_text("precious")
    elif planted == "a pipe":
        os.mkfifo(working)
    else:
        working.symlink_to(victim if planted == "a link to a folder" else tmp_path / "absent")
    with pytest.raises(ShardsExistError, match="is not a folder that a build made"), folder_at(working).made_and_held():
        pass
    assert (victim / "important").read_text() == "precious"
    assert sorted(path.name for path in victim.iterdir()) == ["important"]
    assert not (tmp_path / "absent").exists()


def test_a_folder_that_was_killed_while_it_was_claimed_is_ours(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "job.json.0123456789abcdef.partial").write_text("{")
    with folder_at(tmp_path / "w").made_and_held():
        assert sorted(path.name for path in (tmp_path / "w").iterdir()) == [".lock", "job.json"]


@pytest.mark.parametrize(
    "failure",
    [
        KeyboardInterrupt(),
        StorageError("io"),
        DiskFullError("full"),
        WorkerDiedError("died"),
        MemoryError(),
        OSError(5, "io"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_finished_work_outlives_every_failure_and_only_overwrite_lets_another_job_discard_it(
    failure: BaseException, tmp_path: Path
) -> None:
    folder = folder_at(tmp_path / "w")
    fail_at_work(folder, failure)
    with folder.made_and_held():
        with pytest.raises(KeptWorkError, match="overwrite"):
            folder.begin(OTHER, overwrite=False)
        assert folder.begin(JOB, overwrite=False)
        assert (folder.path / "unit").exists()
        assert not folder.begin(OTHER, overwrite=True)
        assert not (folder.path / "unit").exists()


@pytest.mark.parametrize("failure", [LabelError("labels"), UsageError("options"), NoRoomError("room")])
def test_after_a_failure_of_its_own_input_another_job_may_take_the_folder(failure: Exception, tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "w")
    fail_at_work(folder, failure)
    with folder.made_and_held():
        assert folder.begin(JOB, overwrite=False)  # resumed: it counts as interrupted again
        with pytest.raises(KeptWorkError):
            folder.begin(OTHER, overwrite=False)
    fail_at_work(folder, failure)
    with folder.made_and_held():
        assert not folder.begin(OTHER, overwrite=False)
        assert not (folder.path / "unit").exists()


def fail_at_work(folder: JobFolder, failure: BaseException) -> None:
    """Do a unit of the job, then fail."""

    def work() -> None:
        with folder.made_and_held(), folder.work(JOB, overwrite=False):
            (folder.path / "unit").write_text("done")
            raise failure

    with pytest.raises(type(failure)):
        work()


def test_work_whose_scratch_files_are_damaged_is_not_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same command begins anew: it would fail again, and nothing else would discard the files."""
    folder = folder_at(tmp_path / "w")
    fail_at_work(folder, ScratchError("damaged"))
    with folder.made_and_held():
        assert not folder.begin(JOB, overwrite=False)
        assert not (folder.path / "unit").exists()
        assert "are damaged; it starts again" in capsys.readouterr().err
        assert folder.begin(JOB, overwrite=False)


def test_a_failure_before_any_work_leaves_nothing(tmp_path: Path) -> None:
    folder = folder_at(tmp_path / "w")
    with pytest.raises(LabelError), folder.made_and_held(), folder.work(JOB, overwrite=False):
        raise LabelError("labels")
    assert list(tmp_path.iterdir()) == []


# Paths of results.


def planted_at(path: Path, kind: str) -> None:
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "below a file":
        path.parent.write_text("mine")
    else:
        path.symlink_to(path.with_name("secret") if kind == "link" else path.with_name("absent"))


@pytest.mark.parametrize("kind", ["folder", "pipe", "link", "dangling link", "below a file"])
def test_an_output_file_that_would_not_be_a_new_file_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    path = tmp_path / ("file/out" if kind == "below a file" else "out")
    (tmp_path / "secret").write_text("precious")
    planted_at(path, kind)
    with pytest.raises(UsageError, match=r"is a (?:folder|device or a pipe|link|file)"):
        check_output_file(path, "--output")
    assert (tmp_path / "secret").read_text() == "precious"


@pytest.mark.parametrize("kind", ["pipe", "dangling link", "below a file"])
def test_an_output_folder_that_cannot_be_one_is_refused_and_a_link_to_a_folder_is_followed(
    kind: str, tmp_path: Path
) -> None:
    path = tmp_path / ("file/out" if kind == "below a file" else "out")
    planted_at(path, kind)
    with pytest.raises(UsageError, match=r"is a (?:file|link)"):
        check_output_folder(path, "--out")
    (tmp_path / "data").mkdir()
    (tmp_path / "linked").symlink_to(tmp_path / "data")
    check_output_folder(tmp_path / "linked", "--out")
    check_output_folder(tmp_path / "linked" / "new", "--out")


@pytest.mark.parametrize("call", ["fsync", "unlink", "rmdir", "scandir"])
@pytest.mark.parametrize("evidence", [frozenset(), frozenset({"manifest.json"})], ids=["plain", "with evidence"])
def test_a_finished_folder_goes_whichever_of_its_calls_fails_once(
    call: str,
    evidence: frozenset[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    real, count, failing = getattr(os, call), 0, 0

    def once(*args: Any, **how: Any) -> Any:
        nonlocal count
        count += 1
        if count == failing:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(*args, **how)

    def finish_while_it_fails(number: int) -> None:
        nonlocal count, failing
        folder = replace(folder_at(tmp_path / "work"), evidence=evidence)
        with folder.made_and_held(), folder.work(JOB, overwrite=False):
            (folder.path / "scratch").mkdir()
            (folder.path / "scratch" / "unit").touch()
            (folder.path / "manifest.json").touch()
            count, failing = 0, number
            monkeypatch.setattr(os, call, once)
        monkeypatch.undo()
        assert not folder.path.exists()

    finish_while_it_fails(0)
    calls = count
    assert calls
    for number in range(1, calls + 1):
        finish_while_it_fails(number)
    assert "could not be removed" not in capsys.readouterr().err
