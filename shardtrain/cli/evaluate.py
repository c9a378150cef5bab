"""`evaluate`: accuracy and loss of a run on the validation split of some shards, or on raw text."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.cli.corpus import add_corpus, corpus_options
from shardtrain.cli.fit import add_import, add_reading, load_tensorflow, reading
from shardtrain.cli.results import rejected_lines, show
from shardtrain.errors import UsageError

if TYPE_CHECKING:
    from shardtrain.training.run_folder import Run

EXAMPLE = """examples:
  python -m shardtrain evaluate runs/mlp-1 data/shards
  python -m shardtrain evaluate runs/mlp-1 data/dbpedia_csv/test.csv --json"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `evaluate`."""
    parser = commands.add_parser(
        "evaluate",
        help="measure a trained model on shards or on raw text",
        description="Print accuracy and loss on the validation split of shards that the run's own vectorizer made, or "
        "on a corpus of raw text: a file, or a folder's test split, or all of a folder without one.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument("data", type=Path, metavar="SHARDS|CORPUS", help="folder of shards, or a corpus as for build")
    add_import(parser)
    add_reading(parser)
    corpus = parser.add_argument_group("reading raw text")
    add_corpus(corpus, ("auto", "csv", "tsv", "jsonl", "folder"), labels=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Evaluate, and print the result."""
    from shardtrain.shards.layout import MANIFEST
    from shardtrain.training.run_folder import load_run

    folder = load_run(args.run_folder)
    raw = args.data.is_file() or (args.data.is_dir() and not (args.data / MANIFEST).exists())
    facts = _of_corpus(args, folder) if raw else _of_shards(args, folder)
    show(
        args.json,
        facts,
        *rejected_lines(facts.get("rejected", ()), facts.get("rejected_rows", 0)),
        f"{'' if raw else 'validation '}accuracy {facts['accuracy']:.4f}, loss {facts['loss']:.4f}, "
        f"examples {facts['examples']:,}: {args.data}",
    )
    return 0


def _of_shards(args: argparse.Namespace, folder: Run) -> dict[str, Any]:
    from shardtrain.corpus.source import ReadOptions
    from shardtrain.loader.shards import open_shards

    if corpus_options(args) != ReadOptions():
        raise UsageError(f"'{args.data}' holds no raw text, so the options of reading it would change nothing")
    with open_shards(args.data, **reading(args)) as shards:
        load_tensorflow(args.module)
        from shardtrain.inference.predict import evaluate

        metrics = evaluate(folder, shards)
        return {"shards": args.data, "examples": shards.validation.num_examples, **metrics}


def _of_corpus(args: argparse.Namespace, folder: Run) -> dict[str, Any]:
    if reading(args) != {"verify": True, "io": "auto", "on_corrupt": "fail"}:
        raise UsageError(f"'{args.data}' is no folder of shards, so the options of reading them would change nothing")
    from shardtrain.runtime.machine import keep_freed_memory

    load_tensorflow(args.module)
    from shardtrain.inference.evaluate import evaluate_corpus

    keep_freed_memory()
    done = asdict(evaluate_corpus(folder, args.data, corpus_options(args)))
    metrics = done.pop("metrics")
    return {"corpus": args.data, **done, **metrics}
