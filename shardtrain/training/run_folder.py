"""Write and read the folder of a run; only a finished run has metrics.json.

    model.keras     the model, as Keras saves it
    vectorizer/     the fitted vectorizer, copied from the shards
    config.json     options, description of the shards, versions; written first
    history.csv     one line per epoch, rewritten after each
    metrics.json    results, and the checksum of the model; written last: without it the run is unfinished
    checkpoints/    the last two states of training; removed when the run is finished
    tensorboard/    TensorBoard events, with `fit --tensorboard`

Every file is written atomically.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.errors import RunError, RunExistsError, RunNotFoundError, command_line
from shardtrain.loader.info import DatasetInfo
from shardtrain.runtime.atomic import (
    commit_bytes,
    commit_json,
    committed,
    committed_by_name,
    final_name,
    make_folder,
    remove_partials,
)
from shardtrain.runtime.jobs import Job, JobFolder
from shardtrain.runtime.storage import remove, storage_error
from shardtrain.training.commands import fit_command
from shardtrain.training.options import RUNS

if TYPE_CHECKING:
    import keras

FORMAT = "shardtrain-run"
VERSION = 1
MODEL, VECTORIZER, CONFIG, HISTORY, METRICS = "model.keras", "vectorizer", "config.json", "history.csv", "metrics.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The contents of the JSON files of a finished run.

    Attributes:
        config: how it was trained: `model`, `options`, `versions`, and `shards`, their folder at that time.
        description: of the shards it was trained on.
        metrics: `val_accuracy`, `val_loss`, `epochs` and the other results, and `model_sha256`.
    """

    config: Mapping[str, Any]
    description: DatasetInfo
    metrics: Mapping[str, Any]


