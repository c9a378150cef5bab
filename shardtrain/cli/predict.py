"""`predict`: classify raw text with the model of a run."""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command, Offered
from shardtrain.cli.results import MAX_SHOWN, rejected_lines, show
from shardtrain.cli.tensorflow import load_tensorflow
from shardtrain.errors import UsageError
from shardtrain.inference.options import STANDARD, ImportOptions, PredictFiles, PredictOptions
from shardtrain.runtime.progress import say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from shardtrain.corpus.source import Documents
    from shardtrain.inference.predictions import Predictions
    from shardtrain.inference.run import Run

TEXT_CHARACTERS = 60  # shown of each text


def run(args: argparse.Namespace) -> int:
    """Classify texts, and print a line per text, or a summary of the written file."""
    files = options_from(args, PredictFiles)
    options = options_from(args, PredictOptions)
    if not args.texts and files.input is None:
        raise UsageError("no text to classify: give texts, or --input FILE")
    if args.texts and files.input is not None:
        raise UsageError("texts are given and --input, too; classify them in two commands")
    if files.output is not None and (args.texts or files.input is None):
        raise UsageError("--output is for the texts of --input FILE; texts of the command line are printed")
    if options.proba and files.output is None and not args.json:
        raise UsageError("--proba is for files and JSON; give --output FILE, --output - or --json")
    from shardtrain.inference.run import load_run
    from shardtrain.runtime.machine import keep_freed_memory

    folder = load_run(args.run_folder)
    load_tensorflow(options_from(args, ImportOptions).module)
    from shardtrain.inference.predict_file import predict_file

    keep_freed_memory()
    if files.output is None:
        _print_texts(args, folder, options)
    elif files.output == STANDARD:
        _print_rows(args, folder, options)
    else:
        assert files.input is not None  # checked above
        done = predict_file(folder, files.input, files.output, options)
        facts = asdict(done)
        num_skipped = f", {done.rejected_rows:,} rows skipped" if done.rejected_rows else ""
        skipped = rejected_lines(facts["rejected"], done.rejected_rows)
        show(args.json, facts, *skipped, f"{done.rows:,} predictions{num_skipped}: {done.output}")
    return 0


def _print_texts(args: argparse.Namespace, folder: Run, options: PredictOptions) -> None:
    """Print each text with its class, or with `--json` an object per text."""
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
    """Yield batches of row numbers, texts and predictions: first the command line's texts, then the input's.

    Lines of standard input are classified in batches as they arrive.
    """
    import numpy as np

    from shardtrain.inference.predict_file import predict_stream

    lines = args.input == STANDARD and options.format in ("auto", "lines")
    texts = itertools.chain(args.texts, _lines(sys.stdin) if lines else ())
    start = 0
    for batch, predictions in folder.predict_batches(texts) if args.texts or lines else ():
        yield np.arange(start, start + len(batch)), batch, predictions
        start += len(batch)
    if args.input is not None and not lines:
        for documents, predictions in _report_rejected(predict_stream(folder, args.input, options)):
            yield start + documents.ordinals, documents.texts, predictions


def _lines(file: Iterable[str]) -> Iterator[str]:
    return (line.rstrip("\n") for line in file)


def _print_rows(args: argparse.Namespace, folder: Run, options: PredictOptions) -> None:
    """Print what `--output` would write: CSV, or with `--json` JSON Lines."""
    from shardtrain.inference.predict_file import predict_stream
    from shardtrain.inference.writers import csv_lines, json_lines

    writer = (json_lines if args.json else csv_lines)(folder.description.class_names, proba=options.proba)
    print(writer.header.decode(), end="")
    for documents, predictions in _report_rejected(predict_stream(folder, args.input, options)):
        print(writer.part(documents.ordinals, predictions.probabilities).decode(), end="")


def _report_rejected(classified: Iterable[tuple[Documents, Predictions]]) -> Iterator[tuple[Documents, Predictions]]:
    """Yield the same, and report skipped rows at the end, on stderr because stdout is for predictions."""
    rejected: list[dict[str, object]] = []
    number = 0
    for documents, predictions in classified:
        number += len(documents.bad_rows)
        rejected += [asdict(row) for row in documents.bad_rows[: MAX_SHOWN - len(rejected)]]
        yield documents, predictions
    for line in rejected_lines(rejected, number):
        say(line)


COMMAND = Command(
    name="predict",
    help="classify texts with a trained model",
    description="Print class, probability and start of each text: a table, or tab-separated into a file or pipe. "
    "With --output, write a row for each text of a file of any size; the same command resumes it after a kill.",
    run=run,
    arguments=(
        Argument(name="run_folder", metavar="RUN", help="folder of a finished run"),
        Argument(name="texts", metavar="TEXT", nargs="*", help="a text to classify", parse=str),
    ),
    options=(
        PredictFiles,
        Offered(cls=PredictOptions, choices={"format": ("auto", "csv", "tsv", "jsonl", "lines")}),
        ImportOptions,
    ),
    examples="""\
python -m shardtrain predict runs/mlp-1 "The match ended in a draw."
python -m shardtrain predict runs/mlp-1 --input texts.txt > classes.tsv
python -m shardtrain predict runs/mlp-1 --input reviews.csv.gz --text-columns title body --output out.parquet --proba
zcat big.jsonl.gz | python -m shardtrain predict runs/mlp-1 --input - --format jsonl --output - | gzip > out.csv.gz""",
)
