"""Classify texts and feature rows with a trained model, in batches, so that memory does not grow with their number.

What computes the probabilities of a batch is a `RowModel`: `network_model` has that of a network of compiled kernels,
`keras_model` that of any other model, which needs Keras. Only one of them is imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.rows import Features, slice_rows
from shardtrain.arrays.text_input import text_sequence
from shardtrain.arrays.texts import Texts
from shardtrain.errors import ModelError
from shardtrain.inference.notes import UNKNOWN, empty_rows, marks_of
from shardtrain.inference.predictions import Predictions, Probabilities
from shardtrain.metrics.outputs import class_probabilities
from shardtrain.metrics.thresholds import Thresholds
from shardtrain.vectorize.fitted import Vectorizer

SPARSE_ROWS = 4096  # per call where rows stay sparse: the overhead of a call is negligible, and memory stays small


class RowModel(Protocol):
    """A trained model; may be called by several threads at a time.

    Attributes:
        most_rows: rows per call.
    """

    most_rows: int

    def __call__(self, x: Features) -> Probabilities:
        """Return the outputs for rows, as probabilities: of each class, or in one column that of class 1 of two."""
        ...


class Classifier:
    """A trained model and its vectorizer, loaded once; may be called by several threads at a time.

    Args:
        model: the trained model.
        class_names: of its classes.
        load_vectorizer: called when texts are first classified; raises RunError where there is no vectorizer.
        run: the folder that messages name.
        thresholds: of the predictions.
    """

    def __init__(
        self,
        model: RowModel,
        class_names: tuple[str, ...],
        load_vectorizer: Callable[[], Vectorizer],
        *,
        run: Path,
        thresholds: Thresholds | None = None,
    ) -> None:
        self.class_names = class_names
        self._thresholds = thresholds
        self._run = run
        self._model = model
        self._load_vectorizer = load_vectorizer

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
            ModelError: the model's outputs are not probabilities of the run's classes.
        """
        parts = [np.zeros((0, len(self.class_names)), np.float32)]
        step = self._model.most_rows
        for start in range(0, len(x), step):
            outputs = self._model(slice_rows(x, start, min(start + step, len(x))))
            if not np.isfinite(outputs).all():
                raise not_finite(self._run)
            parts.append(class_probabilities(outputs, len(self.class_names)))
        marks = np.where(empty_rows(x), UNKNOWN, 0).astype(np.uint8)
        return Predictions(self.class_names, np.concatenate(parts), marks, thresholds=self._thresholds)


def not_finite(run: Path) -> ModelError:
    """Return the error for a model whose outputs, or the loss computed from them, are not finite."""
    return ModelError(f"weights of '{run}' are not finite; restore the run from a copy or train again")
