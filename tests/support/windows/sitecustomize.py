"""Take from Python what it does not have on Windows, for processes with this folder on PYTHONPATH."""

from __future__ import annotations

import os
import sys

MODULES = "fcntl grp posix pwd readline resource syslog termios tty"
CALLS = "fchmod fork getuid killpg mkfifo posix_fadvise posix_fallocate pread preadv pwrite statvfs sysconf uname"

for name in MODULES.split():
    sys.modules[name] = None  # type: ignore[assignment]
for name in CALLS.split():
    if hasattr(os, name):
        delattr(os, name)
