"""Describe a dataset to the models trained on it."""

from __future__ import annotations

from dataclasses import dataclass


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

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)
