"""A run folder: a trained model with all that is needed to use it, and how a whole one is told from a torso.

    model.keras     the model, as Keras saves it
    vectorizer/     the fitted vectorizer, copied from the shards
    config.json     options, what the shards held, versions; written first
    history.csv     one line an epoch, rewritten after each
    metrics.json    results, and the checksum of the model; written last: without it the run is unfinished
    checkpoints/    the last two states of training; removed when the run is finished
    tensorboard/    what `fit --tensorboard` wrote for TensorBoard, if that was asked for

Every file is committed whole. Models are loaded with Keras' safe mode on, so that a model file cannot run code, and
only after the checksum was compared, because Keras does not notice a flipped bit in the weights. The vectorizer
checks its own files.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import itertools
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.errors import ModelError, RunError, RunExistsError, RunNotFoundError
from shardtrain.loader.info import DatasetInfo
from shardtrain.runtime.atomic import (
    PARTIAL,
    commit_bytes,
    commit_file,
    commit_json,
    committed,
    full_disk_named,
    locked_folder,
    remove_partials,
)
from shardtrain.runtime.notebook import listed, table

if TYPE_CHECKING:
    import keras

    from shardtrain.inference.predict import Predictions
    from shardtrain.vectorize.fitted import Vectorizer

FORMAT = "shardtrain-run"
VERSION = 1
RUNS = Path("runs")  # where runs without a name of their own go
MODEL, VECTORIZER, CONFIG, HISTORY, METRICS = "model.keras", "vectorizer", "config.json", "history.csv", "metrics.json"
CHECKPOINTS = "checkpoints"
TENSORBOARD = "tensorboard"
_UNSAVED = "unsaved.keras"  # Keras insists on the suffix


@dataclass(frozen=True, kw_only=True)
class Run:
    """A finished run.

    Attributes:
        path: its folder.
        config: how it was trained: `model`, `options`, `versions`, and `shards`, the folder where they were then.
        description: what the shards it was trained on held.
        metrics: `val_accuracy`, `val_loss`, `epochs` and the other results, and `model_sha256`.
    """

    path: Path
    config: Mapping[str, Any]
    description: DatasetInfo
    metrics: Mapping[str, Any]

    @classmethod
    def load(cls, path: Path | str) -> Run:
        """Open a finished run folder; see `load_run`."""
        return load_run(path)

    def predict(self, texts: Iterable[str]) -> Predictions:
        """Classify texts, all results in memory; `shardtrain.inference.predict_file` classifies whole files.

        Raises:
            RunError: the run's files are damaged, or the model does not give probabilities.
        """
        from shardtrain.inference.predict import predict

        return predict(self, texts)

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        metrics = self.metrics
        return table(
            f"Run {self.path}",
            {
                "model": self.config["model"],
                "validation accuracy": f"{metrics['val_accuracy']:.4f}",
                "validation loss": f"{metrics['val_loss']:.4f}",
                "epochs": f"{metrics['epochs']:,}, the best one is {metrics['best_epoch']:,}",
                "trained on": f"{self.description.num_train:,} examples, "
                f"{self.description.num_features:,} {self.description.kind} features",
                "classes": listed(self.description.class_names),
            },
        )

    @property
    def labels(self) -> dict[str, int]:
        """Class index of each label as the corpus spells it; of a run that does not record them, of the names."""
        recorded = self.config.get("labels")
        names = self.description.class_names
        return dict(recorded) if isinstance(recorded, dict) else {name: code for code, name in enumerate(names)}

    def load_model(self) -> keras.Model:
        """The trained model, compiled as it was trained.

        Raises:
            RunError: the file differs from what was saved.
            ModelError: Keras cannot load it.
        """
        self._verify_model()
        import keras

        import shardtrain.models.layers
        import shardtrain.models.optimizers  # noqa: F401 - both register the classes that a saved model names

        try:
            return keras.saving.load_model(self.path / MODEL, safe_mode=True)
        except (TypeError, ValueError, ImportError) as error:  # what Keras raises for classes it does not know
            raise ModelError(
                f"the model of '{self.path}' cannot be loaded: {str(error).strip().splitlines()[0]}; if it has layers "
                "of your own, import the module that registers them first (on the command line: --import MODULE)"
            ) from error

    def load_vectorizer(self) -> Vectorizer:
        """The vectorizer that makes features of texts as the model was trained on.

        Raises:
            VectorizerError: it is missing or damaged.
            RunError: it is not the one whose features the model was trained on.
        """
        from shardtrain.vectorize.fitted import load_vectorizer

        if not self.description.vectorizer:
            raise RunError(
                f"'{self.path}' was trained on {self.description.kind} features that were not made from text, so it "
                "cannot classify texts; use its model.keras on such features, or `python -m shardtrain evaluate`"
            )
        vectorizer = load_vectorizer(self.path / VECTORIZER)
        found = vectorizer.describe()["fingerprint"]
        if found != self.description.vectorizer:
            raise RunError(
                f"'{self.path / VECTORIZER}' is not the vectorizer of this run: its fingerprint is {found}, "
                f"{CONFIG} says {self.description.vectorizer}; copy it again from the shards"
            )
        return vectorizer

    def _verify_model(self) -> None:
        path = self.path / MODEL
        if not path.is_file():
            raise RunError(
                f"'{path}' is missing; restore it from a copy or train again with `python -m shardtrain fit`"
            )
        found, expected = _sha256(path), str(self.metrics["model_sha256"])
        if found != expected:
            raise RunError(
                f"'{path}' is damaged: its SHA-256 is {found[:16]}…, {METRICS} says {expected[:16]}…; "
                "restore it from a copy or train again with `python -m shardtrain fit`"
            )


def load_run(path: Path | str) -> Run:
    """Open a finished run folder; nothing is loaded yet.

    Raises:
        RunNotFoundError: no such folder, or the run in it did not finish.
        RunError: its JSON files are damaged or of another version.
    """
    folder = Path(path)
    if not (folder / METRICS).is_file():
        if folder.exists() and not (folder.is_dir() and _is_run(folder)):
            raise RunNotFoundError(f"'{folder}' is not a run folder; name one that `python -m shardtrain fit` wrote")
        state = f"holds an unfinished run (no {METRICS})" if folder.exists() else "does not exist"
        raise RunNotFoundError(f"'{folder}' {state}; train with `python -m shardtrain fit SHARDS --out {folder}`")
    config, metrics = _read_json(folder / CONFIG), _read_json(folder / METRICS)
    try:
        if (config["format"], config["version"]) != (FORMAT, VERSION):
            raise ValueError(f"format {config['format']!r} {config['version']!r}, expected {FORMAT!r} {VERSION}")
        described = dict(config.pop("description"))
        description = DatasetInfo(**{**described, "class_names": tuple(described["class_names"])})
        return Run(path=folder, config=config, description=description, metrics=metrics)
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"'{folder}' is not a run that this shardtrain reads: {error}; train again") from error


def check_free(path: Path, *, overwrite: bool) -> None:
    """Refuse a folder that a new run must not be written to.

    Raises:
        RunExistsError: it holds a finished run and `overwrite` is false, or files that are not a run's.
    """
    if (path / METRICS).is_file() and not overwrite and not cut_short(path):
        raise RunExistsError(f"'{path}' holds a finished run; choose another --out, or pass --overwrite to replace it")
    if path.exists() and not (path.is_dir() and (_is_run(path) or not any(path.iterdir()))):
        raise RunExistsError(f"'{path}' exists and is not a run folder; choose another --out")


def cut_short(folder: Path) -> bool:
    """Whether the run in a folder is finished, and its process ended before it could remove the checkpoints."""
    return (folder / METRICS).is_file() and (folder / CHECKPOINTS).is_dir()


def config_of(folder: Path) -> Mapping[str, Any]:
    """The configuration of the run in a folder, however far it came; empty where there is no run.

    Raises:
        RunError: it is damaged.
    """
    return _read_json(folder / CONFIG) if (folder / CONFIG).is_file() else {}


def newest_unfinished(model: str) -> Path:
    """The folder of `runs/` in which a model of that name was trained last without being finished.

    Raises:
        RunNotFoundError: there is none.
    """
    folders = [path for path in RUNS.glob(f"{_stem(model)}-*") if path.is_dir() and _is_run(path)]
    unfinished = [path for path in folders if not (path / METRICS).is_file()]
    if not unfinished:
        raise RunNotFoundError(
            f"there is no interrupted run of the model {model} in '{RUNS}'; leave --resume away, or name it with --out"
        )
    return max(unfinished, key=lambda path: (path / CONFIG).stat().st_mtime_ns)


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a run folder for this process; the claim ends with it, however it ends.

    Raises:
        RunExistsError: another process holds it.
    """
    with locked_folder(folder) as mine:
        if not mine:
            raise RunExistsError(f"another training is running in '{folder}'; wait for it, or stop it")
        yield


