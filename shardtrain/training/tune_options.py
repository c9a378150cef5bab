"""Declare what `tune` tries, as frozen values that are checked when they are made, and list the resulting trainings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from shardtrain.errors import UsageError
from shardtrain.metrics.names import MEASURES
from shardtrain.options import checked, option, options_of
from shardtrain.training.options import RUNS, FitOptions, StepOptions

DEFAULT_OUT = RUNS / "tune"
_GROUP = "study"
SAMPLERS = ("grid", "tpe")
GUIDE = {"mlp": {"layers": (1, 2, 3), "units": (8, 16, 32, 64, 128)}}  # what the guide tries
OF_TRAINING = tuple(options_of(StepOptions))  # tuned options that are not sizes of a model

Number = int | float


@dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included; for the sampler tpe."""

    low: Number
    high: Number

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise UsageError(f"the range {self.low}:{self.high} is empty; write the lower end first")


Values = tuple[Number, ...] | Range


@checked
@dataclass(frozen=True, kw_only=True)
class StudyOutput:
    """Where a study goes.

    Attributes:
        out: folder of the study; one of the same study is resumed, also with more trials.
        overwrite: replace another study in `out`.
    """

    out: Path = option(DEFAULT_OUT, "folder of the study", group=_GROUP, metavar="DIR", parse=Path, identity=False)
    overwrite: bool = option(False, "replace another study in --out", group=_GROUP, identity=False)


@checked
@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """What is tried.

    Attributes:
        space: names of options (sizes of the model, learning_rate, batch_size) and what each may be; empty: what the
            guide tries.
        sampler: "grid": every combination, in order; "tpe": Optuna's choice, guided by earlier trials.
        trials: the most trainings in all; None: the whole grid, or 20.
        metric: of the validation split, in the epoch that a training keeps; the lower loss where equal.
        prune: whether to stop a trial that is worse than the median of earlier trials at the same epoch.
        keep_all: whether the runs that are not the best are kept too.
    """

    space: Mapping[str, Values]
    sampler: str = option(
        "grid", "grid: every combination; tpe: guided by earlier trials", group=_GROUP, choices=SAMPLERS
    )
    trials: int | None = option(
        None,
        "at most N trainings",
        group=_GROUP,
        metavar="N",
        parse=int,
        unset="the whole grid; tpe: 20",
        identity=False,
    )
    metric: str = option(
        "accuracy",
        "what compares the trainings, on the validation split: a metric, as those of --monitor of fit",
        group=_GROUP,
        choices=MEASURES,
        metavar="METRIC",
    )
    prune: bool = option(
        True,
        "train every trial to its end",
        group=_GROUP,
        unset="stop a trial that is worse than the median of earlier trials at the same epoch",
    )
    keep_all: bool = option(False, "keep all runs", group=_GROUP, unset="the best one", identity=False)

    def __post_init__(self) -> None:
        if self.trials is not None and self.trials < 1:
            raise UsageError(f"--trials is {self.trials}; it must be at least 1")
        for name, values in self.space.items():
            if isinstance(values, Range) and self.sampler == "grid":
                raise UsageError(
                    f"--{name.replace('_', '-')} {values.low}:{values.high} is a range, a grid needs a list of values; "
                    "list some, or choose --sampler tpe"
                )
            if not isinstance(values, Range) and len(set(values)) < len(values):
                raise UsageError(f"--{name.replace('_', '-')} names a value twice")


def in_words(values: Mapping[str, Number]) -> str:
    """Format values in words, such as "layers 2, units 64"."""
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in values.items())


def changed(base: FitOptions, values: Mapping[str, Number], name: str) -> FitOptions:
    """Return the options of a training with these values.

    Raises:
        UsageError: a value outside its range.
    """
    sizes = {key: value for key, value in values.items() if key not in OF_TRAINING}
    changes: dict[str, Any] = {key: value for key, value in values.items() if key in OF_TRAINING}
    if sizes:
        changes[name] = replace(getattr(base, name), **sizes)
    return replace(base, **changes)


def grid(space: Mapping[str, Values], name: str) -> list[dict[str, Number]]:
    """Return every combination of listed values once, the last name's values changing fastest.

    An mlp of one layer has no hidden units, so it is one combination for all numbers of them.
    """
    listed = [values for values in space.values() if not isinstance(values, Range)]
    points = [dict(zip(space, point, strict=True)) for point in product(*listed)]
    unique = {tuple((key, point[key]) for key in space if matters(key, point, name)): None for point in points}
    return [dict(point) for point in unique]


def matters(key: str, values: Mapping[str, Number], name: str) -> bool:
    """Return whether an option has an effect given the other values: an mlp of one layer has no hidden units."""
    return not (name == "mlp" and key == "units" and values.get("layers") == 1)


def check_space(base: FitOptions, options: TuneOptions, name: str) -> None:
    """Refuse, before the first training, an empty space or a value that an option cannot have."""
    if not options.space:
        raise UsageError(
            f"there is nothing to try for the model {name}; list values, such as --learning-rate 1e-3 1e-2"
        )
    if base.embeddings is not None and "embedding_dim" in options.space:
        raise UsageError("--embedding-dim is that of the vectors in --embeddings; omit it")
    for key, values in options.space.items():
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            changed(base, {key: value}, name)
