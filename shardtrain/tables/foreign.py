"""Locate features in an external HDF5 file, and check that a model can be trained on them.

Both happen once, when a file is indexed. The location goes into the manifest; every value is read through the reader
that training uses, so that data that cannot be decoded is found now.
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
from shardtrain.tables.blocks import as_features, ascending, check_finite, cut_rows, rows_per_block
from shardtrain.tables.hdf5 import Matrix

_POINTERS_AT_ONCE = 1 << 20


def locate(dataset: Any, path: str) -> DatasetEntry:
    """Locate the bytes of an external dataset: one range if they are contiguous, else chunks.

    Raises:
        ShardsError: it cannot be read in place.
    """
    try:
        check_dataset(dataset)
    except ShardsError as error:
        raise type(error)(f"{error.on_command_line}. `python -m shardtrain convert` may be able to copy it") from error
    places = chunk_places(dataset) if dataset.size else []
    entry = DatasetEntry(
        dtype=dataset.dtype.str,
        shape=tuple(dataset.shape),
        offset=0,
        bytes=dataset.size * dataset.dtype.itemsize,
        source=path,
    )
    if not places:
        return entry
    filters = filter_names(dataset)
    touching = all(a.offset + a.size == b.offset for a, b in pairwise(places))
    whole_rows = dataset.chunks is None or dataset.chunks[1:] == dataset.shape[1:]
    if not filters and touching and whole_rows:
        return replace(entry, offset=places[0].offset)
    masks = tuple(place.mask for place in places)
    chunks = Chunks(
        shape=tuple(dataset.chunks),
        filters=filters,
        offsets=tuple(place.offset for place in places),
        sizes=tuple(place.size for place in places),
        masks=masks if any(masks) else (),
    )
    return replace(entry, chunks=chunks)


def sliced(entry: DatasetEntry, start: int, stop: int, dtype: str) -> DatasetEntry:
    """Return the entry of the elements [start, stop) along the first axis, converted to `dtype` when read."""
    stride = entry.bytes // entry.shape[0] if entry.shape[0] else 0
    part = replace(
        entry,
        shape=(stop - start, *entry.shape[1:]),
        bytes=(stop - start) * stride,
        converted=None if entry.dtype == dtype else dtype,
    )
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
            chunks,
            offsets=chunks.offsets[chosen],
            sizes=chunks.sizes[chosen],
            masks=chunks.masks[chosen],
            start=start % height,
        ),
    )


def check_rows(x: DecodedArray, kind: str, path: Path) -> int:
    """Check that dense features are finite, or token ids in range; return the highest id, 0 for dense features."""
    rows = rows_per_block(x.dtype.itemsize * x.shape[1])
    highest = 0
    for start in range(0, x.shape[0], rows):
        values = as_features(x.read(start, min(start + rows, x.shape[0])), kind, str(path))
        highest = max(highest, int(values.max())) if kind == "sequence" else 0
    return highest


def check_sparse(file: Any, matrix: Matrix, readers: dict[str, DecodedArray], path: Path) -> int:
    """Check pointers, columns and values of a CSR matrix; return 0, as it has no token ids."""
    data, indices = readers[layout.DATA], readers[layout.INDICES]
    before = 0
    for start, pointers in _pointers(file, matrix, 0, matrix.rows):
        if int(pointers[0]) != before or (np.diff(pointers) < 0).any() or int(pointers[-1]) > data.shape[0]:
            raise CorpusFormatError(f"'{path}' has row pointers that decrease or exceed its values, near row {start:,}")
        before = int(pointers[-1])
        for top, end in cut_rows(pointers, _POINTERS_AT_ONCE):
            rows = pointers[top : end + 1]
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
        raise CorpusFormatError(f"'{path}' has row pointers up to {before:,} for {data.shape[0]:,} values")
    return 0


def _pointers(file: Any, matrix: Matrix, start: int, stop: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield (first row, pointers) of rows [start, stop) in blocks of n rows, with n + 1 pointers each."""
    dataset = open_object(file, f"{matrix.x}/indptr")
    for begin in range(start, stop, _POINTERS_AT_ONCE):
        yield begin, dataset[begin : min(begin + _POINTERS_AT_ONCE, stop) + 1].astype(np.int64)
