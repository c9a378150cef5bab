"""`tune`: try sizes and rates, show what came of them, and keep the best run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.cli.fit import (
    add_checkpoints,
    add_reading,
    add_training,
    check_sizes,
    fit_options,
    quiet_tensorflow,
    reading,
)
from shardtrain.cli.results import show
from shardtrain.errors import UsageError

if TYPE_CHECKING:
    from shardtrain.training.tune import Trial, Tuned

OUT = Path("runs/tune")
BAR = 40  # characters of the longest bar
SHADES = " ░▒▓█"
TRIED = {  # what can be tried: type, and help
    "layers": (int, "mlp: layers with the output (default, if nothing is given: 1 2 3)"),
    "units": (int, "mlp: units of a hidden layer (default, if nothing is given: 8 16 32 64 128)"),
    "blocks": (int, "sepcnn: blocks of two convolutions"),
    "filters": (int, "sepcnn: filters, twice in the last block"),
    "kernel_size": (int, "sepcnn: tokens a filter sees"),
    "pool_size": (int, "sepcnn: tokens pooled into one"),
    "embedding_dim": (int, "sepcnn: numbers for a word"),
    "dropout": (float, "mlp and sepcnn: share of values dropped in training"),
    "learning_rate": (float, "step size of Adam"),
    "batch_size": (int, "examples a step"),
}
EXAMPLE = """\
examples:
  python -m shardtrain tune data/shards
  python -m shardtrain tune data/shards --layers 1 2 3 --units 16 64 --learning-rate 1e-3 3e-3 --out runs/sizes
  python -m shardtrain tune data/shards --units 8:256 --learning-rate 1e-4:1e-2 --sampler tpe --trials 30"""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the parser of `tune`."""
    parser = commands.add_parser(
        "tune",
        help="try sizes and rates of a model, and keep the best run",
        description="Train a model with each of several values, show what came of them, and keep the best run. A study "
        "that was interrupted goes on with the same command.",
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shards", type=Path, metavar="SHARDS", help="folder of shards with a validation split")
    study = parser.add_argument_group("study")
    study.add_argument("--out", type=Path, default=OUT, metavar="DIR", help=f"folder of the study (default {OUT})")
    study.add_argument("--overwrite", action="store_true", help="replace another study in --out")
    study.add_argument(
        "--sampler", metavar="NAME", help="grid: every combination; tpe: by what was good so far (default grid)"
    )
    study.add_argument("--trials", type=int, metavar="N", help="at most N trainings (default: the whole grid; tpe: 20)")
    study.add_argument("--metric", metavar="NAME", help="accuracy or loss, on the validation split (default accuracy)")
    study.add_argument(
        "--no-prune",
        action="store_true",
        help="train each to its end (default: end one that is worse than the median of the others)",
    )
    study.add_argument("--keep-all", action="store_true", help="keep all runs (default: the best one)")
    add_checkpoints(study)
    tried = parser.add_argument_group("what is tried: values, or LOW:HIGH for tpe (default: that of fit)")
    for name, (kind, text) in TRIED.items():
        flag, metavar = "--" + name.replace("_", "-"), "N" if kind is int else "F"
        tried.add_argument(flag, nargs="+", type=_values_of(kind), metavar=metavar, help=text)
    add_training(parser.add_argument_group("training"))
    add_reading(parser)
    parser.set_defaults(run=run)


@dataclass(frozen=True)
class Between:
    """The ends of a range of numbers, written LOW:HIGH."""

    low: Any
    high: Any

    def __str__(self) -> str:
        return f"{self.low}:{self.high}"


def _values_of(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """A function that reads a number of a kind, or two with a colon between them."""

    def read(text: str) -> Any:
        low, colon, high = text.partition(":")
        return Between(kind(low), kind(high)) if colon else kind(low)

    read.__name__ = "number or LOW:HIGH"  # what argparse calls a value that is none
    return read


def run(args: argparse.Namespace) -> int:
    """Tune, and print what came of it."""
    from dataclasses import asdict

    from shardtrain.loader.shards import open_shards
    from shardtrain.runtime.machine import keep_freed_memory

    keep_freed_memory()
    with open_shards(args.shards, **reading(args)) as shards:
        with quiet_tensorflow():
            from shardtrain.training.tune import tune
            from shardtrain.training.tune_options import TuneOptions, told

        kind = shards.description.kind
        space = {name: _among(name, getattr(args, name)) for name in TRIED if getattr(args, name) is not None}
        fixed = {name: value for name, value in vars(args).items() if name not in TRIED}
        base = fit_options(argparse.Namespace(**fixed), kind)
        check_sizes(space, base.model, kind)
        given = {
            name: getattr(args, name) for name in ("sampler", "trials", "metric") if getattr(args, name) is not None
        }
        options = TuneOptions(space=space, prune=not args.no_prune, keep_all=args.keep_all, **given)
        tuned = tune(shards, base, options, out=args.out, overwrite=args.overwrite)
    best = tuned.best
    facts = {
        "run": tuned.run.path,
        "metric": options.metric,
        "best": asdict(best),
        "trials": [*map(asdict, tuned.trials)],
    }
    show(
        args.json,
        facts,
        *table(tuned.trials, list(tuned.space), best),
        "",
        *plot(tuned, options.metric),
        "",
        f"best: {told(best.values)}: validation accuracy {best.accuracy:.4f}, loss {best.loss:.4f}: {tuned.run.path}",
        f"next: python -m shardtrain evaluate {tuned.run.path} {args.shards}",
    )
    return 0


def _among(name: str, given: Sequence[Any]) -> Any:
    """The values of an option, or its range."""
    from shardtrain.training.tune_options import Range

    if len(given) == 1 and isinstance(given[0], Between):
        return Range(given[0].low, given[0].high)
    if any(isinstance(each, Between) for each in given):
        raise UsageError(f"--{name.replace('_', '-')} mixes values and a range; give values, or one LOW:HIGH")
    return tuple(given)


def table(trials: Sequence[Trial], names: Sequence[str], best: Trial) -> Iterator[str]:
    """A line for each trial, in order."""
    heads = ["trial", *(name.replace("_", " ") for name in names), "accuracy", "loss", "epochs", "state"]
    rows = [
        [
            str(trial.number + 1),
            *(f"{trial.values[name]:g}" if name in trial.values else "-" for name in names),
            "-" if trial.accuracy is None else f"{trial.accuracy:.4f}",
            "-" if trial.loss is None else f"{trial.loss:.4f}",
            "-" if trial.epochs is None else str(trial.epochs),
            trial.state + (", best" if trial == best else ""),
        ]
        for trial in trials
    ]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        yield "  ".join([*cells, row[-1]])


def plot(tuned: Tuned, metric: str) -> Iterator[str]:
    """The metric over two lists of values as a surface, as the guide has it, or a bar for each trial."""
    measured = [(trial, getattr(trial, metric)) for trial in tuned.trials if trial.accuracy is not None]
    values = [value for _, value in measured]
    low, span = min(values), max(values) - min(values)
    varied = [name for name, among in tuned.space.items() if not isinstance(among, tuple) or len(among) > 1]
    if len(varied) == 2 and all(isinstance(tuned.space[name], tuple) for name in varied):
        yield from _surface(tuned, metric, varied, low, span)
        return
    yield f"validation {metric} by trial, from {low:.4f} to {low + span:.4f}"
    for trial, value in measured:
        length = round(BAR * (value - low) / span) if span else BAR
        yield f"{trial.number + 1:>5}  {value:.4f}  {'█' * length or '▏'}"


def _surface(tuned: Tuned, metric: str, varied: Sequence[str], low: float, span: float) -> Iterator[str]:
    down, across = varied
    rows, columns = tuned.space[down], tuned.space[across]
    assert isinstance(rows, tuple)
    assert isinstance(columns, tuple)
    names = [name.replace("_", " ") for name in varied]
    yield f"validation {metric} by {names[0]} (down) and {names[1]} (across); the darker, the higher"
    yield " " * 8 + "".join(f"{column:>12g}" for column in columns)
    for row in rows:
        cells = []
        for column in columns:
            found = [
                getattr(trial, metric)
                for trial in tuned.trials
                if trial.values[down] == row and trial.values.get(across, column) == column and trial.loss is not None
            ]
            shade = SHADES[round((len(SHADES) - 1) * (found[0] - low) / span)] if found and span else SHADES[0]
            cells.append(f"{shade * 3:>5} {found[0]:.4f}" if found else f"{'-':>12}")
        yield f"{row:>8g}" + "".join(cells)
