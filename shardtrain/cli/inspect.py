"""`inspect`: show what a folder of shards holds, in the terminal."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

from shardtrain.cli.results import show
from shardtrain.cli.verify import tell_faults, verified

EXAMPLE = """examples:
  python -m shardtrain inspect data/shards --rows 5 --verify
  python -m shardtrain inspect data/shards --json > shards.json
  python -m shardtrain inspect data/shards --shuffle-quality"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `inspect`."""
    parser = commands.add_parser(
        "inspect",
        help="show what shards hold, in the terminal",
        description="Show what a folder of shards holds: sizes, classes, vectorizer, and some rows in words.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shards", type=Path, metavar="DIR", help="folder of finished shards")
    parser.add_argument("--rows", type=_count, default=3, metavar="N", help="rows of each split to decode (default 3)")
    parser.add_argument("--verify", action="store_true", help="compare all checksums first; a fault ends with exit 1")
    parser.add_argument(
        "--shuffle-quality", action="store_true", help="show instead how well each --shuffle of `fit` mixes the classes"
    )
    parser.add_argument(
        "--batch-size", type=_count, default=512, metavar="N", help="for --shuffle-quality (default 512)"
    )
    parser.set_defaults(run=run)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows; write 0 or more")
    return int(text)


def run(args: argparse.Namespace) -> int:
    """Show the shards, or how well each order of their rows mixes."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # terms of any language, on a terminal of any encoding
    if args.shuffle_quality:
        _shuffle_quality(args.shards, args.batch_size, as_json=args.json)
        return 0
    from shardtrain.report.contents import report_on
    from shardtrain.report.plain import render

    checked = verified(args.shards) if args.verify else None
    if checked and checked.faults:
        tell_faults(checked.faults, args.shards)
        return 1
    report = report_on(args.shards, num_rows=args.rows, verified=checked)
    show(args.json, asdict(report), render(report))
    return 0


def _shuffle_quality(folder: Path, batch_size: int, *, as_json: bool) -> None:
    from shardtrain.errors import UsageError
    from shardtrain.loader.mixing import chart, measure, measure_chance, visited_rows
    from shardtrain.loader.order import MODES
    from shardtrain.loader.shards import open_shards

    with open_shards(folder) as shards:
        split = shards.train
        if not 1 < batch_size <= split.num_examples:
            raise UsageError(f"--batch-size is {batch_size:,}; for {split.num_examples:,} rows choose 2 to as many")
        labels = split.labels()
        found = {
            mode: measure(visited_rows(split.batches(batch_size, seed=1, shuffle=mode).plan), labels, batch_size)
            for mode in MODES
        }
        chance = measure_chance(labels, batch_size)
    show(
        as_json,
        {name: asdict(each) for name, each in {**found, "chance": chance}.items()},
        f"{folder}: {len(labels):,} training rows, batches of {batch_size:,}, epoch 1\n{chart(found, chance)}",
    )
