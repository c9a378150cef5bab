"""Commit files and folders atomically: write under a temporary name, fsync, rename, fsync the parent folder.

A file that exists under its final name is therefore complete. A crash leaves at most a temporary file (its name ends
in `.partial`), which the next commit to the same name replaces and `remove_partials` removes. No other module commits
files. The cost is two fsyncs per file, so files are written in one go and never appended to.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from shardtrain.errors import DiskFullError
from shardtrain.runtime.system import lock, sync_to_disk

PARTIAL = ".partial"
_MAX_FSYNCS = 256  # files per folder; beyond that, one sync of all disks is faster than one fsync per file


@contextlib.contextmanager
def committed(path: Path | str, *, synced: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file for writing and reading that appears at `path` only if the block ends without an exception.

    With `synced` false the file survives a crash of the process but not of the machine: for scratch files.

    Raises:
        DiskFullError: the disk is full; the partial file is removed and `path` is unchanged.
    """
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        with full_disk_named(path, kept="nothing half-written was kept"):
            with open(partial, "w+b") as file:
                yield file
                file.flush()
                if synced:
                    sync_to_disk(file.fileno())
            os.replace(partial, path)
            if synced:
                sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def full_disk_named(path: Path, *, kept: str) -> Iterator[None]:
    """Convert "disk full" and "quota exceeded" while writing `path` to a DiskFullError that says what was kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"no room left on the disk while writing '{path}'; {kept}: free some space and run the same command again"
        ) from error


def commit_file(partial: Path, path: Path) -> None:
    """Sync a file that another library wrote under a temporary name and rename it to its final name."""
    with open(partial, "rb") as file:
        sync_to_disk(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def commit_folder(staged: Path, folder: Path) -> None:
    """Sync a folder with its contents and rename it to `folder`, which must not exist or be an empty folder."""
    folders = [staged, *(path for path in staged.rglob("*") if path.is_dir())]
    files = [path for place in folders for path in place.iterdir() if path.is_file()]
    if len(files) > _MAX_FSYNCS:
        os.sync()
    else:
        for path in files:
            with open(path, "rb") as file:
                os.fsync(file.fileno())  # to a drive that may cache it, which syncing the folders then empties
    for path in folders:
        sync_folder(path)
    os.rename(staged, folder)
    sync_folder(folder.parent)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    """Lock a folder for this process; yield whether that succeeded, false if another process holds the lock.

    The kernel releases the lock when the process ends, also when it is killed.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield lock(descriptor)
    finally:
        os.close(descriptor)


def commit_link(target: Path, path: Path) -> None:
    """Create or atomically replace the symbolic link `path`; `target` is relative to the folder of `path`."""
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    os.symlink(target, partial)
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Fsync a folder, so that new names and renames in it survive a power failure."""
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


def remove_partials(folder: Path) -> None:
    """Remove temporary files of interrupted commits from `folder` (not from its subfolders)."""
    for path in folder.glob("*" + PARTIAL):
        path.unlink(missing_ok=True)
