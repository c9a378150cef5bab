"""Write and read the postings of a unit: its distinct terms, ascending by hash and check, and where they occur.

A bucket is a range of hashes, of which all units' postings are merged together (`merging`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import SpilledArrays, SpilledFile, narrow, spill
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.inverted import Inverted
from shardtrain.vectorize.tokens import BlockTerms

_TOP_BITS = 10  # of hashes whose places are kept with the postings, so that few pages are searched for a bucket


@dataclass(frozen=True)
class Bucket:
    """Hashes whose top `bits` bits are `number`."""

    number: int
    bits: int

    def halves(self) -> tuple[Bucket, Bucket]:
        """Return the lower and the upper half of the range."""
        return Bucket(2 * self.number, self.bits + 1), Bucket(2 * self.number + 1, self.bits + 1)

    def range(self, hashes: npt.NDArray[np.uint64]) -> slice:
        """Return the slice of an ascending array that holds this bucket's hashes."""
        if self.bits == 0:
            return slice(0, len(hashes))
        shift = 64 - self.bits
        start = int(np.searchsorted(hashes, np.uint64(self.number << shift)))
        if self.number + 1 == 1 << self.bits:
            return slice(start, len(hashes))
        return slice(start, int(np.searchsorted(hashes, np.uint64((self.number + 1) << shift))))

    def part_of(self, postings: SpilledArrays | SpilledFile) -> slice:
        """Return the slice of the terms of postings that are in this bucket."""
        if "tops" not in postings:  # of an interrupted build of an earlier version
            return self.range(postings.read(hashes=None)[0])
        finer, coarser = max(0, self.bits - _TOP_BITS), max(0, _TOP_BITS - self.bits)
        top = self.number >> finer << coarser
        tops = postings.read(tops=slice(top, top + (1 << coarser) + 1))[0]
        around = slice(int(tops[0]), int(tops[-1]))
        if not finer:
            return around
        part = self.range(postings.read(hashes=around)[0])
        return slice(around.start + part.start, around.start + part.stop)


def _tops(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """Return where the hashes with each value of their first bits begin, and where the last ends."""
    edges = np.arange(1, 1 << _TOP_BITS, dtype=np.uint64) << np.uint64(64 - _TOP_BITS)
    return np.concatenate([[0], np.searchsorted(hashes, edges), [len(hashes)]]).astype(np.uint32)


def spill_postings(
    path: Path, terms: Inverted | BlockTerms, per_document: dict[str, npt.NDArray[Any]], facts: dict[str, Any]
) -> None:
    """Write a unit's postings: its terms in ascending order, where they occur, and the arrays `per_document`.

    Inverted terms have `documents` and `times`: those of term t are the entries [indptr[t], indptr[t + 1]), in
    document order, and the fact `most_times` is the largest of `times`. Otherwise `tokens` holds the documents' terms
    in order, and `indptr` says where documents begin. `first` increases with a term's first appearance in the unit.
    """
    arrays: dict[str, npt.NDArray[Any]]
    if isinstance(terms, Inverted):
        facts = {**facts, "most_times": int(terms.times.max(initial=0))}
        arrays = {
            "hashes": terms.hashes,
            "checks": terms.checks,
            "counts": narrow(np.diff(terms.indptr)),
            "first": terms.first,
            "indptr": narrow(terms.indptr),
            "documents": narrow(terms.documents),
            "times": narrow(terms.times),
        }
    else:
        order = terms.ids.order()
        position = np.empty(len(order), np.uint32)
        position[order] = np.arange(len(order), dtype=np.uint32)
        arrays = {
            "hashes": terms.hashes[order],
            "checks": terms.checks[order],
            "counts": narrow(terms.counts[order]),
            "first": order.astype(np.uint32),
            "indptr": terms.indptr,
            "tokens": position[terms.occurrences],
        }
    spill(path, {"tops": _tops(arrays["hashes"]), **arrays, **per_document}, facts)


def places_in(merged: SpilledArrays, unit: int) -> npt.NDArray[np.int32]:
    """Return, for each of a unit's terms in a merged bucket, the index of its candidate, or -1."""
    return merged["places"][merged["starts"][unit] : merged["starts"][unit + 1]]


def lookup(postings: SpilledArrays, wanted: TermIds) -> npt.NDArray[np.int64]:
    """Return, for each term of the postings, its place among the wanted ones (ascending), or -1."""
    places: npt.NDArray[np.int64] = _join(postings["hashes"], postings["checks"], wanted.hashes, wanted.checks)
    return places


def first_documents(postings: SpilledArrays, wanted: TermIds) -> npt.NDArray[np.int64]:
    """Return the documents, ascending, in which the wanted ones (ascending) of a unit's terms appear first."""
    terms = np.flatnonzero(lookup(postings, wanted) >= 0)
    if "documents" in postings:
        return np.unique(postings["documents"][postings["indptr"][terms]].astype(np.int64))
    tokens = postings["tokens"]
    places = np.zeros(len(postings["hashes"]), np.int64)
    places[tokens[::-1]] = np.arange(len(tokens) - 1, -1, -1)  # of equal indices the last assignment stays
    return np.unique(np.searchsorted(postings["indptr"], places[terms], side="right") - 1)


@kernel
def _join(hashes, checks, wanted_hashes, wanted_checks):  # type: ignore[no-untyped-def]
    places = np.full(len(hashes), -1, np.int64)
    place = 0
    # Invariant: the wanted terms before `place` are below term i; both sets ascend, so `place` never moves back.
    for i in range(len(hashes)):
        while place < len(wanted_hashes) and wanted_hashes[place] < hashes[i]:
            place += 1
        while place < len(wanted_hashes) and wanted_hashes[place] == hashes[i] and wanted_checks[place] < checks[i]:
            place += 1
        if place < len(wanted_hashes) and wanted_hashes[place] == hashes[i] and wanted_checks[place] == checks[i]:
            places[i] = place
    return places
