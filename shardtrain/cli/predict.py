"""`predict`: the classes of raw text, by the model of a run."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.cli.corpus import add_corpus, corpus_options
from shardtrain.cli.fit import add_import, load_tensorflow
from shardtrain.cli.results import MAX_SHOWN, rejected_lines, show
from shardtrain.errors import UsageError
from shardtrain.runtime.progress import say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from shardtrain.corpus.source import Documents
    from shardtrain.inference.predict import Predictions
    from shardtrain.inference.predict_file import PredictOptions
    from shardtrain.training.run_folder import Run

TEXT_CHARACTERS = 60  # of each text are shown
STANDARD = "-"  # input or output
EXAMPLE = """examples:
  python -m shardtrain predict runs/mlp-1 "The match ended in a draw."
  python -m shardtrain predict runs/mlp-1 --input texts.txt > classes.tsv
  python -m shardtrain predict runs/mlp-1 --input reviews.csv.gz --text-columns title body --output out.parquet --proba
  zcat big.jsonl.gz | python -m shardtrain predict runs/mlp-1 --input - --format jsonl --output - | gzip > out.csv.gz"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `predict`."""
    parser = commands.add_parser(
        "predict",
        help="classify texts with a trained model",
        description="Print class, probability and start of each text: a table, or tab-separated into a file or pipe. "
        "With --output, write a row for each text of a file of any size; the same command goes on after a kill.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("run_folder", type=Path, metavar="RUN", help="folder of a finished run")
    add_import(parser)
    texts = parser.add_argument_group("texts")
    texts.add_argument("texts", nargs="*", metavar="TEXT", help="a text to classify")
    texts.add_argument(
        "--input",
        metavar="FILE",
        help="CSV, TSV or JSON Lines, else a text on each line; also .gz; - is standard input",
    )
    output = parser.add_argument_group("output")
    output.add_argument(
        "--output", metavar="FILE", help="write row, class and probability to a .csv, .jsonl or .parquet; - prints CSV"
    )
    output.add_argument("--proba", action="store_true", help="with the probability of every class")
    output.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    output.add_argument(
        "--workers", type=int, metavar="N", help="threads, about 100 MiB each (default: one a core, at most 8)"
    )
    formats = ("auto", "csv", "tsv", "jsonl", "lines")
    add_corpus(parser.add_argument_group("reading the input"), formats, labels=False)
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Classify, and print a line for each text, or what was written."""
    if not args.texts and args.input is None:
        raise UsageError("no text to classify: give texts, or --input FILE")
    if args.output is not None and (args.texts or args.input is None):
        raise UsageError("--output is for the texts of --input FILE; texts of the command line are printed")
    if args.proba and args.output is None and not args.json:
        raise UsageError("--proba is for files and JSON; give --output FILE, --output - or --json")
    from shardtrain.runtime.machine import keep_freed_memory
    from shardtrain.training.run_folder import load_run

    folder = load_run(args.run_folder)
    load_tensorflow(args.module)
    from shardtrain.inference.predict_file import PredictOptions, predict_file

    keep_freed_memory()
    options = PredictOptions(
        proba=args.proba, workers=args.workers, overwrite=args.overwrite, read=corpus_options(args)
    )  # fmt: skip
    if args.output is None:
        _print_texts(args, folder, options)
    elif args.output == STANDARD:
        _print_rows(args, folder, options)
    else:
        done = predict_file(folder, args.input, args.output, options)
        facts = asdict(done)
        left_out = f", {done.rejected_rows:,} rows left out" if done.rejected_rows else ""
        skipped = rejected_lines(facts["rejected"], done.rejected_rows)
        show(args.json, facts, *skipped, f"{done.rows:,} predictions{left_out}: {done.output}")
    return 0


def _print_texts(args: argparse.Namespace, folder: Run, options: PredictOptions) -> None:
    """Print each text with its class, or with `--json` an object for each."""
    from shardtrain.inference.writers import json_lines

    table = sys.stdout.isatty()
    names = folder.description.class_names
    width = max(len(name) for name in names)
    for rows, texts, predictions in _classified(args, folder, options):
        if args.json:
            made = json_lines(names, proba=options.proba).part(rows, predictions.probabilities)
            print(made.decode(), end="")
            continue
        best = predictions.probabilities.max(axis=1)
        for text, name, probability in zip(texts, predictions.labels, best, strict=True):
            start = " ".join(text.split())[:TEXT_CHARACTERS]
            print(f"{name:<{width}}  {probability:.4f}  {start}" if table else f"{name}\t{probability:.4f}\t{start}")


def _classified(
    args: argparse.Namespace, folder: Run, options: PredictOptions
) -> Iterator[tuple[npt.NDArray[np.int64], Sequence[str], Predictions]]:
    """Numbers, texts and predictions, some at a time: of the command line's texts, then of the input's.

    Lines of standard input are not waited for longer than it takes to have some.
    """
    import numpy as np

    from shardtrain.inference.predict import predict_batches
    from shardtrain.inference.predict_file import predict_stream

    lines = args.input == STANDARD and options.read.format in ("auto", "lines")
    texts = itertools.chain(args.texts, _lines(sys.stdin) if lines else ())
    start = 0
    for batch, predictions in predict_batches(folder, texts) if args.texts or lines else ():
        yield np.arange(start, start + len(batch)), batch, predictions
        start += len(batch)
    if args.input is not None and not lines:
        for documents, predictions in _told(predict_stream(folder, args.input, options)):
            yield start + documents.ordinals, documents.texts, predictions


def _lines(file: Iterable[str]) -> Iterator[str]:
    return (line.rstrip("\n") for line in file)


def _print_rows(args: argparse.Namespace, folder: Run, options: PredictOptions) -> None:
    """Print the file that `--output` would write: CSV, or with `--json` JSON Lines."""
    from shardtrain.inference.predict_file import predict_stream
    from shardtrain.inference.writers import csv_lines, json_lines

    answers = (json_lines if args.json else csv_lines)(folder.description.class_names, proba=options.proba)
    print(answers.header.decode(), end="")
    for documents, predictions in _told(predict_stream(folder, args.input, options)):
        print(answers.part(documents.ordinals, predictions.probabilities).decode(), end="")


def _told(classified: Iterable[tuple[Documents, Predictions]]) -> Iterator[tuple[Documents, Predictions]]:
    """The same; rows that were left out are told at the end, on standard error: standard output is for predictions."""
    rejected: list[dict[str, object]] = []
    number = 0
    for documents, predictions in classified:
        number += len(documents.bad_rows)
        rejected += [asdict(row) for row in documents.bad_rows[: MAX_SHOWN - len(rejected)]]
        yield documents, predictions
    for line in rejected_lines(rejected, number):
        say(line)
