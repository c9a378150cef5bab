"""Laws of the options of training: each does what it says to weights, losses and rates, also when gone on with."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.learnable import write_shards
from support.sampled import sampled
from support.training import fit

from shardtrain.errors import ModelError, RunExistsError, UsageError
from shardtrain.inference.run import Run
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.guide import linear, make_model, mlp, prepare
from shardtrain.models.options import MlpOptions, SepcnnOptions
from shardtrain.models.schedules import learning_rate
from shardtrain.shards.manifest import read_manifest, write_manifest
from shardtrain.training.options import FitOptions
from shardtrain.training.steps import Steps
from shardtrain.vectorize.fitted import save_vectorizer
from shardtrain.vectorize.settings import SequenceSettings

QUICK: dict[str, Any] = {
    "engine": "keras",
    "batch_size": 32,
    "learning_rate": 0.02,
    "epochs": 2,
    "mlp": MlpOptions(units=8),
}
OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9),
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.01),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.005),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.05),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return open_shards(write_shards(tmp_path_factory.mktemp("shards") / "ngram", noise=0.3))


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = write_shards(
        tmp_path_factory.mktemp("shards") / "s", kind="sequence", num_features=12, vocabulary_size=20, noise=0.2
    )
    settings, facts = SequenceSettings(max_features=20, max_length=12), {"num_words": 19, "length": 12}
    words = [f"word{number}" for number in range(1, 20)]
    saved = save_vectorizer(folder / "vectorizer", settings, facts, words, {"hashes": [np.arange(19, dtype=np.uint64)]})
    write_manifest(folder, replace(read_manifest(folder), vectorizer=saved.describe()))
    return open_shards(folder)


def compiled(model: keras.Model, make: Callable[[], keras.optimizers.Optimizer]) -> keras.Model:
    model.compile(make(), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def assert_equal_step_by_step(steps: Steps, twin: keras.Model, shards: Shards, dense: Callable[[Any], Any]) -> None:
    for epoch in range(2):
        for x, y in shards.train.batches(32, epoch=epoch, shuffle="window"):
            (loss,), _ = steps.advance([(x, y)])
            twin.reset_metrics()
            assert loss == pytest.approx(float(twin.train_on_batch(dense(x), y, return_dict=True)["loss"]), rel=1e-4)
    for found, wanted in zip(steps.model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.heavy
@pytest.mark.parametrize("make", sampled(OPTIMIZERS.values(), (), OPTIMIZERS))
def test_sparse_rows_train_as_dense_rows_do_with_every_optimizer(
    shards: Shards, make: Callable[[], keras.optimizers.Optimizer]
) -> None:
    model = compiled(mlp(shards.description, MlpOptions(units=8, dropout=0.0), seed=1), make)
    dense = [keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3, activation="softmax")]
    twin = compiled(keras.Sequential([keras.Input((40,)), *dense]), make)
    twin.set_weights(model.get_weights())
    steps = Steps(model, prepare(model, shards.description, learning_rate=0.1))
    assert_equal_step_by_step(steps, twin, shards, lambda x: x.toarray())


@pytest.mark.heavy
@pytest.mark.parametrize("make", sampled(OPTIMIZERS.values(), (1,), OPTIMIZERS))
def test_an_embedding_trains_as_a_dense_layer_on_one_hot_tokens_does_with_every_optimizer(
    sequences: Shards, make: Callable[[], keras.optimizers.Optimizer]
) -> None:
    tokens, one_hot = keras.Input((12,), dtype="int32"), keras.Input((12, 20))
    tables = keras.layers.Embedding(20, 4)(tokens), keras.layers.Dense(4, use_bias=False)(one_hot)
    models = []
    for inputs, x in zip((tokens, one_hot), tables, strict=True):
        outputs = keras.layers.Dense(3, activation="softmax")(keras.layers.GlobalAveragePooling1D()(x))
        models.append(compiled(keras.Model(inputs, outputs), make))
    model, twin = models
    twin.set_weights(model.get_weights())
    steps = Steps(model, prepare(model, sequences.description, learning_rate=0.1))
    assert_equal_step_by_step(steps, twin, sequences, lambda x: np.eye(20, dtype=np.float32)[x])


def test_linear_is_logistic_regression(shards: Shards) -> None:
    model = linear(shards.description, seed=1)
    x, y = shards.train.rows(0, 300)
    steps = Steps(model, prepare(model, shards.description, learning_rate=0.05))
    kernel, bias = model.get_weights()
    expected = tf.nn.softmax(x.toarray() @ kernel + bias)
    np.testing.assert_allclose(model(steps.adapter.assemble(*steps.adapter.arrays(x))), expected, rtol=1e-5, atol=1e-6)
    losses = [steps.advance([(x, y)])[0][0] for _ in range(50)]
    assert losses[-1] < losses[0]


def rows_of_class(shards: Shards, number: int) -> Any:
    x, y = shards.train.rows(0, 300)
    rows = np.flatnonzero(y == number)
    return x.take(rows), y[rows]


def test_balanced_classes_count_by_their_weights_in_the_loss_of_training_alone(shards: Shards) -> None:
    counts = np.array(shards.manifest.splits["train"].class_counts)
    expected = counts.sum() / (3 * counts)
    model = mlp(shards.description, MlpOptions(units=8, dropout=0.0), seed=1)
    feed = prepare(model, shards.description, learning_rate=0.01)
    plain, weighted = Steps(model, feed), Steps(model, feed, expected.tolist())
    for number in range(3):
        batch = rows_of_class(shards, number)
        before = plain.evaluate([batch])["loss"]
        assert weighted.evaluate([batch])["loss"] == before
        assert weighted.advance([batch])[0][0] == pytest.approx(before * expected[number], rel=1e-5)


def test_balanced_is_passed_on_by_fit(shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def ending(*arguments: Any) -> Steps:
        seen.append(arguments[2])
        raise RuntimeError("seen")

    monkeypatch.setattr("shardtrain.training.staged.Steps", ending)
    with pytest.raises(RuntimeError, match="seen"):
        fit(shards, FitOptions(**QUICK, class_weight="balanced"), out=tmp_path / "run")
    counts = np.array(shards.manifest.splits["train"].class_counts)
    np.testing.assert_allclose(np.array(seen[0]) * counts, [100, 100, 100])


def test_long_gradients_are_shortened_to_the_norm(shards: Shards) -> None:
    moved = []
    for norm in (None, 1e-3):
        model = mlp(shards.description, MlpOptions(units=8, dropout=0.0), seed=1)
        feed = prepare(model, shards.description, learning_rate=0.01, clip_norm=norm)
        Steps(model, feed).advance([shards.train.rows(0, 32)])
        moments = [variable for variable in model.optimizer.variables if variable.path.endswith("momentum")]
        moved.append(np.sqrt(sum(float(tf.reduce_sum(tf.square(moment / 0.1))) for moment in moments)))
    assert moved[0] > 0.01
    assert moved[1] == pytest.approx(1e-3, rel=1e-4)


def test_mixed_precision_keeps_weights_and_probabilities_in_float32(shards: Shards, tmp_path: Path) -> None:
    policy = keras.config.dtype_policy()
    done = fit(shards, FitOptions(**QUICK, mixed_precision=True), out=tmp_path / "run")
    assert keras.config.dtype_policy() == policy
    model = done.load_model()
    assert {layer.name: layer.compute_dtype for layer in model.layers if layer.weights} == {
        "dense_1": "bfloat16",
        "output": "float32",
    }
    assert {weight.dtype for weight in model.weights} == {"float32"}
    assert done.metrics["val_accuracy"] > 0.4


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("constant", [1, 1, 1]),
        ("cosine", [1, 0.5, 0]),
        ("linear", [1, 0.5, 0]),
        ("exponential", [1, 0.1, 0.01]),
        ("plateau", [1, 1, 1]),
    ],
)
def test_a_schedule_goes_from_the_first_rate_over_all_steps(name: str, rates: list[float]) -> None:
    found = learning_rate(name, 0.2, 100)
    values = [float(found(step)) if callable(found) else found for step in (0, 50, 100)]
    assert values == pytest.approx([0.2 * rate for rate in rates], abs=1e-6)


def test_plateau_halves_the_rate_where_the_loss_does_not_fall(shards: Shards, tmp_path: Path) -> None:
    done = fit(shards, FitOptions(**{**QUICK, "epochs": 20, "patience": 4}, schedule="plateau"), out=tmp_path / "run")
    rates = [float(line.split(",")[-1]) for line in (done.path / "history.csv").read_text().splitlines()[1:]]
    assert rates[0] == pytest.approx(0.02)
    assert {round(0.02 / rate) for rate in rates} >= {1, 2}


@pytest.mark.parametrize(
    ("option", "optimizer", "flag"),
    [
        ({"schedule": "cosine"}, OPTIMIZERS["SGD"], "--schedule"),
        ({"clip_norm": 1.0}, OPTIMIZERS["SGD"], "--clip-norm"),
        ({"learning_rate": 0.2}, OPTIMIZERS["SGD"], "--learning-rate"),
        ({"schedule": "plateau"}, lambda: keras.optimizers.SGD(learning_rate("linear", 0.1, 9)), "--schedule"),
    ],
    ids=["a schedule", "clipping", "a rate", "a plateau where the rate has a schedule"],
)
def test_what_cannot_change_the_optimizer_of_a_compiled_model_is_refused(
    shards: Shards, tmp_path: Path, option: dict[str, Any], optimizer: Callable[[], Any], flag: str
) -> None:
    def own(description: Any) -> keras.Model:
        return compiled(linear(description, seed=1), optimizer)

    keyword = flag.removeprefix("--").replace("-", "_")
    with pytest.raises(UsageError, match=f"comes compiled with an optimizer, which {keyword} cannot change"):
        fit(shards, FitOptions(model=own, **option), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"schedule": "warm"}, "schedule is 'warm'; choose one of constant, cosine, linear, exponential, plateau"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"class_weight": "auto"}, "class_weight is 'auto'; choose one of none, balanced"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_options_outside_their_range_are_refused_with_their_value(change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        FitOptions(**change)


# FILE.keras


def test_a_model_file_is_trained_from_the_weights_it_has(shards: Shards, tmp_path: Path) -> None:
    first = mlp(shards.description, MlpOptions(units=8), seed=1)
    path = tmp_path / "first.keras"
    first.save(path)
    made = make_model(str(path), shards.description, MlpOptions(), SepcnnOptions(), seed=1)
    for found, wanted in zip(made.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)
    quick = {**QUICK, "mlp": MlpOptions(), "epochs": 1}
    runs = [fit(shards, FitOptions(**quick, model=str(path)), out=tmp_path / name) for name in ("one", "same")]
    one, same = (run.load_model().get_weights() for run in runs)
    assert all(np.array_equal(a, b) for a, b in zip(one, same, strict=True))  # the seed decides dropout here, too
    with pytest.raises(UsageError, match="mixed_precision cannot change"):
        fit(shards, FitOptions(model=str(path), mixed_precision=True), out=tmp_path / "half")


def test_model_files_that_are_missing_damaged_or_would_run_code_are_refused(shards: Shards, tmp_path: Path) -> None:
    unsafe, damaged = tmp_path / "unsafe.keras", tmp_path / "damaged.keras"
    inputs = keras.Input((40,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x * 2)(inputs)).save(unsafe)
    damaged.write_bytes(unsafe.read_bytes()[:500])
    for path, said in (
        (unsafe, "cannot be loaded"),
        (damaged, "cannot be loaded"),
        (tmp_path / "no.keras", "no model"),
    ):
        with pytest.raises(ModelError, match=f"{said}.*{path.name}|{path.name}.*{said}"):
            fit(shards, FitOptions(model=str(path)), out=tmp_path / "run")


# Vectors of others


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vectors") / "vectors.txt"
    rng = np.random.default_rng(0)
    lines = [f"word{number} " + " ".join(f"{value:.3f}" for value in rng.standard_normal(6)) for number in range(5, 30)]
    path.write_text("\n".join(lines))
    return path


class Watching(keras.callbacks.Callback):
    """Keeps the embedding's table and the learning rate of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.tables: list[np.ndarray] = []
        self.rates: list[float] = []

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.tables.append(self.model.get_layer("embedding").get_weights()[0])
        self.rates.append(float(self.model.optimizer.learning_rate))


