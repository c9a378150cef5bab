"""Laws of what systems do differently: each call's portable way gives what the call of Linux gives."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shardtrain.runtime import machine, system

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(params=["this system's calls", "the portable way"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "the portable way":
        for name in ("posix_fallocate", "preadv", "sched_getaffinity", "O_DIRECT"):
            monkeypatch.delattr(os, name, raising=False)
    return str(request.param)


@pytest.fixture
def lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Makes a command of the system that prints a text, as macOS' would."""

    def make(command: str, text: str) -> None:
        program = tmp_path / "bin" / command
        program.parent.mkdir(exist_ok=True)
        (tmp_path / command).write_text(text)
        program.write_text(f"#!/bin/sh\ncat '{tmp_path / command}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")

    return make


def test_reserving_takes_the_disks_space_and_keeps_what_the_file_holds(way: str, tmp_path: Path) -> None:
    """Also in its holes, and across the end of pieces."""
    held = b"first" + bytes(system._PIECE) + b"last"
    with open(tmp_path / "file", "w+b") as file:
        file.write(b"first")
        file.seek(len(held) - 4)
        file.write(b"last")  # with a hole before it
        file.flush()
        size = 2 * system._PIECE + 77
        system.reserve_space(file.fileno(), size)
        taken = os.fstat(file.fileno())
        assert taken.st_size == size
        assert taken.st_blocks * 512 >= size
        system.reserve_space(file.fileno(), size + 1, start=size)
        assert os.fstat(file.fileno()).st_size == size + 1
    assert (tmp_path / "file").read_bytes() == held + bytes(size + 1 - len(held))


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), start=st.integers(0, 320), size=st.integers(1, 320))
def test_reading_at_a_position_gives_the_slice_of_the_file(
    way: str, content: bytes, start: int, size: int, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(content)
    buffer = bytearray(b"\xff" * size)
    with open(tmp_path / "file", "rb") as file:
        count = system.read_into(file.fileno(), memoryview(buffer), start)
    assert bytes(buffer[:count]) == content[start : start + size]
    assert buffer[count:] == b"\xff" * (size - count)


def test_no_call_reads_or_writes_more_than_every_system_permits(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "MAX_IO_BYTES", 10)
    content, buffer = os.urandom(35), bytearray(35)
    with open(tmp_path / "file", "w+b") as file:
        system.write_all(file.fileno(), memoryview(content), 3)
        assert system.read_into(file.fileno(), memoryview(buffer), 3) == 10
    assert buffer[:10] == content[:10]
    assert (tmp_path / "file").read_bytes() == b"\0\0\0" + content


def test_past_the_page_cache_or_not_at_all(way: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(1 << 16))
    descriptor = system.open_uncached(tmp_path / "file")
    if descriptor is None:
        assert way == "the portable way" or not hasattr(os, "O_DIRECT") or system.file_system_of(tmp_path) == "tmpfs"
    else:
        assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT
        os.close(descriptor)


def test_cores_are_at_least_one_and_at_most_the_machines(way: str) -> None:
    assert 1 <= machine.cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("refusal", "calls"),
    [(None, ["full"]), (errno.ENOTSUP, ["full", "fsync"]), (errno.EIO, ["full"])],
    ids=["a drive", "a network share", "a drive that fails"],
)
def test_where_fsync_leaves_data_in_the_drive_its_cache_is_emptied(
    refusal: int | None, calls: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called = []

    def control(descriptor: int, command: int) -> None:
        assert command == 51
        called.append("full")
        if refusal is not None:
            raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda descriptor: called.append("fsync"))
    descriptor = os.open(tmp_path, os.O_RDONLY)
    if refusal == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(errno.EIO)):
            system.sync_to_disk(descriptor)
    else:
        system.sync_to_disk(descriptor)
    os.close(descriptor)
    assert called == calls


