"""Run the training loop: call traced steps on memory-mapped batches, and Keras' callbacks around them.

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

import keras

from shardtrain.arrays.rows import Examples
from shardtrain.errors import CheckpointError, DivergedError
from shardtrain.loader.split import Split
from shardtrain.runtime.progress import Pass, progress, short
from shardtrain.training import state
from shardtrain.training.checkpoint import Packed, packed, unpack
from shardtrain.training.options import CheckpointInterval
from shardtrain.training.steps import EVALUATION_ROWS, STEPS_PER_CALL, Logs, Steps, numbers

SHOW_SECONDS = 0.2  # how often loss and accuracy beside the bar are read from the model
MULTI_STEP_FROM = 100  # steps per epoch from which tracing several steps per call pays within a few epochs


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
        every: how often `save` is called.
        save_at_end: whether it is called after the last epoch, too, however often otherwise.
        save: called with a state to resume from, which holds `about` as well; it must return quickly.
        about: the identity of the training, as plain values.
        interrupts: report when to stop.
        started: when this process started on it, by `time.perf_counter`.
    """

    epochs: int
    batch_size: int
    seed: int
    shuffle: str
    prefetch: int
    every: CheckpointInterval
    save_at_end: bool
    save: Callable[[Packed], None]
    about: Mapping[str, Any]
    interrupts: Interrupts
    started: float