def run_folder(path: Path | None, model: str) -> Path:
    """Make the folder of a run: `path`, or the next free `runs/MODEL-N`."""
    if path is None:
        return _next_free(model)
    path.mkdir(parents=True, exist_ok=True)
    return path


def start_run(folder: Path, config: Mapping[str, Any], description: DatasetInfo, vectorizer: Path) -> None:
    """Put configuration and vectorizer of a new run into its folder.

    What an unfinished run, or one that is to be replaced, left in the folder is removed, its metrics first.

    Args:
        folder: of the run.
        config: `model`, `options`, `versions`, `shards`, and `labels` where they are known.
        description: what the shards hold.
        vectorizer: the folder to copy.
    """
    (folder / METRICS).unlink(missing_ok=True)
    commit_json(folder / CONFIG, {"format": FORMAT, "version": VERSION, **config, "description": asdict(description)})
    for name in (MODEL, HISTORY, _UNSAVED):
        (folder / name).unlink(missing_ok=True)
    for name in (VECTORIZER, TENSORBOARD):
        if (folder / name).is_dir():
            shutil.rmtree(folder / name)
    remove_partials(folder)
    for source in sorted(vectorizer.rglob("*")):
        if source.is_file():
            copy = folder / VECTORIZER / source.relative_to(vectorizer)
            copy.parent.mkdir(parents=True, exist_ok=True)
            with open(source, "rb") as original, committed(copy) as file:
                shutil.copyfileobj(original, file)


