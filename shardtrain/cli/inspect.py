"""`inspect`: show what a folder of shards holds, in the terminal."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show
from shardtrain.cli.verify import print_faults, verified
from shardtrain.report.options import InspectOptions


def run(args: argparse.Namespace) -> int:
    """Show the shards, or with --shuffle-quality how well each shuffle mode mixes their rows."""
    options = options_from(args, InspectOptions)
    if options.shuffle_quality:
        _shuffle_quality(args.shards, options.batch_size, as_json=args.json)
        return 0
    from shardtrain.report.summary import summarize_shards
    from shardtrain.report.terminal import render

    checked = verified(args.shards) if options.verify else None
    if checked and checked.faults:
        print_faults(checked.faults, args.shards)
        return 1
    report = summarize_shards(args.shards, num_rows=options.rows, verified=checked)
    show(args.json, asdict(report), *render(report).splitlines())
    return 0


def _shuffle_quality(folder: Path, batch_size: int, *, as_json: bool) -> None:
    from shardtrain.errors import UsageError
    from shardtrain.loader.mixing import chart, measure, measure_chance, visited_rows
    from shardtrain.loader.options import SHUFFLES
    from shardtrain.loader.shards import open_shards

    with open_shards(folder) as shards:
        split = shards.train
        if not 1 < batch_size <= split.num_examples:
            raise UsageError(
                f"--batch-size is {batch_size:,}; for {split.num_examples:,} rows choose 2 to {split.num_examples:,}"
            )
        labels = split.labels()
        found = {
            mode: measure(visited_rows(split.batches(batch_size, seed=1, shuffle=mode).plan), labels, batch_size)
            for mode in SHUFFLES
        }
        chance = measure_chance(labels, batch_size)
    show(
        as_json,
        {name: asdict(each) for name, each in {**found, "chance": chance}.items()},
        f"{folder}: {len(labels):,} training rows, batches of {batch_size:,}, epoch 1",
        *chart(found, chance).splitlines(),
    )


COMMAND = Command(
    name="inspect",
    help="show what shards hold, in the terminal",
    description="Show what a folder of shards holds: sizes, classes, vectorizer, and some rows in words.",
    run=run,
    arguments=(Argument(name="shards", metavar="DIR", help="folder of finished shards"),),
    options=(InspectOptions,),
    examples="""\
python -m shardtrain inspect data/shards --rows 5 --verify
python -m shardtrain inspect data/shards --json > shards.json
python -m shardtrain inspect data/shards --shuffle-quality""",
)
