"""`index`: make shards of HDF5 files whose features stay in place."""

from __future__ import annotations

import argparse

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show_made
from shardtrain.pipeline.options import IndexOptions, NamedOutput


def run(args: argparse.Namespace) -> int:
    """Index files, and print a summary."""
    from shardtrain.pipeline.index import index

    out = options_from(args, NamedOutput).out
    manifest = index(args.files, out, options_from(args, IndexOptions))
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    places = [entry for shard in shards for entry in shard.datasets.values() if entry.source is not None]
    decoded = sorted({name for entry in places if entry.chunks for name in entry.chunks.filters})
    how = "read chunk by chunk" if any(entry.chunks for entry in places) else "mapped where they are"
    show_made(args.json, out, manifest, f"{how}{', decoded from ' + ' and '.join(decoded) if decoded else ''}")
    return 0


COMMAND = Command(
    name="index",
    help="use HDF5 files as shards, without copying them",
    description="Write labels and a manifest for HDF5 files whose features stay where they are: dense rows, token "
    "ids, or CSR groups as in AnnData and 10x files. The files must not change afterwards.",
    run=run,
    arguments=(Argument(name="files", metavar="FILE", nargs="+", help="HDF5 files of the same features, in order"),),
    options=(NamedOutput, IndexOptions),
    examples="""\
python -m shardtrain index images.h5 --x features --y labels --out data/images
python -m shardtrain index atlas.h5ad --x X --y obs/cell_type --out data/atlas""",
)
