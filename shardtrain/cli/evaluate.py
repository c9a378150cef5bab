"""`evaluate`: measure a run on a split of shards, or on raw text."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from shardtrain.cli.arguments import given_options, options_from, spelled
from shardtrain.cli.build import CORPUS_FORMATS
from shardtrain.cli.command import Argument, Command, Offered
from shardtrain.cli.measured import measured_facts, measured_lines, slice_facts, slice_lines, warn_of
from shardtrain.cli.results import rejected_lines, show
from shardtrain.cli.tensorflow import load_for
from shardtrain.cli.watched import Watched
from shardtrain.corpus.options import CorpusOptions, TextOptions
from shardtrain.errors import UsageError
from shardtrain.inference.given_data import is_raw_text
from shardtrain.inference.options import EvaluateOptions, ImportOptions
from shardtrain.loader.options import LoaderOptions
from shardtrain.options import defaults_of, flag, options_of
from shardtrain.runtime.options import ExecutorOptions
from shardtrain.runtime.progress import short

if TYPE_CHECKING:
    from shardtrain.inference.run import Run
    from shardtrain.metrics.outputs import Measured

_NAMES = {None: "", "train": "training ", "validation": "validation ", "test": "test "}


def run(args: argparse.Namespace) -> int:
    """Evaluate the run, and print its metrics; warn if it is not better than the majority class."""
    from shardtrain.inference.run import load_run
    from shardtrain.runtime.process import own_process

    own_process()
    folder, options = load_run(args.run_folder), options_from(args, EvaluateOptions)
    names, raw = folder.description.class_names, is_raw_text(args.data)
    watched = Watched(folder, options, args.data)
    facts, measured = (_of_corpus if raw else _of_shards)(args, folder, options, watched)
    watched.finish(facts["split"])
    record = measured_facts(measured, names)
    warn_of(measured, record)
    show(
        args.json,
        {**facts, **watched.facts(), **record, **measured.logs},
        *rejected_lines(facts.get("rejected", ()), facts.get("rejected_rows", 0)),
        f"{_NAMES[facts['split']]}accuracy {measured.logs['accuracy']:.4f}, loss {short(measured.logs['loss'])}, "
        f"examples {facts['examples']:,}: {args.data}",
        *measured_lines(measured, names),
        *slice_lines(facts.get("slices", ()), measured, options.by),
        *watched.lines(),
    )
    return 0


def refuse_unused(args: argparse.Namespace, cls: type[Any], reason: str) -> None:
    """Refuse options of a class that would have no effect.

    Raises:
        UsageError: some were given.
    """
    defaults = defaults_of(cls)
    if given := [name for name, value in given_options(args, cls).items() if value != defaults[name]]:
        flags = ", ".join(spelled(name, options_of(cls)[name], defaults[name]) for name in given)
        raise UsageError(
            f"'{args.data}' {reason}, so {flags} would change nothing; omit {'them' if given[1:] else 'it'}"
        )


def _of_shards(
    args: argparse.Namespace, folder: Run, options: EvaluateOptions, watched: Watched
) -> tuple[dict[str, Any], Measured]:
    from shardtrain.loader.shards import open_shards

    refuse_unused(args, TextOptions, "is not raw text")
    refuse_unused(args, ExecutorOptions, "is a folder of shards, which this process reads")
    for name in ("by", "weight"):
        if getattr(options, name) is not None:
            raise UsageError(
                f"'{args.data}' is a folder of shards, which have no columns, so {flag(name)} has nothing to read; "
                "evaluate the corpus itself"
            )
    with open_shards(args.data, **given_options(args, LoaderOptions)) as shards:
        load_for(folder, options_from(args, ImportOptions).module)
        from shardtrain.inference.evaluate import measure

        split = options.split or "validation"
        with watched.observers((shards, split)) as observers:
            measured = measure(folder, shards, split=split, observers=observers)
        return {"shards": args.data, "split": split, "examples": shards.split(split).num_examples}, measured


def _of_corpus(
    args: argparse.Namespace, folder: Run, options: EvaluateOptions, watched: Watched
) -> tuple[dict[str, Any], Measured]:
    refuse_unused(args, LoaderOptions, "is not a folder of shards")
    load_for(folder, options_from(args, ImportOptions).module)
    from shardtrain.inference.evaluate import evaluate_corpus

    read = CorpusOptions(**given_options(args, TextOptions))
    with watched.observers() as observers:
        done = evaluate_corpus(
            folder,
            str(args.data),
            read,
            split=options.split,
            executor=options.executor,
            by=options.by,
            weight=options.weight,
            observers=observers,
        )
    facts = {name: value for name, value in vars(done).items() if name not in ("measured", "counts", "slices")}
    facts["rejected"] = [asdict(row) for row in done.rejected]
    if options.by is not None:
        facts["slices"] = [slice_facts(each, folder.description.class_names) for each in done.slices]
    return {"corpus": args.data, **facts, **asdict(done.counts)}, done.measured


COMMAND = Command(
    name="evaluate",
    help="measure a trained model on shards or on raw text",
    description="Print the metrics of a run and of each class, on a split of shards that the run's own vectorizer "
    "made, or on a corpus of raw text: a file, or a split of a folder, or all of a folder without splits. A warning "
    "says where the model is not shown to be better than always predicting the most frequent class. --by measures "
    "parts of the rows, --errors writes the wrong ones, and --choose-threshold saves with the run how sure it must be.",
    run=run,
    arguments=(
        Argument(name="run_folder", metavar="RUN", help="folder of a finished run"),
        Argument(name="data", metavar="SHARDS|CORPUS", help="folder of shards, or a corpus as for build"),
    ),
    options=(
        EvaluateOptions,
        ImportOptions,
        LoaderOptions,
        Offered(cls=TextOptions, choices={"format": CORPUS_FORMATS}),
    ),
    examples="""\
python -m shardtrain evaluate runs/mlp-1 data/shards
python -m shardtrain evaluate runs/mlp-1 data/shards --split test
python -m shardtrain evaluate runs/mlp-1 data/dbpedia_csv/test.csv --json
python -m shardtrain evaluate runs/reviews reviews.csv --by country --errors wrong.csv
python -m shardtrain evaluate runs/mlp-1 data/shards --choose-threshold "precision>=0.95\"""",
)
