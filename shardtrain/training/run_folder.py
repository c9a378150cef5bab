"""Write and read the folder of a run; only a finished run has metrics.json.

    model.keras     the model, as Keras saves it
    vectorizer/     the fitted vectorizer, copied from the shards
    config.json     options, description of the shards, versions; written first
    history.csv     one line per epoch, rewritten after each
    metrics.json    results, checksums of the model and of config.json, and its own; written last: without it the run
                    is unfinished
    checkpoints/    the last two states of training; removed when the run is finished
    tensorboard/    TensorBoard events, with `fit --tensorboard`
    shards/         the shards that it was trained on, of `train`
    train.json      what `train` was called with, where it chose the folder
    thresholds.json below which predictions are "undecided", of `evaluate --choose-threshold`

Every file is written atomically.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from shardtrain.corpus.reading import SOURCE
from shardtrain.errors import RunError, RunExistsError, RunNotFoundError, command_line
from shardtrain.loader.info import DATASET_INFO, DatasetInfo
from shardtrain.runtime.atomic import (
    GIVEN_PREFIX,
    commit_bytes,
    commit_content,
    commit_json,
    committed_by_name,
    final_name,
    json_bytes,
    make_folder,
    remove_partials,
)
from shardtrain.runtime.checksums import file_checksum
from shardtrain.runtime.holders import is_lock
from shardtrain.runtime.jobs import Job, JobFolder
from shardtrain.runtime.locks import check_held
from shardtrain.runtime.progress import warn
from shardtrain.runtime.schema import (
    ANYTHING,
    Choice,
    Fields,
    Integer,
    Keyed,
    Mismatch,
    Number,
    Text,
    canonical_checksum,
    hex_digits,
    optional,
    parse_json,
    read_if_sound,
    read_json,
)
from shardtrain.runtime.storage import nearest_folder, remove, storage_error
from shardtrain.shards.layout import MAX_CLASSES, SHARDS
from shardtrain.training.commands import fit_command
from shardtrain.training.options import RUNS

FORMAT = "shardtrain-run"
VERSION = 1
_AGAIN = "restore it from a copy, or train again with `python -m shardtrain fit`"
_UNFINISHED = (
    "restore it from a copy, or delete it: the command that trained then resumes from the checkpoints, and with "
    "--overwrite it starts again"
)


def _check_labels(config: Mapping[str, Any]) -> None:
    num_classes = len(config["description"]["class_names"])
    for label, code in config.get("labels", {}).items():
        if code >= num_classes:
            raise Mismatch(str(code), f"an integer below the number of classes, {num_classes:,}", ("labels", label))


_CONFIG = Fields(
    {
        "format": Choice((FORMAT,)),
        "version": Choice((VERSION,)),
        "model": Text(),
        "options": Keyed(ANYTHING),
        "description": DATASET_INFO,
    },
    {
        "versions": Keyed(Text()),
        "shards": Text(),
        "labels": Keyed(Integer(0, MAX_CLASSES - 1)),
        "corpus": SOURCE,
        "outputs": Choice(("probabilities", "logits")),
    },
    others=True,
    rule=_check_labels,
)


def _check_best(metrics: Mapping[str, Any]) -> None:
    if metrics.get("best_epoch", 1) > metrics["epochs"]:
        raise Mismatch(str(metrics["best_epoch"]), f"at most `epochs`, {metrics['epochs']}", ("best_epoch",))


_METRICS = Fields(
    {"val_accuracy": Number(), "val_loss": Number(), "epochs": Integer(1), "model_sha256": hex_digits(64)},
    {
        "config_sha256": hex_digits(64),  # this and `checksum`: older runs have neither
        "checksum": hex_digits(16),
        "best_epoch": Integer(1),
        "examples_per_second": Number(0),
        "input_wait_fraction": Number(0),
        "peak_memory_bytes": Integer(),
        "train_examples": Integer(),
        "fit_seconds": Number(0),
        "test_examples": Integer(1),
        "test_accuracy": optional(Number()),  # null where it was not finite
        "test_loss": optional(Number()),
    },
    others=True,
    rule=_check_best,
)
MODEL, VECTORIZER, CONFIG, HISTORY, METRICS = "model.keras", "vectorizer", "config.json", "history.csv", "metrics.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
CALL, THRESHOLDS = "train.json", "thresholds.json"


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """The contents of the JSON files of a finished run.

    Attributes:
        config: how it was trained: `model`, `options`, `versions`, and `shards`, their folder at that time.
        description: of the shards it was trained on.
        metrics: `val_accuracy`, `val_loss`, `epochs` and the other results, `model_sha256` and `config_sha256`.
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

    @classmethod
    def of_corpus(cls, name: str, call: Mapping[str, Any]) -> RunFolder:
        """Return the folder `runs/NAME-N` of a call of `train`: the last one in which the same was interrupted.

        If there is none, it is the next free one.

        Args:
            name: of the corpus.
            call: what decides the result, as JSON values.
        """
        begun = [path for path in RUNS.glob(f"{name}-*") if path.name.removeprefix(f"{name}-").isdecimal()]
        for path in sorted(begun, key=lambda path: int(path.name.rpartition("-")[2]), reverse=True):
            folder = cls(path)
            with contextlib.suppress(OSError, ValueError):  # none, or damaged: it is not resumed
                if (not folder.finished or folder.cut_short) and parse_json((path / CALL).read_bytes()) == call:
                    return folder
        folder = cls(_next_free(name))
        commit_json(folder.path / CALL, call)
        return folder

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
        from shardtrain.training.checkpoint import left_behind  # loads numpy

        return self.finished and left_behind(self.path / CHECKPOINTS)

    @property
    def is_run(self) -> bool:
        """Whether a run was started in the folder, finished or not, also where its config.json was lost or damaged."""
        if read_if_sound(self.path / METRICS, _METRICS) is not None:
            return True
        if (self.path / CHECKPOINTS).is_dir():
            from shardtrain.training.checkpoint import has_checkpoint  # loads numpy

            if has_checkpoint(self.path / CHECKPOINTS):
                return True
        if not (self.path / CONFIG).is_file():
            return {final_name(path.name) for path in self._entries()} == {CONFIG}  # killed while it began
        try:
            found = parse_json((self.path / CONFIG).read_bytes())
        except (OSError, ValueError):
            return False
        return isinstance(found, dict) and found.get("format") == FORMAT

    @property
    def empty(self) -> bool:
        """Whether there is no such folder, or nothing in it but shards."""
        return not self.path.is_dir() or not any(self._entries())

    def _entries(self) -> Iterator[Path]:
        """Yield what is in the folder, but the shards of `train` and what a killed process left beside them."""
        for path in self.path.iterdir():
            if path.name not in (SHARDS, CALL) and not path.name.startswith(GIVEN_PREFIX) and not is_lock(path.name):
                yield path

    def config(self) -> Mapping[str, Any]:
        """Read the configuration of the run, finished or not; empty where there is no run.

        Raises:
            RunError: the file is damaged, makes no sense or is of another version.
        """
        return self._config() if os.path.lexists(self.path / CONFIG) else {}

    def _config(self) -> Mapping[str, Any]:
        """Read the configuration of a run.

        Raises:
            RunError: as `config`, or there is none.
        """
        if not os.path.lexists(self.path / CONFIG):
            raise RunError(f"'{self.path / CONFIG}' is missing; {_AGAIN}")
        advice = _AGAIN if self.finished else _UNFINISHED
        found: Mapping[str, Any] = read_json(self.path / CONFIG, _CONFIG, RunError, advice=advice)
        return found

    def _metrics(self) -> Mapping[str, Any]:
        """Read the results of a finished run, without the checksum of the file.

        Raises:
            RunError: the file is damaged, was changed or makes no sense.
        """
        found: dict[str, Any] = read_json(self.path / METRICS, _METRICS, RunError, advice=_AGAIN)
        expected = found.pop("checksum", None)
        if expected is not None and expected != canonical_checksum(found):
            raise RunError(f"'{self.path / METRICS}' was changed or damaged: its checksum differs; {_AGAIN}")
        return found

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

    def check_not_own(self, out: Path, option: str) -> None:
        """Refuse an output that would replace a file of the run.

        Raises:
            RunExistsError: it would; the message names `option`.
        """
        own = {self.path.resolve() / name for name in (MODEL, CONFIG, METRICS, HISTORY, CALL, THRESHOLDS)}
        own |= {self.path.resolve() / name for name in (VECTORIZER, SHARDS, CHECKPOINTS, TENSORBOARD)}
        place = out.resolve()
        if place == self.path.resolve() or own & {place, *place.parents}:
            raise RunExistsError(f"{option} '{out}' is a file of the run '{self.path}'; choose another {option}")

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
        self._write_config(config, description)
        for name in (MODEL, HISTORY, VECTORIZER, TENSORBOARD, THRESHOLDS):
            remove(self.path / name)
        remove_partials(self.path)
        self._copy_vectorizer(vectorizer)

    def resume(self, config: Mapping[str, Any], description: DatasetInfo, vectorizer: Path) -> None:
        """Write again what `start` wrote of a run that is resumed, where it is missing, damaged or of another process.

        The arguments are those of `start`.
        """
        self._write_config(config, description)
        for copy in self._copy_vectorizer(vectorizer):
            warn(f"'{copy}' was missing or damaged; it was copied again from the shards")

    def _write_config(self, config: Mapping[str, Any], description: DatasetInfo) -> None:
        record = {"format": FORMAT, "version": VERSION, **config, "description": asdict(description)}
        path, content = self.path / CONFIG, json_bytes(record, indent=2)
        if not path.is_file() or path.read_bytes() != content:
            commit_bytes(path, content)

    def _copy_vectorizer(self, vectorizer: Path) -> list[Path]:
        """Copy the files of a vectorizer that differ or are missing in the run; return the copies."""
        copied = []
        for source in sorted(vectorizer.rglob("*")):
            copy = self.path / VECTORIZER / source.relative_to(vectorizer)
            if source.is_file() and not _is_copy(copy, source):
                make_folder(copy.parent)
                commit_content(source, copy)
                copied.append(copy)
        return copied

    def write_history(self, epochs: Sequence[Mapping[str, float]]) -> None:
        """Write history.csv: a header and a line per epoch, numbers as Python's repr writes them."""
        names = list(dict.fromkeys(name for epoch in epochs for name in epoch))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(epochs)
        commit_bytes(self.path / HISTORY, text.getvalue().encode())

    def finish(self, write: Callable[[Path], None], metrics: Mapping[str, Any]) -> None:
        """Write the model with `write`, then the metrics, which makes the run finished.

        Raises:
            StorageError: it cannot be written; the run stays unfinished.
            TakenOverError: another process took over the folder, because this one did not answer.
        """
        check_held(self.path)
        with committed_by_name(self.path / MODEL) as partial:
            try:
                write(partial)
            except RuntimeError as error:  # libhdf5's errors reach Keras as such
                raise storage_error(self.path / MODEL, "write by Keras", error) from error
        sealed = {
            **metrics,
            "model_sha256": sha256(self.path / MODEL),
            "config_sha256": sha256(self.path / CONFIG),
        }
        check_held(self.path)
        commit_json(self.path / METRICS, {**sealed, "checksum": canonical_checksum(sealed)})

    def read(self) -> RunRecord:
        """Read the JSON files of a finished run.

        Raises:
            RunNotFoundError: no such folder, or the run in it is unfinished.
            RunError: its JSON files are missing, damaged or changed, make no sense or are of another version.
        """
        folder = self.path
        if not self.finished:
            meant = nearest_folder(folder, METRICS, RUNS)
            if folder.exists() and not (folder.is_dir() and self.is_run):
                known = meant or "; name one that `python -m shardtrain fit` wrote"
                raise RunNotFoundError(f"'{folder}' is not a run folder{known}")
            if not folder.exists():
                train = command_line("fit", "SHARDS", "--out", folder)
                raise RunNotFoundError(f"'{folder}' does not exist{meant or f'; train with `{train}`'}")
            resume = fit_command(self.config(), folder)
            raise RunNotFoundError(f"'{folder}' holds an unfinished run (no {METRICS}); resume it with `{resume}`")
        metrics, config = self._metrics(), dict(self._config())
        found, expected = sha256(folder / CONFIG), metrics.get("config_sha256")
        if expected is not None and found != expected:
            raise RunError(
                f"'{folder / CONFIG}' was changed or damaged: its SHA-256 is {found[:16]}…, {METRICS} says "
                f"{expected[:16]}…; {_AGAIN}"
            )
        description = DatasetInfo.from_record(config.pop("description"))
        return RunRecord(config=config, description=description, metrics=metrics)


def _stem(model: str) -> str:
    return Path(model).stem if model.endswith(".keras") else model.replace(":", "-").replace(os.sep, "-")


def _next_free(model: str) -> Path:
    """Make and return `runs/MODEL-N` with the lowest N that does not exist.

    Raises:
        RunExistsError: `runs` is no folder.
    """
    if not RUNS.is_dir() and (RUNS.exists() or RUNS.is_symlink()):
        found = "a file" if RUNS.exists() else f"a link to '{os.readlink(RUNS)}', which does not exist"
        raise RunExistsError(
            f"runs go to the folder '{RUNS}' unless --out is given, and '{RUNS}' is {found}; move it away, or choose "
            "a folder with --out"
        )
    make_folder(RUNS)
    for number in itertools.count(1):
        path = RUNS / f"{_stem(model)}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("numbers do not end")


def _is_copy(copy: Path, source: Path) -> bool:
    with contextlib.suppress(OSError):  # it is missing, or cannot be read
        return file_checksum(copy) == file_checksum(source)
    return False


def sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