@dataclass(frozen=True)
class RunFolder:
    """A run folder: missing, empty, unfinished or finished."""

    path: Path

    @classmethod
    def create(cls, path: Path | None, model: str) -> RunFolder:
        """Make the folder of a run: `path`, or the next free `runs/MODEL-N`."""
        if path is None:
            return cls(_next_free(model))
        make_folder(path)
        return cls(path)

    @classmethod
    def newest_unfinished(cls, model: str) -> RunFolder:
        """Find the newest unfinished run of a model in `runs/`, whatever the name of its folder.

        Raises:
            RunNotFoundError: there is no unfinished run of it.
        """
        found = [cls(path) for path in RUNS.glob("*") if path.is_dir()]
        unfinished = [folder for folder in found if folder.is_run and not folder.finished and folder.is_of(model)]
        if not unfinished:
            raise RunNotFoundError(
                f"there is no interrupted run of the model {model} in '{RUNS}'; omit --resume, or name it with --out"
            )
        return max(unfinished, key=lambda folder: (folder.path / CONFIG).stat().st_mtime_ns)

    def is_of(self, model: str) -> bool:
        """Return whether the run in it was started with this model."""
        try:
            return bool(self.config().get("model") == model)
        except RunError:  # damaged; it cannot be resumed
            return False

    @property
    def work(self) -> JobFolder:
        """The folder as a job's, with config.json as the record."""
        return JobFolder(
            path=self.path,
            owner=self.path,
            noun="training",
            error=RunExistsError,
            missing=RunNotFoundError,
            record_name=CONFIG,
        )

    @property
    def finished(self) -> bool:
        """Whether the run in it is finished."""
        return (self.path / METRICS).is_file()

    @property
    def cut_short(self) -> bool:
        """Whether the run is finished but its process ended before it removed the checkpoints."""
        return self.finished and (self.path / CHECKPOINTS).is_dir()

    @property
    def is_run(self) -> bool:
        """Whether a run was started in the folder, finished or not."""
        if not (self.path / CONFIG).is_file():
            return {final_name(path.name) for path in self.path.iterdir()} == {CONFIG}  # killed while it began
        try:
            return bool(_read_json(self.path / CONFIG).get("format") == FORMAT)
        except RunError:
            return False

    @property
    def empty(self) -> bool:
        """Whether there is no such folder, or nothing in it."""
        return not self.path.is_dir() or not any(self.path.iterdir())

    def config(self) -> Mapping[str, Any]:
        """Read the configuration of the run, finished or not; empty where there is no run.

        Raises:
            RunError: the file is damaged.
        """
        return _read_json(self.path / CONFIG) if (self.path / CONFIG).is_file() else {}

    def check_free(self, *, overwrite: bool) -> None:
        """Refuse a folder that a new run must not be written to.

        Raises:
            RunExistsError: it holds a finished run and `overwrite` is false, or files that do not belong to a run.
        """
        if self.finished and not overwrite and not self.cut_short:
            raise RunExistsError(
                f"'{self.path}' holds a finished run; choose another --out, or pass --overwrite to replace it"
            )
        if self.path.exists() and not (self.path.is_dir() and (self.is_run or self.empty)):
            raise RunExistsError(f"'{self.path}' exists and is not a run folder; choose another --out")

    def check_job(self, job: Job, found: Mapping[str, Any]) -> None:
        """Refuse to resume a training whose record `found` has other options or shards.

        Raises:
            RunExistsError: the record differs from the job.
        """
        if changed := job.differs_from(found):
            raise RunExistsError(f"{self.work.refusal(job, changed)}, or choose another --out")

    def start(self, config: Mapping[str, Any], description: DatasetInfo, vectorizer: Path) -> None:
        """Write configuration and vectorizer of a new run.

        Files of an earlier run in the folder are removed, its metrics first.

        Args:
            config: `model`, `options`, `versions`, `shards`, and, where they are known, `labels` and `corpus`,
                the description of the training corpus.
            description: of the shards.
            vectorizer: the folder to copy.
        """
        (self.path / METRICS).unlink(missing_ok=True)
        record = {"format": FORMAT, "version": VERSION, **config, "description": asdict(description)}
        commit_json(self.path / CONFIG, record)
        for name in (MODEL, HISTORY, VECTORIZER, TENSORBOARD):
            remove(self.path / name)
        remove_partials(self.path)
        for source in sorted(vectorizer.rglob("*")):
            if source.is_file():
                copy = self.path / VECTORIZER / source.relative_to(vectorizer)
                make_folder(copy.parent)
                with open(source, "rb") as original, committed(copy) as file:
                    shutil.copyfileobj(original, file)

    def write_history(self, epochs: Sequence[Mapping[str, float]]) -> None:
        """Write history.csv: a header and a line per epoch, numbers as Python's repr writes them."""
        names = list(dict.fromkeys(name for epoch in epochs for name in epoch))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(epochs)
        commit_bytes(self.path / HISTORY, text.getvalue().encode())

    def finish(self, model: keras.Model, metrics: Mapping[str, Any]) -> None:
        """Write the model, then the metrics, which makes the run finished.

        Raises:
            StorageError: it cannot be written; the run stays unfinished.
        """
        with committed_by_name(self.path / MODEL) as partial:
            try:
                model.save(partial)
            except RuntimeError as error:  # libhdf5's errors reach Keras as such
                raise storage_error(self.path / MODEL, "write by Keras", error) from error
        commit_json(self.path / METRICS, {**metrics, "model_sha256": sha256(self.path / MODEL)})

    def read(self) -> RunRecord:
        """Read the JSON files of a finished run.

        Raises:
            RunNotFoundError: no such folder, or the run in it is unfinished.
            RunError: its JSON files are damaged or of another version.
        """
        folder = self.path
        if not self.finished:
            if folder.exists() and not (folder.is_dir() and self.is_run):
                raise RunNotFoundError(
                    f"'{folder}' is not a run folder; name one that `python -m shardtrain fit` wrote"
                )
            if not folder.exists():
                train = command_line("fit", "SHARDS", "--out", folder)
                raise RunNotFoundError(f"'{folder}' does not exist; train with `{train}`")
            resume = fit_command(self.config(), folder)
            raise RunNotFoundError(f"'{folder}' holds an unfinished run (no {METRICS}); resume it with `{resume}`")
        config, metrics = _read_json(folder / CONFIG), _read_json(folder / METRICS)
        try:
            if (config["format"], config["version"]) != (FORMAT, VERSION):
                raise ValueError(f"format {config['format']!r} {config['version']!r}, expected {FORMAT!r} {VERSION}")
            described = dict(config.pop("description"))
            description = DatasetInfo(**{**described, "class_names": tuple(described["class_names"])})
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"'{folder}' is not a run that this version of shardtrain reads: {error}; train again"
            ) from error
        return RunRecord(config=config, description=description, metrics=metrics)


def _stem(model: str) -> str:
    return Path(model).stem if model.endswith(".keras") else model.replace(":", "-").replace(os.sep, "-")


def _next_free(model: str) -> Path:
    """Make and return `runs/MODEL-N` with the lowest N that does not exist."""
    RUNS.mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = RUNS / f"{_stem(model)}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("numbers do not end")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"'{path}' cannot be read ({error}); train again with `python -m shardtrain fit`") from error
    if not isinstance(value, dict):
        raise RunError(f"'{path}' does not hold a JSON object; train again with `python -m shardtrain fit`")
    return value


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
