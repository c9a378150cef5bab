"""`recompress`: finished shards with another compression."""

from __future__ import annotations

import argparse
from pathlib import Path

from shardtrain.cli.results import show, split_facts

EXAMPLE = """\
examples:
  python -m shardtrain recompress data/shards --out data/small --compress zstd
  python -m shardtrain recompress data/small --out data/fast --compress none
"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `recompress`."""
    parser = commands.add_parser(
        "recompress",
        help="write shards again, compressed or plain",
        description="Write finished shards to another folder with another compression; the rows stay what they are.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder of finished shards; it stays as it is")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the new shards")
    parser.add_argument(
        "--compress",
        required=True,
        choices=("zstd", "lz4", "blosc2", "none"),
        help="HDF5 filter of the new shards: zstd is smallest, lz4 fastest; none: plain, mapped without decoding",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace finished shards in --out")
    parser.add_argument(
        "--resume", action="store_true", help="insist on going on with an interrupted run, as the same command does"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Rewrite, and say what was made."""
    from shardtrain.pipeline.recompress import recompress
    from shardtrain.shards.manifest import read_manifest

    codec = None if args.compress == "none" else args.compress
    before = read_manifest(args.shards)
    made = recompress(args.shards, args.out, codec, overwrite=args.overwrite, resume=args.resume)
    sizes = [
        sum(shard.bytes for split in manifest.splits.values() for shard in split.shards) for manifest in (before, made)
    ]
    text = f"{sizes[1] / 1e6:,.1f} MB, before {sizes[0] / 1e6:,.1f} MB: {args.out}"
    show(args.json, {**split_facts(made, args.out), "bytes": sizes[1], "bytes_before": sizes[0]}, text)
    return 0
