"""No row of the test split decides anything: it is read once, after the weights to keep are chosen and restored."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.forked import Forking
from support.learnable import write_shards
from support.sampled import sampled
from support.training import fit

from shardtrain.cli.main import main
from shardtrain.errors import CorruptShardError, ShardsError, UsageError
from shardtrain.inference.evaluate import evaluate
from shardtrain.inference.run import Run, load_run
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.training.options import CheckpointInterval, FitOptions
from shardtrain.training.run_folder import CHECKPOINTS, HISTORY, METRICS
from shardtrain.training.tune import tune
from shardtrain.training.tune_options import TuneOptions

QUICK: dict[str, Any] = {
    "engine": "keras",
    "batch_size": 32,
    "epochs": 4,
    "learning_rate": 0.05,
    "patience": 2,
    "mlp": MlpOptions(units=8),
}
TIMES = {
    "fit_seconds",
    "examples_per_second",
    "input_wait_fraction",
    "peak_memory_bytes",
    "model_sha256",
    "config_sha256",
}

# Trains, and kills itself after the first batch of test rows.
KILLED = """
import os, signal, sys
from pathlib import Path
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.training import loop
from shardtrain.training.fit import fit
from shardtrain.training.options import CheckpointInterval, FitOptions

measure = loop.Training.measure

def killed(self, split):
    if split.name != "test":
        return measure(self, split)
    self.engine.evaluate(list(split.batches(512))[:1])
    self.loop.save.__self__.finish()  # the checkpoint of the end is on its way
    os.kill(os.getpid(), signal.SIGKILL)

loop.Training.measure = killed
fit(open_shards(sys.argv[1]), FitOptions(engine="keras", batch_size=32, epochs=4, learning_rate=0.05, patience=2,
    mlp=MlpOptions(units=8), checkpoint_every=CheckpointInterval(4, "epochs")), out=Path(sys.argv[2]))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards with a test split of several batches, whose labels are partly noise."""
    return write_shards(tmp_path_factory.mktemp("shards") / "s", test_rows=1100, noise=0.3)


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with open_shards(folder) as shards:
        return fit(shards, FitOptions(**QUICK), out=tmp_path_factory.mktemp("run") / "run")


def metrics_of(run: Run) -> dict[str, Any]:
    return {name: value for name, value in run.metrics.items() if name not in TIMES}


def assert_same_weights(run: Run, other: Run) -> None:
    for ours, theirs in zip(run.load_model().get_weights(), other.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def flip(folder: Path) -> None:
    """Flip all bits of the test shard, in place since it is mapped already, and keep its times."""
    path = folder / "test-00000.h5"
    content, stat = np.fromfile(path, np.uint8), path.stat()
    with open(path, "r+b") as file:
        file.write((~content).tobytes())
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


class Unreadable(keras.callbacks.Callback):
    """Make every test row unreadable while the training runs."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def on_train_begin(self, logs: Any = None) -> None:
        flip(self.folder)

    def on_train_end(self, logs: Any = None) -> None:
        flip(self.folder)


def test_the_kept_weights_are_evaluated_on_the_test_split(folder: Path, trained: Run) -> None:
    with open_shards(folder) as shards:
        x, y = shards.test.rows(0, 1100)
    probabilities = trained.load_model()(x.toarray())
    expected = keras.losses.sparse_categorical_crossentropy(y.astype(int), probabilities)
    assert trained.metrics["test_examples"] == 1100
    assert trained.metrics["test_accuracy"] == pytest.approx(float(np.mean(np.argmax(probabilities, 1) == y)))
    assert trained.metrics["test_loss"] == pytest.approx(float(np.mean(expected)), rel=1e-5)
    assert "test" not in (trained.path / HISTORY).read_text()


