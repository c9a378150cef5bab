"""Call what operating systems do differently, each with its portable way: Linux (x86-64, aarch64) and macOS (arm64).

This module is the one place for calls on files, descriptors and the system's identity that Linux has and macOS has not,
or that mean something else there; `runtime.machine` is the place for cores and memory. Whether a call is there is
asked when it is needed, never by the system's name, so a test can take it away. Results are equal on all systems; what
differs is speed, and how early a full disk is reported. docs/systems.md lists the differences for users.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import mmap
import os
import platform
import re
import resource
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

MAX_IO_BYTES = 1 << 30  # per call: macOS refuses reads and writes of 2 GiB
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NUMBERS = Path("/proc/self/ns/pid")  # a link that names the space of process numbers
_PROCESSES = Path("/proc")
_ENDED = tuple("ZXx")  # states of a process that nobody has awaited yet
MOUNTS = Path("/proc/self/mountinfo")
_MOUNTED = re.compile(r"^.+? on (?P<folder>/.*) \((?P<kind>[^,)]+)[^()]*\)$", re.MULTILINE)  # as BSD's `mount` lists
_PIECE = 1 << 20  # bytes per write when space is reserved by writing
_OPEN_MAX = 10_240  # of macOS, which may refuse more even where its hard limit is unlimited
_UNSUPPORTED = (errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS, errno.ENOLCK)
_TESTED = {("Linux", "x86_64")}
_PREPARED = {("Linux", "aarch64"), ("Darwin", "arm64")}  # wheels checked and calls simulated, see docs/systems.md


def description() -> str:
    """Describe the operating system and the processor, and how far shardtrain was tested on them."""
    found = platform.system(), platform.machine()
    name = " ".join(found).replace("Darwin", "macOS")
    if found in _TESTED:
        return f"{name} (tested)"
    if found in _PREPARED:
        return f"{name} (supported: packages checked, calls simulated; the tests were not run on it)"
    return f"{name} (unknown: shardtrain was not tested on it)"


def reserve_space(descriptor: int, stop: int, *, start: int = 0) -> None:
    """Reserve the disk's space for bytes [0, stop) of a file and keep its contents; the file is then at least as long.

    macOS has no posix_fallocate. Elsewhere than on Linux, bytes [start, stop) are therefore written with what they
    hold, zeros where nothing was written, as C libraries do for file systems without such a call.

    Args:
        descriptor: open for reading and writing.
        stop: bytes to reserve, at least 1.
        start: bytes at the front of the file that are known to be reserved.

    Raises:
        OSError: the disk is full.
    """
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, 0, stop)
        return
    end = os.fstat(descriptor).st_size
    while start < stop:
        size = min(_PIECE, stop - start)
        held = os.pread(descriptor, min(size, end - start), start) if start < end else b""
        start += os.pwrite(descriptor, held or bytes(size), start)


def read_into(descriptor: int, view: memoryview, position: int) -> int:
    """Read bytes of a file from a position on into a buffer and return how many were read; 0 at the end of the file."""
    if hasattr(os, "preadv"):
        return os.preadv(descriptor, [view[:MAX_IO_BYTES]], position)
    content = os.pread(descriptor, min(len(view), MAX_IO_BYTES), position)
    view[: len(content)] = content
    return len(content)


@contextlib.contextmanager
def mapped(descriptor: int) -> Iterator[mmap.mmap]:
    """Map a file that is not empty for reading, until the block ends.

    If something has a view of the mapping then, it stays until that lets go, where `mmap.close` would fail: a sampling
    profiler, such as that of Dask's workers, may hold a frame that has one.
    """
    content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    try:
        yield content
    finally:
        with contextlib.suppress(BufferError):
            content.close()


def write_all(descriptor: int, view: memoryview, position: int) -> None:
    """Write all bytes of a buffer to a file from a position on."""
    while view:
        written = os.pwrite(descriptor, view[:MAX_IO_BYTES], position)
        view, position = view[written:], position + written


def open_uncached(path: Path) -> int | None:
    """Open a file for reading past the page cache; None if the system or the file system does not support O_DIRECT.

    macOS has no O_DIRECT: files larger than memory are read there through the page cache, which is slower, not wrong.
    """
    if not hasattr(os, "O_DIRECT"):
        return None
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECT)
    except OSError:  # such as an in-memory file system
        return None


def sync_to_disk(descriptor: int) -> None:
    """Write a file's or folder's contents to the disk and wait until they would survive a power failure.

    On macOS, fsync leaves them in the drive's cache, which F_FULLFSYNC empties; file systems without it, such as
    network shares, get fsync.
    """
    if hasattr(fcntl, "F_FULLFSYNC"):
        try:
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
        else:
            return
    os.fsync(descriptor)


def lock(descriptor: int) -> bool:
    """Lock an open file or folder for this process; false if another process holds the lock.

    Where the file system has no locks (some network shares and memory cards) this counts as locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _UNSUPPORTED
    return True


