"""Train a model in one or two stages: build and compile it, then run the loop over it once per stage.

Usually there is one stage. With pretrained word vectors there are two, as the guide trains them: the embedding is
frozen first, then all weights are trained with a lower learning rate and a new optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras

from shardtrain.errors import CheckpointError, ModelError, ShardtrainError, UsageError
from shardtrain.loader.shards import Shards
from shardtrain.metrics.names import HIGHER_IS_BETTER
from shardtrain.models.embeddings import read_vectors, vocabulary
from shardtrain.models.guide import compile_model, make_model, prepare
from shardtrain.models.options import OPTIMIZER_SCHEDULES, SCHEDULES
from shardtrain.models.outputs import meaning_of
from shardtrain.models.schedules import learning_rate, schedule_callbacks
from shardtrain.models.user_models import summarize_error
from shardtrain.runtime.progress import detail, say
from shardtrain.training import state
from shardtrain.training.distribution import worker_state
from shardtrain.training.distribution.replicas import Replicas, devices_for
from shardtrain.training.distribution.team import Team
from shardtrain.training.engine import Logs
from shardtrain.training.environment import environment, keras_versions
from shardtrain.training.keras_engine import KerasEngine
from shardtrain.training.loop import TrainingTime
from shardtrain.training.recipes import GUIDE, Chosen
from shardtrain.training.session import Session, Trained, class_weights, reading_plan
from shardtrain.training.steps import STEPS_PER_CALL, Steps
from shardtrain.training.tensorboard import EpochBoard, make_board

HALF_PRECISION = "mixed_bfloat16"  # the range of float32, so that no loss has to be scaled
_WRITING = (
    keras.callbacks.BackupAndRestore,
    keras.callbacks.CSVLogger,
    keras.callbacks.ModelCheckpoint,
    keras.callbacks.TensorBoard,
)
FINE_TUNING = 0.1  # of the learning rate, when pretrained vectors are trained as well: less of them is forgotten


class KerasTraining:
    """The stages of a run, one after the other on the same model of Keras; a `session.Preparation`.

    Args:
        shards: with a validation split.
        options: how to train.
        name: of the model.
        callbacks: of the user.
        team: the workers, which have joined.

    Attributes:
        meaning: of the model's outputs.

    Raises:
        UsageError: options that do not fit the model or the machine.
        ModelError: the model cannot be built or trained, or does not fit the shards.
    """

    def __init__(
        self, shards: Shards, options: Chosen, name: str, callbacks: Sequence[keras.callbacks.Callback], team: Team
    ) -> None:
        _check_callbacks(callbacks, team)
        self._callbacks = tuple(callbacks)
        self._replicas = Replicas(devices_for(options.devices) if team.size == 1 else (), team)
        with self._replicas.scope():
            self._model = build_model(shards, options, name)
        self._steps = compile_stage(shards, options, self._model, self._replicas, stage=0)
        reading_plan(shards, options, STEPS_PER_CALL)  # an error where the memory limit is too low
        trace_step(self._steps)
        self.meaning = meaning_of(self._model, self._steps.adapter, shards.description)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that training runs on."""
        return keras_versions()

    @property
    def batches_per_call(self) -> int:
        """The most batches per call of a step."""
        return STEPS_PER_CALL

    def write(self, path: Path) -> None:
        """Write the trained model; libhdf5's errors reach Keras as RuntimeError."""
        self._model.save(path)

    def train(self, session: Session, saved: dict[str, Any] | None) -> Trained:
        """Train from the first stage, or resume from a saved state.

        No row of the test split is read before the last stage has ended and the weights to keep are restored.

        Raises:
            DivergedError: the loss is no longer finite.
            Interrupted: a stop was requested; the error holds the state to resume from.
        """
        options, steps, is_chief = session.options, self._steps, session.team.is_chief
        board = make_board(options, session.folder, new=saved is None) if is_chief else ()
        if saved is None:
            worker_state.diverge(self._model, self._replicas)
        elif not is_chief:
            saved["callbacks"] = [each for each in saved["callbacks"] if each["class"] != EpochBoard.__qualname__]
        history: list[Logs] = []
        clock, stopper = TrainingTime(), KeepBest(options.patience, options.monitor)
        first = saved["about"]["stage"] if saved else 0
        if first >= num_stages(options):
            raise CheckpointError(
                f"the checkpoint in '{session.folder.path}' is of stage {first + 1}, the training has "
                f"{num_stages(options)}; start again with --overwrite"
            )
        for stage in range(first, num_stages(options)):
            if stage:
                steps = compile_stage(session.shards, options, self._model, self._replicas, stage=stage)
                stopper = KeepBest(options.patience, options.monitor, None if saved else stopper)
                for callback in self._callbacks:
                    if isinstance(callback, keras.callbacks.CSVLogger):
                        callback.append = True  # to its log of the stage before
            about = {
                "model": state.describe_model(self._model),
                "stage": stage,
                "began": saved["about"]["began"] if saved else len(history),
                "environment": environment(self._replicas),
            }
            schedule = schedule_callbacks(options.schedule, options.patience)
            engine = KerasEngine(steps, [stopper, *schedule, *self._callbacks, *board], self.meaning)
            if not stage:
                batches = engine.steps_per_call(session.shards.train, options.batch_size)
                detail(str(reading_plan(session.shards, options, batches)))
            training = session.trained(engine, about, history, clock, saved)
            history, clock, saved = training.history, training.clock, None
        return session.finished(training, stopper.best_epoch)


