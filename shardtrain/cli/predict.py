"""`predict`: classify raw text with the model of a run."""

from __future__ import annotations

import argparse
import io
import itertools
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command, Offered
from shardtrain.cli.results import MAX_SHOWN, rejected_lines, show
from shardtrain.cli.tensorflow import load_for
from shardtrain.corpus.options import STANDARD
from shardtrain.errors import UsageError, command_line
from shardtrain.inference.options import MOST_CHARACTERS, MOST_ON_PAGE, ImportOptions, PredictFiles, PredictOptions
from shardtrain.runtime.progress import say
from shardtrain.runtime.terminal import (
    json_safe,
    printable,
    standard_input,
    stdout_is_terminal,
    write_data,
    write_lines,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from shardtrain.corpus.source import Documents
    from shardtrain.inference.explanations import Explanation
    from shardtrain.inference.predictions import Predictions
    from shardtrain.inference.run import Run

TEXT_CHARACTERS = 60  # shown of each text
NOTE_CHARACTERS = 16  # of a column of notes on a terminal


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
    if options.csv_safe and args.json and files.output in (None, STANDARD):
        raise UsageError("--csv-safe is for CSV and tab-separated lines, not for --json; omit one of them")
    if not options.executor_name.local and files.output in (None, STANDARD):
        raise UsageError(f"--executor {options.executor} is for files; give --input FILE and --output FILE")
    _check_explained(args, files, options)
    from shardtrain.inference.run import load_run
    from shardtrain.runtime.process import own_process

    folder = load_run(args.run_folder)
    if named := [text for text in args.texts if os.path.isfile(text)]:
        say(_hint_at_input(args.run_folder, named[0]))
    elif len(args.texts) > 1 and not any(len(text.split()) > 1 for text in args.texts):
        say(_hint_at_quotes(args.run_folder, args.texts))
    load_for(folder, options_from(args, ImportOptions).module)
    own_process()
    if files.html is not None:
        _write_page(args, folder, files.html, options)
    elif files.output is None:
        _print_texts(args, folder, options)
    elif files.output == STANDARD:
        _print_rows(args, folder, options)
    else:
        assert files.input is not None  # checked above
        from shardtrain.inference.predict_file import predict_file

        done = predict_file(folder, files.input, files.output, options, module=options_from(args, ImportOptions).module)
        facts = asdict(done)
        facts |= facts.pop("counts")
        num_skipped = f", {done.rejected_rows:,} rows skipped" if done.rejected_rows else ""
        skipped = rejected_lines(facts["rejected"], done.rejected_rows)
        made = f"{done.rows:,} prediction{'' if done.rows == 1 else 's'}"
        undecided = f", {done.undecided:,} undecided" if done.undecided else ""
        show(args.json, facts, *skipped, f"{made}{undecided}{num_skipped}: {files.output}", summary=True)
    return 0


def _check_explained(args: argparse.Namespace, files: PredictFiles, options: PredictOptions) -> None:
    """Refuse options that do not go with `--explain` or `--html`."""
    if files.html is not None and options.explain is None:
        raise UsageError("--html is the page of --explain; give --explain N, too")
    if files.html is not None and files.output is not None:
        raise UsageError("--html and --output are given; make the page and the file in two commands")
    if options.explain is not None and options.csv_safe and files.output is None:
        raise UsageError(
            "--csv-safe is for CSV and tab-separated lines, not for the text of --explain; omit one of them"
        )


def _hint_at_input(run_folder: Path, name: str) -> str:
    """Return the hint for a text that is the name of a file, whose texts were probably meant."""
    command = command_line("predict", run_folder, "--input", name)
    return f"'{printable(name)}' is classified as a text; if the texts in that file are meant, use `{command}`"


def _hint_at_quotes(run_folder: Path, texts: Sequence[str]) -> str:
    """Return the hint for texts of a word each, which are probably one text that the shell cut at its spaces."""
    from shardtrain.inference.notes import replace_escaped

    whole = replace_escaped(" ".join(texts))[0]
    shown = shlex.quote(whole) if len(whole) <= TEXT_CHARACTERS else "'TEXT'"
    command = f"{command_line('predict', run_folder)} {shown}"
    return f"{len(texts):,} texts without a space; if they are one text, put it in quotes: `{command}`"


class _Seen:
    """What is to be reported of texts when all of them are printed."""

    def __init__(self) -> None:
        from shardtrain.inference.notes import TextCounts

        self._counts = TextCounts()
        self._num_rejected = 0
        self._rejected: list[dict[str, object]] = []

    def add(self, predictions: Predictions, num_replaced: int) -> None:
        """Count the marks of some texts, and the bytes in them that were replaced."""
        self._counts += type(self._counts).of(predictions.marks, num_replaced)

    def documents(self, classified: Iterable[tuple[Documents, Predictions]]) -> Iterator[tuple[Documents, Predictions]]:
        """Yield the same, and count marks and skipped rows."""
        for documents, predictions in classified:
            self.add(predictions, documents.num_replaced)
            self._num_rejected += len(documents.bad_rows)
            self._rejected += [asdict(row) for row in documents.bad_rows[: MAX_SHOWN - len(self._rejected)]]
            yield documents, predictions

    def report(self, options: PredictOptions) -> None:
        """Report it on stderr, because stdout is for predictions."""
        from shardtrain.inference.notes import warn_of_texts

        for line in rejected_lines(self._rejected, self._num_rejected):
            say(line)
        warn_of_texts(self._counts, options)


def _print_texts(args: argparse.Namespace, folder: Run, options: PredictOptions) -> None:
    """Print each text with its class, or with `--json` an object per text."""
    from shardtrain.inference.writers import json_lines, without_formula
    from shardtrain.metrics.thresholds import UNDECIDED

    table, seen = stdout_is_terminal(), _Seen()
    names = folder.description.class_names
    width = max(len(name) for name in (*names, *([UNDECIDED] if options.threshold and folder.thresholds else [])))
    writer = json_lines(names, proba=options.proba, notes=options.notes, reasons=options.explain is not None)
    for rows, texts, predictions in _classified(args, folder, options, seen):
        if args.json:
            write_data(json_safe(writer.part(rows, predictions).decode()))
            continue
        if options.explain is not None:
            from shardtrain.cli.explained import lines_of

            write_lines(lines_of(texts, predictions, notes=options.notes))
            continue
        lines = []
        best = predictions.probabilities.max(axis=1)
        for text, name, probability, note in zip(texts, predictions.labels, best, predictions.notes, strict=True):
            cells = [f"{name:<{width}}" if table else _cell(name), f"{probability:.4f}"]
            if options.notes:
                cells.append(f"{note:<{NOTE_CHARACTERS}}" if table else note)
            cells.append(" ".join(text.split())[:TEXT_CHARACTERS])
            if options.csv_safe and not table:
                cells = [without_formula(cell) for cell in cells]
            lines.append(("  " if table else "\t").join(cells))
        if table:
            write_lines(lines)
        else:
            write_data("".join(f"{line}\n" for line in lines))
    seen.report(options)


def _cell(name: str) -> str:
    """Return the name of a class for tab-separated lines: only one with tabs or line ends is escaped."""
    return printable(name) if "\t" in name or len(name.splitlines()) > 1 else name


def _write_page(args: argparse.Namespace, folder: Run, out: Path, options: PredictOptions) -> None:
    """Write the page that explains the first texts, and print its path."""
    from shardtrain.report.reasons_page import reasons_page
    from shardtrain.report.report_file import check_report_file, commit_page

    check_report_file(out, option="--html")
    seen, more = _Seen(), False
    shown: list[tuple[str, Explanation]] = []
    characters = 0
    for _, texts, predictions in _classified(args, folder, options, seen):
        for text, explanation in zip(texts, predictions.explanations, strict=True):
            characters += len(text)
            more = len(shown) == MOST_ON_PAGE or (characters > MOST_CHARACTERS and bool(shown))
            if more:
                break
            shown.append((text, explanation))
        if more:
            break
    commit_page(out, reasons_page(folder.path, shown, more=more))
    seen.report(options)
    facts = {"page": out, "texts": len(shown), "bytes": out.stat().st_size}
    first = "the first " if more else ""
    explained = f"{len(shown):,} text{'' if len(shown) == 1 else 's'} explained"
    show(args.json, facts, f"{first}{explained}: {out}", summary=True)


def _classified(
    args: argparse.Namespace, folder: Run, options: PredictOptions, seen: _Seen
) -> Iterator[tuple[npt.NDArray[np.int64], Sequence[str], Predictions]]:
    """Yield batches of row numbers, texts and predictions: first the command line's texts, then the input's.

    Lines of standard input are classified in batches as they arrive.
    """
    import numpy as np

    lines = args.input == STANDARD and options.format in ("auto", "lines")
    start = 0
    if args.texts or lines:
        every = itertools.chain(args.texts, _lines() if lines else ())
        for texts, predictions in _classify_strings(folder, every, seen, options):
            yield np.arange(start, start + len(texts)), texts, predictions
            start += len(texts)
    if args.input is not None and not lines:
        from shardtrain.inference.predict_file import predict_stream

        for documents, predictions in seen.documents(predict_stream(folder, args.input, options)):
            yield start + documents.ordinals, documents.texts, predictions


def _classify_strings(
    folder: Run, texts: Iterable[str], seen: _Seen, options: PredictOptions
) -> Iterator[tuple[Sequence[str], Predictions]]:
    """Yield batches of texts, with U+FFFD for undecodable bytes, and their predictions."""
    import numpy as np

    from shardtrain.inference.notes import replace_escaped
    from shardtrain.inference.run import BATCH_TEXTS

    how = {"threshold": options.threshold}
    classifier = folder.classifier(**how) if options.explain is None else folder.explainer(options.explain, **how)
    decoded = map(replace_escaped, texts)
    while batch := list(itertools.islice(decoded, BATCH_TEXTS)):
        readable, numbers = zip(*batch, strict=True)
        predictions = classifier(readable, replaced=np.array(numbers) > 0)
        seen.add(predictions, sum(numbers))
        yield readable, predictions


def _lines() -> Iterator[str]:
    """Yield the lines of standard input, read as UTF-8 like files, with surrogates for undecodable bytes."""
    stream = standard_input()
    if isinstance(stream, io.TextIOWrapper) and stream.encoding != "utf-8-sig":
        stream.reconfigure(encoding="utf-8-sig", errors="surrogateescape")
    return (line.rstrip("\n") for line in stream)


def _print_rows(args: argparse.Namespace, folder: Run, options: PredictOptions) -> None:
    """Print what `--output` would write: CSV, or with `--json` JSON Lines."""
    from shardtrain.inference.predict_file import predict_stream
    from shardtrain.inference.writers import csv_lines, json_lines

    seen, names = _Seen(), folder.description.class_names
    how = {"proba": options.proba, "notes": options.notes, "reasons": options.explain is not None}
    writer = json_lines(names, **how) if args.json else csv_lines(names, **how, safe=options.csv_safe)
    write = (lambda text: write_data(json_safe(text))) if args.json else write_data
    write(writer.header.decode())
    for documents, predictions in seen.documents(predict_stream(folder, args.input, options)):
        write(writer.part(documents.ordinals, predictions).decode())
    seen.report(options)


COMMAND = Command(
    name="predict",
    help="classify texts with a trained model",
    description="Print class, probability and start of each text: a table, or tab-separated into a file or pipe; with "
    "--explain a block of lines for each text. "
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
python -m shardtrain predict runs/mlp-1 "The match ended in a draw." --explain 5
python -m shardtrain predict runs/mlp-1 --input texts.txt > classes.tsv
python -m shardtrain predict runs/mlp-1 --input reviews.csv.gz --text-columns title body --output out.parquet --proba
zcat big.jsonl.gz | python -m shardtrain predict runs/mlp-1 --input - --format jsonl --output - | gzip > out.csv.gz""",
)
