"""Compute sequences of token ids equal to Keras' Tokenizer and pad_sequences, in passes over spilled postings.

Words are ranked by how often they occur, ties by first appearance in the corpus; ids begin at 1, and the
`max_features - 1` most frequent words keep theirs. Documents lose their other words, are cut to their last `length`
ids and padded with 0 at the front, where `length` is the longest training document's, at most `max_length`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import open_spilled, spill
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.identity import TermIds

Ids = npt.NDArray[np.uint32]


def shortlist_words(candidates: Path, keep: int, out: Path) -> None:
    """Write the `keep` most frequent words of a bucket (`hashes`, `checks`, `counts`, `first`), best first."""
    merged = open_spilled(candidates)
    best = most_frequent(merged["counts"], merged["first"])[:keep]
    spill(out, {name: merged[name][best] for name in ("hashes", "checks", "counts", "first")})


def most_frequent(counts: npt.NDArray[np.int64], first: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the order of words by falling count, ties by first appearance."""
    return np.lexsort((first, -counts))


def ids_of(words: TermIds, vocabulary: TermIds) -> Ids:
    """Return the id of each word: 1 + its place in `vocabulary` (best word first), 0 if absent."""
    order = vocabulary.order()
    places = vocabulary.take(order).find(words)
    return np.where(places >= 0, order[places] + 1, 0).astype(np.uint32)


def longest(postings_path: Path, vocabulary: TermIds) -> int:
    """Return the number of ids in the longest document of a unit; words outside the vocabulary do not count."""
    postings = open_spilled(postings_path)
    lengths: npt.NDArray[np.int64] = _lengths(
        postings["tokens"], postings["indptr"], ids_of(TermIds.of(postings), vocabulary)
    )
    return int(lengths.max(initial=0))


def unit_rows(
    postings_path: Path, vocabulary: TermIds, length: int, vocabulary_size: int
) -> Callable[[npt.NDArray[np.int64]], npt.NDArray[Any]]:
    """Return a function that returns the padded ids of some documents of a unit, (documents, length)."""
    postings = open_spilled(postings_path)
    tokens, indptr, ids = postings["tokens"], postings["indptr"], ids_of(TermIds.of(postings), vocabulary)

    def rows_of(documents: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        rows = np.zeros((len(documents), length), id_type(vocabulary_size))
        _pad(tokens, indptr, ids, documents, rows)
        return rows

    return rows_of


def id_type(vocabulary_size: int) -> np.dtype[Any]:
    """Return the smallest unsigned type that holds ids below `vocabulary_size`."""
    return np.min_scalar_type(vocabulary_size - 1)


def pad(
    tokens: npt.NDArray[np.uint32], indptr: npt.NDArray[np.int64], ids: Ids, length: int, vocabulary_size: int
) -> npt.NDArray[Any]:
    """Pad documents of terms (CSR-like `tokens` and `indptr`) to rows of `ids[term]`; terms of id 0 are omitted.

    Returns:
        (documents, length) of `id_type(vocabulary_size)`.
    """
    rows = np.zeros((len(indptr) - 1, length), id_type(vocabulary_size))
    _pad(tokens, indptr, ids, np.arange(len(rows)), rows)
    return rows


@kernel
def _lengths(tokens, indptr, ids):  # type: ignore[no-untyped-def]
    lengths = np.zeros(len(indptr) - 1, np.int64)
    # Invariant: lengths[:d] are the numbers of non-zero ids of the documents before d; the others are 0.
    for d in range(len(indptr) - 1):
        for entry in range(indptr[d], indptr[d + 1]):
            lengths[d] += ids[tokens[entry]] != 0
    return lengths


@kernel
def _pad(tokens, indptr, ids, documents, rows):  # type: ignore[no-untyped-def]
    for i in range(len(documents)):
        d = documents[i]
        place = rows.shape[1]
        entry = indptr[d + 1]
        # Invariant: rows[i, place:] holds the kept ids of tokens[entry:indptr[d + 1]], filled from the end.
        while entry > indptr[d] and place > 0:
            entry -= 1
            value = ids[tokens[entry]]
            if value:
                place -= 1
                rows[i, place] = value
