"""Write one shard: h5py creates the file without values, then `pwrite` puts them at their final offsets.

libhdf5 only lays the file out (early allocation, no fill values, page alignment) and never sees the data; it writes
through `descriptor_file`, so a full disk is an ordinary error of `pwrite` instead of a crash inside libhdf5. That every
array is contiguous is checked in the created file, not assumed. The cost is that the number of rows and non-zeros must
be known in advance.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.errors import ShardsError
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.checksums import block_checksums
from shardtrain.runtime.storage import storage_error, storage_errors
from shardtrain.runtime.system import mapped, reserve_space, write_all
from shardtrain.shards import layout
from shardtrain.shards.descriptor_file import DescriptorFile
from shardtrain.shards.hdf5 import locate
from shardtrain.shards.layout import DatasetEntry, ShardEntry
from shardtrain.shards.safety import load_h5py


@dataclass(frozen=True, kw_only=True)
class ShardShape:
    """What must be known about a shard before its file is created.

    `nonzeros` is 0 except for n-grams. The arrays `external` are in another file and omitted from this one.
    """

    kind: str
    rows: int
    num_features: int
    nonzeros: int
    num_classes: int
    vocabulary_size: int
    external: tuple[str, ...] = ()

    def datasets(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        """Return type and shape of every array of the file, in file order."""
        return {name: value for name, value in self._all_datasets().items() if name not in self.external}

    def full_dtypes(self) -> dict[str, str]:
        """Return the types of all arrays, including external ones."""
        return {name: dtype for name, (dtype, _) in self._all_datasets().items()}

    def _all_datasets(self) -> dict[str, tuple[str, tuple[int, ...]]]:
        label = "|u1" if self.num_classes <= 1 << 8 else "<u2"
        shared: dict[str, tuple[str, tuple[int, ...]]] = {
            layout.Y: (label, (self.rows,)),
            layout.DOCUMENT: ("<i8", (self.rows,)),
        }
        if self.kind != "ngram":
            value = "<f4" if self.kind == "dense" else np.min_scalar_type(self.vocabulary_size - 1).str
            return {layout.X: (value, (self.rows, self.num_features)), **shared}
        return {
            layout.DATA: ("<f4", (self.nonzeros,)),
            layout.INDICES: ("<i4", (self.nonzeros,)),
            layout.INDPTR: ("<i4", (self.rows + 1,)),
            **shared,
        }


class ShardWriter:
    """Writes the rows of one shard in order; created by `new_shard`, which sets `entry` when its block ends."""

    entry: ShardEntry

    def __init__(self, path: Path, file: IO[bytes], shape: ShardShape, datasets: dict[str, DatasetEntry]) -> None:
        self._path = path
        self._file = file
        self._shape = shape
        self._datasets = datasets
        self._rows = 0
        self._nonzeros = 0

    def append(self, x: Csr | npt.NDArray[Any], y: npt.NDArray[Any], document: npt.NDArray[np.int64]) -> None:
        """Write the next rows: features, class indices (rows,) and document ordinals (rows,).

        Of external features only the number of rows, and `indptr` if they are sparse, are used.

        Raises:
            ShardsError: more rows or non-zeros than the shard was created for, or class indices out of range.
        """
        stop = self._rows + len(y)
        if stop > self._shape.rows or len(x) != len(y) or len(document) != len(y):
            raise ShardsError(f"{stop:,} rows for a shard of {self._shape.rows:,} rows")
        if len(y) and int(y.max()) >= self._shape.num_classes:
            raise ShardsError(f"class index {int(y.max())} in a shard of {self._shape.num_classes} classes")
        if isinstance(x, Csr):
            nonzeros = self._nonzeros + int(x.indptr[-1])
            if nonzeros > self._shape.nonzeros:
                raise ShardsError(f"{nonzeros:,} non-zeros for a shard of {self._shape.nonzeros:,}")
            self._write(layout.DATA, self._nonzeros, x.data)
            self._write(layout.INDICES, self._nonzeros, x.indices)
            self._write(layout.INDPTR, self._rows + 1, x.indptr[1:].astype(np.int64) + self._nonzeros)
            self._nonzeros = nonzeros
        else:
            self._write(layout.X, self._rows * self._shape.num_features, x)
        self._write(layout.Y, self._rows, y)
        self._write(layout.DOCUMENT, self._rows, document)
        self._rows = stop

    def _write(self, name: str, position: int, values: npt.NDArray[Any]) -> None:
        """Write `values` as elements [position, position + size) of the flat array `name`."""
        if name in self._shape.external:
            return
        entry = self._datasets[name]
        content = np.ascontiguousarray(values, np.dtype(entry.dtype))
        offset = entry.offset + position * content.itemsize
        with storage_errors(self._path, "write"):
            write_all(self._file.fileno(), content.data.cast("B") if content.size else memoryview(b""), offset)

    def finish(self, name: str) -> ShardEntry:
        """Check that the shard is full, and return its manifest entry with checksums."""
        if self._rows != self._shape.rows or self._nonzeros != self._shape.nonzeros:
            raise ShardsError(
                f"'{name}' was created for {self._shape.rows:,} rows and {self._shape.nonzeros:,} non-zeros, but got "
                f"{self._rows:,} and {self._nonzeros:,}"
            )
        with (
            storage_errors(self._path, "mmap", done="read"),
            mapped(self._file.fileno()) as content,
        ):
            checksums = block_checksums(content, layout.BLOCK_BYTES)
            return ShardEntry(
                file=name,
                rows=self._rows,
                bytes=len(content),
                datasets=self._datasets,
                block_bytes=layout.BLOCK_BYTES,
                checksums=checksums,
            )


@contextmanager
def new_shard(path: Path, shape: ShardShape, *, synced: bool = True) -> Iterator[ShardWriter]:
    """Create the shard `path` atomically: the file appears, by default synced, if the block ends without an exception.

    Raises:
        ShardsError: too many non-zeros for one shard, or the block did not fill it.
        StorageError: the file cannot be written.
    """
    if shape.nonzeros > np.iinfo(np.int32).max:
        raise ShardsError(f"'{path.name}' would have {shape.nonzeros:,} non-zeros; a shard holds at most 2,147,483,647")
    with committed(path, synced=synced, sweep=False) as file:
        with storage_errors(path, "reserve"):
            reserve_space(file.fileno(), _max_bytes(shape))  # what does not fit is refused before it is laid out
        with written_by_libhdf5(path, file.fileno()) as output:
            datasets = _make_skeleton(output, shape)
        with storage_errors(path, "reserve"):
            reserve_space(file.fileno(), max(os.fstat(file.fileno()).st_size, 1))
        writer = ShardWriter(path, file, shape, datasets)
        yield writer
        writer.entry = writer.finish(path.name)


@contextmanager
def written_by_libhdf5(path: Path, descriptor: int) -> Iterator[DescriptorFile]:
    """Yield a file object through which libhdf5 writes the shard `path`, and report what fails.

    Raises:
        StorageError: a call on the file failed, whatever libhdf5 made of it.
    """
    file = DescriptorFile(descriptor)
    try:
        yield file
    except (OSError, RuntimeError, ValueError, KeyError, SystemError) as error:  # the types that h5py raises
        if file.failure is None:
            raise
        raise storage_error(path, "write by libhdf5", file.failure) from error
    if file.failure is not None:
        raise storage_error(path, "write by libhdf5", file.failure) from file.failure


def _max_bytes(shape: ShardShape) -> int:
    """Compute an upper bound of the file's size: its arrays in whole chunks, and HDF5 metadata."""
    size = layout.CHUNK_BYTES // 8
    for dtype, dims in shape.datasets().values():
        if math.prod(dims):
            chunk = chunk_shape(dims, np.dtype(dtype).itemsize)
            row_bytes = np.dtype(dtype).itemsize * math.prod(dims[1:])
            size += -(-dims[0] // chunk[0]) * chunk[0] * row_bytes + layout.ALIGNMENT
    return size


def _make_skeleton(output: DescriptorFile, shape: ShardShape) -> dict[str, DatasetEntry]:
    """Create the HDF5 file without values and locate its arrays."""
    version = layout.PLAIN_VERSION if shape.kind in layout.KINDS[1] else layout.NEWER_VERSION
    with create_file(output, shape, version=version, alignment=layout.ALIGNMENT) as file:
        for name, (dtype, dims) in shape.datasets().items():
            _create_dataset(file, name, dims, np.dtype(dtype))
        # Not in a file that is opened again: h5py's driver crashes when the process ends if that cannot be read.
        places = {name: locate(file[name]) for name in shape.datasets()}
    output.raise_failure()
    return places


def create_file(output: DescriptorFile, shape: ShardShape, *, version: int, alignment: int = 1) -> Any:
    """Create a shard's h5py.File with attributes and group but no datasets; equal calls give equal bytes."""
    h5py = load_h5py()
    properties = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    access = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    access.set_libver_bounds(h5py.h5f.LIBVER_LATEST, h5py.h5f.LIBVER_LATEST)
    access.set_alignment(1, alignment)
    properties.set_obj_track_times(False)  # timestamps would make equal contents differ
    output.truncate(0)  # h5py's driver does not
    output.raise_failure()  # a file that cannot be created crashes h5py's driver when the process ends
    access.set_fileobj_driver(h5py.h5fd.fileobj_driver, output)
    file = h5py.File(h5py.h5f.create(b"shard", h5py.h5f.ACC_TRUNC, properties, access))  # the name is not used
    file.attrs["format"] = layout.FORMAT
    file.attrs["format_version"] = version
    if shape.kind == "ngram":
        untimed = h5py.h5p.create(h5py.h5p.GROUP_CREATE)
        untimed.set_obj_track_times(False)
        group = h5py.Group(h5py.h5g.create(file.id, layout.X.encode(), gcpl=untimed))
        for key, value in layout.CSR_ATTRIBUTES.items():
            group.attrs[key] = value
        group.attrs["shape"] = np.array([shape.rows, shape.num_features], np.int64)
    return file


def _create_dataset(file: Any, name: str, dims: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Create a chunked dataset with all chunks allocated; an empty one is contiguous, as HDF5 requires."""
    h5py = load_h5py()

    create = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    create.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    create.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    create.set_obj_track_times(False)
    if math.prod(dims):
        create.set_chunk(chunk_shape(dims, dtype.itemsize))
    h5py.h5d.create(file.id, name.encode(), h5py.h5t.py_create(dtype), h5py.h5s.create_simple(dims), dcpl=create)


def chunk_shape(dims: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """Return a chunk of whole rows of about CHUNK_BYTES, a multiple of the alignment, so that chunks are contiguous."""
    row_bytes = itemsize * math.prod(dims[1:])
    step = layout.ALIGNMENT // math.gcd(layout.ALIGNMENT, row_bytes)  # the fewest rows that fill whole pages
    rows = max(step, layout.CHUNK_BYTES // row_bytes // step * step)
    return (min(rows, dims[0]), *dims[1:])
