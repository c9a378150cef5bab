"""Run a command whose calls on files are watched, failed or cut short, in all its threads and processes (Linux only).

`supervised.c`, compiled when it is first needed, filters the calls in the kernel and hands each one to this process
before it is made. It sees every library alike and changes none; it costs some microseconds per call. The command is
forked from the server of `support.forked`, so it pays for no import.
"""

from __future__ import annotations

import ctypes
import errno
import itertools
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from support.forked import COMMAND, Forking

SOURCE = Path(__file__).with_suffix(".c")
SHORT = -1  # a decision: only half of the bytes are written
LONGEST = 300  # seconds until a command counts as hanging
KINDS = {
    "w": "write",
    "p": "pwrite",
    "v": "copy",
    "s": "fsync",
    "S": "sync",
    "t": "truncate",
    "a": "reserve",
    "m": "mmap",
    "o": "create",
    "i": "open",
    "r": "rename",
    "l": "link",
    "u": "unlink",
    "d": "mkdir",
}
# A server of many runs has this module imported already, as it takes a tenth of a second.
_ENTER = "import sys\nfrom support.supervised import enter\nenter(sys.argv.pop(1), sys.argv.pop(1))\n"
_names = itertools.count()


@dataclass(frozen=True)
class Call:
    """A call before it is made.

    Attributes:
        kind: one of the values of `KINDS`. "create" opens for writing or creates, "open" for reading.
        path: of the file or folder; where it is renamed or linked, its old name.
        other: its new name; else empty.
        size: bytes that are to be written, mapped or reserved, or the new size; -1 where there is none.
        thread: that calls, and `descriptor` of its open file; -1 where the call has a path.
    """

    kind: str
    path: str
    other: str
    size: int
    thread: int
    descriptor: int


Decide = Callable[[Call], int]


def library(folder: Path) -> Path:
    """Compile the supervisor in a folder, once; skip the test where that is impossible."""
    made = folder / "supervised.so"
    if made.exists():
        return made
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        pytest.skip("calls are supervised by seccomp, which only Linux has")
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("the supervisor of calls is compiled by a C compiler (cc, gcc or clang), and there is none")
    command = [compiler, "-O1", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", made, SOURCE]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        pytest.skip(f"the supervisor of calls cannot be compiled here: {built.stderr.strip().splitlines()[0]}")
    return made


def enter(path: str, name: str) -> None:
    """Filter the calls of this process from now on, and hand the listener to the supervisor."""
    listener = ctypes.CDLL(path, use_errno=True).install()
    with socket.socket(socket.AF_UNIX) as there:
        there.connect(f"\0{name}")
        if listener < 0:
            there.send(os.strerror(ctypes.get_errno()).encode())
            raise SystemExit("calls cannot be supervised")
        socket.send_fds(there, [b"+"], [listener])
    os.close(listener)


def supervised(
    server: Forking, decide: Decide, *words: object, before: str = "", code: str = COMMAND, cwd: Path | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run the command line, or other code, in a new process; `decide` is called with each of its calls on files.

    Args:
        server: that forks the process.
        decide: returns 0 to let the call be made, the number of the error with which it fails, or `SHORT`.
        words: the command line.
        before: code that the process runs first.
        code: what it runs then.
        cwd: where it runs.
    """
    name = f"supervised-{os.getpid()}-{next(_names)}"
    failed: list[BaseException] = []

    def answer(kind: bytes, thread: int, descriptor: int, size: int, path: bytes, other: bytes) -> int:
        try:
            return decide(Call(KINDS[kind.decode()], os.fsdecode(path), os.fsdecode(other), size, thread, descriptor))
        except BaseException as error:  # it would be lost in the library
            failed.append(error)
            return errno.EIO

    path = library(server.folder)
    loaded = ctypes.CDLL(str(path))
    types = (ctypes.c_char, ctypes.c_int, ctypes.c_int, ctypes.c_long, ctypes.c_char_p, ctypes.c_char_p)
    loaded.supervise.argtypes = (ctypes.c_int, callback := ctypes.CFUNCTYPE(ctypes.c_int, *types))
    with socket.socket(socket.AF_UNIX) as here:
        here.bind(f"\0{name}")
        here.listen()
        arguments = [path, name, *words]
        folder = cwd or Path.cwd()
        process = server.start(f"{_ENTER}{before}\n{code}", *arguments, stderr=server.folder / "err", cwd=folder)
        connected, _ = here.accept()
        with connected:
            said, listeners, _, _ = socket.recv_fds(connected, 1024, 1)
    if not listeners:
        server.wait()
        pytest.skip(f"calls cannot be supervised here: {said.decode()}")
    watchdog = threading.Timer(LONGEST, os.kill, (process, signal.SIGKILL))
    watchdog.start()
    try:
        supervisor = threading.Thread(target=loaded.supervise, args=(listeners[0], callback(answer)))
        supervisor.start()
        code = server.wait()
        supervisor.join()  # ends with the last process
    finally:
        watchdog.cancel()
        os.close(listeners[0])
    if failed:
        raise failed[0]
    assert code != -signal.SIGKILL, f"{words} did not end within {LONGEST} s"
    return subprocess.CompletedProcess(
        list(map(str, words)), code, (server.folder / "out").read_bytes(), (server.folder / "err").read_bytes()
    )
