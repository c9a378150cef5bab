"""What every engine shares of a training in a run folder: its options, where it goes, and how it is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from shardtrain.loader.memory import ReadingPlan, plan_reading
from shardtrain.loader.shards import Shards
from shardtrain.metrics.outputs import Measured
from shardtrain.runtime.progress import say, short
from shardtrain.training.checkpoint import Checkpoints
from shardtrain.training.distribution.team import Team
from shardtrain.training.engine import Engine, Logs
from shardtrain.training.loop import Interrupts, Loop, Training, TrainingTime
from shardtrain.training.recipes import Chosen
from shardtrain.training.resume import check_model
from shardtrain.training.run_folder import RunFolder
from shardtrain.training.stopping import is_better


@dataclass(frozen=True, kw_only=True)
class Trained:
    """What a training gave.

    Attributes:
        history: the metrics of each epoch.
        clock: the time it took.
        best_epoch: the index of the epoch whose weights are kept, from 0.
        validated: all metrics of these weights on the validation split.
        tested: on the test split; None where it was not evaluated.
    """

    history: list[Logs]
    clock: TrainingTime
    best_epoch: int
    validated: Measured
    tested: Measured | None


@dataclass(frozen=True, kw_only=True)
class Session:
    """A training that runs.

    Attributes:
        shards: with a validation split.
        options: how to train.
        job: the job's record, as plain values.
        folder: of the run.
        checkpoints: where states are saved.
        team: the workers of the training, of which the chief alone writes to the folder.
        interrupts: report when to stop.
        prefetch: batches prefetched by the loader.
        test: whether the kept weights are evaluated on the test split at the end, if there is one.
        started: when this process started on the run, by `time.perf_counter`.
        measures: see `Loop`.
        watch: see `Loop`.
    """

    shards: Shards
    options: Chosen
    job: Mapping[str, Any]
    folder: RunFolder
    checkpoints: Checkpoints
    team: Team
    interrupts: Interrupts
    prefetch: int
    test: bool
    started: float
    measures: Sequence[str]
    watch: Callable[[int, Logs], bool] | None

    @property
    def tests(self) -> bool:
        """Return whether the training ends with an evaluation on the test split."""
        return self.test and "test" in self.shards.splits

    def trained(
        self,
        engine: Engine,
        about: Mapping[str, Any],
        history: list[Logs],
        clock: TrainingTime,
        saved: dict[str, Any] | None,
    ) -> Training:
        """Train until a hook or the number of epochs ends it, and report each epoch; return the training.

        Args:
            engine: that trains.
            about: identity of the training: "model", "environment", "stage" and "began", the epochs before the stage.
            history: metrics of the epochs before.
            clock: the time that they took.
            saved: a state to resume from; it is emptied once it is restored.

        Raises:
            DivergedError: a loss is not finite.
            CheckpointError: the saved state is of another model or other hooks.
            RunExistsError: it is of another model.
            Interrupted: a stop was requested.
        """
        if saved:
            check_model(saved["about"], about, self.folder)
            say(f"resuming the interrupted training in '{self.folder.path}'")
        loop = Loop(
            epochs=about["began"] + self.options.epochs,
            batch_size=self.options.batch_size,
            seed=self.options.seed,
            shuffle=self.options.shuffle,
            prefetch=self.prefetch,
            team=self.team,
            every=self.options.checkpoint_every,
            save=self.checkpoints.save,
            about={"job": self.job, **about},
            interrupts=self.interrupts,
            started=self.started,
            num_classes=self.shards.description.num_classes,
            measures=self.measures,
            watch=self.watch,
        )
        training = Training(engine, loop, history, clock)
        for _ in training.epochs(self.shards.train, self.shards.validation, saved):
            if self.team.is_chief:
                self.checkpoints.beside(lambda: self.folder.write_history(training.history))
            say(_epoch_line(training, self.options.monitor))
        return training

    def finished(self, training: Training, best_epoch: int) -> Trained:
        """Measure the kept weights, which are restored; no row of the test split was read before.

        Raises:
            Interrupted: a stop was requested.
        """
        self.team.where = "in the evaluation of the kept weights"
        return Trained(
            history=training.history,
            clock=training.clock,
            best_epoch=best_epoch,
            validated=training.measure(self.shards.validation),
            tested=training.measure(self.shards.test) if self.tests else None,
        )


class Preparation(Protocol):
    """A model that can be trained, made before a folder for the run is.

    Attributes:
        meaning: of its outputs: "probabilities" or "logits".
        versions: of the packages that training runs on.
        batches_per_call: the most batches on which `Engine.advance` is called at once.
    """

    @property
    def batches_per_call(self) -> int:
        """See the class."""
        ...

    @property
    def meaning(self) -> str:
        """See the class."""
        ...

    @property
    def versions(self) -> dict[str, str]:
        """See the class."""
        ...

    def train(self, session: Session, saved: dict[str, Any] | None) -> Trained:
        """Train it, or go on from a saved state, which is emptied; see `Session.trained`."""
        ...

    def write(self, path: Path) -> None:
        """Write the trained model as a file that Keras loads."""
        ...


def reading_plan(shards: Shards, options: Chosen, batches: int) -> ReadingPlan:
    """Plan the memory for reading, with `batches` batches per call of a step.

    Raises:
        UsageError: it exceeds the memory limit.
    """
    limit = options.memory_limit
    return plan_reading(shards.train, options.batch_size, options.shuffle, batches=batches, limit=limit)


def class_weights(shards: Shards, options: Chosen) -> list[float]:
    """Return the weights of the classes in the loss of training: that balance them, with the mean 1 over the examples.

    Empty where all classes count the same.
    """
    if options.class_weight != "balanced":
        return []
    counts = shards.manifest.splits["train"].class_counts
    num_present = sum(count > 0 for count in counts)
    return [sum(counts) / (num_present * count) if count else 0.0 for count in counts]


def _epoch_line(training: Training, monitor: str) -> str:
    """Return the line that reports the latest epoch; the best one is that of the metric `monitor`."""
    *earlier, epoch = training.history
    shown = ", ".join(f"{name} {short(value)}" for name, value in epoch.items() if name != "epoch")
    # a resumed epoch may have had no step left to time
    speed = f", {training.rate:,.0f} examples/s, input wait {training.wait:.1%}" if training.rate else ""
    best = ", best so far" if all(is_better(monitor, epoch, before) for before in earlier) else ""
    return f"epoch {epoch['epoch']}: {shown}{speed}{best}"
