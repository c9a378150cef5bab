"""From shards to a finished run: the model is made, trained by the loop, and saved; an interrupted run is gone on with.

The best epoch by validation loss is kept, not the last one: the weights that are saved are those the reported
accuracy belongs to. It costs one copy of the weights.

A run folder that holds checkpoints of the same training is taken up where the newest one was written.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras

from shardtrain import state
from shardtrain.board import check_board, make_board
from shardtrain.checkpoint import Checkpoints
from shardtrain.custom import SUFFIX, said
from shardtrain.embeddings import read_vectors, vocabulary
from shardtrain.errors import DivergedError, ModelError, ShardtrainError, UsageError
from shardtrain.fit_options import FitOptions
from shardtrain.loop import Clock, Interrupted, Interrupts, Loop, Training, short
from shardtrain.models import (
    KINDS,
    MlpOptions,
    SepcnnOptions,
    compile_model,
    make_model,
    model_name,
    prepare,
)
from shardtrain.progress import say
from shardtrain.reading import ReadingPlan, plan_reading
from shardtrain.replicas import Replicas, devices_for
from shardtrain.resuming import as_json, check_job, check_model, environment, finished_run, versions
from shardtrain.run import (
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
from shardtrain.schedules import OPTIMIZER_SCHEDULES, SCHEDULES, learning_rate, schedule_callbacks
from shardtrain.shards.read import Shards
from shardtrain.steps import STEPS_A_CALL, Logs, Steps

HALF_PRECISION = "mixed_bfloat16"  # the range of float32, so that no loss has to be scaled
FINE_TUNING = 0.1  # of the learning rate, when vectors of others are trained as well: less of them is forgotten


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
        model = _made(shards, options, name)
    steps = _compiled(shards, options, model, replicas, stage=0)
    ahead = _reading(shards, options, STEPS_A_CALL).ahead
    _trace(steps)  # before a folder is made: a model that cannot be trained leaves nothing
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
        stages_of = _Stages(shards, options, job, folder, checkpoints, interrupts, watching, ahead, replicas, started)
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


@dataclass(frozen=True)
class _Stages:
    """The trainings of a run, one after the other on the same model, and what all of them share.

    Attributes:
        shards: with a validation split.
        options: how to train.
        job: what the run is, as plain values.
        folder: of the run.
        checkpoints: where states are saved.
        interrupts: tell when to leave.
        callbacks: of the user.
        ahead: batches that are made ahead.
        replicas: devices that share the work.
        started: when this process began with the run, by `time.perf_counter`.
    """

    shards: Shards
    options: FitOptions
    job: Mapping[str, Any]
    folder: Path
    checkpoints: Checkpoints
    interrupts: Interrupts
    callbacks: tuple[keras.callbacks.Callback, ...]
    ahead: int
    replicas: Replicas
    started: float

    def train(self, model: keras.Model, steps: Steps, saved: Any) -> tuple[list[Logs], Clock, int]:
        """Train from the first stage, whose steps are given, or from a saved state on.

        Returns:
            The metrics of each epoch, the time it took, and the number of the best epoch.

        Raises:
            DivergedError: the loss is no longer finite.
            Interrupted: it is to be left; what it takes to go on is in the error.
        """
        options = self.options
        history: list[Logs] = []
        clock, stopper = Clock(), KeepBest(options.patience)
        for stage in range(saved["about"]["stage"] if saved else 0, stages(options)):
            if stage:
                steps = _compiled(self.shards, options, model, self.replicas, stage=stage)
                stopper = KeepBest(options.patience, None if saved else stopper)
                for callback in self.callbacks:
                    if isinstance(callback, keras.callbacks.CSVLogger):
                        callback.append = True  # to what it logged of the stage before
            began = saved["about"]["began"] if saved else len(history)
            about = {"job": self.job, "model": state.of_model(model), "stage": stage, "began": began}
            about["environment"] = environment(self.replicas.devices)
            if saved:
                check_model(saved["about"], about, self.folder)
                say(f"going on with the interrupted training in '{self.folder}'")
            changing = schedule_callbacks(options.schedule, options.patience)
            watching = [stopper, *changing, *self.callbacks]
            training = Training(steps, self._loop(began + options.epochs, about), watching, history, clock)
            if not stage:
                say(str(_reading(self.shards, options, training.steps_a_call(self.shards.train))))
            for epoch in training.epochs(self.shards.train, self.shards.validation, saved):
                write_history(self.folder, training.history)
                say(_summary(epoch, training))
            history, clock, saved = training.history, training.clock, None
        return history, clock, stopper.best_epoch

    def _loop(self, epochs: int, about: Mapping[str, Any]) -> Loop:
        return Loop(
            epochs=epochs,
            batch_size=self.options.batch_size,
            seed=self.options.seed,
            shuffle=self.options.shuffle,
            prefetch=self.ahead,
            every=self.options.checkpoint_every,
            save=self.checkpoints.save,
            about=about,
            interrupts=self.interrupts,
            started=self.started,
        )


def _reading(shards: Shards, options: FitOptions, batches: int) -> ReadingPlan:
    """What reading will hold.

    Raises:
        UsageError: more than the memory limit.
    """
    limit = options.memory_limit
    return plan_reading(shards.train, options.batch_size, options.shuffle, batches=batches, limit=limit)


class KeepBest(keras.callbacks.EarlyStopping):
    """Early stopping that keeps the best epoch, also if that was one of an earlier stage."""

    def __init__(self, patience: int, before: KeepBest | None = None) -> None:
        super().__init__("val_loss", patience=patience, restore_best_weights=True)
        self._before = before

    def on_train_begin(self, logs: Any = None) -> None:
        """Begin with what the stage before reached."""
        super().on_train_begin(logs)
        if self._before is not None:
            for name in ("best", "best_epoch", "best_weights"):
                setattr(self, name, getattr(self._before, name))


def stages(options: FitOptions) -> int:
    """Trainings that follow each other: with vectors of others the embedding is frozen first, then trained as well."""
    return 1 if options.embeddings is None else 2


def _made(shards: Shards, options: FitOptions, name: str) -> keras.Model:
    """The model that is asked for, its embedding filled and frozen if there are vectors for it.

    Raises:
        UsageError: vectors for a model that has no embedding of ours, or half precision for one from a file.
    """
    description, sepcnn, vectors = shards.description, options.sepcnn, None
    if options.mixed_precision and name.endswith(SUFFIX):
        raise UsageError(f"--mixed-precision cannot change '{name}', whose layers keep their own; leave it away")
    if options.embeddings is not None:
        if name != "sepcnn":
            raise UsageError(f"--embeddings is for the model sepcnn, this is {name}; leave it away")
        words = vocabulary(shards.vectorizer_path)
        vectors = read_vectors(options.embeddings, words, description.vocabulary_size)
        sepcnn = replace(sepcnn, embedding_dim=vectors.table.shape[1])
        say(
            f"'{options.embeddings}' has {vectors.found:,} of the {len(words):,} words, "
            f"{sepcnn.embedding_dim} numbers each"
        )
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(HALF_PRECISION if options.mixed_precision else policy)
    try:
        model = make_model(options.model, description, options.mlp, sepcnn, seed=options.seed)
    finally:
        keras.config.set_dtype_policy(policy)
    if vectors is not None:
        model.get_layer("embedding").set_weights([vectors.table])
    return model


def _compiled(shards: Shards, options: FitOptions, model: keras.Model, replicas: Replicas, *, stage: int) -> Steps:
    """The steps of a stage, with an optimizer of its own.

    Raises:
        UsageError: the model comes compiled, and options say something else of its optimizer.
    """
    if model.compiled and not stage and (flag := _of_no_effect(model.optimizer, options)):
        raise UsageError(
            f"the model comes compiled with an optimizer of its own, which {flag} cannot change; set it where the "
            "model is compiled, or leave the model uncompiled"
        )
    first = options.learning_rate * (FINE_TUNING if stage else 1)
    steps = options.epochs * shards.train.steps_per_epoch(options.batch_size)
    rate = learning_rate(options.schedule, first, steps)
    if stages(options) > 1:
        model.get_layer("embedding").trainable = stage > 0
    with replicas.scope():
        if stage:
            compile_model(model, model.output_shape[-1], rate, options.clip_norm)
        feed = prepare(model, shards.description, learning_rate=rate, clip_norm=options.clip_norm)
    return Steps(model, feed, _class_weights(shards) if options.class_weight == "balanced" else (), replicas)


def _trace(steps: Steps) -> None:
    """Make the traced training step.

    Raises:
        ModelError: the model cannot be trained.
    """
    try:
        _ = steps.train
    except ShardtrainError:
        raise
    except Exception as error:  # a user's loss, metric or layer may raise anything, and Keras many kinds of its own
        raise ModelError(f"a training step of the model fails: {said(error)}") from error


def _of_no_effect(optimizer: keras.optimizers.Optimizer, options: FitOptions) -> str:
    """The option that should change the optimizer of a compiled model and cannot; empty if there is none."""
    if options.clip_norm is not None:
        return "--clip-norm"
    if options.learning_rate != FitOptions.learning_rate:
        return "--learning-rate"
    settable = not isinstance(optimizer.get_config().get("learning_rate"), dict)  # a schedule of its own is a dict
    return "--schedule" if options.schedule in (OPTIMIZER_SCHEDULES if settable else SCHEDULES[1:]) else ""


def _class_weights(shards: Shards) -> list[float]:
    """Weights with which all classes count the same in a training epoch; their mean over the examples is 1."""
    counts = shards.manifest.splits["train"].class_counts
    there = sum(count > 0 for count in counts)
    return [sum(counts) / (there * count) if count else 0.0 for count in counts]


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


def _metrics(history: Sequence[Logs], best_epoch: int, clock: Clock) -> dict[str, Any]:
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


def _summary(epoch: Logs, training: Training) -> str:
    """The line that tells of a finished epoch."""
    shown = ", ".join(f"{name} {short(value)}" for name, value in epoch.items() if name != "epoch")
    speed = f", {training.rate:,.0f} examples/s, input wait {training.wait:.1%}"
    return f"epoch {epoch['epoch']}: {shown}{speed if training.rate else ''}"  # all its steps may lie before a resume
