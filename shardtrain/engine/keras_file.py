"""Write and read a network as the file that Keras saves, without Keras.

A `.keras` file is a zip archive of `metadata.json`, `config.json` and `model.weights.h5`. The model in it is made of
layers of Keras alone (`Dropout` and `Dense` behind a sparse input), so plain Keras loads it, without any import of this
package. It is not compiled. Names and order of the layers are those of `models.guide`.
"""

from __future__ import annotations

import io
import itertools
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from shardtrain.engine.network import Network, Shape
from shardtrain.errors import ModelError, ShardsError
from shardtrain.shards.safety import HDF5_ERRORS, check_contents, load_h5py, open_object

_VERSION = "3.5.0"  # of Keras, in the metadata; any later one reads it too
_DATE = (1980, 1, 1, 0, 0, 0)  # of the members, so that equal networks are equal files
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
_MAX_CONFIG = 1 << 20  # bytes; that of a network has a thousandth
_KINDS = {
    "keras.layers>Dropout": "Dropout",
    "keras.layers>Dense": "Dense",
    "shardtrain>SparseDropout": "Dropout",
    "shardtrain>SparseDense": "Dense",
}
_WITHOUT_EFFECT = {
    *("name", "trainable", "dtype", "units", "activation", "use_bias", "rate", "seed", "noise_shape"),
    *("kernel_initializer", "bias_initializer", "kernel_constraint", "bias_constraint"),
}  # on what a trained layer computes, or looked at elsewhere


def write_keras(file: IO[bytes], network: Network, *, name: str, dropout: float) -> None:
    """Write a network as a model that Keras loads.

    Args:
        file: open for writing.
        network: to write.
        name: of the model.
        dropout: share of values dropped between layers when Keras trains the model further; 0: no such layers.
    """
    layers = list(_layers(network.shape, dropout))
    config = {
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {
            "name": name,
            "trainable": True,
            "layers": layers,
            "input_layers": [layers[0]["name"], 0, 0],
            "output_layers": [layers[-1]["name"], 0, 0],
        },
        "registered_name": "Functional",
        "build_config": {"input_shape": None},
    }
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in ((_METADATA, {"keras_version": _VERSION}), (_CONFIG, config)):
            archive.writestr(zipfile.ZipInfo(member, _DATE), json.dumps(content))
        with archive.open(zipfile.ZipInfo(_WEIGHTS, _DATE), "w", force_zip64=True) as out:
            out.write(_weights(network, layers, name))


def network_shape(path: Path) -> Shape | None:
    """Return the shape of the network that a model file describes; None where it describes anything else.

    Networks are the models of `write_keras` and of `models.guide` over n-grams, which differ in the classes of their
    layers only: `Dropout` and `Dense` behind a sparse input, in float32, ending with probabilities, and not compiled or
    compiled with the loss and the metric of `models.guide`. All other models are Keras' business, and so are files
    that are damaged or that describe more weights than they have bytes. Weights are not read.
    """
    try:
        size = path.stat().st_size
        with zipfile.ZipFile(path) as archive:
            found = {info.filename: info for info in archive.infolist()}
            config, weights = found[_CONFIG], found[_WEIGHTS]
            stored = all(
                each.compress_type == zipfile.ZIP_STORED and each.file_size <= size for each in (config, weights)
            )
            if not stored or config.file_size > _MAX_CONFIG:
                return None
            described = json.loads(archive.read(config))
        shape = _shape_of(described)
    except (*HDF5_ERRORS, zipfile.BadZipFile, EOFError, RecursionError):
        return None
    return shape if shape is not None and 4 * shape.num_weights <= weights.file_size else None


def read_keras(path: Path, shape: Shape) -> Network:
    """Read the weights of a file whose `network_shape` is known.

    Args:
        path: the file.
        shape: that the network must have.

    Raises:
        ModelError: the file cannot be read, or holds another model.
    """
    try:
        network = Network(shape)
        with zipfile.ZipFile(path) as archive, load_h5py().File(io.BytesIO(archive.read(_WEIGHTS)), "r") as weights:
            layers = json.loads(archive.read(_CONFIG))["config"]["layers"]
            dense = [
                place for place, layer in zip(_places(layers), layers, strict=True) if "Dense" in layer["class_name"]
            ]
            for place, kernel, bias in zip(dense, network.kernels, network.biases, strict=True):
                for number, array in enumerate((kernel, bias)):
                    found = open_object(weights, f"layers/{place}/vars/{number}")
                    check_contents(found)
                    if found.shape != array.shape:
                        raise ValueError(f"it has weights of the shape {found.shape}, expected {array.shape}")
                    array[...] = found[...]
    except (ShardsError, *HDF5_ERRORS, zipfile.BadZipFile, EOFError, RecursionError) as error:
        raise ModelError(
            f"'{path}' cannot be read as a model: {error}; restore it from a copy or train again"
        ) from error
    return network


