"""Describe a dataset to the models trained on it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shardtrain.runtime.schema import Choice, Fields, Integer, Items, Mismatch, Text
from shardtrain.shards.layout import DATASETS, MAX_CLASSES, MAX_FEATURES, MAX_VOCABULARY


def _check_vocabulary(record: Mapping[str, Any]) -> None:
    if record["kind"] != "sequence" and record["vocabulary_size"] != record["num_features"]:
        expected = f"num_features, {record['num_features']}, as the kind is {record['kind']}"
        raise Mismatch(str(record["vocabulary_size"]), expected, ("vocabulary_size",))


DATASET_INFO = Fields(
    {
        "kind": Choice(tuple(DATASETS)),
        "num_features": Integer(1, MAX_FEATURES),
        "vocabulary_size": Integer(1, MAX_VOCABULARY),
        "class_names": Items(Text(), 1, MAX_CLASSES),
        "num_train": Integer(1),
        "num_validation": Integer(0),
        "vectorizer": Text(),
        "fingerprint": Text(),
    },
    rule=_check_vocabulary,
)  # as runs and studies record it


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """Description of a dataset for a model.

    Attributes:
        kind: "ngram" (x is a `Csr`), "sequence" (x is token ids, with 0 as padding at the front) or "dense" (x is
            float32).
        num_features: columns of x: n-grams, the length of the sequences, or features.
        vocabulary_size: upper bound of the token ids of sequences, the input size of an embedding; otherwise
            `num_features`.
        class_names: in the order of the class indices.
        num_train: number of training examples.
        num_validation: number of validation examples.
        vectorizer: fingerprint of the fitted vectorizer.
        fingerprint: fingerprint of the shards.
    """

    kind: str
    num_features: int
    vocabulary_size: int
    class_names: tuple[str, ...]
    num_train: int
    num_validation: int
    vectorizer: str
    fingerprint: str

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> DatasetInfo:
        """Make the description from a record that fits `DATASET_INFO`."""
        return cls(**{**record, "class_names": tuple(record["class_names"])})

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)
