"""Hold a build's working folder: scratch files and finished shards, and publish the shards.

The working folder is inside the output folder; its shards are moved out at the end, the manifest last, so older shards
stay usable until then. `runtime.jobs` decides which job the folder belongs to and resumes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardtrain.corpus.folders import corpus_files
from shardtrain.errors import DiskFullError, ShardsExistError, ShardsNotFoundError
from shardtrain.runtime.atomic import commit_file, sync_folder
from shardtrain.runtime.jobs import Job, JobFolder, identify_files
from shardtrain.runtime.quantities import size
from shardtrain.shards import layout
from shardtrain.shards.layout import Manifest
from shardtrain.shards.manifest import write_manifest

WORKING = ".building"  # folder inside the output folder
MEASURED = "build.json"  # figures that differ between builds of the same shards: time, memory, workers


class Workspace:
    """The folders of a running build: `scratch` for files between passes, `ready` for files to publish."""

    def __init__(self, path: Path, *, resumed: bool) -> None:
        self.path = path
        self.scratch = path / "scratch"
        self.ready = path / "ready"
        self.resumed = resumed
        self.scratch.mkdir(exist_ok=True)
        self.ready.mkdir(exist_ok=True)


def folder_of(out: Path) -> JobFolder:
    """Return the working folder of a job that makes shards in `out`."""
    return JobFolder(
        path=out / WORKING,
        owner=out,
        noun="build",
        error=ShardsExistError,
        missing=ShardsNotFoundError,
        evidence=frozenset({layout.MANIFEST}),
    )


@contextlib.contextmanager
def workspace(out: Path, job: Job, *, overwrite: bool, resume: bool, append: bool = False) -> Iterator[Workspace]:
    """Hold the working folder in `out` for a job; it is kept after Ctrl-C and otherwise removed at the end.

    Args:
        out: the output folder; created if missing, removed if the build fails and it is empty.
        job: to do.
        overwrite: finished shards may be replaced, and an interrupted build of another job discarded.
        resume: an interrupted build is required.
        append: finished shards stay, and the job appends to them.

    Raises:
        ShardsExistError: `out` holds something that must not be replaced, or another build is running in it.
        ShardsNotFoundError: `resume`, and there is nothing to resume.
    """
    check_free(out, job, overwrite=overwrite, append=append)
    folder = folder_of(out)
    folder.path.mkdir(parents=True, exist_ok=True)
    published, found = _is_published(folder.path), folder.recorded()
    if found and (folder.path / layout.MANIFEST).exists():  # all files are synced, so a restart does not matter
        found = {**found, "boot": job.record["boot"]}
    if found and published:  # nor do the shards that were appended to
        found = {**found, "options": {**found["options"], "append": job.record["options"]["append"]}}
    try:
        with (
            folder.held(),
            folder.work(job, overwrite=overwrite, resume=resume, found=found, settled=published) as resumed,
        ):
            yield Workspace(folder.path, resumed=resumed)
    finally:
        with contextlib.suppress(OSError):
            out.rmdir()  # only an empty folder can go


def check_free(out: Path, job: Job, *, overwrite: bool, append: bool) -> None:
    """Refuse an output folder that a job must not be published in.

    Raises:
        ShardsExistError: it is a file, or holds shards that must not be replaced or files that are not shards.
    """
    replaceable = overwrite or append or _is_finished(out, job)
    if out.exists() and not out.is_dir():
        raise ShardsExistError(f"'{out}' is a file; choose another --out")
    contents = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if layout.MANIFEST in contents and not replaceable:
        raise ShardsExistError(
            f"'{out}' already holds shards; choose another --out, replace them with --overwrite, or --append to them"
        )
    if contents and not contents & {layout.MANIFEST, WORKING}:
        raise ShardsExistError(
            f"'{out}' holds other files ({', '.join(sorted(contents)[:3])}), not shards; choose another --out"
        )


def _is_finished(out: Path, job: Job) -> bool:
    """Return whether this job was killed after it published, before it removed its working folder."""
    found = folder_of(out).recorded()
    if not found or not _is_published(out / WORKING):
        return False
    return not job.differs_from({**found, "boot": job.record["boot"]})


def _is_published(working: Path) -> bool:
    """Return whether the manifest in the working folder equals that of the published shards."""
    made, published = working / layout.MANIFEST, working.parent / layout.MANIFEST
    return made.exists() and published.exists() and made.read_bytes() == published.read_bytes()


def files_of(path: Path) -> dict[str, list[Any]]:
    """Identify the files of a corpus, which is a file or a folder; empty where it does not exist."""
    path = Path(os.path.realpath(path))
    if not path.is_dir():
        return identify_files(path, [path]) if path.is_file() else {}  # a pipe is refused when it is opened
    return identify_files(path, corpus_files(path))


def require_room(space: Workspace, needed: int) -> None:
    """Check, before work starts, that the disk has room for about `needed` bytes, including those already written.

    Raises:
        DiskFullError: it has less.
    """
    room = room_of(space.path)
    if needed > room:
        raise DiskFullError(
            f"the build needs about {size(needed)} for scratch files and shards, the disk of "
            f"'{space.path.parent}' has {size(room)}: free some, or choose an --out on another disk"
        )


def room_of(working: Path) -> int:
    """Return the bytes available to a build in a working folder, including those written; the folder may not exist."""
    done = sum(path.stat().st_size for path in working.rglob("*") if path.is_file())
    existing = next(path for path in (working, *working.absolute().parents) if path.is_dir())
    return done + shutil.disk_usage(existing).free


def publish(space: Workspace, out: Path, manifest: Manifest, *, append: bool) -> None:
    """Move the finished files out and write the manifest last; can be interrupted and repeated.

    The files replace older ones, whose manifest is removed first. With `append` all files are new, and the older
    manifest, which does not name them, stays valid until the new one replaces it.
    """
    old = out / layout.MANIFEST
    if old.exists() and not append:
        old.unlink()
        sync_folder(out)
    for path in sorted(space.ready.rglob("*")):
        target = out / path.relative_to(space.ready)
        if path.is_dir():
            target.mkdir(exist_ok=True)
        else:
            commit_file(path, target)
    if not append:
        _remove_others(out, manifest)
    sync_folder(out)
    write_manifest(out, manifest)


def _remove_others(out: Path, manifest: Manifest) -> None:
    """Remove older shards and files of an older vectorizer that the manifest does not name."""
    wanted = {out / name for name in manifest.files}
    wanted |= {out / shard.file for split in manifest.splits.values() for shard in split.shards}
    vectorizer = out / layout.VECTORIZER
    for path in (*out.glob("*.h5"), *(vectorizer.iterdir() if vectorizer.is_dir() else ())):
        if path not in wanted:
            path.unlink()
    if vectorizer.is_dir():
        sync_folder(vectorizer)
