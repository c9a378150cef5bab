"""Count the n-grams of texts as scikit-learn's CountVectorizer does: terms, and rows of counts, one unit at a time.

A unit is a block of texts in two scratch files: the texts, and the postings of their n-grams (`counts`). Entries of a
row are in the order in which scikit-learn's `fit_transform` stores them, that of first appearance in the corpus:
float sums over a row depend on it, and so equal scikit-learn's in every bit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import SpilledArrays, open_spilled, spill
from shardtrain.arrays.texts import Texts
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.buckets import Bucket
from shardtrain.vectorize.counts import lookup, places_in, spill_postings
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.indexing import index_ngrams, prepare_texts, tokenizer_of
from shardtrain.vectorize.new_rows import Counted, Index, count_candidates, sort_entries
from shardtrain.vectorize.settings import NgramSettings
from shardtrain.vectorize.tokens import terms_at


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """How texts are split into n-grams.

    Attributes:
        settings: of these only analyzer, ngram_range, stop_words, strip_accents and hashing are used.
        prepared: the texts are in lower case and without accents already, or are not to be.
    """

    settings: NgramSettings
    prepared: bool = False


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of counts.

    Attributes:
        data: how often a term occurs, (entries,) int64.
        indices: its column, (entries,) int32.
        sizes: entries of each row, (rows,) int64.
    """

    data: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    sizes: npt.NDArray[np.int64]


@dataclass(frozen=True)
class UnitFiles:
    """The scratch files of a unit."""

    texts: Path
    postings: Path


def spill_texts(path: Path, texts: Texts) -> None:
    """Write the texts of a unit."""
    spill(path, {"data": texts.data, "offsets": texts.offsets})


def count_unit(files: UnitFiles, analysis: Analysis) -> int:
    """Write the postings of a unit; return how many distinct terms it has."""
    found = index_ngrams(analysis.settings, _texts(files), prepared=analysis.prepared)
    spill_postings(files.postings, found, {}, {"num_documents": len(_texts(files))})
    return len(found.hashes)


def unit_times(files: UnitFiles, number: int, bucket: Bucket, candidates: Path, totals: npt.NDArray[np.int64]) -> None:
    """Add to `totals`, of a bucket's candidates, how often each occurs in the `number`th unit."""
    postings, places = open_spilled(files.postings), places_in(open_spilled(candidates), number)
    part = bucket.part_of(postings)
    _add_times(places, *_entries(postings, part), totals)


def name_in_unit(files: UnitFiles, analysis: Analysis, positions: npt.NDArray[np.int64]) -> list[str]:
    """Return the strings of terms by where they appear first in a unit, ascending."""
    block = prepare_texts(analysis.settings, _texts(files), prepared=analysis.prepared)
    return terms_at(block, tokenizer_of(analysis.settings), analysis.settings.hashing, positions).to_list()


def unit_rows(files: UnitFiles, ids: TermIds, columns: npt.NDArray[np.int32], first: npt.NDArray[np.uint64]) -> Rows:
    """Return the counts of a unit's documents, entries in order of first appearance.

    Args:
        files: of the unit.
        ids: of the terms, ascending.
        columns: of the terms.
        first: increases with a term's first appearance in the corpus.
    """
    postings = open_spilled(files.postings)
    places = lookup(postings, ids)
    terms = np.flatnonzero(places >= 0)
    places = places[terms]
    order = np.argsort(first[places])
    return Rows(
        *_rows(
            terms[order],
            columns[places[order]],
            *_entries(postings, slice(0, len(postings["hashes"]))),
            postings["documents"].astype(np.uint32, copy=False),
            postings.facts["num_documents"],
        )
    )


def new_rows(texts: Texts, analysis: Analysis, index: Index, columns: npt.NDArray[np.int32]) -> Rows:
    """Return the counts of new texts, entries in order of columns; `columns` are those of the index's terms."""
    block = prepare_texts(analysis.settings, texts, prepared=analysis.prepared)
    found = count_candidates(block, tokenizer_of(analysis.settings), analysis.settings.hashing, index)
    return by_column(found, columns[found.keys])


def by_column(found: Counted, columns: npt.NDArray[Any]) -> Rows:
    """Return what was counted as rows whose entries are in order of `columns`, one for each of its keys."""
    data, indices = found.times.copy(), columns.astype(np.int32)
    _sort_rows(indices, data, found.indptr)
    return Rows(data, indices, np.diff(found.indptr))


def _texts(files: UnitFiles) -> Texts:
    spilled = open_spilled(files.texts)
    return Texts(spilled["data"], spilled["offsets"])


def _entries(postings: SpilledArrays, part: slice) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.uint32]]:
    """Return where the entries of terms begin and all times, in one type: a kernel is compiled for each."""
    indptr = postings["indptr"][part.start : part.stop + 1].astype(np.int64)
    return indptr, postings["times"].astype(np.uint32, copy=False)


@kernel
def _sort_rows(indices, data, indptr):  # type: ignore[no-untyped-def]
    for row in range(len(indptr) - 1):
        sort_entries(indices, data, indptr[row], indptr[row + 1])


@kernel
def _add_times(places, indptr, times, totals):  # type: ignore[no-untyped-def]
    for i in range(len(places)):
        if places[i] >= 0:
            for entry in range(indptr[i], indptr[i + 1]):
                totals[places[i]] += times[entry]


@kernel
def _rows(terms, columns, indptr, times, documents, num_documents):  # type: ignore[no-untyped-def]
    sizes = np.zeros(num_documents, np.int64)
    for term in terms:
        for entry in range(indptr[term], indptr[term + 1]):
            sizes[documents[entry]] += 1
    place = np.cumsum(sizes) - sizes
    data = np.empty(np.sum(sizes), np.int64)
    indices = np.empty(len(data), np.int32)
    # Invariant: the entries of document d before place[d] are those of the terms before i.
    for i in range(len(terms)):
        for entry in range(indptr[terms[i]], indptr[terms[i] + 1]):
            at = place[documents[entry]]
            data[at] = times[entry]
            indices[at] = columns[i]
            place[documents[entry]] = at + 1
    return data, indices, sizes
