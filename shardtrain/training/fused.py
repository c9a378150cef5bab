"""Train models over n-grams with the fused engine: without TensorFlow, and only the weights of features that occur."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from shardtrain.arrays.rows import Examples
from shardtrain.engine.keras_file import write_keras
from shardtrain.engine.network import Network, Shape, Team, evaluate, metrics_of
from shardtrain.engine.optimizers import OPTIMIZERS, Optimizer
from shardtrain.engine.scaling import naive_bayes_scales
from shardtrain.engine.trainer import Trainer
from shardtrain.errors import CheckpointError, UsageError
from shardtrain.loader.info import DatasetInfo
from shardtrain.loader.shards import Shards
from shardtrain.loader.split import Split
from shardtrain.models.options import EXPONENTIAL_END, PLATEAU_FACTOR
from shardtrain.runtime.machine import cores, memory_bytes
from shardtrain.runtime.progress import detail, progress, say
from shardtrain.runtime.quantities import size
from shardtrain.training.engine import EachBatch, Engine, Logs, restore_generators
from shardtrain.training.event_log import EventLog
from shardtrain.training.loop import TrainingTime
from shardtrain.training.recipes import Chosen
from shardtrain.training.resume import versions
from shardtrain.training.session import Session, Trained, class_weights, reading_plan
from shardtrain.training.stopping import KeepBest, Plateau, restore
from shardtrain.training.tensorboard_folder import cut_events, event_bytes, events_folder

_STATES = 3  # of checkpoints, in memory at a time
_MANY_WEIGHTS = 5_000_000  # from which dense steps are slow
GROUP_ROWS = 4096  # per call of the kernels, in whole batches


class FusedEngine(Engine):
    """An engine (`training.engine`) of the fused kernels.

    Args:
        trainer: takes the steps.
        team: computes.
        options: of the training.
        steps: of all epochs together, for schedules.
        events: where TensorBoard's points are written; None: none are.

    Attributes:
        stop: whether the training is to end.
        best: keeps the best weights.
    """

    def __init__(
        self, trainer: Trainer, team: Team, options: Chosen, steps: int, events: EventLog | None = None
    ) -> None:
        self.stop = False
        self.best = KeepBest(options.patience, options.monitor)
        self._trainer, self._team, self._options, self._steps = trainer, team, options, steps
        self._events = events
        plateau = options.schedule == "plateau"
        self._plateau = Plateau(max(1, options.patience // 2), PLATEAU_FACTOR) if plateau else None
        self._sums = np.zeros(3)  # of losses, hits and rows
        self._measured = trainer.network  # that was evaluated last

    def steps_per_call(self, train: Split, batch_size: int) -> int:
        """Return the steps per call."""
        return steps_per_call(batch_size)

    def training_begins(self, epochs: int, steps: int, saved: Mapping[str, Any] | None = None) -> None:
        """Restore a saved state."""
        if saved is None:
            return
        self._restore(saved["variables"])
        hooks = self._hooks
        found = [each["class"] for each in saved["callbacks"]]
        if found != [type(hook).__name__ for hook in (*hooks, *([self._events] if self._events else []))]:
            raise CheckpointError(f"the checkpoint has the hooks {', '.join(found)}; start again with --overwrite")
        for hook, each in zip(hooks, saved["callbacks"], strict=False):
            restore(hook, each["attributes"])
        if self._events is not None:
            cut_events(self._events.folder, saved["callbacks"][-1].get("event_bytes", {}))
        self._check_best()
        restore_generators(saved["generators"])
        self.stop = saved["stop"]

    def validation_ends(self, logs: Logs) -> None:
        """Write the metrics as events, by steps."""
        if self._events is not None:
            self._events.add_validation(self._trainer.step, logs)

    def epoch_ends(self, epoch: int, logs: Logs) -> Logs:
        """Keep the weights if they are the best so far; return the metrics, with the rate if a plateau lowers it."""
        added = {}
        if self._plateau is not None:
            added = {"learning_rate": self._options.learning_rate * self._plateau.factor}
            self._plateau.epoch_ends(logs)
        if self._events is not None:
            self._events.add_epoch(epoch, logs, self._rate(self._trainer.step))
        self.stop = self.best.epoch_ends(epoch, logs, self._measured_weights) or self.stop
        return {**logs, **added}

    def training_ends(self, logs: Logs) -> None:
        """Restore the best weights, which take rows as they are."""
        network = self._trainer.network
        if self.best.best_weights is not None:
            network.wide[...], network.small[...] = self.best.best_weights
            network.scales = None

    def reset(self) -> None:
        """Begin to sum up."""
        self._sums[:] = 0

    def advance(self, batches: Sequence[Examples]) -> tuple[list[float], Mapping[str, Any]]:
        """Take a step on each batch."""
        first = self._trainer.step
        rates = [self._rate(first + number) for number in range(len(batches))]
        losses, hits = self._trainer.advance(batches, rates)
        for (_, y), loss, right in zip(batches, losses, hits, strict=True):
            self._sums += np.array([loss * len(y), right, len(y)])
        return losses, metrics_of(self._sums)

    def evaluate(self, batches: Iterable[Examples], each: EachBatch | None = None) -> Logs:
        """Evaluate on the batches."""
        self._measured = self._trainer.network.folded()
        return evaluate(self._measured, batches, self._team, each)

    def capture_variables(self) -> dict[str, Any]:
        """Capture the network, the numbers of the optimizer, and the sums of the metrics."""
        return {
            group: {"described": _described(arrays), "values": [array for _, array in arrays]}
            for group, arrays in self._arrays().items()
        }

    def capture_hooks(self) -> list[dict[str, Any]]:
        """Capture early stopping, and the plateau and the sizes of the event files if there are any."""
        found = [{"class": type(hook).__name__, "attributes": hook.state()} for hook in self._hooks]
        if self._events is not None:
            sizes = event_bytes(self._events.folder)
            found.append({"class": type(self._events).__name__, "attributes": {}, "event_bytes": sizes})
        return found

    def _measured_weights(self) -> list[Any]:
        """Return the weights that the latest metrics are of; a copy where training would change them."""
        wide = self._measured.wide
        return [wide.copy() if wide is self._trainer.network.wide else wide, self._measured.small.copy()]

    @property
    def _hooks(self) -> list[KeepBest | Plateau]:
        return [self.best, *([self._plateau] if self._plateau else [])]

    def _arrays(self) -> dict[str, list[tuple[str, Any]]]:
        network = self._trainer.network
        names = ("wide first", "wide second", "small first", "small second")
        kept = [*zip(names, self._trainer.state, strict=True), ("step", np.array(self._trainer.step))]
        model = [("wide", network.wide), ("small", network.small)]
        return {"model": model, "optimizer": kept, "metrics": [("sums", self._sums)]}

    def _restore(self, saved: Mapping[str, Any]) -> None:
        for group, arrays in self._arrays().items():
            if saved[group]["described"] != _described(arrays):
                raise CheckpointError(
                    f"the arrays of the {group} differ from the checkpoint's; resume with the same model and "
                    "optimizer, or start again with --overwrite"
                )
        for group, arrays in self._arrays().items():
            for (name, array), value in zip(arrays, saved[group]["values"], strict=True):
                if name == "step":
                    self._trainer.step = int(value)
                else:
                    array[...] = value

    def _check_best(self) -> None:
        network, found = self._trainer.network, self.best.best_weights
        shapes = [network.wide.shape, network.small.shape]
        if found is not None and (not isinstance(found, list) or [getattr(w, "shape", None) for w in found] != shapes):
            raise CheckpointError("the checkpoint's best weights are of another model; start again with --overwrite")

    def _rate(self, step: int) -> float:
        """Return the learning rate of a step, from 0, as Keras' schedules of `models.schedules` have it."""
        first, done = self._options.learning_rate, min(step / self._steps, 1.0)
        if self._plateau is not None:
            return first * self._plateau.factor
        if self._options.schedule == "cosine":
            return first * 0.5 * (1 + math.cos(math.pi * done))
        if self._options.schedule == "linear":
            return first * (1 - done)
        if self._options.schedule == "exponential":
            return first * math.pow(EXPONENTIAL_END, step / self._steps)
        return first


