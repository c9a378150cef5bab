"""Opens HDF5 files that may be hostile: only plain numbers, lying in the file itself, come out.

A file can make libhdf5 read other files (external and soft links, external storage, virtual datasets), load a library
(an unknown filter) or take memory without end (a dataset of terabytes that was never written). Reading shards does not
use libhdf5 at all; whatever does use it, `verify`, the report and the writer's own check, comes through here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from shardtrain.errors import CorruptShardError, ShardsError
from shardtrain.shards import layout
from shardtrain.shards.layout import Chunks, DatasetEntry
from shardtrain.shards.safety import chunk_places, filter_names, load_h5py, open_dataset


@contextmanager
def open_shard_file(path: Path) -> Iterator[Any]:
    """A file to read, as `h5py.File`; whatever libhdf5 finds wrong in the block becomes one kind of error.

    Raises:
        CorruptShardError: it is no HDF5 file, or its structures are damaged.
    """
    h5py = load_h5py()
    try:
        with h5py.File(path, "r") as file:
            yield file
    except ShardsError:
        raise
    except (OSError, KeyError, AttributeError, RuntimeError, ValueError, TypeError) as error:
        raise CorruptShardError(
            f"shard '{path}' is not the HDF5 file it should be ({error}); restore the file from a copy or "
            "rebuild the shards"
        ) from error


def shard_dataset(file: Any, name: str, where: DatasetEntry) -> Any:
    """The dataset `name` of an open shard, after checking that it is honest and stored as the manifest's entry says.

    Raises:
        ShardsError: it is anything but plain numbers in this file; see `honest`.
        CorruptShardError: it can grow, or goes through other filters.
    """
    dataset = open_dataset(file, name)
    place = f"'{name}' in '{file.filename}'"
    if dataset.maxshape != dataset.shape:
        raise CorruptShardError(f"{place} can grow to {dataset.maxshape}; shards have fixed shapes")
    found, expected = filter_names(dataset), where.chunks.filters if where.chunks else ()
    if found != expected:
        raise CorruptShardError(
            f"{place} goes through the filters {', '.join(found) or 'none'}, the manifest says "
            f"{', '.join(expected) or 'none'}; rebuild the shards"
        )
    return dataset


def locate(dataset: Any) -> DatasetEntry:
    """Where a dataset's values lie: its chunks if it is compressed, else one aligned piece of the file.

    Raises:
        ShardsError: libhdf5 laid the chunks out in another way than shards rely on.
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
                    "this version of libhdf5 cannot make shards that are mapped; please report it"
                )
            expected += piece.size
    return DatasetEntry(dtype=dataset.dtype.str, shape=tuple(dataset.shape), offset=offset, bytes=size)
