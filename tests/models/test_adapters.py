"""Laws of the TensorFlow and Keras views: they deliver the batches of the split, and `model.fit` takes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from support.batches import array, assert_same_batches
from support.learnable import write_shards
from support.sampled import sampled

from shardtrain.loader.shards import Shards, open_shards
from shardtrain.loader.split import Split
from shardtrain.models.adapters import InputAdapter, to_tf_dataset
from shardtrain.models.pydataset import to_pydataset

VIEWS = {"pydataset": to_pydataset, "tf dataset": to_tf_dataset}
View = Callable[..., Any]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shards")
    return {kind: write_shards(root / kind, kind=kind) for kind in ("ngram", "sequence")}


@pytest.fixture(params=["ngram", "sequence"])
def shards(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Shards:
    return open_shards(folders[request.param])


@pytest.fixture
def ngrams(folders: dict[str, Path]) -> Split:
    return open_shards(folders["ngram"]).train


@pytest.mark.parametrize("drop_remainder", [False, True], ids=["with the last batch", "without it"])
@pytest.mark.parametrize("dense", [False, True], ids=["sparse", "dense"])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_view_delivers_the_batches_of_the_split(
    view: View, dense: bool, drop_remainder: bool, shards: Shards
) -> None:
    order = {"seed": 5, "shuffle": "window", "drop_remainder": drop_remainder}
    data = view(shards.train, 64, dense=dense, **order)
    assert len(data) == (4 if drop_remainder else 5)
    x, _ = next(iter(data))
    assert isinstance(x, tf.SparseTensor) == (shards.description.kind == "ngram" and not dense)
    assert_same_batches(view(shards.train, 64, dense=dense, **order), shards.train.batches(64, **order))


def test_every_pass_over_a_tf_dataset_is_the_next_epoch(ngrams: Split) -> None:
    data = to_tf_dataset(ngrams, 64, seed=5, shuffle="window")
    for epoch in range(3):
        assert_same_batches(data, ngrams.batches(64, seed=5, epoch=epoch, shuffle="window"))


def test_no_pass_over_a_tf_dataset_leaves_the_sparse_shape_open(ngrams: Split) -> None:
    assert to_tf_dataset(ngrams, 64).element_spec[0].shape.as_list() == [None, ngrams.num_features]


def user_model(shards: Shards, dense: bool) -> keras.Model:
    """A plain Keras model without any layer of ours."""
    description = shards.description
    if description.kind == "sequence":
        inputs = keras.Input((description.num_features,), dtype="int32")
        x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(description.vocabulary_size, 8)(inputs))
    else:
        inputs = x = keras.Input((description.num_features,), sparse=not dense)
    model = keras.Model(inputs, keras.layers.Dense(description.num_classes, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(0.05), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("shards", "dense"),
    sampled([("ngram", False), ("ngram", True), ("sequence", False)]),
    indirect=["shards"],
)
@pytest.mark.parametrize("view", sampled(VIEWS.values(), (1,), VIEWS))
def test_a_plain_keras_model_fits_and_validates_on_a_view(view: View, dense: bool, shards: Shards) -> None:
    keras.utils.set_random_seed(1)
    model = user_model(shards, dense)
    history = model.fit(
        view(shards.train, 50, dense=dense, seed=1, shuffle="window"),
        validation_data=view(shards.validation, 50, dense=dense),
        epochs=4,
        shuffle=False,
        verbose=0,
    ).history
    assert history["val_accuracy"][-1] > 0.8
    assert history["loss"][-1] < history["loss"][0]
    x, y = shards.validation.rows(0, shards.validation.num_examples)
    exact = (model.predict(array(x), verbose=0).argmax(axis=1) == y).mean() if dense else history["val_accuracy"][-1]
    assert history["val_accuracy"][-1] == pytest.approx(exact, abs=1e-6)


def test_a_feed_gives_a_traced_function_the_rows_it_was_given(shards: Shards) -> None:
    x, _ = shards.train.rows(0, 33)
    for dense in (False, True):
        feed = InputAdapter(kind=shards.description.kind, num_features=shards.description.num_features, dense=dense)
        assemble = tf.function(feed.assemble, input_signature=feed.specs)
        np.testing.assert_array_equal(array(assemble(*feed.arrays(x))), array(x))
