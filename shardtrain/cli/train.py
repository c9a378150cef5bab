"""`train`: build shards from a corpus and train a model on them, in one process."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.cli.arguments import given_options, options_from
from shardtrain.cli.build import CORPUS, CORPUS_FORMATS, built_facts, built_lines, corpus_of
from shardtrain.cli.command import Command, Offered
from shardtrain.cli.fit import given_sizes, show_run
from shardtrain.cli.results import show
from shardtrain.cli.tensorflow import check_if_keras_is_asked_for, load_for_training
from shardtrain.loader.options import LoaderOptions
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.distribution.cluster import this_cluster
from shardtrain.training.options import FitOptions, TrainOutput

if TYPE_CHECKING:
    from shardtrain.loader.shards import Shards


def run(args: argparse.Namespace) -> int:
    """Train a model on a corpus, and print both results, the run's folder and the next step."""
    from shardtrain.runtime.process import own_process
    from shardtrain.training.from_corpus import train

    options, output = options_from(args, FitOptions), options_from(args, TrainOutput)
    building = options_from(args, BuildOptions)
    building.refuse_unused(args.given)
    check_if_keras_is_asked_for(options)
    own_process(later="shardtrain.engine.first_use")
    is_chief = this_cluster().index == 0

    def before_fit(shards: Shards, folder: Path, chosen: FitOptions) -> None:
        if not args.json and is_chief:
            show(False, {}, *built_lines(shards.manifest, shards.path), summary=True)
        load_for_training(chosen, shards.description, None if output.overwrite else folder)

    done = train(
        corpus_of(args),
        building,
        options,
        output,
        sizes=given_sizes(args),
        reading=given_options(args, LoaderOptions),
        before_fit=before_fit,
    )
    if is_chief:  # all workers return the same run
        show_run(args.json, done.run, built_facts(done.manifest, done.shards))
    return 0


COMMAND = Command(
    name="train",
    help="train a model on a corpus: build, fit and evaluate in one command",
    description="Build shards from a corpus, train a model on them and evaluate it, with the result of build and fit "
    "one after the other. The same command resumes an interrupted one, and uses shards again that it made before.",
    run=run,
    arguments=(CORPUS,),
    options=(
        TrainOutput,
        FitOptions,
        Offered(cls=BuildOptions, without=("append", "resume"), choices={"format": CORPUS_FORMATS}),
        LoaderOptions,
    ),
    examples="""\
python -m shardtrain train data/ag_news
python -m shardtrain train reviews.csv.gz --label-column stars --text-columns title body --out runs/reviews""",
)
