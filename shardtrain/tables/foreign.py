"""Features in somebody else's HDF5 file: where they lie in it, and whether a model can use them.

Both are found out once, when a file is indexed. Where they lie is what the manifest will say; every value is looked at,
through the reader that training uses, so what cannot be decoded is met now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import CorpusFormatError, ShardsError
from shardtrain.shards import layout
from shardtrain.shards.decoded_array import DecodedArray
from shardtrain.shards.layout import Chunks, DatasetEntry
from shardtrain.shards.safety import check_dataset, chunk_places, filter_names, open_object
from shardtrain.tables.blocks import BLOCK_BYTES, ascending, check_finite
from shardtrain.tables.hdf5 import Matrix

_POINTERS_AT_ONCE = 1 << 20


def locate(dataset: Any, path: str) -> DatasetEntry:
    """Where a dataset of somebody else's lies: in one piece if its bytes do, else in chunks.

    Raises:
        ShardsError: it cannot be used where it is.
    """
    try:
        check_dataset(dataset)
    except ShardsError as error:
        raise type(error)(f"{error}. `python -m shardtrain convert` may be able to copy it") from error
    places = chunk_places(dataset) if dataset.size else []
    entry = DatasetEntry(
        dtype=dataset.dtype.str, shape=tuple(dataset.shape), offset=0,
        bytes=dataset.size * dataset.dtype.itemsize, source=path,
    )  # fmt: skip
    if not places:
        return entry
    filters = filter_names(dataset)
    touching = all(a.offset + a.size == b.offset for a, b in pairwise(places))
    whole_rows = dataset.chunks is None or dataset.chunks[1:] == dataset.shape[1:]
    if not filters and touching and whole_rows:
        return replace(entry, offset=places[0].offset)
    masks = tuple(place.mask for place in places)
    chunks = Chunks(
        shape=tuple(dataset.chunks), filters=filters, offsets=tuple(place.offset for place in places),
        sizes=tuple(place.size for place in places), masks=masks if any(masks) else (),
    )  # fmt: skip
    return replace(entry, chunks=chunks)


def sliced(entry: DatasetEntry, start: int, stop: int, dtype: str) -> DatasetEntry:
    """The elements [start, stop) of an array along its first axis, to be read as `dtype`."""
    stride = entry.bytes // entry.shape[0] if entry.shape[0] else 0
    part = replace(
        entry, shape=(stop - start, *entry.shape[1:]), bytes=(stop - start) * stride,
        converted=None if entry.dtype == dtype else dtype,
    )  # fmt: skip
    if start == stop:
        return replace(part, offset=0, chunks=None)
    if entry.chunks is None:
        return replace(part, offset=entry.offset + start * stride)
    chunks = entry.chunks
    columns = 1
    for size, width in zip(entry.shape[1:], chunks.shape[1:], strict=True):
        columns *= -(-size // width)
    height = chunks.shape[0]
    chosen = slice(start // height * columns, -(-stop // height) * columns)
    return replace(
        part,
        chunks=replace(
            chunks, offsets=chunks.offsets[chosen], sizes=chunks.sizes[chosen], masks=chunks.masks[chosen],
            start=start % height,
        ),
    )  # fmt: skip


def check_rows(x: DecodedArray, kind: str, path: Path) -> int:
    """Refuse features that are not finite, or negative token ids; the highest id, 0 for other features."""
    rows = max(1, BLOCK_BYTES // (x.dtype.itemsize * x.shape[1]))
    most = 0
    for start in range(0, x.shape[0], rows):
        values = x.read(start, min(start + rows, x.shape[0]))
        if kind == "dense":
            with np.errstate(over="ignore"):
                check_finite(values.astype(np.float32), str(path))
            continue
        if int(values.min()) < 0 or int(values.max()) >= layout.MAX_VOCABULARY:
            wrong = values.min() if int(values.min()) < 0 else values.max()
            raise CorpusFormatError(f"'{path}' has the token id {wrong}; ids are from 0 to 2**32 - 1")
        most = max(most, int(values.max()))
    return most


def check_sparse(file: Any, matrix: Matrix, readers: dict[str, DecodedArray], path: Path) -> int:
    """Refuse a CSR matrix whose pointers, columns or values are not what they have to be."""
    data, indices = readers[layout.DATA], readers[layout.INDICES]
    before = 0
    for start, pointers in _pointers(file, matrix, 0, matrix.rows):
        if int(pointers[0]) != before or (np.diff(pointers) < 0).any() or int(pointers[-1]) > data.shape[0]:
            raise CorpusFormatError(f"'{path}' has row pointers that fall or lead outside, near row {start:,}")
        before = int(pointers[-1])
        for rows in _cut(pointers):
            first, last = int(rows[0]), int(rows[-1])
            columns = indices.read(first, last)
            if len(columns) and (int(columns.min()) < 0 or int(columns.max()) >= matrix.num_features):
                raise CorpusFormatError(f"'{path}' has columns outside [0, {matrix.num_features:,}) near row {start:,}")
            if not ascending(columns, rows - first):
                raise CorpusFormatError(
                    f"'{path}' has rows whose columns do not ascend, near row {start:,}; `python -m shardtrain "
                    "convert` sorts them"
                )
            check_finite(data.read(first, last).astype(np.float32), str(path))
    if before != data.shape[0]:
        raise CorpusFormatError(f"'{path}' has row pointers up to {before:,} and {data.shape[0]:,} values")
    return 0


def _pointers(file: Any, matrix: Matrix, start: int, stop: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Row pointers of rows [start, stop), many rows at a time, each time with the pointer behind the last row."""
    dataset = open_object(file, f"{matrix.x}/indptr")
    for begin in range(start, stop, _POINTERS_AT_ONCE):
        yield begin, dataset[begin : min(begin + _POINTERS_AT_ONCE, stop) + 1].astype(np.int64)


def _cut(pointers: npt.NDArray[np.int64]) -> Iterator[npt.NDArray[np.int64]]:
    """Pointers of fewer rows at a time, that have about a block of values."""
    start = 0
    while start < len(pointers) - 1:
        stop = int(np.searchsorted(pointers, int(pointers[start]) + BLOCK_BYTES // 8, side="right")) - 1
        stop = min(max(stop, start + 1), len(pointers) - 1)
        yield pointers[start : stop + 1]
        start = stop
