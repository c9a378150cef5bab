"""Classify texts and feature rows with a trained model, in batches, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from shardtrain.arrays.rows import Features, slice_rows
from shardtrain.arrays.text_input import text_sequence
from shardtrain.arrays.texts import Texts
from shardtrain.errors import ModelError
from shardtrain.inference.notes import UNKNOWN, empty_rows, marks_of
from shardtrain.inference.predictions import Predictions, Probabilities
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.guide import feature_adapter
from shardtrain.models.outputs import LOGITS, meaning_of
from shardtrain.training.engine import EVALUATION_ROWS
from shardtrain.vectorize.fitted import Vectorizer

SPARSE_ROWS = 4096  # per call where rows stay sparse: the overhead of a call is negligible, and memory stays small


class Classifier:
    """A traced model and its vectorizer, loaded once; may be called by several threads at a time.

    Args:
        model: the trained model.
        description: of the data it was trained on.
        load_vectorizer: called when texts are first classified; raises RunError where there is no vectorizer.
        meaning: what the model outputs, "probabilities" or "logits"; None if the run is of a version that did not
            record it.
    """

    def __init__(
        self,
        model: keras.Model,
        description: DatasetInfo,
        load_vectorizer: Callable[[], Vectorizer],
        meaning: str | None = None,
    ) -> None:
        self.class_names = description.class_names
        self._load_vectorizer = load_vectorizer
        self._adapter = feature_adapter(model, description)
        logits = (meaning or meaning_of(model, self._adapter, description)) == LOGITS

        def outputs(*parts: tf.Tensor) -> tf.Tensor:
            found = model(self._adapter.assemble(*parts), training=False)
            if not logits:
                return found
            found = tf.cast(found, tf.float32)
            return tf.sigmoid(found) if found.shape[1] == 1 else tf.nn.softmax(found)

        traced = tf.function(outputs)
        self._traced = traced.get_concrete_function(*self._adapter.specs)
        sparse = self._adapter.kind == "ngram" and not self._adapter.dense
        self._rows = SPARSE_ROWS if sparse else EVALUATION_ROWS

    def __call__(
        self, texts: Iterable[str], *, replaced: bool | npt.NDArray[np.bool_] = False, columns: int = 1
    ) -> Predictions:
        """Classify texts, in order.

        Args:
            texts: any series of texts.
            replaced: whether U+FFFD in the texts, or in each of them, stands for bytes that could not be decoded.
            columns: number of columns that were joined to make a text.

        Raises:
            TextsError: these are no texts.
            RunError: the run has no vectorizer, or another one than it was trained with.
            ModelError: the model's outputs are not probabilities.
        """
        texts = Texts.from_strings(text_sequence(texts, call="classifier"))
        x = self.vectorizer.transform(texts)
        return replace(self.classify_rows(x), marks=marks_of(texts, x, replaced=replaced, columns=columns))

    @cached_property
    def vectorizer(self) -> Vectorizer:
        """The vectorizer of the run, loaded on first use.

        Raises:
            RunError: the run has none, or another one than it was trained with.
        """
        return self._load_vectorizer()

    def classify_rows(self, x: Features) -> Predictions:
        """Classify feature rows, in order.

        Raises:
            ModelError: the model's outputs are not probabilities.
        """
        parts = [np.zeros((0, len(self.class_names)), np.float32)]
        for start in range(0, len(x), self._rows):
            stop = min(start + self._rows, len(x))
            rows = slice_rows(x, start, stop)
            outputs = self._traced(*(tf.convert_to_tensor(array) for array in self._adapter.arrays(rows)))
            parts.append(_probabilities(outputs.numpy()))
        marks = np.where(empty_rows(x), UNKNOWN, 0).astype(np.uint8)
        return Predictions(self.class_names, np.concatenate(parts), marks)


def _probabilities(outputs: Probabilities) -> Probabilities:
    """Return one column per class, from softmax rows or from the probability of class 1 alone."""
    if not ((outputs >= 0) & (outputs <= 1)).all():
        raise ModelError(
            f"the model's outputs lie between {outputs.min():.3g} and {outputs.max():.3g}, so they are neither "
            "probabilities, as its last layer promises, nor logits; end the model with a softmax, or a sigmoid for two "
            "classes"
        )
    return np.concatenate([1 - outputs, outputs], axis=1) if outputs.shape[1] == 1 else outputs
