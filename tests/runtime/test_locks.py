"""Laws of locks: one process holds a folder, on a disk and on shared storage, and others are told which."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.hosts import Driver, Host, mount_table

from shardtrain.errors import StorageError, TakenOverError
from shardtrain.runtime import leases, locks, system
from shardtrain.runtime.atomic import commit_bytes, committed, remove_partials
from shardtrain.runtime.holders import LOCK, MAX_BYTES, Holder, is_lock, parse_holder, this_process
from shardtrain.runtime.leases import HeldError
from shardtrain.runtime.locks import check_held, is_held, locked_folder
from shardtrain.runtime.store import long_untouched

# Holds a folder until its input ends, then looks whether it still does, and commits a file in it.
HOLD = """
import sys
from shardtrain.errors import TakenOverError
from shardtrain.runtime.atomic import commit_bytes
from shardtrain.runtime.leases import HeldError
from shardtrain.runtime.locks import locked_folder
folder = Path(sys.argv[1])
try:
    with locked_folder(folder):
        print("held", flush=True)
        sys.stdin.read()
        commit_bytes(folder / "made", sys.argv[2].encode())
        print("made")
except HeldError as held:
    print("refused:", held.holder, flush=True)
except TakenOverError as lost:
    print("lost:", lost)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture(params=["ext4", "nfs4"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def shared(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder, on shared storage for this process."""
    monkeypatch.setattr(system, "MOUNTS", mount_table(folder, "nfs4"))
    monkeypatch.setattr(locks, "TERM", 0.4)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def started(host: Host, folder: Path, content: str = "") -> Driver:
    driver = host.start(HOLD, folder, content)
    assert driver.line("held", "refused") == "held"
    return driver


def test_who_comes_second_is_told_who_holds_the_folder(kind: str, folder: Path) -> None:
    host = Host("node7", folder, kind=kind)
    with started(host, folder) as first:
        said = host.run(HOLD, folder, "second")
        assert said.startswith(f"refused: process {first.process.pid} on node7, since ")
        assert first.end()[1] == "made\n"
    assert host.run(HOLD, folder, "third") == "held\nmade\n"
    assert names(folder) == ["made"]


def test_a_process_that_was_killed_holds_nothing_on_its_machine_at_once(kind: str, folder: Path) -> None:
    """Although nobody has awaited it, and a lease would last for an hour."""
    host = Host("node7", folder, kind=kind, term=3600)
    with started(host, folder) as first:
        first.kill()
        while system.process_start(first.process.pid):
            time.sleep(0.01)
        assert host.run(HOLD, folder, "second") == "held\nmade\n"
    assert names(folder) == ["made"]


def test_on_shared_storage_the_living_process_of_another_machine_keeps_its_folder(folder: Path) -> None:
    with started(Host("node7", folder), folder) as first:
        said = Host("node8", folder).run(HOLD, folder, "second")
        assert "looking for up to 1 seconds whether that is running" in said
        assert said.splitlines()[-1].startswith(f"refused: process {first.process.pid} on node7")
        assert first.end()[1] == "made\n"


def test_on_shared_storage_the_folder_of_a_dead_machine_is_taken_over(folder: Path) -> None:
    with started(Host("node7", folder), folder) as first:
        first.kill()
        assert Host("node8", folder).run(HOLD, folder, "second").endswith("held\nmade\n")
    assert names(folder) == ["made"]


def test_of_several_that_wait_for_a_dead_machine_one_gets_the_folder(folder: Path) -> None:
    with started(Host("node7", folder), folder) as first:
        first.kill()
        waiting = [Host(f"node{number}", folder).start(HOLD, folder, str(number)) for number in range(4)]
        answers = [driver.line("held", "refused") for driver in waiting]
        assert sorted(answer.partition(":")[0] for answer in answers) == ["held", *["refused"] * 3]
        assert sum("made" in driver.end()[1] for driver in waiting) == 1
    assert names(folder) == ["made"]


def test_a_stopped_process_whose_folder_was_taken_over_makes_nothing_when_it_goes_on(folder: Path) -> None:
    with started(Host("node7", folder), folder, "first") as first:
        first.stop()
        with started(Host("node8", folder), folder, "second") as second:
            first.go_on()
            _, said = first.end()
            assert "lost: " in said
            assert f"was taken over by process {second.process.pid} on node8" in said
            assert not (folder / "made").exists()
            assert second.end()[1] == "made\n"
    assert (folder / "made").read_text() == "second"
    assert names(folder) == ["made"]


def test_a_stopped_process_does_not_touch_the_lease_of_those_who_came_after_it(folder: Path) -> None:
    """The one who took over has ended, and a third process holds the folder by a file of the first one's name."""
    with started(Host("node7", folder), folder, "first") as first:
        first.stop()
        Host("node8", folder).run(HOLD, folder, "second")
        with started(Host("node9", folder), folder, "third") as third:
            first.go_on()
            assert "was taken over by process" in first.end()[1]
            time.sleep(0.6)
            assert (folder / "made").read_text() == "second"
            assert third.end()[1] == "made\n"
    assert (folder / "made").read_text() == "third"


def test_a_lease_is_looked_at_before_something_becomes_visible(shared: Path) -> None:
    with locked_folder(shared):
        check_held(shared)
        lease = parse_holder((shared / LOCK).read_bytes())
        assert lease is not None
        after = shared / f"{LOCK}-after-{lease.token}"
        after.write_bytes(this_process(60).content)
        with pytest.raises(TakenOverError, match="was taken over by process"):
            check_held(shared)
        with pytest.raises(TakenOverError):
            commit_bytes(shared / "made", b"")
    assert names(shared) == [LOCK, after.name]  # another's, so they stay


def test_a_lease_is_renewed_in_its_place(shared: Path) -> None:
    with locked_folder(shared):
        before, inode = (shared / LOCK).read_bytes(), (shared / LOCK).stat().st_ino
        end = time.monotonic() + 10
        while (shared / LOCK).read_bytes() == before and time.monotonic() < end:
            time.sleep(0.01)
        assert (shared / LOCK).stat().st_ino == inode
        assert len((shared / LOCK).read_bytes()) == len(before)
        assert names(shared) == [LOCK]
    assert names(shared) == []


def test_a_storage_that_does_not_answer_for_a_while_costs_nothing(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with locked_folder(shared):
        with monkeypatch.context() as patch:
            patch.setattr(leases, "_chain", unanswered)
            with pytest.raises(StorageError, match="Stale"):
                check_held(shared)
            time.sleep(0.3)
        check_held(shared)
        commit_bytes(shared / "made", b"")


def unanswered(*_: Any) -> Iterator[Any]:
    raise OSError(116, "Stale file handle")


@pytest.mark.parametrize("content", [b"", b"{", b'{"token": "../.."}', b"\xff" * 100])
def test_a_lease_that_cannot_be_read_is_watched_like_any_other(content: bytes, shared: Path) -> None:
    (shared / LOCK).write_bytes(content)
    with locked_folder(shared):
        check_held(shared)
    assert names(shared) == []


def test_where_there_are_no_links_a_lease_is_put_all_the_same(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: Any, **__: Any) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", unsupported)
    with locked_folder(shared), pytest.raises(HeldError, match=f"process {os.getpid()} on "), locked_folder(shared):
        pass
    assert names(shared) == []


def test_who_must_not_wait_takes_only_what_was_left_days_ago(shared: Path) -> None:
    left = Holder(**{**vars(this_process(60)), "machine": "another"})
    (shared / LOCK).write_bytes(left.content)
    with pytest.raises(HeldError), locked_folder(shared, patient=False):
        pass
    os.utime(shared / LOCK, (0, 0))
    with locked_folder(shared, patient=False):
        assert is_held(shared)
    assert not is_held(shared)


def test_a_number_that_another_process_has_by_now_is_not_taken_for_the_holder() -> None:
    ours = this_process(0)
    assert ours.here
    assert ours.runs
    assert not Holder(**{**vars(ours), "started": "1"}).runs
    assert not Holder(**{**vars(ours), "machine": "another"}).here
    assert not Holder(**{**vars(ours), "machine": ""}).here


WRONG: dict[str, list[Any]] = {
    "process": [-1, 0, 1.5, True, "1", 1 << 31],
    "token": ["x", 5, None],
    "since": ["now", 5, "9999-12-31T23:59:59-12:00"],
    "host": [1, None],
    "beat": ["-1", 5, "9" * 5000],
    "term": [-1, 1e12, float("inf"), float("nan"), "60"],
}


def test_a_holder_is_read_back_and_nothing_else_is_taken_for_one() -> None:
    ours = this_process(60)
    assert parse_holder(ours.content) == ours
    renewed = ours.renewed()
    assert parse_holder(renewed.content) == renewed != ours
    assert len(renewed.content) == len(ours.content)
    for name, values in WRONG.items():
        for value in values:
            assert parse_holder(json.dumps({**vars(ours), name: value}).encode()) is None, (name, value)
    assert parse_holder(json.dumps({**vars(ours), "more": 1}).encode()) is None
    assert parse_holder(b"[" * MAX_BYTES) is None
    assert [is_lock(name) for name in (LOCK, f"{LOCK}-after-1", f"{LOCK}.1.partial", "locked", ".locks")] == [
        *[True] * 3,
        *[False] * 2,
    ]


def test_what_is_in_the_place_of_a_lock_on_a_disk_is_neither_waited_for_nor_written_to(folder: Path) -> None:
    theirs = folder.with_name("theirs")
    theirs.write_text("theirs")
    for kind in ("pipe", "link"):
        if kind == "pipe":
            os.mkfifo(folder / LOCK)
        else:
            os.link(theirs, folder / LOCK)
        with locked_folder(folder):
            found = parse_holder((folder / LOCK).read_bytes())
            assert found
            assert found.process == os.getpid()
        assert names(folder) == []
        assert theirs.read_text() == "theirs"


# What killed commits left.


def test_on_shared_storage_a_file_that_a_process_of_another_machine_writes_is_not_swept(shared: Path) -> None:
    left, old = (shared / f"a.{digit * 16}.partial" for digit in "01")
    for path in (left, old):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert long_untouched(old.stat())
    with committed(shared / "a") as file:
        file.write(b"whole")
        assert left.exists()
        assert not old.exists()
    with locked_folder(shared):  # where nobody else writes
        remove_partials(shared, "a")
        assert names(shared) == [LOCK, "a"]


@pytest.mark.parametrize("number", [9, 37, 95], ids=["EBADF", "ENOLCK", "EOPNOTSUPP"])
def test_where_locks_do_not_work_files_are_swept_by_age(
    number: int, shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fcntl

    def refused(*_: Any) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refused)
    old = shared / "a.0000000000000000.partial"
    old.write_bytes(b"half")
    os.utime(old, (0, 0))
    commit_bytes(shared / "a", b"whole")
    assert (shared / "a").read_bytes() == b"whole"
    assert old.exists() is (number == 9)
    with locked_folder(shared):
        commit_bytes(shared / "a", b"again")


def test_a_signal_ends_a_holder_like_any_process(folder: Path) -> None:
    host = Host("node7", folder)
    with started(host, folder) as first:
        first.process.send_signal(signal.SIGINT)
        assert first.end()[0] != 0
    assert names(folder) == []
