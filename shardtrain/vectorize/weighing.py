"""Compute the l2 norm of every document over all its candidates, by which its values are divided.

A unit looks its terms up in all buckets, because any of its terms may be a candidate. Where the postings are grouped,
several units of a group are weighed together, so that each bucket is opened once for all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import SpilledArrays, find_spilled, open_spilled, open_spilled_cached, spill
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.buckets import Buckets
from shardtrain.vectorize.counts import places_in
from shardtrain.vectorize.groups import Batch, Runs
from shardtrain.vectorize.weights import Float, Weights


@dataclass(frozen=True)
class WeighUnits:
    """Write `norms`, the divisor of each document, (documents,) float64: the l2 norm over all its candidates, or 1.

    Attributes:
        runs: the postings.
        buckets: of candidates, merged from them.
        weights: how counts become values.
        num_documents: of the corpus.
        outs: a file per unit.
    """

    runs: Runs
    buckets: Buckets
    weights: Weights
    num_documents: int
    outs: FileSet

    def __call__(self, task: Batch) -> None:
        """Weigh the documents of some units."""
        units = [open_spilled(self.runs.units[unit]) for unit in task.units]
        if not self.weights.norm:
            for unit, postings in zip(task.units, units, strict=True):
                spill(self.outs[unit], {"norms": np.ones(len(postings["labels"]))})
            return
        collected = [_Collected.empty(len(postings["hashes"])) for postings in units]
        for of_units in _candidates_of(self.runs, self.buckets, task):
            for each, (places, counts, firsts) in zip(collected, of_units, strict=True):
                each.add(places, counts, firsts)
        for unit, postings, found in zip(task.units, units, collected, strict=True):
            spill(self.outs[unit], {"norms": self._norms_of(postings, found)})

    def _norms_of(self, postings: SpilledArrays, found: _Collected) -> Float:
        order = _ascending(found.firsts[: found.size])  # by first appearance: the order in which scikit-learn adds
        norms: Float = _norms(
            found.terms[order],
            self.weights.of_terms(found.counts[order], self.num_documents),
            self.weights.of_times(postings.facts["most_times"]),
            postings["indptr"],
            postings["documents"],
            postings["times"],
            len(postings["labels"]),
        )
        return norms


Candidates = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]  # places, and counts and firsts of candidates


def _candidates_of(runs: Runs, buckets: Buckets, task: Batch) -> Iterator[list[Candidates]]:
    """Yield, for each bucket in order, the candidate of each term of some units, and what is known of candidates."""
    if not runs.grouped:
        for path in buckets.files:
            merged = open_spilled_cached(path)
            yield [(places_in(merged, task.number), merged["counts"], merged["first"])]
        return
    for bucket, path in zip(buckets, buckets.files, strict=True):
        starts, candidates = task.within(runs.part(task.number, bucket)), find_spilled(path)
        begin = int(candidates.read(starts=slice(task.number, task.number + 1))[0][0])
        here = slice(begin + int(starts[0]), begin + int(starts[-1]))
        counts, firsts = candidates.read(term_counts=here, term_firsts=here)
        places = np.where(counts > 0, np.arange(len(counts)), -1)
        yield [(places[start:stop], counts, firsts) for start, stop in pairwise((starts - starts[0]).tolist())]


@dataclass(eq=False)
class _Collected:
    """The candidates among the terms of a unit: the first `size` items of each array; `start` terms were looked at."""

    terms: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.uint64]
    start: int = 0
    size: int = 0

    @classmethod
    def empty(cls, num_terms: int) -> _Collected:
        """Return no candidates, with room for those of a unit with so many terms."""
        return cls(np.empty(num_terms, np.uint32), np.empty(num_terms, np.int64), np.empty(num_terms, np.uint64))

    def add(self, places: npt.NDArray[Any], counts: npt.NDArray[Any], firsts: npt.NDArray[Any]) -> None:
        """Add the candidates among the next terms."""
        self.size = _collect(places, self.start, counts, firsts, self.terms, self.counts, self.firsts, self.size)
        self.start += len(places)


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
