"""Classify and evaluate feature rows with a model of Keras."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

from shardtrain.arrays.rows import Examples, Features
from shardtrain.inference.classifier import SPARSE_ROWS
from shardtrain.inference.predictions import Probabilities
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.guide import feature_adapter, input_adapter
from shardtrain.models.outputs import as_probabilities, meaning_of
from shardtrain.models.tracing import traced
from shardtrain.training.engine import EVALUATION_ROWS, EachBatch, Logs
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
        known = meaning or meaning_of(model, self._adapter, description)

        def outputs(*parts: tf.Tensor) -> tf.Tensor:
            return as_probabilities(model(self._adapter.assemble(*parts), training=False), known)

        self._outputs = traced(outputs, self._adapter.specs)
        sparse = self._adapter.kind == "ngram" and not self._adapter.dense
        self.most_rows = SPARSE_ROWS if sparse else EVALUATION_ROWS

    def __call__(self, x: Features) -> Probabilities:
        """Compute the probabilities of rows; see `RowModel`."""
        outputs: Probabilities = self._outputs(self._adapter.tensors(x)).numpy()
        return outputs


def evaluate(
    model: keras.Model,
    description: DatasetInfo,
    batches: Iterable[Examples],
    each: EachBatch,
    meaning: str | None = None,
) -> Logs:
    """Compute the metrics that a model is compiled with over all examples of the batches.

    Args:
        model: the trained model.
        description: of the data it was trained on.
        batches: rows and their classes.
        each: see `EachBatch`.
        meaning: as of `KerasModel`.
    """
    steps = Steps(model, input_adapter(model, description))
    known = meaning or meaning_of(model, steps.adapter, description)
    return steps.evaluate(batches, lambda y, outputs: each(y, np.asarray(as_probabilities(outputs, known))))
