"""Rewrite a shard with another compression: the same values in chunks encoded with HDF5's filters.

Chunks are encoded here, in threads, and written as raw chunks array by array, so the file is a function of the values
and the codec. Space for each chunk is reserved before libhdf5 writes it, so that a full disk is an ordinary error and
not a crash. The cost is that the uncompressed shard must exist first; a build keeps it in scratch.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import MissingExtraError
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.checksums import block_checksums
from shardtrain.runtime.storage import storage_errors
from shardtrain.runtime.system import mapped, reserve_space
from shardtrain.shards import layout
from shardtrain.shards.codecs import PIPELINES, codec_module, encode_chunk, filter_options, load_plugins
from shardtrain.shards.descriptor_file import DescriptorFile
from shardtrain.shards.hdf5 import locate
from shardtrain.shards.layout import DatasetEntry, Manifest, ShardEntry
from shardtrain.shards.plain_array import ArrayReader
from shardtrain.shards.safety import h5py_lock, load_h5py
from shardtrain.shards.shard import Shard
from shardtrain.shards.write import ShardShape, create_file, new_shard, written_by_libhdf5

_SLACK = 1 << 20  # bytes reserved beyond the chunks, for HDF5 metadata and what closing the file writes
_COPY_BYTES = 16 << 20  # of values per copy when a shard is decompressed


def check_codec(codec: str) -> None:
    """Check before any work that shards can be written with `codec`.

    Raises:
        MissingExtraError: its binding or hdf5plugin is not installed.
    """
    codec_module(codec)
    if not load_plugins():
        raise MissingExtraError(
            "writing compressed shards needs the package 'hdf5plugin'; install it with "
            "`pip install 'shardtrain[compress]'`"
        )


def codec_of(shard: ShardEntry) -> str | None:
    """Return the codec that a shard was written with; None: uncompressed."""
    filters = {entry.chunks.filters for entry in shard.datasets.values() if entry.chunks and entry.source is None}
    return next((codec for codec, pipeline in PIPELINES.items() if pipeline in filters), None)


def shape_of(shard: ShardEntry, manifest: Manifest) -> ShardShape:
    """Return the shape that the writer needs to rewrite a shard of `manifest`."""
    return ShardShape(
        kind=manifest.kind,
        rows=shard.rows,
        num_features=manifest.num_features,
        nonzeros=shard.datasets[layout.DATA].shape[0] if manifest.kind == "ngram" else 0,
        num_classes=len(manifest.class_names),
        vocabulary_size=manifest.vocabulary_size,
    )


def rewrite_shard(shard: Shard, shape: ShardShape, codec: str | None, path: Path, *, threads: int = 1) -> ShardEntry:
    """Write the values of an open shard atomically to `path`, with a codec, or uncompressed if it is None.

    Raises:
        CorruptShardError: the shard is damaged.
        MissingExtraError: a codec is not installed.
        StorageError: the file cannot be written.
    """
    if codec is None:
        return _write_plain(shard, shape, path)
    check_codec(codec)
    with committed(path, sweep=False) as file:
        with written_by_libhdf5(path, file.fileno()) as output:
            places = _write_packed(path, file.fileno(), output, shard, shape, codec, threads)
        with storage_errors(path, "mmap", done="read"), mapped(file.fileno()) as content:
            return ShardEntry(
                file=path.name,
                rows=shape.rows,
                bytes=len(content),
                datasets=places,
                block_bytes=layout.BLOCK_BYTES,
                checksums=block_checksums(content, layout.BLOCK_BYTES),
            )


def _write_plain(shard: Shard, shape: ShardShape, path: Path) -> ShardEntry:
    values = sum(entry.bytes for entry in shard.entry.datasets.values())
    step = max(1, _COPY_BYTES * shape.rows // max(values, 1))
    with new_shard(path, shape) as writer:
        for start in range(0, shape.rows, step):
            stop = min(start + step, shape.rows)
            writer.append(shard.x(start, stop), shard.y(start, stop), shard.documents(start, stop))
    return writer.entry


def _write_packed(
    path: Path, descriptor: int, output: DescriptorFile, shard: Shard, shape: ShardShape, codec: str, threads: int
) -> dict[str, DatasetEntry]:
    chunks = 0
    with storage_errors(path, "reserve"):
        reserve_space(descriptor, _SLACK)
    with create_file(output, shape, version=layout.NEWER_VERSION) as file, ThreadPoolExecutor(threads) as pool:
        reserved = 0  # as creating the file truncates it
        for name, (dtype, dims) in shape.datasets().items():
            dataset = _create_dataset(file, name, dims, np.dtype(dtype), codec)
            if math.prod(dims):
                chunk = packed_shape(dims, np.dtype(dtype).itemsize)
                source = shard.arrays[name]
                for row, content in _encoded(pool, threads, source, dims[0], chunk, codec):
                    chunks += len(content)
                    with storage_errors(path, "reserve"):
                        reserve_space(descriptor, chunks + _SLACK, start=reserved)
                    reserved = chunks + _SLACK
                    with h5py_lock():  # h5py 3.14 does not take it in this one call, and libhdf5 is not thread-safe
                        dataset.write_direct_chunk((row, *[0] * (len(dims) - 1)), content)
                    output.raise_failure()
        entries = {name: locate(file[name]) for name in shape.datasets()}
    output.raise_failure()
    with storage_errors(path, "truncate"):
        os.ftruncate(descriptor, _end_of(descriptor))  # release unused reserved space
    return entries


def packed_shape(dims: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return the shape of a chunk of whole rows of about PACKED_CHUNK_BYTES."""
    row_bytes = itemsize * math.prod(dims[1:])
    return (min(max(1, layout.PACKED_CHUNK_BYTES // row_bytes), dims[0]), *dims[1:])


def _encoded(
    pool: ThreadPoolExecutor, threads: int, source: ArrayReader, rows: int, chunk: tuple[int, ...], codec: str
) -> Iterator[tuple[int, bytes]]:
    """Yield the first row and the encoded bytes of every chunk, in order; chunks are encoded concurrently."""
    pending: deque[tuple[int, Future[bytes]]] = deque()
    encode: Callable[[str, npt.NDArray[Any]], bytes] = encode_chunk
    for row in range(0, rows, chunk[0]):
        values = source.read(row, min(row + chunk[0], rows))
        if len(values) < chunk[0]:
            values = np.concatenate([values, np.zeros((chunk[0] - len(values), *chunk[1:]), values.dtype)])
        pending.append((row, pool.submit(encode, codec, np.ascontiguousarray(values))))
        if len(pending) > 2 * threads:
            first, future = pending.popleft()
            yield first, future.result()
    for first, future in pending:
        yield first, future.result()


def _create_dataset(file: Any, name: str, dims: tuple[int, ...], dtype: np.dtype[Any], codec: str) -> Any:
    """Create a chunked dataset with the codec's filters; an empty one is contiguous, as HDF5 requires."""
    h5py = load_h5py()

    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    create.set_obj_track_times(False)
    if math.prod(dims):
        create.set_chunk(packed_shape(dims, dtype.itemsize))
        for code, options in filter_options(codec, dtype.itemsize):
            if code == 2:
                create.set_shuffle()
            else:
                create.set_filter(code, h5py.h5z.FLAG_MANDATORY, options)
    return h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(dims), dcpl=create)


def _end_of(descriptor: int) -> int:
    """Read the end-of-file address from superblock version 3 (after base and extension addresses, 8 bytes each)."""
    return int.from_bytes(os.pread(descriptor, 8, 28), "little")
