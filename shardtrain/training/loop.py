"""The training loop: traced steps, called by a loop of our own over memory-mapped batches.

Keras' callbacks are used unchanged; only the loop around the step is ours. It knows its position, so that it can be
left between any two steps and gone on with in another process: weights, history and metrics are then the same in every
bit as without the interruption, on the same machine with the same number of threads. It stops at a loss that is not
finite. Ctrl-C and SIGTERM end it after the step under way; a second one ends it at once.
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
from shardtrain.errors import DivergedError
from shardtrain.loader.split import Split
from shardtrain.runtime.progress import Pass, progress
from shardtrain.training import state
from shardtrain.training.checkpoint import Packed, packed, unpack
from shardtrain.training.options import CheckpointInterval
from shardtrain.training.steps import EVALUATION_ROWS, STEPS_A_CALL, Logs, Steps, numbers

SHOW_SECONDS = 0.2  # how often loss and accuracy beside the bar are read from the model
SEVERAL_FROM = 100  # steps an epoch: from here on, tracing several a call pays within a few epochs


@dataclass(frozen=True, kw_only=True)
class Position:
    """Between which steps a training stands.

    Attributes:
        epoch: from 0.
        step: steps of the epoch that are done.
        trained: whether nothing but the validation of the epoch is left to do.
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
    """Where the time of a training went, over all processes that took part in it.

    Attributes:
        examples: rows trained on.
        seconds: time spent in training epochs, validation not counted.
        waited: seconds of that in which the step waited for a batch.
        before: seconds that the processes before this one took for everything, up to their last state.
    """

    examples: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    before: float = 0.0


