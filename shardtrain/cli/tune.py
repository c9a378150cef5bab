"""`tune`: search sizes and rates of a model, show the results, and keep the best run."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from shardtrain.cli.arguments import given_options, options_from
from shardtrain.cli.command import Argument, Command
from shardtrain.cli.results import next_step, show
from shardtrain.cli.tensorflow import check_if_keras_is_asked_for, load_for_training
from shardtrain.errors import UsageError
from shardtrain.loader.options import LoaderOptions
from shardtrain.metrics.names import COMPILED
from shardtrain.models.options import SIZES
from shardtrain.options import Option, flag, options_of
from shardtrain.runtime.progress import short
from shardtrain.training.options import CheckpointOptions, FitOptions, StepOptions, TrainingOptions, check_sizes
from shardtrain.training.tune_options import Range, StudyOutput, TuneOptions, in_words

if TYPE_CHECKING:
    from shardtrain.training.tune import StudyResult, Trial

BAR = 40  # characters of the longest bar
SHADES = " ░▒▓█"
TUNABLE: dict[str, Option] = {
    name: declared
    for cls in (*SIZES.values(), StepOptions)
    for name, declared in options_of(cls).items()
    if declared.tunable
}
GUIDE_VALUES = {"layers": "1 2 3", "units": "8 16 32 64 128"}  # the default search space, in words


@dataclass(frozen=True)
class Between:
    """The ends of a range of numbers, written LOW:HIGH."""

    low: Any
    high: Any

    def __str__(self) -> str:
        return f"{self.low}:{self.high}"


def _add_tunable(parser: argparse.ArgumentParser) -> None:
    """Add the tunable options, which take several values or a range."""
    group = parser.add_argument_group("what is tried: values, or LOW:HIGH for tpe (default: that of fit)")
    for name, declared in TUNABLE.items():
        assert declared.parse is not None
        known = f" (default, if nothing is given: {GUIDE_VALUES[name]})" if name in GUIDE_VALUES else ""
        group.add_argument(
            flag(name), nargs="+", type=_values_of(declared.parse), metavar=declared.metavar, help=declared.help + known
        )


def _values_of(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Return a function that parses a number, or LOW:HIGH."""

    def read(text: str) -> Any:
        low, colon, high = text.partition(":")
        return Between(kind(low), kind(high)) if colon else kind(low)

    read.__name__ = "number or LOW:HIGH"  # argparse's name for it in messages
    return read


def run(args: argparse.Namespace) -> int:
    """Run the study, and print its results."""
    from dataclasses import asdict

    from shardtrain.loader.shards import open_shards
    from shardtrain.runtime.process import own_process

    space = {name: _among(name, getattr(args, name)) for name in TUNABLE if name in args.given}
    base = FitOptions(**given_options(args, TrainingOptions), **given_options(args, CheckpointOptions))
    check_if_keras_is_asked_for(base)
    options = TuneOptions(space=space, **given_options(args, TuneOptions))
    output = options_from(args, StudyOutput)
    own_process()
    with open_shards(args.shards, **given_options(args, LoaderOptions)) as shards:
        check_sizes(space, base.model, shards.description.kind)
        load_for_training(base, shards.description)
        from shardtrain.training.tune import tune

        study = tune(shards, base, options, out=output.out, overwrite=output.overwrite)
        tested = "test" in shards.splits
    best = study.best
    assert best.loss is not None  # only a trial that was measured is the best
    facts = {
        "run": study.run.path,
        "metric": options.metric,
        "best": asdict(best),
        "trials": [*map(asdict, study.trials)],
    }
    show(
        args.json,
        facts,
        *table(study.trials, list(study.space), best, options.metric),
        "",
        *plot(study, options.metric),
        "",
        f"best: {in_words(best.values)}: validation accuracy {best.accuracy:.4f}, loss {short(best.loss)}: "
        f"{study.run.path}",
        next_step("evaluate", study.run.path, args.shards, *(["--split", "test"] if tested else [])),
        summary=True,
    )
    return 0


