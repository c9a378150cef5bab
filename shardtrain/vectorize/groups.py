"""Put the postings of some hundred units into one file, cut by bucket, so that a bucket reads few ranges of few files.

Merging and scoring read one bucket's part of all postings. Of a corpus of a terabyte these are hundreds of thousands of
files, of which thousands of buckets would each read a few kilobytes. A group file has the same terms in another order:
bucket by bucket, in each unit by unit. That order keeps what results depend on, the order of units and of their terms;
the cost is that the terms, and for scores the values, are written once more.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import SpilledFile, find_spilled, spilling
from shardtrain.vectorize.buckets import Bucket, first_at

GROUP_UNITS = 256  # units, or files of rows, that are put into one file: a GiB of the corpus
MOST_FILES = 4096  # that are read one by one: a corpus of 16 GiB; beyond it, opening them takes longer than grouping
COLUMNS = {"hashes": np.uint64, "checks": np.uint32, "counts": np.uint32, "first": np.uint32}
_TERM_BYTES = 64  # memory of a term while a group is written: its columns, twice, and its place in the order


def files_together(number: int) -> int:
    """Return how many of so many files are put into one; 1: they are read one by one."""
    return GROUP_UNITS if number > MOST_FILES else 1


@dataclass(frozen=True)
class Part:
    """The terms of one bucket in a file of postings.

    Attributes:
        file: of a unit or a group.
        terms: their range in the file.
        starts: where the terms of each unit begin in what is read, and the last ends, (units + 1,).
        chosen: which terms of the range are in the bucket; None: all.
    """

    file: SpilledFile
    terms: slice
    starts: npt.NDArray[np.int64]
    chosen: npt.NDArray[np.int64] | None = None

    def read(self) -> list[npt.NDArray[Any]]:
        """Read the columns of the terms; see `COLUMNS`."""
        found = self.file.read(**dict.fromkeys(COLUMNS, self.terms))
        return found if self.chosen is None else [column[self.chosen] for column in found]


@dataclass(frozen=True)
class Runs:
    """The postings of all units, as buckets are merged from them.

    Attributes:
        units: files, one per unit.
        files: files of groups that are cut into 2**`bits` buckets; or those of the units.
        bits: see above.
        width: units in a group; 1: the files are those of the units.
    """

    units: Sequence[Path]
    files: Sequence[Path]
    bits: int
    width: int = 1

    @property
    def grouped(self) -> bool:
        """Whether the files are those of groups."""
        return self.width > 1

    def __len__(self) -> int:
        return len(self.files)

    def units_of(self, number: int) -> range:
        """Return the numbers of the units whose terms are in a file."""
        return range(number * self.width, min((number + 1) * self.width, len(self.units)))

    def first_units(self) -> npt.NDArray[np.int64]:
        """Return the number of the first unit of each file, and that of all units, (files + 1,)."""
        return np.minimum(np.arange(len(self) + 1) * self.width, len(self.units))

    def part(self, number: int, bucket: Bucket) -> Part:
        """Return the terms of a bucket in a file; the bucket may be a part of one into which the files are cut."""
        file = find_spilled(self.files[number])
        if not self.grouped:
            terms = bucket.part_of(file)
            return Part(file, terms, np.array([0, terms.stop - terms.start]))
        width, finer = len(self.units_of(number)), bucket.bits - self.bits
        at = (bucket.number >> finer) * width
        (starts,) = file.read(starts=slice(at, at + width + 1))
        terms, starts = slice(int(starts[0]), int(starts[-1])), starts - starts[0]
        if not finer:
            return Part(file, terms, starts)
        (hashes,) = file.read(hashes=terms)
        chosen = np.flatnonzero(hashes >> np.uint64(64 - bucket.bits) == bucket.number)
        return Part(file, terms, np.searchsorted(chosen, starts), chosen)


@dataclass(frozen=True)
class Batch:
    """Units that are worked on together.

    Attributes:
        number: of the file of runs that they are in.
        before: units in that file that come before them.
        units: their numbers.
    """

    number: int
    before: int
    units: range

    def within(self, part: Part) -> npt.NDArray[np.int64]:
        """Return where the terms of each unit begin in a part of the file, and the last ends, (units + 1,)."""
        return part.starts[self.before : self.before + len(self.units) + 1]


@dataclass(frozen=True)
class Batches(Sequence[Batch]):
    """All units in batches of at most `size` units of one file."""

    runs: Runs
    size: int

    @property
    def _per_file(self) -> int:
        return -(-self.runs.width // self.size)

    def __len__(self) -> int:
        last = len(self.runs.units_of(len(self.runs) - 1))
        return (len(self.runs) - 1) * self._per_file + -(-last // self.size)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(f"there is no batch {index} of {len(self)}")
        number, place = divmod(index, self._per_file)
        units = self.runs.units_of(number)
        return Batch(number, place * self.size, units[place * self.size : (place + 1) * self.size])


def fold_postings(runs: Runs, number: int, budget: int) -> None:
    """Write the terms of a group of units, bucket by bucket, with about `budget` bytes in memory.

    The file has the columns of the terms, and `starts`: the terms of bucket b and of the u-th unit of `width` units
    begin at starts[b * width + u]; they end where the next ones begin.
    """
    files = [find_spilled(runs.units[unit]) for unit in runs.units_of(number)]
    total = sum(file.length("hashes") for file in files)
    arrays = {name: (dtype, (total,)) for name, dtype in COLUMNS.items()}
    shape = ((len(files) << runs.bits) + 1,)
    with spilling(runs.files[number], {**arrays, "starts": (np.int64, shape)}) as out:
        written = 0
        out.append(starts=np.zeros(1, np.int64))
        for buckets, parts in steps(files, runs.bits, fold_bytes(total), budget):
            columns = [file.read(**dict.fromkeys(COLUMNS, part)) for file, part in zip(files, parts, strict=True)]
            order, sizes = by_bucket([each[0] for each in columns], buckets, runs.bits)
            for name, *pieces in zip(COLUMNS, *columns, strict=True):
                out.append(**{name: np.concatenate(pieces)[order]})
            out.append(starts=written + np.cumsum(sizes))
            written += len(order)


def fold_bytes(num_terms: int) -> int:
    """Return the memory of a group of so many terms, if it were written in one step."""
    return num_terms * _TERM_BYTES


def num_steps(bits: int, needed: int, budget: int) -> int:
    """Return in how many steps a group that takes `needed` bytes is written within `budget` bytes."""
    return min(1 << bits, max(1, -(-needed // budget)))


def steps(files: Sequence[SpilledFile], bits: int, needed: int, budget: int) -> Iterator[tuple[range, list[slice]]]:
    """Yield ranges of buckets that fit into memory, and the parts of the units' terms that are in them."""
    steps = num_steps(bits, needed, budget)
    edges = [(step << bits) // steps for step in range(steps + 1)]
    begins = [0] * len(files)
    for first, last in pairwise(edges):
        ends = [first_at(file, last, bits) for file in files]
        yield range(first, last), [slice(begin, end) for begin, end in zip(begins, ends, strict=True)]
        begins = ends


def by_bucket(
    hashes: Sequence[npt.NDArray[np.uint64]], buckets: range, bits: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the order of terms by bucket and then unit, and how many each bucket has of each unit.

    Args:
        hashes: of each unit's terms, ascending.
        buckets: that the terms are in.
        bits: of all buckets.
    """
    joined = np.concatenate(hashes)
    numbers = np.zeros(len(joined), np.uint32)
    if bits:
        numbers = ((joined >> np.uint64(64 - bits)) - np.uint64(buckets.start)).astype(np.uint32)
    if len(buckets) <= 1 << 16:
        numbers = numbers.astype(np.uint16)  # numpy sorts these by radix
    units = np.repeat(np.arange(len(hashes)), [len(each) for each in hashes])
    sizes = np.bincount(numbers.astype(np.int64) * len(hashes) + units, minlength=len(buckets) * len(hashes))
    return np.argsort(numbers, kind="stable"), sizes
