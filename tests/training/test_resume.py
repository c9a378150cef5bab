"""A training that is killed goes on where its newest checkpoint was, and ends with the same bits."""

from __future__ import annotations

import random
import re
import shlex
import shutil
import signal
import time
import weakref
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.forked import Forking
from support.learnable import write_shards
from support.sampled import sampled
from support.training import fit
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

from shardtrain.cli.main import main
from shardtrain.errors import CheckpointError, DivergedError, RunExistsError, RunNotFoundError, UsageError
from shardtrain.inference.run import Run, load_run
from shardtrain.loader.info import DatasetInfo
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.layers import SparseDense
from shardtrain.models.options import MlpOptions
from shardtrain.runtime import atomic as durable
from shardtrain.training import checkpoint, keras_engine, loop, steps
from shardtrain.training.checkpoint import Checkpoints, read_checkpoint
from shardtrain.training.fused import FusedEngine
from shardtrain.training.options import CheckpointInterval, FitOptions
from shardtrain.training.run_folder import CHECKPOINTS, HISTORY, METRICS, MODEL, TENSORBOARD, RunFolder

# A training with all that has a state, in a process of its own. It kills itself a random moment after so many steps,
# counted in that process.
TRAINING = """
import os, random, signal, sys, threading, time
from pathlib import Path

import keras, numpy as np
from shardtrain.training.options import CheckpointInterval
from support.training import fit
from shardtrain.training.options import FitOptions
from shardtrain.models.guide import MlpOptions, SepcnnOptions
from shardtrain.loader.shards import open_shards


class Noting(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.heard, self.draws = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.heard.append((batch, logs["loss"]))

    def on_epoch_end(self, epoch, logs=None):
        self.draws += [random.random(), np.random.random()]
        logs["noted"] = sum(loss for _, loss in self.heard) + sum(self.draws)


def train(shards, out, steps, seed):
    done = 0

    def count(batch, logs):
        nonlocal done
        done += 1
        if done == int(steps):
            threading.Thread(target=kill).start()

    def kill():
        time.sleep(random.Random(seed).uniform(0, 0.05))
        os.kill(os.getpid(), signal.SIGKILL)

    random.seed(3)
    np.random.seed(3)
    callbacks = [
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=1),
        keras.callbacks.CSVLogger(out + ".csv"),
        Noting(),
        keras.callbacks.LambdaCallback(on_train_batch_end=count),
    ]
    options = FitOptions(
        batch_size=32, learning_rate=0.02, patience=3, epochs=12, mlp=MlpOptions(units=8, dropout=0.4),
        sepcnn=SepcnnOptions(filters=4, embedding_dim=8), checkpoint_every=CheckpointInterval(7, "steps"),
        tensorboard=True,
    )
    begun = Path(out, "config.json").exists()
    fit(open_shards(shards), options, out=Path(out), callbacks=callbacks, resume=begun)


train(*sys.argv[1:])
"""


class Driver:
    """Trains in new processes."""

    def __init__(self, forked: Forking) -> None:
        self.forked = forked

    def train(self, shards: Path, out: Path, *, steps: int = 0, seed: int = 0) -> tuple[int, str]:
        """Train, or go on with training, in a new process; how it ended, and what it said."""
        done = self.forked.run(TRAINING, shards, out, steps, seed)
        code, said = done.returncode, done.stderr.decode()
        assert code in (0, -signal.SIGKILL), said
        return code, said

    def finish(self, shards: Path, out: Path) -> None:
        code, said = self.train(shards, out)
        assert code == 0, said


@pytest.fixture(scope="module")
def driver(forked: Forking) -> Driver:
    return Driver(forked)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shards")
    return {kind: write_shards(root / kind, kind=kind, rows=400, noise=0.3) for kind in ("ngram", "sequence")}


class Whole:
    """Uninterrupted runs of both kinds, each trained when it is first asked for."""

    def __init__(self, driver: Driver, folders: dict[str, Path], root: Path) -> None:
        self._driver, self._folders, self._root = driver, folders, root

    def __getitem__(self, kind: str) -> Path:
        if not (self._root / kind).exists():
            self._driver.finish(self._folders[kind], self._root / kind)
        return self._root / kind