def _check_callbacks(callbacks: Any, team: Team) -> None:
    """Refuse, before a folder is made, what Keras would fail on in the first step, and what each worker would write."""
    given = callbacks if isinstance(callbacks, Sequence) else None
    if given is None or not all(isinstance(each, keras.callbacks.Callback) for each in given):
        raise UsageError(f"callbacks is {callbacks!r}; expected a list of keras.callbacks.Callback")
    if team.size > 1 and (writing := [each for each in given if isinstance(each, _WRITING)]):
        raise UsageError(
            f"the callback {type(writing[0]).__name__} writes files, which each of {team.size} workers would do; omit "
            "it: the run folder has history.csv and checkpoints, and --tensorboard writes events"
        )


class KeepBest(keras.callbacks.EarlyStopping):
    """Stop early and restore the weights of the best epoch, also where that belongs to an earlier stage."""

    def __init__(self, patience: int, monitor: str, before: KeepBest | None = None) -> None:
        mode = "max" if HIGHER_IS_BETTER[monitor] else "min"
        super().__init__(f"val_{monitor}", mode=mode, patience=patience, restore_best_weights=True)
        self._before = before

    def on_train_begin(self, logs: Any = None) -> None:
        """Start from the best epoch of the stage before."""
        super().on_train_begin(logs)
        if self._before is not None:
            for name in ("best", "best_epoch", "best_weights"):
                setattr(self, name, getattr(self._before, name))


def num_stages(options: Chosen) -> int:
    """Return the number of stages: two with pretrained word vectors, whose embedding is frozen in the first."""
    return 1 if options.embeddings is None else 2


def build_model(shards: Shards, options: Chosen, name: str) -> keras.Model:
    """Build or load the model that the options name; pretrained vectors become the weights of its embedding.

    Raises:
        ModelError: the model cannot be built, or the file of vectors cannot be read.
    """
    description, sepcnn, vectors = shards.description, options.sepcnn, None
    if options.embeddings is not None:
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


def compile_stage(shards: Shards, options: Chosen, model: keras.Model, replicas: Replicas, *, stage: int) -> Steps:
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
            compile_model(model, model.output_shape[-1], rate, options.clip_norm, options.optimizer)
        adapter = prepare(
            model,
            shards.description,
            learning_rate=rate,
            clip_norm=options.clip_norm,
            optimizer=options.optimizer,
        )
    return Steps(model, adapter, class_weights(shards, options), replicas)


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


def _ineffective_option(optimizer: keras.optimizers.Optimizer, options: Chosen) -> str:
    """Return the flag of an option that would change the optimizer of a compiled model; empty where none is given."""
    if options.clip_norm is not None:
        return "--clip-norm"
    if options.learning_rate != GUIDE["learning_rate"]:
        return "--learning-rate"
    if options.optimizer != GUIDE["optimizer"]:
        return "--optimizer"
    settable = not isinstance(optimizer.get_config().get("learning_rate"), dict)  # the model's own schedule is a dict
    return "--schedule" if options.schedule in (OPTIMIZER_SCHEDULES if settable else SCHEDULES[1:]) else ""
