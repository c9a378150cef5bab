"""Merge the terms of all units in bounded memory, bucket by bucket; the number of buckets never decides the result.

Since hashes are uniform, the same range of all units' postings fits into memory together, and buckets are independent
of each other. Which ranges do is planned from the number of terms. What a bucket really holds is known before anything
of it is read: more than fits, such as a few terms of very many units, is merged in halves, which are then joined on
disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import Pieces, SpilledArrays, SpilledFile, find_spilled, open_spilled, spill
from shardtrain.errors import UsageError
from shardtrain.runtime.kernels import kernel
from shardtrain.runtime.quantities import size
from shardtrain.vectorize.counts import Bucket, places_in
from shardtrain.vectorize.inverted import ordered

MERGE_BYTES = 52  # memory of a term while a bucket is merged: its columns, its place and at most one candidate
MOST_BITS = 40  # of the number of a planned bucket
_COLUMNS = {"hashes": np.uint64, "checks": np.uint32, "counts": np.uint32, "first": np.uint32}  # of postings
_MERGED = {"hashes": np.uint64, "checks": np.uint32, "counts": np.int64, "first": np.uint64}  # of candidates
_CACHED_TERMS = 1 << 14  # merged at a time, so that their table stays in the processor's cache
_TABLED_TERMS = 1 << 16  # that may be merged, and be in one table, whatever the budget
_TABLE_BYTES = 96  # memory of a term in the table: slots, sums, and what sorting takes
_MOST_TERMS = np.iinfo(np.int32).max  # of a bucket, whose candidates are numbered in 32 bits
_HASH_BITS = 64
_UNIT_BITS = np.uint64(32)


def plan_buckets(num_terms: int, budget: int) -> list[Bucket]:
    """Plan enough buckets that merging one of them stays within `budget` bytes, if terms are spread evenly."""
    bits = 0
    while (num_terms * MERGE_BYTES >> bits) > min(budget, _MOST_TERMS * MERGE_BYTES) and bits < MOST_BITS:
        bits += 1
    return [Bucket(number, bits) for number in range(1 << bits)]


def merge_bucket(
    postings_paths: Sequence[Path],
    bucket: Bucket,
    out: Path,
    *,
    min_count: int,
    max_count: int | None = None,
    budget: int,
) -> tuple[int, int]:
    """Merge one bucket of all units' postings; write the candidates, terms whose count is in [min_count, max_count].

    The file has `hashes` and `checks` (ascending), `counts` and `first` (unit << 32 | rank in the unit: the order of
    first appearance in the corpus) of the candidates, and `places`: for each unit's terms in this bucket, unit after
    unit, the index of the candidate or -1; unit r has the places [starts[r], starts[r + 1]). Returns the number of
    distinct terms and the number written.

    Args:
        postings_paths: one file per unit.
        bucket: what is merged.
        out: the file.
        min_count, max_count: see above; None is no limit.
        budget: bytes that merging may take, beside a few megabytes.

    Raises:
        UsageError: the terms with one hash do not fit into the budget; only shortened hashes, or a term of more units
            than there is room for, lead to that.
    """
    most = max_count if max_count is not None else np.iinfo(np.int64).max
    return _merge_range(
        [find_spilled(path) for path in postings_paths], bucket, out, out.name, (min_count, most), budget
    )


def _merge_range(
    files: Sequence[SpilledFile], bucket: Bucket, out: Path, stem: str, limits: tuple[int, int], budget: int
) -> tuple[int, int]:
    """Merge a range of hashes, in halves if it does not fit; their files begin with `stem`."""
    parts = [bucket.part_of(file) for file in files]
    starts = np.cumsum([0, *(part.stop - part.start for part in parts)])
    if (num_terms := int(starts[-1])) <= min(max(budget // MERGE_BYTES, _TABLED_TERMS), _MOST_TERMS):
        tabled = max((budget - num_terms * MERGE_BYTES) // _TABLE_BYTES, _TABLED_TERMS)
        if (merged := _merged(files, parts, starts, bucket, limits, tabled)) is not None:
            distinct, arrays = merged
            spill(out, arrays)
            return distinct, len(arrays["hashes"])
    if bucket.bits == _HASH_BITS:
        raise _too_many(num_terms, budget)
    halves = [(half, out.with_name(f"{stem}-{half.bits}-{half.number}")) for half in bucket.halves()]
    distinct = sum(_merge_range(files, half, path, stem, limits, budget)[0] for half, path in halves)
    paths = [path for _, path in halves]
    if (kept := _join([open_spilled(path) for path in paths], out)) > _MOST_TERMS:
        raise _too_many(kept, budget)
    for path in paths:
        path.unlink()
    return distinct, kept


def _too_many(num_terms: int, budget: int) -> UsageError:
    needed = num_terms * (MERGE_BYTES + _TABLE_BYTES)
    return UsageError(
        f"{num_terms:,} terms of the units must be merged at once, which takes {size(needed)}; --memory-limit has room "
        f"for {size(budget)} in each of --workers; raise --memory-limit, or lower --workers"
    )


def _merged(
    files: Sequence[SpilledFile],
    parts: Sequence[slice],
    starts: npt.NDArray[np.int64],
    bucket: Bucket,
    limits: tuple[int, int],
    tabled: int,
) -> tuple[int, dict[str, npt.NDArray[Any]]] | None:
    """Return the number of distinct terms of a range and the arrays of its file.

    None: more than `tabled` terms are alike in the leading bits by which their tables are kept small.
    """
    columns = {name: np.empty(starts[-1], dtype) for name, dtype in _COLUMNS.items()}
    for file, part, start in zip(files, parts, starts.tolist(), strict=False):
        found = file.read(**dict.fromkeys(columns, part))
        for column, values in zip(columns.values(), found, strict=True):
            column[start : start + len(values)] = values
    bits = bucket.bits
    while int(starts[-1]) >> (bits - bucket.bits) > _CACHED_TERMS and bits < 48:
        bits += 1
    of_range = np.uint64(bucket.number), np.uint64(bucket.bits), np.uint64(bits)
    distinct, *arrays = _merge(*columns.values(), starts, *of_range, *limits, tabled)
    if distinct < 0:
        return None
    return int(distinct), {**dict(zip((*_MERGED, "places"), arrays, strict=True)), "starts": starts}


def _join(parts: Sequence[SpilledArrays], out: Path) -> int:
    """Join the files of adjacent ranges; return the number of candidates."""
    sizes = [len(part["hashes"]) for part in parts]
    bases = np.cumsum([0, *sizes])[:-1].tolist()
    starts = np.sum([part["starts"] for part in parts], axis=0)

    def places() -> Iterator[npt.NDArray[np.int32]]:
        for unit in range(len(starts) - 1):
            for part, base in zip(parts, bases, strict=True):
                found = places_in(part, unit)
                yield np.where(found >= 0, found + np.int32(base), found)

    columns = {
        name: Pieces(np.dtype(dtype), (sum(sizes),), map(itemgetter(name), parts)) for name, dtype in _MERGED.items()
    }
    of_units = Pieces(np.dtype(np.int32), (int(starts[-1]),), places())
    spill(out, {**columns, "places": of_units, "starts": starts})
    return sum(sizes)


@kernel
def _merge(hashes, checks, counts, first, starts, number, bucket_bits, bits, least, most, tabled):  # type: ignore[no-untyped-def]
    """Merge ascending postings, one small range of hashes after the other, so that its table stays in the cache.

    Returns -1 for the number of distinct terms if more than `tabled` terms are in one of these ranges.
    """
    cut = starts[:-1].copy()  # up to where each unit's terms are merged
    out_hashes = np.empty(len(hashes), np.uint64)
    out_checks = np.empty(len(hashes), np.uint32)
    out_counts = np.empty(len(hashes), np.int64)
    out_first = np.empty(len(hashes), np.uint64)
    places = np.empty(len(hashes), np.int32)
    kept = 0
    distinct = 0
    ends = cut.copy()
    shift = np.uint64(64) - bits
    shared = min(bits, np.uint64(63))
    # Invariant: smaller ranges are merged; unit r continues at cut[r]; the first `kept` candidates ascend.
    for part in range(1 << (bits - bucket_bits)):
        wanted = (number << (bits - bucket_bits)) + np.uint64(part)
        size = 0
        for r in range(len(cut)):
            end = cut[r]
            while end < starts[r + 1] and (bits == 0 or hashes[end] >> shift == wanted):
                end += 1
            ends[r] = end
            size += end - cut[r]
        if size > tabled:
            return -1, out_hashes, out_checks, out_counts, out_first, places
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
                h, c = hashes[i], checks[i]
                slot = (h ^ np.uint64(c)) & wrap
                while slots[slot]:
                    known = found[slots[slot] - 1]
                    if hashes[known] == h and checks[known] == c:
                        break
                    slot = (slot + np.uint64(1)) & wrap
                if slots[slot] == 0:
                    found[terms] = i
                    totals[terms] = 0
                    firsts[terms] = (np.uint64(r) << _UNIT_BITS) | np.uint64(first[i])
                    terms += 1
                    slots[slot] = terms
                this = np.int64(slots[slot]) - 1
                totals[this] += counts[i]
                places[i] = this
        rank = np.full(terms, -1, np.int32)
        candidates = np.empty(terms, np.int64)
        chosen = 0
        for term in range(terms):
            if least <= totals[term] <= most:
                candidates[chosen] = term
                chosen += 1
        order = ordered(hashes, checks, found[candidates[:chosen]], shared)
        for i in range(chosen):
            term = candidates[order[i]]
            out_hashes[kept] = hashes[found[term]]
            out_checks[kept] = checks[found[term]]
            out_counts[kept] = totals[term]
            out_first[kept] = firsts[term]
            rank[term] = kept
            kept += 1
        distinct += terms
        for r in range(len(cut)):
            for i in range(cut[r], ends[r]):
                places[i] = rank[places[i]]
            cut[r] = ends[r]
    return distinct, out_hashes[:kept], out_checks[:kept], out_counts[:kept], out_first[:kept], places
