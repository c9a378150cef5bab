"""From shards to a finished run: the model is made, trained by the loop, and saved; an interrupted run is gone on with.

The best epoch by validation loss is kept, not the last one: the weights that are saved are those the reported
accuracy belongs to. It costs one copy of the weights.

A run folder that holds checkpoints of the same training is taken up where the newest one was written.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras

from shardtrain.errors import DivergedError, UsageError
from shardtrain.loader.shards import Shards
from shardtrain.models.guide import KINDS, MlpOptions, SepcnnOptions, model_name
from shardtrain.runtime.progress import say
from shardtrain.training.checkpoint import Checkpoints
from shardtrain.training.devices import Replicas, devices_for
from shardtrain.training.loop import Interrupted, Interrupts, TrainingTime
from shardtrain.training.options import FitOptions
from shardtrain.training.resume import as_json, check_job, finished_run, versions
from shardtrain.training.run_folder import (
    CHECKPOINTS,
    Run,
    check_free,
    claimed,
    config_of,
    cut_short,
    finish_run,
    newest_unfinished,
    run_folder,
    start_run,
    write_history,
)
from shardtrain.training.staged import StagedTraining, compiled, made, planned_reading, trace
from shardtrain.training.steps import STEPS_A_CALL, Logs
from shardtrain.training.tensorboard import check_board, make_board


def fit(
    shards: Shards,
    options: FitOptions,
    *,
    out: Path | None = None,
    overwrite: bool = False,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Train a model on the shards' training split and keep the epoch with the lowest validation loss.

    If `out` holds an interrupted run with the same options, shards and model, it is gone on with, and the result is
    what it would have been without the interruption. Ctrl-C and SIGTERM finish the step under way and save first.

    Args:
        shards: with a validation split.
        options: how to train.
        out: the run folder; None for the next free `runs/MODEL-N`, or with `resume` for the newest unfinished one.
        overwrite: replace a finished or interrupted run in `out`.
        resume: an interrupted run is expected; one that is finished already is returned as it is. So is a run in `out`
            whose process ended between finishing it and removing its checkpoints, also without `resume`.
        callbacks: called as `keras.Model.fit` would, after early stopping.

    Returns:
        The finished run.

    Raises:
        UsageError: both `overwrite` and `resume`, or options that do not fit the model or the machine.
        ShardsError: there is no validation split, or a shard is damaged.
        ModelError: the model cannot be made or does not fit the shards.
        RunExistsError: `out` must not be written to, or holds an interrupted run that was another one; or the folder
            for TensorBoard is another training's.
        MissingExtraError: tensorboard is asked for and not installed.
        RunNotFoundError: `resume`, and there is nothing to go on with.
        CheckpointError: no checkpoint of the run is whole, or they are of another model or other callbacks.
        DivergedError: the loss is no longer finite; the run stays unfinished.
        DiskFullError: the disk has no room; the run stays unfinished.
        KeyboardInterrupt: it was interrupted, and saved.
    """
    started = time.perf_counter()
    if overwrite and resume:
        raise UsageError("--resume goes on with a run and --overwrite gives it up; leave one of them away")
    description = shards.description
    _ = shards.validation  # an error where there is none
    name = model_name(options.model, description)
    job = as_json({"model": name, "options": as_config(options, name), "description": asdict(description)})
    if resume:
        out = newest_unfinished(name) if out is None else out
    if out is not None:
        check_free(out, overwrite=overwrite or resume)
        if (resume or (cut_short(out) and not overwrite)) and (done := finished_run(out, job)) is not None:
            return done
    check_board(options, out)
    replicas = Replicas(devices_for(options.devices))
    with replicas.scope():
        model = made(shards, options, name)
    steps = compiled(shards, options, model, replicas, stage=0)
    ahead = planned_reading(shards, options, STEPS_A_CALL).prefetch
    trace(steps)  # before a folder is made: a model that cannot be trained leaves nothing
    folder = run_folder(out, name)
    with claimed(folder), Checkpoints(folder / CHECKPOINTS) as checkpoints, Interrupts() as interrupts:
        saved = None if overwrite else checkpoints.newest()
        if saved is None:
            if not overwrite and config_of(folder):
                say(f"the interrupted training in '{folder}' had saved nothing yet; it begins again")
            checkpoints.remove()
            labels = shards.manifest.build.get("labels")
            config = {
                **job,
                "versions": versions(),
                "shards": str(shards.path.resolve()),
                **({"labels": labels} if labels else {}),
            }
            start_run(folder, config, description, shards.vectorizer_path)
        else:
            check_job(saved["about"]["job"], job, folder)
        watching = (*callbacks, *make_board(options, folder, new=saved is None))
        stages_of = StagedTraining(
            shards, options, job, folder, checkpoints, interrupts, watching, ahead, replicas, started
        )
        try:
            history, clock, best_epoch = stages_of.train(model, steps, saved)
        except DivergedError:
            checkpoints.remove()
            raise
        except Interrupted as left:
            _keep(checkpoints, left, folder, named=out is not None, overwrite=overwrite)
            raise KeyboardInterrupt from None
        write_history(folder, history)
        metrics = _metrics(history, best_epoch, clock)
        seconds = clock.before + time.perf_counter() - started
        metrics |= {"train_examples": shards.train.num_examples, "fit_seconds": seconds}
        done = finish_run(folder, model, metrics)
        checkpoints.remove()
    return done


def _keep(checkpoints: Checkpoints, left: Interrupted, folder: Path, *, named: bool, overwrite: bool) -> None:
    """Save where the training was left, and say how to go on with the command, that names the folder or not."""
    checkpoints.save(left.state)
    try:
        checkpoints.finish()
    except Exception:  # what went wrong was told when it did
        say(f"interrupted after {left.position}; an older checkpoint may be in '{folder}'")
        return
    how = "the same command" + ("" if named else " with --resume") + (" without --overwrite" if overwrite else "")
    say(f"interrupted after {left.position}, and saved in '{folder}'; {how} goes on from there")


def _metrics(history: Sequence[Logs], best_epoch: int, clock: TrainingTime) -> dict[str, Any]:
    """What metrics.json tells of a finished training; `best_epoch` counts from 0."""
    return {
        "val_accuracy": history[best_epoch]["val_accuracy"],
        "val_loss": history[best_epoch]["val_loss"],
        "epochs": len(history),
        "best_epoch": best_epoch + 1,
        "examples_per_second": clock.examples / clock.seconds,
        "input_wait_fraction": clock.waited / clock.seconds,
        "peak_memory_bytes": peak_memory_bytes(),
    }


def peak_memory_bytes() -> int:
    """The largest resident memory of this process so far, mapped pages included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def as_config(options: FitOptions, name: str) -> dict[str, Any]:
    """The options as config.json keeps them: without the sizes of models that were not trained."""
    values: dict[str, Any] = {**vars(options), "model": name, "checkpoint_every": str(options.checkpoint_every)}
    values["embeddings"] = None if options.embeddings is None else str(options.embeddings)
    values["tensorboard"] = (
        str(options.tensorboard) if isinstance(options.tensorboard, Path) else options.tensorboard or None
    )
    return {
        key: asdict(value) if isinstance(value, MlpOptions | SepcnnOptions) else value
        for key, value in values.items()
        if key not in KINDS or key == name
    }
