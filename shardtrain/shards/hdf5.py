"""Open shards with libhdf5 after safety checks, so that untrusted files yield only plain numbers of their own.

A file can make libhdf5 read other files (external and soft links, external storage, virtual datasets), load a library
(an unknown filter) or allocate unlimited memory (a dataset of terabytes that was never written). Reading shards does
not use libhdf5; everything that does, `verify`, the report and the writer's own check, goes through this module.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardtrain.errors import CorruptShardError, ShardsError
from shardtrain.shards import layout
from shardtrain.shards.layout import Chunks, DatasetEntry
from shardtrain.shards.safety import HDF5_ERRORS, chunk_places, filter_names, load_h5py, open_dataset


@contextmanager
def open_shard_file(path: Path) -> Iterator[Any]:
    """Open a file for reading as `h5py.File`; errors of libhdf5 within the block become one type of error.

    Raises:
        CorruptShardError: the file is not an HDF5 file, or its metadata is damaged.
    """
    h5py = load_h5py()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except ShardsError:
        raise
    except HDF5_ERRORS as error:
        raise CorruptShardError(
            f"shard '{path}' is not a valid HDF5 file ({error}); restore the file from a copy or rebuild the shards"
        ) from error


def shard_dataset(file: Any, name: str, where: DatasetEntry) -> Any:
    """Open the dataset `name` of a shard after checking that it is safe and stored as in the manifest.

    Raises:
        ShardsError: it is not plain numbers in this file; see `safety.check_dataset`.
        CorruptShardError: it is resizable, or has other filters.
    """
    dataset = open_dataset(file, name)
    place = f"'{name}' in '{file.filename}'"
    if dataset.maxshape != dataset.shape:
        raise CorruptShardError(f"{place} is resizable to {dataset.maxshape}; shards have fixed shapes; rebuild them")
    found, expected = filter_names(dataset), where.chunks.filters if where.chunks else ()
    if found != expected:
        raise CorruptShardError(
            f"{place} has the filters {', '.join(found) or 'none'}, the manifest says {', '.join(expected) or 'none'}; "
            "rebuild the shards"
        )
    return dataset


def locate(dataset: Any) -> DatasetEntry:
    """Find where a dataset's values are: its chunks if it is compressed, otherwise one aligned range of the file.

    Raises:
        ShardsError: libhdf5 did not place uncompressed chunks consecutively, as mapping requires.
    """
    size = dataset.size * dataset.dtype.itemsize
    offset = 0
    if size and (filters := filter_names(dataset)):
        places = chunk_places(dataset)
        offsets, sizes = tuple(place.offset for place in places), tuple(place.size for place in places)
        chunks = Chunks(shape=tuple(dataset.chunks), filters=filters, offsets=offsets, sizes=sizes)
        return DatasetEntry(dtype=dataset.dtype.str, shape=tuple(dataset.shape), offset=0, bytes=size, chunks=chunks)
    if size and dataset.chunks is None:
        offset = dataset.id.get_offset()
    elif size:
        pieces = chunk_places(dataset)
        offset = pieces[0].offset
        expected = offset
        for piece in pieces:
            if piece.offset != expected or offset % layout.ALIGNMENT:
                raise ShardsError(
                    f"HDF5 placed a chunk of '{dataset.name}' at byte {piece.offset:,}, expected {expected:,}: "
                    "this version of libhdf5 cannot write shards that can be mapped; please report it"
                )
            expected += piece.size
    return DatasetEntry(dtype=dataset.dtype.str, shape=tuple(dataset.shape), offset=offset, bytes=size)
