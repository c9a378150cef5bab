"""Commit files and folders atomically: write under a temporary name, fsync, rename, fsync the parent folder.

A file that exists under its final name is therefore complete. The temporary file is a new one with a name of its own
(`NAME.TOKEN.partial`): no link is followed, no file of others is opened, and two processes that make the same file
never write to the same place. A crash leaves at most such files, which the next commit to the same name removes, or
`remove_partials`. No other module commits files. The cost is two fsyncs per file, so files are written in one go and
never appended to.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from shardtrain.runtime.holders import is_lock
from shardtrain.runtime.locks import check_within, leases_of
from shardtrain.runtime.storage import SYNC_OF_FOLDER, Call, storage_errors
from shardtrain.runtime.store import long_untouched, store_of
from shardtrain.runtime.system import lock, sync_to_disk

PARTIAL = ".partial"
GIVEN_PREFIX = ".given-"  # of folders beside an output, for a corpus that is no file
_LEFT = re.compile(r"(?P<name>.+)\.[0-9a-f]{16}\.partial(\.[a-z0-9]+)?", re.DOTALL)
_TOKEN_BYTES = 8
_MAX_NAME = 200  # bytes of the final name in a temporary one; file systems allow 255 in all
_MAX_FSYNCS = 256  # files per folder; beyond that, one sync of all disks is faster than one fsync per file
_NOTHING_KEPT = "nothing half-written was kept"


@contextlib.contextmanager
def committed(path: Path | str, *, synced: bool = True, sweep: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file for writing and reading that appears at `path` only if the block ends without an exception.

    Args:
        path: of the file.
        synced: the file survives a crash of the machine, not only of the process; false for scratch files, whose
            bytes are synced on shared storage only.
        sweep: remove what killed commits to the same path left. Scratch files are never swept one by one: their folder
            may hold very many, and is swept as a whole.

    Raises:
        StorageError: the file cannot be written; `path` is unchanged, unless the message says that it is complete.
        TakenOverError: another process took over a folder in which the file is; `path` is unchanged.
    """
    path = Path(path)
    swept = synced and sweep
    if swept:
        remove_partials(path.parent, path.name)
    with _new_partial(path) as partial, storage_errors(path, "open", kept=_NOTHING_KEPT, written=partial) as call:
        with io.BufferedRandom(_NamedFile(str(partial), "x+", opener=without_following)) as file:
            if swept:
                lock(file.fileno())  # a commit that is being made is not swept by another process
            call.name, call.theirs = "write", True
            yield file
            call.theirs = False
            file.flush()
            call.name = "sync"
            if synced or store_of(path.parent).shared:
                sync_to_disk(file.fileno())
        _put_in_place(partial, path, call, synced=synced)


@contextlib.contextmanager
def committed_by_name(path: Path) -> Iterator[Path]:
    """Give another library a new, empty file to write by its name, and commit it; the suffix is that of `path`.

    Raises:
        StorageError: as `committed`.
    """
    remove_partials(path.parent, path.name)
    with (
        _new_partial(path, suffix=path.suffix) as partial,
        storage_errors(path, "open", kept=_NOTHING_KEPT, written=partial) as call,
    ):
        with open(partial, "xb", opener=without_following):
            pass
        call.name = "write"
        yield partial
        _sync_file(partial, call)
        _put_in_place(partial, path, call, synced=True)


class _NamedFile(io.FileIO):
    """A file whose failed calls name it, as those that open a file do: a block may write one file and read others."""

    def write(self, content: Any, /) -> int:
        with _naming(self.name):
            return super().write(content)

    def readinto(self, buffer: Any, /) -> int:
        with _naming(self.name):
            return super().readinto(buffer)

    def truncate(self, size: int | None = None, /) -> int:
        size = self.tell() if size is None else size
        with _naming(self.name):
            os.ftruncate(self.fileno(), size)  # unlike io.FileIO, it goes on after a signal
        return size


@contextlib.contextmanager
def _naming(name: Any) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        error.filename = name
        raise


@contextlib.contextmanager
def _new_partial(path: Path, suffix: str = "") -> Iterator[Path]:
    """Choose a temporary name for a commit; the file is removed if the block fails."""
    partial = path.with_name(f"{_shortened(path.name)}.{secrets.token_hex(_TOKEN_BYTES)}{PARTIAL}{suffix}")
    try:
        yield partial
    except BaseException:
        with contextlib.suppress(OSError):  # the failure itself is reported
            partial.unlink(missing_ok=True)
        raise


def _shortened(name: str) -> str:
    """Return what a temporary name has of the final one."""
    return os.fsdecode(os.fsencode(name)[:_MAX_NAME])


