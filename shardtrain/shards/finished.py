"""Compare a shard that was finished before an interruption with its record, before the record is used.

The manifest is made of such records. One that is not true of its file would make a folder that readers refuse, after
all work was done, so the file is read once more. That costs a pass over what is finished, where a build is resumed.
"""

from __future__ import annotations

from pathlib import Path

from shardtrain.errors import ShardsError
from shardtrain.runtime.checksums import block_checksums
from shardtrain.runtime.system import mapped
from shardtrain.shards.hdf5 import locate, open_shard_file, shard_dataset
from shardtrain.shards.layout import ShardEntry
from shardtrain.shards.manifest_checks import check_shard
from shardtrain.shards.write import ShardShape


def is_finished(path: Path, entry: ShardEntry, shape: ShardShape) -> bool:
    """Return whether a file is the shard of this shape that its entry in a manifest describes, in every byte."""
    try:
        check_shard(entry, shape.kind, shape.num_features, {})
        if (entry.file, entry.rows) != (path.name, shape.rows) or path.stat().st_size != entry.bytes:
            return False
        with open_shard_file(path) as file:
            found = {name: locate(shard_dataset(file, name, entry.datasets[name])) for name in shape.datasets()}
        if found != entry.datasets or {name: (each.dtype, each.shape) for name, each in found.items()} != dict(
            shape.datasets()
        ):
            return False
        with open(path, "rb") as file, mapped(file.fileno()) as content:
            return block_checksums(content, entry.block_bytes) == entry.checksums
    except (OSError, ValueError, ShardsError):
        return False