class Stop(Watching):
    """Asks for an end in an epoch."""

    at = -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if epoch == Stop.at:
            Stop.at = -1
            signal.raise_signal(signal.SIGTERM)


def staged(vectors: Path, **changes: Any) -> FitOptions:
    small = SepcnnOptions(blocks=1, filters=4)
    options = FitOptions(batch_size=32, learning_rate=0.02, epochs=2, patience=9, sepcnn=small, embeddings=vectors)
    return replace(options, **changes)


def csv_logger(out: Path) -> keras.callbacks.CSVLogger:
    return keras.callbacks.CSVLogger(out.with_suffix(".csv"))


@pytest.fixture(scope="module")
def two_stages(sequences: Shards, vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Stop]:
    watching, out = Stop(), tmp_path_factory.mktemp("runs") / "staged"
    run = fit(sequences, staged(vectors), out=out, callbacks=[watching, csv_logger(out)])
    return run, watching


@pytest.mark.heavy
def test_vectors_are_frozen_first_and_then_trained_with_a_tenth_of_the_rate(
    two_stages: tuple[Run, Stop], vectors: Path
) -> None:
    run, watching = two_stages
    first = np.array(vectors.read_text().split()[1:7], np.float32)
    for table in watching.tables[:2]:
        np.testing.assert_array_equal(table[5], first)
        np.testing.assert_array_equal(table[:5], 0)
    assert (watching.tables[2][5] != first).any()
    assert watching.rates == pytest.approx([0.02, 0.02, 0.002, 0.002])
    assert run.metrics["epochs"] == 4
    assert run.load_model().get_layer("embedding").output.shape[-1] == 6


