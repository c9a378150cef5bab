"""The working folder of a build: who it belongs to, what is finished in it, and how its result is published.

Everything is made in a folder inside the output folder and moved out at the very end, the manifest last; until then
older shards stay as they are. The working folder says which build it belongs to (options and corpus), so the same
command goes on where a killed one stopped, and another one is refused. Scratch files are not synced: after a restart
of the machine they are not trusted and the build starts again.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from shardtrain.corpus.folders import corpus_files
from shardtrain.errors import DiskFullError, ShardsExistError, ShardsNotFoundError
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.atomic import commit_file, commit_json, locked_folder, sync_folder
from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.progress import say
from shardtrain.shards import layout
from shardtrain.shards.manifest import write_manifest
from shardtrain.version import __version__

WORKING = ".building"  # folder inside the output folder
JOB = "job.json"  # whose working folder it is
MEASURED = "build.json"  # what differs from build to build of the same shards: time, memory, workers
_ENDS = 1 << 16  # bytes at a file's head and tail that identify it
_MANY_FILES = 64  # above it files are identified together
_BOOT = Path("/proc/sys/kernel/random/boot_id")


class Workspace:
    """The folders of a build under way: `scratch` for what passes hand on, `ready` for what is to be published."""

    def __init__(self, path: Path, *, resumed: bool) -> None:
        self.path = path
        self.scratch = path / "scratch"
        self.ready = path / "ready"
        self.resumed = resumed
        self.scratch.mkdir(exist_ok=True)
        self.ready.mkdir(exist_ok=True)


@contextlib.contextmanager
def workspace(
    out: Path, job: dict[str, Any], *, overwrite: bool, resume: bool, append: bool = False
) -> Iterator[Workspace]:
    """The working folder in `out` for a job; it stays after Ctrl-C and is removed at every other end.

    Args:
        out: the output folder; made if missing, removed again if the build fails and nothing else is in it.
        job: identifies the build; see `identify`.
        overwrite: finished shards may be replaced, and an interrupted build of another job thrown away.
        resume: an interrupted build is expected.
        append: finished shards stay, and the job adds to them.

    Raises:
        ShardsExistError: `out` holds something that must not be replaced, or another build is running in it.
        ShardsNotFoundError: `resume`, and there is nothing to go on with.
    """
    working = out / WORKING
    check_free(out, job, overwrite=overwrite, append=append)
    working.mkdir(parents=True, exist_ok=True)
    with _locked(working):
        try:
            resumed = _adopt(working, job, overwrite=overwrite, resume=resume)
            yield Workspace(working, resumed=resumed)
        except KeyboardInterrupt:
            say(f"interrupted; the same command goes on from here, and what is done is kept in '{working}'")
            raise
        except _Foreign as error:
            raise ShardsExistError(str(error)) from None
        except BaseException:
            (working / JOB).unlink(missing_ok=True)  # nothing goes on from here, not even from a half-removed folder
            _clear(out)
            raise
        _clear(out)


class _Foreign(Exception):  # noqa: N818 - it never leaves this module
    """The working folder belongs to another build and has to stay."""


def _clear(out: Path) -> None:
    """Remove the working folder, what takes long first: until its owner is gone, a finished build is known as such."""
    working = out / WORKING
    for path in working.iterdir() if working.is_dir() else ():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
    (working / JOB).unlink(missing_ok=True)
    shutil.rmtree(working, ignore_errors=True)
    with contextlib.suppress(OSError):
        out.rmdir()  # only an empty folder can go


def check_free(out: Path, job: dict[str, Any], *, overwrite: bool, append: bool) -> None:
    """Refuse an output folder that a job must not be published in.

    Raises:
        ShardsExistError: it is a file, or holds shards that are not to be replaced or files that are not shards.
    """
    replaceable = overwrite or append or _is_whole(out / WORKING, job)
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


@contextlib.contextmanager
def _locked(working: Path) -> Iterator[None]:
    """Hold the folder for this process."""
    with locked_folder(working) as mine:
        if not mine:
            raise ShardsExistError(f"another build is running in '{working.parent}'; wait for it or stop it")
        yield


def _adopt(working: Path, job: dict[str, Any], *, overwrite: bool, resume: bool) -> bool:
    """Keep the working folder if it is this job's, else begin a new one; whether it was kept."""
    try:
        found = json.loads((working / JOB).read_bytes())
    except (OSError, ValueError):
        found = None
    finished = _is_published(working)
    if found and (working / layout.MANIFEST).exists():  # all that is made is synced, a restart does not matter
        found["boot"] = job["boot"]
    if found and finished:  # nor does it matter what was there before
        found["options"]["append"] = job["options"]["append"]
    changed = difference(found, job) if found else ""
    if found and not changed:
        say(f"going on with the interrupted build in '{working.parent}'")
        return True
    if found and found.get("boot") != job["boot"]:
        say("the machine was restarted since the build was interrupted; it starts again")
    elif found and not overwrite and not finished:
        instead = (
            f"delete '{working}' first" if job["options"]["append"] else "start from the beginning with --overwrite"
        )
        raise _Foreign(
            f"'{working.parent}' holds an interrupted build that was another one: {changed}; run that command again "
            f"to go on with it, or, to give it up for this one, {instead}"
        )
    elif resume:
        raise ShardsNotFoundError(f"there is no interrupted build in '{working.parent}'; leave --resume away")
    for path in working.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    commit_json(working / JOB, job)
    return False


