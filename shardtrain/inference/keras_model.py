"""Classify and evaluate feature rows with a model of Keras."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import keras
import tensorflow as tf

from shardtrain.arrays.rows import Examples, Features, Labels
from shardtrain.inference.classifier import SPARSE_ROWS
from shardtrain.inference.predictions import Probabilities
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.guide import feature_adapter, input_adapter
from shardtrain.models.outputs import LOGITS, meaning_of
from shardtrain.training.engine import EVALUATION_ROWS, Logs, numbers
from shardtrain.training.steps import Steps


class KerasModel:
    """A `RowModel` of a model of Keras, traced once.

    Args:
        model: the trained model.
        description: of the data it was trained on.
        meaning: what the model outputs, "probabilities" or "logits"; None if the run is of a version that did not
            record it.

    Attributes:
        most_rows: rows per call.
    """

    def __init__(self, model: keras.Model, description: DatasetInfo, meaning: str | None = None) -> None:
        self._adapter = feature_adapter(model, description)
        logits = (meaning or meaning_of(model, self._adapter, description)) == LOGITS

        def outputs(*parts: tf.Tensor) -> tf.Tensor:
            found = model(self._adapter.assemble(*parts), training=False)
            return _as_probabilities(found) if logits else found

        traced = tf.function(outputs)
        self._traced = traced.get_concrete_function(*self._adapter.specs)
        sparse = self._adapter.kind == "ngram" and not self._adapter.dense
        self.most_rows = SPARSE_ROWS if sparse else EVALUATION_ROWS

    def __call__(self, x: Features) -> Probabilities:
        """Compute the probabilities of rows; see `RowModel`."""
        outputs: Probabilities = self._traced(*map(tf.convert_to_tensor, self._adapter.arrays(x))).numpy()
        return outputs


def evaluate(
    model: keras.Model,
    description: DatasetInfo,
    batches: Iterable[Examples],
    each: Callable[[Labels, Probabilities], None],
    meaning: str | None = None,
) -> Logs:
    """Compute the metrics that a model is compiled with over all examples of the batches.

    Args:
        model: the trained model.
        description: of the data it was trained on.
        batches: rows and their classes.
        each: called with the classes of each batch and the outputs for its rows, as of a `RowModel`.
        meaning: as of `KerasModel`.
    """
    steps = Steps(model, input_adapter(model, description))
    logits = (meaning or meaning_of(model, steps.adapter, description)) == LOGITS
    steps.reset()
    logs: Mapping[str, Any] = {}
    for batch in batches:
        outputs, logs = steps.test_outputs(*steps.arguments(batch))
        each(batch[1], (_as_probabilities(outputs) if logits else outputs).numpy())
    return numbers(logs)


def _as_probabilities(logits: tf.Tensor) -> tf.Tensor:
    logits = tf.cast(logits, tf.float32)
    return tf.sigmoid(logits) if logits.shape[1] == 1 else tf.nn.softmax(logits)
