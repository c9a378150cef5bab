"""Lock a folder for this process, on a disk as on shared storage, and say who holds it.

On a disk it is the kernel's lock, which ends with the process, however it ends. On shared storage that lock is missing,
or of one machine only, and a dead machine may keep it for ever: there it is a lease (see `runtime.leases`), and files
are committed in the folder only while this process has it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from shardtrain.runtime.holders import LOCK, Holder, parse_holder, read_content, this_process
from shardtrain.runtime.leases import HeldError, Lease
from shardtrain.runtime.storage import storage_errors
from shardtrain.runtime.store import store_of
from shardtrain.runtime.system import lock

TERM = 60.0  # seconds; clients of network file systems believe what they have seen for as long as that
_held: dict[Path, Lease | None] = {}  # the folders that this process holds; with None, by the kernel's lock


@contextlib.contextmanager
def locked_folder(folder: Path, *, patient: bool = True) -> Iterator[None]:
    """Hold a folder for this process.

    A folder that another process removed meanwhile counts as held by that process.

    Args:
        folder: which must exist.
        patient: on shared storage, wait for up to a minute to find out whether the process of another machine that
            holds the folder is alive.

    Raises:
        HeldError: another process holds it.
        OSError: the lock cannot be made.
    """
    place = Path(os.path.abspath(folder))
    with _leased(folder, patient=patient) if store_of(folder).shared else _locked(folder) as lease:
        _held[place] = lease
        try:
            yield
        finally:
            _held.pop(place, None)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a folder on a disk by the kernel's lock."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if not lock(descriptor):
            raise HeldError(_described(folder))
        if not _is_open_folder(folder, descriptor):
            raise HeldError(None)
        with contextlib.suppress(OSError):  # it only informs
            _describe(folder, this_process(0))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                os.unlink(folder / LOCK)
    finally:
        os.close(descriptor)


def _is_open_folder(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(folder), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _describe(folder: Path, holder: Holder) -> None:
    """Write who holds a folder to a new file: what was there may be a pipe, which waits, or a link to another file."""
    (folder / LOCK).unlink(missing_ok=True)
    descriptor = os.open(folder / LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    try:
        os.write(descriptor, holder.content)
    finally:
        os.close(descriptor)


def _described(folder: Path) -> Holder | None:
    """Return who holds a folder; None if that is unknown, as while it is being taken after another was killed."""
    with contextlib.suppress(OSError):
        found = parse_holder(read_content(folder / LOCK))
        if found and (found.runs or not found.here):
            return found
    return None


@contextlib.contextmanager
def _leased(folder: Path, *, patient: bool) -> Iterator[Lease]:
    """Hold a folder on shared storage by a lease."""
    with storage_errors(folder / LOCK, "lease"):
        try:
            lease = Lease(folder, TERM, patient=patient)
        except FileNotFoundError:
            raise HeldError(None) from None
    try:
        yield lease
    finally:
        lease.release()


def is_held(folder: Path) -> bool:
    """Return whether this process holds a folder, as far as it has noticed."""
    return Path(os.path.abspath(folder)) in _held


def remove_held(folder: Path) -> None:
    """Remove a folder that this process holds and in which nothing else is left; it is given back.

    Raises:
        OSError: a call fails.
    """
    place = Path(os.path.abspath(folder))
    if lease := _held.get(place):
        lease.release()
        with contextlib.suppress(OSError):  # another process may take the folder now
            folder.rmdir()
    elif folder.is_dir():
        (folder / LOCK).unlink(missing_ok=True)
        folder.rmdir()
    _held.pop(place, None)


def check_held(folder: Path) -> None:
    """Look whether this process still holds a folder, before something becomes visible that only its holder may make.

    Raises:
        TakenOverError: another process took it over.
        StorageError: the storage does not answer.
    """
    if lease := _held.get(Path(os.path.abspath(folder))):
        with storage_errors(folder / LOCK, "lease"):
            lease.check()


def check_within(path: Path) -> None:
    """Look whether this process still holds the folders in which a file is to be committed, if that is in doubt.

    Raises:
        TakenOverError: another process took one over.
        OSError: the storage does not answer.
    """
    for lease in leases_of(path):
        lease.check(always=False)


def leases_of(path: Path) -> list[Lease]:
    """Return the leases of this process on folders in which a file is, on shared storage."""
    leases = [(folder, lease) for folder, lease in list(_held.items()) if lease is not None]
    place = Path(os.path.abspath(path)) if leases else path
    return [lease for folder, lease in leases if folder in (place, *place.parents)]
