"""Let processes of this machine be drivers on several machines over one storage, by what they say of themselves."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from support.forked import Forking

from shardtrain.runtime.system import process_start

ROOT = Path(__file__).resolve().parents[2]
_HOST = """
from pathlib import Path
from shardtrain.runtime import locks, system
system.MOUNTS = Path({mounts!r})
system._BOOT = Path({boot!r})
system.host_name = lambda: {host!r}
locks.TERM = {term}
"""


def mount_table(folder: Path, kind: str) -> Path:
    """Write a table of mounted file systems, of which one of a kind is at the folder; return the table's path."""
    table = folder.parent / f"{folder.name}-mounts-{kind}"
    table.write_text(
        "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n"
        f"36 22 98:0 / {str(folder).replace(' ', chr(92) + '040')} rw,noatime shared:1 - {kind} server:/export rw\n"
    )
    return table


class Host:
    """A machine, for processes that are started on it.

    Args:
        name: of the machine.
        folder: at which its storage is mounted.
        kind: of the file system there.
        term: seconds of a lease.
    """

    def __init__(self, name: str, folder: Path, *, kind: str = "nfs4", term: float = 1.0) -> None:
        self.name, self.folder = name, folder
        boot = folder.parent / f"boot-{name}"
        boot.write_text(f"start of {name}\n")
        self.mounts = mount_table(folder, kind)
        self.code = _HOST.format(mounts=str(self.mounts), boot=str(boot), host=name, term=term)

    def restart(self) -> None:
        """Restart the machine."""
        (self.folder.parent / f"boot-{self.name}").write_text(f"start of {self.name} at {time.monotonic_ns()}\n")

    def start(self, code: str, *arguments: object, server: Forking | None = None) -> Driver:
        """Start a process; one that `server` forks, if it is given."""
        whole = self.code + textwrap.dedent(code)
        if server is not None:
            return Driver(Forked(server, whole, *arguments))
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"}
        command = [sys.executable, "-c", whole, *map(str, arguments)]
        return Driver(
            subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.STDOUT, text=True, env=environment)
        )

    def run(self, code: str, *arguments: object, server: Forking | None = None) -> str:
        """Run a process to its end, which must be a good one; return what it prints and tells."""
        with self.start(code, *arguments, server=server) as driver:
            code_, said = driver.end()
        assert code_ == 0, said
        return said


class Forked:
    """A process that a server forked, with the methods of Popen that `Driver` calls."""

    def __init__(self, server: Forking, code: str, *arguments: object) -> None:
        self._server = server
        folder = Path(tempfile.mkdtemp(dir=server.folder))
        given, said = folder / "given", folder / "said"
        for pipe in (given, said):
            os.mkfifo(pipe)
        self.pid = server.start(code, *arguments, stdin=given, stdout=said, stderr=said, cwd=server.folder)
        self.returncode: int | None = None
        self.stdin, self.stdout = open(given, "w"), open(said)  # noqa: SIM115 - `communicate` closes them

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)

    def poll(self) -> int | None:
        """Return its code if it has ended."""
        if self.returncode is None and not process_start(self.pid):
            self.returncode = self._server.wait(self.pid)
        return self.returncode

    def communicate(self, said: str | None = None) -> tuple[str, str]:
        """Write to its standard input, close it, and wait for the end; what it printed and told."""
        if self.stdout.closed:
            return "", ""
        with contextlib.suppress(BrokenPipeError), self.stdin:
            self.stdin.write(said or "")
        with self.stdout:
            out = self.stdout.read()
        if self.returncode is None:
            self.returncode = self._server.wait(self.pid)
        return out, ""


class Driver:
    """A process on a host; a context manager, which kills it at the end."""

    def __init__(self, process: subprocess.Popen[str] | Forked) -> None:
        self.process = process

    def __enter__(self) -> Driver:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.communicate()

    def line(self, *beginnings: str) -> str:
        """Wait for a line that begins so."""
        assert self.process.stdout is not None
        said = []
        for line in self.process.stdout:
            said.append(line)
            if line.startswith(beginnings):
                return line.rstrip("\n")
        raise AssertionError("".join(said))

    def until(self, happened: Callable[[], object]) -> None:
        """Wait until something has happened while it runs."""
        while not happened():
            assert self.process.poll() is None, self.end()[1]
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop it."""
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, and do not wait for it."""
        self.process.kill()

    def end(self, said: str = "") -> tuple[int, str]:
        """Write to its standard input, close it, and wait for the end; exit code and what it printed and told."""
        out, _ = self.process.communicate(said or None)
        return self.process.returncode, out
