"""Shows what a folder of shards holds; `--verify` checks everything first, `--shuffle-quality` measures the mixing.

The report goes to stdout, progress and errors to stderr. Exit codes: 0; 1 a foreseen failure or a fault found by
`--verify`; 2 usage; 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.errors import ShardtrainError

if TYPE_CHECKING:
    from shardtrain.shards.verify import Verification

MAX_FAULTS = 20  # faults that are shown; all are counted
EXAMPLE = """example:
  python tools/inspect_shards.py data/shards --rows 5 --verify
  python tools/inspect_shards.py data/shards --json > shards.json
  python tools/inspect_shards.py data/shards --shuffle-quality"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script and return its exit code."""
    args = _parser().parse_args(arguments)
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        if args.shuffle_quality:
            return _shuffle_quality(args.folder, args.batch_size, as_json=args.json)
        return _inspect(args.folder, args.rows, verify=args.verify, as_json=args.json)
    except ShardtrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except BrokenPipeError:  # the reader of our output went away, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left would fail again at exit
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description="Show what a folder of shards holds: sizes, classes, vectorizer, and some rows in words.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of finished shards")
    parser.add_argument("--rows", type=_count, default=3, metavar="N", help="rows of each split to decode (default 3)")
    parser.add_argument("--verify", action="store_true", help="compare all checksums first; a fault ends with exit 1")
    parser.add_argument(
        "--shuffle-quality", action="store_true", help="show instead how well each --shuffle of `fit` mixes the classes"
    )
    parser.add_argument(
        "--batch-size", type=_count, default=512, metavar="N", help="for --shuffle-quality (default 512)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of rows; write 0 or more")
    return int(text)


def _inspect(folder: Path, num_rows: int, *, verify: bool, as_json: bool) -> int:
    from shardtrain.report import render, report_on

    verified = _verify(folder) if verify else None
    if verified and verified.faults:
        for fault in verified.faults[:MAX_FAULTS]:
            print(f"error: {fault}", file=sys.stderr)
        print(f"error: {len(verified.faults):,} faults in '{folder}'", file=sys.stderr)
        return 1
    report = report_on(folder, num_rows=num_rows, verified=verified)
    print(json.dumps(asdict(report), indent=1) if as_json else render(report), flush=True)
    return 0


def _shuffle_quality(folder: Path, batch_size: int, *, as_json: bool) -> int:
    from shardtrain.errors import UsageError
    from shardtrain.mixing import by_chance, chart, measure, visited
    from shardtrain.shards.read import open_shards
    from shardtrain.shuffle import MODES

    with open_shards(folder) as shards:
        split = shards.train
        if not 1 < batch_size <= split.num_examples:
            raise UsageError(f"--batch-size is {batch_size:,}; for {split.num_examples:,} rows choose 2 to as many")
        labels = split.labels()
        found = {
            mode: measure(visited(split.batches(batch_size, seed=1, shuffle=mode).plan), labels, batch_size)
            for mode in MODES
        }
        chance = by_chance(labels, batch_size)
    if as_json:
        print(json.dumps({name: asdict(each) for name, each in {**found, "chance": chance}.items()}, indent=1))
    else:
        print(f"{folder}: {len(labels):,} training rows, batches of {batch_size:,}, epoch 1\n{chart(found, chance)}")
    return 0


def _verify(folder: Path) -> Verification:
    from shardtrain.progress import progress
    from shardtrain.shards.format import read_manifest
    from shardtrain.shards.verify import num_checked_bytes, verify_shards

    with progress("verifying", total=num_checked_bytes(read_manifest(folder))) as shown:
        return verify_shards(folder, advance=shown.add)


if __name__ == "__main__":
    sys.exit(main())
