"""Laws of recognizing networks in model files: the models of both engines are, all others and damaged files are not."""

from __future__ import annotations

import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from shardtrain.engine.keras_file import network_shape, read_keras, write_keras
from shardtrain.engine.network import Network, Shape
from shardtrain.errors import ModelError
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.guide import linear, mlp, prepare
from shardtrain.models.options import MlpOptions

FEATURES, LAYER = 30, keras.layers.Dense


def description(classes: int, kind: str = "ngram") -> DatasetInfo:
    return DatasetInfo(
        kind=kind,
        num_features=FEATURES,
        vocabulary_size=FEATURES,
        class_names=tuple(map(str, range(classes))),
        num_train=10,
        num_validation=10,
        fingerprint="",
        vectorizer="",
    )


def written(path: Path, shape: Shape, dropout: float = 0.2) -> Network:
    network = Network(shape)
    network.initialize(1)
    network.small += 0.1
    with open(path, "wb") as file:
        write_keras(file, network, name="mlp", dropout=dropout)
    return network


@pytest.mark.parametrize(("layers", "classes", "dropout"), [(1, 2, 0.0), (1, 5, 0.3), (2, 2, 0.0), (3, 5, 0.2)])
def test_a_written_network_is_recognized_and_read_back(
    tmp_path: Path, layers: int, classes: int, dropout: float
) -> None:
    network = written(tmp_path / "a.keras", Shape.of(FEATURES, classes, layers, 8), dropout)
    shape = network_shape(tmp_path / "a.keras")
    assert shape == network.shape
    again = read_keras(tmp_path / "a.keras", shape)
    np.testing.assert_array_equal(again.wide, network.wide)
    assert all(np.array_equal(one, two) for one, two in zip(again.kernels, network.kernels, strict=True))
    assert all(np.array_equal(one, two) for one, two in zip(again.biases, network.biases, strict=True))


@pytest.mark.parametrize("classes", [2, 5])
@pytest.mark.parametrize("layers", [0, 1, 3], ids=["linear", "mlp of 1 layer", "mlp of 3 layers"])
@pytest.mark.parametrize("compiled", [False, True], ids=["not compiled", "compiled"])
def test_the_guide_s_models_over_ngrams_are_networks(tmp_path: Path, layers: int, classes: int, compiled: bool) -> None:
    about, options = description(classes), MlpOptions(units=8, layers=max(layers, 1))
    model = mlp(about, options, seed=1) if layers else linear(about, seed=1)
    if compiled:
        prepare(model, about, learning_rate=0.1)
    model.save(tmp_path / "a.keras")
    shape = network_shape(tmp_path / "a.keras")
    assert shape == Shape.of(FEATURES, classes, max(layers, 1), 8)
    network = read_keras(tmp_path / "a.keras", shape)
    found = [array for pair in zip(network.kernels, network.biases, strict=True) for array in pair]
    assert all(np.array_equal(one, two) for one, two in zip(found, model.get_weights(), strict=True))


def stack(*layers: keras.layers.Layer, sparse: bool = True, dtype: str = "float32") -> keras.Model:
    inputs = keras.Input((FEATURES,), sparse=sparse, dtype=dtype)
    x: Any = inputs
    for layer in layers:
        x = layer(x)
    return keras.Model(inputs, x)


def compiled(**how: Any) -> keras.Model:
    model = stack(LAYER(3, "softmax"))
    model.compile("sgd", **how)
    return model


def branched() -> keras.Model:
    inputs = keras.Input((FEATURES,), sparse=True)
    x = LAYER(4, "relu")(inputs)
    LAYER(4, "relu")(x)
    return keras.Model(inputs, LAYER(3, "softmax")(keras.layers.add([x, LAYER(4, "relu")(x)])))


def twice() -> keras.Model:
    inputs, layer = keras.Input((FEATURES,), sparse=True), LAYER(4, "relu")
    again = LAYER(4, "relu")
    return keras.Model(inputs, LAYER(3, "softmax")(again(again(layer(inputs)))))


LOSS = "sparse_categorical_crossentropy"
OTHERS: dict[str, Callable[[], keras.Model]] = {
    "logits": lambda: stack(LAYER(4, "relu"), LAYER(3)),
    "a sigmoid for each class": lambda: stack(LAYER(3, "sigmoid")),
    "another activation": lambda: stack(LAYER(4, "tanh"), LAYER(3, "softmax")),
    "no bias": lambda: stack(LAYER(4, "relu", use_bias=False), LAYER(3, "softmax")),
    "a regularizer": lambda: stack(LAYER(4, "relu", kernel_regularizer="l2"), LAYER(3, "softmax")),
    "half precision": lambda: stack(LAYER(4, "relu", dtype="mixed_float16"), LAYER(3, "softmax", dtype="float32")),
    "another layer": lambda: stack(LAYER(4, "relu"), keras.layers.LayerNormalization(), LAYER(3, "softmax")),
    "a layer after the output": lambda: stack(LAYER(3, "softmax"), keras.layers.Dropout(0.1)),
    "branches": branched,
    "a layer used twice": twice,
    "dense input": lambda: stack(LAYER(3, "softmax"), sparse=False),
    "integers": lambda: stack(keras.layers.Embedding(9, 2), keras.layers.Flatten(), LAYER(3, "softmax"), sparse=False),
    "another loss": lambda: compiled(loss="kl_divergence", metrics=["accuracy"]),
    "a loss with settings": lambda: compiled(loss=keras.losses.CategoricalFocalCrossentropy(), metrics=["accuracy"]),
    "other metrics": lambda: compiled(loss=LOSS, metrics=["accuracy", "mse"]),
    "no metrics": lambda: compiled(loss=LOSS),
    "weighted metrics": lambda: compiled(loss=LOSS, metrics=["accuracy"], weighted_metrics=["accuracy"]),
    "a sequential model": lambda: keras.Sequential([keras.Input((FEATURES,)), LAYER(3, "softmax")]),
}


