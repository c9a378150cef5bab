"""Transform new texts with fitted vectorizers, which are saved as arrays and JSON (never pickle; see `saved`).

Terms are found and weighted by the functions that made the shards, so a text gets the values that it would have as a
row. The n-gram vectorizer keeps the hash and document frequency of every candidate, not only of the chosen columns,
because a document's norm is over all candidates; these arrays are memory-mapped, 16 bytes per candidate.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr, concatenate
from shardtrain.arrays.text_input import text_sequence
from shardtrain.arrays.texts import Texts
from shardtrain.errors import VectorizerError
from shardtrain.runtime.atomic import commit_content, make_folder
from shardtrain.vectorize.hashed import hashed_rows
from shardtrain.vectorize.indexing import index_words, prepare_texts, tokenizer_of
from shardtrain.vectorize.new_rows import Index, TermWeights, count_candidates, weighted_rows
from shardtrain.vectorize.saved import DESCRIPTION, SavedVectorizer, read_vectorizer, write_vectorizer
from shardtrain.vectorize.sequences import ids_of, pad
from shardtrain.vectorize.settings import HashedSettings, NgramSettings, SequenceSettings, Settings
from shardtrain.vectorize.weights import weights_of

BLOCK_BYTES = 1 << 18  # of texts transformed at a time: what is made of them stays in the processor's cache

Array = npt.NDArray[Any]
Rows = Csr | Array


class Vectorizer(Protocol):
    """Interface of every kind of fitted vectorizer."""

    kind: str
    num_features: int
    vocabulary_size: int
    terms: list[str]

    @property
    def settings(self) -> Settings:
        """How terms are found and were chosen."""
        ...

    def transform(self, texts: Iterable[str]) -> Rows:
        """Compute feature rows of new texts, as they would be in the shards.

        Raises:
            TextsError: these are no texts (also TypeError).
        """
        ...

    def decode(self, row: Rows) -> list[str]:
        """Return the terms of one row of features (n-grams by falling weight, words in order)."""
        ...

    def describe(self) -> dict[str, Any]:
        """Return settings, sizes and fingerprint as JSON values."""
        ...


class NgramVectorizer:
    """Weighted n-grams over the chosen columns.

    For every candidate that contributes to the norms of documents, in ascending order, `arrays` has its hash
    (`hashes`), its check (`checks`, where hashes are not enough), document frequency (`counts`) and column (`columns`,
    -1: not chosen), and for every column its score (`scores`).

    Attributes:
        ids: of the candidates.
    """

    kind = "ngram"

    def __init__(self, saved: SavedVectorizer) -> None:
        assert isinstance(saved.settings, NgramSettings)
        self._description = saved.description
        self.settings = saved.settings
        self._weights = weights_of(self.settings)
        self.num_documents: int = saved.description["num_documents"]
        self.terms = saved.terms
        self.arrays = saved.arrays
        self.ids = saved.ids
        self.num_features = self.vocabulary_size = len(saved.terms)

    @cached_property
    def _index(self) -> Index:
        return Index.of(self.ids)

    @cached_property
    def _of_terms(self) -> TermWeights:
        return TermWeights.of(self.arrays["counts"], self._weights, self.num_documents)

    def transform(self, texts: Iterable[str]) -> Csr:
        """Compute weighted rows, (texts, num_features)."""
        texts = text_sequence(texts, call="vectorizer.transform")
        return concatenate([self._transform_block(block) for block in blocks_of(texts, self.settings.density)])

    def _transform_block(self, texts: Texts) -> Csr:
        settings = self.settings
        block = prepare_texts(settings, texts)
        return weighted_rows(
            count_candidates(block, tokenizer_of(settings), settings.hashing, self._index),
            self.arrays["columns"],
            self.arrays["counts"],
            self._of_terms,
            weights=self._weights,
            num_features=self.num_features,
        )

    def decode(self, row: Rows) -> list[str]:
        """Return the n-grams of one row, by falling weight."""
        if not isinstance(row, Csr):
            raise TypeError(f"an n-gram row is a Csr, not {type(row).__name__}")
        return [self.terms[row.indices[i]] for i in np.argsort(-row.data, kind="stable")]

    def describe(self) -> dict[str, Any]:
        """Return settings, sizes and fingerprint as JSON values."""
        return {**self._description, "num_features": self.num_features, "num_candidates": len(self.arrays["hashes"])}


class SequenceVectorizer:
    """Padded token ids; `terms` and `ids` hold the words that have token ids, the word of id 1 first."""

    kind = "sequence"

    def __init__(self, saved: SavedVectorizer) -> None:
        assert isinstance(saved.settings, SequenceSettings)
        self._description = saved.description
        self.settings = saved.settings
        self.num_features: int = saved.description["length"]
        self.terms = saved.terms
        self.arrays = saved.arrays
        self.ids = saved.ids
        self.vocabulary_size: int = min(saved.description["num_words"] + 1, self.settings.max_features)

    def transform(self, texts: Iterable[str]) -> Array:
        """Compute rows of token ids, (texts, num_features)."""
        texts = text_sequence(texts, call="vectorizer.transform")
        found = index_words(self.settings, texts)
        ids = ids_of(found.ids, self.ids)
        return pad(found.occurrences, found.indptr, ids, self.num_features, self.vocabulary_size)

    def decode(self, row: Rows) -> list[str]:
        """Return the words of one row, (num_features,), in order."""
        if isinstance(row, Csr):
            raise TypeError("a row of token ids is an array, not a Csr")
        return [self.terms[int(token) - 1] for token in np.ravel(row) if token]

    def describe(self) -> dict[str, Any]:
        """Return settings, sizes and fingerprint as JSON values."""
        return {**self._description, "num_features": self.num_features, "vocabulary_size": self.vocabulary_size}


class HashingVectorizer:
    """Hashed n-grams: only settings, no terms; its rows have the same form as other n-gram rows."""

    kind = "ngram"

    def __init__(self, saved: SavedVectorizer) -> None:
        assert isinstance(saved.settings, HashedSettings)
        self._description = saved.description
        self.settings = saved.settings
        self.terms = saved.terms
        self.num_features = self.vocabulary_size = self.settings.max_features

    def transform(self, texts: Iterable[str]) -> Csr:
        """Compute rows of hashed n-grams, (texts, num_features)."""
        texts = text_sequence(texts, call="vectorizer.transform")
        blocks = blocks_of(texts, self.settings.ngrams.density)
        return concatenate([hashed_rows(self.settings, block) for block in blocks])

    def decode(self, row: Rows) -> list[str]:
        """Raise an error: hashed features cannot be decoded.

        Raises:
            VectorizerError: always.
        """
        raise VectorizerError(
            "hashed features have no terms: a column is a hash that many n-grams share; build with --vectorizer ngram "
            "to see the words behind a row"
        )

    def describe(self) -> dict[str, Any]:
        """Return settings, sizes and fingerprint as JSON values."""
        return {**self._description, "num_features": self.num_features}


KINDS: dict[str, type[NgramVectorizer] | type[SequenceVectorizer] | type[HashingVectorizer]] = {
    "ngram": NgramVectorizer,
    "sequence": SequenceVectorizer,
    "hashing": HashingVectorizer,
}


def blocks_of(texts: Sequence[str], density: int) -> Iterator[Texts]:
    """Cut texts into blocks of about `BLOCK_BYTES`, smaller by a factor of `density`; there is at least one."""
    whole = Texts.from_strings(texts)
    step = max(1, BLOCK_BYTES // density)
    ends = np.searchsorted(whole.offsets, np.arange(step, whole.offsets[-1], step), side="right") - 1
    for start, stop in pairwise([0, *np.unique(ends[ends > 0]).tolist(), len(whole)]):
        if start < stop or not len(whole):
            yield whole[start:stop]


def save_vectorizer(
    folder: Path,
    settings: Settings,
    facts: dict[str, int],
    terms: list[str],
    arrays: Mapping[str, Iterable[Array]],
) -> Vectorizer:
    """Write a vectorizer into `folder` (made if missing) and return it as loaded from there.

    Args:
        folder: gets one .npy file per array, terms.json and, last, vectorizer.json.
        settings: how terms were found and chosen.
        facts: `num_documents`, or `num_words` and `length`, or nothing for hashed n-grams.
        terms: as described in the vectorizer's class.
        arrays: those that `saved.ARRAYS` names for the kind, and `checks` of terms, each in pieces that are written one
            after the other.
    """
    write_vectorizer(folder, settings, facts, terms, arrays)
    return load_vectorizer(folder)


def load_vectorizer(folder: Path | str) -> Vectorizer:
    """Load a fitted vectorizer; its arrays stay on disk, mapped.

    Raises:
        VectorizerError: there is none, it is of another version, or one of its files is damaged or makes no sense.
    """
    saved = read_vectorizer(Path(folder))
    return KINDS[saved.kind](saved)


def copy_vectorizer(source: Path, folder: Path) -> Vectorizer:
    """Copy the vectorizer saved in `source` into `folder` (made if missing) and load the copy.

    Raises:
        VectorizerError: as `load_vectorizer`.
    """
    files = load_vectorizer(source).describe()["files"]
    make_folder(folder)
    for name in (*files, DESCRIPTION):
        commit_content(source / name, folder / name)
    return load_vectorizer(folder)
