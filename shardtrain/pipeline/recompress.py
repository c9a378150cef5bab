"""Rewrite finished shards to another folder with another compression or none: the same rows in the same order.

Shards are rewritten one at a time with all cores, or by the workers of an engine, each with one core; a killed run is
resumed at the shards that were not finished. Shards that reference external HDF5 files become ordinary shards, with
copies of the features.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from shardtrain.errors import CorruptShardError, ShardsExistError
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.pipeline.options import LEAST_MEMORY, RecompressOptions
from shardtrain.pipeline.shards_job import make_shards
from shardtrain.pipeline.workspace import Workspace
from shardtrain.runtime.atomic import commit_bytes, make_folder
from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.engines.opening import open_cluster
from shardtrain.runtime.executors import Serial
from shardtrain.runtime.jobs import file_job
from shardtrain.runtime.machine import cores
from shardtrain.runtime.passes import Passes
from shardtrain.shards import layout
from shardtrain.shards.finished import is_finished
from shardtrain.shards.layout import Manifest, ShardEntry, SplitEntry
from shardtrain.shards.manifest import SHARD, fingerprint_of, parse_shard, shard_record
from shardtrain.shards.packing import check_codec, rewrite_shard, shape_of


@dataclass(frozen=True)
class _Task:
    """A shard to rewrite: its split and its number in it."""

    split: str
    number: int
    out: Path


def recompress(source: Path, out: Path, options: RecompressOptions) -> Manifest:
    """Rewrite the shards in `source` to the folder `out`, compressed or not; every byte read is verified.

    Raises:
        ShardsNotFoundError: there are no shards in `source`, or `resume` and nothing to resume.
        ShardsExistError: `out` is `source`, or holds something that must not be replaced.
        CorruptShardError: the shards are damaged.
        MissingExtraError: a codec is not installed.
        DiskFullError: the disk has no room.
    """
    if out.exists() and source.exists() and os.path.samefile(source, out):
        raise ShardsExistError(f"'{out}' is the folder that is read; choose another --out")
    if options.codec is not None:
        check_codec(options.codec)
    source, out = options.placed(source), options.placed(out)
    with open_shards(source) as shards:
        chosen = {"compress": options.codec, "shards": shards.manifest.fingerprint, "append": None}
        return make_shards(
            out,
            file_job(chosen, {}, "recompress"),
            partial(_make, shards, options),
            memory_limit=LEAST_MEMORY,
            overwrite=options.overwrite,
            resume=options.resume,
            earlier=source,
        )


def _make(shards: Shards, options: RecompressOptions, space: Workspace) -> tuple[Manifest, Passes]:
    manifest, executor = shards.manifest, options.executor_name
    rewrite = partial(_rewrite, shards, codec=options.codec, threads=cores())
    if not executor.local:
        rewrite = partial(_open_and_rewrite, shards.path, manifest.fingerprint, options.codec)
    with Serial() if executor.local else open_cluster(executor, space.scratch, prepare=_nothing) as workers:
        passes = Passes(workers, space.scratch, LEAST_MEMORY)
        splits = {split: _rewrite_split(passes, shards, split, rewrite, space.ready) for split in shards.splits}
    files = {}
    for file, entry in manifest.files.items():
        content = (shards.path / file).read_bytes()
        if checksum(content) != entry.checksum:
            raise CorruptShardError(
                f"'{shards.path / file}' is damaged: its checksum is {checksum(content)}, the manifest says "
                f"{entry.checksum}; restore it from a copy or rebuild the shards"
            )
        name = f"{layout.VECTORIZER}/{Path(file).name}"
        make_folder((space.ready / name).parent)
        commit_bytes(space.ready / name, content)
        files[name] = entry
    made = replace(manifest, splits=splits, files=files, sources={}, fingerprint=fingerprint_of(splits, {}))
    return made, passes


def _rewrite_split(
    passes: Passes, shards: Shards, split: str, rewrite: Callable[[_Task], ShardEntry], ready: Path
) -> SplitEntry:
    entries, manifest = shards.splits[split].entry.shards, shards.manifest
    tasks = [_Task(split, number, ready / f"{split}-{number:05}.h5") for number in range(len(entries))]
    rewritten = passes.run(
        f"rewriting {split}",
        rewrite,
        tasks,
        [entry.rows for entry in entries],
        name=f"shards-{split}",
        unit="rows",
        schema=SHARD,
        encode=shard_record,
        decode=parse_shard,
        fits=lambda task, entry: is_finished(task.out, entry, shape_of(entries[task.number], manifest)),
    )
    return replace(shards.splits[split].entry, shards=tuple(rewritten))


def _rewrite(shards: Shards, task: _Task, *, codec: str | None, threads: int) -> ShardEntry:
    shard = shards.splits[task.split].shards[task.number]
    return rewrite_shard(shard, shape_of(shard.entry, shards.manifest), codec, task.out, threads=threads)


def _open_and_rewrite(folder: Path, fingerprint: str, codec: str | None, task: _Task) -> ShardEntry:
    """Rewrite a shard of a folder that this process opens itself.

    Raises:
        CorruptShardError: the folder holds other shards than those that the driver opened.
    """
    with open_shards(folder) as shards:
        if shards.manifest.fingerprint != fingerprint:
            raise CorruptShardError(f"the shards in '{folder}' were changed meanwhile; run the command again")
        return _rewrite(shards, task, codec=codec, threads=1)


def _nothing() -> None:
    """Prepare a worker: codecs need nothing."""
