"""Laws of stores: where files live decides what of an interrupted job is trusted, and what is synced."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from support.hosts import mount_table

from shardtrain.runtime import system
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.store import STORE, store_of


@pytest.mark.parametrize(
    ("kind", "shared"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "cifs", "smb3", "lustre", "ceph", "fuse.ceph-fuse", "gpfs")),
        *((kind, True) for kind in ("beegfs", "fuse.glusterfs", "wekafs", "panfs", "fuse.sshfs", "virtiofs", "9p")),
        *((kind, True) for kind in ("smbfs", "webdav", "macfuse")),
        *(
            (kind, False)
            for kind in (
                "ext4",
                "xfs",
                "btrfs",
                "zfs",
                "tmpfs",
                "overlay",
                "fuseblk",
                "fuse.fuse-overlayfs",
                "apfs",
                "exfat",
            )
        ),
    ],
)
def test_network_file_systems_are_shared(kind: str, shared: bool, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    mounts = mount_table(tmp_path / "here", kind)
    for path in ("here", "here/below", "here/not/yet/there"):
        assert store_of(tmp_path / path, mounts).shared is shared
    assert not store_of(tmp_path / "beside", mounts).shared


def test_a_file_system_that_is_mounted_later_is_seen(tmp_path: Path) -> None:
    before, after = mount_table(tmp_path, "ext4"), mount_table(tmp_path, "lustre")
    assert [store_of(tmp_path, mounts).shared for mounts in (before, after, before)] == [False, True, False]


@pytest.mark.parametrize(
    ("kind", "record", "kept"),
    [
        ("ext4", {STORE: "ours"}, True),
        ("ext4", {STORE: "another's"}, False),
        ("ext4", {STORE: "shared"}, False),
        ("ext4", {"boot": "ours"}, True),
        ("ext4", {"boot": "another's"}, False),
        ("ext4", {}, False),
        ("nfs4", {STORE: "shared"}, True),
        ("nfs4", {STORE: "ours"}, False),
        ("nfs4", {"boot": "ours"}, True),
        ("nfs4", {"boot": "another's"}, False),
    ],
)
def test_scratch_files_are_trusted_in_the_store_in_which_they_were_made(
    kind: str, record: dict[str, Any], kept: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "boot").write_text("ours\n")
    monkeypatch.setattr(system, "_BOOT", tmp_path / "boot")
    (tmp_path / "here").mkdir()
    assert store_of(tmp_path / "here", mount_table(tmp_path / "here", kind)).keeps(record) is kept


@pytest.mark.parametrize(("kind", "synced"), [("nfs4", True), ("ext4", False)])
def test_a_scratch_file_is_synced_before_it_has_its_name_where_workers_of_other_machines_write(
    kind: str, synced: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    sync, replace = os.fsync, os.replace
    monkeypatch.setattr(system, "MOUNTS", mount_table(tmp_path, kind))
    monkeypatch.setattr(os, "fsync", lambda descriptor: (calls.append("sync"), sync(descriptor)))
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("rename"), replace(*names)))
    with committed(tmp_path / "unit", synced=False) as file:
        file.write(b"content")
    assert calls == (["sync", "rename"] if synced else ["rename"])
