"""Train a model in one or two stages: build and compile it, then run the loop over it once per stage.

Usually there is one stage. With pretrained word vectors there are two, as the guide trains them: the embedding is
frozen first, then all weights are trained with a lower learning rate and a new optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import keras

from shardtrain.errors import CheckpointError, ModelError, ShardtrainError, UsageError
from shardtrain.loader.memory import ReadingPlan, plan_reading
from shardtrain.loader.shards import Shards
from shardtrain.models.embeddings import read_vectors, vocabulary
from shardtrain.models.guide import compile_model, make_model, prepare
from shardtrain.models.options import OPTIMIZER_SCHEDULES, SCHEDULES
from shardtrain.models.schedules import learning_rate, schedule_callbacks
from shardtrain.models.user_models import SUFFIX, summarize_error
from shardtrain.runtime.progress import detail, say, short
from shardtrain.training import state
from shardtrain.training.checkpoint import Checkpoints
from shardtrain.training.devices import Replicas
from shardtrain.training.loop import Interrupts, Loop, Training, TrainingTime
from shardtrain.training.options import FitOptions
from shardtrain.training.resume import check_model, environment
from shardtrain.training.run_folder import RunFolder
from shardtrain.training.steps import Logs, Steps

HALF_PRECISION = "mixed_bfloat16"  # the range of float32, so that no loss has to be scaled
FINE_TUNING = 0.1  # of the learning rate, when pretrained vectors are trained as well: less of them is forgotten


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training gave.

    Attributes:
        history: the metrics of each epoch.
        clock: the time it took.
        best_epoch: the index of the epoch whose weights are kept, from 0.
        tested: the metrics of these weights on the test split; empty where it was not evaluated.
    """

    history: list[Logs]
    clock: TrainingTime
    best_epoch: int
    tested: Logs


@dataclass(frozen=True)
class StagedTraining:
    """The stages of a run, one after the other on the same model, and what all of them share.

    Attributes:
        shards: with a validation split.
        options: how to train.
        job: the job's record, as plain values.
        folder: of the run.
        checkpoints: where states are saved.
        interrupts: report when to stop.
        callbacks: of the user.
        prefetch: batches prefetched by the loader.
        replicas: devices that share the work.
        test: whether the kept weights are evaluated on the test split at the end, if there is one.
        started: when this process started on the run, by `time.perf_counter`.
    """

    shards: Shards
    options: FitOptions
    job: Mapping[str, Any]
    folder: RunFolder
    checkpoints: Checkpoints
    interrupts: Interrupts
    callbacks: tuple[keras.callbacks.Callback, ...]
    prefetch: int
    replicas: Replicas
    test: bool
    started: float

    @property
    def tests(self) -> bool:
        """Return whether the training ends with an evaluation on the test split."""
        return self.test and "test" in self.shards.splits

    def train(self, model: keras.Model, steps: Steps, saved: Any) -> Trained:
        """Train from the first stage, with its compiled `steps`, or resume from a saved state.

        No row of the test split is read before the last stage has ended and the weights to keep are restored.

        Raises:
            DivergedError: the loss is no longer finite.
            Interrupted: a stop was requested; the error holds the state to resume from.
        """
        options = self.options
        history: list[Logs] = []
        clock, stopper = TrainingTime(), KeepBest(options.patience)
        first = saved["about"]["stage"] if saved else 0
        if first >= num_stages(options):
            raise CheckpointError(
                f"the checkpoint in '{self.folder.path}' is of stage {first + 1}, the training has "
                f"{num_stages(options)}; start again with --overwrite"
            )
        for stage in range(first, num_stages(options)):
            if stage:
                steps = compile_stage(self.shards, options, model, self.replicas, stage=stage)
                stopper = KeepBest(options.patience, None if saved else stopper)
                for callback in self.callbacks:
                    if isinstance(callback, keras.callbacks.CSVLogger):
                        callback.append = True  # to its log of the stage before
            began = saved["about"]["began"] if saved else len(history)
            about = {"job": self.job, "model": state.describe_model(model), "stage": stage, "began": began}
            about["environment"] = environment(self.replicas.devices)
            if saved:
                check_model(saved["about"], about, self.folder)
                say(f"resuming the interrupted training in '{self.folder.path}'")
            callbacks = [stopper, *schedule_callbacks(options.schedule, options.patience), *self.callbacks]
            training = Training(steps, self._loop(began + options.epochs, about), callbacks, history, clock)
            if not stage:
                detail(str(reading_plan(self.shards, options, training.steps_per_call(self.shards.train))))
            for _ in training.epochs(self.shards.train, self.shards.validation, saved):
                self.folder.write_history(training.history)
                say(_epoch_line(training))
            history, clock, saved = training.history, training.clock, None
        tested = training.test(self.shards.test) if self.tests else {}
        return Trained(history=history, clock=clock, best_epoch=stopper.best_epoch, tested=tested)

    def _loop(self, epochs: int, about: Mapping[str, Any]) -> Loop:
        """Return the loop's parameters for a stage; `epochs` counts those of all stages so far."""
        return Loop(
            epochs=epochs,
            batch_size=self.options.batch_size,
            seed=self.options.seed,
            shuffle=self.options.shuffle,
            prefetch=self.prefetch,
            every=self.options.checkpoint_every,
            save_at_end=self.tests,
            save=self.checkpoints.save,
            about=about,
            interrupts=self.interrupts,
            started=self.started,
        )