def write_history(folder: Path, epochs: Sequence[Mapping[str, float]]) -> None:
    """Commit history.csv: a header and a line for each epoch, numbers as Python writes them."""
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(epochs)
    commit_bytes(folder / HISTORY, text.getvalue().encode())


def finish_run(folder: Path, model: keras.Model, metrics: Mapping[str, Any]) -> Run:
    """Commit the model, then the metrics; from then on the run is whole.

    Raises:
        DiskFullError: the disk has no room; the run stays unfinished.
    """
    partial = folder / _UNSAVED
    try:
        with full_disk_named(folder / MODEL, kept="the run stays unfinished"):
            model.save(partial)
            commit_file(partial, folder / MODEL)
    finally:
        partial.unlink(missing_ok=True)
    commit_json(folder / METRICS, {**metrics, "model_sha256": _sha256(folder / MODEL)})
    return load_run(folder)


def _stem(model: str) -> str:
    return Path(model).stem if model.endswith(".keras") else model.replace(":", "-").replace(os.sep, "-")


def _next_free(model: str) -> Path:
    """Make and return `runs/MODEL-N` with the lowest N that is free."""
    RUNS.mkdir(exist_ok=True)
    for number in itertools.count(1):
        path = RUNS / f"{_stem(model)}-{number}"
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise AssertionError("numbers do not end")


def _is_run(folder: Path) -> bool:
    """Whether the folder was made by `start_run`, however far it came."""
    if not (folder / CONFIG).is_file():
        return [path.name for path in folder.iterdir()] == [CONFIG + PARTIAL]
    try:
        return bool(_read_json(folder / CONFIG).get("format") == FORMAT)
    except RunError:
        return False


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunError(f"'{path}' cannot be read ({error}); train again with `python -m shardtrain fit`") from error
    if not isinstance(value, dict):
        raise RunError(f"'{path}' does not hold a JSON object; train again with `python -m shardtrain fit`")
    return value


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
