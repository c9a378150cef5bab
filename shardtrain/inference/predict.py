"""Uses a finished run: classes of raw text from the run folder alone, classes and accuracy of the rows of shards.

Texts are vectorized and classified in batches, so memory does not depend on how many there are (`raw_text` has whole
files). Shards can only be
evaluated if the same fitted vectorizer made them; anything else would give numbers that mean nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Features, Labels
from shardtrain.errors import ModelError
from shardtrain.loader.shards import Shards
from shardtrain.models.guide import input_adapter
from shardtrain.training.run_folder import Run
from shardtrain.training.steps import EVALUATION_ROWS, Logs, Steps
from shardtrain.vectorize.fitted import Vectorizer

SPARSE_ROWS = 4096  # rows a call where they stay sparse: a call's own cost counts no longer, and memory stays small

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of some texts.

    Attributes:
        class_names: names of the columns.
        probabilities: (texts, num_classes).
    """

    class_names: tuple[str, ...]
    probabilities: Probabilities

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> list[str]:
        """The name of the most probable class of each text."""
        return [self.class_names[best] for best in self.probabilities.argmax(axis=1)]


def predict(run: Run, texts: Iterable[str]) -> Predictions:
    """Classify texts, all results in memory; `predict_batches` has them batch by batch.

    Raises:
        RunError: the run's files are damaged, or the model does not give probabilities.
    """
    parts = [batch.probabilities for _, batch in predict_batches(run, texts)]
    names = run.description.class_names
    return Predictions(names, np.concatenate(parts) if parts else np.zeros((0, len(names)), np.float32))


def predict_batches(run: Run, texts: Iterable[str]) -> Iterator[tuple[list[str], Predictions]]:
    """Classify texts as they come; gives batches of them with what the model says, in order.

    Raises:
        RunError: the run's files are damaged, or the model does not give probabilities.
    """
    classifier = Classifier(run)
    remaining = iter(texts)
    while batch := list(islice(remaining, EVALUATION_ROWS)):
        yield batch, classifier(batch)


class Classifier:
    """The vectorizer and the traced model of a run, loaded once; may be called by several threads at a time.

    Raises:
        RunError: the run's files are damaged.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self.class_names = run.description.class_names
        model = run.load_model()
        self._feed = input_adapter(model, run.description)
        traced = tf.function(lambda *parts: model(self._feed.assemble(*parts), training=False))
        self._traced = traced.get_concrete_function(*self._feed.specs)
        sparse = self._feed.kind == "ngram" and not self._feed.dense
        self._rows = SPARSE_ROWS if sparse else EVALUATION_ROWS

    def __call__(self, texts: Sequence[str]) -> Predictions:
        """What the model says of the texts, in order.

        Raises:
            RunError: the run has no vectorizer, or not its own.
            ModelError: the model does not give probabilities.
        """
        return self.of_rows(self.vectorizer.transform(texts))

    @cached_property
    def vectorizer(self) -> Vectorizer:
        """What makes features of texts, loaded when it is first asked for.

        Raises:
            RunError: the run has none, or not its own.
        """
        return self._run.load_vectorizer()

    def of_rows(self, x: Features) -> Predictions:
        """What the model says of feature rows, in order.

        Raises:
            ModelError: the model does not give probabilities.
        """
        parts = [np.zeros((0, len(self.class_names)), np.float32)]
        for start in range(0, len(x), self._rows):
            stop = min(start + self._rows, len(x))
            rows = x.rows(start, stop) if isinstance(x, Csr) else x[start:stop]
            outputs = self._traced(*(tf.convert_to_tensor(array) for array in self._feed.arrays(rows)))
            parts.append(_probabilities(outputs.numpy()))
        return Predictions(self.class_names, np.concatenate(parts))


def predict_rows(run: Run, shards: Shards) -> Iterator[tuple[Labels, Predictions]]:
    """Classify the validation rows of shards in order; gives batches of their classes with what the model says.

    Raises:
        ModelError: another vectorizer made the shards, or their classes are others; or the model does not give
            probabilities.
        ShardsError: there is no validation split.
        RunError: the run's files are damaged.
    """
    check_shards(run, shards)
    classifier = Classifier(run)
    for x, y in shards.validation.batches(EVALUATION_ROWS):
        yield y, classifier.of_rows(x)


def _probabilities(outputs: Probabilities) -> Probabilities:
    """One column for each class, from softmax rows or from the probability of class 1 alone."""
    if not ((outputs >= 0) & (outputs <= 1)).all():
        raise ModelError(
            f"the model's outputs lie between {outputs.min():.3g} and {outputs.max():.3g}, so they are not "
            "probabilities; end the model with a softmax, or a sigmoid for two classes, and train it again"
        )
    return np.concatenate([1 - outputs, outputs], axis=1) if outputs.shape[1] == 1 else outputs


def evaluate(run: Run, shards: Shards) -> Logs:
    """Accuracy, loss and the model's other metrics on the validation split of `shards`.

    Raises:
        ModelError: another vectorizer made the shards, or their classes are others.
        ShardsError: there is no validation split.
        RunError: the run's files are damaged.
    """
    check_shards(run, shards)
    model = run.load_model()
    return Steps(model, input_adapter(model, run.description)).evaluate(shards.validation.batches(EVALUATION_ROWS))


def check_shards(run: Run, shards: Shards) -> None:
    """Check that shards hold what the run's model was trained on: the same features, the same classes.

    Raises:
        ModelError: another vectorizer made them, or their classes are others.
    """
    trained, given = run.description, shards.description
    if given.vectorizer != trained.vectorizer:
        raise ModelError(
            f"the features of '{shards.path}' were made by another vectorizer ({given.kind}, fingerprint "
            f"{given.vectorizer}) than those '{run.path}' was trained on ({trained.kind}, fingerprint "
            f"{trained.vectorizer}); evaluate on shards that this vectorizer made"
        )
    if (given.kind, given.num_features) != (trained.kind, trained.num_features):
        raise ModelError(
            f"'{shards.path}' has {given.num_features:,} {given.kind} features, '{run.path}' was trained on "
            f"{trained.num_features:,} {trained.kind} features; evaluate on shards of the same features"
        )
    if given.class_names != trained.class_names:
        raise ModelError(
            f"the classes of '{shards.path}' are {_listed(given.class_names)}, those of '{run.path}' are "
            f"{_listed(trained.class_names)}; they must be the same, in the same order"
        )


def _listed(names: tuple[str, ...]) -> str:
    shown = ", ".join(repr(name) for name in names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown
