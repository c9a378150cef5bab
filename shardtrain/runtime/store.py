"""Tell where the files of a folder live: on a disk of this machine, or in storage that several machines share.

Two things follow. A lock of the kernel holds among the processes of one machine, so shared storage needs a lease (see
`runtime.locks`). And scratch files on a disk are not synced, so a restart of the machine makes them worthless, while on
shared storage they are synced before they have their names, because a worker's machine may die with its page cache; so
a job may be resumed there from any machine. A type of file system that could be either counts as shared, which costs a
sync per file and no more.
"""

from __future__ import annotations

import functools
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardtrain.runtime import system

STORE = "store"  # key of a job's record
_BOOT = "boot"  # of records of older versions: the start of the machine, wherever the folder was
_SHARED = "shared"
_SHARED_KINDS = re.compile(  # fuseblk is a local disk; afpfs, smbfs, webdav, macfuse and osxfuse are names of macOS;
    # fuse-overlayfs is the root of containers without privileges, the others after it encrypt or read local disks
    r"nfs\d?|cifs|smb\d?|smbfs|9p|ceph|lustre|gpfs|mmfs|beegfs|fhgfs|wekafs|panfs|orangefs|pvfs2|glusterfs|ocfs2|gfs2?"
    r"|dvs|cxfs|acfs|quobyte|afs|afpfs|webdav|davfs|coda|fuse|fuse\.(?!fuse-overlayfs|gocryptfs|encfs|ntfs).*|macfuse|osxfuse|virtiofs|vboxsf|vmhgfs|prl_fs"
    r"|drvfs"
)
_LONG_SECONDS = 86_400.0  # far more than clocks of machines that share files differ by


@dataclass(frozen=True)
class Store:
    """What a file system is to the jobs whose folders are in it.

    Attributes:
        shared: several machines may see the same files.
    """

    shared: bool

    @property
    def identity(self) -> str:
        """Identity of what scratch files can be trusted in: the start of the machine, or the storage as such."""
        return _SHARED if self.shared else system.boot_identity()

    def keeps(self, record: Mapping[str, Any]) -> bool:
        """Return whether scratch files of a job with this record can be trusted here."""
        if STORE not in record and _BOOT in record:
            return bool(record[_BOOT] == system.boot_identity())
        return bool(record.get(STORE) == self.identity)


def store_of(path: Path, mounts: Path | None = None) -> Store:
    """Return the store of a file or folder, which need not exist.

    Args:
        path: of the file or folder.
        mounts: the table of mounted file systems; None: the system's.

    Raises:
        OSError: the path cannot be looked up.
    """
    place = Path(os.path.abspath(path))
    existing = next(each for each in (place, *place.parents) if each.exists())
    return Store(_is_shared(str(existing), existing.stat().st_dev, mounts or system.MOUNTS))


@functools.lru_cache(maxsize=1024)
def _is_shared(path: str, device: int, mounts: Path) -> bool:
    """Look up a file system; once for each folder and each `device` that is mounted there."""
    return _SHARED_KINDS.fullmatch(system.file_system_of(Path(path), mounts)) is not None


def long_untouched(status: os.stat_result) -> bool:
    """Return whether a file was last written more than a day ago, by the clocks of two machines."""
    return time.time() - status.st_mtime > _LONG_SECONDS
