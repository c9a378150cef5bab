"""Tokenize the bytes of a block with compiled kernels: its words, their hashes, and an index of its terms.

A term (word or n-gram) is identified by a 64-bit hash and an independent 32-bit hash, the check (`identity`). Strings
are read again only for the few terms that are kept. Compiled by numba (docs/design.md has the comparison with numpy);
the compiled code is cached on disk.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Bytes, Texts, copy_bytes
from shardtrain.runtime.kernels import inlined_kernel, kernel
from shardtrain.vectorize.identity import TermIds, first_place
from shardtrain.vectorize.settings import Hashing
from shardtrain.vectorize.text import TextBlock, decode

FULL_HASH = np.uint64(0xFFFFFFFFFFFFFFFF)

_K1 = np.uint64(0x9E3779B97F4A7C15)
_K2 = np.uint64(0xD6E8FEB86659FD93)
_K3 = np.uint64(0x100000001B3)
_K4 = np.uint64(0xC2B2AE3D27D4EB4F)
_0, _1, _32 = np.uint64(0), np.uint64(1), np.uint64(32)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokenizer:
    """Define how segments are split into terms.

    Attributes:
        characters: for each code point 1 if it is part of a word, 2 if it is a word by itself, otherwise 0.
        min_chars: words of fewer characters are skipped; 0 where all characters are words by themselves.
        ngram_range: fewest and most words of a term.
        stop_words: words that are skipped, as if the text did not contain them.
        separator: bytes between the words of a term.
        short_whole: whether a segment of fewer words than a term must have is a term as a whole.
    """

    characters: Bytes
    min_chars: int
    ngram_range: tuple[int, int]
    stop_words: tuple[str, ...] = ()
    separator: bytes = b" "
    short_whole: bool = False


@dataclass(frozen=True, eq=False)
class BlockTerms:
    """The terms of a block, in order of first appearance, and its documents as sequences of them.

    Attributes:
        hashes, checks: (terms,) uint64 and uint32.
        counts: occurrences of each term, (terms,) uint32.
        occurrences: the term at each place, (occurrences,) uint32.
        indptr: document d has the occurrences [indptr[d], indptr[d + 1]), (documents + 1,) int64.
    """

    hashes: npt.NDArray[np.uint64]
    checks: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.uint32]
    occurrences: npt.NDArray[np.uint32]
    indptr: npt.NDArray[np.int64]

    @property
    def ids(self) -> TermIds:
        """The identities of the terms."""
        return TermIds(self.hashes, self.checks)


def index_block(block: TextBlock, tokenizer: Tokenizer, hashing: Hashing) -> BlockTerms:
    """Find the words of a block; `tokenizer` must be one of single words."""
    words = int(len(block.data) // (tokenizer.min_chars + 1) + len(block) + 1)  # upper bound
    found = _index(
        block.data,
        block.bounds,
        block.offsets,
        tokenizer.characters,
        tokenizer.min_chars,
        hashed_words(tokenizer.stop_words, hashing.seed),
        np.uint64(hashing.seed),
        np.uint64(hashing.mask),
        words,
    )
    return BlockTerms(*found)


def find_terms(block: TextBlock, tokenizer: Tokenizer, hashing: Hashing, wanted: TermIds) -> Texts:
    """Return the strings of the wanted terms (ascending) of a block, in their order; that of an absent one is empty."""
    low, high = tokenizer.ngram_range
    return Texts(
        *_find(
            block.data,
            block.bounds,
            tokenizer.characters,
            tokenizer.min_chars,
            hashed_words(tokenizer.stop_words, hashing.seed),
            low,
            high,
            tokenizer.short_whole,
            np.frombuffer(tokenizer.separator, np.uint8),
            np.uint64(hashing.seed),
            np.uint64(hashing.mask),
            wanted.hashes,
            wanted.checks,
        )
    )


def terms_at(block: TextBlock, tokenizer: Tokenizer, hashing: Hashing, positions: npt.NDArray[np.int64]) -> Texts:
    """Return the n-grams of a block at positions (ascending), which count as `Inverted.first` does."""
    low, high = tokenizer.ngram_range
    return Texts(
        *_copy_at(
            block.data,
            block.bounds,
            tokenizer.characters,
            tokenizer.min_chars,
            hashed_words(tokenizer.stop_words, hashing.seed),
            low,
            high,
            tokenizer.short_whole,
            np.frombuffer(tokenizer.separator, np.uint8),
            np.uint64(hashing.seed),
            positions,
        )
    )


@inlined_kernel
def mix(h: Any, w: Any) -> Any:
    """Combine a state with the next word; multiply-xorshift rounds as in common 64-bit finalizers."""
    x = h * _K1 + w
    x ^= x >> _32
    x *= _K2
    x ^= x >> _32
    return x


@functools.lru_cache(maxsize=4)
def hashed_words(words: Sequence[str], seed: int) -> npt.NDArray[np.uint64]:
    """Hash words into a table with open addressing: hash and check, (slots, 2), at most a quarter full; 0 is empty."""
    table = np.zeros((1 << (4 * len(words)).bit_length() if words else 0, 2), np.uint64)
    every = np.ones(sys.maxunicode + 1, np.uint8)
    nothing = np.zeros((0, 2), np.uint64)
    for word in words:
        data = np.frombuffer(word.encode("utf-8", "surrogatepass"), np.uint8)
        buffers = word_buffers(np.array([0, len(data)]), 1)
        split_words(data, 0, len(data), every, 1, nothing, np.uint64(seed), *buffers)
        slot = int(buffers[0][0]) % len(table)
        while table[slot, 0]:
            slot = (slot + 1) % len(table)
        table[slot] = buffers[0][0], buffers[1][0]
    return table


@inlined_kernel
def _is_in(h: Any, c: Any, table: Any) -> Any:
    """Return whether a word with hash h and check c is in a table of `hashed_words`."""
    found = False
    if len(table):
        wrap = np.uint64(len(table) - 1)
        slot = h & wrap
        # Invariant: `found` says whether a slot from h & wrap up to the one before `slot` has the word.
        while table[slot, 0] and not found:
            found = table[slot, 0] == h and table[slot, 1] == c
            slot = (slot + np.uint64(1)) & wrap
    return found


@kernel
def split_words(data, start, stop, characters, min_chars, stop_words, seed, hashes, checks, starts, ends):  # type: ignore[no-untyped-def]
    """Split bytes [start, stop) into words: write hashes, checks and byte ranges to the buffers; return how many.

    Without room in `starts` and `ends` no byte ranges are written.
    """
    count, i, end = _0, np.uint64(start), np.uint64(stop)  # an index that may be negative costs a comparison
    # Invariant: the first `count` entries of the buffers are the words kept of data[start:i], and none goes on at i.
    while i < end:
        first, h, c = i, seed, ~seed
        kind = np.uint8(1)
        while i < end and data[i] < 0x80:  # most texts are ASCII nearly everywhere
            kind = characters[data[i]]
            if kind != 1:
                break
            h = (h ^ np.uint64(data[i])) * _K3
            c = (c + np.uint64(data[i])) * _K4
            i += _1
        chars = np.int64(i - first)
        width = _0
        while i < end and (kind == 1 or width == 0):
            kind, width = _kind_at(data, i, characters)
            if kind == 0:
                break
            for _ in range(width):
                h = (h ^ np.uint64(data[i])) * _K3
                c = (c + np.uint64(data[i])) * _K4
                i += _1
            chars += 1
        if chars and chars >= min_chars:
            hashes[count] = mix(h, _K4)
            checks[count] = mix(c, _K3)
            if len(starts):
                starts[count] = first
                ends[count] = i
            if not _is_in(hashes[count], checks[count], stop_words):
                count += _1
        if kind == 0:
            i += width
    return np.int64(count)


@inlined_kernel
def _kind_at(data: Any, i: Any, characters: Any) -> Any:
    """Return what a tokenizer says of the character at byte i, and its width in bytes."""
    if data[i] < 0x80:
        return characters[data[i]], _1
    code, width = decode(data, i)
    return characters[np.uint64(code)], np.uint64(width)


@kernel
def _index(data, bounds, offsets, characters, min_chars, stop_words, seed, mask, bound):  # type: ignore[no-untyped-def]
    word_hash, word_check, word_start, word_end = word_buffers(bounds, min_chars)
    # upper bounds: pages that are never touched take no memory
    hashes = np.empty(bound, np.uint64)
    checks = np.empty(bound, np.uint32)
    counts = np.zeros(bound, np.uint32)
    occurrences = np.empty(bound, np.uint32)
    indptr = np.zeros(len(offsets), np.int64)
    slots = np.zeros(1 << 16, np.uint32)  # open addressing: term + 1, or 0
    terms = 0
    entries = 0
    # Invariant: occurrences[:entries] are the words of the documents before d, hashes[:terms] the distinct ones by
    # first appearance; `slots` holds each of these and is at most half full.
    for d in range(len(offsets) - 1):
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
            for i in range(words):
                h = word_hash[i] & mask
                check = np.uint32(word_check[i] >> _32)
                slot = _slot_of(h, check, slots, hashes, checks)
                if slots[slot] == 0:
                    hashes[terms] = h
                    checks[terms] = check
                    terms += 1
                    slots[slot] = np.uint32(terms)
                term = slots[slot] - 1
                counts[term] += np.uint32(1)
                occurrences[entries] = np.uint32(term)
                entries += 1
                if terms * 2 > len(slots):
                    slots = _grown(slots, hashes, checks, terms)
        indptr[d + 1] = entries
    return (
        hashes[:terms].copy(),
        checks[:terms].copy(),
        counts[:terms].copy(),
        occurrences[:entries].copy(),
        indptr,
    )


@inlined_kernel
def _slot_of(h: Any, c: Any, slots: Any, hashes: Any, checks: Any) -> Any:
    """Return the slot that holds the term with hash h and check c, or the empty one where it belongs."""
    wrap = np.uint64(len(slots) - 1)
    slot = (h ^ np.uint64(c)) & wrap
    # Invariant: the slots from where the search began up to the one before `slot` hold other terms.
    while slots[slot] and (hashes[slots[slot] - 1] != h or checks[slots[slot] - 1] != c):
        slot = (slot + np.uint64(1)) & wrap
    return slot


@kernel
def _grown(slots, hashes, checks, terms):  # type: ignore[no-untyped-def]
    """Return the same table with four times the slots."""
    larger = np.zeros(len(slots) * 4, np.uint32)
    for term in range(terms):
        larger[_slot_of(hashes[term], checks[term], larger, hashes, checks)] = np.uint32(term + 1)
    return larger


@kernel
def word_buffers(bounds, min_chars):  # type: ignore[no-untyped-def]
    """Allocate buffers for the words of the longest segment: hashes, checks, starts and ends."""
    longest = 0
    for s in range(len(bounds) - 1):
        longest = max(longest, bounds[s + 1] - bounds[s])
    room = longest // (min_chars + 1) + 2
    return np.empty(room, np.uint64), np.empty(room, np.uint64), np.empty(room, np.int64), np.empty(room, np.int64)


@kernel
def _append(data, starts, ends, first, last, separator, found, size):  # type: ignore[no-untyped-def]
    """Append the n-gram of the words [first, last) to found[:size]; return `found`, or a larger copy, and its size."""
    room = size + (last - first - 1) * len(separator)
    for j in range(first, last):
        room += ends[j] - starts[j]
    if room > len(found):
        larger = np.empty(max(room, len(found) + len(found) // 2), np.uint8)
        copy_bytes(found, 0, size, larger, 0)
        found = larger
    for j in range(first, last):
        if j > first:
            size = copy_bytes(separator, 0, len(separator), found, size)
        size = copy_bytes(data, starts[j], ends[j], found, size)
    return found, size


@kernel
def _find(  # type: ignore[no-untyped-def]
    data, bounds, characters, min_chars, stop_words, low, high, short, separator, seed, mask, wanted, wanted_checks
):
    """Copy the first occurrence of each wanted term; return the bytes, and where each begins, as `Texts` hold them."""
    word_hash, word_check, word_start, word_end = word_buffers(bounds, min_chars)
    found = np.empty(16 * len(wanted) + 64, np.uint8)
    places = np.full(len(wanted), -1, np.int64)
    sizes = np.zeros(len(wanted), np.int64)
    size = 0
    missing = len(wanted)
    # Invariant: if the wanted term p occurs in the segments before s, it is the sizes[p] bytes of found[:size] from
    # places[p] on; otherwise places[p] is -1, which holds for `missing` terms.
    for s in range(len(bounds) - 1):
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
                h, c = word_hash[i], word_check[i]
                for j in range(i + 1, i + n):
                    h = mix(h, word_hash[j])
                    c = mix(c, word_check[j])
                h &= mask
                check = np.uint32(c >> _32)
                place = first_place(h, check, wanted, wanted_checks)
                present = place < len(places) and wanted[place] == h and wanted_checks[place] == check
                if present and places[place] < 0:
                    places[place] = size
                    found, size = _append(data, word_start, word_end, i, i + n, separator, found, size)
                    sizes[place] = size - places[place]
                    missing -= 1
        if missing == 0:
            break
    out = np.empty(size, np.uint8)
    offsets = np.zeros(len(places) + 1, np.int64)
    for place in range(len(places)):
        offsets[place + 1] = offsets[place] + sizes[place]
        copy_bytes(found, places[place], places[place] + sizes[place], out, offsets[place])
    return out, offsets


@kernel
def _copy_at(data, bounds, characters, min_chars, stop_words, low, high, short, separator, seed, positions):  # type: ignore[no-untyped-def]
    """Copy the n-grams at the positions; return their bytes, and where each begins, as `Texts` hold them."""
    word_hash, word_check, word_start, word_end = word_buffers(bounds, min_chars)
    found = np.empty(16 * len(positions) + 64, np.uint8)
    offsets = np.zeros(len(positions) + 1, np.int64)
    size, position, wanted = 0, 0, 0
    # Invariant: `position` n-grams are in the segments before s, as `inverted` walks them; found[:size] has the
    # n-grams at positions[:wanted], which are all of these that are below `position`.
    for s in range(len(bounds) - 1):
        if wanted == len(positions):
            break
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
        for n in range(least, min(high, words) + 1):
            end = position + words - n + 1
            while wanted < len(positions) and positions[wanted] < end:
                i = positions[wanted] - position
                found, size = _append(data, word_start, word_end, i, i + n, separator, found, size)
                wanted += 1
                offsets[wanted] = size
            position = end
    return found[:size].copy(), offsets
