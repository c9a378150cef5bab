"""Run the training loop: take an engine's steps on memory-mapped batches, and call its hooks around them.

The loop replaces that of `keras.Model.fit` because it has to know its position: it can stop between any two steps and
be resumed in another process. Weights, history and metrics are then identical in every bit to those of an
uninterrupted training, on the same machine with the same number of threads. A loss that is not finite ends training.
Ctrl-C and SIGTERM stop after the running step; a second one stops at once.
"""

from __future__ import annotations

import itertools
import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from types import FrameType
from typing import Any

from shardtrain.arrays.rows import Examples
from shardtrain.errors import CheckpointError, DivergedError
from shardtrain.loader.split import Split
from shardtrain.metrics.names import RANKED
from shardtrain.metrics.outputs import Measured, OutputSums
from shardtrain.runtime.interrupts import interrupted
from shardtrain.runtime.progress import progress, short
from shardtrain.training.checkpoint import Packed, packed, unpack
from shardtrain.training.distribution.team import Team
from shardtrain.training.engine import EVALUATION_ROWS, Engine, Logs, capture_generators, numbers
from shardtrain.training.options import CheckpointInterval

SHOW_SECONDS = 0.2  # how often loss and accuracy beside the bar are read from the model


@dataclass(frozen=True, kw_only=True)
class Position:
    """The place of a training between two steps.

    Attributes:
        epoch: from 0.
        step: finished steps of the epoch.
        trained: whether only the validation of the epoch is left to do.
        logs: metrics after the latest step or epoch.
    """

    epoch: int = 0
    step: int = 0
    trained: bool = False
    logs: Logs = field(default_factory=dict)

    def __str__(self) -> str:
        if not self.step:
            return f"the end of epoch {self.epoch}"
        return f"step {self.step:,} of epoch {self.epoch + 1}"


@dataclass(kw_only=True)
class TrainingTime:
    """The time that a training took, summed over the processes that ran it.

    Attributes:
        examples: rows trained on.
        seconds: spent in training epochs, without validation.
        waited: seconds of these in which a step waited for a batch.
        before: wall-clock seconds of the processes before this one, up to their last saved state.
    """

    examples: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    before: float = 0.0