class Training:
    """A running training: its callbacks, history and time.

    Attributes:
        history: metrics of each finished epoch.
        clock: time spent so far.
        rate: examples per second in the latest epoch; 0.0 before the first step.
        wait: the share of that epoch's time in which a step waited for a batch.
    """

    def __init__(
        self,
        steps: Steps,
        loop: Loop,
        callbacks: Sequence[keras.callbacks.Callback],
        history: list[Logs],
        clock: TrainingTime,
    ) -> None:
        self.steps = steps
        self.loop = loop
        self.history = history
        self.clock = clock
        self.rate = self.wait = 0.0
        _ = steps.train  # traced here, so that the first epoch's time is that of its steps alone
        self._hooked = any(_watches_batches(callback) for callback in callbacks)
        self._recorded: Logs = {}
        recorder = keras.callbacks.LambdaCallback(on_epoch_end=self._record)
        self._given = [*callbacks, recorder]
        self._saved_at, self._steps_since = time.perf_counter(), 0

    def steps_per_call(self, train: Split) -> int:
        """Return the steps per call: several where that pays and no callback has hooks per batch."""
        long = train.steps_per_epoch(self.loop.batch_size) >= MULTI_STEP_FROM
        return STEPS_PER_CALL if long and not self._hooked and train.kind == "ngram" else 1

    def epochs(self, train: Split, validation: Split, saved: Mapping[str, Any] | None = None) -> Iterator[Logs]:
        """Train until a callback or `epochs` ends it; yield the metrics of each epoch as it ends.

        Args:
            train: examples to train on.
            validation: examples to evaluate each epoch on.
            saved: a state from `save`, to resume from.

        Raises:
            DivergedError: a loss is not finite.
            CheckpointError: `saved` is of other callbacks or another model.
            Interrupted: a stop was requested.
        """
        model, loop = self.steps.model, self.loop
        model.stop_training = False
        callbacks = keras.callbacks.CallbackList(
            list(self._given),
            add_history=True,
            model=model,
            verbose=0,
            epochs=loop.epochs,
            steps=train.steps_per_epoch(loop.batch_size),
        )
        position = self._begin(callbacks, saved)
        if position.step > (steps := train.steps_per_epoch(loop.batch_size)):
            raise CheckpointError(
                f"the checkpoint is of step {position.step:,} of an epoch, which has {steps:,}; start again with "
                "--overwrite"
            )
        while position.epoch < loop.epochs and not (model.stop_training and not position.step):
            epoch = position.epoch
            if not position.step:
                callbacks.on_epoch_begin(epoch)
            if not position.trained:
                position = self._epoch(position, train, callbacks)
            logs = position.logs | self._validate(position, validation, callbacks)
            callbacks.on_epoch_end(epoch, logs)
            self.history.append({"epoch": epoch + 1, **logs, **self._recorded})
            position = Position(epoch=epoch + 1, logs=logs)
            yield self.history[-1]
            self._stop_if_requested(position, callbacks)
            ended = epoch + 1 == loop.epochs or model.stop_training
            if loop.every.after_epoch(epoch + 1) or (ended and loop.save_at_end):
                self._save(position, callbacks)
        model.optimizer.finalize_variable_values(model.trainable_variables)
        callbacks.on_train_end(position.logs)

    def test(self, test: Split) -> Logs:
        """Evaluate the model on the test examples, after `epochs`; metrics are named after the split.

        Raises:
            Interrupted: a stop was requested; the state that `save` was called with at the end is the one to resume.
        """
        position = Position(epoch=len(self.history))
        with progress("evaluating the test split", total=test.num_examples, unit=" examples", lasting=False) as bar:

            def batches() -> Iterator[Examples]:
                for batch in self._until_stopped(test.batches(EVALUATION_ROWS)):
                    yield batch
                    bar.add(len(batch[1]))

            try:
                measured = self.steps.evaluate(batches())
            except _StopRequested:
                raise Interrupted(position, None) from None
        return {f"test_{name}": value for name, value in measured.items()}

    def _begin(self, callbacks: Any, saved: Mapping[str, Any] | None) -> Position:
        """Call the callbacks' hooks for the start of training, restore a saved state, and return the position."""
        state.warn_of_unsaved_attributes(callbacks.callbacks)
        if saved is None:
            callbacks.on_train_begin()
            return Position(epoch=len(self.history))
        position = Position(**saved["position"])
        state.check_callbacks(callbacks.callbacks, saved["callbacks"])
        callbacks.on_train_begin()
        if position.step:
            callbacks.on_epoch_begin(position.epoch)
        state.restore_variables(self.steps, saved["variables"])
        state.restore_callbacks(callbacks.callbacks, saved["callbacks"], epochs=len(saved["history"]))
        state.restore_generators(saved["generators"])
        self.steps.model.stop_training = saved["stop"]
        self.history, self.clock = saved["history"], TrainingTime(**saved["clock"])
        return position

    def _epoch(self, position: Position, train: Split, callbacks: Any) -> Position:
        """Run the steps of an epoch from `position` on; return the position after them."""
        steps, loop, epoch, step = self.steps, self.loop, position.epoch, position.step
        batches = train.batches(
            loop.batch_size,
            seed=loop.seed,
            epoch=epoch,
            shuffle=loop.shuffle,
            start_step=position.step,
            prefetch=loop.prefetch,
            as_int32=True,
        )
        if not step:
            steps.reset()
        logs: Mapping[str, Any] = position.logs
        latest = shown = time.perf_counter()
        before = replace(self.clock)
        with progress(f"epoch {epoch + 1}", total=train.num_examples, unit=" examples", lasting=False) as bar:
            bar.add(step * loop.batch_size)
            for chunk in self._timed(self._chunks(batches, self.steps_per_call(train))):
                if self._hooked:
                    callbacks.on_train_batch_begin(step)
                losses, logs = steps.advance(chunk)
                step += len(chunk)
                self._count(losses, chunk, epoch, step, bar)
                if self._hooked:
                    callbacks.on_train_batch_end(step - 1, numbers(logs))
                now = time.perf_counter()
                self.clock.seconds += now - latest
                latest = now
                if self._hooked and steps.model.stop_training:
                    break
                if now - shown > SHOW_SECONDS:
                    shown = now
                    bar.say(**{name: short(value) for name, value in numbers(logs).items()})
                self._save_if_due(Position(epoch=epoch, step=step), logs, callbacks)
        if self.clock.examples > before.examples:
            seconds = self.clock.seconds - before.seconds
            self.rate = (self.clock.examples - before.examples) / seconds
            self.wait = (self.clock.waited - before.waited) / seconds
        return Position(epoch=epoch, step=step, trained=True, logs=numbers(logs))

    def _count(self, losses: Sequence[float], chunk: Sequence[Examples], epoch: int, step: int, bar: Pass) -> None:
        """Count the steps of one call and check their losses; the last one is step number `step`, from 1."""
        for number, loss in enumerate(losses, step - len(losses) + 1):
            _check_finite(loss, f"loss of step {number}", epoch)
        rows = sum(len(y) for _, y in chunk)
        self.clock.examples += rows
        self._steps_since += len(chunk)
        bar.add(rows)

    def _validate(self, position: Position, validation: Split, callbacks: Any) -> Logs:
        """Evaluate on the validation examples; metrics are named as Keras names them."""
        before = packed(state.capture_callbacks(callbacks.callbacks))  # a resumed validation starts again
        callbacks.on_test_begin()
        try:
            measured = self.steps.evaluate(self._until_stopped(validation.batches(EVALUATION_ROWS)))
        except _StopRequested:
            now = self._state(position, unpack(before.tree, before.arrays))
            raise Interrupted(position, now) from None
        callbacks.on_test_end(measured)
        _check_finite(measured["loss"], "validation loss", position.epoch)
        return {f"val_{name}": value for name, value in measured.items()}

    def _save_if_due(self, position: Position, logs: Mapping[str, Any], callbacks: Any) -> None:
        """Save a state within an epoch if one is due; stop if that was requested."""
        due = self.loop.every.within_epoch(time.perf_counter() - self._saved_at, self._steps_since)
        if due or self.loop.interrupts.requested:
            position = replace(position, logs=numbers(logs))
            self._stop_if_requested(position, callbacks)
            self._save(position, callbacks)

    def _stop_if_requested(self, position: Position, callbacks: Any) -> None:
        if self.loop.interrupts.requested:
            raise Interrupted(position, self._state(position, state.capture_callbacks(callbacks.callbacks)))

    def _save(self, position: Position, callbacks: Any) -> None:
        self.loop.save(self._state(position, state.capture_callbacks(callbacks.callbacks)))
        self._saved_at, self._steps_since = time.perf_counter(), 0

    def _state(self, position: Position, callbacks: list[dict[str, Any]]) -> Packed:
        """Return the state that `epochs` resumes from `position`."""
        so_far = self.clock.before + time.perf_counter() - self.loop.started
        return packed(
            {
                "about": dict(self.loop.about),
                "position": asdict(position),
                "variables": state.capture_variables(self.steps),
                "callbacks": callbacks,
                "generators": state.capture_generators(),
                "stop": self.steps.model.stop_training,
                "history": self.history,
                "clock": asdict(replace(self.clock, before=so_far)),
            }
        )

    def _record(self, epoch: int, logs: Mapping[str, Any]) -> None:
        """Record an epoch's metrics with those that callbacks added, such as the learning rate."""
        self._recorded = numbers(logs)

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
            if self.loop.interrupts.requested:
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


def _watches_batches(callback: keras.callbacks.Callback) -> bool:
    """Return whether a callback overrides a hook that is called for every batch."""
    hooks = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
    own = [getattr(getattr(callback, hook), "__func__", None) for hook in hooks]
    return own != [getattr(keras.callbacks.Callback, hook) for hook in hooks]


def _check_finite(loss: float, what: str, epoch: int) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"the {what} of epoch {epoch + 1} is {loss}, so training stopped and no model was saved; try a lower "
            "--learning-rate, and check a custom model for divisions and logarithms"
        )
