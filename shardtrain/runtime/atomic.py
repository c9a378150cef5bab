"""The only place that commits a file: temporary name, fsync, rename, fsync of the folder.

A file that exists under its final name is therefore whole. A crash leaves at most a temporary file
(its name ends in `.partial`), which the next commit to the same name replaces and `remove_partials` sweeps.
The cost is two fsyncs a file, which is why files are committed whole and never appended to. A folder is committed
in the same way, and one process at a time can hold one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from shardtrain.errors import DiskFullError

PARTIAL = ".partial"
_MANY = 256  # files of a folder; for more of them one sync of all disks is faster than theirs


@contextlib.contextmanager
def committed(path: Path | str, *, synced: bool = True) -> Iterator[IO[bytes]]:
    """Open a binary file for writing and reading that appears at `path` only when the block ends well.

    With `synced` false it survives the death of the process but not of the machine: for scratch files.

    Raises:
        DiskFullError: the disk has no room; the partial file is removed and `path` is as before.
    """
    path = Path(path)
    partial = path.with_name(path.name + PARTIAL)
    try:
        with full_disk_named(path, kept="nothing half-written was kept"):
            with open(partial, "w+b") as file:
                yield file
                file.flush()
                if synced:
                    os.fsync(file.fileno())
            os.replace(partial, path)
            if synced:
                sync_folder(path.parent)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def full_disk_named(path: Path, *, kept: str) -> Iterator[None]:
    """Turn a full disk (or quota) met while writing `path` into a DiskFullError that says what was kept."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise DiskFullError(
            f"no room left on the disk while writing '{path}'; {kept}: free some space and run the same command again"
        ) from error


def commit_file(partial: Path, path: Path) -> None:
    """Sync a file that another library wrote under a temporary name and give it its final name."""
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, path)
    sync_folder(path.parent)


def commit_folder(staged: Path, folder: Path) -> None:
    """Sync a folder with all that is in it and give it its final name, where nothing or an empty folder may be."""
    folders = [staged, *(path for path in staged.rglob("*") if path.is_dir())]
    files = [path for place in folders for path in place.iterdir() if path.is_file()]
    if len(files) > _MANY:
        os.sync()
    else:
        for path in files:
            with open(path, "rb") as file:
                os.fsync(file.fileno())
        for path in folders:
            sync_folder(path)
    os.rename(staged, folder)
    sync_folder(folder.parent)


@contextlib.contextmanager
def locked_folder(folder: Path) -> Iterator[bool]:
    """Hold a folder for this process, which the block is told; false where another one does.

    The lock ends with the process, however that ends.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def commit_link(target: Path, path: Path) -> None:
    """Have `path` point at `target`, which is relative to its folder, in place of what it points at."""
    partial = path.with_name(path.name + PARTIAL)
    partial.unlink(missing_ok=True)
    os.symlink(target, partial)
    os.replace(partial, path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def commit_bytes(path: Path | str, content: bytes) -> None:
    """Write `content` to `path`, whole or not at all."""
    with committed(path) as file:
        file.write(content)


def commit_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON to `path`, whole or not at all; NaN and infinities are refused."""
    commit_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def remove_partials(folder: Path) -> None:
    """Remove what an interrupted commit left in `folder` (not in folders below it)."""
    for path in folder.glob("*" + PARTIAL):
        path.unlink(missing_ok=True)