class Interrupts:
    """Record whether Ctrl-C or SIGTERM requested a stop; as a context in the main thread, handle both signals."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> Interrupts:
        self.requested = interrupted()  # before the training, where a library swallowed it
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Interrupted(Exception):  # noqa: N818 - not a failure; `fit` turns it into KeyboardInterrupt
    """The loop stopped at `position`; `state` is what it takes to resume, None where it is saved already."""

    def __init__(self, position: Position, saved: Packed | None) -> None:
        super().__init__(str(position))
        self.position = position
        self.state = saved


@dataclass(frozen=True, kw_only=True)
class Loop:
    """The parameters of a training loop.

    Attributes:
        epochs: the most epochs to train.
        batch_size: rows per step.
        seed: of the order of examples.
        shuffle: as in `Split.batches`.
        prefetch: as in `Split.batches`.
        team: the workers of the training; all take the same steps, each on its part of every batch.
        every: how often `save` is called.
        save: called in the chief with a state to resume from, which holds `about` as well; it must return quickly. It
            is also called after the last epoch, however often otherwise.
        about: the identity of the training, as plain values.
        interrupts: report when to stop.
        started: when this process started on it, by `time.perf_counter`.
        num_classes: of the examples.
        measures: of `metrics.names`, that are computed for each epoch besides those that the model was compiled with.
        watch: called after each epoch, from 0, with its metrics; whether the training is to end.
    """

    epochs: int
    batch_size: int
    seed: int
    shuffle: str
    prefetch: int
    team: Team
    every: CheckpointInterval
    save: Callable[[Packed], None]
    about: Mapping[str, Any]
    interrupts: Interrupts
    started: float
    num_classes: int
    measures: Sequence[str] = ()
    watch: Callable[[int, Logs], bool] | None = None


class Training:
    """A running training: its engine, history and time.

    Attributes:
        history: metrics of each finished epoch.
        clock: time spent so far.
        rate: examples per second in the latest epoch; 0.0 before the first step.
        wait: the share of that epoch's time in which a step waited for a batch.
    """

    def __init__(self, engine: Engine, loop: Loop, history: list[Logs], clock: TrainingTime) -> None:
        self.engine = engine
        self.loop = loop
        self.history = history
        self.clock = clock
        self.rate = self.wait = 0.0
        self._saved_at, self._steps_since = time.perf_counter(), 0

    def epochs(self, train: Split, validation: Split, saved: dict[str, Any] | None = None) -> Iterator[Logs]:
        """Train until a callback or `epochs` ends it; yield the metrics of each epoch as it ends.

        Args:
            train: examples to train on.
            validation: examples to evaluate each epoch on.
            saved: a state from `save`, to resume from; it is emptied once it is restored.

        Raises:
            DivergedError: a loss is not finite.
            CheckpointError: `saved` is of other callbacks or another model.
            Interrupted: a stop was requested.
        """
        engine, loop = self.engine, self.loop
        engine.stop = False
        steps = train.steps_per_epoch(loop.batch_size)
        position = self._begin(steps, saved)
        if position.step > steps:
            raise CheckpointError(
                f"the checkpoint is of step {position.step:,} of an epoch, which has {steps:,}; start again with "
                "--overwrite"
            )
        while position.epoch < loop.epochs and not (engine.stop and not position.step):
            epoch = position.epoch
            loop.team.where = f"in epoch {epoch + 1}"
            if not position.step:
                engine.epoch_begins(epoch)
            if not position.trained:
                position = self._epoch(position, train)
            logs = position.logs | self._validate(position, validation)
            recorded = engine.epoch_ends(epoch, logs)
            self.history.append({"epoch": epoch + 1, **logs, **recorded})
            if loop.watch is not None and loop.watch(epoch, self.history[-1]):
                engine.stop = True
            position = Position(epoch=epoch + 1, logs=logs)
            yield self.history[-1]
            self._stop_if_requested(position)
            ended = epoch + 1 == loop.epochs or engine.stop
            if loop.every.after_epoch(epoch + 1) or ended:
                self._save(position)
        engine.training_ends(position.logs)

    def measure(self, split: Split) -> Measured:
        """Compute all metrics of the kept weights on a split, after `epochs`.

        Raises:
            Interrupted: a stop was requested; the state that `save` was called with at the end is the one to resume.
        """
        position, outputs = Position(epoch=len(self.history)), OutputSums(self.loop.num_classes)
        title = f"evaluating the {split.name} split"
        with progress(title, total=split.num_examples, unit=" examples", lasting=False) as bar:

            def batches() -> Iterator[Examples]:
                for batch in self._until_stopped(self._evaluated(split)):
                    yield batch
                    bar.add(len(batch[1]) * self.loop.team.size)

            try:
                return outputs.measured(self.engine.evaluate(batches(), outputs.add))
            except _StopRequested:
                raise Interrupted(position, None) from None

    def _begin(self, steps: int, saved: dict[str, Any] | None) -> Position:
        """Begin the training, or restore a saved state; return the position.

        The state is emptied: callers refer to it for the whole training, and its arrays are as large as the model.
        """
        if saved is None:
            self.engine.training_begins(self.loop.epochs, steps)
            return Position(epoch=len(self.history))
        position = Position(**saved["position"])
        self.engine.training_begins(self.loop.epochs, steps, saved)
        self.history, self.clock = saved["history"], TrainingTime(**saved["clock"])
        saved.clear()
        return position

    def _epoch(self, position: Position, train: Split) -> Position:
        """Run the steps of an epoch from `position` on; return the position after them."""
        engine, loop, epoch, step = self.engine, self.loop, position.epoch, position.step
        batches = train.batches(
            loop.batch_size,
            seed=loop.seed,
            epoch=epoch,
            shuffle=loop.shuffle,
            start_step=position.step,
            prefetch=loop.prefetch,
            as_int32=True,
            part=loop.team.part,
        )
        if not step:
            engine.reset()
        logs: Mapping[str, Any] = position.logs
        latest = shown = time.perf_counter()
        before = replace(self.clock)
        with progress(f"epoch {epoch + 1}", total=train.num_examples, unit=" examples", lasting=False) as bar:
            bar.add(step * loop.batch_size)
            for chunk in self._timed(self._chunks(batches, engine.steps_per_call(train, loop.batch_size))):
                if engine.watches_batches:
                    engine.batch_begins(step)
                losses, logs = engine.advance(chunk)
                step += len(chunk)
                self._count(losses, chunk, epoch, step)
                rows = self._rows(chunk, step, train)
                self.clock.examples += rows
                bar.add(rows)
                if engine.watches_batches:
                    engine.batch_ends(step - 1, numbers(logs))
                now = time.perf_counter()
                self.clock.seconds += now - latest
                latest = now
                if engine.watches_batches and engine.stop:
                    break
                if now - shown > SHOW_SECONDS:
                    shown = now
                    bar.say(**{name: short(value) for name, value in numbers(logs).items()})
                self._save_if_due(Position(epoch=epoch, step=step), logs)
        if self.clock.examples > before.examples:
            seconds = self.clock.seconds - before.seconds
            self.rate = (self.clock.examples - before.examples) / seconds
            self.wait = (self.clock.waited - before.waited) / seconds
        return Position(epoch=epoch, step=step, trained=True, logs=numbers(logs))

    def _rows(self, chunk: Sequence[Examples], step: int, train: Split) -> int:
        """Count the rows of one call, in all workers; the last step is number `step`, from 1."""
        if self.loop.team.size == 1:
            return sum(len(y) for _, y in chunk)
        before = (step - len(chunk)) * self.loop.batch_size
        return min(step * self.loop.batch_size, train.num_examples) - before

    def _count(self, losses: Sequence[float], chunk: Sequence[Examples], epoch: int, step: int) -> None:
        """Count the steps of one call and check their losses; the last one is step number `step`, from 1."""
        for number, loss in enumerate(losses, step - len(losses) + 1):
            _check_finite(loss, f"loss of step {number}", epoch)
        self._steps_since += len(chunk)

    def _validate(self, position: Position, validation: Split) -> Logs:
        """Evaluate on the validation examples; metrics are named as Keras names them."""
        self.loop.team.where = f"in the validation of epoch {position.epoch + 1}"
        before = packed(self.engine.capture_hooks())  # a resumed validation starts again
        self.engine.validation_begins()
        measures = self.loop.measures
        outputs = OutputSums(self.loop.num_classes, detailed=not RANKED.isdisjoint(measures)) if measures else None
        batches = self._until_stopped(self._evaluated(validation))
        try:
            measured = self.engine.evaluate(batches, outputs.add if outputs else None)
        except _StopRequested:
            now = self._state(position, unpack(before.tree, before.arrays))
            raise Interrupted(position, now) from None
        if outputs:
            measured |= outputs.measured(measured).named(measures)
        self.engine.validation_ends(measured)
        _check_finite(measured["loss"], "validation loss", position.epoch)
        return {f"val_{name}": value for name, value in measured.items()}

    def _save_if_due(self, position: Position, logs: Mapping[str, Any]) -> None:
        """Save a state within an epoch if one is due; stop if that was requested."""
        team = self.loop.team
        due = self.loop.every.within_epoch(time.perf_counter() - self._saved_at, self._steps_since)
        stopped, due = team.agreed(self.loop.interrupts.requested, due and team.is_chief)
        if stopped or due:
            position = replace(position, logs=numbers(logs))
            if stopped:
                raise Interrupted(position, self._state(position, self.engine.capture_hooks()))
            self._save(position)

    def _stop_if_requested(self, position: Position) -> None:
        if self.loop.team.agreed(self.loop.interrupts.requested)[0]:
            raise Interrupted(position, self._state(position, self.engine.capture_hooks()))

    def _save(self, position: Position) -> None:
        if (state := self._state(position, self.engine.capture_hooks())) is not None:
            self.loop.save(state)
        self._saved_at, self._steps_since = time.perf_counter(), 0

    def _state(self, position: Position, hooks: list[dict[str, Any]]) -> Packed | None:
        """Return, in the chief, the state that `epochs` resumes from `position`; the other workers add theirs."""
        team = self.loop.team
        workers = team.gathered(self.engine.capture_worker()) if team.size > 1 else []
        if not team.is_chief:
            return None
        variables = self.engine.capture_variables()
        if workers:
            self.engine.join_workers(variables, workers)
        so_far = self.clock.before + time.perf_counter() - self.loop.started
        return packed(
            {
                "about": dict(self.loop.about),
                "position": asdict(position),
                "variables": variables,
                "callbacks": hooks,
                "generators": capture_generators(),
                "stop": self.engine.stop,
                "history": self.history,
                "clock": asdict(replace(self.clock, before=so_far)),
                **({"workers": workers} if workers else {}),
            }
        )

    def _evaluated(self, split: Split) -> Iterable[Examples]:
        """Return this worker's part of the batches of an evaluation; the more workers, the larger are these."""
        team = self.loop.team
        return split.batches(EVALUATION_ROWS * team.size, part=team.part)

    def _chunks(self, batches: Iterable[Examples], size: int) -> Iterator[list[Examples]]:
        """Group batches by call, `size` to each; the last ones, fewer than `size`, one by one."""
        iterator = iter(batches)
        while chunk := list(itertools.islice(iterator, size)):
            if len(chunk) == size:
                yield chunk
            else:
                yield from ([batch] for batch in chunk)

    def _until_stopped(self, batches: Iterable[Examples]) -> Iterator[Examples]:
        for batch in batches:
            if self.loop.team.agreed(self.loop.interrupts.requested)[0]:
                raise _StopRequested
            yield batch

    def _timed(self, chunks: Iterable[list[Examples]]) -> Iterator[list[Examples]]:
        """Yield the chunks and add the time spent waiting for each to the clock."""
        iterator = iter(chunks)
        while True:
            start = time.perf_counter()
            chunk = next(iterator, None)
            self.clock.waited += time.perf_counter() - start
            if chunk is None:
                return
            yield chunk


class _StopRequested(Exception):  # noqa: N818 - never leaves this module
    """A stop was requested between two batches of an evaluation."""


def _check_finite(loss: float, what: str, epoch: int) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"the {what} of epoch {epoch + 1} is {loss}, so training stopped and no model was saved; try a lower "
            "--learning-rate, and check a custom model for divisions and logarithms"
        )
