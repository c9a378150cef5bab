"""List the runs in a folder from their JSON files: what was trained on what, and with which result.

Neither models nor shards are opened, and no package is loaded but for checksums, so a list of hundreds of runs takes no
longer than reading their files. A run that cannot be read is listed with the reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shardtrain.errors import RunError, RunNotFoundError, command_line
from shardtrain.inference.options import RUN_ORDERS
from shardtrain.metrics.names import HIGHER_IS_BETTER, MEASURES
from shardtrain.training.commands import fit_command
from shardtrain.training.run_folder import CONFIG, METRICS, MODEL, RunFolder

FINISHED, UNFINISHED, DAMAGED = "finished", "unfinished", "damaged"
STUDY, TRIALS = "study.json", "trials"  # of `tune`, whose module loads more
_HIGHEST_FIRST = {*(name for name, higher in HIGHER_IS_BETTER.items() if higher), "test_accuracy", "date"}


@dataclass(frozen=True, kw_only=True)
class ListedRun:
    """A run in a list; what is unknown is None.

    Attributes:
        path: its folder.
        state: `FINISHED`, `UNFINISHED` or `DAMAGED`.
        note: how an unfinished run is resumed, or what is damaged; else empty.
        model: name of the model.
        engine: "fused" or "keras".
        shards: folder of the shards that it was trained on, at that time.
        corpus: name of the training corpus.
        examples: number of training examples.
        features: number of features.
        classes: number of classes.
        accuracy: on the validation split.
        loss: likewise.
        measures: likewise all metrics that the run records, by the names of `metrics.names`.
        test_accuracy: on the test split.
        test_loss: likewise.
        epochs: number of epochs.
        best_epoch: the one whose weights were kept.
        seconds: that the training took.
        date: when it was finished, or begun if it is not, in UTC, as ISO 8601 has it.
    """

    path: Path
    state: str
    note: str = ""
    model: str | None = None
    engine: str | None = None
    shards: str | None = None
    corpus: str | None = None
    examples: int | None = None
    features: int | None = None
    classes: int | None = None
    accuracy: float | None = None
    loss: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    test_accuracy: float | None = None
    test_loss: float | None = None
    epochs: int | None = None
    best_epoch: int | None = None
    seconds: float | None = None
    date: str | None = None

    def value(self, name: str) -> Any:
        """Return what an order of `RUN_ORDERS` goes by; None if it is unknown."""
        return self.measures.get(name) if name in MEASURES else getattr(self, {"time": "seconds"}.get(name, name))


@dataclass(frozen=True, kw_only=True)
class RunList:
    """The runs in a folder.

    Attributes:
        folder: the folder.
        runs: ordered as asked for.
        studies: folders of studies of `tune` in it, whose runs are not listed.
    """

    folder: Path
    runs: tuple[ListedRun, ...]
    studies: tuple[Path, ...]


def list_runs(folder: Path | str, *, sort: str | None = None) -> RunList:
    """List the runs in a folder, finished or not; of a study of `tune` its trials.

    Args:
        folder: of run folders; or a run.
        sort: one of `RUN_ORDERS`, best first, runs without that figure last; None: by name.

    Raises:
        RunNotFoundError: there is no such folder.
        ValueError: `sort` is unknown.
    """
    folder = Path(folder)
    if not folder.is_dir():
        what = "is not a folder" if folder.exists() else "does not exist"
        raise RunNotFoundError(
            f"'{folder}' {what}; name the folder of your runs, or train with `{command_line('fit', 'SHARDS')}`"
        )
    if sort is not None and sort not in RUN_ORDERS:
        raise ValueError(f"sort is {sort!r}; choose one of {', '.join(RUN_ORDERS)}")
    places = sorted((each for each in folder.iterdir() if each.is_dir()), key=_natural)
    if (folder / STUDY).is_file() and (folder / TRIALS).is_dir():
        places = sorted((folder / TRIALS).iterdir(), key=_natural)  # `best` links to one of them
    runs = [run for place in places if (run := _listed(place)) is not None] or _alone(folder)
    studies = tuple(place for place in places if (place / STUDY).is_file())
    return RunList(folder=folder, runs=tuple(_sorted(runs, sort)), studies=studies)


def _alone(folder: Path) -> list[ListedRun]:
    return [run] if (run := _listed(folder)) is not None else []


def _natural(path: Path) -> list[tuple[int, str]]:
    """Return what orders names by the numbers in them: mlp-2 before mlp-10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", path.name)]


