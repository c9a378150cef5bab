"""`convert`: other people's tables become shards."""

from __future__ import annotations

import argparse
from pathlib import Path

from shardtrain.cli.index import add_meaning, show_made

EXAMPLE = """\
examples:
  python -m shardtrain convert features.npy --y labels.npy --out data/shards
  python -m shardtrain convert rcv1_train.svm --validation rcv1_test.svm --out data/shards
  python -m shardtrain convert rows.parquet --y label --out data/shards --compress zstd
  python -m shardtrain convert sorted.h5ad --x X --y obs/cell_type --out data/shards"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `convert`."""
    parser = commands.add_parser(
        "convert",
        help="make shards from NumPy, LibSVM, Parquet or HDF5 files",
        description="Make shards, in globally shuffled order and bounded memory, of features and labels in .npy, .npz "
        "(arrays, or a CSR matrix of scipy), LibSVM, Parquet and HDF5 files.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="files with the same features, in order")
    parser.add_argument(
        "--x", nargs="+", default=[], metavar="NAME",
        help="features: a dataset or CSR group of HDF5, an array of .npz (default x), columns of Parquet (default: all "
        "numbers)",
    )  # fmt: skip
    parser.add_argument(
        "--y", nargs="+", default=[], metavar="NAME",
        help="labels: a dataset, array or column; for .npy, and scipy's .npz, a .npy file for each FILE, those of "
        "--validation last",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the shards")
    parser.add_argument("--overwrite", action="store_true", help="replace finished shards in --out")
    parser.add_argument(
        "--resume", action="store_true", help="insist on going on with an interrupted run, as the same command does"
    )
    add_meaning(parser)
    resources = parser.add_argument_group("resources")
    resources.add_argument("--seed", type=int, default=1, metavar="S", help="of the order of rows (default 1)")
    resources.add_argument(
        "--compress", choices=("zstd", "lz4", "blosc2"), help="HDF5 filter of the shards (default: plain)"
    )
    resources.add_argument("--memory-limit", metavar="SIZE", help="for all processes together (default 1GiB)")
    resources.add_argument("--workers", type=int, metavar="N", help="processes (default: one a core)")
    resources.add_argument(
        "--rows-per-shard", type=int, default=1 << 18, metavar="N", help="rows of a shard (default 262144)"
    )
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Convert, and say what was made."""
    from shardtrain.pipeline.convert import ConvertOptions, convert
    from shardtrain.pipeline.options import parse_size

    options = ConvertOptions(
        x=tuple(args.x),
        y=tuple(args.y),
        kind=args.kind,
        labels=args.labels,
        validation=tuple(args.validation),
        validation_fraction=args.validation_fraction,
        compress=args.compress,
        seed=args.seed,
        rows_per_shard=args.rows_per_shard,
        memory_limit=parse_size(args.memory_limit or "1GiB"),
        workers=args.workers,
        overwrite=args.overwrite,
        resume=args.resume,
    )
    show_made(args, convert(args.files, args.out, options), "in mixed order")
    return 0