def reading_plan(shards: Shards, options: FitOptions, batches: int) -> ReadingPlan:
    """Plan the memory for reading, with `batches` batches per call of a step.

    Raises:
        UsageError: it exceeds the memory limit.
    """
    limit = options.memory_limit
    return plan_reading(shards.train, options.batch_size, options.shuffle, batches=batches, limit=limit)


class KeepBest(keras.callbacks.EarlyStopping):
    """Stop early and restore the weights of the best epoch, also where that belongs to an earlier stage."""

    def __init__(self, patience: int, before: KeepBest | None = None) -> None:
        super().__init__("val_loss", patience=patience, restore_best_weights=True)
        self._before = before

    def on_train_begin(self, logs: Any = None) -> None:
        """Start from the best epoch of the stage before."""
        super().on_train_begin(logs)
        if self._before is not None:
            for name in ("best", "best_epoch", "best_weights"):
                setattr(self, name, getattr(self._before, name))


def num_stages(options: FitOptions) -> int:
    """Return the number of stages: two with pretrained word vectors, whose embedding is frozen in the first."""
    return 1 if options.embeddings is None else 2


def build_model(shards: Shards, options: FitOptions, name: str) -> keras.Model:
    """Build or load the model that the options name; pretrained vectors become the weights of its embedding.

    Raises:
        UsageError: vectors for a model other than sepcnn, or mixed precision for a model from a file.
    """
    description, sepcnn, vectors = shards.description, options.sepcnn, None
    if options.mixed_precision and name.endswith(SUFFIX):
        raise UsageError(f"--mixed-precision cannot change the layers of '{name}', which keep theirs; omit it")
    if options.embeddings is not None:
        if name != "sepcnn":
            raise UsageError(f"--embeddings is for the model sepcnn, this is {name}; omit it")
        words = vocabulary(shards.vectorizer_path, description.vocabulary_size)
        vectors = read_vectors(options.embeddings, words, description.vocabulary_size)
        sepcnn = replace(sepcnn, embedding_dim=vectors.table.shape[1])
        say(
            f"'{options.embeddings}' has vectors for {vectors.found:,} of the {len(words):,} words, "
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


def compile_stage(shards: Shards, options: FitOptions, model: keras.Model, replicas: Replicas, *, stage: int) -> Steps:
    """Compile the model for a stage, with a new optimizer per stage, and return its steps.

    Raises:
        UsageError: the model comes compiled, and an option would change its optimizer.
    """
    if model.compiled and not stage and (flag := _ineffective_option(model.optimizer, options)):
        raise UsageError(
            f"the model comes compiled with an optimizer, which {flag} cannot change; set it where the model is "
            "compiled, or pass the model uncompiled"
        )
    first = options.learning_rate * (FINE_TUNING if stage else 1)
    steps = options.epochs * shards.train.steps_per_epoch(options.batch_size)
    rate = learning_rate(options.schedule, first, steps)
    if num_stages(options) > 1:
        model.get_layer("embedding").trainable = stage > 0
    with replicas.scope():
        if stage:
            compile_model(model, model.output_shape[-1], rate, options.clip_norm)
        adapter = prepare(model, shards.description, learning_rate=rate, clip_norm=options.clip_norm)
    return Steps(model, adapter, _class_weights(shards) if options.class_weight == "balanced" else (), replicas)


def trace_step(steps: Steps) -> None:
    """Trace the training step.

    Raises:
        ModelError: the model cannot be trained.
    """
    try:
        _ = steps.train
    except ShardtrainError:
        raise
    except Exception as error:  # a user's loss, metric or layer may raise anything, and Keras raises many types itself
        raise ModelError(f"a training step of the model fails: {summarize_error(error)}") from error


def _ineffective_option(optimizer: keras.optimizers.Optimizer, options: FitOptions) -> str:
    """Return the flag of an option that would change the optimizer of a compiled model; empty where none is given."""
    if options.clip_norm is not None:
        return "--clip-norm"
    if options.learning_rate != FitOptions.learning_rate:
        return "--learning-rate"
    settable = not isinstance(optimizer.get_config().get("learning_rate"), dict)  # the model's own schedule is a dict
    return "--schedule" if options.schedule in (OPTIMIZER_SCHEDULES if settable else SCHEDULES[1:]) else ""


def _class_weights(shards: Shards) -> list[float]:
    """Return weights that balance the classes in a training epoch; their mean over the examples is 1."""
    counts = shards.manifest.splits["train"].class_counts
    num_present = sum(count > 0 for count in counts)
    return [sum(counts) / (num_present * count) if count else 0.0 for count in counts]


def _epoch_line(training: Training) -> str:
    """Return the line that reports the latest epoch."""
    *earlier, epoch = training.history
    shown = ", ".join(f"{name} {short(value)}" for name, value in epoch.items() if name != "epoch")
    # a resumed epoch may have had no step left to time
    speed = f", {training.rate:,.0f} examples/s, input wait {training.wait:.1%}" if training.rate else ""
    best = ", best so far" if all(epoch["val_loss"] < before["val_loss"] for before in earlier) else ""
    return f"epoch {epoch['epoch']}: {shown}{speed}{best}"
