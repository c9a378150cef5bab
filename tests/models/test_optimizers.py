"""Laws of the optimizers: sparse gradients move the weights as dense ones do, and the fast Adam is Adam."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from shardtrain.models.optimizers import FusedAdam, sum_repeated_rows

ROWS, WIDTH = 11, 3

OPTIMIZERS: dict[str, Callable[[], keras.optimizers.Optimizer]] = {
    "SGD": lambda: keras.optimizers.SGD(0.1),
    "momentum": lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "Adam": lambda: keras.optimizers.Adam(0.01),
    "AdamW": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.01),
    "RMSprop": lambda: keras.optimizers.RMSprop(0.01),
    "Adagrad": lambda: keras.optimizers.Adagrad(0.1),
    "FusedAdam": lambda: FusedAdam(0.01),
    "FusedAdam with weight decay": lambda: FusedAdam(0.01, weight_decay=0.01),
}


def slices(step: int) -> tuple[tf.IndexedSlices, np.ndarray]:
    """A gradient that names rows several times, and the same gradient as a dense array."""
    rng = np.random.default_rng(step)
    rows = rng.integers(0, ROWS - 2, 20)  # the last two rows never have a gradient
    values = rng.standard_normal((20, WIDTH)).astype(np.float32)
    dense = np.zeros((ROWS, WIDTH), np.float32)
    np.add.at(dense, rows, values)
    return tf.IndexedSlices(tf.constant(values), tf.constant(rows), tf.constant([ROWS, WIDTH])), dense


def start() -> keras.Variable:
    return keras.Variable(np.random.default_rng(99).standard_normal((ROWS, WIDTH)).astype(np.float32))


def moved(optimizer: keras.optimizers.Optimizer, gradient: Callable[[int], object], steps: int) -> np.ndarray:
    variable = start()
    optimizer.build([variable])
    for step in range(steps):
        optimizer.apply([gradient(step)], [variable])
    return np.asarray(variable)


@pytest.mark.parametrize("steps", [1, 20], ids=["one step", "twenty steps"])
@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_slices_with_repeated_rows_move_weights_as_the_dense_gradient_does(
    make: Callable[[], keras.optimizers.Optimizer], steps: int
) -> None:
    sparse = moved(make(), lambda step: sum_repeated_rows([slices(step)[0]])[0], steps)
    dense = moved(make(), lambda step: tf.constant(slices(step)[1]), steps)
    np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-6)
    assert (dense != np.asarray(start())).any()


def test_the_fast_adam_sums_repeated_rows_itself() -> None:
    sparse = moved(FusedAdam(0.01), lambda step: slices(step)[0], 20)
    dense = moved(FusedAdam(0.01), lambda step: tf.constant(slices(step)[1]), 20)
    np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-6)


def test_repeated_rows_are_summed_into_dense_gradients_and_dense_ones_and_none_are_kept() -> None:
    dense = tf.ones((2, 2))
    sparse, expected = slices(0)
    result = sum_repeated_rows([dense, None, sparse])
    assert result[0] is dense
    assert result[1] is None
    np.testing.assert_allclose(result[2], expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((ROWS,), tf.float32), ((ROWS, 2, 2), tf.float32), ((ROWS, WIDTH), tf.float64)],
    ids=["one axis", "three axes", "double precision"],
)
def test_sum_repeated_rows_takes_tables_of_any_rank_and_type(shape: tuple[int, ...], dtype: tf.DType) -> None:
    rows = [4, 1, 4]
    values = np.random.default_rng(0).standard_normal((3, *shape[1:]))
    (result,) = sum_repeated_rows([tf.IndexedSlices(tf.constant(values, dtype), tf.constant(rows), tf.constant(shape))])
    expected = np.zeros(shape)
    np.add.at(expected, rows, values)
    np.testing.assert_allclose(result, expected, rtol=1e-6, atol=1e-6)
    assert result.dtype == dtype


def test_the_sum_of_no_slices_is_zero() -> None:
    empty = tf.IndexedSlices(tf.zeros((0, WIDTH)), tf.zeros((0,), tf.int32), tf.constant([ROWS, WIDTH]))
    np.testing.assert_array_equal(sum_repeated_rows([empty])[0], np.zeros((ROWS, WIDTH)))


@pytest.mark.parametrize(
    "options",
    [{}, {"weight_decay": 0.02}, {"clipnorm": 0.5}, {"amsgrad": True}, {"use_ema": True}, {"beta_1": 0.5}],
    ids=lambda options: next(iter(options), "plain"),
)
def test_the_fast_adam_steps_as_keras_adam_does(options: dict[str, float]) -> None:
    ours = moved(FusedAdam(0.01, **options), lambda step: tf.constant(slices(step)[1]), 20)
    theirs = moved(keras.optimizers.Adam(0.01, **options), lambda step: tf.constant(slices(step)[1]), 20)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_the_fast_adam_goes_on_from_a_saved_model_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((64, 4)).astype(np.float32), rng.integers(0, 2, 64)

    def trained(model: keras.Model, epochs: int) -> keras.Model:
        model.fit(x, y, batch_size=16, epochs=epochs, shuffle=False, verbose=0)
        return model

    def fresh() -> keras.Model:
        glorot = keras.initializers.GlorotUniform(seed=1)
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer=glorot)])
        model.compile(FusedAdam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    model = trained(fresh(), 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert isinstance(loaded.optimizer, FusedAdam)
    resumed, straight = trained(loaded, 3), trained(model, 3)
    for found, expected in zip(resumed.get_weights(), straight.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
