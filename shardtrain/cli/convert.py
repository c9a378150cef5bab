"""`convert`: make shards from tables."""

from __future__ import annotations

import argparse

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show_made
from shardtrain.pipeline.options import ConvertOptions, NamedOutput


def run(args: argparse.Namespace) -> int:
    """Convert tables, and print a summary."""
    from shardtrain.pipeline.convert import convert

    out = options_from(args, NamedOutput).out
    show_made(args.json, out, convert(args.files, out, options_from(args, ConvertOptions)), "in shuffled order")
    return 0


COMMAND = Command(
    name="convert",
    help="make shards from NumPy, LibSVM, Parquet or HDF5 files",
    description="Make shards, in globally shuffled order and bounded memory, of features and labels in .npy, .npz "
    "(arrays, or a CSR matrix of scipy), LibSVM, Parquet and HDF5 files.",
    run=run,
    arguments=(Argument(name="files", metavar="FILE", nargs="+", help="files with the same features, in order"),),
    options=(NamedOutput, ConvertOptions),
    examples="""\
python -m shardtrain convert features.npy --y labels.npy --out data/shards
python -m shardtrain convert rcv1_train.svm --validation rcv1_test.svm --out data/shards
python -m shardtrain convert rows.parquet --y label --out data/shards --compress zstd
python -m shardtrain convert sorted.h5ad --x X --y obs/cell_type --out data/shards""",
)