def _is_whole(working: Path, job: dict[str, Any]) -> bool:
    """Whether this job was killed when all that was left to do was to remove its working folder."""
    try:
        found = json.loads((working / JOB).read_bytes())
    except (OSError, ValueError):
        return False
    return _is_published(working) and not difference({**found, "boot": job["boot"]}, job)


def is_complete(out: Path, job: dict[str, Any]) -> bool:
    """Whether the shards in `out` are whole and were made by this job, with nothing left of its work."""
    try:
        made_by = json.loads((out / MEASURED).read_bytes())["job"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return (out / layout.MANIFEST).exists() and not (out / WORKING).exists() and made_by == digest(job)


def interrupted(out: Path, job: dict[str, Any]) -> str | None:
    """What an interrupted build in a folder differs in from a job: empty if in nothing, None where there is none."""
    try:
        found = json.loads((out / WORKING / JOB).read_bytes())
    except (OSError, ValueError):
        return None
    return difference(found, job)


def digest(job: dict[str, Any]) -> str:
    """Identity of a job, whenever the machine was started."""
    return checksum(json.dumps({**job, "boot": None}, sort_keys=True).encode())


def _is_published(working: Path) -> bool:
    """Whether the manifest that was made in the working folder is that of the shards."""
    ours, theirs = working / layout.MANIFEST, working.parent / layout.MANIFEST
    return ours.exists() and theirs.exists() and ours.read_bytes() == theirs.read_bytes()


def identify(
    corpus: Path, options: BuildOptions, *, unit_bytes: int, reused: dict[str, str] | None = None
) -> dict[str, Any]:
    """What decides a build's result: options, corpus and program, as JSON values, and the machine's start.

    Args:
        corpus: a file or a folder.
        options: of the build.
        unit_bytes: size of the units.
        reused: identities of the `vectorizer-from` or of the shards that are added to, `append`.
    """
    read = options.read
    reused = reused or {}
    chosen = {
        "append": reused.get("append"),
        "vectorizer-from": reused.get("vectorizer-from"),
        "vectorizer": options.vectorizer,
        "validation": str(options.validation) if options.validation else None,
        "validation-fraction": options.validation_fraction,
        "max-features": options.num_features,
        "analyzer": options.analyzer,
        "ngram-range": list(options.ngram_range),
        "stop-words": sorted(set(options.stop_words)),
        "min-df": options.min_df,
        "max-df": options.max_df,
        "binary": options.binary,
        "sublinear-tf": options.sublinear_tf,
        "select": options.select,
        "max-length": options.max_length,
        "seed": options.seed,
        "rows-per-shard": options.rows_per_shard,
        "compress": options.compress,
        "format": read.format,
        "label-column": read.label_column,
        "text-columns": list(read.text_columns) if read.text_columns else None,
        "header": read.header,
        "unescape": read.unescape,
        "labels": read.labels,
        "on-bad-row": read.on_bad_row,
    }
    files = {**files_of(corpus), **(files_of(options.validation) if options.validation else {})}
    return job_of(chosen, files, f"units of {unit_bytes} bytes")


def job_of(options: dict[str, Any], files: dict[str, list[Any]], program: str) -> dict[str, Any]:
    """What decides a result, as JSON values: options by their names on the command line, files as `files_of` has them.

    Args:
        options: `append` among them: the identity of the shards that are added to, or None.
        files: that are read.
        program: what of the program decides the result, besides its version.
    """
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    return {"shardtrain": f"{__version__}, {program}", "boot": boot, "options": options, "corpus": files}


def files_of(path: Path) -> dict[str, list[Any]]:
    """Of every file of a corpus its size, modification time and a checksum of its ends."""
    path = path.resolve()
    if not path.is_dir():
        return {str(path): _identity(path)} if path.exists() else {}
    names = corpus_files(path)
    if len(names) <= _MANY_FILES:
        return {str(file): _identity(file) for file in names}
    stats = [(str(file), (stat := file.stat()).st_size, stat.st_mtime_ns) for file in names]
    return {str(path): [sum(size for _, size, _ in stats), len(stats), checksum(repr(stats).encode())]}


def _identity(path: Path) -> list[Any]:
    with open(path, "rb") as file:
        stat = os.fstat(file.fileno())
        head = file.read(_ENDS)
        file.seek(max(0, stat.st_size - _ENDS))
        return [stat.st_size, stat.st_mtime_ns, checksum(head + file.read(_ENDS))]


def difference(found: dict[str, Any], job: dict[str, Any]) -> str:
    """The first thing in which two jobs differ, in words; empty if they are the same."""
    for name, value in job["options"].items():
        if found.get("options", {}).get(name) != value:
            return f"--{name} was {found.get('options', {}).get(name)}, it is {value} now"
    for name in sorted({*job["corpus"], *found.get("corpus", {})}):
        old, new = found.get("corpus", {}).get(name), job["corpus"].get(name)
        if old != new:
            if not old or not new:
                return f"'{name}' was {'not ' * (not old)}there, now it is{' not' * (not new)}"
            what = f"had {old[0]:,} bytes, it has {new[0]:,} now" if old[0] != new[0] else "was changed meanwhile"
            return f"'{name}' {what}"
    if found.get("shardtrain") != job["shardtrain"]:
        return f"it was begun by shardtrain {found.get('shardtrain')}, this is {job['shardtrain']}"
    return "the machine was restarted" if found.get("boot") != job["boot"] else ""


def require_room(space: Workspace, needed: int) -> None:
    """Check, before work starts, that the disk has room for about `needed` bytes, what is done already included.

    Raises:
        DiskFullError: it has less.
    """
    room = room_of(space.path)
    if needed > room:
        raise DiskFullError(
            f"the build needs about {needed / 1e9:,.2f} GB for scratch files and shards, the disk of "
            f"'{space.path.parent}' has {room / 1e9:,.2f} GB: free some, or choose an --out on another disk"
        )


def room_of(working: Path) -> int:
    """Bytes that a build in a working folder (it need not exist) has on its disk, what is done already included."""
    done = sum(path.stat().st_size for path in working.rglob("*") if path.is_file())
    there = next(path for path in (working, *working.absolute().parents) if path.is_dir())
    return done + shutil.disk_usage(there).free


def publish(space: Workspace, out: Path, manifest: layout.Manifest, *, append: bool) -> None:
    """Move the finished files out and write the manifest last; safe to be cut and repeated.

    They replace older ones, whose manifest goes first; with `append` they are all new, and the older manifest, which
    does not name them, is whole until the new one takes its place.
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


def _remove_others(out: Path, manifest: layout.Manifest) -> None:
    """Remove older shards and files of an older vectorizer that the manifest does not name."""
    wanted = {out / name for name in manifest.files}
    wanted |= {out / shard.file for split in manifest.splits.values() for shard in split.shards}
    vectorizer = out / layout.VECTORIZER
    for path in (*out.glob("*.h5"), *(vectorizer.iterdir() if vectorizer.is_dir() else ())):
        if path not in wanted:
            path.unlink()
    if vectorizer.is_dir():
        sync_folder(vectorizer)
