"""`demo`: write the generated corpus.

The numbers' defaults are `write_demo`'s own and not repeated here but in the help, so that `--help` imports nothing.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shardtrain.cli.results import show


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `demo`."""
    parser = commands.add_parser(
        "demo",
        help="write a generated corpus to try things with",
        description="Write train.csv, test.csv and classes.txt: generated text in several classes, sorted by class.",
        epilog="example: python -m shardtrain demo --out data/demo --documents 100000 --classes 14",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    corpus = parser.add_argument_group("the corpus")
    corpus.add_argument(
        "--documents",
        type=int,
        metavar="N",
        help="training documents (default 20,000, about 7 MB); test.csv gets a tenth of that, at most 70,000",
    )
    corpus.add_argument("--classes", type=int, metavar="K", help="classes, 2 to 1,000 (default 8)")
    corpus.add_argument(
        "--seed", type=int, metavar="S", help="from 0 on (default 0); the same seed gives the same files everywhere"
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write to, made if missing")
    output.add_argument("--overwrite", action="store_true", help="replace a corpus that is there (default: refuse)")


def run(args: argparse.Namespace) -> int:
    """Write the corpus, and say what was written and what to do next."""
    from shardtrain.datasets.demo import write_demo
    from shardtrain.runtime.progress import progress

    numbers: dict[str, Any] = {
        name: getattr(args, name) for name in ("documents", "classes", "seed") if getattr(args, name) is not None
    }
    with progress("demo", total=None, unit="documents", lasting=False) as done:
        demo = write_demo(args.out, **numbers, overwrite=args.overwrite, advance=done.add)
    show(
        args.json,
        {"corpus": args.out, **asdict(demo)},
        f"wrote {demo.num_train:,} training and {demo.num_test:,} test documents in {len(demo.class_names):,} classes "
        f"({demo.num_bytes / 1e6:,.1f} MB) to {args.out}; next: python -m shardtrain build {args.out}",
    )
    return 0
