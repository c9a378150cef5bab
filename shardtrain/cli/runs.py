"""`runs`: list the runs in a folder with their results."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.cli.arguments import options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import show
from shardtrain.errors import command_line
from shardtrain.inference.options import RunsOptions
from shardtrain.runtime.progress import short
from shardtrain.runtime.quantities import duration
from shardtrain.runtime.terminal import aligned, printable
from shardtrain.training.options import RUNS

if TYPE_CHECKING:
    from shardtrain.inference.run_list import ListedRun, RunList

_NAME = 40  # characters of a name
_TEXT = 4  # columns that are no numbers
_COLUMNS: dict[str, tuple[str, Callable[[Any], str]]] = {  # headings, and how values are shown
    "model": ("model", str),
    "engine": ("engine", str),
    "data": ("data", str),
    "examples": ("examples", "{:,}".format),
    "features": ("features", "{:,}".format),
    "classes": ("classes", "{:,}".format),
    "accuracy": ("accuracy", "{:.4f}".format),
    "loss": ("loss", short),
    "macro_f1": ("macro F1", "{:.4f}".format),
    "test_accuracy": ("test accuracy", "{:.4f}".format),
    "epochs": ("epochs", "{:,}".format),
    "seconds": ("time", lambda seconds: duration(seconds)),
    "date": ("date", lambda date: date[:16].replace("T", " ")),
}
_OPTIONAL = ("macro_f1", "test_accuracy")  # left out where no run has them


def run(args: argparse.Namespace) -> int:
    """List the runs."""
    from shardtrain.inference.run_list import list_runs

    found = list_runs(args.folder, sort=options_from(args, RunsOptions).sort)
    show(args.json, {**asdict(found), "runs": [asdict(each) for each in found.runs]}, *_lines(found))
    return 0


def _lines(found: RunList) -> Iterator[str]:
    from shardtrain.inference.run_list import DAMAGED, UNFINISHED, listed_names

    names = dict(zip(found.runs, map(_brief, listed_names(found.runs, found.folder)), strict=True))
    if not found.runs:
        yield f"no runs in '{found.folder}'; `{command_line('fit', 'SHARDS')}` trains one"
    if shown := [each for each in found.runs if each.state != DAMAGED]:
        values = [_values(each) for each in shown]
        chosen = [key for key in _COLUMNS if key not in _OPTIONAL or any(row[key] is not None for row in values)]
        rows = [("run", *(_COLUMNS[key][0] for key in chosen))]
        rows += [
            (names[each], *(_cell(key, row[key]) for key in chosen)) for each, row in zip(shown, values, strict=True)
        ]
        yield from aligned(rows, text=_TEXT)
    for each in found.runs:
        if each.state == UNFINISHED:
            yield f"{names[each]} is unfinished; {each.note}"
        elif each.state == DAMAGED:
            yield f"{names[each]} cannot be read: {each.note}"
    for study in found.studies:
        yield f"'{study}' is a study; `{command_line('runs', study)}` lists its trials"


def _values(run: ListedRun) -> dict[str, Any]:
    data = Path(run.shards).name if run.shards else run.corpus
    return {**asdict(run), "data": data}


def _cell(key: str, value: Any) -> str:
    return "-" if value is None else _brief(_COLUMNS[key][1](value))


def _brief(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= _NAME else shown[: _NAME - 1] + "…"


COMMAND = Command(
    name="runs",
    help="list runs with their results",
    description="List the runs in a folder: what was trained on which data, validation and test accuracy, and when. "
    "Unfinished and damaged runs are listed as such. Of the folder of a study of `tune`, the trials are listed.",
    run=run,
    arguments=(
        Argument(name="folder", metavar="DIR", help=f"folder of run folders (default {RUNS})", nargs="?", default=RUNS),
    ),
    options=(RunsOptions,),
    examples="""\
python -m shardtrain runs
python -m shardtrain runs --sort accuracy
python -m shardtrain runs runs/tune --sort loss --json""",
)
