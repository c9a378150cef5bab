"""The tools of `test_faults`: all calls are seen and can be failed, and a disk keeps what was synced."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.forked import Forking, forking
from support.powerless import FOLDER, Disk
from support.supervised import SHORT, Call, supervised


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    with forking(tmp_path_factory.mktemp("supervised"), "import h5py, numpy, support.supervised") as server:
        yield server


# Each library in its own way: the C library's buffers, libhdf5, a mapping, a thread and another program.
EVERYTHING = """
import os, subprocess, threading
import h5py, numpy as np
os.mkdir("folder")
np.arange(1000).tofile("numpy")
np.memmap("numpy", np.uint8, "r+")[:3] = 1
with h5py.File("hdf5", "w") as file:
    file["x"] = np.arange(1000)
with open("python", "wb") as file:
    file.write(b"text")
    file.flush()
    os.posix_fallocate(file.fileno(), 0, 100)
    os.ftruncate(file.fileno(), 50)
    os.fsync(file.fileno())
os.rename("python", "folder/renamed")
os.link("folder/renamed", "linked")
os.symlink("linked", "symbolic")
os.unlink("linked")
thread = threading.Thread(target=lambda: open("thread", "w").write("text"))
thread.start()
thread.join()
subprocess.run(["sh", "-c", "echo text > program"], check=True)
open("hdf5").close()
os.sync()
"""


def test_calls_of_all_libraries_threads_and_programs_are_seen(server: Forking, tmp_path: Path) -> None:
    calls: list[tuple[str, str]] = []

    def note(call: Call) -> int:
        if call.kind == "sync" or Path(call.path).is_relative_to(tmp_path):
            calls.append((call.kind, call.path.removeprefix(f"{tmp_path}/")))
        return 0

    done = supervised(server, note, code=EVERYTHING, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert set(calls) >= {
        *(("mkdir", "folder"), ("create", "numpy"), ("write", "numpy"), ("mmap", "numpy"), ("create", "hdf5")),
        *(("pwrite", "hdf5"), ("open", "hdf5"), ("create", "python"), ("write", "python")),
        *(("reserve", "python"), ("truncate", "python"), ("fsync", "python"), ("rename", "python")),
        *(("link", "folder/renamed"), ("link", "symbolic"), ("unlink", "linked"), ("create", "thread")),
        *(("write", "thread"), ("create", "program"), ("write", "program"), ("sync", "")),
    }


WRITES = """
import os
file = os.open("file", os.O_WRONLY | os.O_CREAT)
try:
    print(os.write(file, b"12345678"), os.pwrite(file, b"abcd", 4))
except OSError as error:
    print(error.errno)
"""


@pytest.mark.parametrize(
    ("kind", "decision", "printed", "content"),
    [
        ("write", 0, "8 4", b"1234abcd"),
        ("write", SHORT, "4 4", b"1234abcd"),
        ("pwrite", SHORT, "8 2", b"1234ab78"),
        ("write", errno.EIO, f"{errno.EIO}", b""),
        ("pwrite", errno.ENOSPC, f"{errno.ENOSPC}", b"12345678"),
        ("write", errno.EINTR, "8 4", b"1234abcd"),  # Python makes the call again
    ],
)
def test_a_call_fails_or_is_short_as_decided(
    server: Forking, tmp_path: Path, kind: str, decision: int, printed: str, content: bytes
) -> None:
    struck: list[Call] = []

    def decide(call: Call) -> int:
        if call.kind != kind or call.path != f"{tmp_path}/file" or struck:
            return 0
        struck.append(call)
        return decision

    done = supervised(server, decide, code=WRITES, cwd=tmp_path)
    assert done.stdout.decode().strip() == printed
    assert (tmp_path / "file").read_bytes() == content


SYNCED = 'os.fsync(os.open("{}", os.O_RDONLY))'
STEPS = {
    "write": 'open("partial", "w").write("text")',
    "sync the file": SYNCED.format("partial"),
    "rename": 'os.rename("partial", "file")',
    "sync the folder": SYNCED.format("."),
}


def kept(server: Forking, folder: Path, steps: list[str]) -> set[frozenset[tuple[str, bytes | None]]]:
    """What a disk may hold when steps were done and the power fails."""
    disk = Disk(folder)

    def watch(call: Call) -> int:
        if Path(call.path).is_relative_to(folder):
            disk.watch(call)
        return 0

    code = "\n".join(["import os", *(STEPS[step] for step in steps)])
    done = supervised(server, watch, code=code, cwd=folder)
    assert done.returncode == 0, done.stderr
    disk.forget()
    disk.end()
    return {
        frozenset((path, None if content == FOLDER else disk.contents[content]) for path, content in state)
        for state in disk.states
    }


@pytest.mark.parametrize(
    ("omitted", "expected"),
    [
        ([], [{"file": b"text"}]),
        (["sync the file"], [{"file": b"text"}, {"file": b""}, {"file": bytes(4)}]),
        (["sync the folder"], [{}, {"file": b"text"}, {"partial": b"text"}]),
        (["rename"], [{"partial": b"text"}]),
    ],
    ids=["nothing omitted", "the file not synced", "the folder not synced", "not renamed"],
)
def test_a_disk_keeps_what_was_synced_and_perhaps_the_rest(
    server: Forking, tmp_path: Path, omitted: list[str], expected: list[dict[str, bytes]]
) -> None:
    steps = [step for step in STEPS if step not in omitted]
    assert kept(server, tmp_path, steps) == {frozenset(state.items()) for state in expected}
