"""Check whether the training in a run folder can be resumed: the same job is, another one is refused and kept.

What decides a training's numbers (options, shards, model) must be equal; the first difference is reported in the error.
What may change them in the last bits (versions, threads, machine) is only reported.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from shardtrain.errors import RunExistsError, UsageError
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.options import KINDS
from shardtrain.options import as_json, defaults_of, options_of
from shardtrain.runtime.jobs import Job, difference_in_words
from shardtrain.runtime.progress import say
from shardtrain.training.checkpoint import Checkpoints, has_checkpoint
from shardtrain.training.options import FitOptions
from shardtrain.training.recipes import GUIDE
from shardtrain.training.run_folder import CHECKPOINTS, RunFolder
from shardtrain.training.state_schema import STATE
from shardtrain.version import __version__

# what an older record without an option means
BEFORE = {**defaults_of(FitOptions), **GUIDE, "engine": "keras", "recipe": "guide"}
NOT_PART_OF_IDENTITY = frozenset(name for name, each in options_of(FitOptions).items() if not each.identity)


def training_job(options: FitOptions, name: str, description: DatasetInfo) -> Job:
    """Return the job of training the model `name` on shards with this description."""
    record = {"model": name, "options": recorded_options(options, name), "description": as_json(asdict(description))}
    return Job(record=record, defaults=as_json(BEFORE), ignored=NOT_PART_OF_IDENTITY)


def as_begun(options: FitOptions, folder: RunFolder) -> FitOptions:
    """Return the options with the engine and the recipe of the interrupted training in a folder, where they are open.

    So a training that Keras began, because of callbacks or in an earlier version, is continued by Keras.
    """
    recorded = None if folder.finished else folder.config().get("options")
    if not isinstance(recorded, Mapping):
        return options
    begun = {
        name: recorded.get(name, BEFORE[name]) for name in ("engine", "recipe") if getattr(options, name) == "auto"
    }
    try:
        return replace(options, **begun)
    except UsageError:  # options that are refused for that engine: the difference is reported
        return options


def recorded_options(options: FitOptions, name: str) -> dict[str, Any]:
    """Return the options for config.json, without the sizes of other models."""
    first = {"engine": options.engine, "recipe": options.recipe}  # which decide others: the difference to be named
    values: dict[str, Any] = {**first, **vars(options), "model": name, "tensorboard": options.tensorboard or None}
    return {
        key: as_json(asdict(value) if key in KINDS else value)
        for key, value in values.items()
        if key not in KINDS or key == name
    }


def finished_run(folder: RunFolder, job: Job) -> bool:
    """Return whether the folder holds a finished run of this job; false where the run is interrupted.

    Raises:
        RunExistsError: the run is of another job.
        RunNotFoundError: there is no run.
    """
    if folder.empty:
        raise folder.work.missing(folder.work.nothing_to_resume)
    if not folder.finished:
        if started := folder.config():  # it may have been interrupted before its first checkpoint
            folder.check_job(job, started)
        return False
    record = folder.read()
    if changed := job.differs_from({**record.config, "description": as_json(asdict(record.description))}):
        raise RunExistsError(
            f"'{folder.path}' holds a finished run that was started differently: {changed}; choose another --out"
        )
    Checkpoints(folder.path / CHECKPOINTS).remove()  # left where the process was killed after it finished the run
    say(f"the run in '{folder.path}' is finished")
    return True


def refuse_another(folder: RunFolder, job: Job) -> None:
    """Refuse a folder in which another training was interrupted, before a model is made, which takes seconds.

    Its config.json may be damaged, so what the checkpoint records decides. What differs of the model is found later.

    Raises:
        RunExistsError: it holds another training, or one that runs.
        CheckpointError: all checkpoints are damaged.
    """
    if folder.finished or not has_checkpoint(folder.path / CHECKPOINTS):
        return
    started = folder.config()
    if started and job.differs_from(started):
        with folder.work.held():
            saved = Checkpoints(folder.path / CHECKPOINTS, STATE).newest()
            if saved is not None:
                folder.check_job(job, saved["about"]["job"])


def check_model(before: Mapping[str, Any], now: Mapping[str, Any], folder: RunFolder) -> None:
    """Refuse to resume with another model; report what may change the last bits.

    Raises:
        RunExistsError: the model differs.
    """
    if changed := difference_in_words(_without_homes(before["model"]), _without_homes(now["model"]), "the model's"):
        raise RunExistsError(
            f"'{folder.path}' holds an interrupted training of another model: {changed}; run that command again to "
            "resume it, pass --overwrite to discard it, or choose another --out"
        )
    one = {"workers": 1}  # that is not recorded by the fused engine, nor before several could train
    if changed := difference_in_words({**one, **before["environment"]}, {**one, **now["environment"]}):
        workers = {each["environment"].get("workers", 1) for each in (before, now)}
        besides = ", and dropout draws other numbers from here on" if len(workers) > 1 else ""
        say(f"{changed}: the result may differ in the last bits from that of an uninterrupted training{besides}")


def _without_homes(model: Any) -> Any:
    """Return a serialized model without the modules of this package's classes, which are found by registered names."""
    if isinstance(model, Mapping):
        registered = str(model.get("registered_name", "")).startswith("shardtrain>")
        return {key: _without_homes(value) for key, value in model.items() if not (registered and key == "module")}
    return [_without_homes(each) for each in model] if isinstance(model, list) else model


def versions() -> dict[str, str]:
    """Return the versions of the packages that every training runs on."""
    return {
        "shardtrain": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
    }
