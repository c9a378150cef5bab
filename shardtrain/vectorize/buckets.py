"""Divide terms into buckets, ranges of their hashes, and find these ranges in postings.

Hashes are uniform, so the same range of all units' postings fits into memory together, and buckets are independent of
each other. The number of buckets decides memory, never the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import SpilledArrays, SpilledFile

MERGE_BYTES = 52  # memory of a term while a bucket is merged: its columns, its place and at most one candidate
MOST_BITS = 40  # of the number of a planned bucket
MOST_TERMS = np.iinfo(np.int32).max  # of a bucket, whose candidates are numbered in 32 bits
TOP_BITS = 10  # of hashes whose places are kept with the postings, so that few pages are searched for a bucket


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
        finer, coarser = max(0, self.bits - TOP_BITS), max(0, TOP_BITS - self.bits)
        top = self.number >> finer << coarser
        tops = postings.read(tops=slice(top, top + (1 << coarser) + 1))[0]
        around = slice(int(tops[0]), int(tops[-1]))
        if not finer:
            return around
        part = self.range(postings.read(hashes=around)[0])
        return slice(around.start + part.start, around.start + part.stop)


@dataclass(frozen=True)
class Buckets(Sequence[Bucket]):
    """All buckets of a number of bits, and a file for each."""

    bits: int
    files: FileSet

    def __len__(self) -> int:
        return 1 << self.bits

    def __getitem__(self, number: Any) -> Any:
        if not 0 <= number < len(self):
            raise IndexError(f"there is no bucket {number} of {len(self)}")
        return Bucket(number, self.bits)


def tops_of(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
    """Return where the hashes with each value of their first bits begin, and where the last ends."""
    edges = np.arange(1, 1 << TOP_BITS, dtype=np.uint64) << np.uint64(64 - TOP_BITS)
    return np.concatenate([[0], np.searchsorted(hashes, edges), [len(hashes)]]).astype(np.uint32)


def first_at(postings: SpilledFile, number: int, bits: int) -> int:
    """Return where the terms of the buckets from the `number`th on begin in postings."""
    if number == 1 << bits:
        return postings.length("hashes")
    return Bucket(number, bits).part_of(postings).start if bits else 0


def plan_buckets(num_terms: int, budget: int) -> int:
    """Return the bits of enough buckets that merging one stays within `budget` bytes if terms are spread evenly."""
    bits = 0
    while (num_terms * MERGE_BYTES >> bits) > min(budget, MOST_TERMS * MERGE_BYTES) and bits < MOST_BITS:
        bits += 1
    return bits