class FusedTraining:
    """A network that can be trained by the fused engine; a `session.Preparation`.

    Args:
        shards: with a validation split.
        options: how to train.
        name: of the model.

    Raises:
        UsageError: the weights do not fit in memory, or reading does not within its limit.
    """

    meaning = "probabilities"

    def __init__(self, shards: Shards, options: Chosen, name: str) -> None:
        self._name, self._options = name, options
        shape = shape_of(options, name, shards.description)
        say(_check_memory(shape, options, shards.description.num_classes))
        self._network = Network(shape)
        self._network.initialize(options.seed)
        reading_plan(shards, options, self.batches_per_call)  # an error where the memory limit is too low

    @property
    def batches_per_call(self) -> int:
        """The most batches per call of the kernels."""
        return steps_per_call(self._options.batch_size)

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that training runs on."""
        return {**versions(), "numba": version("numba")}

    def write(self, path: Path) -> None:
        """Write the trained model as a file that Keras loads."""
        with open(path, "wb") as file:
            write_keras(file, self._network, name=self._name, dropout=_dropout(self._options, self._name))

    def train(self, session: Session, saved: dict[str, Any] | None) -> Trained:
        """Train, or go on from a saved state; the best weights are kept."""
        options, shards = session.options, session.shards
        optimizer, dropout = OPTIMIZERS[options.optimizer], _dropout(options, self._name)
        if options.scaling == "naive-bayes":
            self._network.scales = _scales(session, self._network.shape)
        with Team(cores()) as team:
            trainer = Trainer(
                self._network,
                optimizer,
                team,
                seed=options.seed,
                dropout=dropout,
                clip_norm=options.clip_norm,
                class_weights=class_weights(shards, options),
            )
            steps = options.epochs * shards.train.steps_per_epoch(options.batch_size)
            board = events_folder(options, session.folder, new=saved is None)
            engine = FusedEngine(trainer, team, options, steps, None if board is None else EventLog(board))
            detail(str(reading_plan(shards, options, self.batches_per_call)))
            shape = self._network.shape
            about = {
                "model": {
                    "engine": "fused",
                    "features": shape.features,
                    "widths": list(shape.dims),
                    "dropout": dropout,
                    "optimizer": optimizer.name,
                },
                "stage": 0,
                "began": 0,
                "environment": {**self.versions, "machine": platform.machine()},
            }
            training = session.trained(engine, about, [], TrainingTime(), saved)
            return session.finished(training, engine.best.best_epoch)


def training_bytes(shape: Shape, optimizer: Optimizer, classes: int) -> int:
    """Return the bytes that a training holds of weights and optimizer, at its peak.

    Besides the weights, those of the best epoch, those that are evaluated and the optimizer's numbers, up to three
    states are held: one that is written, one that waits, and one that is captured. Before the first step it is less: a
    resumed training holds the state that it read, and while that is read also the file's bytes. Only the table of
    features and classes, by which features are weighed at that time, may be larger than all of that.
    """
    features, width = shape.features, shape.dims[0]
    weights = 4 * shape.num_weights
    small = shape.num_weights - features * width
    kept = optimizer.num_bytes(features, width) + optimizer.num_bytes(small, 1)
    tables = 4 * features * (cores() + 1) + 4 * small  # of the kernels, scales, and a gradient
    state = 2 * weights + kept
    weighing = weights + state + features * (4 * classes + 8)
    return max(3 * weights + kept + _STATES * state + tables, weighing)


def _check_memory(shape: Shape, options: Chosen, classes: int) -> str:
    """Return what is held of weights and optimizer, in words.

    Raises:
        UsageError: more than the machine has.
    """
    optimizer = OPTIMIZERS[options.optimizer]
    needed, there = training_bytes(shape, optimizer, classes), memory_bytes()
    sizes = f"{shape.num_weights:,} weights, with {optimizer.name} and checkpoints at most {size(needed)} of memory"
    if needed > there:
        least = training_bytes(shape, OPTIMIZERS["row-adagrad"], classes)
        other = " or choose --optimizer row-adagrad" if least <= there and optimizer.name != "row-adagrad" else ""
        raise UsageError(
            f"{sizes}, more than the {size(there)} that there are; build shards with fewer features, choose fewer "
            f"--units, train --model linear{',' if other else ''}{other}"
        )
    if optimizer.name == "adam" and shape.num_weights > _MANY_WEIGHTS:
        return f"{sizes}; adam moves all of them in every step, lazy-adam only those of features that occur"
    return sizes


def _scales(session: Session, shape: Shape) -> Any:
    """Compute the scales of the features in a pass over the training split; a request to stop ends it."""
    train = session.shards.train

    def batches() -> Iterator[Examples]:
        with progress("weighing features", total=train.num_examples, unit=" examples", lasting=False) as bar:
            for batch in train.batches(GROUP_ROWS):
                if session.interrupts.requested:
                    say("interrupted before a step was taken; the same command goes on")
                    raise KeyboardInterrupt
                yield batch
                bar.add(len(batch[1]))

    return naive_bayes_scales(batches(), shape.features, session.shards.description.num_classes)


def shape_of(options: Chosen, name: str, description: DatasetInfo) -> Shape:
    """Return the shape of a model's network."""
    layers = options.mlp.layers if name == "mlp" else 1
    return Shape.of(description.num_features, description.num_classes, layers, options.mlp.units)


def steps_per_call(batch_size: int) -> int:
    """Return the batches of a call of the kernels."""
    return max(1, GROUP_ROWS // batch_size)


def _described(arrays: Iterable[tuple[str, Any]]) -> list[list[Any]]:
    """Return name, shape and type of each array, as checkpoints have them."""
    return [[name, list(array.shape), array.dtype.name] for name, array in arrays]


def _dropout(options: Chosen, name: str) -> float:
    return options.mlp.dropout if name == "mlp" else 0.0
