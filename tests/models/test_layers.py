"""Laws of the sparse layers: they compute what dense layers compute, and nothing is made dense on the way."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from shardtrain.arrays.csr import Csr
from shardtrain.models.adapters import InputAdapter, sparse_tensor
from shardtrain.models.layers import SparseDense, SparseDropout, sparse_matmul

FEATURES, UNITS = 23, 5


@st.composite
def matrices(draw: st.DrawFn) -> sparse.csr_matrix:
    """Sparse matrices with empty rows, empty columns, or nothing in them at all."""
    rows = draw(st.integers(1, 9))
    density = draw(st.sampled_from([0.0, 0.1, 0.7, 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dense = rng.standard_normal((rows, FEATURES)) * (rng.random((rows, FEATURES)) < density)
    return sparse.csr_matrix(dense.astype(np.float32))


def tensor(matrix: sparse.csr_matrix) -> tf.SparseTensor:
    return sparse_tensor(Csr(matrix.data, matrix.indices, matrix.indptr, matrix.shape))


def normal(*shape: int, seed: int = 0) -> tf.Tensor:
    return tf.constant(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


@settings(deadline=None, max_examples=40)
@given(matrices())
def test_a_csr_batch_becomes_the_same_matrix_as_a_sparse_tensor(matrix: sparse.csr_matrix) -> None:
    np.testing.assert_array_equal(tf.sparse.to_dense(tensor(matrix)), matrix.toarray())


@settings(deadline=None, max_examples=40)
@given(matrices())
def test_the_product_and_both_its_gradients_equal_the_dense_ones(matrix: sparse.csr_matrix) -> None:
    kernel, upstream = normal(FEATURES, UNITS), normal(matrix.shape[0], UNITS, seed=1)
    x, dense = tensor(matrix), tf.constant(matrix.toarray())
    with tf.GradientTape(persistent=True) as tape:
        tape.watch([kernel, x.values, dense])
        ours = tf.reduce_sum(sparse_matmul(x, kernel) * upstream)
        theirs = tf.reduce_sum(tf.matmul(dense, kernel) * upstream)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(tape.gradient(ours, kernel), tape.gradient(theirs, kernel), rtol=1e-4, atol=1e-5)
    at_values = tf.gather_nd(tape.gradient(theirs, dense), x.indices)
    np.testing.assert_allclose(tape.gradient(ours, x.values), at_values, rtol=1e-4, atol=1e-5)


def test_features_repeated_across_and_within_rows_are_summed_in_a_dense_gradient() -> None:
    values, columns = np.array([1, 2, 4, 8], np.float32), np.array([3, 3, 3, 0], np.int32)
    x = sparse_tensor(Csr(values, columns, np.array([0, 2, 4]), (2, FEATURES)))
    kernel = normal(FEATURES, UNITS)
    with tf.GradientTape() as tape:
        tape.watch(kernel)
        loss = tf.reduce_sum(sparse_matmul(x, kernel))
    gradient = tape.gradient(loss, kernel)
    assert isinstance(gradient, tf.Tensor)
    expected = np.zeros((FEATURES, UNITS), np.float32)
    expected[3], expected[0] = 7, 8
    np.testing.assert_allclose(gradient, expected)


def random_matrix(rows: int, density: float) -> sparse.csr_matrix:
    rng = np.random.default_rng(0)
    values = rng.random((rows, FEATURES), np.float32)
    return sparse.csr_matrix(np.where(rng.random((rows, FEATURES)) < density, values, np.float32(0)))


@pytest.mark.parametrize("activation", [None, "relu", "softmax"])
@pytest.mark.parametrize("use_bias", [True, False], ids=["with bias", "without bias"])
def test_sparse_dense_equals_dense_with_the_same_weights(activation: str | None, use_bias: bool) -> None:
    matrix = random_matrix(12, 0.3)
    ours, theirs = (kind(UNITS, activation=activation, use_bias=use_bias) for kind in (SparseDense, keras.layers.Dense))
    ours.build((None, FEATURES))
    theirs.build((None, FEATURES))
    weights = [normal(*weight.shape, seed=number) for number, weight in enumerate(ours.weights)]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    expected = theirs(matrix.toarray())
    np.testing.assert_allclose(ours(tensor(matrix)), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(ours(matrix.toarray()), expected, rtol=1e-5, atol=1e-6)


def test_no_tensor_of_a_training_step_has_the_dense_shape_of_the_batch() -> None:
    features = 5003
    inputs = keras.Input((features,), sparse=True)
    model = keras.Model(inputs, SparseDense(UNITS, activation="relu")(SparseDropout(0.5, seed=1)(inputs)))

    @tf.function
    def step(*parts: tf.Tensor) -> list[tf.Tensor]:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(model(feed.assemble(*parts), training=True))
        return tape.gradient(loss, model.trainable_variables)

    feed = InputAdapter(kind="ngram", num_features=features)
    specs = (tf.TensorSpec((7, 2), tf.int64), tf.TensorSpec((7,), tf.float32), tf.TensorSpec((2,), tf.int64))
    graph = step.get_concrete_function(*specs).graph
    operations = [
        operation
        for inner in [graph, *(function.graph for function in graph._functions.values())]
        for operation in inner.get_operations()
    ]
    assert any(operation.type == "SparseMatrixMatMul" for operation in operations)
    shapes = [tuple(output.shape) for operation in operations for output in operation.outputs if output.shape.rank == 2]
    assert [shape for shape in shapes if shape[1] == features] == []


def test_sparse_layers_come_back_from_a_saved_model_as_they_were(tmp_path: Path) -> None:
    inputs = keras.Input((FEATURES,), sparse=True)
    hidden = SparseDropout(0.25, seed=3)(inputs)
    model = keras.Model(inputs, SparseDense(UNITS, activation="relu", kernel_regularizer="l2")(hidden))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert [layer.get_config() for layer in loaded.layers] == [layer.get_config() for layer in model.layers]
    x = tensor(random_matrix(4, 0.3))
    np.testing.assert_array_equal(loaded(x), model(x))


def test_products_stay_in_float32_under_mixed_precision() -> None:
    layer = SparseDense(UNITS, dtype="mixed_float16")
    matrix = random_matrix(4, 0.5)
    outputs = layer(tensor(matrix))
    assert outputs.dtype == tf.float16
    assert layer.kernel.dtype == "float32"
    np.testing.assert_allclose(outputs, matrix @ layer.kernel.numpy(), atol=1e-2)


def wide(values: int = 20_000) -> tf.SparseTensor:
    matrix = sparse.csr_matrix((np.ones(values, np.float32), np.arange(values), [0, values]), (1, values))
    return tensor(matrix)


def test_dropout_sets_values_to_zero_and_scales_the_rest() -> None:
    rate, x = 0.3, wide()
    dropped = SparseDropout(rate, seed=1)(x, training=True)
    np.testing.assert_array_equal(dropped.indices, x.indices)
    values = dropped.values.numpy()
    assert set(np.unique(values)) == {np.float32(0), np.float32(1 / (1 - rate))}
    assert abs((values == 0).mean() - rate) < 0.02
    assert abs(values.mean() - 1) < 0.02


@pytest.mark.parametrize(("rate", "training"), [(0.5, False), (0.0, True)], ids=["not training", "rate 0"])
def test_dropout_is_the_identity(rate: float, training: bool) -> None:
    x = wide(10)
    np.testing.assert_array_equal(SparseDropout(rate, seed=1)(x, training=training).values, x.values)


def test_dropout_is_decided_by_its_seed_and_differs_from_call_to_call() -> None:
    x = wide(1000)
    one, other = SparseDropout(0.5, seed=7), SparseDropout(0.5, seed=7)
    first, second = (one(x, training=True).values.numpy() for _ in range(2))
    np.testing.assert_array_equal(first, other(x, training=True).values)
    assert (first != second).any()
    assert (first != SparseDropout(0.5, seed=8)(x, training=True).values.numpy()).any()


def test_dropout_keeps_a_symbolic_input_sparse() -> None:
    assert SparseDropout(0.5)(keras.Input((FEATURES,), sparse=True)).sparse
    assert not SparseDropout(0.5)(keras.Input((FEATURES,))).sparse
