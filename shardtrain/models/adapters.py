"""Convert batches to the inputs of TensorFlow and Keras, for the training loop and for `model.fit`.

Sparse rows enter a graph as the three components of a `tf.SparseTensor`, which is assembled inside it (`InputAdapter`).
numpy computes the coordinates: 0.04 ms for 512 rows of 60 non-zeros, against 1 ms for TensorFlow's expansion of row
pointers. `to_tf_dataset` does the same behind a `tf.data.Dataset`. Labels and token ids become int32, whatever their
type on disk.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Features, Labels
from shardtrain.loader.split import Split

LABELS = tf.TensorSpec((None,), tf.int32)


@dataclass(frozen=True, kw_only=True)
class InputAdapter:
    """Adapt a batch to a traced function: flat arrays outside, the model's input and the loss' labels inside.

    Attributes:
        kind: "ngram", "sequence" or "dense".
        num_features: columns of the features.
        dense: whether n-grams are passed to the model as dense rows.
        one_hot: columns of one-hot labels; 0: labels are class indices.
    """

    kind: str
    num_features: int
    dense: bool = False
    one_hot: int = 0

    @property
    def specs(self) -> tuple[tf.TensorSpec, ...]:
        """The input signature of a traced function; the number of rows is open, so no batch triggers a retrace."""
        if self.kind != "ngram":
            return (tf.TensorSpec((None, self.num_features), tf.float32 if self.kind == "dense" else tf.int32),)
        return tf.TensorSpec((None, 2), tf.int64), tf.TensorSpec((None,), tf.float32), tf.TensorSpec((2,), tf.int64)

    def arrays(self, x: Features) -> tuple[npt.NDArray[Any], ...]:
        """Convert the features of a batch to one array for each of `specs`."""
        if isinstance(x, Csr):
            return sparse_parts(x)
        return (model_array(x),)

    def tensors(self, x: Features) -> tuple[tf.Tensor, ...]:
        """Convert the features of a batch to one tensor for each of `specs`."""
        return tuple(map(tf.convert_to_tensor, self.arrays(x)))

    def assemble(self, *parts: tf.Tensor) -> Any:
        """Assemble the model's input, a sparse or dense tensor of shape (rows, num_features), inside the graph."""
        if self.kind != "ngram":
            return parts[0]
        coordinates, values, shape = parts
        rows = tf.SparseTensor(coordinates, values, tf.stack([shape[0], tf.constant(self.num_features, tf.int64)]))
        return tf.sparse.to_dense(rows, validate_indices=False) if self.dense else rows

    def targets(self, y: tf.Tensor) -> tf.Tensor:
        """Return class indices, (rows,), as the labels of the loss: the same, or one-hot, (rows, one_hot)."""
        return tf.one_hot(y, self.one_hot) if self.one_hot else y


def sparse_parts(x: Csr) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Convert CSR rows to the components of a `tf.SparseTensor`: coordinates (nnz, 2), values (nnz,) and shape (2,)."""
    coordinates = np.empty((len(x.data), 2), np.int64)
    coordinates[:, 0] = np.repeat(np.arange(x.shape[0]), np.diff(x.indptr))
    coordinates[:, 1] = x.indices
    return coordinates, x.data, np.array(x.shape, np.int64)


def sparse_tensor(x: Csr) -> tf.SparseTensor:
    """Convert CSR rows to a `tf.SparseTensor`."""
    return tf.SparseTensor(*sparse_parts(x))


def model_array(x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert token ids to int32; dense float32 features are returned unchanged."""
    return x if x.dtype.kind == "f" else x.astype(np.int32, copy=False)


def label_array(y: Labels) -> npt.NDArray[np.int32]:
    """Convert class indices, (rows,), to int32."""
    return y.astype(np.int32, copy=False)


def to_tf_dataset(
    split: Split,
    batch_size: int,
    *,
    dense: bool = False,
    seed: int = 0,
    shuffle: str = "none",
    drop_remainder: bool = False,
) -> tf.data.Dataset:
    """Create a `tf.data.Dataset` of (x, y) over the batches of a split, for `model.fit` and `validation_data`.

    Every iteration over it is the next epoch: the k-th one yields the order of epoch k - 1.

    Args:
        split: for example `open_shards(path).train`.
        batch_size: rows per batch; the last batch may be shorter.
        dense: n-grams as dense tensors instead of `tf.SparseTensor`; no effect on other features.
        seed: determines the order of examples together with the epoch.
        shuffle: "none", "blocks", "window" or "global", as in `Split.batches`.
        drop_remainder: omit a shorter last batch.

    Returns:
        Elements of shape (rows, num_features) and (rows,), with the number of batches as its known cardinality.
    """
    adapter = InputAdapter(kind=split.kind, num_features=split.num_features, dense=dense)
    epochs = itertools.count()

    def arrays() -> Iterator[tuple[npt.NDArray[Any], ...]]:
        for x, y in split.batches(
            batch_size,
            seed=seed,
            epoch=next(epochs),
            shuffle=shuffle,
            drop_remainder=drop_remainder,
            as_int32=True,
        ):
            yield *adapter.arrays(x), label_array(y)

    dataset = tf.data.Dataset.from_generator(arrays, output_signature=(*adapter.specs, LABELS))
    dataset = dataset.map(lambda *parts: (adapter.assemble(*parts[:-1]), parts[-1]))
    steps = split.steps_per_epoch(batch_size, drop_remainder)
    return dataset.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(tf.data.AUTOTUNE)
