"""Compute n-gram features equal to scikit-learn's TfidfVectorizer (or CountVectorizer) and SelectKBest, in passes.

1. count (`counts`): the postings of each unit, merged into the candidates, the terms with min_df documents or more.
2. weigh: the l2 norm of every document over all its candidates.
3. score: per candidate the class sums of its values, and from them its score.
4. choose: the candidates with the highest scores; of those that are tied at the boundary, the best by their strings.
5. rows: the chosen columns of every document.

A choice by frequency comes before the weights, as TfidfVectorizer(max_features=...) makes it: 1, 3, 4, 2, 5.

Values are computed in float64 with scikit-learn's operations in scikit-learn's order (a document's norm adds up its
terms by first appearance in the corpus, a class sum adds up documents in order), so features and ties agree
exactly. Postings keep first appearances for that order; it costs a sort of each unit's terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.scratch import SpilledArrays, find_spilled, open_spilled, open_spilled_cached, spill
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.counts import Bucket, lookup, places_in
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.selection import SELECTORS, Moments
from shardtrain.vectorize.weights import Float, Weights

SCORE_BYTES = 96  # memory of a candidate while scores are computed, beside that of its classes


def weigh_unit(
    postings_path: Path,
    number: int,
    candidates: Sequence[Path],
    weights: Weights,
    num_documents: int,
    out: Path,
) -> None:
    """Write `norms`, the divisor of each document of the `number`th unit, (documents,) float64.

    `candidates` are files of all merged buckets, in order.

    It is the l2 norm over all the document's candidates, or 1.
    """
    postings = open_spilled(postings_path)
    if not weights.norm:
        spill(out, {"norms": np.ones(len(postings["labels"]))})
        return
    start, size = 0, 0
    terms = np.empty(len(postings["hashes"]), np.uint32)
    counts, firsts = np.empty(len(terms), np.int64), np.empty(len(terms), np.uint64)
    for path in candidates:
        merged = open_spilled_cached(path)
        places = places_in(merged, number)
        size = _collect(places, start, merged["counts"], merged["first"], terms, counts, firsts, size)
        start += len(places)
    order = _ascending(firsts[:size])  # by first appearance: the order in which scikit-learn adds
    norms = _norms(
        terms[order],
        weights.of_terms(counts[order], num_documents),
        weights.of_times(postings.facts["most_times"]),
        postings["indptr"],
        postings["documents"],
        postings["times"],
        len(postings["labels"]),
    )
    spill(out, {"norms": norms})


@kernel
def _collect(places, start, of_counts, of_firsts, terms, counts, firsts, size):  # type: ignore[no-untyped-def]
    """Append the candidates among a unit's terms, those from `start` on, with count and first appearance."""
    # Invariant: the first `size` entries of terms, counts and firsts are filled.
    for i in range(len(places)):
        if places[i] >= 0:
            terms[size] = start + i
            counts[size] = of_counts[places[i]]
            firsts[size] = of_firsts[places[i]]
            size += 1
    return size


_DIGIT_BITS = np.uint64(11)
_DIGITS = 1 << 11
_32 = np.uint64(32)


@kernel
def _ascending(firsts):  # type: ignore[no-untyped-def]
    """Sort first appearances (unit << 32 | rank in the unit) and return their order: a radix sort, low digits first."""
    ranks = np.uint64(0)
    largest = np.uint64(0)
    for first in firsts:
        ranks |= first & np.uint64(0xFFFFFFFF)
        largest = max(largest, first)
    bits = np.uint64(0)
    while ranks >> bits:
        bits += np.uint64(1)
    keys = np.empty(len(firsts), np.uint64)  # without the gap between ranks and units: fewer digits
    for i in range(len(firsts)):
        keys[i] = firsts[i] >> _32 << bits | firsts[i] & np.uint64(0xFFFFFFFF)
    order = np.arange(len(firsts)).astype(np.uint32)
    other_keys = np.empty_like(keys)
    other_order = np.empty_like(order)
    shift = np.uint64(0)
    # Invariant: `order` sorts the keys by their low `shift` bits, equal ones in the order of `firsts`.
    while (largest >> _32 << bits | ranks) >> shift:
        starts = np.zeros(_DIGITS + 1, np.int64)
        for key in keys:
            starts[np.int64(key >> shift & np.uint64(_DIGITS - 1)) + 1] += 1
        starts = np.cumsum(starts)
        for i in range(len(keys)):
            digit = np.int64(keys[i] >> shift & np.uint64(_DIGITS - 1))
            other_keys[starts[digit]] = keys[i]
            other_order[starts[digit]] = order[i]
            starts[digit] += 1
        keys, other_keys = other_keys, keys
        order, other_order = other_order, order
        shift += _DIGIT_BITS
    return order


@kernel
def _norms(terms, idf, tf, indptr, documents, times, num_documents):  # type: ignore[no-untyped-def]
    squares = np.zeros(num_documents)
    # Invariant: squares[d] has the terms before i, added in the order given: float sums depend on it.
    for i in range(len(terms)):
        for entry in range(indptr[terms[i]], indptr[terms[i] + 1]):
            value = tf[times[entry]] * idf[i]
            squares[documents[entry]] += value * value
    return np.sqrt(squares)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreTask:
    """Adjacent buckets to score: all units' postings and, for each unit, the class of each of its label codes.

    With `norms`, one file per unit, scores are of weighted values; without, of counts. `candidates` are files of merged
    buckets, of which `bucket` is the first; the scores of each are written to the file of `outs`.
    """

    postings_paths: tuple[Path, ...]
    norms: tuple[Path, ...] | None
    weights: Weights
    select: str
    classes: tuple[npt.NDArray[np.int64], ...]
    class_counts: npt.NDArray[np.int64]
    bucket: Bucket
    candidates: tuple[Path, ...]
    budget: int
    outs: tuple[Path, ...]