def _shape_of(model: Any) -> Shape | None:
    """Return the shape of the network that a model's config.json describes; None: it describes another model.

    Errors of Python's own types are raised where it is not built like a config.json of Keras.
    """
    config = model["config"]
    inputs, *layers = config["layers"]
    if model["class_name"] != "Functional" or inputs["class_name"] != "InputLayer" or not layers:
        return None
    (rows, features), sparse = inputs["config"]["batch_shape"], inputs["config"]["sparse"]
    plain = (rows, sparse, inputs["config"]["dtype"], config["input_layers"], config["output_layers"])
    if plain != (None, True, "float32", [inputs["name"], 0, 0], [layers[-1]["name"], 0, 0]):
        return None
    kinds = [_KINDS.get(each["registered_name"] or f"{each['module']}>{each['class_name']}") for each in layers]
    if not all(kinds) or not all(map(_is_plain, layers)):
        return None
    for before, layer in itertools.pairwise((inputs, *layers)):
        ((tensor,),) = [node["args"] for node in layer["inbound_nodes"]]
        if any(any(node["kwargs"].values()) for node in layer["inbound_nodes"]):  # such as training=True
            return None
        if tensor["config"]["keras_history"] != [before["name"], 0, 0]:
            return None
    dense = [layer["config"] for layer, kind in zip(layers, kinds, strict=True) if kind == "Dense"]
    dims = tuple(each["units"] for each in dense)
    last = "sigmoid" if dims[-1] == 1 else "softmax"
    expected = ["relu"] * (len(dims) - 1) + [last]
    sound = all(type(size) is int and size > 0 for size in (features, *dims))
    if not sound or kinds[-1] != "Dense" or [each["activation"] for each in dense] != expected:
        return None
    return Shape(features, dims) if _is_compiled_plainly(model.get("compile_config"), dims[-1]) else None


def _is_plain(layer: dict[str, Any]) -> bool:
    """Return whether a layer computes in float32 and has no part that changes its output or the loss."""
    config = layer["config"]
    dtype = config["dtype"]
    if isinstance(dtype, dict):
        dtype = dtype["config"]["name"] if dtype["class_name"] == "DTypePolicy" else None
    others = [value for name, value in config.items() if name not in _WITHOUT_EFFECT]
    return dtype == "float32" and config.get("use_bias", True) is True and all(value is None for value in others)


def _is_compiled_plainly(compiled: Any, width: int) -> bool:
    """Return whether a model is not compiled, or evaluates to cross-entropy and accuracy alone."""
    if not compiled:
        return True
    loss = "binary_crossentropy" if width == 1 else "sparse_categorical_crossentropy"
    weighted = (compiled.get("loss_weights"), compiled.get("weighted_metrics"))
    return (compiled["loss"], compiled["metrics"], *weighted) == (loss, ["accuracy"], None, None)


def _weights(network: Network, layers: list[dict[str, Any]], name: str) -> bytes:
    """Return the weights as the HDF5 file that Keras expects."""
    content = io.BytesIO()
    arrays = zip(network.kernels, network.biases, strict=True)
    with load_h5py().File(content, "w", track_order=False) as file:
        file.create_group("vars").attrs["name"] = name
        for place, layer in zip(_places(layers), layers, strict=True):
            group = file.create_group(f"layers/{place}/vars")
            group.attrs["name"] = layer["name"]
            if layer["class_name"] == "Dense":
                for number, array in enumerate(next(arrays)):
                    group.create_dataset(str(number), data=np.ascontiguousarray(array), track_times=False)
    return content.getvalue()


def _places(layers: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the groups of layers in the weights: the class in snake case, numbered from its second layer on."""
    seen: dict[str, int] = {}
    for layer in layers:
        kind = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in layer["class_name"])[1:]
        yield kind if kind not in seen else f"{kind}_{seen[kind]}"
        seen[kind] = seen.get(kind, 0) + 1


def _layers(shape: Shape, dropout: float) -> Iterator[dict[str, Any]]:
    """Yield the layers of a model as Keras describes them."""
    name, width = "ngrams", shape.features
    yield {
        "module": "keras.layers",
        "class_name": "InputLayer",
        "config": {"batch_shape": [None, width], "dtype": "float32", "sparse": True, "name": name},
        "registered_name": None,
        "name": name,
        "inbound_nodes": [],
    }
    last = len(shape.dims) - 1
    for number, units in enumerate(shape.dims):
        if dropout and number:  # none on the sparse input, which Keras cannot drop from in training
            config = {"rate": dropout, "seed": None, "noise_shape": None}
            layer = _layer("Dropout", f"dropout_{number}", config, name, width, {"training": False})
            name = layer["name"]
            yield layer
        activation = "relu" if number < last else "sigmoid" if units == 1 else "softmax"
        dense = {"units": units, "activation": activation, "use_bias": True}
        layer = _layer("Dense", f"dense_{number + 1}" if number < last else "output", dense, name, width, {})
        layer["build_config"] = {"input_shape": [None, width]}
        name, width = layer["name"], units
        yield layer


def _layer(
    kind: str, name: str, config: dict[str, Any], before: str, width: int, keywords: dict[str, Any]
) -> dict[str, Any]:
    """Return a layer after the layer `before`, which gives rows of `width`."""
    tensor = {"shape": [None, width], "dtype": "float32", "keras_history": [before, 0, 0]}
    return {
        "module": "keras.layers",
        "class_name": kind,
        "config": {"name": name, "trainable": True, "dtype": "float32", **config},
        "registered_name": None,
        "name": name,
        "inbound_nodes": [{"args": [{"class_name": "__keras_tensor__", "config": tensor}], "kwargs": keywords}],
    }
