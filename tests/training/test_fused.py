"""Laws of training with the fused engine: no TensorFlow, an ordinary run, and the same bits after kills."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.forked import Forking, forking
from support.learnable import write_shards
from support.sampled import sampled
from support.topics import TOPICS, write_corpus

from shardtrain.arrays.csr import Csr
from shardtrain.cli.main import main
from shardtrain.engine.keras_file import read_keras
from shardtrain.engine.network import Network, Shape, Team
from shardtrain.engine.optimizers import OPTIMIZERS
from shardtrain.engine.scaling import naive_bayes_scales
from shardtrain.engine.trainer import Trainer
from shardtrain.errors import (
    CheckpointError,
    MissingExtraError,
    RunExistsError,
    ShardsError,
    ShardtrainError,
    UsageError,
)
from shardtrain.inference.run import load_run
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.options import MlpOptions, SepcnnOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.checkpoint import has_checkpoint
from shardtrain.training.engine import capture_generators
from shardtrain.training.event_log import EventLog
from shardtrain.training.fit import fit
from shardtrain.training.fused import FusedEngine
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import CHECKPOINTS
from shardtrain.training.stopping import KeepBest, Plateau

if TYPE_CHECKING:
    import keras

OPTIONS: dict[str, Any] = {
    "engine": "fused",
    "batch_size": 32,
    "learning_rate": 0.02,
    "epochs": 8,
    "patience": 3,
    "mlp": MlpOptions(units=8, dropout=0.3),
}
STARTED = {"position": {"step": 0, "epoch": 0}, "generators": capture_generators(), "stop": False}
# Trains, and kills itself a random moment after so many calls of the engine; 0: not at all.
TRAINING = """
import os, random, signal, sys, threading, time
from pathlib import Path
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.training.fit import fit
from shardtrain.training.options import CheckpointInterval, FitOptions
from shardtrain.training import fused

shards, out, optimizer, threads, calls = sys.argv[1:]
fused.GROUP_ROWS = 64
fused.cores = lambda: int(threads)
options = FitOptions(
    engine="fused", optimizer=optimizer, batch_size=32, learning_rate=0.02, epochs=8, patience=3, schedule="plateau",
    mlp=MlpOptions(units=8, dropout=0.3), class_weight="balanced", clip_norm=0.5,
    checkpoint_every=CheckpointInterval(3, "steps"),
)
advance, left = fused.FusedEngine.advance, int(calls)
def kill():
    time.sleep(random.Random(calls).uniform(0, 0.01))
    os.kill(os.getpid(), signal.SIGKILL)
def counting(self, batches):
    global left
    left -= 1
    if left == 0:
        threading.Thread(target=kill, daemon=True).start()
    return advance(self, batches)
fused.FusedEngine.advance = counting
fit(open_shards(shards), options, out=Path(out), resume=Path(out, "config.json").exists())
print("tensorflow" in sys.modules, "keras" in sys.modules)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "ngram", rows=400, test_rows=60, noise=0.3)


@pytest.fixture(scope="module")
def shards(folder: Path) -> Shards:
    return open_shards(folder)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """Runs code in new processes in which TensorFlow is not imported."""
    with forking(
        tmp_path_factory.mktemp("forked"),
        "import shardtrain.cli.main, shardtrain.training.fit, shardtrain.training.fused",
    ) as server:
        yield server


@pytest.mark.heavy
@pytest.mark.parametrize(("optimizer", "kills"), sampled([("row-adagrad", 1), ("adam", 30), ("adagrad", 30)]))
def test_killed_and_gone_on_with_by_any_number_of_threads_it_ends_the_same(
    folder: Path, tmp_path: Path, light: Forking, optimizer: str, kills: int
) -> None:
    whole = light.run(TRAINING, folder, tmp_path / "whole", optimizer, 1, 0)
    assert whole.stdout == b"False False\n", whole.stderr
    rng, killed, kept = random.Random(4), 0, 0
    for number in range(100):
        out = tmp_path / f"out{number % 3}"
        done = light.run(TRAINING, folder, out, optimizer, rng.choice([2, 3, 8]), rng.randint(10, 27))
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        killed += done.returncode != 0
        kept += done.returncode != 0 and has_checkpoint(out / CHECKPOINTS)
        if killed == kills:
            break
        if done.returncode == 0:  # it was near its end, and is finished
            shutil.rmtree(out)
    assert killed == kills
    assert kept
    for out in tmp_path.glob("out?"):
        done = light.run(TRAINING, folder, out, optimizer, 2, 0)
        assert done.returncode == 0, done.stderr
        for name in ("model.keras", "history.csv"):
            assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


