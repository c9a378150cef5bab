"""Rewrite finished shards to another folder with another compression or none: the same rows in the same order.

Shards are rewritten one at a time with all cores; a killed run is resumed at the shard that was not finished. Shards
that reference external HDF5 files become ordinary shards, with copies of the features.
"""

from __future__ import annotations

import os
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
from shardtrain.runtime.executors import Serial
from shardtrain.runtime.jobs import file_job
from shardtrain.runtime.machine import cores
from shardtrain.runtime.passes import Passes
from shardtrain.shards import layout
from shardtrain.shards.finished import is_finished
from shardtrain.shards.layout import Manifest, ShardEntry
from shardtrain.shards.manifest import SHARD, fingerprint_of, parse_shard, shard_record
from shardtrain.shards.packing import check_codec, rewrite_shard, shape_of
from shardtrain.shards.shard import Shard


@dataclass(frozen=True)
class _Task:
    """A shard to rewrite."""

    shard: Shard
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
    with open_shards(source) as shards:
        chosen = {"compress": options.codec, "shards": shards.manifest.fingerprint, "append": None}
        return make_shards(
            out,
            file_job(chosen, {}, "recompress"),
            partial(_make, shards, options.codec),
            memory_limit=LEAST_MEMORY,
            overwrite=options.overwrite,
            resume=options.resume,
            earlier=source,
        )


def _make(shards: Shards, codec: str | None, space: Workspace) -> tuple[Manifest, Passes]:
    manifest = shards.manifest
    passes = Passes(Serial(), space.scratch, LEAST_MEMORY)
    splits = {}
    for name, split in shards.splits.items():
        tasks = [_Task(shard, space.ready / f"{name}-{number:05}.h5") for number, shard in enumerate(split.shards)]
        rewritten = passes.run(
            f"rewriting {name}",
            partial(_rewrite, manifest=manifest, codec=codec),
            tasks,
            [task.shard.entry.rows for task in tasks],
            names=[task.out.stem for task in tasks],
            unit="rows",
            schema=SHARD,
            encode=shard_record,
            decode=parse_shard,
            fits=lambda task, entry: is_finished(task.out, entry, shape_of(task.shard.entry, manifest)),
        )
        splits[name] = replace(split.entry, shards=tuple(rewritten))
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


def _rewrite(task: _Task, *, manifest: Manifest, codec: str | None) -> ShardEntry:
    shape = shape_of(task.shard.entry, manifest)
    return rewrite_shard(task.shard, shape, codec, task.out, threads=cores())