class Interrupted:
    """Trainings that were interrupted at the start of an epoch, each when it is first asked for; for copies."""

    def __init__(self, sequences: Shards, vectors: Path, root: Path) -> None:
        self._sequences, self._vectors, self._root = sequences, vectors, root

    def __getitem__(self, epoch: int) -> Path:
        out = self._root / str(epoch)
        if not out.exists():
            Stop.at, logger = epoch, csv_logger(out)
            with pytest.raises(KeyboardInterrupt):
                fit(self._sequences, staged(self._vectors), out=out, callbacks=[Stop(), logger])
            logger.csv_file.close()  # as the end of a process does
        return out


@pytest.fixture(scope="module")
def interrupted(sequences: Shards, vectors: Path, tmp_path_factory: pytest.TempPathFactory) -> Interrupted:
    return Interrupted(sequences, vectors, tmp_path_factory.mktemp("interrupted"))


@pytest.mark.heavy
@pytest.mark.parametrize("epoch", sampled([1, 2, 3], (2,), ["frozen", "when it thaws", "in fine-tuning"]))
def test_both_stages_go_on_after_an_interruption(
    sequences: Shards,
    vectors: Path,
    two_stages: tuple[Run, Stop],
    interrupted: Interrupted,
    tmp_path: Path,
    epoch: int,
) -> None:
    out = Path(shutil.copytree(interrupted[epoch], tmp_path / "run"))
    shutil.copy(interrupted[epoch].with_suffix(".csv"), out.with_suffix(".csv"))
    again = fit(sequences, staged(vectors), out=out, callbacks=[Stop(), csv_logger(out)])
    run, _ = two_stages
    assert (again.path / "history.csv").read_bytes() == (run.path / "history.csv").read_bytes()
    logged = out.with_suffix(".csv").read_bytes()
    assert logged == run.path.with_suffix(".csv").read_bytes()
    assert logged.count(b"\n") == 1 + 4  # also what was logged while the embedding was frozen
    for found, wanted in zip(again.load_model().get_weights(), run.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.heavy
def test_an_interrupted_fine_tuning_is_not_gone_on_with_without_its_vectors(
    sequences: Shards, vectors: Path, interrupted: Interrupted
) -> None:
    out = interrupted[3]
    with pytest.raises(RunExistsError, match=r"embeddings was .*, it is none now"):
        fit(sequences, staged(vectors, embeddings=None), out=out, callbacks=[Stop(), csv_logger(out)])


@pytest.mark.slow
def test_the_better_stage_is_kept(sequences: Shards, vectors: Path, tmp_path: Path) -> None:
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch >= 1:
                self.model.get_layer("output").set_weights([np.full((8, 3), 3.0), np.array([9.0, 0.0, 0.0])])
                self.model.optimizer.learning_rate = 0.0

    done = fit(sequences, staged(vectors, epochs=1), out=tmp_path / "run", callbacks=[Spoil()])
    assert done.metrics["epochs"] == 2
    assert done.metrics["best_epoch"] == 1
    model = done.load_model()
    steps = Steps(model, prepare(model, sequences.description, learning_rate=0.1))
    assert steps.evaluate(sequences.validation.batches(512))["loss"] == done.metrics["val_loss"]


def test_vectors_for_another_model_are_refused(shards: Shards, vectors: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="embeddings is for the model sepcnn, this is mlp"):
        fit(shards, FitOptions(embeddings=vectors), out=tmp_path / "run")
