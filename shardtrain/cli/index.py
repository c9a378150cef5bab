"""`index`: shards over other people's HDF5 files, whose features stay where they are."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.cli.results import show, split_facts

if TYPE_CHECKING:
    from shardtrain.shards.layout import Manifest

EXAMPLE = """\
examples:
  python -m shardtrain index images.h5 --x features --y labels --out data/images
  python -m shardtrain index atlas.h5ad --x X --y obs/cell_type --out data/atlas"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `index`."""
    parser = commands.add_parser(
        "index",
        help="use HDF5 files of yours as shards, without copying them",
        description="Write labels and a manifest for HDF5 files whose features stay where they are: dense rows, token "
        "ids, or CSR groups as in AnnData and 10x files. The files must not change afterwards.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="HDF5 files of the same features, in order")
    parser.add_argument("--x", required=True, metavar="NAME", help="features: a dataset, or a CSR group")
    parser.add_argument("--y", required=True, metavar="NAME", help="labels: a dataset, or a group of categories")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the manifest and the labels")
    parser.add_argument("--overwrite", action="store_true", help="replace finished shards in --out")
    add_meaning(parser)
    parser.set_defaults(run=run)


def add_meaning(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what features, labels and splits are, which `convert` has as well."""
    group = parser.add_argument_group("meaning")
    group.add_argument(
        "--kind",
        default="auto",
        choices=("auto", "dense", "sparse", "tokens"),
        help="of the features; whole numbers are tokens (ids of words, 0 for padding) or dense (default: if plain)",
    )
    group.add_argument(
        "--labels",
        default="auto",
        choices=("auto", "integers", "names"),
        help="integers from 0 or 1, or names (default: integers where all labels are)",
    )
    held_out = group.add_mutually_exclusive_group()
    held_out.add_argument(
        "--validation", nargs="+", type=Path, default=[], metavar="FILE", help="files of the validation split"
    )
    held_out.add_argument(
        "--validation-fraction",
        type=float,
        default=0.1,
        metavar="F",
        help="of the rows, where no files are given; 0 for none (default 0.1)",
    )


def run(args: argparse.Namespace) -> int:
    """Index, and say what was found."""
    from shardtrain.pipeline.index import IndexOptions, index

    options = IndexOptions(
        x=args.x,
        y=args.y,
        kind=args.kind,
        labels=args.labels,
        validation=tuple(args.validation),
        validation_fraction=args.validation_fraction,
        overwrite=args.overwrite,
    )
    manifest = index(args.files, args.out, options)
    shards = [shard for split in manifest.splits.values() for shard in split.shards]
    places = [entry for shard in shards for entry in shard.datasets.values() if entry.source is not None]
    decoded = sorted({name for entry in places if entry.chunks for name in entry.chunks.filters})
    how = "mapped where they are" if not any(entry.chunks for entry in places) else "read chunk by chunk"
    show_made(args, manifest, f"{how}{', decoded from ' + ' and '.join(decoded) if decoded else ''}")
    return 0


def show_made(args: argparse.Namespace, manifest: Manifest, how: str) -> None:
    """Print what new shards of tables hold, and the next step."""
    kinds = {"ngram": "sparse features", "dense": "features", "sequence": "token ids a row"}
    held_out = manifest.splits["validation"].examples if "validation" in manifest.splits else 0
    show(
        args.json,
        split_facts(manifest, args.out),
        f"{manifest.splits['train'].examples:,} training and {held_out:,} validation examples of "
        f"{len(manifest.class_names)} classes, {manifest.num_features:,} {kinds[manifest.kind]}, {how}: {args.out}",
        f"next: python -m shardtrain fit {args.out}",
    )
