"""Explain predictions: divide the logit of a class among the terms of a text, with their places in it.

A text is classified as without explanation, by the same calls, so explaining changes no prediction. Its terms are
computed block by block: what is held is the n-grams of a block of texts, and of each text the terms that are shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Features
from shardtrain.arrays.text_input import text_sequence
from shardtrain.arrays.texts import Texts
from shardtrain.errors import UsageError
from shardtrain.inference.attribution import Attribution, Classes, NetworkReasons, Numbers, RowReasons
from shardtrain.inference.classifier import Classifier
from shardtrain.inference.explanations import Explanation, Reason
from shardtrain.inference.predictions import Predictions
from shardtrain.vectorize.fitted import Vectorizer, blocks_of
from shardtrain.vectorize.places import TextTerms, find_places

if TYPE_CHECKING:
    from shardtrain.inference.run import Run


class Explainer:
    """A classifier that explains; it is called like a `Classifier`, and by several threads at a time.

    Args:
        classifier: the model and its vectorizer.
        reasons: of the same model.
        most: terms per text; None: all.
    """

    def __init__(self, classifier: Classifier, reasons: RowReasons, *, most: int | None) -> None:
        self.class_names = classifier.class_names
        self._classifier = classifier
        self._reasons = reasons
        self._most = most

    @property
    def vectorizer(self) -> Vectorizer:
        """The vectorizer of the run; see `Classifier`."""
        return self._classifier.vectorizer

    def scores(self, x: Features) -> Numbers:
        """Return the score of each class for rows; see `RowReasons`."""
        return self._reasons.scores(x)

    def __call__(
        self,
        texts: Iterable[str],
        *,
        replaced: bool | npt.NDArray[np.bool_] = False,
        columns: int = 1,
        explained: int | None = None,
    ) -> Predictions:
        """Classify texts and explain one class of each.

        Args:
            texts: as of a `Classifier`, and so are `replaced` and `columns`.
            replaced: whether U+FFFD stands for bytes that could not be decoded.
            columns: number of columns that were joined to make a text.
            explained: the index of the class to explain; None: of each text the predicted one.
        """
        texts = Texts.from_strings(text_sequence(texts, call="explainer"))
        predictions = self._classifier(texts, replaced=replaced, columns=columns)
        best = predictions.probabilities.argmax(axis=1)
        classes = best if explained is None else np.full(len(texts), explained)
        explanations = tuple(self._explained(texts, predictions, classes))
        return replace(predictions, explanations=explanations)

    def _explained(self, texts: Texts, predictions: Predictions, classes: Classes) -> Iterator[Explanation]:
        names, labels, start = self.class_names, predictions.labels, 0
        settings = self.vectorizer.settings
        for block in blocks_of(texts, settings.density):
            x = self.vectorizer.transform(block)
            parts = self._reasons(x, classes[start : start + len(block)])
            for row, terms in enumerate(find_places(self.vectorizer, block)):
                text, chosen = start + row, classes[start + row]
                keys, values = _of_row(x, parts, row)
                order = _by_size(keys, values)
                most = len(order) if self._most is None else self._most
                shown, others = order[:most], order[most:]
                yield Explanation(
                    label=names[chosen],
                    predicted=labels[text],
                    probability=float(predictions.probabilities[text, chosen]),
                    logit=float(parts.scores[row]),
                    method=self._reasons.method,
                    reasons=_reasons(terms, keys[shown].tolist(), values[shown].tolist()),
                    num_others=len(others),
                    others=float(values[others].sum()),
                    rest=float(parts.rest[row] + values[keys < 0].sum()),
                )
            start += len(block)


def load_explainer(run: Run, most: int | None, *, threshold: bool = True) -> Explainer:
    """Load the model of a run to explain with.

    Args:
        run: a finished run.
        most: terms per text; None: all.
        threshold: as of `Run.classifier`.

    Raises:
        UsageError: the number is not positive.
        RunError: the run's files are damaged.
        ModelError: Keras cannot load the model, or it has no embedding to explain.
    """
    check_most(most)
    names, thresholds = run.description.class_names, run.thresholds if threshold else None
    how: dict[str, Any] = {"run": run.path, "thresholds": thresholds}
    reasons: RowReasons
    if (network := run.load_network()) is not None:
        from shardtrain.inference.network_model import NetworkModel

        classifier = Classifier(NetworkModel(network), names, run.load_vectorizer, **how)
        reasons = NetworkReasons(network)
    else:
        model, meaning = run.load_model(), run.config.get("outputs")
        from shardtrain.inference.keras_model import KerasModel
        from shardtrain.inference.keras_reasons import KerasReasons

        classifier = Classifier(KerasModel(model, run.description, meaning), names, run.load_vectorizer, **how)
        reasons = KerasReasons(model, run.description, meaning)
    return Explainer(classifier, reasons, most=most)


def check_most(most: int | None) -> None:
    """Check a number of terms.

    Raises:
        UsageError: it is not positive.
    """
    if most is not None and most < 1:
        raise UsageError(f"{most} terms: at least 1, or None for all")


def class_of(run: Run, label: str) -> int:
    """Return the index of the class with a name, or with a label of the corpus.

    Raises:
        UsageError: there is none.
    """
    codes = {**run.labels, **{name: code for code, name in enumerate(run.description.class_names)}}
    if label not in codes:
        shown = ", ".join(map(repr, run.description.class_names[:10]))
        raise UsageError(f"{label!r} is no class of '{run.path}', which has {shown}; choose one of its classes")
    return codes[label]


def _of_row(x: Features, parts: Attribution, row: int) -> tuple[npt.NDArray[np.int64], Numbers]:
    """Return the keys of a row, each once, with what they add: columns, or ids of words, and -1 for the padding."""
    if isinstance(x, Csr):
        entries = slice(int(x.indptr[row]), int(x.indptr[row + 1]))
        return x.indices[entries].astype(np.int64), parts.values[entries]
    ids, numbers = np.unique(x[row].astype(np.int64), return_inverse=True)
    values: Numbers = np.bincount(numbers, parts.values[row], len(ids)).astype(np.float64)
    return np.where(ids > 0, ids, np.int64(-1)), values


def _by_size(keys: npt.NDArray[np.int64], values: Numbers) -> npt.NDArray[np.int64]:
    """Return which of the values are of terms, by falling size whatever the sign, equal ones by key."""
    order = np.lexsort((keys, -np.abs(values)))
    return order[keys[order] >= 0]


def _reasons(terms: TextTerms, keys: Sequence[int], values: Sequence[float]) -> tuple[Reason, ...]:
    return tuple(
        Reason(terms=strings, places=places, contribution=value)
        for (strings, places), value in zip(terms.of(keys), values, strict=True)
    )