def _among(name: str, given: Sequence[Any]) -> Any:
    """Return the values of an option, or its range."""
    if len(given) == 1 and isinstance(given[0], Between):
        return Range(given[0].low, given[0].high)
    if any(isinstance(each, Between) for each in given):
        raise UsageError(f"{flag(name)} mixes values and a range; give values, or one LOW:HIGH")
    return tuple(given)


def table(trials: Sequence[Trial], names: Sequence[str], best: Trial, metric: str) -> Iterator[str]:
    """Yield a header and a line per trial, in order; `metric` is what the study compares."""
    other = [metric] if metric not in COMPILED else []
    heads = ["trial", *(name.replace("_", " ") for name in [*names, *other]), "accuracy", "loss", "epochs", "state"]
    rows = [
        [
            str(trial.number + 1),
            *(f"{trial.values[name]:g}" if name in trial.values else "-" for name in names),
            *(("-" if trial.value is None else f"{trial.value:.4f}") for _ in other),
            "-" if trial.accuracy is None else f"{trial.accuracy:.4f}",
            "-" if trial.loss is None else short(trial.loss),
            "-" if trial.epochs is None else str(trial.epochs),
            trial.state + (", best" if trial == best else ""),
        ]
        for trial in trials
    ]
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    for row in [heads, *rows]:
        cells = [cell.rjust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        yield "  ".join([*cells, row[-1]])


def plot(study: StudyResult, metric: str) -> Iterator[str]:
    """Draw the metric over two lists of values as a surface, as the guide does, or as a bar for each trial."""
    measured = [(trial, trial.value) for trial in study.trials if trial.value is not None]
    values = [value for _, value in measured]
    low, span = min(values), max(values) - min(values)
    varied = [name for name, among in study.space.items() if not isinstance(among, tuple) or len(among) > 1]
    if len(varied) == 2 and all(isinstance(study.space[name], tuple) for name in varied):
        yield from _surface(study, metric, varied, low, span)
        return
    yield f"validation {metric} by trial, from {low:.4f} to {low + span:.4f}"
    for trial, value in measured:
        length = round(BAR * (value - low) / span) if span else BAR
        yield f"{trial.number + 1:>5}  {value:.4f}  {'█' * length or '▏'}"


def _surface(study: StudyResult, metric: str, varied: Sequence[str], low: float, span: float) -> Iterator[str]:
    down, across = varied
    rows, columns = study.space[down], study.space[across]
    assert isinstance(rows, tuple)
    assert isinstance(columns, tuple)
    names = [name.replace("_", " ") for name in varied]
    yield f"validation {metric} by {names[0]} (down) and {names[1]} (across); the darker, the higher"
    yield " " * 8 + "".join(f"{column:>12g}" for column in columns)
    for row in rows:
        cells = []
        for column in columns:
            found = [
                trial.value
                for trial in study.trials
                if trial.values[down] == row and trial.values.get(across, column) == column and trial.value is not None
            ]
            shade = SHADES[round((len(SHADES) - 1) * (found[0] - low) / span)] if found and span else SHADES[0]
            cells.append(f"{shade * 3:>5} {found[0]:.4f}" if found else f"{'-':>12}")
        yield f"{row:>8g}" + "".join(cells)


COMMAND = Command(
    name="tune",
    help="try sizes and rates of a model, and keep the best run",
    description="Train a model with each of several values, show the results, and keep the best run. A study that was "
    "interrupted is resumed by the same command.",
    run=run,
    arguments=(Argument(name="shards", metavar="SHARDS", help="folder of shards with a validation split"),),
    options=(StudyOutput, TuneOptions, CheckpointOptions, TrainingOptions, LoaderOptions),
    extend=_add_tunable,
    examples="""\
python -m shardtrain tune data/shards
python -m shardtrain tune data/shards --layers 1 2 3 --units 16 64 --learning-rate 1e-3 3e-3 --out runs/sizes
python -m shardtrain tune data/shards --units 8:256 --learning-rate 1e-4:1e-2 --sampler tpe --trials 30""",
)
