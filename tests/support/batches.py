"""Compare batches of any form: of splits, and of the views of TensorFlow and Keras."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from shardtrain.arrays.csr import Csr


def array(x: Any) -> np.ndarray:
    """Features of any form as a dense array."""
    if isinstance(x, tf.SparseTensor):
        return tf.sparse.to_dense(x).numpy()
    return x.toarray() if isinstance(x, Csr) else np.asarray(x)


def assert_same_batches(found: Any, expected: Any) -> None:
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for (x, y), (expected_x, expected_y) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array(x), array(expected_x))
        np.testing.assert_array_equal(np.asarray(y), expected_y)