def boot_identity() -> str:
    """Return an identity of the machine's last start; empty where the system does not report one."""
    if _BOOT.exists():
        return _BOOT.read_text().strip()
    return _output("sysctl", "-n", "kern.bootsessionuuid").strip()  # macOS


def allow_open_files(files: int) -> None:
    """Raise this process's limit of open files if it is lower than needed, as far as the system permits.

    macOS starts programs with 256, Linux mostly with 1,024; the limit up to which a process may raise it is far higher.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files <= soft or soft == resource.RLIM_INFINITY:
        return
    wanted = files if hard == resource.RLIM_INFINITY else min(files, hard)
    for limit in (wanted, min(wanted, _OPEN_MAX)):
        with contextlib.suppress(OSError, ValueError):  # the kernel permits less
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
            return


def host_name() -> str:
    """Return the name of this machine."""
    return platform.node() or "an unnamed machine"


def machine_identity() -> str:
    """Return an identity within which process numbers mean one thing; empty where the system does not report one.

    Containers of one machine share its start, but each numbers its own processes.
    """
    boot = boot_identity()
    with contextlib.suppress(OSError):
        return f"{boot} {os.readlink(_NUMBERS)}"
    return boot


def seconds_with_sleep() -> float:
    """Return the seconds of a clock that is never set and goes on while the machine sleeps."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def process_start(process: int) -> str:
    """Return when a process of this machine started, in the system's words; empty if there is none, or it has ended."""
    if _PROCESSES.is_dir():
        try:
            fields = (_PROCESSES / str(process) / "stat").read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            return ""
        return "" if fields[0] in _ENDED else fields[19]
    state, _, start = _output("ps", "-o", "stat=,lstart=", "-p", str(process)).strip().partition(" ")  # macOS
    return "" if state[:1] in _ENDED else start.strip()


def file_system_of(path: Path, mounts: Path | None = None) -> str:
    """Return the type of the file system that holds an existing file, such as "ext4" or "nfs"; empty if unknown."""
    where, best, kind = path.resolve(), Path(), ""
    around = {where, *where.parents}
    for folder, found in _mounted(where, mounts or MOUNTS):
        if folder in around and len(folder.parts) >= len(best.parts):
            best, kind = folder, found
    return kind


def _mounted(where: Path, mounts: Path) -> Iterable[tuple[Path, str]]:
    """Return folder and type of the mounted file systems: from the kernel's table, or as the command `mount` lists."""
    try:
        return _in_table(mounts.read_text())
    except OSError:  # no /proc
        listed = _MOUNTED.finditer(_mount_output(where.stat().st_dev))
        return ((Path(match["folder"]), match["kind"]) for match in listed)


@functools.lru_cache(maxsize=4)  # few tables: of hundreds of lines in some machines, and read for every folder
def _in_table(table: str) -> tuple[tuple[Path, str], ...]:
    fields = [line.split(" - ") for line in table.splitlines()]
    return tuple(
        (Path(before.split()[4].encode().decode("unicode_escape")), after.split()[0]) for before, after, *_ in fields
    )


@functools.lru_cache(maxsize=16)
def _mount_output(device: int) -> str:
    """List the mounted file systems, again for each device on which files are opened: one may be mounted later."""
    return _output("mount")


def _output(*command: str) -> str:
    """Run a command of the system and return what it prints; empty where it is missing or fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return ""
