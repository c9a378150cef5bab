"""Laws of the models: they are the guide's, their seeds decide them, and what does not fit the shards is said."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from shardtrain.errors import ModelError, UsageError
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.guide import make_model, mlp, prepare, sepcnn
from shardtrain.models.layers import SparseDense, SparseDropout
from shardtrain.models.names import model_name
from shardtrain.models.options import MlpOptions, SepcnnOptions

NGRAM = DatasetInfo(
    kind="ngram",
    num_features=30,
    vocabulary_size=30,
    class_names=("a", "b", "c"),
    num_train=10,
    num_validation=10,
    vectorizer="v",
    fingerprint="f",
)
SEQUENCE = replace(NGRAM, kind="sequence", num_features=20, vocabulary_size=50)
BINARY = replace(NGRAM, class_names=("no", "yes"))


def made(model: Any, description: DatasetInfo = NGRAM, seed: int = 1) -> keras.Model:
    return make_model(model, description, MlpOptions(), SepcnnOptions(), seed=seed)


def kinds(model: keras.Model) -> list[str]:
    return [type(layer).__name__ for layer in model.layers[1:]]


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_mlp_is_dropout_then_dense_and_dropout_then_the_output(layers: int) -> None:
    model = mlp(NGRAM, MlpOptions(layers=layers, units=7, dropout=0.4), seed=1)
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    dropout = [layer for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    stack = ["SparseDropout", "SparseDense", "Dropout", "Dense", "Dropout"]
    assert kinds(model) == [*stack[: 2 * layers - 1], "SparseDense" if layers == 1 else "Dense"]
    assert [layer.units for layer in dense] == [7] * (layers - 1) + [3]
    assert [layer.activation.__name__ for layer in dense] == ["relu"] * (layers - 1) + ["softmax"]
    assert {layer.rate for layer in dropout} == {0.4}
    assert isinstance(dense[0], SparseDense)
    assert isinstance(dropout[0], SparseDropout)


def test_sepcnn_is_the_guides_stack_of_blocks() -> None:
    options = SepcnnOptions(blocks=3, filters=5, kernel_size=4, pool_size=2, embedding_dim=6, dropout=0.1)
    model = sepcnn(SEQUENCE, options, seed=1)
    block = ["Dropout", "SeparableConv1D", "SeparableConv1D", "MaxPooling1D"]
    last = ["SeparableConv1D", "SeparableConv1D", "GlobalAveragePooling1D", "Dropout", "Dense"]
    assert kinds(model) == ["Embedding", *block, *block, *last]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.SeparableConv1D)]
    assert [layer.filters for layer in convolutions] == [5, 5, 5, 5, 10, 10]
    assert {(layer.kernel_size, layer.padding, layer.activation.__name__) for layer in convolutions} == {
        ((4,), "same", "relu")
    }
    uniform = keras.initializers.RandomUniform
    assert all(isinstance(layer.depthwise_initializer, uniform) for layer in convolutions)
    assert all(isinstance(layer.bias_initializer, uniform) for layer in convolutions)
    assert (model.layers[1].input_dim, model.layers[1].output_dim) == (50, 6)


def test_the_defaults_are_the_guides() -> None:
    assert MlpOptions() == MlpOptions(layers=2, units=64, dropout=0.2)
    assert SepcnnOptions() == SepcnnOptions(
        blocks=2, filters=64, kernel_size=3, pool_size=3, embedding_dim=200, dropout=0.2
    )


def test_a_fresh_sepcnn_passes_its_signal_on_to_the_output() -> None:
    model = sepcnn(replace(SEQUENCE, num_features=60), SepcnnOptions(), seed=1)
    tokens = np.random.default_rng(0).integers(1, 50, (64, 60))
    averages = keras.Model(model.input, model.get_layer("average").output)(tokens)
    assert np.std(averages, axis=0).mean() > 1e-4  # depthwise weights of ±0.05 leave 1e-8, and training at chance


@pytest.mark.parametrize(("name", "description"), [("mlp", NGRAM), ("sepcnn", SEQUENCE)], ids=["mlp", "sepcnn"])
def test_two_classes_get_one_sigmoid_unit_and_more_get_a_softmax(name: str, description: DatasetInfo) -> None:
    for names, units, activation, loss in [
        (("no", "yes"), 1, "sigmoid", "binary_crossentropy"),
        (("a", "b", "c"), 3, "softmax", "sparse_categorical_crossentropy"),
    ]:
        described = replace(description, class_names=names)
        model = made(name, described)
        prepare(model, described, learning_rate=0.01)
        assert model.output_shape == (None, units)
        assert model.layers[-1].activation.__name__ == activation
        assert model.loss == loss
        assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize(("name", "description"), [("mlp", NGRAM), ("sepcnn", SEQUENCE)], ids=["mlp", "sepcnn"])
def test_the_seed_alone_decides_the_weights_and_no_global_generator_is_touched(
    name: str, description: DatasetInfo
) -> None:
    keras.utils.set_random_seed(123)
    before = random.getstate(), np.random.get_state()[1].tolist()
    first = made(name, description, seed=1).get_weights()
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    keras.utils.set_random_seed(456)
    same, other = (made(name, description, seed=seed).get_weights() for seed in (1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, same, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_layers_of_equal_shape_start_with_different_weights() -> None:
    model = mlp(NGRAM, MlpOptions(layers=4, units=30), seed=1)
    kernels = [layer.kernel.numpy() for layer in model.layers if isinstance(layer, keras.layers.Dense)][:3]
    assert not np.array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])


@pytest.mark.parametrize(("description", "name"), [(NGRAM, "mlp"), (SEQUENCE, "sepcnn")], ids=["n-grams", "sequences"])
def test_auto_takes_the_model_for_what_the_shards_hold(description: DatasetInfo, name: str) -> None:
    assert model_name("auto", description.kind) == name
    assert made("auto", description).name == name


@pytest.mark.parametrize(
    ("name", "description", "remedy"),
    [("mlp", SEQUENCE, "--vectorizer ngram"), ("sepcnn", NGRAM, "--vectorizer sequence")],
    ids=["mlp on sequences", "sepcnn on n-grams"],
)
def test_a_model_for_other_features_is_refused_with_the_build_that_fits(
    name: str, description: DatasetInfo, remedy: str
) -> None:
    with pytest.raises(ModelError) as caught:
        made(name, description)
    assert remedy in caught.value.on_command_line


def test_an_unknown_name_is_a_usage_error_that_lists_the_models() -> None:
    with pytest.raises(UsageError, match="'transformer'; choose mlp, linear, sepcnn"):
        made("transformer")


def test_pooling_that_would_leave_nothing_of_a_sequence_is_refused() -> None:
    with pytest.raises(ModelError, match="at least 27 tokens, these have 20"):
        sepcnn(SEQUENCE, SepcnnOptions(blocks=4, pool_size=3), seed=1)
    sepcnn(replace(SEQUENCE, num_features=27), SepcnnOptions(blocks=4, pool_size=3), seed=1)


@pytest.mark.parametrize(
    ("options", "change", "said"),
    [
        (MlpOptions, {"layers": 0}, "layers is 0"),
        (MlpOptions, {"dropout": 1.0}, "dropout is 1.0"),
        (MlpOptions, {"dropout": -0.1}, "dropout is -0.1"),
        (SepcnnOptions, {"kernel_size": -1}, "kernel_size is -1"),
    ],
)
def test_sizes_outside_their_range_are_refused_with_their_value(
    options: Any, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        options(**change)


USER_MODULE = """
import keras

