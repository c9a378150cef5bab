"""Count the terms of a corpus in bounded memory: sorted postings on disk, one file per unit, merged by bucket.

The postings of a unit list its distinct terms in order of their hash. A bucket is a range of hashes; since hashes are
uniform, the same range of all units' postings fits into memory together, and buckets are independent of each other.
The number of buckets decides memory, never the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import SpilledArrays, SpilledFile, find_spilled, narrow, spill
from shardtrain.errors import HashCollisionError
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.inverted import Inverted, ordered
from shardtrain.vectorize.tokens import BlockTerms

MERGE_BYTES = 48  # memory of a term while a bucket is merged: its columns, its place and at most one candidate
_MERGED = {"hashes": np.uint64, "checks": np.uint32, "counts": np.uint32, "first": np.uint32}
_CACHED_TERMS = 1 << 14  # merged at a time, so that their table stays in the processor's cache
_UNIT_BITS = np.uint64(32)
_TOP_BITS = 10  # of hashes whose places are kept with the postings, so that few pages are searched for a bucket


@dataclass(frozen=True)
class Bucket:
    """Hashes whose top `bits` bits are `number`."""

    number: int
    bits: int

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


def plan_buckets(num_terms: int, budget: int) -> list[Bucket]:
    """Plan enough buckets that merging one of them stays within `budget` bytes."""
    bits = 0
    while (num_terms * MERGE_BYTES >> bits) > budget and bits < 16:
        bits += 1
    return [Bucket(number, bits) for number in range(1 << bits)]


def spill_postings(
    path: Path, terms: Inverted | BlockTerms, per_document: dict[str, npt.NDArray[Any]], facts: dict[str, Any]
) -> None:
    """Write a unit's postings: its terms by ascending hash, where they occur, and the arrays `per_document`.

    Inverted terms have `documents` and `times`: those of term t are the entries [indptr[t], indptr[t + 1]), in
    document order, and the fact `most_times` is the largest of `times`. Otherwise `tokens` holds the documents' terms
    in order, and `indptr` says where documents begin. `first` increases with a term's first appearance in the unit.

    Raises:
        HashCollisionError: two terms of the unit have one hash.
    """
    if terms.collided:
        raise HashCollisionError("two terms of one unit have the same hash")
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
        order = np.argsort(terms.hashes)
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


def merge_bucket(
    postings_paths: Sequence[Path], bucket: Bucket, out: Path, *, min_count: int, max_count: int | None = None
) -> tuple[int, int]:
    """Merge one bucket of all units' postings; write the candidates, terms whose count is in [min_count, max_count].

    The file has `hashes` ascending, `counts` and `first` (unit << 32 | rank in the unit: the order of first
    appearance in the corpus) of the candidates, and `places`: for each unit's terms in this bucket, unit after
    unit, the index of the candidate or -1; unit r has the places [starts[r], starts[r + 1]). Returns the number of
    distinct terms and the number written.

    Raises:
        HashCollisionError: two terms have the same hash but different checks.
    """
    files = [find_spilled(path) for path in postings_paths]
    parts = [bucket.part_of(file) for file in files]
    starts = np.cumsum([0, *(part.stop - part.start for part in parts)])
    columns = {name: np.empty(starts[-1], dtype) for name, dtype in _MERGED.items()}
    for file, part, start in zip(files, parts, starts.tolist(), strict=False):
        found = file.read(**dict.fromkeys(columns, part))
        for column, values in zip(columns.values(), found, strict=True):
            column[start : start + len(values)] = values
    bits = bucket.bits
    while int(starts[-1]) >> (bits - bucket.bits) > _CACHED_TERMS and bits < 48:
        bits += 1
    most = max_count if max_count is not None else np.iinfo(np.int64).max
    distinct, hashes, counts, first, places, collided = _merge(
        *columns.values(), starts, np.uint64(bucket.number), np.uint64(bucket.bits), np.uint64(bits), min_count, most
    )
    if collided:
        raise HashCollisionError("two terms of the corpus have the same hash")
    spill(out, {"hashes": hashes, "counts": counts, "first": first, "places": places, "starts": starts})
    return int(distinct), len(hashes)


@kernel
def _merge(hashes, checks, counts, first, starts, number, bucket_bits, bits, least, most):  # type: ignore[no-untyped-def]
    """Merge ascending postings, one small range of hashes after the other, so that its table stays in the cache."""
    cut = starts[:-1].copy()  # up to where each unit's terms are merged
    out_hashes = np.empty(len(hashes), np.uint64)
    out_counts = np.empty(len(hashes), np.int64)
    out_first = np.empty(len(hashes), np.uint64)
    places = np.empty(len(hashes), np.int32)
    kept = 0
    distinct = 0
    collided = False
    ends = cut.copy()
    shift = np.uint64(64) - bits
    # Invariant: smaller ranges are merged; unit r continues at cut[r]; out_hashes[:kept] ascends.
    for part in range(1 << (bits - bucket_bits)):
        wanted = (number << (bits - bucket_bits)) + np.uint64(part)
        size = 0
        for r in range(len(cut)):
            end = cut[r]
            while end < starts[r + 1] and (bits == 0 or hashes[end] >> shift == wanted):
                end += 1
            ends[r] = end
            size += end - cut[r]
        room = 16
        while room < 2 * size:
            room *= 2
        slots = np.zeros(room, np.uint32)  # open addressing: term + 1, or 0
        wrap = np.uint64(room - 1)
        found = np.empty(size, np.int64)  # where each distinct term appears first
        totals = np.empty(size, np.int64)
        firsts = np.empty(size, np.uint64)
        terms = 0
        # Invariant: found[:terms] are the distinct terms so far, by first appearance; totals and firsts go with them.
        for r in range(len(cut)):
            for i in range(cut[r], ends[r]):
                h = hashes[i]
                slot = h & wrap
                while slots[slot] and hashes[found[slots[slot] - 1]] != h:
                    slot = (slot + np.uint64(1)) & wrap
                if slots[slot] == 0:
                    found[terms] = i
                    totals[terms] = 0
                    firsts[terms] = (np.uint64(r) << _UNIT_BITS) | np.uint64(first[i])
                    terms += 1
                    slots[slot] = terms
                this = np.int64(slots[slot]) - 1
                collided |= checks[found[this]] != checks[i]
                totals[this] += counts[i]
                places[i] = this
        rank = np.full(terms, -1, np.int32)
        candidates = np.empty(terms, np.int64)
        chosen = 0
        for term in range(terms):
            if least <= totals[term] <= most:
                candidates[chosen] = term
                chosen += 1
        order = ordered(hashes, found[candidates[:chosen]], bits)
        for i in range(chosen):
            term = candidates[order[i]]
            out_hashes[kept] = hashes[found[term]]
            out_counts[kept] = totals[term]
            out_first[kept] = firsts[term]
            rank[term] = kept
            kept += 1
        distinct += terms
        for r in range(len(cut)):
            for i in range(cut[r], ends[r]):
                places[i] = rank[places[i]]
            cut[r] = ends[r]
    return distinct, out_hashes[:kept], out_counts[:kept], out_first[:kept], places, collided


def places_in(merged: SpilledArrays, unit: int) -> npt.NDArray[np.int32]:
    """Return, for each of a unit's terms in a merged bucket, the index of its candidate, or -1."""
    return merged["places"][merged["starts"][unit] : merged["starts"][unit + 1]]


