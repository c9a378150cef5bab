"""A training in stages: the model is made and compiled, and the loop runs over it, once or twice.

Usually there is one stage. With word vectors from elsewhere there are two, as the guide trains them: the embedding is
frozen first, then everything is trained with a smaller rate and an optimizer of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from shardtrain.errors import ModelError, ShardtrainError, UsageError
from shardtrain.loader.memory import ReadingPlan, plan_reading
from shardtrain.loader.shards import Shards
from shardtrain.models.embeddings import read_vectors, vocabulary
from shardtrain.models.guide import compile_model, make_model, prepare
from shardtrain.models.options import OPTIMIZER_SCHEDULES, SCHEDULES
from shardtrain.models.schedules import learning_rate, schedule_callbacks
from shardtrain.models.user_models import SUFFIX, summarize_error
from shardtrain.runtime.progress import say
from shardtrain.training import state
from shardtrain.training.checkpoint import Checkpoints
from shardtrain.training.devices import Replicas
from shardtrain.training.loop import Interrupts, Loop, Training, TrainingTime, short
from shardtrain.training.options import FitOptions
from shardtrain.training.resume import check_model, environment
from shardtrain.training.run_folder import RunFolder
from shardtrain.training.steps import Logs, Steps

HALF_PRECISION = "mixed_bfloat16"  # the range of float32, so that no loss has to be scaled
FINE_TUNING = 0.1  # of the learning rate, when vectors of others are trained as well: less of them is forgotten


@dataclass(frozen=True)
class StagedTraining:
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
    folder: RunFolder
    checkpoints: Checkpoints
    interrupts: Interrupts
    callbacks: tuple[keras.callbacks.Callback, ...]
    ahead: int
    replicas: Replicas
    started: float

    def train(self, model: keras.Model, steps: Steps, saved: Any) -> tuple[list[Logs], TrainingTime, int]:
        """Train from the first stage, whose steps are given, or from a saved state on.

        Returns:
            The metrics of each epoch, the time it took, and the number of the best epoch.

        Raises:
            DivergedError: the loss is no longer finite.
            Interrupted: it is to be left; what it takes to go on is in the error.
        """
        options = self.options
        history: list[Logs] = []
        clock, stopper = TrainingTime(), KeepBest(options.patience)
        for stage in range(saved["about"]["stage"] if saved else 0, stages(options)):
            if stage:
                steps = compiled(self.shards, options, model, self.replicas, stage=stage)
                stopper = KeepBest(options.patience, None if saved else stopper)
                for callback in self.callbacks:
                    if isinstance(callback, keras.callbacks.CSVLogger):
                        callback.append = True  # to what it logged of the stage before
            began = saved["about"]["began"] if saved else len(history)
            about = {"job": self.job, "model": state.describe_model(model), "stage": stage, "began": began}
            about["environment"] = environment(self.replicas.devices)
            if saved:
                check_model(saved["about"], about, self.folder)
                say(f"resuming the interrupted training in '{self.folder.path}'")
            changing = schedule_callbacks(options.schedule, options.patience)
            watching = [stopper, *changing, *self.callbacks]
            training = Training(steps, self._loop(began + options.epochs, about), watching, history, clock)
            if not stage:
                say(str(planned_reading(self.shards, options, training.steps_a_call(self.shards.train))))
            for epoch in training.epochs(self.shards.train, self.shards.validation, saved):
                self.folder.write_history(training.history)
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


def planned_reading(shards: Shards, options: FitOptions, batches: int) -> ReadingPlan:
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


def made(shards: Shards, options: FitOptions, name: str) -> keras.Model:
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


def compiled(shards: Shards, options: FitOptions, model: keras.Model, replicas: Replicas, *, stage: int) -> Steps:
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


def trace(steps: Steps) -> None:
    """Make the traced training step.

    Raises:
        ModelError: the model cannot be trained.
    """
    try:
        _ = steps.train
    except ShardtrainError:
        raise
    except Exception as error:  # a user's loss, metric or layer may raise anything, and Keras many kinds of its own
        raise ModelError(f"a training step of the model fails: {summarize_error(error)}") from error


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


def _summary(epoch: Logs, training: Training) -> str:
    """The line that tells of a finished epoch."""
    shown = ", ".join(f"{name} {short(value)}" for name, value in epoch.items() if name != "epoch")
    speed = f", {training.rate:,.0f} examples/s, input wait {training.wait:.1%}"
    return f"epoch {epoch['epoch']}: {shown}{speed if training.rate else ''}"  # all its steps may lie before a resume
