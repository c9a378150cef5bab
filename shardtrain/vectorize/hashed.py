"""Compute hashed n-grams as scikit-learn's HashingVectorizer does: stateless, so nothing is fitted.

The column of an n-gram is its MurmurHash3 (32 bits, seed 0, of its UTF-8 bytes) modulo the number of columns, and its
sign is the sign of the hash. Values in the same column are added up, then rows are divided by their l2 norm. The sums
are small integers, so the order of additions does not matter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.runtime.kernels import inlined_kernel, kernel
from shardtrain.vectorize.indexing import prepare_texts, tokenizer_of
from shardtrain.vectorize.new_rows import Counted, count_keys, sort_entries
from shardtrain.vectorize.settings import HashedSettings
from shardtrain.vectorize.text import TextBlock
from shardtrain.vectorize.tokens import hashed_words, split_words, word_buffers

_M = np.uint64(0xFFFFFFFF)
_C1 = np.uint64(0xCC9E2D51)
_C2 = np.uint64(0x1B873593)


def hashed_rows(settings: HashedSettings, texts: Sequence[str]) -> Csr:
    """Compute the rows of texts, (texts, max_features).

    Zeros left by opposite signs are stored, as scikit-learn stores them.
    """
    counted = hashed_sums(settings, texts)
    data, indices = _normed(counted.keys, counted.times, counted.indptr, settings.binary)
    return Csr(data, indices, counted.indptr, (len(texts), settings.max_features))


def hashed_sums(
    settings: HashedSettings, texts: Sequence[str], *, prepared: bool = False, signed: bool = True
) -> Counted:
    """Add up the signs of the n-grams in each column, or count these if not `signed`; keys are columns.

    `prepared` is as for `prepare_texts`.
    """
    block = prepare_texts(settings.ngrams, texts, prepared=prepared)
    columns, signs, indptr = _hashed(settings, block)
    return count_keys(columns, signs if signed else np.ones(1, np.int8), indptr)


def hashed_columns(settings: HashedSettings, block: TextBlock) -> npt.NDArray[np.int64]:
    """Return the column of every n-gram of a prepared block, in each segment by the word it begins with, (n-grams,)."""
    columns: npt.NDArray[np.int64] = _hashed(settings, block)[0]
    return columns


def _hashed(settings: HashedSettings, block: TextBlock) -> Any:
    """Return what `_hash_block` says of the n-grams of a prepared block."""
    tokenizer = tokenizer_of(settings.ngrams)
    return _hash_block(
        block.data,
        block.bounds,
        block.offsets,
        tokenizer.characters,
        tokenizer.min_chars,
        hashed_words(tokenizer.stop_words, 0),
        *settings.ngram_range,
        tokenizer.short_whole,
        np.frombuffer(tokenizer.separator, np.uint8),
        settings.max_features,
    )


@kernel
def _normed(columns, sums, indptr, binary):  # type: ignore[no-untyped-def]
    """Divide the sums of each document by their l2 norm, and sort its entries by column."""
    data = np.empty(len(columns), np.float32)
    indices = columns.astype(np.int32)
    for d in range(len(indptr) - 1):
        start, stop = indptr[d], indptr[d + 1]
        squares = 0.0
        for i in range(start, stop):
            value = 1.0 if binary else np.float64(sums[i])
            squares += value * value
        norm = np.sqrt(squares) if squares > 0 else 1.0
        for i in range(start, stop):
            data[i] = (1.0 if binary else np.float64(sums[i])) / norm
        sort_entries(indices, data, start, stop)
    return data, indices


@kernel
def _hash_block(data, bounds, offsets, characters, min_chars, stop_words, low, high, short, separator, num_columns):  # type: ignore[no-untyped-def]
    """Compute column and sign of every n-gram, document after document, and where each document's n-grams begin."""
    hashes, checks, starts, ends = word_buffers(bounds, min_chars)
    room = len(data) // (min_chars + 1) + len(bounds)
    columns = np.empty(room * (high - low + 1), np.int64)  # pages that are never touched take no memory
    signs = np.empty(room * (high - low + 1), np.int8)
    indptr = np.zeros(len(offsets), np.int64)
    term = np.empty(len(data) + (high + 1) * len(separator), np.uint8)
    entries = 0
    # Invariant: columns[:entries] and signs[:entries] are of the n-grams of the documents before d.
    for d in range(len(offsets) - 1):
        for s in range(offsets[d], offsets[d + 1]):
            words = split_words(
                data,
                bounds[s],
                bounds[s + 1],
                characters,
                min_chars,
                stop_words,
                np.uint64(0),
                hashes,
                checks,
                starts,
                ends,
            )
            least = min(low, max(words, 1)) if short else low
            for i in range(words):
                size = 0
                # Invariant: term[:size] is the first n - 1 words from word i on, joined by separators.
                for n in range(1, min(high, words - i) + 1):
                    if n > 1:
                        for byte in separator:
                            term[size] = byte
                            size += 1
                    for j in range(starts[i + n - 1], ends[i + n - 1]):
                        term[size] = data[j]
                        size += 1
                    if n >= least:
                        h = np.int64(_murmur(term, size))
                        positive = h < 0x80000000
                        magnitude = h if positive else 0x100000000 - h
                        if magnitude == 0x80000000:  # scikit-learn's rule where -h does not fit int32
                            magnitude = np.int64(0x7FFFFFFF) - (num_columns - 1)
                        columns[entries] = magnitude % num_columns
                        signs[entries] = 1 if positive else -1
                        entries += 1
        indptr[d + 1] = entries
    return columns[:entries].copy(), signs[:entries].copy(), indptr


@kernel
def _murmur(term, size):  # type: ignore[no-untyped-def]
    """Compute MurmurHash3_x86_32 of the first `size` bytes with seed 0."""
    h = np.uint64(0)
    whole = size - size % 4
    # Invariant: h is the state after term[:i], below 2**32.
    for i in range(0, whole, 4):
        k = np.uint64(0)
        for j in range(4):
            k |= np.uint64(term[i + j]) << np.uint64(8 * j)
        h ^= _scrambled(k)
        h = ((h << np.uint64(13)) | (h >> np.uint64(19))) & _M
        h = (h * np.uint64(5) + np.uint64(0xE6546B64)) & _M
    if whole < size:
        k = np.uint64(0)
        for j in range(size - whole):
            k |= np.uint64(term[whole + j]) << np.uint64(8 * j)
        h ^= _scrambled(k)
    h ^= np.uint64(size)
    h ^= h >> np.uint64(16)
    h = (h * np.uint64(0x85EBCA6B)) & _M
    h ^= h >> np.uint64(13)
    h = (h * np.uint64(0xC2B2AE35)) & _M
    h ^= h >> np.uint64(16)
    return h


@inlined_kernel
def _scrambled(k: Any) -> Any:
    k = (k * _C1) & _M
    k = ((k << np.uint64(15)) | (k >> np.uint64(17))) & _M
    return (k * _C2) & _M
