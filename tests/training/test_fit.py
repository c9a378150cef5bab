"""Laws of training: what it computes is Keras' own, it repeats bit for bit, and a run folder is whole or unfinished."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.learnable import write_shards
from support.sampled import sampled
from support.training import fit

from shardtrain.errors import (
    ModelError,
    RunError,
    RunExistsError,
    RunNotFoundError,
    ShardsError,
    StorageError,
    UsageError,
)
from shardtrain.inference.evaluate import evaluate
from shardtrain.inference.run import Run, load_run
from shardtrain.loader.info import DatasetInfo
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.guide import mlp, prepare
from shardtrain.models.layers import SparseDense
from shardtrain.models.optimizers import FusedAdam
from shardtrain.models.options import MlpOptions, SepcnnOptions
from shardtrain.runtime.progress import VERBOSE, verbosity
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import METRICS, MODEL, RunFolder
from shardtrain.training.steps import Steps

PROJECT = Path(__file__).resolve().parents[2]
QUICK: dict[str, Any] = {"engine": "keras", "batch_size": 32, "learning_rate": 0.02, "mlp": MlpOptions(units=8)}
FUSED: dict[str, Any] = {**QUICK, "engine": "fused"}  # quicker, for what every engine shares


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "ngram", noise=0.3)


@pytest.fixture
def shards(folder: Path) -> Shards:
    return open_shards(folder)


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that early stopping ended; the labels are noisy, so it overfits."""
    with open_shards(folder) as shards:
        return fit(shards, FitOptions(**QUICK), out=tmp_path_factory.mktemp("runs") / "finished")