def without_following(path: str, flags: int) -> int:
    """Open a file, for `open(..., opener=...)`, unless it is a symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _sync_file(path: Path, call: Call) -> None:
    call.name = "sync"
    with open(path, "rb") as file:
        sync_to_disk(file.fileno())


def _put_in_place(partial: Path, path: Path, call: Call, *, synced: bool) -> None:
    call.name = "rename"
    check_within(path)
    os.replace(partial, path)
    if synced:
        call.name = SYNC_OF_FOLDER
        _sync_folder(path.parent)


def commit_file(partial: Path, path: Path) -> None:
    """Sync a file and rename it to its final name.

    Raises:
        StorageError: it cannot be.
    """
    with storage_errors(path, "sync") as call:
        _sync_file(partial, call)
        _put_in_place(partial, path, call, synced=True)


def commit_copy(source: Path, path: Path) -> None:
    """Make a synced file appear at `path` too: as a hard link, or as a copy where the file system has no links.

    Raises:
        StorageError: it cannot be.
    """
    with storage_errors(path, "link") as call:
        remove_partials(path.parent, path.name)
        try:
            with _new_partial(path) as partial:
                os.link(source, partial)
                _put_in_place(partial, path, call, synced=False)
                partial.unlink(missing_ok=True)  # renaming a link to a link of the same file does nothing
            return
        except OSError:  # no links here; or the disk fails, which the copy reports
            pass
    commit_content(source, path)


def commit_content(source: Path, path: Path) -> None:
    """Make `path` a copy of the file `source`, atomically.

    Raises:
        StorageError: it cannot be.
    """
    with open(source, "rb") as original, committed(path) as copy:
        shutil.copyfileobj(original, copy)


def commit_folder(staged: Path, folder: Path) -> None:
    """Sync a folder with its contents and rename it to `folder`, which must not exist or be an empty folder.

    Raises:
        StorageError: it cannot be.
    """
    folders = [staged, *(path for path in staged.rglob("*") if path.is_dir())]
    files = [path for place in folders for path in place.iterdir() if path.is_file()]
    if len(files) > _MAX_FSYNCS:
        os.sync()
    else:
        for path in files:
            with storage_errors(path, "sync"), open(path, "rb") as file:
                os.fsync(file.fileno())  # to a drive that may cache it, which syncing the folders then empties
    for path in folders:
        sync_folder(path)
    with storage_errors(folder, "rename") as call:
        check_within(staged)
        os.rename(staged, folder)
        call.name = SYNC_OF_FOLDER
        _sync_folder(folder.parent)


def commit_link(target: Path, path: Path) -> None:
    """Create or atomically replace the symbolic link `path`; `target` is relative to the folder of `path`.

    Raises:
        StorageError: it cannot be.
    """
    with storage_errors(path, "link") as call, _new_partial(path) as partial:
        os.symlink(target, partial)
        _put_in_place(partial, path, call, synced=True)


def make_folder(folder: Path) -> None:
    """Make a folder, and those it is in, so that they survive a power failure; it may exist.

    Raises:
        StorageError: it cannot be made.
    """
    missing = [place for place in (folder, *folder.parents) if not place.is_dir()]
    for place in reversed(missing):
        with storage_errors(place, "mkdir"):
            place.mkdir(exist_ok=True)
        sync_folder(place.parent)


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that new names and renames in it survive a power failure.

    Raises:
        StorageError: it cannot be.
    """
    with storage_errors(folder, "sync"):
        _sync_folder(folder)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        sync_to_disk(descriptor)
    finally:
        os.close(descriptor)


def commit_bytes(path: Path | str, content: bytes) -> None:
    """Write `content` to `path` atomically."""
    with committed(path) as file:
        file.write(content)


def commit_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; NaN and infinities raise ValueError."""
    commit_bytes(path, json_bytes(value, indent=2))


def json_bytes(value: Any, *, indent: int) -> bytes:
    """Return a value as indented JSON in UTF-8; names of files that are not UTF-8 are escaped."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:
        return (json.dumps(value, indent=indent, allow_nan=False) + "\n").encode()


def final_name(name: str) -> str | None:
    """Return the name that a commit was to give to a temporary file; None for any other file."""
    found = _LEFT.fullmatch(name)
    return found["name"] if found else None


def remove_partials(folder: Path, name: str | None = None, *, below: bool = False) -> None:
    """Remove files that killed commits left in a folder: regular files that no process writes to.

    Locks tell who writes on this machine. On shared storage a process of another one may: there, what this process
    finds below a folder that it holds goes at once, anything else when it is a day old.

    Args:
        folder: where they are; it may not exist.
        name: that was to be committed; None: any.
        below: also in all subfolders.

    Raises:
        StorageError: a folder cannot be listed.
    """
    pattern = "*" + PARTIAL + "*"
    with storage_errors(folder, "list", done="read"):
        left = list(folder.rglob(pattern) if below else folder.glob(pattern))
    for path in left:
        found = final_name(path.name)
        if found is not None and not is_lock(found) and (name is None or found == _shortened(name)):
            with contextlib.suppress(OSError):  # another process removed it, or it is not ours
                _remove_unlocked(path)


def _remove_unlocked(path: Path) -> None:
    if path.is_symlink():
        path.unlink()  # of a killed `commit_link`; what it names is not touched
        return
    shared = store_of(path.parent).shared  # where a lock needs a file that is open for writing, if there are locks
    descriptor = os.open(path, (os.O_RDWR if shared else os.O_RDONLY) | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or (shared and not leases_of(path) and not long_untouched(found)):
            return
        if lock(descriptor):
            path.unlink()
    finally:
        os.close(descriptor)
