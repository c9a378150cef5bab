"""Take from Python on Linux what it does not have on macOS, so that the tests show there what a Mac would.

For processes with this folder on PYTHONPATH, and those that they start: see `make test-portable`. What is taken is what
CPython's documentation and sources leave to Linux: calls and constants, /proc and /sys, glibc's own functions, pages of
4 KiB (Apple's have 16), more than 256 open files, and forking as the way that multiprocessing starts processes. fcntl
gets macOS' F_FULLFSYNC. Not imitated: sys.platform, by which other packages choose what they load, and file systems.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import multiprocessing
import os
import resource
import select
import signal
import sys
from typing import Any

FULL_SYNC = 51  # macOS' number; Linux has no such command
PAGE = 1 << 14
OPEN_FILES = 256
ABSENT = {
    os: """
        copy_file_range eventfd eventfd_read eventfd_write fdatasync getrandom getresgid getresuid getxattr listxattr
        memfd_create pidfd_open pipe2 posix_fadvise posix_fallocate preadv preadv2 pwritev pwritev2 removexattr
        setresgid setresuid setns setxattr splice unshare sched_getaffinity sched_setaffinity sched_getparam
        sched_setparam sched_getscheduler sched_setscheduler sched_rr_get_interval O_DIRECT O_LARGEFILE O_NOATIME
        O_PATH O_RSYNC O_TMPFILE POSIX_FADV_DONTNEED POSIX_FADV_NOREUSE POSIX_FADV_NORMAL POSIX_FADV_RANDOM
        POSIX_FADV_SEQUENTIAL POSIX_FADV_WILLNEED
    """,
    mmap: """
        MADV_DODUMP MADV_DOFORK MADV_DONTDUMP MADV_DONTFORK MADV_HUGEPAGE MADV_HWPOISON MADV_MERGEABLE MADV_NOHUGEPAGE
        MADV_POPULATE_READ MADV_POPULATE_WRITE MADV_REMOVE MADV_UNMERGEABLE MAP_DENYWRITE MAP_EXECUTABLE MAP_POPULATE
        MAP_STACK
    """,
    fcntl: """
        F_ADD_SEALS F_GETLEASE F_GETPIPE_SZ F_GETSIG F_GET_SEALS F_NOTIFY F_OFD_GETLK F_OFD_SETLK F_OFD_SETLKW
        F_SETLEASE F_SETPIPE_SZ F_SETSIG
    """,
    resource: """
        RLIMIT_MSGQUEUE RLIMIT_NICE RLIMIT_OFILE RLIMIT_RTPRIO RLIMIT_RTTIME RLIMIT_SIGPENDING RUSAGE_THREAD prlimit
    """,
    select: "epoll",
    signal: "SIGCLD SIGPOLL SIGPWR SIGRTMAX SIGRTMIN SIGSTKFLT pidfd_send_signal sigtimedwait sigwaitinfo",
}
GLIBC = {"mallinfo", "mallinfo2", "malloc_trim", "mallopt", "posix_fadvise", "posix_fallocate", "prctl"}
HIDDEN = ("/proc", "/sys")


def _hidden(path: Any) -> bool:
    if not isinstance(path, str | bytes | os.PathLike):
        return False  # a descriptor
    name = os.fsdecode(path)
    return any(name == folder or name.startswith(folder + "/") for folder in HIDDEN)


def _missing(path: Any) -> FileNotFoundError:
    return FileNotFoundError(2, "No such file or directory", os.fsdecode(path))


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("open", "os.listdir", "os.scandir") and _hidden(arguments[0]):
        raise _missing(arguments[0])


def _without_hidden(real: Any) -> Any:
    def looked_up(path: Any, *arguments: Any, **named: Any) -> Any:
        if _hidden(path):
            raise _missing(path)
        return real(path, *arguments, **named)

    for allowed in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks):
        if real in allowed:
            allowed.add(looked_up)
    return looked_up


def _control(descriptor: Any, command: int, argument: Any = 0, real: Any = fcntl.fcntl) -> Any:
    if command == FULL_SYNC:
        return os.fsync(descriptor)
    return real(descriptor, command, argument)


def _function_of_c(library: ctypes.CDLL, name: str, real: Any = ctypes.CDLL.__getattr__) -> Any:
    if name in GLIBC:
        raise AttributeError(f"dlsym(RTLD_DEFAULT, {name}): symbol not found")
    return real(library, name)


def take_away() -> None:
    """Take it, in this process."""
    for module, names in ABSENT.items():
        for name in names.split():
            if hasattr(module, name):
                delattr(module, name)
    if hasattr(os, "process_cpu_count"):  # Python 3.13 computes it from the affinity
        os.process_cpu_count = os.cpu_count
    os.stat, os.lstat = _without_hidden(os.stat), _without_hidden(os.lstat)
    sys.addaudithook(_watch)
    fcntl.F_FULLFSYNC, fcntl.fcntl = FULL_SYNC, _control  # type: ignore[attr-defined]
    mmap.PAGESIZE = mmap.ALLOCATIONGRANULARITY = PAGE  # type: ignore[misc]
    ctypes.CDLL.__getattr__ = _function_of_c  # type: ignore[method-assign]
    multiprocessing.set_start_method("spawn")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, hard))


take_away()
