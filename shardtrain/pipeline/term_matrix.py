"""Make a sparse matrix of the n-grams of texts, in memory or out of core, on all cores, without labels and shards.

It is what the classes in place of scikit-learn's vectorizers are made of. The texts are read once, so an iterator will
do, and cut into units that go through the passes of a build: count, merge, name, and rows. Units and their postings
are mapped scratch files. With a memory limit the matrix is one as well, and what is held is the work of a few units
and the terms, which a user wants as Python strings: too many of them are refused.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import open_spilled
from shardtrain.arrays.texts import Texts
from shardtrain.errors import UsageError
from shardtrain.options import show_size
from shardtrain.pipeline.options import LEAST_MEMORY
from shardtrain.runtime.executors import threads
from shardtrain.runtime.machine import cores, memory_bytes
from shardtrain.runtime.passes import PROCESS_BYTES, UNIT_BYTES, UNIT_MEMORY, Workers
from shardtrain.runtime.quantities import size
from shardtrain.vectorize.buckets import MERGE_BYTES, Bucket, plan_buckets
from shardtrain.vectorize.count_rows import (
    Analysis,
    Rows,
    UnitFiles,
    count_unit,
    name_in_unit,
    spill_texts,
    unit_rows,
    unit_times,
)
from shardtrain.vectorize.groups import Runs
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.merging import merge_bucket

Task = TypeVar("Task")
Result = TypeVar("Result")
Array = npt.NDArray[Any]
Entries = tuple[Array, Array, Array]  # the values and columns of some rows, and how many each row has
TERM_BYTES = 320  # of memory: string, place in a dict, counts and hashes, and what sorting takes
_PIECE = 1 << 20  # entries copied at a time
_MAX_INT32 = np.iinfo(np.int32).max


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What the work may take.

    Attributes:
        memory_limit: bytes of anonymous memory; None: what there is, and the matrix is held too.

    Raises:
        UsageError: less than a build needs.
    """

    memory_limit: int | None = None

    def __post_init__(self) -> None:
        if self.memory_limit is not None and self.memory_limit < LEAST_MEMORY:
            raise UsageError(f"--memory-limit {show_size(self.memory_limit)}: at least {show_size(LEAST_MEMORY)}")

    @property
    def workers(self) -> int:
        """Threads: one per core, as the memory allows."""
        return max(1, min(cores(), (self._memory - PROCESS_BYTES) // UNIT_MEMORY))

    @property
    def budget(self) -> int:
        """Bytes for the data of one task."""
        return Workers(self.workers).task_budget(self._memory)

    @property
    def _memory(self) -> int:
        """The limit, or half of what this machine lets the program use."""
        return memory_bytes() // 2 if self.memory_limit is None else self.memory_limit

    def check_terms(self, number: int, num_chars: int) -> None:
        """Refuse more terms than memory has room for; `num_chars` are those of their strings, as far as known.

        Raises:
            UsageError: there is no room for them.
        """
        if self.memory_limit is None:
            return
        needed, room = number * TERM_BYTES + num_chars, max(self.memory_limit - PROCESS_BYTES - UNIT_MEMORY, 0)
        if needed > room:
            raise UsageError(
                f"the {number:,} terms that occur in as many documents as --min-df and --max-df allow need "
                f"{size(needed)}, --memory-limit has room for {size(room)}; raise --min-df, or raise --memory-limit"
            )


@dataclass(frozen=True, eq=False)
class Terms:
    """The terms of a corpus in order of their strings; column c of a matrix is term c.

    Attributes:
        strings: of the terms.
        ids: of the terms.
        first: increases with first appearance in the corpus, (terms,) uint64.
        counts: documents in which each occurs, (terms,) int64.
        times: how often each occurs, (terms,) int64, or None if not asked for.
    """

    strings: list[str]
    ids: TermIds
    first: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int64]
    times: npt.NDArray[np.int64] | None

    def take(self, chosen: npt.NDArray[np.int64]) -> Terms:
        """Return some of the terms, by ascending index."""
        return Terms(
            [self.strings[i] for i in chosen.tolist()],
            self.ids.take(chosen),
            self.first[chosen],
            self.counts[chosen],
            None if self.times is None else self.times[chosen],
        )


@dataclass(frozen=True, eq=False)
class Counted:
    """A counted corpus: its units, which are there until the scratch folder goes.

    Attributes:
        analysis: as asked for.
        units: in order.
        num_documents: of all units.
        num_terms: distinct terms of each unit, added up.
    """

    analysis: Analysis
    units: tuple[UnitFiles, ...]
    num_documents: int
    num_terms: int


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Hold a folder for the files of the work where the system keeps temporary files (`TMPDIR`)."""
    folder = Path(tempfile.mkdtemp(prefix="shardtrain-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def cut(texts: Iterable[str], num_bytes: int) -> Iterator[Texts]:
    """Cut texts into units of about `num_bytes`; there is at least one."""
    held: list[bytes] = []
    held_bytes, first = 0, True
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        held.append(encoded)
        held_bytes += len(encoded)
        if held_bytes >= num_bytes:
            yield Texts.from_utf8(held)
            held, held_bytes, first = [], 0, False
    if held or first:
        yield Texts.from_utf8(held)


def unit_bytes(analysis: Analysis) -> int:
    """Return the bytes of text in a unit."""
    return UNIT_BYTES // analysis.settings.density


def in_order(function: Callable[[Task], Result], tasks: Iterable[Task], resources: Resources) -> Iterator[Result]:
    """Yield `function(task)` for each task in order, on all cores if there is more than one task."""
    tasks = iter(tasks)
    head = list(islice(tasks, 2))
    if len(head) < 2 or resources.workers == 1:
        yield from map(function, chain(head, tasks))
        return
    with threads(resources.workers) as pool:
        yield from pool.map(function, chain(head, tasks))


def count_texts(texts: Iterable[str], analysis: Analysis, scratch: Path, resources: Resources) -> Counted:
    """Count the n-grams of texts, which are read once."""
    units: list[UnitFiles] = []
    sizes: list[int] = []

    def spilled() -> Iterator[UnitFiles]:
        for number, block in enumerate(cut(texts, unit_bytes(analysis))):
            files = UnitFiles(scratch / f"texts-{number:06}", scratch / f"postings-{number:06}")
            spill_texts(files.texts, block)
            units.append(files)
            sizes.append(len(block))
            yield files

    found = sum(in_order(partial(count_unit, analysis=analysis), spilled(), resources))
    return Counted(analysis, tuple(units), sum(sizes), found)


def find_terms(counted: Counted, scratch: Path, resources: Resources, *, least: int, most: int, times: bool) -> Terms:
    """Return the terms that occur in `least` to `most` documents.

    Args:
        counted: the corpus.
        scratch: folder of its files.
        resources: for the work.
        least, most: documents, both inclusive.
        times: whether how often each term occurs is wanted.

    Raises:
        UsageError: memory has no room for them.
    """
    postings = [files.postings for files in counted.units]
    bits = _bucket_bits(counted, resources)
    runs = Runs(postings, postings, bits)

    def merge(bucket: Bucket) -> tuple[TermIds, Array, Array, Array | None]:
        path = scratch / f"bucket-{bucket.number:06}"
        merge_bucket(runs, bucket, path, min_count=least, max_count=most, budget=resources.budget)
        merged = open_spilled(path)
        totals = np.zeros(len(merged["hashes"]), np.int64) if times else None
        if totals is not None:
            for number, files in enumerate(counted.units):
                unit_times(files, number, bucket, path, totals)
        ids = TermIds(merged["hashes"].copy(), merged["checks"].copy())
        found = ids, merged["first"].copy(), merged["counts"].copy(), totals
        path.unlink()
        return found

    merged = list(in_order(merge, [Bucket(number, bits) for number in range(1 << bits)], resources))
    resources.check_terms(sum(len(part[0]) for part in merged), 0)
    ids = TermIds.joined([part[0] for part in merged])
    first, counts = (np.concatenate([part[i] for part in merged]) for i in (1, 2))
    totals = np.concatenate([part[3] for part in merged if part[3] is not None]) if times else None
    del merged
    by_first = np.argsort(first)
    cuts = np.searchsorted(first[by_first], np.arange(len(postings) + 1, dtype=np.uint64) << np.uint64(32))

    def name(number: int) -> list[str]:
        firsts = first[by_first[cuts[number] : cuts[number + 1]]] & np.uint64(0xFFFFFFFF)  # without the unit
        return name_in_unit(counted.units[number], counted.analysis, firsts.astype(np.int64)) if len(firsts) else []

    strings: list[str] = []
    num_chars = 0
    for found in in_order(name, range(len(postings)), resources):
        strings += found
        num_chars += sum(map(len, found))
        resources.check_terms(len(first), num_chars)
    order = sorted(range(len(strings)), key=strings.__getitem__)
    place = by_first[np.array(order, np.int64)]
    return Terms(
        [strings[i] for i in order],
        ids.take(place),
        first[place],
        counts[place],
        None if totals is None else totals[place],
    )


def rows_of(
    counted: Counted, terms: Terms, finish: Callable[[Rows], Entries], resources: Resources
) -> Iterator[Entries]:
    """Yield the rows of each unit in order, finished by a function."""
    order = terms.ids.order()
    ids, columns, first = terms.ids.take(order), order.astype(np.int32), terms.first[order]
    yield from in_order(lambda files: finish(unit_rows(files, ids, columns, first)), counted.units, resources)


def assemble(parts: Iterable[Entries], resources: Resources) -> Entries:
    """Concatenate rows: data, indices and indptr of a matrix; with a memory limit the first two are mapped files."""
    gather = _held if resources.memory_limit is None else _mapped
    data, indices, sizes = gather(parts)
    indptr = np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=indptr[1:])
    if indptr[-1] <= _MAX_INT32:  # scipy needs the same type in both
        return data, indices, indptr.astype(np.int32)
    return data, indices.astype(np.int64, copy=False), indptr


def _bucket_bits(counted: Counted, resources: Resources) -> int:
    """Plan buckets that fit into memory, and enough of a large corpus that every core has some."""
    usual = max(1 << 20, counted.num_terms * MERGE_BYTES // (4 * resources.workers))
    return plan_buckets(counted.num_terms, min(resources.budget, usual))


def _held(parts: Iterable[Entries]) -> Entries:
    columns: tuple[list[Array], ...] = ([], [], [])
    for part in parts:
        for column, values in zip(columns, part, strict=True):
            column.append(values)
    data = np.concatenate(columns[0])
    columns[0].clear()
    return data, np.concatenate(columns[1]), np.concatenate(columns[2])


def _mapped(parts: Iterable[Entries]) -> Entries:
    sizes = [np.zeros(0, np.int64)]
    dtype = np.dtype(np.float64)
    with contextlib.ExitStack() as stack:  # the files have no names, and go with the last array that maps them
        files = [stack.enter_context(tempfile.TemporaryFile(prefix="shardtrain-")) for _ in range(2)]
        for data, indices, of_rows in parts:
            dtype = data.dtype
            files[0].write(np.ascontiguousarray(data).data)
            files[1].write(np.ascontiguousarray(indices, np.int32).data)
            sizes.append(of_rows)
        total = np.concatenate(sizes)
        if not total.sum():
            return np.empty(0, dtype), np.empty(0, np.int32), total
        for file in files:
            file.flush()
        values: Array = np.memmap(files[0], dtype, mode="r+")
        columns: Array = np.memmap(files[1], np.int32, mode="r+")
    return values, _widened(columns) if len(columns) > _MAX_INT32 else columns, total


def _widened(columns: Array) -> Array:
    """Copy mapped columns to a file of int64."""
    with tempfile.TemporaryFile(prefix="shardtrain-") as file:
        for start in range(0, len(columns), _PIECE):
            file.write(columns[start : start + _PIECE].astype(np.int64).data)
        file.flush()
        return np.memmap(file, np.int64, mode="r+")