@pytest.mark.heavy
@pytest.mark.parametrize("model", ["mlp", "linear"])
def test_the_run_is_one_like_any_other(shards: Shards, tmp_path: Path, model: str) -> None:
    options = FitOptions(**{**OPTIONS, "model": model, "mlp": OPTIONS["mlp"] if model == "mlp" else MlpOptions()})
    run = load_run(fit(shards, options, out=tmp_path / "run").path)
    assert run.metrics["val_accuracy"] > 0.6  # of three classes, a third of whose labels are random
    measured = run.evaluate(shards)
    assert measured["accuracy"] == pytest.approx(run.metrics["val_accuracy"])
    assert measured["loss"] == pytest.approx(run.metrics["val_loss"], rel=1e-5)
    tested = run.evaluate(shards, split="test")
    assert tested["accuracy"] == pytest.approx(run.metrics["test_accuracy"])
    x, y = next(iter(shards.split("test").batches(60)))
    found = run.classifier().classify_rows(x)
    assert np.mean(found.probabilities.argmax(axis=1) == y) == pytest.approx(tested["accuracy"])
    network = read_keras(tmp_path / "run" / "model.keras", Shape.of(40, 3, 2 if model == "mlp" else 1, 8))
    assert np.isfinite(network.wide).all()


def interrupt_at(monkeypatch: pytest.MonkeyPatch, call: int) -> None:
    """Press Ctrl-C when the engine is called for the `call`-th time."""
    advance, calls = FusedEngine.advance, 0

    def interrupting(self: FusedEngine, batches: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            os.kill(os.getpid(), signal.SIGINT)
        return advance(self, batches)

    monkeypatch.setattr(FusedEngine, "advance", interrupting)


def test_ctrl_c_saves_and_the_same_command_goes_on(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fit(shards, FitOptions(**OPTIONS), out=tmp_path / "whole")
    interrupt_at(monkeypatch, 3)
    monkeypatch.setattr("shardtrain.training.fused.GROUP_ROWS", 64)
    with pytest.raises(KeyboardInterrupt):
        fit(shards, FitOptions(**OPTIONS), out=tmp_path / "out")
    assert "interrupted after step 6 of epoch 1" in capsys.readouterr().err
    with pytest.raises(RunExistsError, match="optimizer was lazy-adam, it is sgd now"):
        fit(shards, FitOptions(**{**OPTIONS, "optimizer": "sgd"}), out=tmp_path / "out")
    done = fit(shards, FitOptions(**OPTIONS), out=tmp_path / "out")
    assert (done.path / "model.keras").read_bytes() == (whole.path / "model.keras").read_bytes()


def test_a_checkpoint_of_another_network_is_refused_and_nothing_is_changed(shards: Shards) -> None:
    engine, other = engine_of(shards), engine_of(shards)
    saved = {**STARTED, "variables": other.capture_variables(), "callbacks": other.capture_hooks()}
    engine.training_begins(8, 13, saved)
    saved["variables"]["model"]["described"][0][1] = [3, 8]
    with pytest.raises(CheckpointError, match="arrays of the model differ"):
        engine.training_begins(8, 13, saved)
    sound = {**saved, "variables": other.capture_variables()}
    for attributes, said in (({"best_weights": [1]}, "best weights are of another"), ({"wait": -1}, "makes no sense")):
        hooks = [{"class": "KeepBest", "attributes": {**other.best.state(), **attributes}}]
        with pytest.raises(CheckpointError, match=said):
            engine_of(shards).training_begins(8, 13, {**sound, "callbacks": hooks})
    with pytest.raises(CheckpointError, match="has the hooks"):
        engine.training_begins(8, 13, {**sound, "callbacks": []})


def engine_of(shards: Shards) -> FusedEngine:
    from shardtrain.engine.network import Network, Team
    from shardtrain.engine.optimizers import OPTIMIZERS
    from shardtrain.engine.trainer import Trainer

    team = Team(1)
    trainer = Trainer(Network(Shape.of(40, 3, 2, 8)), OPTIMIZERS["adam"], team, seed=1)
    return FusedEngine(trainer, team, FitOptions(**OPTIONS), 100)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"mixed_precision": True}, "not with mixed_precision=True; use engine keras"),
        ({"devices": ("CPU:0",)}, "not with devices"),
        ({"model": "sepcnn", "mlp": MlpOptions(), "sepcnn": SepcnnOptions()}, "sepcnn needs sequence features"),
    ],
)
def test_what_it_does_not_have_is_refused_and_leaves_nothing(
    shards: Shards, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    with pytest.raises(ShardtrainError, match=said):
        fit(shards, FitOptions(**{**OPTIONS, **more}), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_optimizers_of_the_fused_engine_alone_are_refused_for_keras() -> None:
    with pytest.raises(UsageError, match="row-adagrad is one of"):
        FitOptions(engine="keras", optimizer="row-adagrad")


def test_the_command_says_what_it_did(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["fit", str(folder), "--engine", "fused", "--optimizer", "lazy-adam", "--epochs", "2", "--json"]
    assert main([*command, "--out", str(tmp_path / "run")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["epochs"] == 2
    assert found["test_examples"] == 60


# TensorBoard


def curves(board: Path) -> dict[tuple[str, str], list[int]]:
    """The steps of each curve, by split and name, as TensorBoard's own reader has them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = {}
    for split in ("train", "validation"):
        events = EventAccumulator(str(board / split)).Reload()
        for name in events.Tags()["tensors"]:
            found[split, name] = [event.step for event in events.Tensors(name)]
    return found


def values(board: Path, split: str, name: str) -> list[float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(board / split)).Reload()
    return [float(make_ndarray(event.tensor_proto)) for event in events.Tensors(name)]


@pytest.mark.heavy
@pytest.mark.parametrize("schedule", sampled(["constant", "cosine", "plateau"], (1,)))
def test_its_curves_are_those_that_keras_writes(shards: Shards, tmp_path: Path, schedule: str) -> None:
    options = {**OPTIONS, "epochs": 2, "schedule": schedule, "tensorboard": True}
    runs = {
        engine: fit(shards, FitOptions(**{**options, "engine": engine}), out=tmp_path / engine).path
        for engine in ("keras", "fused")
    }
    expected, found = (curves(runs[engine] / "tensorboard") for engine in ("keras", "fused"))
    expected.pop(("train", "keras"))  # the graph of a model of Keras
    assert found == expected
    rates = [values(run / "tensorboard", "train", "epoch_learning_rate") for run in runs.values()]
    assert rates[0] == pytest.approx(rates[1], rel=1e-5)
    history = [line.split(",") for line in (runs["fused"] / "history.csv").read_text().split()]
    for split, name in (("train", "loss"), ("train", "accuracy"), ("validation", "loss"), ("validation", "accuracy")):
        column = history[0].index(name if split == "train" else f"val_{name}")
        logged = [float(line[column]) for line in history[1:]]
        assert values(runs["fused"] / "tensorboard", split, f"epoch_{name}") == pytest.approx(logged, rel=1e-6)


def test_events_after_the_checkpoint_are_cut_when_training_goes_on(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**OPTIONS, "epochs": 4, "patience": 9, "checkpoint_every": "2 epochs", "tensorboard": tmp_path / "board"}
    add_epoch = EventLog.add_epoch

    def dying(self: EventLog, epoch: int, *rest: Any) -> None:
        add_epoch(self, epoch, *rest)
        if epoch == 2:  # after the checkpoint of two epochs
            raise RuntimeError("killed")

    with monkeypatch.context() as patch:
        patch.setattr(EventLog, "add_epoch", dying)
        with pytest.raises(RuntimeError, match="killed"):
            fit(shards, FitOptions(**options), out=tmp_path / "run")
    assert curves(tmp_path / "board")["train", "epoch_loss"] == [0, 1, 2]
    other = {**options, "tensorboard": False}
    with pytest.raises(RunExistsError, match="tensorboard was"):
        fit(shards, FitOptions(**other), out=tmp_path / "run")
    fit(shards, FitOptions(**options), out=tmp_path / "run")
    assert all(len(steps) == len(set(steps)) == 4 for steps in curves(tmp_path / "board").values())
    with pytest.raises(RunExistsError, match="holds events of another training"):
        fit(shards, FitOptions(**options), out=tmp_path / "other")
    fit(shards, FitOptions(**{**options, "epochs": 2}), out=tmp_path / "run", overwrite=True)
    assert curves(tmp_path / "board")["train", "epoch_loss"] == [0, 1]


def test_events_are_written_without_tensorflow_and_refused_without_tensorboard(
    folder: Path, shards: Shards, tmp_path: Path, light: Forking, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "import sys\nfrom shardtrain.cli.main import main\ncode = main(sys.argv[1:])\n"
        "print(code, *{'tensorflow', 'keras'} & set(sys.modules))"
    )
    command = ["fit", str(folder), "--engine", "fused", "--epochs", "1", "--tensorboard", "--quiet"]
    done = light.run(code, *command, "--out", tmp_path / "run")
    assert done.stdout.splitlines()[-1] == b"0", done.stderr
    assert ("validation", "epoch_accuracy") in curves(tmp_path / "run" / "tensorboard")
    monkeypatch.setattr("shardtrain.training.tensorboard_folder.importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"shardtrain\[tensorboard\]"):
        fit(shards, FitOptions(**OPTIONS, tensorboard=True), out=tmp_path / "other")
    assert not (tmp_path / "other").exists()


LOSSES = st.lists(st.floats(0.01, 2.0), min_size=1, max_size=30)


@pytest.fixture(scope="module")
def small_model() -> keras.Model:
    import keras

    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd")
    return model


@pytest.mark.heavy
@settings(max_examples=60, deadline=None)
@given(losses=LOSSES, patience=st.integers(1, 4))
def test_stopping_and_plateaus_are_those_of_keras(small_model: keras.Model, losses: list[float], patience: int) -> None:
    import keras

    model = small_model
    model.optimizer.learning_rate = 0.01
    theirs = keras.callbacks.EarlyStopping("val_loss", patience=patience, restore_best_weights=True)
    their_rate = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.5, patience=patience)
    ours, our_rate = KeepBest(patience), Plateau(patience, 0.5)
    for callback in (theirs, their_rate):
        callback.set_model(model)
        callback.on_train_begin()
    first = float(model.optimizer.learning_rate)
    for epoch, loss in enumerate(losses):
        model.stop_training = False
        theirs.on_epoch_end(epoch, {"val_loss": loss})
        their_rate.on_epoch_end(epoch, {"val_loss": loss})
        our_rate.epoch_ends({"val_loss": loss})
        assert ours.epoch_ends(epoch, {"val_loss": loss}, lambda epoch=epoch: [epoch]) == model.stop_training
        assert (ours.best_epoch, ours.wait) == (theirs.best_epoch, theirs.wait)
        assert float(model.optimizer.learning_rate) == pytest.approx(first * our_rate.factor)


@pytest.mark.heavy
@pytest.mark.parametrize("schedule", ["constant", "cosine", "linear", "exponential"])
def test_rates_are_those_of_keras_schedules(shards: Shards, schedule: str) -> None:
    from shardtrain.models.schedules import learning_rate

    engine = engine_of(shards)
    engine._options = FitOptions(**{**OPTIONS, "schedule": schedule})
    rate = learning_rate(schedule, 0.02, 100)
    for step in (0, 1, 50, 99, 100):
        assert engine._rate(step) == pytest.approx(float(rate(step) if callable(rate) else rate), abs=1e-8)


def test_a_run_on_shards_that_were_built_is_gone_on_with_as_its_message_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    build(write_corpus(tmp_path / "corpus", tuple(TOPICS)), tmp_path / "s", BuildOptions(workers=1, max_features=30))
    command = ["fit", "s", "--units", "4", "--epochs", "3", "--batch-size", "32"]
    assert main([*command, "--out", "whole"]) == 0
    with monkeypatch.context() as patched:
        interrupt_at(patched, 2)
        assert main(command) == 130
    assert "the same command with --resume resumes it" in capsys.readouterr().err
    assert main([*command, "--resume"]) == 0
    assert Path("runs/mlp-1/model.keras").read_bytes() == Path("whole/model.keras").read_bytes()
    assert main([*command, "--out", "whole", "--resume"]) == 0
    assert "the run in 'whole' is finished" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["mlp", "linear"])
def test_columns_and_labels_outside_their_range_are_refused_before_a_kernel_uses_them(model: str) -> None:
    layers = 2 if model == "mlp" else 1
    with Team(1) as team:
        for columns, labels in (([0, 10], [0, 1]), ([-1, 3], [0, 1]), ([0, 1], [0, 200])):
            x = Csr(np.ones(2, np.float32), np.array(columns, np.int32), np.array([0, 1, 2]), (2, 10))
            network = Network(Shape.of(10, 2, layers, 4))
            with pytest.raises(ShardsError, match="outside"):
                Trainer(network, OPTIMIZERS["sgd"], team, seed=1).advance([(x, np.array(labels))], [0.1])
            with pytest.raises(ShardsError, match="outside"):
                naive_bayes_scales([(x, np.array(labels))], 10, 2)
            with pytest.raises(ShardsError, match="outside"):
                network.evaluate(x, np.array(labels), team)
