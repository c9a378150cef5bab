"""Laws of users' models with logits and one-hot losses: what training reports is what their predictions are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from support.learnable import write_shards
from support.sampled import sampled
from support.training import fit

from shardtrain.inference.evaluate import evaluate
from shardtrain.inference.rows import predict_rows
from shardtrain.loader.info import DatasetInfo
from shardtrain.loader.shards import open_shards
from shardtrain.training.options import FitOptions


def user_model(units: int, activation: str | None, loss: Any, metric: Any) -> Callable[[DatasetInfo], keras.Model]:
    def model(description: DatasetInfo) -> keras.Model:
        inputs = keras.Input((description.num_features,), sparse=True)
        model = keras.Model(inputs, keras.layers.Dense(units, activation=activation)(inputs))
        if loss is not None:
            model.compile(keras.optimizers.Adam(0.01), loss, metrics=[metric])
        return model

    return model


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("classes", "units", "activation", "loss", "metric"),
    sampled(
        [
            (3, 3, None, keras.losses.SparseCategoricalCrossentropy(from_logits=True), "accuracy"),
            (3, 3, None, None, None),
            (3, 3, "softmax", "categorical_crossentropy", "accuracy"),
            (3, 3, None, keras.losses.CategoricalCrossentropy(from_logits=True), keras.metrics.CategoricalAccuracy),
            (2, 1, None, keras.losses.BinaryCrossentropy(from_logits=True), "accuracy"),
            (2, 1, None, None, None),
            (2, 2, "softmax", "categorical_crossentropy", "accuracy"),
            (2, 1, "sigmoid", "binary_crossentropy", "accuracy"),
        ],
        (4,),
        (
            *("logits", "logits without a loss", "one-hot", "one-hot logits", "one logit", "one logit without a loss"),
            *("one-hot of two classes", "one sigmoid unit"),
        ),
    ),
)
def test_predictions_are_probabilities_and_have_the_accuracy_that_training_reported(
    classes: int, units: int, activation: str | None, loss: Any, metric: Any, tmp_path: Path
) -> None:
    write_shards(tmp_path / "shards", num_classes=classes, noise=0.2)
    metric = metric if isinstance(metric, str | None) else metric(name="accuracy")
    model = user_model(units, activation, loss, metric)
    options = FitOptions(model=model, epochs=3, batch_size=32, class_weight="balanced")
    with open_shards(tmp_path / "shards") as shards:
        run = fit(shards, options, out=tmp_path / "run")
        y, found = zip(*predict_rows(run, shards), strict=True)
        measured = evaluate(run, shards)
    assert run.config["outputs"] == ("probabilities" if activation else "logits")
    labels, probabilities = np.concatenate(y), np.concatenate([each.probabilities for each in found])
    assert probabilities.shape == (100, classes)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
    accuracy = float((probabilities.argmax(axis=1) == labels).mean())
    assert run.metrics["val_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert measured["accuracy"] == pytest.approx(accuracy, abs=1e-6)
    crossentropy = -np.log(probabilities[np.arange(100), labels]).mean()
    assert run.metrics["val_loss"] == pytest.approx(crossentropy, rel=1e-4)
