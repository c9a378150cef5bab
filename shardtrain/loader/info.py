"""What a model must know of the data it is trained on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class DatasetInfo:
    """What a model has to know of the data.

    Attributes:
        kind: "ngram" (x is a `Csr`), "sequence" (x is token ids, 0 for padding, which is at the front) or "dense" (x
            is float32).
        num_features: columns of x: n-grams, the length of the sequences, or features.
        vocabulary_size: for sequences the input size of an embedding: every id is below it; else `num_features`.
        class_names: in the order of the class indices.
        num_train: training examples.
        num_validation: validation examples.
        vectorizer: identity of the fitted vectorizer.
        fingerprint: identity of these shards.
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
        """How many classes there are."""
        return len(self.class_names)
