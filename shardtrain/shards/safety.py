"""Check that an HDF5 dataset of an untrusted file is safe: plain numbers, all of whose bytes are in that file.

libhdf5 follows whatever a file says: to other files (links, external storage, virtual datasets), to plugins on disk
(unknown filters), to gigabytes that were never written. Values of external files are used only after these checks.
Every link on a path is inspected before it is followed; no values are read. The cost is that some harmless datasets are
refused: strings, compact ones, and those with unwritten chunks.
"""

from __future__ import annotations

import errno
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardtrain.errors import CorruptShardError, ShardsError

FILTERS = {
    1: "deflate",
    2: "shuffle",
    3: "fletcher32",
    32000: "lzf",
    32004: "lz4",
    32015: "zstd",
    32026: "blosc2",
}  # registered numbers of the filters that this package decodes itself
# What h5py raises for damaged files: errors of libhdf5, and those of its own code where libhdf5 returns nonsense.
HDF5_ERRORS = (
    *(OSError, KeyError, IndexError, AttributeError, RuntimeError, ValueError, TypeError),
    *(OverflowError, ZeroDivisionError, MemoryError, SystemError, NotImplementedError, AssertionError),
)
MAX_CHUNKS = 1 << 22  # per dataset, which bounds the memory of the list of chunks


def load_h5py() -> Any:
    """Import h5py with the search for filter plugins disabled, unless the user has configured it."""
    os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")  # read by libhdf5 when it is loaded; "::" disables the search
    import h5py

    return h5py


def h5py_lock() -> Any:
    """Return the lock, reentrant, that h5py's calls of libhdf5 take."""
    return load_h5py()._objects.phil


@dataclass(frozen=True)
class ChunkPlace:
    """Where one chunk is: `offset` and `size` in bytes; bit i of `mask` is set if filter i was skipped."""

    offset: int
    size: int
    mask: int


def open_dataset(file: Any, name: str) -> Any:
    """Open the dataset `name` of an HDF5 file, following only hard links, and check it.

    Raises:
        ShardsError: the dataset does not exist, or its path contains a soft or external link; also as `check_dataset`.
    """
    dataset = open_object(file, name)
    check_dataset(dataset)
    return dataset


def open_object(file: Any, name: str) -> Any:
    """Open the group or dataset `name` of an HDF5 file, following only hard links.

    Raises:
        ShardsError: the object does not exist, or its path contains a soft or external link.
    """
    import h5py

    found, path = file, ""
    for part in (part for part in name.split("/") if part not in ("", ".")):  # as libhdf5 parses a path
        path += "/" + part
        try:
            link = found.get(part, getlink=True) if isinstance(found, h5py.Group) else None
        except HDF5_ERRORS as error:
            raise CorruptShardError(f"'{file.filename}' is damaged at '{path}': {error}; restore the file") from error
        if link is None:
            raise ShardsError(f"'{file.filename}' has no '{path}'; it has {_list_names(found)}")
        if isinstance(link, h5py.ExternalLink):
            raise ShardsError(
                f"'{path}' in '{file.filename}' is an external link to '{link.path}' in the file '{link.filename}', "
                "which is not followed; pass that file instead"
            )
        if isinstance(link, h5py.SoftLink):
            raise ShardsError(
                f"'{path}' in '{file.filename}' is a soft link to '{link.path}', which is not followed; name its "
                "target instead"
            )
        try:
            found = found[part]
        except HDF5_ERRORS as error:
            raise CorruptShardError(f"'{file.filename}' is damaged at '{path}': {error}; restore the file") from error
    return found


def _list_names(group: Any) -> str:
    names = sorted(group)[:10] if hasattr(group, "keys") else []
    return ", ".join(f"'{name}'" for name in names) if names else "no objects there"


def check_dataset(dataset: Any) -> None:
    """Check that an h5py dataset is plain numbers stored completely in its own file.

    It may be contiguous or chunked, of one or two dimensions, and use the filters in `FILTERS`.

    Raises:
        ShardsError: it is not a dataset, its values are in other files, or its type, shape, layout or a filter is
            unsupported.
        CorruptShardError: its bytes are incomplete, outside the file or overlap.
    """
    check_contents(dataset)
    _check_bits(dataset, _where(dataset))
    _check_layout(dataset)
    _check_filters(dataset, _where(dataset))
    _check_places(dataset, _where(dataset))


def check_contents(dataset: Any) -> None:
    """Check that the values of an h5py dataset are plain numbers in its own file; enough if libhdf5 reads them.

    Raises:
        ShardsError: it is not a dataset, its values are in other files, or its type or shape is unsupported.
    """
    check_storage(dataset)
    _check_type(dataset, _where(dataset))


def _where(dataset: Any) -> str:
    return f"'{dataset.name}' in '{dataset.file.filename}'"


def check_storage(dataset: Any) -> None:
    """Check that the values of an h5py dataset are in its own file.

    Raises:
        ShardsError: it is not a dataset, is virtual, or has external storage.
    """
    import h5py

    where = _where(dataset)
    if not isinstance(dataset, h5py.Dataset):
        raise ShardsError(f"{where} is not a dataset; name a dataset")
    properties = dataset.id.get_create_plist()
    kind = properties.get_layout()
    if kind == h5py.h5d.VIRTUAL:
        raise ShardsError(f"{where} is a virtual dataset, composed of other files; pass those files instead")
    if properties.get_external_count():
        name = properties.get_external(0)[0].decode(errors="replace")
        raise ShardsError(f"{where} keeps its values in the external file '{name}'; store them in the file itself")


