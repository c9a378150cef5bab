"""Make shards as a job: in a working folder inside the output, resumed after a kill, published when complete.

Build, convert, index and recompress all use `make_shards`, so they resume, refuse and publish alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from shardtrain.errors import ShardsError
from shardtrain.pipeline.build_record import read_build_record
from shardtrain.pipeline.crew import engine_record
from shardtrain.pipeline.origin import Origin, origins_with
from shardtrain.pipeline.publishing import publish
from shardtrain.pipeline.workspace import Workspace, workspace
from shardtrain.runtime.atomic import commit_json
from shardtrain.runtime.jobs import Job
from shardtrain.runtime.locks import check_held
from shardtrain.runtime.memory import MemoryMeter
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.progress import say, warn
from shardtrain.runtime.quantities import QUOTED, enumerated
from shardtrain.shards import layout
from shardtrain.shards.layout import MEASURED, WORKING, Manifest
from shardtrain.shards.listing import with_lists
from shardtrain.shards.manifest import read_manifest, write_manifest
from shardtrain.shards.manifest_checks import check_manifest
from shardtrain.shards.verify import verify_shards

# The options in the digests of the first version. They never change: an option that is added later is in a digest only
# where it differs from its default, so finished shards of older versions are recognised.
_FIRST_OPTIONS = frozenset(
    {"append", "validation", "validation-fraction", "labels", "seed", "rows-per-shard", "compress"}
)
FIRST_CONVERT_OPTIONS = _FIRST_OPTIONS | {"x", "y", "kind"}
FIRST_BUILD_OPTIONS = _FIRST_OPTIONS | {
    *("vectorizer", "vectorizer-from", "max-features", "analyzer", "ngram-range", "stop-words", "min-df", "max-df"),
    *("binary", "sublinear-tf", "select", "max-length"),
    *("format", "label-column", "text-columns", "header", "unescape", "on-bad-row"),
}
_MOST_SHOWN = 10  # classes in a warning


def make_shards(
    out: Path,
    job: Job,
    make: Callable[[Workspace], tuple[Manifest, Passes]],
    *,
    memory_limit: int,
    overwrite: bool,
    resume: bool,
    reuse: bool = False,
    append: bool = False,
    origin: Origin | None = None,
    earlier: Path | None = None,
) -> Manifest:
    """Run `make` in a workspace and publish its shards in `out`; return the manifest.

    Args:
        out: the output folder.
        job: what decides the result.
        make: makes the shards in a workspace.
        memory_limit: for the record of the build.
        overwrite: finished shards may be replaced.
        resume: an interrupted build is required.
        reuse: shards that this job made are returned; with `overwrite` only if they are not damaged.
        append: finished shards stay, and the job appends to them.
        origin: of the documents of the new part.
        earlier: the shards that hold the parts before it.

    Raises:
        ShardsExistError: `out` holds something that must not be replaced.
        ShardsNotFoundError: `resume`, and there is nothing to resume.
        TakenOverError: another process took over the output folder, because this one did not answer.
    """
    if (resume or reuse) and _is_complete(out, job) and not (reuse and overwrite and _is_damaged(out)):
        complete = f"the build in '{out}' is complete"
        say(f"{complete}, there is nothing to resume" if resume else f"{complete}: its shards are used again")
        return read_manifest(out)
    with workspace(out, job, overwrite=overwrite, resume=resume, append=append, reuse=reuse) as space:
        if (space.path / layout.MANIFEST).exists():  # all is made: the job was killed while it published
            manifest = read_manifest(space.path)
        else:
            started = time.perf_counter()
            with MemoryMeter() as memory:
                manifest, passes = make(space)
                manifest = with_lists(manifest, space.ready)
            spans = [
                [title, round(start - memory.started, 3), round(stop - memory.started, 3)]
                for title, start, stop in passes.spans
            ]
            measured = {
                "job": job.digest,
                "seconds": round(time.perf_counter() - started, 3),
                "pass_seconds": {title: round(seconds, 3) for title, seconds in passes.seconds.items()},
                "pass_spans": spans,
                "resumed": space.resumed,
                "workers": passes.executor.workers,
                "memory_limit": memory_limit,
                "peak_memory_bytes": memory.peak_bytes,
                "memory_curve": [[round(seconds, 3), size] for seconds, size in memory.curve.points],
                "origins": origins_with(earlier, manifest, origin),
                **engine_record(passes.executor, memory.peak_bytes),
            }
            commit_json(space.ready / MEASURED, measured)
            check_manifest(manifest, manifest.version)  # a manifest that readers refuse is never published
            check_held(space.path)
            write_manifest(space.path, manifest)
        publish(out, manifest, space.ready, append=append)
    _warn_of_single_examples(manifest)
    return manifest


def _warn_of_single_examples(manifest: Manifest) -> None:
    """Warn of classes with one training example: the model cannot learn them, and nothing measures it."""
    counts = manifest.splits["train"].class_counts
    single = [name for name, count in zip(manifest.class_names, counts, strict=True) if count == 1]
    if single:
        classes = "1 class has" if len(single) == 1 else f"{len(single):,} classes have"
        shown = enumerated(single, _MOST_SHOWN, QUOTED)
        warn(f"{classes} a single training example, too few to learn from: {shown}")


def _is_damaged(out: Path) -> bool:
    """Return whether finished shards are not what was written, and report it."""
    try:
        faults = verify_shards(out, advance=lambda _: None).faults
    except ShardsError as error:
        faults = (error.on_command_line,)
    if faults:
        say(f"the shards in '{out}' are damaged ({faults[0]}); they are built again")
    return bool(faults)


def _is_complete(out: Path, job: Job) -> bool:
    """Return whether the shards in `out` are complete and were made by this job, whose working folder is gone."""
    record = read_build_record(out)
    if record is None or record.job != job.digest:
        return False
    return (out / layout.MANIFEST).exists() and not (out / WORKING).exists()
