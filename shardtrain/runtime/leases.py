"""Hold a folder on shared storage by a lease, which needs no locks of the file system and no common clock.

A lease is a file that is put where none is, which any storage does in one step. Its owner renews it several times per
term. Who finds a lease watches it for a term by its own clock: if it changes, its owner lives; if not, it is taken
over, by putting another file whose name has the token of the lease that it follows. So of several that watch one lease,
one gets it, and nothing is ever removed or replaced that somebody else may have made in the meantime: the lease in
force is the last one of a chain that begins at the file `.lock`.

An owner that did not answer for a term, because it was stopped or cut off from the storage, may find a lease after its
own. It looks when it renews, and before what it makes becomes visible. What remains is the moment between that look and
the rename that follows it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from shardtrain.errors import TakenOverError
from shardtrain.runtime.holders import LOCK, MAX_BYTES, Holder, parse_holder, read_content, this_process
from shardtrain.runtime.progress import say
from shardtrain.runtime.store import long_untouched
from shardtrain.runtime.system import seconds_with_sleep

_AFTER = f"{LOCK}-after-"  # and the token of the lease that it follows
_RENEWALS, _LOOKS = 4, 20  # per term, of an owner and of who waits


class HeldError(Exception):
    """Another process holds a folder; `holder` describes it, if that is known."""

    def __init__(self, holder: Holder | None) -> None:
        super().__init__(str(holder))
        self.holder = holder


@dataclass(frozen=True)
class _Link:
    """A file of the chain of leases."""

    path: Path
    content: bytes

    @property
    def holder(self) -> Holder | None:
        return parse_holder(self.content)

    @property
    def token(self) -> str:
        """What the name of the lease after it has; damaged ones have no token of their own."""
        return self.holder.token if self.holder else hashlib.sha256(self.content).hexdigest()[:16]


class Lease:
    """The lease of this process on a folder.

    Args:
        folder: to hold.
        term: seconds after which this process may be taken for dead if it did not renew the lease.
        patient: watch a lease whose owner may be dead; otherwise only one that is days old is taken over.

    Raises:
        HeldError: another process holds the folder.
        OSError: a call on the storage fails.
    """

    def __init__(self, folder: Path, term: float, *, patient: bool = True) -> None:
        self.folder = folder
        self._term = term
        self._owner = this_process(term)
        self._mutex = threading.Lock()
        self._ended = threading.Event()
        self._lost: TakenOverError | None = None
        self._chain = self._take(patient=patient)
        self._seen = seconds_with_sleep()
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def _take(self, *, patient: bool) -> list[_Link]:
        """Put a lease, or one after a lease whose owner is dead; return the chain to it."""
        while True:
            chain = _chain(self.folder)
            if chain and not _is_abandoned(self.folder, chain[-1], self._term, patient=patient):
                raise HeldError(chain[-1].holder)
            path = self.folder / (f"{_AFTER}{chain[-1].token}" if chain else LOCK)
            _put_if_absent(path, self._owner)
            chain = _chain(self.folder)
            if self._is_mine(chain):
                return chain
            with contextlib.suppress(OSError):  # another process was faster
                if read_content(path) == self._owner.content:
                    path.unlink()

    def _is_mine(self, chain: list[_Link]) -> bool:
        return bool(chain) and chain[-1].token == self._owner.token

    def _keep(self) -> None:
        """Renew the lease until it ends; while the storage does not answer, it is tried again and again."""
        while not self._ended.wait(self._term / _RENEWALS):
            with contextlib.suppress(OSError):
                self._renew()

    def _renew(self) -> None:
        self.check()
        with self._mutex:
            if self._ended.is_set():
                return
            descriptor = os.open(self._chain[-1].path, os.O_RDWR | os.O_NOFOLLOW)
            try:
                found = parse_holder(os.read(descriptor, MAX_BYTES))
                if found and found.token == self._owner.token:  # not a new lease of the same name
                    self._owner = self._owner.renewed()
                    os.pwrite(descriptor, self._owner.content, 0)
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def check(self, *, always: bool = True) -> None:
        """Look whether this process still holds the folder.

        Args:
            always: or only where the lease was not seen for longer than it takes to renew it.

        Raises:
            TakenOverError: it does not.
            OSError: the storage does not answer.
        """
        with self._mutex:
            if self._lost is None and not self._ended.is_set():
                now = seconds_with_sleep()
                if not always and now - self._seen < 2 * self._term / _RENEWALS:
                    return
                chain = _chain(self.folder)
                if not self._is_mine(chain):  # or one of it was read while it was written
                    chain = _chain(self.folder)
                if self._is_mine(chain):
                    self._seen = now
                else:
                    self._lost = self._taken_over(chain)
            if self._lost is not None:
                raise self._lost

    def _taken_over(self, chain: list[_Link]) -> TakenOverError:
        by = chain[-1].holder if chain else None
        return TakenOverError(
            f"'{self.folder}' was taken over by {by or 'another process, which has ended'}, while this process did not "
            f"answer for {self._term:g} seconds, because it was stopped or cut off from the storage; nothing more was "
            "written: wait until that one ends"
        )

    def release(self) -> None:
        """Give the folder back, if it is still held; it may be gone already."""
        with contextlib.suppress(TakenOverError, OSError):
            self.check()
            with self._mutex:
                self._ended.set()
                for link in self._chain:
                    link.path.unlink(missing_ok=True)
        self._ended.set()
        self._thread.join()


def _chain(folder: Path) -> list[_Link]:
    """Return the leases on a folder, each taken over by the next; empty if nobody holds it.

    Listing a folder opens it, which makes clients of network file systems ask for its present names.
    """
    try:
        names = set(os.listdir(folder))
    except FileNotFoundError:
        return []
    found: list[_Link] = []
    name = LOCK
    while name in names:
        try:
            found.append(_Link(folder / name, read_content(folder / name)))
        except FileNotFoundError:  # it was just given back
            return []
        names.remove(name)
        name = _AFTER + found[-1].token
    return found


def _put_if_absent(path: Path, owner: Holder) -> None:
    """Make a file with its content in one step, unless there is one; where there are no links, in two steps."""
    whole = path.with_name(f"{LOCK}.{owner.token}.partial")
    try:
        _write_new(whole, owner.content)
        try:
            os.link(whole, path)
        except FileExistsError:
            pass
        except OSError:  # no links here, or the storage fails, which the next call reports
            with contextlib.suppress(FileExistsError):
                _write_new(path, owner.content)
    finally:
        with contextlib.suppress(OSError):
            whole.unlink()


def _write_new(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        os.write(descriptor, content)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_abandoned(folder: Path, last: _Link, usual_term: float, *, patient: bool) -> bool:
    """Return whether the owner of a lease is dead, as far as can be told; false also where the lease changed.

    `usual_term` is for a lease that cannot be read.
    """
    holder = last.holder
    if holder is not None and holder.here:
        return not holder.runs
    if not patient:
        return long_untouched(last.path.stat())
    term = holder.term if holder and holder.term else usual_term
    say(f"'{folder}' was held by {holder or 'a process'}; looking for up to {term:g} seconds whether that is running")
    end = time.monotonic() + term
    while time.monotonic() < end:
        time.sleep(term / _LOOKS)
        chain = _chain(folder)
        if not chain:
            return True
        if chain[-1] != last:
            return False
    return True
