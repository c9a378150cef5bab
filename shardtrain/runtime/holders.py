"""Describe who holds a folder: written beside the lock, for the message to those who find the folder held.

On shared storage the description is also the lease (see `runtime.leases`): its token says whose it is, and its beat
counts the renewals. All contents of one holder have the same length, so that a renewal changes a file in its place.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shlex
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from shardtrain.runtime import system
from shardtrain.runtime.schema import Fields, Integer, Number, Text, check, hex_digits, parse_json

LOCK = ".lock"  # the file in a folder that is held; names of other files of a lock begin so, too
MAX_BYTES = 1 << 14  # of a file of a lock
_MAX_COMMAND = 80  # characters that a message shows
_MAX_TERM = 86_400.0  # seconds; nobody waits longer, whatever a file says
_HOLDER = Fields(
    {
        **{name: Text() for name in ("host", "machine", "started", "since", "command")},
        "token": hex_digits(16),
        "process": Integer(1, (1 << 31) - 1),
        "term": Number(0, _MAX_TERM),
        "beat": Text("[0-9]{10}", "10 digits"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process that holds a folder.

    Attributes:
        token: of this time of holding it; never used again.
        host: name of its machine, for people.
        machine: where its process number means something; empty if unknown.
        process: its number.
        started: when the process started, in the system's words, because numbers are used again; empty if unknown.
        since: when it took the folder, by its own clock.
        command: that it runs.
        term: seconds after which it can be taken for dead if it did not renew its lease; 0: the kernel's lock tells.
        beat: renewals so far, in ten digits.
    """

    token: str
    host: str
    machine: str
    process: int
    started: str
    since: str
    command: str
    term: float
    beat: str = "0" * 10

    @property
    def content(self) -> bytes:
        """The holder as a file has it."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def renewed(self) -> Holder:
        """Return the holder with its lease renewed once more."""
        return replace(self, beat=f"{int(self.beat) + 1:010}")

    @property
    def here(self) -> bool:
        """Whether it is or was a process of this machine."""
        return bool(self.machine) and self.machine == system.machine_identity()

    @property
    def runs(self) -> bool:
        """Whether its process runs, if it is of this machine."""
        try:
            os.kill(self.process, 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # another user's, which may be hidden
            return True
        return system.process_start(self.process) == self.started

    def __str__(self) -> str:
        since = datetime.fromisoformat(self.since).astimezone()
        today = datetime.now().astimezone().date()
        when = f"{since:%H:%M}" if since.date() == today else f"{since:%Y-%m-%d %H:%M}"
        return f"process {self.process} on {self.host}, since {when}: `{self.command}`"


def this_process(term: float) -> Holder:
    """Return this process as the holder of a folder from now on."""
    return Holder(
        token=secrets.token_hex(8),
        host=system.host_name(),
        machine=system.machine_identity(),
        process=os.getpid(),
        started=system.process_start(os.getpid()),
        since=datetime.now(UTC).isoformat(timespec="seconds"),
        command=_command(),
        term=term,
    )


def _command() -> str:
    """Return the command that this process runs, as short as a message can show it."""
    program, *words = sys.argv or [""]
    path = Path(program)
    name = path.parent.name if path.name == "__main__.py" else path.name
    command = shlex.join([name or "python", *words])
    return command if len(command) <= _MAX_COMMAND else command[: _MAX_COMMAND - 1] + "…"


def read_content(path: Path) -> bytes:
    """Read a file of a lock as the storage has it now: an open asks for that where files are cached.

    Raises:
        OSError: it is not there, or cannot be read.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, MAX_BYTES)
    finally:
        os.close(descriptor)


def parse_holder(content: bytes) -> Holder | None:
    """Return the holder that a file describes; None if it is damaged, or was read while it was written."""
    with contextlib.suppress(ValueError, OverflowError):
        record = parse_json(content)
        check(record, _HOLDER)
        datetime.fromisoformat(record["since"]).astimezone()  # as messages show it
        return Holder(**record)
    return None


def is_lock(name: str) -> bool:
    """Return whether a file in a folder belongs to the folder's lock."""
    return name == LOCK or name.startswith((f"{LOCK}-", f"{LOCK}."))
