"""Count the terms of a corpus in bounded memory: sorted postings on disk, one file per unit, merged by bucket.

The postings of a unit list its distinct terms in order of their hash; see `buckets` for how they are divided, and
`groups` for how they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import Pieces, SpilledArrays, narrow, spill
from shardtrain.errors import HashCollisionError
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.buckets import Bucket, tops_of
from shardtrain.vectorize.groups import COLUMNS, Runs
from shardtrain.vectorize.inverted import Inverted, ordered
from shardtrain.vectorize.tokens import BlockTerms

_CACHED_TERMS = 1 << 14  # merged at a time, so that their table stays in the processor's cache
_UNIT_BITS = np.uint64(32)
_PIECE = 1 << 20  # places that are filled in at a time


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
    spill(path, {"tops": tops_of(arrays["hashes"]), **arrays, **per_document}, facts)


def merge_bucket(
    runs: Runs, bucket: Bucket, out: Path, *, min_count: int, max_count: int | None = None
) -> tuple[int, int]:
    """Merge one bucket of all units' postings; write the candidates, terms whose count is in [min_count, max_count].

    The file has `hashes` ascending, `counts` and `first` (unit << 32 | rank in the unit: the order of first
    appearance in the corpus) of the candidates, and `places`: for each term of the postings in this bucket, file after
    file of `runs`, the index of the candidate or -1; file r has the places [starts[r], starts[r + 1]). Where the files
    are groups, it also has `term_counts` and `term_firsts`, count and first appearance of the candidate in each place,
    0 without one: a unit could find them only all over the candidates. Returns the number of distinct terms and the
    number written.

    Raises:
        HashCollisionError: two terms have the same hash but different checks.
    """
    parts = [runs.part(number, bucket) for number in range(len(runs))]
    starts = np.cumsum([0, *(part.terms.stop - part.terms.start for part in parts)])
    of_units = np.concatenate([[0], *(start + part.starts[1:] for start, part in zip(starts, parts, strict=False))])
    columns = {name: np.empty(starts[-1], dtype) for name, dtype in COLUMNS.items()}
    for part, start in zip(parts, starts.tolist(), strict=False):
        for column, values in zip(columns.values(), part.read(), strict=True):
            column[start : start + len(values)] = values
    bits = bucket.bits
    while int(starts[-1]) >> (bits - bucket.bits) > _CACHED_TERMS and bits < 48:
        bits += 1
    most = max_count if max_count is not None else np.iinfo(np.int64).max
    distinct, hashes, counts, first, places, collided = _merge(
        *columns.values(), of_units, np.uint64(bucket.number), np.uint64(bucket.bits), np.uint64(bits), min_count, most
    )
    if collided:
        raise HashCollisionError("two terms of the corpus have the same hash")
    columns = {"hashes": hashes, "counts": counts, "first": first}
    spill_bucket(out, columns, places, starts, grouped=runs.grouped)
    return int(distinct), len(hashes)


def spill_bucket(
    out: Path,
    columns: Mapping[str, npt.NDArray[Any]],
    places: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    *,
    grouped: bool,
) -> None:
    """Write a merged bucket; see `merge_bucket`.

    Args:
        out: the file.
        columns: of the candidates.
        places: of the postings' terms.
        starts: of the places of each file of postings.
        grouped: whether these are groups.
    """
    arrays: dict[str, npt.NDArray[Any] | Pieces] = {**columns, "places": places, "starts": starts}
    if grouped:
        arrays["term_counts"] = _of_places(columns["counts"], places)
        arrays["term_firsts"] = _of_places(columns["first"], places)
    spill(out, arrays)


def _of_places(values: npt.NDArray[Any], places: npt.NDArray[np.int32]) -> Pieces:
    """Return the candidates' values in some places, 0 where there is none, made when they are written."""

    def piece(start: int) -> npt.NDArray[Any]:
        here = places[start : start + _PIECE]
        return np.where(here >= 0, values[here], 0) if len(values) else np.zeros(len(here), values.dtype)

    return Pieces(values.dtype, places.shape, (piece(start) for start in range(0, len(places), _PIECE)))


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


def places_in(merged: SpilledArrays, number: int) -> npt.NDArray[np.int32]:
    """Return, for each term of a file of postings in a merged bucket, the index of its candidate, or -1."""
    return merged["places"][merged["starts"][number] : merged["starts"][number + 1]]


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