def test_no_test_row_is_read_while_the_training_runs(folder: Path, trained: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    with open_shards(copy) as shards:
        flip(copy)
        with pytest.raises(CorruptShardError):  # so a row that was read would be noticed
            next(iter(shards.test.batches(8)))
        flip(copy)
    with open_shards(copy) as shards:
        run = fit(shards, FitOptions(**QUICK), out=tmp_path / "run", callbacks=[Unreadable(copy)])
    assert metrics_of(run) == metrics_of(trained)


def test_weights_and_history_are_those_without_a_test_split(folder: Path, trained: Run, tmp_path: Path) -> None:
    with open_shards(folder) as shards:
        del shards.splits["test"]
        without = fit(shards, FitOptions(**QUICK), out=tmp_path / "run")
    assert (without.path / HISTORY).read_bytes() == (trained.path / HISTORY).read_bytes()
    assert_same_weights(without, trained)
    assert {name for name in trained.metrics if name not in without.metrics} == {
        "test",
        "test_accuracy",
        "test_loss",
        "test_examples",
    }


def test_shards_that_are_damaged_in_the_test_split_alone_leave_a_training_to_resume(
    folder: Path, tmp_path: Path
) -> None:
    options = FitOptions(**{**QUICK, "engine": "fused"})
    with open_shards(folder) as shards:
        trained = fit(shards, options, out=tmp_path / "whole")
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    flip(copy)
    with open_shards(copy) as shards, pytest.raises(CorruptShardError, match=r"test-00000\.h5"):
        fit(shards, options, out=tmp_path / "run")
    assert not (tmp_path / "run" / METRICS).exists()
    flip(copy)
    with open_shards(copy) as shards:
        assert metrics_of(fit(shards, options, out=tmp_path / "run")) == metrics_of(trained)


@pytest.mark.parametrize("every", sampled(["60s", "4epochs"], (1,)))
def test_an_end_within_the_test_is_resumed_there(
    every: str, folder: Path, trained: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    interval = CheckpointInterval(int(every[:-1]), "s") if every == "60s" else CheckpointInterval(4, "epochs")
    options = FitOptions(**QUICK, checkpoint_every=interval)

    class Signal(keras.callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            signal.raise_signal(signal.SIGINT)

    class Nothing(keras.callbacks.Callback):
        pass

    Nothing.__qualname__ = Signal.__qualname__
    with open_shards(folder) as shards:
        with pytest.raises(KeyboardInterrupt):
            fit(shards, options, out=tmp_path / "run", callbacks=[Signal()])
        epochs = trained.metrics["epochs"]
        said = f"interrupted after the end of epoch {epochs}, and saved in '{tmp_path / 'run'}'; the same command"
        assert said in capsys.readouterr().err
        assert any((tmp_path / "run" / CHECKPOINTS).iterdir())
        run = fit(shards, options, out=tmp_path / "run", callbacks=[Nothing()])
    assert "epoch 1:" not in capsys.readouterr().err  # nothing is trained again
    assert metrics_of(run) == metrics_of(trained)
    assert_same_weights(run, trained)


@pytest.mark.slow
def test_a_kill_within_the_test_is_resumed_there(folder: Path, trained: Run, tmp_path: Path, forked: Forking) -> None:
    killed = forked.run(KILLED, folder, tmp_path / "run")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "run" / METRICS).exists()
    with open_shards(folder) as shards:
        options = FitOptions(**QUICK, checkpoint_every=CheckpointInterval(4, "epochs"))
        run = fit(shards, options, out=tmp_path / "run")
    assert metrics_of(run) == metrics_of(trained)
    assert_same_weights(run, trained)


@pytest.mark.heavy
def test_the_trials_of_a_study_read_no_test_row(folder: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    flip(copy)
    with open_shards(copy) as shards:
        base = FitOptions(batch_size=64, epochs=1, learning_rate=0.05)
        found = tune(shards, base, TuneOptions(space={"units": (4, 8)}), out=tmp_path / "study")
    assert len(found.trials) == 2
    assert "test_accuracy" not in found.run.read().metrics


def test_a_result_that_is_not_finite_is_null_and_reported(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    @keras.saving.register_keras_serializable("tests")
    def untestable(description: Any) -> keras.Model:
        inputs = keras.Input((description.num_features,))
        outputs = keras.layers.Dense(description.num_classes, activation="softmax")(inputs)
        return keras.Model(inputs, outputs)

    class Broken(keras.callbacks.Callback):
        def on_train_end(self, logs: Any = None) -> None:
            kernel, bias = self.model.layers[-1].get_weights()
            self.model.layers[-1].set_weights([kernel * np.nan, bias])

    with open_shards(folder) as shards:
        options = FitOptions(model=untestable, batch_size=64, epochs=1)
        run = fit(shards, options, out=tmp_path / "run", callbacks=[Broken()])
    assert run.metrics["test_loss"] is None
    assert "test_loss" in capsys.readouterr().err


@pytest.mark.heavy
def test_the_commands_print_it_and_evaluate_agrees_on_every_split(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train = ["fit", str(folder), "--out", str(run), "--epochs", "2", "--units", "8"]
    assert main(train) == 0
    lines = capsys.readouterr().out.splitlines()
    metrics = load_run(run).metrics
    low, high = metrics["test"]["accuracy_interval"]
    assert lines[-3:-1] == [
        f"test accuracy {metrics['test_accuracy']:.4f}, loss {metrics['test_loss']:.4f}, examples 1,100",
        f"  95 % interval {low:.4f} to {high:.4f}, majority baseline {metrics['test']['majority_accuracy']:.4f}, "
        f"macro F1 {metrics['test']['macro_f1']:.4f}",
    ]
    for split, examples in (("train", 300), ("validation", 100), ("test", 1100)):
        assert main(["evaluate", str(run), str(folder), "--split", split, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert (found["split"], found["examples"]) == (split, examples)
        with open_shards(folder) as shards:
            measured = evaluate(load_run(run), shards, split=split)
        assert measured == {"accuracy": found["accuracy"], "loss": found["loss"]}
        assert load_run(run).evaluate(folder, split=split) == measured
    expected = {"accuracy": metrics["test_accuracy"], "loss": metrics["test_loss"]}
    assert measured == pytest.approx(expected, rel=1e-6)  # computed without Keras
    assert main(["evaluate", str(run), str(folder)]) == 0
    assert capsys.readouterr().out.startswith("validation accuracy")
    assert main([*train, "--overwrite", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["test_accuracy"] == metrics["test_accuracy"]


def test_a_split_that_is_not_there_is_reported(folder: Path, trained: Run, tmp_path: Path) -> None:
    def of(name: str, shards: Shards) -> dict[str, float]:
        return evaluate(trained, shards, split=name)

    with open_shards(write_shards(tmp_path / "two")) as shards:
        with pytest.raises(ShardsError, match="has no test split; build from a folder with test"):
            of("test", shards)
        with pytest.raises(UsageError, match="no split 'dev'; choose one of train, validation, test"):
            of("dev", shards)
