"""Classify the rows of shards, and check that their features are those that the model was trained on.

Shards must have been made by the run's own fitted vectorizer: the columns of another one mean other n-grams or words.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from shardtrain.arrays.rows import Labels
from shardtrain.errors import ModelError
from shardtrain.inference.predictions import Predictions
from shardtrain.loader.shards import Shards
from shardtrain.runtime.quantities import ESCAPED, enumerated
from shardtrain.training.engine import EVALUATION_ROWS

if TYPE_CHECKING:
    from shardtrain.inference.run import Run


def predict_rows(run: Run, shards: Shards, *, split: str = "validation") -> Iterator[tuple[Labels, Predictions]]:
    """Classify the rows of a split of shards in order; yield batches of their labels with the predictions.

    Raises:
        ModelError: the shards were made with another vectorizer or have other classes, or the model's outputs are
            not probabilities.
        ShardsError: there is no such split.
        RunError: the run's files are damaged.
    """
    check_shards(run, shards)
    classifier = run.classifier(threshold=False)
    for x, y in shards.split(split).batches(EVALUATION_ROWS):
        yield y, classifier.classify_rows(x)


def check_shards(run: Run, shards: Shards) -> None:
    """Check that shards hold the features and classes that the run's model was trained on.

    Raises:
        ModelError: they were made with another vectorizer, or have other classes.
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
            f"the classes of '{shards.path}' are {enumerated(given.class_names, 5, ESCAPED)}, those of '{run.path}' "
            f"are {enumerated(trained.class_names, 5, ESCAPED)}; they must be the same, in the same order"
        )
