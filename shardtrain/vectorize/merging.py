"""Merge the terms of all units in bounded memory, bucket by bucket; the number of buckets never decides the result.

Since hashes are uniform, the same range of all units' postings fits into memory together, and buckets are independent
of each other. Which ranges do is planned from the number of terms. What a bucket really holds is known before anything
of it is read: more than fits, such as a few terms of very many units, is merged in halves, which are then joined on
disk.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import Pieces, SpilledArrays, open_spilled, spill
from shardtrain.errors import UsageError
from shardtrain.runtime.kernels import kernel
from shardtrain.runtime.quantities import size
from shardtrain.vectorize.buckets import MERGE_BYTES, MOST_TERMS, Bucket
from shardtrain.vectorize.counts import places_in
from shardtrain.vectorize.groups import COLUMNS, Part, Runs
from shardtrain.vectorize.inverted import ordered, slots_for

MERGED = {"hashes": np.uint64, "checks": np.uint32, "counts": np.int64, "first": np.uint64}  # of candidates
_CACHED_TERMS = 1 << 14  # merged at a time, so that their table stays in the processor's cache
_TABLED_TERMS = 1 << 16  # that may be merged, and be in one table, whatever the budget
_TABLE_BYTES = 96  # memory of a term in the table: slots, sums, and what sorting takes
_PIECE = 1 << 20  # places that are filled in at a time
_HASH_BITS = 64
_UNIT_BITS = np.uint64(32)


def merge_bucket(
    runs: Runs, bucket: Bucket, out: Path, *, min_count: int, max_count: int | None = None, budget: int
) -> tuple[int, int]:
    """Merge one bucket of all units' postings; write the candidates, terms whose count is in [min_count, max_count].

    The file has `hashes` and `checks` (ascending), `counts` and `first` (unit << 32 | rank in the unit: the order of
    first appearance in the corpus) of the candidates, and `places`: for each term of the postings in this bucket, file
    after file of `runs`, the index of the candidate or -1; file r has the places [starts[r], starts[r + 1]). Where the
    files are groups, it also has `term_counts` and `term_firsts`, count and first appearance of the candidate in each
    place, 0 without one: a unit could find them only all over the candidates. Returns the number of distinct terms and
    the number written.

    Args:
        runs: the postings.
        bucket: what is merged.
        out: the file.
        min_count, max_count: see above; None is no limit.
        budget: bytes that merging may take, beside a few megabytes.

    Raises:
        UsageError: the terms with one hash do not fit into the budget; only shortened hashes, or a term of more units
            than there is room for, lead to that.
    """
    most = max_count if max_count is not None else np.iinfo(np.int64).max
    return _merge_range(runs, bucket, out, out.name, (min_count, most), budget)


def _merge_range(
    runs: Runs, bucket: Bucket, out: Path, stem: str, limits: tuple[int, int], budget: int
) -> tuple[int, int]:
    """Merge a range of hashes, in halves if it does not fit; their files begin with `stem`.

    The file of a half has `starts` of units, and that of the whole has those of files.
    """
    whole = out.name == stem
    parts = [runs.part(number, bucket) for number in range(len(runs))]
    num_terms = sum(int(part.starts[-1]) for part in parts)
    if num_terms <= min(max(budget // MERGE_BYTES, _TABLED_TERMS), MOST_TERMS):
        tabled = max((budget - num_terms * MERGE_BYTES) // _TABLE_BYTES, _TABLED_TERMS)
        if (merged := _merged(parts, bucket, limits, tabled)) is not None:
            distinct, columns, places, starts = merged
            _spill(out, columns, places, starts, runs if whole else None)
            return distinct, len(columns["hashes"])
    if bucket.bits == _HASH_BITS:
        raise _too_many(num_terms, budget)
    del parts
    halves = [(half, out.with_name(f"{stem}-{half.bits}-{half.number}")) for half in bucket.halves()]
    distinct = sum(_merge_range(runs, half, path, stem, limits, budget)[0] for half, path in halves)
    paths = [path for _, path in halves]
    if (kept := _join([open_spilled(path) for path in paths], out, runs if whole else None)) > MOST_TERMS:
        raise _too_many(kept, budget)
    for path in paths:
        path.unlink()
    return distinct, kept


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


def _too_many(num_terms: int, budget: int) -> UsageError:
    needed = num_terms * (MERGE_BYTES + _TABLE_BYTES)
    return UsageError(
        f"{num_terms:,} terms of the units must be merged at once, which takes {size(needed)}; --memory-limit has room "
        f"for {size(budget)} in each of --workers; raise --memory-limit, or lower --workers"
    )


def _spill(
    out: Path,
    columns: Mapping[str, npt.NDArray[Any]],
    places: npt.NDArray[np.int32],
    starts: npt.NDArray[np.int64],
    runs: Runs | None,
) -> None:
    """Write a merged range; `starts` are those of units, and `runs` are given for a whole bucket."""
    if runs is None:
        spill(out, {**columns, "places": places, "starts": starts})
    else:
        spill_bucket(out, columns, places, starts[runs.first_units()], grouped=runs.grouped)


def _merged(
    parts: Sequence[Part], bucket: Bucket, limits: tuple[int, int], tabled: int
) -> tuple[int, dict[str, npt.NDArray[Any]], npt.NDArray[np.int32], npt.NDArray[np.int64]] | None:
    """Return the number of distinct terms of a range, the candidates' columns, and the places and starts of units.

    None: more than `tabled` terms are alike in the leading bits by which their tables are kept small.
    """
    of_files = np.cumsum([0, *(part.starts[-1] for part in parts)])
    starts = np.concatenate([[0], *(base + part.starts[1:] for base, part in zip(of_files, parts, strict=False))])
    columns = {name: np.empty(starts[-1], dtype) for name, dtype in COLUMNS.items()}
    for part, start in zip(parts, of_files.tolist(), strict=False):
        for column, values in zip(columns.values(), part.read(), strict=True):
            column[start : start + len(values)] = values
    bits = bucket.bits
    while int(starts[-1]) >> (bits - bucket.bits) > _CACHED_TERMS and bits < 48:
        bits += 1
    of_range = np.uint64(bucket.number), np.uint64(bucket.bits), np.uint64(bits)
    distinct, *merged, places = _merge(*columns.values(), starts, *of_range, *limits, tabled)
    if distinct < 0:
        return None
    return int(distinct), dict(zip(MERGED, merged, strict=True)), places, starts


def _join(parts: Sequence[SpilledArrays], out: Path, runs: Runs | None) -> int:
    """Join the files of adjacent ranges, and write them as `_spill` does; return the number of candidates."""
    sizes = [len(part["hashes"]) for part in parts]
    bases = np.cumsum([0, *sizes])[:-1].tolist()
    starts = np.sum([part["starts"] for part in parts], axis=0)

    def places() -> Iterator[npt.NDArray[np.int32]]:
        for unit in range(len(starts) - 1):
            for part, base in zip(parts, bases, strict=True):
                found = places_in(part, unit)
                yield np.where(found >= 0, found + np.int32(base), found)

    columns = {
        name: Pieces(np.dtype(dtype), (sum(sizes),), map(itemgetter(name), parts)) for name, dtype in MERGED.items()
    }
    of_units = Pieces(np.dtype(np.int32), (int(starts[-1]),), places())
    joined = out if runs is None else out.with_name(f"{out.name}-joined")
    spill(joined, {**columns, "places": of_units, "starts": starts})
    if runs is not None:
        whole = open_spilled(joined)
        _spill(out, {name: whole[name] for name in MERGED}, whole["places"], starts, runs)
        joined.unlink()
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
        slots = slots_for(size)
        wrap = np.uint64(len(slots) - 1)
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