def good(description):
    inputs = keras.Input((description.num_features,), sparse=True)
    return keras.Model(inputs, keras.layers.Dense(description.num_classes, activation="softmax")(inputs))

def unseeded(description):
    return keras.Sequential([keras.layers.Dense(description.num_classes, activation="softmax")])

def failing(description):
    raise KeyError("no such column")

def nothing(description):
    return None

class Mine(keras.layers.Layer):
    def call(self, inputs):
        return inputs

def unregistered(description):
    return keras.Sequential([keras.Input((30,)), Mine(), keras.layers.Dense(3)])

def unsafe(description):
    return keras.Sequential([keras.Input((30,)), keras.layers.Lambda(lambda x: x * 2), keras.layers.Dense(3)])
"""


@pytest.fixture
def user_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A current folder with a module of the user's, under a name that no other test has imported."""
    name = f"models_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(USER_MODULE)
    (tmp_path / f"{name}_broken.py").write_text("import no_such_package_anywhere\n")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_function_is_imported_from_the_current_folder_and_gets_the_description(user_folder: str) -> None:
    name = model_name(f"{user_folder}:good", NGRAM.kind)
    model = made(name)
    assert name == f"{user_folder}:good"
    assert model.output_shape == (None, 3)


def test_a_function_that_sets_no_seeds_still_gives_weights_decided_by_the_seed(user_folder: str) -> None:
    weights = []
    for seed in (1, 1, 2):
        model = made(f"{user_folder}:unseeded", seed=seed)
        prepare(model, NGRAM, learning_rate=0.01)
        weights.append(model.get_weights()[0])
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("{}_missing:good", "importing the module '.*_missing' from .* failed: ModuleNotFoundError"),
        ("{}_broken:good", "no_such_package_anywhere"),
        ("{}:absent", "has no function 'absent'"),
        ("{}:keras", "has no function 'keras'"),
        ("{}:failing", "the model function 'failing' failed: KeyError"),
        ("{}:nothing", "returned a NoneType, not a keras.Model"),
        ("{}:unregistered", r"not loaded again: .*'Mine'.*register_keras_serializable"),
        ("{}:unsafe", "not loaded again: .*Lambda"),
    ],
)
def test_a_function_that_cannot_be_used_is_named_with_the_reason(user_folder: str, name: str, said: str) -> None:
    with pytest.raises(ModelError, match=said):
        made(name.format(user_folder))


