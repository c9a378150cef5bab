"""`recompress`: write finished shards again with another compression."""

from __future__ import annotations

import argparse

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show, split_facts
from shardtrain.pipeline.options import NamedOutput, RecompressOptions
from shardtrain.runtime.quantities import size


def run(args: argparse.Namespace) -> int:
    """Rewrite shards, and print their sizes."""
    from shardtrain.pipeline.recompress import recompress
    from shardtrain.shards.manifest import read_manifest

    out = options_from(args, NamedOutput).out
    before = read_manifest(args.shards)
    made = recompress(args.shards, out, options_from(args, RecompressOptions))
    sizes = [
        sum(shard.bytes for split in manifest.splits.values() for shard in split.shards) for manifest in (before, made)
    ]
    text = f"{size(sizes[1])}, before {size(sizes[0])}: {out}"
    show(args.json, {**split_facts(made, out), "bytes": sizes[1], "bytes_before": sizes[0]}, text, summary=True)
    return 0


COMMAND = Command(
    name="recompress",
    help="write shards again, compressed or plain",
    description="Write finished shards to another folder with another compression; the rows stay the same.",
    run=run,
    arguments=(Argument(name="shards", metavar="SHARDS", help="folder of finished shards, which is not changed"),),
    options=(NamedOutput, RecompressOptions),
    examples="""\
python -m shardtrain recompress data/shards --out data/small --compress zstd
python -m shardtrain recompress data/small --out data/fast --compress none""",
)
