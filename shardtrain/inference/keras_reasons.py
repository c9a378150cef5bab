"""Divide the scores of a model of Keras by gradient times input; see `attribution`.

The input is the row itself, or, where a model looks up token ids, the outputs of its `Embedding` layers, of which each
place of a text gets the sum over their dimensions. A last softmax or sigmoid is left out while the function is traced,
so that the score is the logit; where the last layer is another one, the score is the logarithm of the odds of one
output, or of the probability.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Features, slice_rows
from shardtrain.errors import ModelError
from shardtrain.inference.attribution import GRADIENT, Attribution, Classes, Numbers, column_and_sign, of_each_class
from shardtrain.inference.classifier import SPARSE_ROWS
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.adapters import InputAdapter
from shardtrain.models.guide import feature_adapter
from shardtrain.models.outputs import LOGITS, meaning_of, without_last_activation
from shardtrain.models.tracing import traced

_ROWS = 64  # of dense or embedded features per call: gradients have their size


class KerasReasons:
    """The `RowReasons` of a model of Keras.

    Args:
        model: the trained model, of which no other thread traces a function at the same time.
        description: of the data it was trained on.
        meaning: as of `KerasModel`.

    Raises:
        ModelError: it looks up token ids in no layer of the type `keras.layers.Embedding`.
    """

    method = GRADIENT

    def __init__(self, model: keras.Model, description: DatasetInfo, meaning: str | None = None) -> None:
        self._adapter = feature_adapter(model, description)
        logits = (meaning or meaning_of(model, self._adapter, description)) == LOGITS
        self._rows = _ROWS if self._adapter.kind != "ngram" or self._adapter.dense else SPARSE_ROWS
        self._lookups = 0
        with without_last_activation(model, leave=logits) as left_out:
            scores = _scores(model, self._adapter, plain=logits or left_out)
            self._scores = traced(scores, self._adapter.specs)
            columns = tf.TensorSpec((None,), tf.int32)
            self._divided = traced(self._divide(model, scores), (columns, *self._adapter.specs))
        if not self._lookups:  # an error while it is traced would be wrapped by TensorFlow
            raise ModelError(
                "the model looks up token ids in no layer of the type keras.layers.Embedding, so what a word adds "
                "cannot be computed; explain a model that has one"
            )
        self._width = int(self._scores.outputs[0].shape[-1])

    def _divide(self, model: keras.Model, scores: Callable[..., tf.Tensor]) -> Callable[..., Any]:
        """Return a function of columns and rows: the score of a column for each row, and gradient times input."""
        sequence, length = self._adapter.kind == "sequence", self._adapter.num_features

        def divided(columns: tf.Tensor, *parts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            inputs = parts[1] if self._adapter.kind == "ngram" else parts[0]
            tape = tf.GradientTape(watch_accessed_variables=False)
            with tape, _embedded(model, tape, length) as embedded:
                if not sequence:
                    tape.watch(inputs)
                chosen = tf.gather(scores(*parts), columns, batch_dims=1)
            watched = embedded if sequence else [inputs]
            self._lookups = len(watched)
            if not watched:
                return chosen, chosen
            slopes = tape.gradient(chosen, watched, unconnected_gradients="zero")
            products = [tf.cast(slope * value, tf.float32) for slope, value in zip(slopes, watched, strict=True)]
            return chosen, tf.add_n([tf.reduce_sum(each, axis=-1) for each in products] if sequence else products)

        return divided

    def __call__(self, x: Features, classes: Classes) -> Attribution:
        """Divide the score of one class of each row; see `RowReasons`."""
        columns, signs = column_and_sign(classes, self._width)
        scores, rest = [np.zeros(0)], [np.zeros(0)]
        values = [np.zeros(0) if isinstance(x, Csr) else np.zeros((0, x.shape[1]))]
        for start, rows in self._pieces(x):
            part = slice(start, start + len(rows))
            chosen = tf.convert_to_tensor(columns[part].astype(np.int32))
            score, added = self._divided((chosen, *self._adapter.tensors(rows)))
            sizes = np.diff(rows.indptr) if isinstance(rows, Csr) else np.full(len(rows), rows.shape[1])
            numbers = np.repeat(np.arange(len(rows)), sizes)
            shares = signs[part][numbers] * added.numpy().ravel()
            scores.append(signs[part] * score.numpy())
            rest.append(scores[-1] - np.bincount(numbers, shares, len(rows)))
            values.append(shares if isinstance(rows, Csr) else shares.reshape(rows.shape))
        return Attribution(scores=np.concatenate(scores), values=np.concatenate(values), rest=np.concatenate(rest))

    def scores(self, x: Features) -> Numbers:
        """Return the score of each class for rows; see `RowReasons`."""
        found = [np.zeros((0, self._width))]
        for _, rows in self._pieces(x):
            found.append(self._scores(self._adapter.tensors(rows)).numpy())
        return of_each_class(np.concatenate(found).astype(np.float64))

    def _pieces(self, x: Features) -> Iterator[tuple[int, Features]]:
        for start in range(0, len(x), self._rows):
            yield start, slice_rows(x, start, min(start + self._rows, len(x)))


def _scores(model: keras.Model, adapter: InputAdapter, *, plain: bool) -> Callable[..., tf.Tensor]:
    """Return a function of rows that computes scores; `plain` says that the model outputs them."""

    def scores(*parts: tf.Tensor) -> tf.Tensor:
        found = tf.cast(model(adapter.assemble(*parts), training=False), tf.float32)
        return found if plain else _log_odds(found)

    return scores


@contextmanager
def _embedded(model: keras.Model, tape: tf.GradientTape, length: int) -> Iterator[list[tf.Tensor]]:
    """Have the embeddings of rows of `length` token ids watched and collected while the model is called."""
    collected: list[tf.Tensor] = []
    layers = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.Embedding)]

    def watching(call: Any) -> Any:
        def watched(ids: Any, *arguments: Any, **keywords: Any) -> Any:
            outputs = call(ids, *arguments, **keywords)
            if len(ids.shape) == 2 and ids.shape[1] == length:  # others look up positions
                tape.watch(outputs)
                collected.append(outputs)
            return outputs

        return watched

    for layer in layers:
        layer.call = watching(layer.call)
    try:
        yield collected
    finally:
        for layer in layers:
            del layer.call  # that of the class is there again


def _log_odds(probabilities: tf.Tensor) -> tf.Tensor:
    """Return the logarithm of the odds of one output, or of each probability."""
    least = np.finfo(np.float32).tiny
    logs = tf.math.log(tf.maximum(probabilities, least))
    return logs - tf.math.log(tf.maximum(1 - probabilities, least)) if probabilities.shape[-1] == 1 else logs
