"""Publish finished shards: a folder of shards changes from the old ones to the new ones in a single step.

Before anything in the output folder changes, a record says what is to be published and what it replaces. Where there
are older shards, their manifest is then replaced, by one rename, with one that names the new files inside the working
folder; from then on the new shards are readable. Only after that are the files linked to their places, older ones
removed, and the final manifest written. So at any time the manifest names whole files, and a publication that was
interrupted is completed by repeating it. The price: where the file system has no hard links, shards that replace older
ones are copied.
"""

from __future__ import annotations

import contextlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

from shardtrain.errors import ManifestError, ShardsError, ShardsExistError
from shardtrain.runtime.atomic import commit_copy, commit_file, commit_json, make_folder, sync_folder
from shardtrain.runtime.locks import check_held
from shardtrain.runtime.storage import storage_errors
from shardtrain.shards import layout
from shardtrain.shards.layout import MEASURED, READY, WORKING, Manifest, below, files_in
from shardtrain.shards.manifest import read_manifest, write_manifest

PUBLISHING = "publishing.json"  # in the working folder: what a publication that has begun replaces
_READY = re.compile(rf"([0-9a-f]{{16}}/)?{READY}")  # folders of finished files, relative to the working folder
_OURS = re.compile(  # names of shards and of lists, where no manifest lists them
    rf"({'|'.join(layout.SPLITS)})-\d{{5,}}\.h5(\{layout.CHECKSUM_LIST_SUFFIX}|\{layout.CHUNK_LIST_SUFFIX})?|"
    rf"source-\d{{5,}}\{layout.CHECKSUM_LIST_SUFFIX}"
)


class IncompletePublicationError(ShardsError):
    """A file of a publication is gone, so the job must be done again."""


@dataclass(frozen=True)
class Publication:
    """The shards that a finished job has made, on their way to the output folder.

    Attributes:
        out: the output folder.
        manifest: of the shards, in the output folder.
        replaces: whether there were shards that these replace.
        older: names of their files, relative to `out`.
        made_in: the folder of the finished files, relative to the working folder.
    """

    out: Path
    manifest: Manifest
    replaces: bool
    older: tuple[str, ...]
    made_in: str

    def publish(self) -> None:
        """Publish the shards; can be interrupted and repeated.

        Raises:
            StorageError: a file cannot be put in its place.
            TakenOverError: another process publishes in the folder.
            ShardsExistError: a link is in the place of a folder.
            IncompletePublicationError: a file is gone.
        """
        files, done = [*files_in(self.manifest), MEASURED], is_published(self.out)
        if self.replaces and not done:
            check_held(self.out / WORKING)
            write_manifest(self.out, below(self.manifest, f"{WORKING}/{self.made_in}/"))
        for name in files:
            self._put_in_place(name)
        for folder in {(self.out / name).parent for name in files}:
            sync_folder(folder)  # before the manifest that names the files
        if not done:
            self._check_complete()
            check_held(self.out / WORKING)
            write_manifest(self.out, self.manifest)
        self._remove_older(set(files))

    def _put_in_place(self, name: str) -> None:
        made, place = self.out / WORKING / self.made_in / name, self.out / name
        if not made.exists():  # an earlier attempt moved it, or it is of shards that are appended to
            return
        check_held(self.out / WORKING)
        if place.parent != self.out:
            if place.parent.is_symlink():
                raise ShardsExistError(f"'{place.parent}' is a link, so no files are written there; remove it")
            make_folder(place.parent)
        if self.replaces:
            commit_copy(made, place)  # the manifest names the file in the working folder
        else:
            commit_file(made, place)

    def _check_complete(self) -> None:
        """Refuse to write the manifest of files that are not there: a power failure may have taken them."""
        sizes = {name: entry.bytes for name, entry in self.manifest.files.items()}
        sizes |= {shard.file: shard.bytes for split in self.manifest.splits.values() for shard in split.shards}
        sizes |= {each.file: each.bytes for each in (*self.manifest.checksum_lists, *self.manifest.chunk_lists)}
        for name, size in sizes.items():
            path = self.out / name
            if not path.is_file() or path.stat().st_size != size:
                raise IncompletePublicationError(
                    f"'{path}' was made and is gone or cut short, probably by a power failure while it was published"
                )

    def _remove_older(self, wanted: set[str]) -> None:
        """Remove files of the older shards that the new ones do not have."""
        check_held(self.out / WORKING)
        folders = set()
        for name in self.older:
            path = self.out / name
            if name not in wanted:
                with storage_errors(path, "remove"):
                    path.unlink(missing_ok=True)
                folders.add(path.parent)
        for folder in folders - {self.out}:
            with contextlib.suppress(OSError):
                folder.rmdir()  # only an empty folder can go
        if folders:
            sync_folder(self.out)


def publish(out: Path, manifest: Manifest, ready: Path, *, append: bool) -> None:
    """Publish the shards of a finished job, whose manifest is in the working folder of `out`.

    Args:
        out: the output folder.
        manifest: of the shards.
        ready: the folder of the finished files, in the working folder.
        append: shards that are there stay.

    Raises:
        StorageError: a file cannot be put in its place; the same call completes it.
        TakenOverError: another process publishes in the folder.
    """
    begun = begun_publication(out)
    if begun is None:
        older = () if append else _older(out)
        replaces = not append and (out / layout.MANIFEST).exists()
        made_in = ready.relative_to(out / WORKING).as_posix()
        check_held(out / WORKING)
        commit_json(out / WORKING / PUBLISHING, {"replaces": replaces, "older": older, "ready": made_in})
        begun = Publication(out, manifest, replaces, tuple(older), made_in)
    begun.publish()


def begun_publication(out: Path) -> Publication | None:
    """Return the publication that was begun in an output folder and may be incomplete; None where there is none."""
    working = out / WORKING
    try:
        record = json.loads((working / PUBLISHING).read_bytes())
        made_in = record.get("ready", READY)  # of older versions
        if not _READY.fullmatch(made_in):
            return None
        older = tuple(map(str, record["older"]))
        return Publication(out, read_manifest(working), bool(record["replaces"]), older, made_in)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ManifestError):
        return None


def is_published(out: Path) -> bool:
    """Return whether the manifest in the working folder equals that of the published shards."""
    made, published = out / WORKING / layout.MANIFEST, out / layout.MANIFEST
    return made.exists() and published.exists() and made.read_bytes() == published.read_bytes()


def _older(out: Path) -> list[str]:
    """List the files of the shards in a folder: those of the manifest, or by their names if it cannot be read."""
    try:
        found = files_in(read_manifest(out))
    except (ManifestError, FileNotFoundError):
        found = [path.name for path in out.iterdir() if _OURS.fullmatch(path.name)]
    return sorted(found)