def _check_layout(dataset: Any) -> None:
    """Check that the values are contiguous or chunked, at offsets that are those of the file."""
    import h5py

    if dataset.id.get_create_plist().get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise ShardsError(
            f"{_where(dataset)} is a compact dataset, stored within HDF5 metadata; store it contiguous or chunked"
        )
    if dataset.file.userblock_size:
        raise ShardsError(
            f"'{dataset.file.filename}' begins with a user block of {dataset.file.userblock_size:,} bytes; "
            "remove it with h5unjam"
        )


def _check_type(dataset: Any, where: str) -> None:
    import h5py

    kind = dataset.id.get_type()
    if isinstance(kind, h5py.h5t.TypeVlenID) or (isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()):
        raise ShardsError(f"{where} has values of variable length; only plain numbers can be read")
    if isinstance(kind, h5py.h5t.TypeReferenceID):
        raise ShardsError(f"{where} holds references to objects; only plain numbers can be read")
    plain = isinstance(kind, h5py.h5t.TypeIntegerID | h5py.h5t.TypeFloatID)
    if not plain or dataset.dtype.kind not in "iuf" or dataset.dtype.itemsize not in (1, 2, 4, 8):
        raise ShardsError(f"{where} has the type {dataset.dtype}; only plain numbers of at most 8 bytes can be read")
    if dataset.shape is None or len(dataset.shape) not in (1, 2):
        raise ShardsError(
            f"{where} has the shape {dataset.shape}; one or two dimensions can be "
            "read; store it as (rows, columns), or (rows,)"
        )


def _check_bits(dataset: Any, where: str) -> None:
    """Check that the bits of the numbers in the file are those of the NumPy type that h5py reports.

    HDF5 also has, for example, 12-bit integers that start at bit 4, and floats with exponents of any width; libhdf5
    converts them, but their raw bytes would be read as other numbers.
    """
    import h5py

    if dataset.id.get_type() != h5py.h5t.py_create(dataset.dtype):
        raise ShardsError(
            f"{where} has numbers in a non-standard format (of {dataset.id.get_type().get_precision()} bits) that "
            f"differs from {dataset.dtype}; only plain numbers can be read"
        )


def _check_filters(dataset: Any, where: str) -> None:
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(number)
        if code not in FILTERS:
            raise ShardsError(
                f"{where} has the filter {code} ({name.decode(errors='replace')[:60]!r}), which is unsupported; "
                f"supported are {', '.join(FILTERS.values())}"
            )


def _check_places(dataset: Any, where: str) -> None:
    """Check that all chunks were written, are within the file and do not overlap."""
    size, itemsize = math.prod(dataset.shape), dataset.dtype.itemsize
    if not size:
        return
    end = os.stat(dataset.file.filename).st_size
    if size * itemsize >= 1 << 63:
        raise CorruptShardError(f"{where} declares {size:,} values, more than a file can hold")
    places, needed = chunk_places(dataset), None
    if dataset.chunks is None:
        count, needed = 1, size * itemsize
    else:
        count = math.prod(-(-n // m) for n, m in zip(dataset.shape, dataset.chunks, strict=True))
        if not dataset.id.get_create_plist().get_nfilters():
            needed = math.prod(dataset.chunks) * itemsize
    if len(places) != count:
        raise CorruptShardError(
            f"{where} declares {size:,} values in {count:,} pieces, {len(places):,} of which are in the file; the rest "
            "were never written"
        )
    free = 0  # the first byte after the pieces so far
    for place in sorted(places, key=lambda place: place.offset):
        if needed is not None and place.size != needed:
            raise CorruptShardError(f"{where} has a piece of {place.size:,} bytes, expected {needed:,}")
        if place.offset + place.size > end:
            raise CorruptShardError(
                f"{where} is outside the file: bytes [{place.offset:,}, {place.offset + place.size:,}) of {end:,}"
            )
        if place.offset < free:
            raise CorruptShardError(f"{where} has pieces that overlap at byte {place.offset:,}")
        free = place.offset + place.size


def chunk_places(dataset: Any) -> list[ChunkPlace]:
    """Return where the chunks of an h5py dataset are, in row-major order; contiguous values are one piece.

    Raises:
        ShardsError: there are more than `MAX_CHUNKS`.
    """
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        return [] if offset is None else [ChunkPlace(offset, dataset.id.get_storage_size(), 0)]
    count = dataset.id.get_num_chunks()
    if count > MAX_CHUNKS:
        raise ShardsError(
            f"'{dataset.name}' in '{dataset.file.filename}' has {count:,} chunks, supported are at most "
            f"{MAX_CHUNKS:,}; store it with larger chunks (h5repack -l)"
        )
    chunks: list[Any] = []
    if count:
        dataset.id.chunk_iter(chunks.append)
    chunks.sort(key=lambda chunk: chunk.chunk_offset)
    return [ChunkPlace(chunk.byte_offset, chunk.size, chunk.filter_mask) for chunk in chunks]


def filter_names(dataset: Any) -> tuple[str, ...]:
    """Return the filters of a checked dataset, in the order in which a writer applies them."""
    properties = dataset.id.get_create_plist()
    return tuple(FILTERS[properties.get_filter(number)[0]] for number in range(properties.get_nfilters()))


def open_untrusted(path: Path) -> Any:
    """Open an HDF5 file for reading.

    Raises:
        ShardsError: the file is missing or cannot be read.
        CorruptShardError: it is not an HDF5 file.
    """
    h5py = load_h5py()
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ShardsError(f"'{path}' cannot be read: {error.strerror}; check the path and the permissions") from error
    while True:
        try:
            return h5py.File(path, "r")
        except HDF5_ERRORS as error:
            if getattr(error, "errno", None) == errno.EINTR:  # libhdf5 does not try again by itself
                continue
            raise CorruptShardError(f"'{path}' is not an HDF5 file, or is damaged ({error})") from error
