"""Compute the n-gram rows of new texts: their n-grams are looked up among a fitted vectorizer's candidates.

The candidates lie in memory-mapped arrays, in ascending order. Hashes are uniform, so the top bits of one say where in
the arrays it would be; `Index` holds these places, and the bits below them say where between two of them. A lookup
waits for memory twice; the lookups of a document are made together, so that they wait at the same time. Where
candidates have checks, those with one hash are compared by these; otherwise the hash decides, and none are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.runtime.intrinsics import prefetch
from shardtrain.runtime.kernels import inlined_kernel, kernel
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.settings import Hashing
from shardtrain.vectorize.text import TextBlock
from shardtrain.vectorize.tokens import Tokenizer, hashed_words, mix, split_words, word_buffers
from shardtrain.vectorize.weights import Float, Weights

_MOST_BITS = 21  # of the index: 8 MB, which no plan of memory counts
_AHEAD = 16  # entries
_TABLED = 1 << 16  # counts below have their weight in a table; few candidates have more
_INSERTED = 24  # entries that are sorted by insertion
_LONG = 1 << 13  # candidates with one place in the index, from which on they are searched by halves
_NARROW = 1 << 32  # candidates below this number have places of 32 bits in the index
_64, _32, _1 = np.uint64(64), np.uint64(32), np.uint64(1)


@dataclass(frozen=True, eq=False)
class Index:
    """Where candidates are in ascending arrays.

    Attributes:
        ids: of the candidates.
        starts: candidates whose hashes have the top bits b are [starts[b], starts[b + 1]), (2 ** bits + 1,) uint32 or,
            of more than these can count, uint64.
        shift: 64 less the number of bits.
    """

    ids: TermIds
    starts: npt.NDArray[np.unsignedinteger[Any]]
    shift: np.uint64

    @classmethod
    def of(cls, ids: TermIds) -> Index:
        """Index ascending terms, whose arrays may be mapped."""
        bits = min(max(1, (len(ids) // 2).bit_length()), _MOST_BITS)
        shift = np.uint64(64 - bits)
        starts: npt.NDArray[Any] = np.zeros((1 << bits) + 1, np.uint32 if len(ids) < _NARROW else np.uint64)
        _count(ids.hashes, shift, starts)
        return cls(ids, starts, shift)


@dataclass(frozen=True, eq=False)
class TermWeights:
    """The weights of candidates, by their document frequency.

    Attributes:
        by_count: of each frequency below `_TABLED`, (most + 1,).
        rare: the greater frequencies, ascending; `by_rare` has their weights.
    """

    by_count: Float
    rare: npt.NDArray[np.unsignedinteger[Any]]
    by_rare: Float

    @classmethod
    def of(cls, counts: npt.NDArray[np.unsignedinteger[Any]], weights: Weights, num_documents: int) -> TermWeights:
        """Compute the weights of all document frequencies that occur."""
        most = int(counts.max(initial=0))
        rare = np.unique(counts[counts >= _TABLED]) if most >= _TABLED else counts[:0]
        tabled = np.arange(min(most + 1, _TABLED))
        return cls(
            weights.of_terms(tabled, num_documents), rare, weights.of_terms(rare.astype(np.int64), num_documents)
        )


@dataclass(frozen=True, eq=False)
class Counted:
    """Distinct keys of each document, in order of first appearance.

    Attributes:
        keys: candidates or columns, (entries,) int64.
        times: how often each occurs, or the sum of its signs, (entries,) int64.
        indptr: document d has the entries [indptr[d], indptr[d + 1]), (documents + 1,) int64.
    """

    keys: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]


def count_candidates(block: TextBlock, tokenizer: Tokenizer, hashing: Hashing, index: Index) -> Counted:
    """Find the candidates that occur in the documents of a block."""
    low, high = tokenizer.ngram_range
    grams, indptr = _known(
        block.data,
        block.bounds,
        block.offsets,
        tokenizer.characters,
        tokenizer.min_chars,
        hashed_words(tokenizer.stop_words, hashing.seed),
        low,
        high,
        tokenizer.short_whole,
        np.uint64(hashing.seed),
        np.uint64(hashing.mask),
        index.ids.hashes,
        index.ids.checks,
        index.starts,
        index.shift,
    )
    return count_keys(grams, np.ones(1, np.int8), indptr)


def count_keys(keys: npt.NDArray[np.int64], signs: npt.NDArray[np.int8], indptr: npt.NDArray[np.int64]) -> Counted:
    """Count how often each key occurs in each document.

    Args:
        keys: of all documents, (keys,).
        signs: what each adds, (keys,), or (1,): the same for all.
        indptr: document d has the keys [indptr[d], indptr[d + 1]).
    """
    return Counted(*_counted(keys, signs, indptr))


def weighted_rows(
    counted: Counted, index_columns: npt.NDArray[np.int32], counts: npt.NDArray[np.unsignedinteger[Any]],
    terms: TermWeights, *, weights: Weights, num_features: int,
) -> Csr:  # fmt: skip
    """Return the rows of documents whose candidates are counted.

    Args:
        counted: of the documents.
        index_columns: the column of each candidate, or -1; a document's norm is over all its candidates.
        counts: document frequency of each candidate.
        terms: the weights of these.
        weights: how counts become values.
        num_features: columns of the rows.
    """
    of_times = weights.of_times(int(counted.times.max(initial=0)))
    data, indices, indptr = _weighted(
        counted.keys, counted.times, counted.indptr, index_columns, counts, terms.by_count, terms.rare, terms.by_rare,
        of_times, weights.norm,
    )  # fmt: skip
    return Csr(data, indices, indptr, (len(indptr) - 1, num_features))


@kernel
def _count(hashes, shift, starts):  # type: ignore[no-untyped-def]
    one = starts.dtype.type(1)
    for h in hashes:
        starts[np.int64(h >> shift) + 1] += one
    for top in range(len(starts) - 1):
        starts[top + 1] += starts[top]


@kernel
def _known(  # type: ignore[no-untyped-def]
    data,
    bounds,
    offsets,
    characters,
    min_chars,
    stop_words,
    low,
    high,
    short,
    seed,
    mask,
    known,
    checks,
    places_of,
    shift,
):
    """Return the candidate of every known n-gram, in each document by length, and where each document's begin."""
    word_hash, word_check, word_start, word_end = word_buffers(bounds, min_chars)
    longest = 0
    for d in range(len(offsets) - 1):
        size = bounds[offsets[d + 1]] - bounds[offsets[d]]
        segments = offsets[d + 1] - offsets[d]
        longest = max(longest, (size // (min_chars + 1) + segments) * (high - low + 1))
    grams = np.empty(longest, np.uint64)  # of a document
    checked = len(checks) > 0
    gram_checks = np.empty(longest if checked else 0, np.uint32)
    most = (len(data) // (min_chars + 1) + len(bounds)) * (high - low + 1)  # what is not used takes no memory
    found = np.empty(most, np.int64)
    indptr = np.zeros(len(offsets), np.int64)
    position = 0
    # Invariant: found[:position] are the candidates of the documents before d.
    for d in range(len(offsets) - 1):
        count = 0
        for s in range(offsets[d], offsets[d + 1]):
            words = split_words(
                data,
                bounds[s],
                bounds[s + 1],
                characters,
                min_chars,
                stop_words,
                seed,
                word_hash,
                word_check,
                word_start,
                word_end,
            )
            least = min(low, max(words, 1)) if short else low
            for n in range(least, high + 1):
                for i in range(words - n + 1):
                    h = word_hash[i]
                    for j in range(i + 1, i + n):
                        h = mix(h, word_hash[j])
                    h &= mask
                    grams[count] = h
                    if checked:
                        c = word_check[i]
                        for j in range(i + 1, i + n):
                            c = mix(c, word_check[j])
                        gram_checks[count] = c >> _32
                    prefetch(places_of.ctypes.data + places_of.itemsize * np.int64(h >> shift))
                    count += 1
        for i in range(count):
            prefetch(known.ctypes.data + 8 * _guess(grams[i], places_of, shift))
        for i in range(count):
            place = _place(grams[i], known, places_of, shift)
            if checked and place >= 0:
                last = np.int64(places_of[np.int64(grams[i] >> shift) + 1])
                place = _place_of_check(gram_checks[i], place, last, known, checks)
            found[position] = place
            position += place >= 0
        indptr[d + 1] = position
    return found[:position].copy(), indptr


@inlined_kernel
def _guess(h: Any, places_of: Any, shift: Any) -> Any:
    """Return about where a hash is among the known ones: they are uniform, so its bits below the top ones say where."""
    top = np.int64(h >> shift)
    first, last = np.int64(places_of[top]), np.int64(places_of[top + 1])
    return first + np.int64(((h << (_64 - shift)) >> _32) * np.uint64(last - first) >> _32)


@inlined_kernel
def _place(h: Any, hashes: Any, places_of: Any, shift: Any) -> Any:
    """Return the first place of a hash among the known ones, or -1."""
    top = np.int64(h >> shift)
    first, last = np.int64(places_of[top]), np.int64(places_of[top + 1])
    while last - first > _LONG:  # of shortened hashes; the first place not below h is in [first, last]
        middle = (first + last) >> 1
        if hashes[middle] < h:
            first = middle + 1
        else:
            last = middle + 1
    place = min(max(_guess(h, places_of, shift), first), last)
    while place > first and hashes[place - 1] >= h:
        place -= 1
    while place < last and hashes[place] < h:
        place += 1
    return place if place < last and hashes[place] == h else -1


@inlined_kernel
def _place_of_check(c: Any, first: Any, last: Any, hashes: Any, checks: Any) -> Any:
    """Return the place of the candidate with check c among those with the hash of the one at `first`, or -1.

    The candidates from `last` on have other hashes.
    """
    low, high = first, first if checks[first] == c else last  # nearly always only one has this hash
    # Invariant: the candidates from `first` to before `low` have the hash, and checks below c; those from `high` on do
    # not.
    while low < high:
        middle = (low + high) >> 1
        if hashes[middle] == hashes[first] and checks[middle] < c:
            low = middle + 1
        else:
            high = middle
    return low if low < last and hashes[low] == hashes[first] and checks[low] == c else -1


@kernel
def _counted(keys, signs, indptr):  # type: ignore[no-untyped-def]
    longest = 0
    for d in range(len(indptr) - 1):
        longest = max(longest, indptr[d + 1] - indptr[d])
    room = 16
    while room < 2 * longest:
        room *= 2
    slots = np.zeros(room, np.int32)  # open addressing: entry of the document + 1, or 0
    distinct = np.empty(len(keys), np.int64)
    times = np.empty(len(keys), np.int64)
    starts = np.zeros(len(indptr), np.int64)
    size = 0
    # Invariant: the first `size` entries are of the documents before d; all slots are 0.
    for d in range(len(indptr) - 1):
        room = 16
        while room < 2 * (indptr[d + 1] - indptr[d]):
            room *= 2
        wrap = np.uint64(room - 1)
        begin = size
        for i in range(indptr[d], indptr[d + 1]):
            key = keys[i]
            slot = _slot_of(key, slots, wrap, distinct, begin)
            entry = slots[slot]
            if entry == 0:
                distinct[size] = key
                times[size] = 0
                size += 1
                entry = np.int32(size - begin)
                slots[slot] = entry
            times[begin + entry - 1] += signs[i if len(signs) > 1 else 0]
        if size - begin < room // 8:
            for entry in range(size - 1, begin - 1, -1):  # the last of a chain first, or others would not be found
                slots[_slot_of(distinct[entry], slots, wrap, distinct, begin)] = 0
        else:
            slots[:room] = 0
        starts[d + 1] = size
    return distinct[:size].copy(), times[:size].copy(), starts


@inlined_kernel
def _slot_of(key: Any, slots: Any, wrap: Any, distinct: Any, begin: Any) -> Any:
    """Return the slot that holds a key, or the empty one where it belongs."""
    slot = (np.uint64(key) * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(32)) & wrap
    while slots[slot] and distinct[begin + slots[slot] - 1] != key:
        slot = (slot + _1) & wrap
    return slot


@kernel
def _weighted(places, times, indptr, columns, counts, by_count, rare, by_rare, of_times, norm):  # type: ignore[no-untyped-def]
    data = np.empty(len(places), np.float32)
    indices = np.empty(len(places), np.int32)
    row_ptr = np.zeros(len(indptr), np.int64)
    size = 0
    values = np.empty(0, np.float64)
    # Invariant: the first `size` entries are the rows before d.
    for d in range(len(indptr) - 1):
        start, stop = indptr[d], indptr[d + 1]
        if stop - start > len(values):
            values = np.empty(2 * (stop - start), np.float64)
        squares = 0.0
        for i in range(start, stop):
            soon = places[min(i + _AHEAD, len(places) - 1)]
            prefetch(counts.ctypes.data + counts.itemsize * soon)
            prefetch(columns.ctypes.data + 4 * soon)
            count = counts[places[i]]
            if np.int64(count) < len(by_count):  # noqa: SIM108 - both sides of an expression would be computed
                weight = by_count[count]
            else:
                weight = by_rare[np.searchsorted(rare, count)]
            value = of_times[times[i]] * weight
            values[i - start] = value
            squares += value * value
        divisor = np.sqrt(squares) if norm else 1.0
        begin = size
        for i in range(start, stop):
            column = columns[places[i]]
            if column >= 0:
                indices[size] = column
                data[size] = values[i - start] / divisor
                size += 1
        sort_entries(indices, data, begin, size)
        row_ptr[d + 1] = size
    return data[:size].copy(), indices[:size].copy(), row_ptr


@inlined_kernel
def sort_entries(indices: Any, data: Any, start: Any, stop: Any) -> None:
    """Sort the entries [start, stop) of a row by column; columns differ."""
    if stop - start > _INSERTED:
        order = np.argsort(indices[start:stop])
        moved_indices, moved_data = indices[start:stop].copy(), data[start:stop].copy()
        for i in range(stop - start):
            indices[start + i] = moved_indices[order[i]]
            data[start + i] = moved_data[order[i]]
        return
    for i in range(start + 1, stop):
        column, value = indices[i], data[i]
        j = i
        while j > start and indices[j - 1] > column:
            indices[j], data[j] = indices[j - 1], data[j - 1]
            j -= 1
        indices[j], data[j] = column, value