@pytest.mark.parametrize(
    ("refusal", "ours"),
    [(errno.EWOULDBLOCK, False), (errno.EACCES, False), (errno.ENOTSUP, True), (errno.ENOLCK, True)],
    ids=errno.errorcode.get,
)
def test_a_file_system_without_locks_is_not_taken_for_one_that_is_held(
    refusal: int, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(descriptor: int, operation: int) -> None:
        raise OSError(refusal, os.strerror(refusal))

    monkeypatch.setattr(fcntl, "flock", refused)
    assert system.lock(0) is ours


def test_the_machines_start_is_the_kernels_or_what_sysctl_says_or_unknown(
    lists: Callable[[str, str], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(system, "_BOOT", tmp_path / "boot_id")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert system.boot_identity() == ""
    monkeypatch.undo()
    monkeypatch.setattr(system, "_BOOT", tmp_path / "boot_id")
    lists("sysctl", "6E1B9C3A-8F0D-4C6E-9A55-0C7B6A1F2D3E\n")
    assert system.boot_identity() == "6E1B9C3A-8F0D-4C6E-9A55-0C7B6A1F2D3E"
    (tmp_path / "boot_id").write_text("0b54\n")
    assert system.boot_identity() == "0b54"


MOUNTED = """\
/dev/disk3s1s1 on / (apfs, sealed, local, read-only, journaled)
devfs on /dev (devfs, local, nobrowse)
map auto_home on /System/Volumes/Data/home (autofs, automounted, nobrowse)
//me@server/Our%20share on {folder}/share (1) on nas (smbfs, nodev, nosuid, mounted by me)
/dev/disk5s1 on {folder} (exfat, local, nodev, nosuid, noowners)
"""


@pytest.mark.parametrize(("name", "kind"), [("share (1) on nas/data", "smbfs"), ("other", "exfat"), ("..", "apfs")])
def test_without_proc_the_command_mount_tells_a_folders_file_system(
    name: str, kind: str, lists: Callable[[str, str], None], tmp_path: Path
) -> None:
    lists("mount", MOUNTED.format(folder=tmp_path))
    (tmp_path / name).mkdir(parents=True, exist_ok=True)
    system._mount_output.cache_clear()
    try:
        assert system.file_system_of(tmp_path / name, tmp_path / "no table") == kind
    finally:
        system._mount_output.cache_clear()


def test_the_limit_of_open_files_is_raised_to_what_is_needed_and_never_lowered() -> None:
    """In a process of its own."""
    code = """
        import resource
        from shardtrain.runtime.system import allow_open_files
        kind = resource.RLIMIT_NOFILE
        resource.setrlimit(kind, (100, 700))
        for needed in (50, 300, 200, 5000):
            allow_open_files(needed)
            print(*resource.getrlimit(kind))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines() == ["100 700", "300 700", "300 700", "700 700"]


@pytest.mark.parametrize(("platform", "unit"), [("linux", 1024), ("darwin", 1)])
def test_peak_memory_is_in_bytes_whatever_the_system_counts_in(
    platform: str, unit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    counted = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert machine.peak_memory_bytes() >= counted * unit
    assert machine.peak_memory_bytes() < counted * unit * 1.5


@pytest.mark.parametrize(
    ("name", "processor", "said"),
    [
        ("Linux", "x86_64", "Linux x86_64 (tested)"),
        ("Linux", "aarch64", "Linux aarch64 (supported: "),
        ("Darwin", "arm64", "macOS arm64 (supported: "),
        ("Darwin", "x86_64", "macOS x86_64 (unknown: "),
    ],
)
def test_a_system_is_called_tested_only_where_the_tests_were_run(
    name: str, processor: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: name)
    monkeypatch.setattr("platform.machine", lambda: processor)
    assert system.description().startswith(said)


def test_a_mapping_of_which_something_has_a_view_stays_until_that_lets_go(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with open(tmp_path / "file", "rb") as file, system.mapped(file.fileno()) as content:
        view = memoryview(content)
    assert bytes(view) == b"content"
    view.release()
    with open(tmp_path / "file", "rb") as file, system.mapped(file.fileno()) as content:
        pass
    assert content.closed
