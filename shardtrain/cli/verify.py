"""`verify`: check every byte and every value of finished shards."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show
from shardtrain.runtime.quantities import size
from shardtrain.runtime.terminal import tell_error
from shardtrain.shards.options import VerifyOptions

if TYPE_CHECKING:
    from shardtrain.shards.verify import Verification

MAX_FAULTS = 20  # shown; all are counted


def run(args: argparse.Namespace) -> int:
    """Verify shards, and print what was checked, or the faults."""
    done = verified(args.shards, options_from(args, VerifyOptions).workers)
    print_faults(done.faults, args.shards)
    summary = f"{done.checksums:,} checksums in {done.files:,} files, {size(done.bytes)}, all as written: {args.shards}"
    show(args.json, {"shards": args.shards, **asdict(done)}, *(() if done.faults else (summary,)))
    return 1 if done.faults else 0


def verified(folder: Path, workers: int | None = None) -> Verification:
    """Verify a folder of shards, with progress."""
    from shardtrain.runtime.progress import progress
    from shardtrain.shards.manifest import read_manifest
    from shardtrain.shards.verify import num_checked_bytes, verify_shards

    with progress("verifying", total=num_checked_bytes(read_manifest(folder))) as shown:
        return verify_shards(folder, advance=shown.add, workers=workers)


def print_faults(faults: Sequence[str], folder: Path) -> None:
    """Print the first faults and their number, as errors; nothing if there are none."""
    for fault in faults[:MAX_FAULTS]:
        tell_error(f"error: {fault}")
    if faults:
        tell_error(f"error: {len(faults):,} fault{'s' if len(faults) > 1 else ''} in '{folder}'")


COMMAND = Command(
    name="verify",
    help="check every byte and value of shards",
    description="Compare all checksums, and then what HDF5 reads with what is mapped. Exit code 1 on any fault.",
    run=run,
    arguments=(Argument(name="shards", metavar="DIR", help="folder of finished shards"),),
    options=(VerifyOptions,),
    examples="python -m shardtrain verify data/shards",
)