@pytest.fixture(scope="module")
def of_one_epoch(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    with open_shards(folder) as shards:
        return fit(shards, FitOptions(epochs=1, **QUICK), out=tmp_path_factory.mktemp("runs") / "of one epoch")


def history(run: Run) -> list[dict[str, float]]:
    with open(run.path / "history.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def weights(run: Run) -> list[np.ndarray]:
    return run.load_model().get_weights()


def equal(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


# What is computed


def dense_twin(model: keras.Model, shards: Shards) -> keras.Model:
    """The same mlp, without dropout, out of Keras' own layers and with Keras' own Adam."""
    twin = keras.Sequential(
        [
            keras.Input((shards.description.num_features,)),
            keras.layers.Dense(8, activation="relu"),
            keras.layers.Dense(shards.description.num_classes, activation="softmax"),
        ]
    )
    twin.set_weights(model.get_weights())
    twin.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return twin


def test_sparse_steps_lose_and_move_as_dense_steps_of_keras_do(shards: Shards) -> None:
    model = mlp(shards.description, MlpOptions(units=8, dropout=0.0), seed=1)
    steps = Steps(model, prepare(model, shards.description, learning_rate=0.01))
    twin = dense_twin(model, shards)
    for epoch in range(3):
        for x, y in shards.train.batches(32, seed=1, epoch=epoch, shuffle="window"):
            loss, _ = steps.train(*steps.arguments((x, y)))
            twin.reset_metrics()
            expected = twin.train_on_batch(x.toarray(), y, return_dict=True)["loss"]
            assert float(loss) == pytest.approx(float(expected), rel=1e-4)
    for found, wanted in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_the_epoch_loss_and_accuracy_are_means_over_examples(tmp_path: Path, kind: str) -> None:
    with open_shards(write_shards(tmp_path / "s", kind=kind, validation_rows=777)) as shards:
        sizes = {"mlp": MlpOptions(units=8), "sepcnn": SepcnnOptions(blocks=1, filters=4, embedding_dim=8)}
        done = fit(shards, FitOptions(epochs=1, batch_size=64, **sizes), out=tmp_path / "run")
        x, y = shards.validation.rows(0, 777)
    model = done.load_model()
    steps = Steps(model, prepare(model, done.description, learning_rate=0.01))
    probabilities = model(steps.adapter.assemble(*steps.adapter.arrays(x))).numpy()
    assert done.metrics["val_accuracy"] == pytest.approx((probabilities.argmax(axis=1) == y).mean(), abs=1e-6)
    assert done.metrics["val_loss"] == pytest.approx(-np.log(probabilities[np.arange(777), y]).mean(), rel=1e-4)


def test_two_classes_are_learned_with_one_sigmoid_unit(tmp_path: Path) -> None:
    with open_shards(write_shards(tmp_path / "s", num_classes=2)) as shards:
        done = fit(shards, FitOptions(**QUICK), out=tmp_path / "run")
    assert done.metrics["val_accuracy"] > 0.85
    assert done.load_model().output_shape == (None, 1)


@pytest.mark.heavy
def test_sepcnn_learns_sequences(tmp_path: Path) -> None:
    with open_shards(write_shards(tmp_path / "s", kind="sequence", rows=600)) as shards:
        small = SepcnnOptions(filters=8, embedding_dim=8)
        done = fit(shards, FitOptions(sepcnn=small, batch_size=32, learning_rate=0.02, epochs=6), out=tmp_path / "run")
    assert done.config["model"] == "sepcnn"
    assert done.metrics["val_accuracy"] > 0.85


def test_training_is_a_loop_over_the_batches_that_the_seed_the_epoch_and_the_mode_order(
    shards: Shards, tmp_path: Path
) -> None:
    options = FitOptions(epochs=4, patience=9, seed=5, shuffle="window", **QUICK)
    done = fit(shards, options, out=tmp_path / "run")
    model = mlp(shards.description, options.mlp, seed=5)
    steps = Steps(model, prepare(model, shards.description, learning_rate=0.02))
    for epoch in range(done.metrics["best_epoch"]):
        for batch in shards.train.batches(32, seed=5, epoch=epoch, shuffle="window"):
            steps.train(*steps.arguments(batch))
    assert done.metrics["best_epoch"] > 1
    assert equal(weights(done), model.get_weights())


# Repeating and tracing


@pytest.mark.heavy
@pytest.mark.parametrize("kind", sampled(["ngram", "sequence"]))
def test_equal_seeds_give_bit_identical_weights_and_history(tmp_path: Path, kind: str) -> None:
    sizes = {"mlp": MlpOptions(units=8), "sepcnn": SepcnnOptions(filters=4, embedding_dim=8)}
    runs = []
    with open_shards(write_shards(tmp_path / "s", kind=kind)) as shards:
        for name, seed in (("one", 1), ("same", 1), ("other", 2)):
            options = FitOptions(epochs=2, batch_size=32, seed=seed, **sizes)
            runs.append(fit(shards, options, out=tmp_path / name))
    one, same, other = map(weights, runs)
    assert equal(one, same)
    assert history(runs[0]) == history(runs[1])
    assert not equal(one, other)


@keras.saving.register_keras_serializable(package="tests")
class Traced(keras.layers.Layer):
    """Counts how often Python runs through it: once a trace, and not at all in a traced step."""

    count = 0

    def call(self, inputs: Any) -> Any:
        Traced.count += 1
        return inputs


def counting_model(description: DatasetInfo) -> keras.Model:
    inputs = keras.Input((description.num_features,), sparse=True)
    hidden = Traced()(SparseDense(4)(inputs))
    return keras.Model(inputs, keras.layers.Dense(description.num_classes, activation="softmax")(hidden))


@pytest.mark.heavy
@pytest.mark.parametrize("several_from", sampled([1, 10**6], ids=["several steps per call", "one step per call"]))
def test_nothing_is_traced_again_for_other_batches_sizes_or_epochs(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, several_from: int
) -> None:
    monkeypatch.setattr("shardtrain.training.keras_engine.MULTI_STEP_FROM", several_from)
    counts: list[int] = []

    def count(epoch: int, logs: Any) -> bool:
        counts.append(Traced.count)
        return False

    Traced.count = 0
    options = FitOptions(model=counting_model, epochs=3, patience=9, batch_size=32)
    fit(shards, options, out=tmp_path / "run", watch=count)
    assert len(shards.train.batches(32)) == 10  # nine of 32 rows and one of 12, with other non-zeros each
    assert len(counts) == 3
    assert counts[0] == counts[1] == counts[2] == Traced.count < 10


@pytest.mark.parametrize("smallest", [0, 1], ids=["metrics of any batch", "a metric that refuses one without rows"])
def test_a_step_is_traced_once(shards: Shards, monkeypatch: pytest.MonkeyPatch, smallest: int) -> None:
    step, traces = Steps._train, []

    def counting(self: Steps, *arguments: tf.Tensor, **part: tf.Tensor) -> Any:
        traces.append(len(arguments))
        return step(self, *arguments, **part)

    def seen(y: tf.Tensor, predicted: tf.Tensor) -> tf.Tensor:
        assert y.shape[0] is None or y.shape[0] >= smallest
        return tf.ones_like(predicted[:, 0])

    model = counting_model(shards.description)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy", seen])
    monkeypatch.setattr(Steps, "_train", counting)
    steps = Steps(model, prepare(model, shards.description, learning_rate=0.1))
    _, logs = steps.train(steps.arguments(shards.train.rows(0, 32)))
    assert len(traces) == 1
    assert logs["seen"] == 1.0


# Callbacks


def test_the_best_epoch_is_kept_and_reported(finished: Run, shards: Shards) -> None:
    epochs, metrics = history(finished), finished.metrics
    losses = [epoch["val_loss"] for epoch in epochs]
    best = int(np.argmin(losses))
    assert len(epochs) == metrics["epochs"] == best + 1 + 2 < 1000
    assert metrics["best_epoch"] == best + 1
    assert (metrics["val_loss"], metrics["val_accuracy"]) == (losses[best], epochs[best]["val_accuracy"])
    again = evaluate(finished, shards)
    expected = {"loss": metrics["val_loss"], "accuracy": metrics["val_accuracy"]}
    assert again == pytest.approx(expected, rel=1e-6)  # computed without Keras


def test_the_last_epoch_is_kept_where_it_is_the_best(of_one_epoch: Run) -> None:
    assert (of_one_epoch.metrics["epochs"], of_one_epoch.metrics["best_epoch"]) == (1, 1)


class Watching(keras.callbacks.Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []
        self.losses: list[float] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.calls.append("train begin")

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(f"epoch {epoch} begin")

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls.append(f"batch {batch}")
        self.losses.append(logs["loss"])

    def on_test_end(self, logs: Any = None) -> None:
        self.calls.append("test end")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.calls.append(f"epoch {epoch} end")
        assert {"loss", "accuracy", "val_loss", "val_accuracy"} <= logs.keys()

    def on_train_end(self, logs: Any = None) -> None:
        self.calls.append("train end")


def test_callbacks_hear_what_keras_fit_would_tell_them(shards: Shards, tmp_path: Path) -> None:
    watching = Watching()
    done = fit(shards, FitOptions(epochs=2, **QUICK), out=tmp_path / "run", callbacks=[watching])
    batches = [f"batch {step}" for step in range(10)]
    assert watching.calls == [
        "train begin",
        *["epoch 0 begin", *batches, "test end", "epoch 0 end"],
        *["epoch 1 begin", *batches, "test end", "epoch 1 end"],
        "train end",
    ]
    assert [watching.losses[9], watching.losses[19]] == [epoch["loss"] for epoch in history(done)]
    assert watching.params["steps"] == 10
    assert watching.params["epochs"] == 2


def test_callbacks_of_keras_work_unchanged(shards: Shards, tmp_path: Path) -> None:
    callbacks = [
        keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.01 / (epoch + 1)),
        keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.1, patience=1, min_delta=100.0),
        keras.callbacks.CSVLogger(tmp_path / "log.csv"),
        keras.callbacks.ModelCheckpoint(tmp_path / "best.keras", monitor="val_loss", save_best_only=True),
        keras.callbacks.TerminateOnNaN(),
        keras.callbacks.TensorBoard(tmp_path / "board", update_freq=1),
    ]
    done = fit(shards, FitOptions(epochs=3, **QUICK), out=tmp_path / "run", callbacks=callbacks)
    rates = [epoch["learning_rate"] for epoch in history(done)]
    assert rates == pytest.approx([0.01, 0.005, 0.01 / 3])
    with open(tmp_path / "log.csv", newline="") as file:
        logged = [float(row["val_loss"]) for row in csv.DictReader(file)]
    assert logged == pytest.approx([epoch["val_loss"] for epoch in history(done)])
    assert equal(keras.saving.load_model(tmp_path / "best.keras").get_weights(), weights(done))
    assert list((tmp_path / "board" / "train").iterdir())


def test_a_learning_rate_that_a_callback_lowers_is_the_one_the_next_step_uses(shards: Shards, tmp_path: Path) -> None:
    class Freeze(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.model.optimizer.learning_rate = 0.0
            snapshots.append(self.model.get_weights())

    snapshots: list[list[np.ndarray]] = []
    fit(shards, FitOptions(epochs=2, **QUICK), out=tmp_path / "run", callbacks=[Freeze()])
    assert equal(*snapshots)


@pytest.mark.parametrize("last", sampled([0, 3], (1,), ["after its first step", "after its fourth step"]))
def test_a_callback_can_stop_training_within_an_epoch(shards: Shards, tmp_path: Path, last: int) -> None:
    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.model.stop_training = batch == last

    done = fit(shards, FitOptions(**QUICK), out=tmp_path / "run", callbacks=[Stop()])
    assert done.metrics["epochs"] == 1
    assert int(done.load_model().optimizer.iterations) == last + 1


# Users' models


class OwnStep(keras.Model):
    """A model with a training step of its own, which never moves a weight."""

    def train_step(self, data: Any) -> Any:
        x, y = data
        return {**self.compute_metrics(x, y, self(x, training=True)), "loss": tf.constant(1.5)}


def test_a_users_own_train_step_is_used(shards: Shards, tmp_path: Path) -> None:
    def model(description: DatasetInfo) -> keras.Model:
        inputs = keras.Input((description.num_features,), sparse=True)
        return OwnStep(inputs, keras.layers.Dense(description.num_classes, activation="softmax")(inputs))

    own = model(shards.description)
    steps = Steps(own, prepare(own, shards.description, learning_rate=0.1))
    before = own.get_weights()
    losses = [float(steps.train(*steps.arguments(batch))[0]) for batch in shards.train.batches(100)]
    assert losses == [1.5, 1.5, 1.5]
    assert equal(own.get_weights(), before)


def compiled_with(**options: Any) -> Any:
    def model(description: DatasetInfo) -> keras.Model:
        inputs = keras.Input((description.num_features,))
        model = keras.Model(inputs, keras.layers.Dense(description.num_classes, activation="softmax")(inputs))
        model.compile(**options)
        return model

    return model


def test_a_model_that_comes_compiled_is_trained_with_its_own_optimizer(shards: Shards, tmp_path: Path) -> None:
    model = compiled_with(
        optimizer=keras.optimizers.SGD(0.5), loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    done = fit(shards, FitOptions(model=model, epochs=2), out=tmp_path / "run")
    assert isinstance(done.load_model().optimizer, keras.optimizers.SGD)
    assert done.config["model"].endswith("model")
    json.loads((done.path / "config.json").read_text())


@pytest.mark.parametrize(
    ("compiled", "said"),
    [
        ({"loss": "sparse_categorical_crossentropy"}, re.escape("metrics=['accuracy']")),
        (
            {"loss": "no_such_loss", "metrics": ["accuracy"]},
            r"^a training step of the model fails: ValueError: Could not interpret loss identifier: no_such_loss",
        ),
    ],
    ids=["without accuracy", "with a loss that does not exist"],
)
def test_a_compiled_model_that_cannot_be_trained_is_refused_before_a_folder_is_made(
    shards: Shards, tmp_path: Path, compiled: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError, match=said):
        fit(shards, FitOptions(model=compiled_with(optimizer="sgd", **compiled)), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


# The run folder


def test_a_run_folder_holds_all_that_is_promised(finished: Run, folder: Path) -> None:
    names = {path.name for path in finished.path.iterdir()}
    assert names == {"model.keras", "vectorizer", "config.json", "history.csv", "metrics.json"}
    copied, original = finished.path / "vectorizer", folder / "vectorizer"
    assert {path.name: path.read_bytes() for path in copied.iterdir()} == {
        path.name: path.read_bytes() for path in original.iterdir()
    }
    metrics = finished.metrics
    assert metrics["train_examples"] == 300
    assert 0 <= metrics["input_wait_fraction"] < 1
    assert metrics["examples_per_second"] > 0
    assert metrics["fit_seconds"] > 300 * metrics["epochs"] / metrics["examples_per_second"]
    assert metrics["peak_memory_bytes"] > 100e6  # TensorFlow alone
    with open_shards(folder) as shards:
        assert finished.description == shards.description
    assert finished.config["options"] == {
        "model": "mlp",
        "mlp": {"layers": 2, "units": 8, "dropout": 0.2},
        "epochs": 1000,
        "batch_size": 32,
        "learning_rate": 0.02,
        "patience": 2,
        "seed": 1,
        "shuffle": "window",
        "engine": "keras",
        "recipe": "guide",
        "scaling": "none",
        "optimizer": "adam",
        "schedule": "constant",
        "clip_norm": None,
        "class_weight": "none",
        "mixed_precision": False,
        "embeddings": None,
        "monitor": "loss",
        "devices": [],
        "tensorboard": None,
        "worker_timeout": 300.0,
        "memory_limit": 1 << 30,
        "checkpoint_every": "60s",
    }
    assert isinstance(finished.load_model().optimizer, FusedAdam)


def test_a_finished_run_is_not_overwritten_unless_asked_to(shards: Shards, tmp_path: Path) -> None:
    out = tmp_path / "run"
    first = fit(shards, FitOptions(epochs=1, **FUSED), out=out)
    kept = (out / MODEL).read_bytes()
    with pytest.raises(RunExistsError, match="overwrite"):
        fit(shards, FitOptions(epochs=1, **FUSED), out=out)
    assert (out / MODEL).read_bytes() == kept
    second = fit(shards, FitOptions(epochs=2, **FUSED), out=out, overwrite=True)
    assert (first.metrics["epochs"], second.metrics["epochs"]) == (1, 2)
    assert len(history(second)) == 2


def test_a_folder_that_is_no_run_is_never_written_to(shards: Shards, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(RunExistsError, match="is not a run folder"):
        fit(shards, FitOptions(), out=tmp_path, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("moment", "replacing"),
    sampled(
        [("on_epoch_end", False), ("on_train_end", False), ("on_epoch_end", True)],
        (1, 2),
        ["in an epoch", "before saving", "while replacing a finished run"],
    ),
)
def test_a_run_that_was_interrupted_is_unfinished_and_another_can_take_its_place(
    shards: Shards, finished: Run, tmp_path: Path, moment: str, replacing: bool
) -> None:
    class Interrupt(keras.callbacks.Callback):
        pass

    def interrupt(self: Any, *args: Any, **logs: Any) -> None:
        raise KeyboardInterrupt

    setattr(Interrupt, moment, interrupt)
    out = tmp_path / "run"
    if replacing:
        shutil.copytree(finished.path, out)
    with pytest.raises(KeyboardInterrupt):
        fit(shards, FitOptions(epochs=2, **QUICK), out=out, overwrite=replacing, callbacks=[Interrupt()])
    assert not (out / METRICS).exists()
    with pytest.raises(RunNotFoundError, match=r"unfinished run.*python -m shardtrain fit"):
        load_run(out)
    assert fit(shards, FitOptions(epochs=1, **FUSED), out=out, overwrite=True).metrics["epochs"] == 1


def test_runs_without_a_name_count_up(shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mlp-2").mkdir(parents=True)
    paths = [fit(shards, FitOptions(epochs=1, **FUSED)).path.as_posix() for _ in range(2)]
    assert paths == ["runs/mlp-1", "runs/mlp-3"]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda runs: runs.write_text("results"), "'runs' is a file; move it away, or choose a folder with out"),
        (lambda runs: runs.symlink_to("gone"), "'runs' is a link to 'gone', which does not exist; move it away"),
    ],
    ids=["a file", "a link to nothing"],
)
def test_the_folder_of_runs_that_is_none_is_named_with_what_helps(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[Path], Any], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("runs"))
    with pytest.raises(RunExistsError, match=f"runs go to the folder 'runs' unless out is given, and {said}"):
        fit(shards, FitOptions(epochs=1), out=None)
    with pytest.raises(RunExistsError, match=said):
        RunFolder.of_corpus("name", {})


def test_a_flipped_bit_in_the_model_is_noticed(finished: Run, tmp_path: Path) -> None:
    copy = load_run(shutil.copytree(finished.path, tmp_path / "run"))
    content = bytearray((copy.path / MODEL).read_bytes())
    content[len(content) // 2] ^= 1
    (copy.path / MODEL).write_bytes(content)
    with pytest.raises(RunError, match=r"model\.keras' is damaged"):
        copy.load_model()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("metrics.json", "{", "is not valid JSON"),
        ("config.json", "[]", "a list of 0, expected an object"),
        (
            "config.json",
            '{"format": "shardtrain-run", "version": 99}',
            "`model` is missing, expected a text",
        ),
    ],
    ids=["half a file", "not an object", "of the future"],
)
def test_damaged_facts_of_a_run_are_named(finished: Run, tmp_path: Path, name: str, content: str, said: str) -> None:
    for part in ("config.json", "metrics.json"):
        (tmp_path / part).write_bytes((finished.path / part).read_bytes())
    (tmp_path / name).write_text(content)
    with pytest.raises(RunError, match=said):
        load_run(tmp_path)


@pytest.mark.parametrize(("name", "every"), sampled(product(["config.json", "metrics.json"], [5, 1]), (0, 2)))
def test_every_flipped_bit_in_the_facts_of_a_run_is_noticed(
    finished: Run, tmp_path: Path, name: str, every: int
) -> None:
    """Also one that leaves a sound file, such as in the name of a class; but in the name of the key that seals."""
    for part in ("config.json", "metrics.json"):
        (tmp_path / part).write_bytes((finished.path / part).read_bytes())
    whole = (tmp_path / name).read_bytes()
    key = whole.rfind(b'"checksum"') if name == "metrics.json" else len(whole)
    for place in (place for place in range(0, len(whole), every) if not key < place <= key + len("checksum")):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        (tmp_path / name).write_bytes(flipped)
        if name == "metrics.json" and of_json(flipped) == of_json(whole):
            continue  # white space
        with pytest.raises(RunError, match=re.escape(f"'{tmp_path / name}'")):
            load_run(tmp_path)


def of_json(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        return None


def test_a_run_of_a_version_without_these_checksums_is_used(finished: Run, tmp_path: Path) -> None:
    shutil.copytree(finished.path, tmp_path / "run")
    metrics = {name: value for name, value in finished.metrics.items() if name not in ("config_sha256", "checksum")}
    (tmp_path / "run" / METRICS).write_text(json.dumps(metrics))
    assert load_run(tmp_path / "run").description == finished.description


def test_the_config_of_another_run_is_noticed(finished: Run, of_one_epoch: Run, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(of_one_epoch.path, tmp_path / "run"))
    shutil.copy(finished.path / "config.json", copy / "config.json")
    with pytest.raises(RunError, match=r"config\.json' was changed or damaged: its SHA-256 is"):
        load_run(copy)


@pytest.mark.parametrize(("make", "said"), [(None, "is missing; restore"), (Path.mkdir, "cannot be read: Is a dir")])
def test_a_finished_run_without_its_config_names_the_file(
    finished: Run, tmp_path: Path, make: Callable[[Path], None] | None, said: str
) -> None:
    config = Path(shutil.copytree(finished.path, tmp_path / "run")) / "config.json"
    config.unlink()
    if make is not None:
        make(config)
    with pytest.raises(RunError, match=f"'{config}' {said}"):
        load_run(tmp_path / "run")


def test_a_missing_run_names_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(RunNotFoundError, match=r"does not exist; train with `shardtrain.fit\(SHARDS, out="):
        load_run(tmp_path / "absent")


# Refusals


def test_a_loss_that_is_not_finite_ends_training_and_leaves_no_model(shards: Shards, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"the loss of step \d+ of epoch 1 is (nan|inf).*learning_rate"):
        fit(shards, FitOptions(batch_size=32, learning_rate=1e36), out=tmp_path / "run")
    assert not (tmp_path / "run" / MODEL).exists()
    assert not (tmp_path / "run" / METRICS).exists()


def test_shards_without_validation_are_refused(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "s")
    with open_shards(folder) as shards:
        del shards.splits["validation"]
        with pytest.raises(ShardsError, match="no validation split"):
            fit(shards, FitOptions(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"patience": 0}, "patience is 0"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"seed": -1}, "seed is -1"),
        ({"shuffle": "batch"}, "shuffle is 'batch'; choose one of none, blocks, window"),
    ],
)
def test_options_outside_their_range_are_refused_with_their_value(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        FitOptions(**change)


# The command


def command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "shardtrain", *map(str, arguments)],
        cwd=cwd,
        env={"PYTHONPATH": str(PROJECT), "PATH": "/usr/bin:/bin", "HOME": str(cwd)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.heavy
def test_fit_prints_the_result_on_stdout_and_only_its_epochs_on_stderr(folder: Path, tmp_path: Path) -> None:
    done = command(
        "fit", folder, "--engine", "keras", "--epochs", "2", "--batch-size", "32", "--units", "8", cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    metrics = load_run(tmp_path / "runs" / "mlp-1").metrics
    measured = metrics["validation"]
    low, high = measured["accuracy_interval"]
    assert done.stdout == (
        f"validation accuracy {metrics['val_accuracy']:.4f}, loss {metrics['val_loss']:.4f}, "
        f"best epoch {metrics['best_epoch']} of 2: runs/mlp-1\n"
        f"  95 % interval {low:.4f} to {high:.4f}, majority baseline {measured['majority_accuracy']:.4f}, "
        f"macro F1 {measured['macro_f1']:.4f}\n"
        'next: python -m shardtrain predict runs/mlp-1 "a text to classify"\n'
    )
    number = r"\d+\.\d{4}"
    timed = r"[\d,]+ examples/s, input wait \d+\.\d%"
    line = rf"loss {number}, accuracy {number}, val_loss {number}, val_accuracy {number}, {timed}"
    chosen = "mlp by the keras engine, recipe guide: adam at 0.001, batches of 32, at most 2 epochs\n"
    warned = "" if measured["beats_majority"] else "warning: the model is not shown to be better than .*\n"
    assert re.fullmatch(f"{chosen}epoch 1: {line}, best so far\nepoch 2: {line}(, best so far)?\n{warned}", done.stderr)


def test_the_memory_plan_is_shown_with_verbose(
    shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading = r"reading shuffles in windows of 300 rows, prefetches up to \d+ batches"
    plan = reading + r" \([\d.]+ kB\) and takes 1 batch per step"
    with verbosity(VERBOSE):
        fit(shards, FitOptions(epochs=1, engine="keras"), out=tmp_path / "run")
    assert re.search(plan, capsys.readouterr().err)


def test_the_epoch_line_marks_an_epoch_with_a_lower_validation_loss_than_all_before(
    shards: Shards, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    done = fit(shards, FitOptions(engine="keras", epochs=6, patience=5, learning_rate=0.3), out=tmp_path / "run")
    losses = [line["val_loss"] for line in history(done)]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("epoch ")]
    marked = [line.endswith(", best so far") for line in lines]
    assert marked == [all(loss < before for before in losses[:epoch]) for epoch, loss in enumerate(losses)]
    assert marked[0]
    assert not all(marked)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ((), 1, "there are no shards in 'data/shards'; make them with `python -m shardtrain build"),
        (("absent",), 1, "'absent' does not exist"),
        (("SHARDS", "--filters", "3"), 2, "--filters is not a size of the model 'mlp'"),
        (("SHARDS", "--epochs", "0"), 2, "epochs is 0"),
        (("SHARDS", "--model", "sepcnn"), 1, "--vectorizer sequence"),
    ],
    ids=["no shards at the default", "no such folder", "a size of another model", "no epochs", "another kind"],
)
def test_fit_says_in_one_line_why_it_cannot_train(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    said: str,
) -> None:
    from shardtrain.cli.main import main

    monkeypatch.chdir(tmp_path)
    assert main(["fit", *(str(folder) if part == "SHARDS" else part for part in arguments)]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert list(tmp_path.iterdir()) == []


def test_the_help_of_fit_states_the_defaults_that_the_options_have(capsys: pytest.CaptureFixture[str]) -> None:
    from shardtrain.cli.main import main

    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    described = {
        **{name: getattr(FitOptions(), name) for name in ("seed", "shuffle", "class_weight", "checkpoint_every")},
        **vars(MlpOptions()),
        **vars(SepcnnOptions()),
    }
    for name, value in described.items():
        flag = "--" + name.replace("_", "-")
        assert re.search(rf"{flag} [^ ]+ [^-]*?\(default {re.escape(str(value))}\)", text), flag
    for flag in ("--epochs", "--patience", "--batch-size", "--learning-rate"):
        assert re.search(rf"{flag} [^ ]+ ((?! --)|--monitor)[^(]*?\(default: by the recipe\)", text), flag


def test_a_model_that_cannot_be_written_is_named_as_the_user_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards(tmp_path / "shards")

    def fail(self: keras.Model, path: Path) -> None:
        raise RuntimeError("Unable to synchronously write (errno = 28, error message = 'No space left on device')")

    monkeypatch.setattr(keras.Model, "save", fail)
    with open_shards(tmp_path / "shards") as shards, pytest.raises(StorageError) as failed:
        fit(shards, FitOptions(**{**QUICK, "epochs": 1}), out=tmp_path / "run")
    assert f"'{tmp_path / 'run' / 'model.keras'}'" in str(failed.value)
    assert ".partial" not in str(failed.value)