def scored_at_once(select: str, num_classes: int, budget: int) -> int:
    """Return how many candidates can be scored at once within `budget` bytes, at least 1."""
    return max(1, budget // (SELECTORS[select].class_bytes * num_classes + SCORE_BYTES))


def score_buckets(task: ScoreTask) -> None:
    """Write `scores`, those of the candidates of each bucket, in their order.

    Candidates are taken in pieces whose sums fit into `budget` bytes; every piece reads the buckets' part of all
    postings.
    """
    merged = [open_spilled(path) for path in task.candidates]
    counts = np.concatenate([each["counts"] for each in merged])
    ends = np.cumsum([0, *(len(each["counts"]) for each in merged)]).tolist()
    idf = task.weights.of_terms(counts, int(task.class_counts.sum()))
    scores = np.zeros(len(idf))
    step = scored_at_once(task.select, len(task.class_counts), task.budget)
    for start in range(0, len(idf), step):
        moments = Moments.zeros(min(step, len(idf) - start), len(task.class_counts))
        for number in range(len(task.postings_paths)):
            _add_unit(task, number, merged, ends, idf, start, moments)
        scores[start : start + step] = SELECTORS[task.select].score(moments, task.class_counts)
        del moments  # before those of the next piece are allocated
    for (first, last), out in zip(pairwise(ends), task.outs, strict=True):
        spill(out, {"scores": scores[first:last]})


def _add_unit(
    task: ScoreTask,
    number: int,
    merged: Sequence[SpilledArrays],
    ends: Sequence[int],
    idf: Float,
    start: int,
    moments: Moments,
) -> None:
    """Add the values of the `number`th unit to the sums of the candidates from `start` on, of all buckets in a row."""
    postings = find_spilled(task.postings_paths[number])
    places = [places_in(each, number) for each in merged]
    first = task.bucket.part_of(postings).start
    part = slice(first, first + sum(map(len, places)) + 1)
    indptr, labels = postings.read(indptr=part, labels=None)
    entries = slice(int(indptr[0]), int(indptr[-1]))
    documents, times = postings.read(documents=entries, times=entries)
    norms = open_spilled_cached(task.norms[number])["norms"] if task.norms else np.ones(len(labels))
    classes = task.classes[number][labels]
    tf = task.weights.of_times(postings.facts["most_times"])
    term = 0
    for of_terms, base in zip(places, ends, strict=False):
        _accumulate(
            of_terms, base, start, indptr[term:], indptr[0], documents, times, idf, tf, norms, classes, moments.pairs,
            moments.totals,
        )  # fmt: skip
        term += len(of_terms)


@kernel
def _accumulate(  # type: ignore[no-untyped-def]
    places, base, start, indptr, before, documents, times, idf, tf, norms, classes, pairs, totals
):
    """Add up the values of the candidates from `start` on for which there are sums.

    `base` and `places` are the terms' candidates, `indptr` their entries; `documents` and `times` lack the entries
    `before` them.
    """
    # Invariant: totals and pairs have the terms before i; a term's documents are added in ascending order.
    for i in range(len(places)):
        place = base + places[i]
        if places[i] < 0 or not 0 <= place - start < len(totals):
            continue
        for entry in range(indptr[i] - before, indptr[i + 1] - before):
            document = documents[entry]
            value = tf[times[entry]] * idf[place] / norms[document]
            totals[place - start] += value
            pairs[place - start, classes[document], 0] += value
            pairs[place - start, classes[document], 1] += value * value


def unit_rows(postings_path: Path, norm_path: Path, ids: TermIds, idf: Float, weights: Weights) -> Csr:
    """Return the chosen columns of a unit's documents; `ids` and `idf` are the columns', in column order."""
    postings = open_spilled(postings_path)
    by_id = ids.order()
    places = lookup(postings, ids.take(by_id))
    terms = np.flatnonzero(places >= 0)
    columns = by_id[places[terms]]
    order = np.argsort(columns)
    data, indices, indptr = _rows(
        terms[order],
        columns[order],
        idf,
        weights.of_times(postings.facts["most_times"]),
        postings["indptr"],
        postings["documents"],
        postings["times"],
        open_spilled(norm_path)["norms"],
    )
    return Csr(data, indices, indptr, (len(postings["labels"]), len(ids)))


@kernel
def _rows(terms, columns, idf, tf, indptr, documents, times, norms):  # type: ignore[no-untyped-def]
    row_ptr = np.zeros(len(norms) + 1, np.int64)
    for term in terms:
        for entry in range(indptr[term], indptr[term + 1]):
            row_ptr[np.int64(documents[entry]) + 1] += 1
    row_ptr = np.cumsum(row_ptr)
    data = np.empty(row_ptr[-1], np.float32)
    indices = np.empty(row_ptr[-1], np.int32)
    place = row_ptr[:-1].copy()
    # Invariant: document d's entries [row_ptr[d], place[d]) are written, columns ascending as `columns` ascends.
    for i in range(len(terms)):
        column = columns[i]
        for entry in range(indptr[terms[i]], indptr[terms[i] + 1]):
            document = documents[entry]
            data[place[document]] = tf[times[entry]] * idf[column] / norms[document]
            indices[place[document]] = column
            place[document] += 1
    return data, indices, row_ptr
