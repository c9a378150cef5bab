"""Write and read a network as the file that Keras saves, without Keras.

A `.keras` file is a zip archive of `metadata.json`, `config.json` and `model.weights.h5`. The model in it is made of
layers of Keras alone (`Dropout` and `Dense` behind a sparse input), so plain Keras loads it, without any import of this
package. It is not compiled. Names and order of the layers are those of `models.guide`.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from shardtrain.engine.network import Network, Shape
from shardtrain.errors import ModelError

_VERSION = "3.5.0"  # of Keras, in the metadata; any later one reads it too
_DATE = (1980, 1, 1, 0, 0, 0)  # of the members, so that equal networks are equal files
_CONFIG, _METADATA, _WEIGHTS = "config.json", "metadata.json", "model.weights.h5"


def write_keras(file: IO[bytes], network: Network, *, name: str, dropout: float) -> None:
    """Write a network as a model that Keras loads.

    Args:
        file: open for writing.
        network: to write.
        name: of the model.
        dropout: share of values dropped in training before the sparse layer and between layers; 0: no such layers.
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


def read_keras(path: Path, shape: Shape) -> Network:
    """Read the weights of a file of `write_keras`, or of a model of `models.guide` that Keras saved.

    Args:
        path: the file.
        shape: that the network must have.

    Raises:
        ModelError: the file cannot be read, or holds another model.
    """
    network = Network(shape)
    try:
        with zipfile.ZipFile(path) as archive, h5py.File(io.BytesIO(archive.read(_WEIGHTS)), "r") as weights:
            layers = json.loads(archive.read(_CONFIG))["config"]["layers"]
            dense = [
                place for place, layer in zip(_places(layers), layers, strict=True) if "Dense" in layer["class_name"]
            ]
            for place, kernel, bias in zip(dense, network.kernels, network.biases, strict=True):
                for number, array in enumerate((kernel, bias)):
                    found = weights[f"layers/{place}/vars/{number}"]
                    if found.shape != array.shape:
                        raise ModelError(
                            f"'{path}' has weights of the shape {found.shape}, expected {array.shape}; restore it from "
                            "a copy or train again"
                        )
                    array[...] = found[...]
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, TypeError) as error:
        raise ModelError(
            f"'{path}' cannot be read as a model: {error}; restore it from a copy or train again"
        ) from error
    return network


def _weights(network: Network, layers: list[dict[str, Any]], name: str) -> bytes:
    """Return the weights as the HDF5 file that Keras expects."""
    content = io.BytesIO()
    arrays = zip(network.kernels, network.biases, strict=True)
    with h5py.File(content, "w", track_order=False) as file:
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
        if dropout:
            config = {"rate": dropout, "seed": None, "noise_shape": None}
            layer = _layer("Dropout", f"dropout_{number or 'input'}", config, name, width, {"training": False})
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