@pytest.fixture(scope="module")
def whole(driver: Driver, folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(driver, folders, tmp_path_factory.mktemp("whole"))


def assert_same_run(found: Path, expected: Path) -> None:
    """Weights, optimizer, history and results agree in every bit."""
    ours, theirs = load_run(found), load_run(expected)
    timed = {
        "fit_seconds",
        "examples_per_second",
        "input_wait_fraction",
        "peak_memory_bytes",
        "model_sha256",
        "config_sha256",
    }
    for name in theirs.metrics.keys() - timed:
        assert ours.metrics[name] == theirs.metrics[name], name
    assert (found / "history.csv").read_bytes() == (expected / "history.csv").read_bytes()
    models = [run.load_model() for run in (ours, theirs)]
    for one, other in zip(*(model.weights + model.optimizer.variables for model in models), strict=True):
        np.testing.assert_array_equal(one, other, err_msg=one.path)
    assert not (found / CHECKPOINTS).exists()
    assert events(found / TENSORBOARD) == events(expected / TENSORBOARD)


def events(board: Path) -> list[tuple[str, int, str, bytes]]:
    """What TensorBoard shows of a folder: split, step, name and value of each point."""
    return sorted(
        (path.parent.name, event.step, value.tag, value.tensor.SerializeToString())
        for path in board.rglob("*tfevents*")
        for event in EventFileLoader(str(path)).Load()
        for value in event.summary.value
    )


def resume_until_done(driver: Driver, shards: Path, out: Path, rng: random.Random, longest: int) -> int:
    """Train, and kill at random moments until the training has ended; how often it was killed."""
    kills = 0
    while driver.train(shards, out, steps=rng.randint(1, longest), seed=rng.randrange(10**6))[0]:
        kills += 1
    return kills


@pytest.mark.heavy
def test_a_corrupted_newest_checkpoint_changes_nothing(
    driver: Driver, folders: dict[str, Path], whole: Whole, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _ = driver.train(folders["ngram"], out, steps=30, seed=1)
    assert code == -signal.SIGKILL  # 13 steps an epoch, and 3 epochs of patience: it cannot have ended
    *_, older, newest = sorted((out / CHECKPOINTS).glob("checkpoint-????????"))  # killed before it removed the oldest
    damaged = bytearray(newest.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    newest.write_bytes(damaged)
    code, said = driver.train(folders["ngram"], out)
    assert code == 0, said
    assert f"'{newest}' is damaged" in said
    assert f"resuming from the one before, '{older.name}'" in said
    assert_same_run(out, whole["ngram"])
    assert (tmp_path / "out.csv").read_bytes() == (whole["ngram"].parent / "ngram.csv").read_bytes()


@pytest.mark.slow
@pytest.mark.heavy
def test_a_killed_sepcnn_equals_an_uninterrupted_one(
    driver: Driver, folders: dict[str, Path], whole: Whole, tmp_path: Path
) -> None:
    driver.train(folders["sequence"], tmp_path / "out", steps=34, seed=3)
    driver.finish(folders["sequence"], tmp_path / "out")
    assert_same_run(tmp_path / "out", whole["sequence"])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_killed_at_thirty_random_moments_equals_uninterrupted(
    driver: Driver, folders: dict[str, Path], whole: Whole, tmp_path: Path, kind: str
) -> None:
    rng, kills, runs = random.Random(3), 0, 0
    while kills < 30:
        kills += resume_until_done(driver, folders[kind], tmp_path / str(runs), rng, longest=60)
        assert_same_run(tmp_path / str(runs), whole[kind])
        runs += 1


# In one process


QUICK: dict[str, Any] = {
    "engine": "keras",
    "batch_size": 32,
    "learning_rate": 0.02,
    "mlp": MlpOptions(units=8),
    "epochs": 3,
}


@pytest.fixture(scope="module")
def shards(folders: dict[str, Path]) -> Shards:
    return open_shards(folders["ngram"])


class Signal(keras.callbacks.Callback):
    """Sends this process a signal after so many steps."""

    def __init__(self, steps: int = 0, number: int = signal.SIGINT) -> None:
        super().__init__()
        self.left, self.number = steps, int(number)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(self.number)


class Quiet(Signal):
    """The same with nothing to hear in a step, so that steps are called several at once."""

    on_train_batch_end = keras.callbacks.Callback.on_train_batch_end


@pytest.fixture(scope="module")
def uninterrupted(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Run:
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    return fit(shards, FitOptions(**QUICK), out=out, callbacks=[Signal()])


def interrupted(shards: Shards, out: Path, *callbacks: Signal, **changes: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(shards, FitOptions(**{**QUICK, **changes}), out=out, callbacks=callbacks or [Signal(18)])
    assert not (out / METRICS).exists()


@pytest.fixture(scope="module")
def stopped(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interrupted run that a test must not change."""
    out = tmp_path_factory.mktemp("stopped") / "run"
    interrupted(shards, out, Signal(5))
    return out


# What every engine shares is tested with the quicker one.
FUSED: dict[str, Any] = {**QUICK, "engine": "fused"}


@pytest.fixture(scope="module")
def uninterrupted_fused(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return fit(shards, FitOptions(**FUSED), out=tmp_path_factory.mktemp("uninterrupted") / "fused")


def assert_same_fused_run(found: Path, expected: Path) -> None:
    """Model and history agree in every bit."""
    for name in (MODEL, HISTORY):
        assert (found / name).read_bytes() == (expected / name).read_bytes(), name
    assert load_run(found).metrics["best_epoch"] == load_run(expected).metrics["best_epoch"]
    assert not (found / CHECKPOINTS).exists()


def stop_after_an_epoch(epoch: int, logs: Any) -> bool:
    signal.raise_signal(signal.SIGINT)
    return False


@pytest.mark.heavy
@pytest.mark.parametrize("number", sampled([signal.SIGINT, signal.SIGTERM], ids=["Ctrl-C", "SIGTERM"]))
def test_a_polite_end_finishes_the_step_saves_it_and_says_how_to_go_on(
    shards: Shards, uninterrupted: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], number: int
) -> None:
    before = signal.getsignal(number)
    interrupted(shards, tmp_path / "run", Signal(18, number))
    assert signal.getsignal(number) is before
    said = f"interrupted after step 5 of epoch 2, and saved in '{tmp_path / 'run'}'; the same command resumes it"
    assert said in capsys.readouterr().err
    before_that = read_checkpoint(max((tmp_path / "run" / CHECKPOINTS).iterdir()))["clock"]["before"]
    began = time.perf_counter()
    done = fit(shards, FitOptions(**QUICK), out=tmp_path / "run", callbacks=[Signal()])
    assert 0 < before_that < done.metrics["fit_seconds"] < before_that + time.perf_counter() - began
    assert "epoch 1:" not in capsys.readouterr().err
    assert_same_run(tmp_path / "run", uninterrupted.path)


def test_an_end_within_a_validation_begins_the_validation_again(
    shards: Shards, uninterrupted: Run, tmp_path: Path
) -> None:
    ends = [signal.SIGTERM]

    class Counting(Signal):
        def __init__(self) -> None:
            super().__init__()
            self.tests = 0

        def on_test_begin(self, logs: Any = None) -> None:
            self.tests += 1
            if self.tests == 2 and ends:
                signal.raise_signal(ends.pop())

    interrupted(shards, tmp_path / "run", Counting())
    again = Counting()
    fit(shards, FitOptions(**QUICK), out=tmp_path / "run", callbacks=[again], resume=True)
    assert again.tests == uninterrupted.metrics["epochs"]
    assert_same_run(tmp_path / "run", uninterrupted.path)


def test_a_second_ctrl_c_does_not_wait_for_the_step() -> None:
    with loop.Interrupts() as interrupts:
        signal.raise_signal(signal.SIGINT)
        assert interrupts.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_steps_called_several_at_once_are_those_of_single_calls_also_after_an_interruption(
    shards: Shards, uninterrupted: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras_engine, "MULTI_STEP_FROM", 1)
    calls: list[int] = []
    advance = steps.Steps.advance

    def counting(self: steps.Steps, batches: Any) -> Any:
        calls.append(len(batches))
        if len(calls) == 6:
            signal.raise_signal(signal.SIGINT)
        return advance(self, batches)

    monkeypatch.setattr(steps.Steps, "advance", counting)
    interrupted(shards, tmp_path / "run", Quiet())
    assert calls == [4, 4, 4, 1, 4, 4]  # 13 steps an epoch
    fit(shards, FitOptions(**QUICK), out=tmp_path / "run", callbacks=[Quiet()])
    assert_same_run(tmp_path / "run", uninterrupted.path)


@pytest.mark.parametrize("engine", ["fused", "keras"])
def test_a_resumed_training_does_not_keep_the_state_that_it_read(
    shards: Shards, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    """The weights and moments in it are as large as the model, and the memory that is said has no room for them."""
    options, callbacks = FitOptions(**{**QUICK, "engine": engine}), [Signal()] if engine == "keras" else []
    if engine == "keras":
        shutil.copytree(stopped, tmp_path / "run")
    else:
        with pytest.raises(KeyboardInterrupt):
            fit(shards, options, out=tmp_path / "run", watch=stop_after_an_epoch)
    held: list[weakref.ref[Any]] = []

    def reading(*arguments: Any) -> Any:
        state = read_checkpoint(*arguments)
        held.extend(weakref.ref(array) for group in state["variables"].values() for array in group["values"])
        return state

    monkeypatch.setattr(checkpoint, "read_checkpoint", reading)
    kept: list[int] = []

    def count(epoch: int, logs: Any) -> bool:
        kept.append(sum(array() is not None for array in held))
        return True

    fit(shards, options, out=tmp_path / "run", callbacks=callbacks, watch=count)
    assert held
    assert kept == [0]


def test_a_training_that_ended_but_was_not_saved_is_only_saved(
    shards: Shards, uninterrupted_fused: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = durable.committed

    def killed(path: Any, **options: Any) -> Any:
        if Path(path).name == METRICS:
            raise RuntimeError("killed")
        return real(path, **options)

    with monkeypatch.context() as patched:
        patched.setattr(durable, "committed", killed)
        with pytest.raises(RuntimeError, match="killed"):
            fit(shards, FitOptions(**FUSED), out=tmp_path / "run")
        assert sorted(path.name for path in (tmp_path / "run").iterdir())[0] == CHECKPOINTS
    monkeypatch.setattr(FusedEngine, "advance", None)
    with monkeypatch.context() as patched:
        patched.setattr(Checkpoints, "remove", lambda self: None)  # killed once more, after everything was saved
        fit(shards, FitOptions(**FUSED), out=tmp_path / "run")
    with pytest.raises(RunExistsError, match=r"finished run that was started differently: seed was 1, it is 2 now"):
        fit(shards, FitOptions(**FUSED, seed=2), out=tmp_path / "run")
    fit(shards, FitOptions(**FUSED), out=tmp_path / "run")
    assert_same_fused_run(tmp_path / "run", uninterrupted_fused.path)


def test_a_full_disk_ends_a_run_that_can_be_gone_on_with(
    shards: Shards, uninterrupted_fused: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    real, syncs = os.fsync, 0

    def full(descriptor: int) -> None:
        nonlocal syncs
        syncs += 1
        if syncs > 12:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr("shardtrain.runtime.atomic.os.fsync", full)
        with pytest.raises(OSError, match="run the same command again"):
            fit(shards, FitOptions(**FUSED), out=tmp_path / "run")
    fit(shards, FitOptions(**FUSED), out=tmp_path / "run")
    assert_same_fused_run(tmp_path / "run", uninterrupted_fused.path)


# What is refused


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 2}, "seed was 1, it is 2 now"),
        ({"batch_size": 16}, "batch_size was 32, it is 16 now"),
        ({"mlp": MlpOptions(units=9)}, "units was 8, it is 9 now"),
        ({"epochs": 4}, "epochs was 3, it is 4 now"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_another_training_is_refused_with_the_difference_before_a_model_is_made(
    shards: Shards, stopped: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], said: str
) -> None:
    monkeypatch.setattr("shardtrain.training.fit._prepared", None)
    before = sorted(stopped.rglob("*"))
    with pytest.raises(RunExistsError, match=rf"{said}; run that command again .* overwrite"):
        fit(shards, FitOptions(**{**QUICK, **changes}), out=stopped, callbacks=[Signal()])
    assert sorted(stopped.rglob("*")) == before


def test_other_shards_are_refused(stopped: Path, tmp_path: Path) -> None:
    said = r"the shards are different \(fingerprint was shards 0, it is shards 9 now\)"
    with (
        open_shards(write_shards(tmp_path / "s", rows=400, seed=9)) as other,
        pytest.raises(RunExistsError, match=said),
    ):
        fit(other, FitOptions(**QUICK), out=stopped, callbacks=[Signal()])


def test_other_callbacks_are_refused(shards: Shards, stopped: Path) -> None:
    with pytest.raises(CheckpointError, match=r"the callbacks were KeepBest, Signal, .* they are KeepBest, L"):
        fit(shards, FitOptions(**QUICK), out=stopped)


def test_how_often_checkpoints_are_written_may_change_and_another_machine_is_told(
    shards: Shards,
    stopped: Path,
    uninterrupted: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    monkeypatch.setattr("shardtrain.training.resume.platform.machine", lambda: "abacus")
    options = FitOptions(**QUICK, checkpoint_every=CheckpointInterval(1, "steps"))
    fit(shards, options, out=tmp_path / "run", callbacks=[Signal()])
    assert re.search(r"machine was \w+, it is abacus now: the result may differ", capsys.readouterr().err)
    assert_same_run(tmp_path / "run", uninterrupted.path)


def users_model(*, first: str | None = None, units: int = 4, rate: float = 0.5) -> Any:
    def model(description: DatasetInfo) -> keras.Model:
        inputs = keras.Input((description.num_features,), sparse=True)
        hidden = SparseDense(units, **({} if first is None else {"name": first}))(inputs)
        hidden = keras.layers.Dense(units)(keras.layers.Dropout(rate)(hidden))
        return keras.Model(inputs, keras.layers.Dense(description.num_classes, activation="softmax")(hidden))

    return model


@pytest.fixture(scope="module")
def stopped_users(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interrupted run of a user's model that a test must not change."""
    out = tmp_path_factory.mktemp("stopped") / "users"
    interrupted(shards, out, Signal(5), model=users_model(), mlp=MlpOptions())
    return out


@pytest.mark.heavy
def test_a_users_model_goes_on_although_keras_numbers_its_names_anew(
    shards: Shards, stopped_users: Path, tmp_path: Path
) -> None:
    options = {**QUICK, "mlp": MlpOptions(), "model": users_model()}
    straight = fit(shards, FitOptions(**options), out=tmp_path / "straight", callbacks=[Signal()])
    shutil.copytree(stopped_users, tmp_path / "run")
    fit(shards, FitOptions(**options), out=tmp_path / "run", callbacks=[Signal()])
    assert_same_run(tmp_path / "run", straight.path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *sampled(
            [
                ({"first": "hidden"}, r"the model's\.config.*\.1\.config\.name was sparse_dense, it is hidden now"),
                ({"units": 5}, r"the model's\.config.*\.units was 4, it is 5 now"),
                ({"rate": 0.4}, r"the model's\.config.*\.rate was 0\.5, it is 0\.4 now"),
            ],
            (0, 2),
            ["renamed", "reshaped", "with another dropout"],
        )
    ],
)
def test_a_changed_model_is_refused(shards: Shards, stopped_users: Path, change: dict[str, Any], said: str) -> None:
    options = FitOptions(**{**QUICK, "mlp": MlpOptions()}, model=users_model(**change))
    with pytest.raises(RunExistsError, match=said):
        fit(shards, options, out=stopped_users, callbacks=[Signal()])


def test_variables_that_do_not_match_are_refused_and_none_is_changed(shards: Shards, stopped: Path) -> None:
    from shardtrain.models.guide import mlp, prepare
    from shardtrain.training import state

    model = mlp(shards.description, MlpOptions(units=8), seed=5)
    made = steps.Steps(model, prepare(model, shards.description, learning_rate=0.1))
    _ = made.train
    variables = read_checkpoint(max((stopped / CHECKPOINTS).iterdir()))["variables"]
    described = variables["model"]["described"][-1]
    before = model.get_weights()
    for place, wrong in enumerate(("out/bias", [4])):
        described[:2] = ["output/bias", [3]]
        described[place] = wrong
        with pytest.raises(CheckpointError, match=r"of the model differ from .*'output.* of shape \(3,\).* now"):
            state.restore_variables(made, variables)
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    described[:2] = ["output/bias", [3]]
    state.restore_variables(made, variables)
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_overwrite_gives_an_interrupted_training_up(
    shards: Shards, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    with pytest.raises(UsageError, match="omit one of them"):
        fit(shards, FitOptions(**QUICK), out=tmp_path / "run", overwrite=True, resume=True)
    changed = FitOptions(**QUICK, seed=2)
    with pytest.raises(KeyboardInterrupt):
        fit(shards, changed, out=tmp_path / "run", overwrite=True, callbacks=[Signal(1)])
    assert "step 1 of epoch 1, and saved" in (said := capsys.readouterr().err)
    assert "the same command without --overwrite resumes it" in said


def test_a_training_that_had_saved_nothing_begins_again_and_is_no_other_one_when_resumed(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(self: FusedEngine, batches: Any) -> Any:
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(FusedEngine, "advance", killed)
        with pytest.raises(RuntimeError, match="killed"):
            fit(shards, FitOptions(**FUSED), out=tmp_path / "run")
    with pytest.raises(RunExistsError, match="seed was 1, it is 2 now"):
        fit(shards, FitOptions(**FUSED, seed=2), out=tmp_path / "run", resume=True)
    fit(shards, FitOptions(**{**FUSED, "epochs": 1}), out=tmp_path / "run")
    assert f"the interrupted training in '{tmp_path / 'run'}' had saved no checkpoint yet" in capsys.readouterr().err


def test_what_a_callback_holds_and_no_checkpoint_can_keep_is_told(
    shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Holding(Signal):
        def __init__(self) -> None:
            super().__init__(1)
            self.seen, self.measure, self.counts = {1, 2}, np.mean, [0]

    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    with pytest.raises(KeyboardInterrupt):
        fit(shards, FitOptions(**QUICK), out=tmp_path / "run", callbacks=[Holding(), logger])
    logger.csv_file.close()  # as the end of a process does
    told = [line for line in capsys.readouterr().err.splitlines() if "checkpoints do not hold" in line]
    assert len(told) == 1
    assert re.search(r"do not hold 'seen' of the callback .*Holding, which is a set; ", told[0])


def test_a_training_that_diverged_leaves_no_checkpoint_to_go_on_from(shards: Shards, tmp_path: Path) -> None:
    class Explode(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = 1e36

    with pytest.raises(DivergedError, match="of epoch 2"):
        fit(shards, FitOptions(**QUICK), out=tmp_path / "run", callbacks=[Explode()])
    assert not (tmp_path / "run" / CHECKPOINTS).exists()


def test_a_file_of_others_among_the_checkpoints_ends_no_training_and_bars_no_other_one(
    shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options, stray = FitOptions(**FUSED), tmp_path / "run" / CHECKPOINTS / ".DS_Store"
    with pytest.raises(KeyboardInterrupt):
        fit(shards, options, out=tmp_path / "run", watch=stop_after_an_epoch)
    stray.write_text("of a file manager")
    fit(shards, options, out=tmp_path / "run")
    assert f"'{stray}' is no checkpoint, so it stays" in capsys.readouterr().err
    with pytest.raises(RunExistsError, match="holds a finished run; choose another out, or pass overwrite"):
        fit(shards, options, out=tmp_path / "run")
    fit(shards, options, out=tmp_path / "run", overwrite=True)
    assert stray.exists()


def test_a_folder_in_which_a_training_runs_is_refused(shards: Shards, stopped: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with RunFolder(tmp_path / "run").work.held(), pytest.raises(RunExistsError, match="another training is running"):
        fit(shards, FitOptions(**FUSED), out=tmp_path / "run")
    with RunFolder(stopped).work.held(), pytest.raises(RunExistsError, match="another training is running"):
        fit(shards, FitOptions(**QUICK, seed=2), out=stopped)  # also where another one would be refused


# The command


def test_the_command_line_resumes_the_newest_interrupted_run(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["fit", str(folders["ngram"]), "--epochs", "3", "--batch-size", "32", "--units", "4", "--engine", "fused"]
    assert main([*command, "--resume"]) == 1
    assert "no interrupted run of the model mlp in 'runs'; omit --resume" in capsys.readouterr().err
    advance, calls = FusedEngine.advance, 0

    def interrupting(self: FusedEngine, batches: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 10:  # of 7 an epoch
            signal.raise_signal(signal.SIGTERM)
        return advance(self, batches)

    monkeypatch.setattr(FusedEngine, "advance", interrupting)
    monkeypatch.setattr("shardtrain.training.fused.GROUP_ROWS", 64)
    assert main(command) == 130
    assert "saved in 'runs/mlp-1'; the same command with --resume resumes it" in capsys.readouterr().err
    Path("runs/mlp-1").rename("runs/named by hand")
    shutil.copytree("runs/named by hand", "copy of it")
    assert main(["predict", "copy of it", "a text"]) == 1
    (resume,) = re.findall(r"unfinished run .* resume it with `python -m shardtrain (.*)`", capsys.readouterr().err)
    assert main([*command, "--resume"]) == 0
    assert "resuming the interrupted training in 'runs/named by hand'" in capsys.readouterr().err
    assert main(shlex.split(resume)) == 0
    assert "resuming the interrupted training in 'copy of it'" in capsys.readouterr().err
    assert main([*command, "--out", "straight"]) == 0
    assert_same_fused_run(Path("runs/named by hand"), Path("straight"))
    assert_same_fused_run(Path("copy of it"), Path("straight"))
    assert main([*command, "--resume", "--out", "straight"]) == 0
    assert "the run in 'straight' is finished" in capsys.readouterr().err
    assert main([*command, "--resume", "--out", "straight", "--seed", "7"]) == 1
    assert "--seed was 1, it is 7 now" in capsys.readouterr().err


def test_resuming_what_is_not_there_is_an_error(shards: Shards, tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match="no interrupted training in"):
        fit(shards, FitOptions(**QUICK), out=tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


# TensorBoard


@pytest.mark.heavy
@pytest.mark.parametrize("kind", sampled(["ngram", "sequence"]))
def test_events_of_a_killed_training_are_there_once_and_are_those_of_every_epoch(whole: Whole, kind: str) -> None:
    written = events(whole[kind] / TENSORBOARD)
    epochs = range(load_run(whole[kind]).metrics["epochs"])
    assert [step for split, step, name, _ in written if (split, name) == ("train", "epoch_loss")] == [*epochs]
    assert [step for split, step, name, _ in written if (split, name) == ("validation", "epoch_loss")] == [*epochs]
    assert len({point[:3] for point in written}) == len(written)


@pytest.mark.slow
def test_a_folder_for_events_is_the_training_s_own_and_an_interrupted_one_goes_on_in_it(
    shards: Shards, uninterrupted: Run, tmp_path: Path
) -> None:
    board = tmp_path / "board"
    interrupted(shards, tmp_path / "run", tensorboard=board)
    with pytest.raises(RunExistsError, match=r"holds events of another training"):
        fit(shards, FitOptions(**QUICK, tensorboard=board), out=tmp_path / "other", callbacks=[Signal()])
    assert not (tmp_path / "other").exists()
    with pytest.raises(RunExistsError, match=r"tensorboard was .*board, it is none now"):
        fit(shards, FitOptions(**QUICK), out=tmp_path / "run", callbacks=[Signal()])
    done = fit(shards, FitOptions(**QUICK, tensorboard=board), out=tmp_path / "run", callbacks=[Signal()])
    assert_same_run(tmp_path / "run", uninterrupted.path)
    options = FitOptions(**{**QUICK, "epochs": 1}, tensorboard=board)
    again = fit(shards, options, out=done.path, callbacks=[Signal()], overwrite=True)
    assert [step for split, step, name, _ in events(board) if (split, name) == ("train", "epoch_loss")] == [
        *range(again.metrics["epochs"])
    ]


def test_the_command_line_writes_events_into_the_run_folder_and_refuses_shards_as_a_folder_for_them(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["fit", str(folders["ngram"]), "--epochs", "1", "--units", "8", "--out", str(tmp_path / "run")]
    assert main([*given, "--tensorboard"]) == 0
    assert {split for split, *_ in events(tmp_path / "run" / TENSORBOARD)} == {"train", "validation"}
    assert main(["fit", "--tensorboard", str(folders["ngram"])]) == 2
    assert "name the shards first" in capsys.readouterr().err


def test_an_interruption_that_a_library_swallowed_before_the_training_stops_it(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards")
    with open_shards(folder) as shards, pytest.MonkeyPatch.context() as patched:
        patched.setattr("shardtrain.training.loop.interrupted", lambda: True)
        with pytest.raises(KeyboardInterrupt):
            fit(shards, FitOptions(epochs=3), out=tmp_path / "run")
    with open_shards(folder) as shards:
        assert fit(shards, FitOptions(epochs=3), out=tmp_path / "run").metrics["epochs"] >= 1
