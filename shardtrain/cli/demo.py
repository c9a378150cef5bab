"""`demo`: write a generated corpus."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Command
from shardtrain.cli.results import next_step, show
from shardtrain.datasets.options import DemoOptions, DemoOutput
from shardtrain.runtime.quantities import size


def run(args: argparse.Namespace) -> int:
    """Write the corpus, and print a summary and the next step."""
    from shardtrain.datasets.demo import write_demo
    from shardtrain.runtime.progress import progress

    out = options_from(args, DemoOutput).out
    with progress("demo", total=None, unit="documents", lasting=False) as done:
        demo = write_demo(out, **vars(options_from(args, DemoOptions)), advance=done.add)
    show(
        args.json,
        {"corpus": out, **asdict(demo)},
        f"wrote {demo.num_train:,} training and {demo.num_test:,} test documents in {len(demo.class_names):,} classes "
        f"({size(demo.num_bytes)}) to {out}; {next_step('build', out)}",
        summary=True,
    )
    return 0


COMMAND = Command(
    name="demo",
    help="write a generated corpus to try things with",
    description="Write train.csv, test.csv and classes.txt: generated English text on several topics, sorted by class.",
    run=run,
    options=(DemoOptions, DemoOutput),
    examples="python -m shardtrain demo --out data/demo --documents 100000 --classes 14",
)