def lookup(postings: SpilledArrays, part: slice, merged: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return, for each term of a part of the postings, its place in `merged` (ascending), or -1."""
    places: npt.NDArray[np.int64] = _join(postings["hashes"][part], merged)
    return places


def first_documents(postings: SpilledArrays, wanted: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """Return the documents, ascending, in which a unit's terms with the hashes `wanted` (ascending) appear first."""
    terms = np.flatnonzero(lookup(postings, slice(0, len(postings["hashes"])), wanted) >= 0)
    if "documents" in postings:
        return np.unique(postings["documents"][postings["indptr"][terms]].astype(np.int64))
    tokens = postings["tokens"]
    places = np.zeros(len(postings["hashes"]), np.int64)
    places[tokens[::-1]] = np.arange(len(tokens) - 1, -1, -1)  # of equal indices the last assignment stays
    return np.unique(np.searchsorted(postings["indptr"], places[terms], side="right") - 1)


@kernel
def _join(hashes, merged):  # type: ignore[no-untyped-def]
    places = np.full(len(hashes), -1, np.int64)
    place = 0
    # Invariant: merged[:place] are below hashes[i]; both arrays ascend, so `place` never moves back.
    for i in range(len(hashes)):
        while place < len(merged) and merged[place] < hashes[i]:
            place += 1
        if place < len(merged) and merged[place] == hashes[i]:
            places[i] = place
    return places