def _sorted(runs: Sequence[ListedRun], sort: str | None) -> list[ListedRun]:
    if sort is None:
        return list(runs)
    known = [run for run in runs if run.value(sort) is not None]
    ordered = sorted(known, key=lambda run: run.value(sort), reverse=sort in _HIGHEST_FIRST)
    return [*ordered, *(run for run in runs if run.value(sort) is None)]


def _listed(path: Path) -> ListedRun | None:
    """Return the run in a folder; None if there is none."""
    folder = RunFolder(path)
    try:
        if folder.finished:
            record = folder.read()
            about = _about(record.config, vars(record.description))
            return ListedRun(path=path, state=FINISHED, date=_date(path / METRICS), **about, **_results(record.metrics))
        if (path / CONFIG).is_file():
            config = folder.config()
            note = f"resume it with `{fit_command(config, path)}`"
            about = _about(config, config["description"])
            return ListedRun(path=path, state=UNFINISHED, note=note, date=_date(path / CONFIG), **about)
        damaged = folder.is_run
    except (RunError, OSError) as error:
        damaged = isinstance(error, OSError) or folder.is_run or (path / MODEL).exists()
        reason = error.on_command_line if isinstance(error, RunError) else str(error)
    else:
        reason = f"'{path / CONFIG}' is missing; restore it from a copy, or delete the folder"
    return ListedRun(path=path, state=DAMAGED, note=reason) if damaged else None


def _about(config: Mapping[str, Any], description: Mapping[str, Any]) -> dict[str, Any]:
    corpus = config.get("corpus")
    return {
        "model": config["model"],
        "engine": config["options"].get("engine"),
        "shards": config.get("shards"),
        "corpus": corpus.get("name") if isinstance(corpus, Mapping) else None,
        "examples": description["num_train"],
        "features": description["num_features"],
        "classes": len(description["class_names"]),
    }


def _results(metrics: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "accuracy": metrics["val_accuracy"],
        "loss": metrics["val_loss"],
        "measures": _measures(metrics),
        "test_accuracy": metrics.get("test_accuracy"),
        "test_loss": metrics.get("test_loss"),
        "epochs": metrics["epochs"],
        "best_epoch": metrics.get("best_epoch"),
        "seconds": metrics.get("fit_seconds"),
    }


def _measures(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Return all metrics of the validation split that a run records; older ones have accuracy and loss alone."""
    recorded = metrics.get("validation")
    record = recorded if isinstance(recorded, Mapping) else {}
    top = record.get("top_accuracy")
    ranks = top if isinstance(top, Mapping) else {}
    found = {
        **{name: record.get(name) for name in MEASURES},
        **{f"top_{rank}_accuracy": value for rank, value in ranks.items() if f"top_{rank}_accuracy" in MEASURES},
        "accuracy": metrics["val_accuracy"],
        "loss": metrics["val_loss"],
    }
    return {name: value for name, value in found.items() if isinstance(value, float | int)}


def _date(path: Path) -> str:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC).isoformat(timespec="seconds")


def listed_names(runs: Sequence[ListedRun], folder: Path) -> Iterator[str]:
    """Yield the names of runs within the folder of a list."""
    for run in runs:
        inside = run.path.is_relative_to(folder) and run.path != folder
        yield str(run.path.relative_to(folder)) if inside else str(run.path)