@pytest.mark.parametrize("name", OTHERS)
def test_any_other_model_is_not_a_network(tmp_path: Path, name: str) -> None:
    OTHERS[name]().save(tmp_path / "a.keras")
    assert network_shape(tmp_path / "a.keras") is None


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(path: Path, content: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, each in content.items():
            archive.writestr(name, each)


def changed(content: dict[str, bytes], change: Callable[[Any], None]) -> dict[str, bytes]:
    config = json.loads(content["config.json"])
    change(config)
    return {**content, "config.json": json.dumps(config).encode()}


def test_files_that_are_no_model_or_claim_too_much_are_not_networks(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    assert network_shape(path) is None
    written(path, Shape.of(FEATURES, 3, 2, 8))
    sound, content = path.read_bytes(), members(path)
    for damaged in (b"", b"PK", sound[:-30], sound[: len(sound) // 2], bytes(len(sound))):
        path.write_bytes(damaged)
        assert network_shape(path) is None

    def wide(config: Any) -> None:
        config["config"]["layers"][0]["config"]["batch_shape"][1] = 1 << 40

    hostile = (
        {"config.json": content["config.json"]},
        {**content, "config.json": b"[" * 100_000},
        {**content, "config.json": b"\xff"},
        {**content, "config.json": b" " * (1 << 21) + content["config.json"]},
        changed(content, wide),
        *(changed(content, lambda config, units=units: units_of(config, units)) for units in (0, -8, True, 8.5, "8")),
    )
    for each in hostile:
        pack(path, each)
        assert network_shape(path) is None
    pack(path, content, zipfile.ZIP_DEFLATED)
    assert network_shape(path) is None
    pack(path, content)
    assert network_shape(path) == Shape.of(FEATURES, 3, 2, 8)


def units_of(config: Any, units: Any) -> None:
    (layer,) = [each for each in config["config"]["layers"] if each["name"] == "dense_1"]
    layer["config"]["units"] = units


@pytest.mark.parametrize("value", [None, 0, -1, 1.5, "", "x", [], {}, [1], {"a": 1}], ids=repr)
def test_a_description_with_anything_at_any_place_raises_nothing(tmp_path: Path, value: Any) -> None:
    path = tmp_path / "a.keras"
    written(path, Shape.of(FEATURES, 3, 2, 8))
    content = members(path)
    config = json.loads(content["config.json"])
    for parent, key in [*places(config)]:
        kept, parent[key] = parent[key], value
        pack(path, {**content, "config.json": json.dumps(config).encode()})
        shape = network_shape(path)
        assert shape is None or shape == Shape.of(FEATURES, 3, 2, 8), (parent, key)
        parent[key] = kept


def places(value: Any) -> Any:
    for key, each in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from places(each)


def test_every_flipped_byte_is_read_or_refused_in_one_way(tmp_path: Path) -> None:
    path = tmp_path / "a.keras"
    shape = written(path, Shape.of(FEATURES, 3, 1, 8)).shape
    sound, rng = path.read_bytes(), random.Random(2)
    for place in rng.sample(range(len(sound)), 600):
        damaged = bytearray(sound)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        network_shape(path)
        try:
            read_keras(path, shape)
        except ModelError as error:
            assert str(error).count("\n") == 0  # noqa: PT017 - most of them change nothing that is read


def linked(file: h5py.File, other: Path) -> None:
    file["layers/dense/vars/0"] = h5py.ExternalLink(str(other), "/a")


def soft(file: h5py.File, other: Path) -> None:
    file["layers/dense/vars/0"] = h5py.SoftLink("/layers/dense/vars/1")


def virtual(file: h5py.File, other: Path) -> None:
    layout = h5py.VirtualLayout((FEATURES, 3), "<f4")
    layout[:] = h5py.VirtualSource(str(other), "a", (FEATURES, 3))
    file.create_virtual_dataset("layers/dense/vars/0", layout)


def words(file: h5py.File, other: Path) -> None:
    file["layers/dense/vars/0"] = np.full((FEATURES, 3), "a", h5py.string_dtype())


@pytest.mark.parametrize("change", [linked, soft, virtual, words], ids=lambda change: change.__name__)
def test_weights_that_are_not_plain_numbers_of_the_file_are_refused(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "a.keras"
    shape = written(path, Shape.of(FEATURES, 3, 1, 8)).shape
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["a"] = np.ones((FEATURES, 3), np.float32)
    content = members(path)
    (tmp_path / "weights.h5").write_bytes(content["model.weights.h5"])
    with h5py.File(tmp_path / "weights.h5", "a") as file:
        del file["layers/dense/vars/0"]
        change(file, tmp_path / "other.h5")
    pack(path, {**content, "model.weights.h5": (tmp_path / "weights.h5").read_bytes()})
    with pytest.raises(ModelError, match=r"a\.keras' cannot be read as a model"):
        read_keras(path, shape)