def dense_model(inputs: int, outputs: int, activation: str = "softmax") -> keras.Model:
    return keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(outputs, activation=activation)])


@pytest.mark.parametrize(
    ("model", "description", "said"),
    [
        (dense_model(30, 4), NGRAM, "has 4 units; for 3 classes it must have 3 units"),
        (dense_model(30, 1, "sigmoid"), NGRAM, "has 1 unit; for 3 classes it must have 3 units"),
        (dense_model(30, 3), BINARY, "has 3 units; for 2 classes it must have 1 or 2 units"),
        (dense_model(31, 3), NGRAM, r"does not take batches of ngram features of shape \(rows, 30\)"),
        (keras.Sequential([keras.layers.Embedding(50, 3)]), SEQUENCE, r"shape \(1, 20, 3\)"),
    ],
    ids=["too many units", "too few units", "neither 1 nor 2", "other width", "an output for each token"],
)
def test_a_model_that_does_not_fit_the_shards_is_refused(
    model: keras.Model, description: DatasetInfo, said: str
) -> None:
    with pytest.raises(ModelError, match=said) as refused:
        prepare(model, description, learning_rate=0.01)
    assert "\x1b" not in str(refused.value)  # Keras' own messages are partly bold


def test_a_model_is_fed_densely_only_where_its_input_is_dense() -> None:
    assert prepare(dense_model(30, 3), NGRAM, learning_rate=0.01).dense
    assert not prepare(made("mlp"), NGRAM, learning_rate=0.01).dense


def test_two_softmax_units_do_for_two_classes() -> None:
    model = dense_model(30, 2)
    prepare(model, BINARY, learning_rate=0.01)
    assert model.loss == "sparse_categorical_crossentropy"


def test_a_model_that_comes_compiled_keeps_its_optimizer_and_loss() -> None:
    model = dense_model(30, 3)
    optimizer = keras.optimizers.SGD(0.5)
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(), metrics=["accuracy"])
    prepare(model, NGRAM, learning_rate=0.01)
    assert model.optimizer is optimizer
    assert float(model.optimizer.learning_rate) == 0.5
