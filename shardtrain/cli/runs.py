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
    "sorted": ("", short),
    "test_accuracy": ("test accuracy", "{:.4f}".format),
    "epochs": ("epochs", "{:,}".format),
    "seconds": ("time", lambda seconds: duration(seconds)),
    "date": ("date", lambda date: date[:16].replace("T", " ")),
}
_OPTIONAL = ("macro_f1", "sorted", "test_accuracy")  # left out where no run has them


def run(args: argparse.Namespace) -> int:
    """List the runs."""
    from shardtrain.inference.run_list import list_runs

    sort = options_from(args, RunsOptions).sort
    found = list_runs(args.folder, sort=sort)
    show(args.json, asdict(found), *_lines(found, sort))
    return 0


def _lines(found: RunList, sort: str | None) -> Iterator[str]:
    from shardtrain.inference.run_list import DAMAGED, UNFINISHED, listed_names

    named = list(zip(map(_brief, listed_names(found.runs, found.folder)), found.runs, strict=True))
    if not named:
        yield f"no runs in '{found.folder}'; `{command_line('fit', 'SHARDS')}` trains one"
    if values := [(name, _values(run, sort)) for name, run in named if run.state != DAMAGED]:
        chosen = [key for key in _COLUMNS if key not in _OPTIONAL or any(row[key] is not None for _, row in values)]
        rows = [("run", *(_COLUMNS[key][0] or str(sort).replace("_", " ") for key in chosen))]
        rows += [(name, *(_cell(key, row[key]) for key in chosen)) for name, row in values]
        yield from aligned(rows, text=_TEXT)
    for name, run in named:
        if run.state == UNFINISHED:
            yield f"{name} is unfinished; {run.note}"
        elif run.state == DAMAGED:
            yield f"{name} cannot be read: {run.note}"
    for study in found.studies:
        yield f"'{study}' is a study; `{command_line('runs', study)}` lists its trials"


def _values(run: ListedRun, sort: str | None) -> dict[str, Any]:
    """Return the values of the columns; `sorted` is what the list is sorted by where no other column has it."""
    own = sort is not None and sort not in _COLUMNS and sort != "time"
    more = {"data": _data(run), "macro_f1": run.value("macro_f1"), "sorted": run.value(sort) if sort and own else None}
    return {**asdict(run), **more}


def _data(run: ListedRun) -> str | None:
    """Return the name of the shards; of those in the run's own folder, as `train` makes them, that of their corpus."""
    if run.shards is None or (run.corpus is not None and Path(run.shards).parent.name == run.path.name):
        return run.corpus
    return Path(run.shards).name


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
