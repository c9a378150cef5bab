"""Hold a build's working folder: scratch files and finished shards, until they are published.

The working folder is inside the output folder; `publishing` moves the shards out at the end. `runtime.jobs` decides
which job the folder belongs to and resumes it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardtrain.arrays.scratch import check_spilled
from shardtrain.corpus.folders import corpus_files
from shardtrain.errors import NoRoomError, ShardsExistError, ShardsNotFoundError
from shardtrain.pipeline import titles
from shardtrain.pipeline.publishing import IncompletePublicationError, begun_publication, is_published
from shardtrain.runtime.atomic import final_name, make_folder
from shardtrain.runtime.jobs import Job, JobFolder, identify_files
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.progress import progress, say
from shardtrain.runtime.quantities import size
from shardtrain.runtime.storage import check_output_folder
from shardtrain.shards import layout


class Workspace:
    """The folders of a running build: `scratch` for files between passes, `ready` for files to publish."""

    def __init__(self, path: Path, place: Path, *, resumed: bool) -> None:
        """Make the folders in `place`, which is in the working folder `path`."""
        self.path = path
        self.scratch = place / "scratch"
        self.ready = place / layout.READY
        self.resumed = resumed
        for folder in (self.scratch, self.ready):
            make_folder(folder)


def folder_of(out: Path) -> JobFolder:
    """Return the working folder of a job that makes shards in `out`."""
    return JobFolder(
        path=out / layout.WORKING,
        owner=out,
        noun="build",
        error=ShardsExistError,
        missing=ShardsNotFoundError,
        evidence=frozenset({layout.MANIFEST}),
    )


@contextlib.contextmanager
def workspace(
    out: Path, job: Job, *, overwrite: bool, resume: bool, append: bool = False, reuse: bool = False
) -> Iterator[Workspace]:
    """Hold the working folder in `out` for a job; it is removed when the block ends, but not if it fails.

    What an earlier job had finished and begun to publish is published first: `out` may hold only a part of it.

    Args:
        out: the output folder; created if missing, removed if the build fails and it is empty.
        job: to do.
        overwrite: finished shards may be replaced, and an interrupted build of another job discarded.
        resume: an interrupted build is required.
        append: finished shards stay, and the job appends to them.
        reuse: shards that this job made would have been used.

    Raises:
        ShardsExistError: `out` holds something that must not be replaced, or another build is running in it.
        ShardsNotFoundError: `resume`, and there is nothing to resume.
        StorageError: the folder cannot be made.
    """
    check_free(out, job, overwrite=overwrite, append=append, resume=resume, reuse=reuse)
    folder = folder_of(out)
    try:
        with folder.made_and_held():
            if begun := begun_publication(out):
                try:
                    begun.publish()
                except IncompletePublicationError as gone:
                    say(f"{gone.on_command_line}; the build starts again")
                    folder.discard()
                check_free(out, job, overwrite=overwrite, append=append, resume=resume)
            published, found = is_published(out), folder.recorded()
            synced = (folder.path / layout.MANIFEST).exists()  # the shards are whole
            if found and published:  # the shards that were appended to do not matter any more
                found = {**found, "options": {**found["options"], "append": job.record["options"]["append"]}}
            with folder.work(
                job, overwrite=overwrite, resume=resume, found=found, settled=published, synced=synced
            ) as resumed:
                begun_before = resumed and (folder.path / layout.READY).is_dir()  # by a version without folders of jobs
                place = folder.path if begun_before else folder.place_of(job)
                yield Workspace(folder.path, place, resumed=resumed)
    finally:
        with contextlib.suppress(OSError):
            out.rmdir()  # only an empty folder can go


def check_free(
    out: Path, job: Job, *, overwrite: bool, append: bool, resume: bool = False, reuse: bool = False
) -> None:
    """Refuse an output folder that a job must not be published in.

    With `resume` an interrupted job that was to replace the shards there may do so: it was asked for when it began.

    Raises:
        ShardsExistError: it is a file, or holds shards that must not be replaced or files that are not shards.
    """
    check_output_folder(out, "--out", ShardsExistError)
    begun = folder_of(out).difference(job) == ""
    replaceable = overwrite or append or (resume and begun) or _is_finished(out, job)
    contents = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if layout.MANIFEST in contents and not replaceable:
        if begun:
            raise ShardsExistError(
                f"'{out}' holds shards that an interrupted build was to replace; complete it with --resume"
            )
        if reuse:
            raise ShardsExistError(
                f"'{out}' holds shards of other files, or made with other options; replace them with --overwrite, or "
                "choose another folder"
            )
        raise ShardsExistError(
            f"'{out}' already holds shards; choose another --out, replace them with --overwrite, or --append to them"
        )
    if contents and not contents & {layout.MANIFEST, layout.WORKING}:
        raise ShardsExistError(
            f"'{out}' holds other files ({', '.join(sorted(contents)[:3])}), not shards; choose another --out"
        )


def _is_finished(out: Path, job: Job) -> bool:
    """Return whether this job was killed after it published, before it removed its working folder."""
    found = folder_of(out).recorded()
    return bool(found and is_published(out) and not job.differs_from(found))


def files_of(path: Path) -> dict[str, list[Any]]:
    """Identify the files of a corpus, which is a file or a folder; empty where it does not exist."""
    path = Path(os.path.realpath(path))
    if not path.is_dir():
        return identify_files(path, [path]) if path.is_file() else {}  # a pipe is refused when it is opened
    return identify_files(path, corpus_files(path))


def check_left(space: Workspace, passes: Passes) -> None:
    """Check the arrays in scratch files that an interrupted job left, before any of them is used.

    Raises:
        ScratchError: some are not what was written.
    """
    if not space.resumed:
        return
    folders = [Path(folder) for folder, _, files in os.walk(space.scratch) if files]
    with (
        passes.timed(titles.CHECK),
        progress(titles.CHECK, total=len(folders), unit=" folders", lasting=False) as shown,
    ):
        for _ in passes.executor.run(_check_folder, folders):
            shown.add(1)


def _check_folder(folder: Path) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_file(follow_symlinks=False) and final_name(entry.name) is None:  # else it is used by nobody
                check_spilled(Path(entry.path))


def require_room(space: Workspace, needed: int) -> None:
    """Check, before work starts, that the disk has room for about `needed` bytes, including those already written.

    Raises:
        NoRoomError: it has less.
    """
    room = room_of(space.path)
    if needed > room:
        raise NoRoomError(
            f"the build needs about {size(needed)} for scratch files and shards, the disk of "
            f"'{space.path.parent}' has {size(room)}: free some, or choose an --out on another disk"
        )


def room_of(working: Path) -> int:
    """Return the bytes available to a build in a working folder, including those written; the folder may not exist."""
    done = sum(path.stat().st_size for path in working.rglob("*") if path.is_file())
    existing = next(path for path in (working, *working.absolute().parents) if path.is_dir())
    return done + shutil.disk_usage(existing).free
