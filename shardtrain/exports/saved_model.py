"""Write a network as a SavedModel of TensorFlow, which takes sparse rows as the three arrays of `Csr`.

TensorFlow writes the files itself, to names of its own, and leaves them where it fails. So it writes to a temporary
folder, and its files are committed from there. The cost: the weights are written twice.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from shardtrain.engine.network import Network
from shardtrain.errors import StorageError
from shardtrain.runtime.atomic import commit_content, make_folder


def write_saved_model(network: Network, folder: Path) -> None:
    """Write a SavedModel with the signature `serving_default`.

    It takes `data` (float32), `indices` (int32) and `indptr` (int64) of some rows, and returns `probabilities`, (rows,
    classes) float32, and `class`, the index of the most probable one, (rows,) int64.

    Args:
        network: the trained network.
        folder: is made.

    Raises:
        StorageError: it cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="shardtrain-") as made:
        _save(network, made)
        for path in sorted(Path(made).rglob("*")):
            target = folder / path.relative_to(made)
            if path.is_file():
                make_folder(target.parent)
                commit_content(path, target)


def _save(network: Network, folder: str) -> None:
    """Let TensorFlow write the files."""
    module = tf.Module()
    module.kernels = [tf.Variable(np.ascontiguousarray(each), trainable=False) for each in network.kernels]
    module.biases = [tf.Variable(np.ascontiguousarray(each), trainable=False) for each in network.biases]

    def classify(data: tf.Tensor, indices: tf.Tensor, indptr: tf.Tensor) -> dict[str, tf.Tensor]:
        num_rows = tf.size(indptr, tf.int64) - 1
        rows = tf.repeat(tf.range(num_rows), indptr[1:] - indptr[:-1])
        places = tf.stack([rows, tf.cast(indices, tf.int64)], axis=1)
        shape = tf.stack([num_rows, tf.constant(network.shape.features, tf.int64)])
        sums = tf.sparse.sparse_dense_matmul(tf.SparseTensor(places, data, shape), module.kernels[0])
        sums += module.biases[0]
        for kernel, bias in zip(module.kernels[1:], module.biases[1:], strict=True):
            sums = tf.nn.relu(sums) @ kernel + bias
        probabilities = _probabilities(sums, network.shape.dims[-1])
        return {"probabilities": probabilities, "class": tf.argmax(probabilities, axis=1)}

    signature = [
        tf.TensorSpec([None], tf.float32, name="data"),
        tf.TensorSpec([None], tf.int32, name="indices"),
        tf.TensorSpec([None], tf.int64, name="indptr"),
    ]
    module.classify = tf.function(classify, input_signature=signature)
    try:
        tf.saved_model.save(module, folder, signatures={"serving_default": module.classify})
    except (tf.errors.OpError, ValueError) as error:
        said = str(getattr(error, "message", error)).splitlines()[0]
        raise StorageError(
            f"TensorFlow could not write to the temporary folder '{folder}': {said}; when the cause is removed, or "
            "TMPDIR names another folder, run the same command again"
        ) from error


def _probabilities(sums: Any, width: int) -> Any:
    """Return softmax of sums, or of one column, the logit of class 1, both classes' probabilities."""
    if width > 1:
        return tf.nn.softmax(sums)
    second = tf.sigmoid(sums)
    return tf.concat([1 - second, second], axis=1)