class Interrupts:
    """Whether Ctrl-C or SIGTERM asked for an end; entered in the main thread it takes both signals."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class Interrupted(Exception):  # noqa: N818 - it is no failure, and `fit` makes KeyboardInterrupt of it
    """The loop was left at `position`, and `state` is all that is needed to go on."""

    def __init__(self, position: Position, saved: Packed) -> None:
        super().__init__(str(position))
        self.position = position
        self.state = saved


@dataclass(frozen=True, kw_only=True)
class Loop:
    """How a training runs: sizes in rows, and who hears of it.

    Attributes:
        epochs: at most so many.
        batch_size: rows a step.
        seed: of the order of examples.
        shuffle: as in `Split.batches`.
        prefetch: batches that are made ahead.
        every: how often `save` is called.
        save: takes a state to go on from, in which `about` is found as well; it must not take long.
        about: what the training is, as plain values.
        interrupts: tell when to leave.
        started: when this process began with it, by `time.perf_counter`.
    """

    epochs: int
    batch_size: int
    seed: int
    shuffle: str
    prefetch: int
    every: CheckpointInterval
    save: Callable[[Packed], None]
    about: Mapping[str, Any]
    interrupts: Interrupts
    started: float


class Training:
    """Training under way: its callbacks, the history so far, and where the time went.

    Attributes:
        history: metrics of each finished epoch.
        clock: where the time went.
        rate: examples a second in the latest epoch.
        wait: the share of that time in which the step waited for a batch.
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
        _ = steps.train  # traced now, so that the first epoch's time is that of its steps
        self._hooked = any(_watches_batches(callback) for callback in callbacks)
        self._recorded: Logs = {}
        recorder = keras.callbacks.LambdaCallback(on_epoch_end=self._record)
        self._given = [*callbacks, recorder]
        self._saved_at, self._steps_since = time.perf_counter(), 0

    def steps_a_call(self, train: Split) -> int:
        """How many steps one call makes: several where that pays and no callback looks in between."""
        long = train.steps_per_epoch(self.loop.batch_size) >= SEVERAL_FROM
        return STEPS_A_CALL if long and not self._hooked and train.kind == "ngram" else 1

    def epochs(self, train: Split, validation: Split, saved: Mapping[str, Any] | None = None) -> Iterator[Logs]:
        """Train until the callbacks or `epochs` end it; gives the metrics of each epoch as it ends.

        Args:
            train: examples to train on.
            validation: examples to measure each epoch on.
            saved: a state that `save` was given, to go on from there.

        Raises:
            DivergedError: a loss is not finite.
            CheckpointError: `saved` is of other callbacks or another model.
            Interrupted: an end was asked for.
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
            self._leave_if_asked(position, callbacks)
            if loop.every.after_epoch(epoch + 1):
                self._save(position, callbacks)
        model.optimizer.finalize_variable_values(model.trainable_variables)
        callbacks.on_train_end(position.logs)

    def _begin(self, callbacks: Any, saved: Mapping[str, Any] | None) -> Position:
        """Tell the callbacks that training begins, and put everything where it was if it goes on."""
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
        state.restore_callbacks(callbacks.callbacks, saved["callbacks"])
        state.restore_generators(saved["generators"])
        self.steps.model.stop_training = saved["stop"]
        self.history, self.clock = saved["history"], TrainingTime(**saved["clock"])
        return position

    def _epoch(self, position: Position, train: Split, callbacks: Any) -> Position:
        """The steps of an epoch from `position` on; gives the position after them."""
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
            for chunk in self._timed(self._chunks(batches, self.steps_a_call(train))):
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
                self._keep(Position(epoch=epoch, step=step), logs, callbacks)
        if self.clock.examples > before.examples:
            seconds = self.clock.seconds - before.seconds
            self.rate = (self.clock.examples - before.examples) / seconds
            self.wait = (self.clock.waited - before.waited) / seconds
        return Position(epoch=epoch, step=step, trained=True, logs=numbers(logs))

    def _count(self, losses: Sequence[float], chunk: Sequence[Examples], epoch: int, step: int, bar: Pass) -> None:
        """Take the steps of a call into account, the last of which is step number `step`, from 1."""
        for number, loss in enumerate(losses, step - len(losses) + 1):
            _check_finite(loss, f"loss of step {number}", epoch)
        rows = sum(len(y) for _, y in chunk)
        self.clock.examples += rows
        self._steps_since += len(chunk)
        bar.add(rows)

    def _validate(self, position: Position, validation: Split, callbacks: Any) -> Logs:
        """Metrics over the validation examples, named as Keras does."""
        heard = packed(state.capture_callbacks(callbacks.callbacks))  # a validation that was left begins again
        callbacks.on_test_begin()
        try:
            measured = self.steps.evaluate(self._until_asked(validation.batches(EVALUATION_ROWS)))
        except _Asked:
            now = self._state(position, unpack(heard.tree, heard.arrays))
            raise Interrupted(position, now) from None
        callbacks.on_test_end(measured)
        _check_finite(measured["loss"], "validation loss", position.epoch)
        return {f"val_{name}": value for name, value in measured.items()}

    def _keep(self, position: Position, logs: Mapping[str, Any], callbacks: Any) -> None:
        """Save what is needed to go on from here within an epoch, if that is due; leave if an end was asked for."""
        due = self.loop.every.within_epoch(time.perf_counter() - self._saved_at, self._steps_since)
        if due or self.loop.interrupts.asked:
            position = replace(position, logs=numbers(logs))
            self._leave_if_asked(position, callbacks)
            self._save(position, callbacks)

    def _leave_if_asked(self, position: Position, callbacks: Any) -> None:
        if self.loop.interrupts.asked:
            raise Interrupted(position, self._state(position, state.capture_callbacks(callbacks.callbacks)))

    def _save(self, position: Position, callbacks: Any) -> None:
        self.loop.save(self._state(position, state.capture_callbacks(callbacks.callbacks)))
        self._saved_at, self._steps_since = time.perf_counter(), 0

    def _state(self, position: Position, callbacks: list[dict[str, Any]]) -> Packed:
        """All that `epochs` needs to go on from `position`."""
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
        """Keep an epoch's metrics with what the callbacks added to them, such as the learning rate."""
        self._recorded = numbers(logs)

    def _chunks(self, batches: Iterable[Examples], size: int) -> Iterator[list[Examples]]:
        """The batches of one call each, `size` of them, and the last ones one by one."""
        iterator = iter(batches)
        while chunk := list(itertools.islice(iterator, size)):
            if len(chunk) == size:
                yield chunk
            else:
                yield from ([batch] for batch in chunk)

    def _until_asked(self, batches: Iterable[Examples]) -> Iterator[Examples]:
        for batch in batches:
            if self.loop.interrupts.asked:
                raise _Asked
            yield batch

    def _timed(self, chunks: Iterable[list[Examples]]) -> Iterator[list[Examples]]:
        """The same chunks, the time until each is there added to the clock."""
        iterator = iter(chunks)
        while True:
            began = time.perf_counter()
            chunk = next(iterator, None)
            self.clock.waited += time.perf_counter() - began
            if chunk is None:
                return
            yield chunk


class _Asked(Exception):  # noqa: N818 - it never leaves this module
    """An end was asked for between two batches of a validation."""


def _watches_batches(callback: keras.callbacks.Callback) -> bool:
    """Whether a callback overrides a hook that is called for every batch."""
    hooks = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
    own = [getattr(getattr(callback, hook), "__func__", None) for hook in hooks]
    return own != [getattr(keras.callbacks.Callback, hook) for hook in hooks]


def _check_finite(loss: float, what: str, epoch: int) -> None:
    if not math.isfinite(loss):
        raise DivergedError(
            f"the {what} of epoch {epoch + 1} is {loss}, so training cannot go on and no model was saved; try a lower "
            "--learning-rate, and check a model of your own for divisions and logarithms"
        )


def short(value: float) -> str:
    """Four decimals, or as many figures as a small learning rate needs."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"
