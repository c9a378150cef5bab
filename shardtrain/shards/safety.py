"""Whether an HDF5 dataset is what it seems: plain numbers whose bytes lie in this very file, all of them.

libhdf5 follows what a file says: to other files (links, external storage, virtual datasets), to plugins on the disk
(unknown filters), to gigabytes that were never written. Whoever hands values of a file to others asks here first.
Every link on the way is looked at before it is followed; nothing of a dataset's values is read. The cost is that
some honest datasets are refused: strings, compact ones, and those whose chunks were not all written.
"""

from __future__ import annotations

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
}  # the registered numbers of the filters that this package decodes itself
MAX_CHUNKS = 1 << 22  # of one dataset; a list of more is not worth having


def load_h5py() -> Any:
    """The module h5py, with the search for filter plugins switched off unless the user has set it up."""
    os.environ.setdefault("HDF5_PLUGIN_PRELOAD", "::")  # read by libhdf5 when it starts; "::" loads none
    import h5py

    return h5py


@dataclass(frozen=True)
class ChunkPlace:
    """Where one chunk lies: `offset` and `size` in bytes of the file; bit i of `mask`: filter i was left out."""

    offset: int
    size: int
    mask: int


def open_dataset(file: Any, name: str) -> Any:
    """The dataset `name` of an open HDF5 file, reached over hard links alone, and checked.

    Raises:
        ShardsError: there is no such dataset, or a link on the way leads elsewhere; else as `check_dataset`.
    """
    dataset = open_object(file, name)
    check_dataset(dataset)
    return dataset


def open_object(file: Any, name: str) -> Any:
    """The group or dataset `name` of an open HDF5 file, reached over hard links alone.

    Raises:
        ShardsError: there is no such object, or a link on the way leads elsewhere.
    """
    import h5py

    where, place = file, ""
    for part in (part for part in name.split("/") if part not in ("", ".")):  # as libhdf5 reads a path
        place += "/" + part
        try:
            link = where.get(part, getlink=True) if isinstance(where, h5py.Group) else None
        except (RuntimeError, ValueError, OSError) as error:
            raise CorruptShardError(f"'{file.filename}' is damaged at '{place}': {error}; restore the file") from error
        if link is None:
            raise ShardsError(f"'{file.filename}' has no '{place}'; it has {_listed(where)}")
        if isinstance(link, h5py.ExternalLink):
            raise ShardsError(
                f"'{place}' in '{file.filename}' is an external link to '{link.path}' in the file '{link.filename}', "
                "which is not followed; name that file itself"
            )
        if isinstance(link, h5py.SoftLink):
            raise ShardsError(
                f"'{place}' in '{file.filename}' is a soft link to '{link.path}', which is not followed; name what it "
                "leads to"
            )
        try:
            where = where[part]
        except (KeyError, RuntimeError, ValueError, OSError, TypeError) as error:
            raise CorruptShardError(f"'{file.filename}' is damaged at '{place}': {error}; restore the file") from error
    return where


def _listed(group: Any) -> str:
    names = sorted(group)[:10] if hasattr(group, "keys") else []
    return ", ".join(f"'{name}'" for name in names) if names else "nothing there"


def check_dataset(dataset: Any) -> None:
    """Refuse an h5py dataset that is not plain numbers stored whole in its own file.

    It may be contiguous or chunked, of one or two dimensions, and pass through the filters in `FILTERS`.

    Raises:
        ShardsError: it is no dataset, its values lie in other files, its type is no plain number, or a filter is not
            known.
        CorruptShardError: its bytes are not all there, lie outside the file or over each other.
    """
    check_contents(dataset)
    _check_bits(dataset, _where(dataset))
    _check_layout(dataset)
    _check_filters(dataset, _where(dataset))
    _check_places(dataset, _where(dataset))


def check_contents(dataset: Any) -> None:
    """Refuse an h5py dataset whose values are no plain numbers, or not in its own file; for values that libhdf5 reads.

    Raises:
        ShardsError: it is no dataset, its values lie in other files, or its type is no plain number.
    """
    check_storage(dataset)
    _check_type(dataset, _where(dataset))


def _where(dataset: Any) -> str:
    return f"'{dataset.name}' in '{dataset.file.filename}'"


def check_storage(dataset: Any) -> None:
    """Refuse an h5py dataset whose values lie in other files.

    Raises:
        ShardsError: it is no dataset, is virtual, or has external storage.
    """
    import h5py

    where = _where(dataset)
    if not isinstance(dataset, h5py.Dataset):
        raise ShardsError(f"{where} is no dataset; name one")
    properties = dataset.id.get_create_plist()
    kind = properties.get_layout()
    if kind == h5py.h5d.VIRTUAL:
        raise ShardsError(f"{where} is a virtual dataset, made of other files; name these files")
    if properties.get_external_count():
        name = properties.get_external(0)[0].decode(errors="replace")
        raise ShardsError(f"{where} keeps its values in the external file '{name}'")


def _check_layout(dataset: Any) -> None:
    """Storage whose bytes have a place in the file."""
    import h5py

    if dataset.id.get_create_plist().get_layout() not in (h5py.h5d.CONTIGUOUS, h5py.h5d.CHUNKED):
        raise ShardsError(
            f"{_where(dataset)} is a compact dataset, which has no place of its own in the file; store it chunked"
        )
    if dataset.file.userblock_size:
        raise ShardsError(
            f"'{dataset.file.filename}' begins with a user block of {dataset.file.userblock_size:,} bytes; "
            "take it off with h5unjam"
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
        raise ShardsError(f"{where} has the shape {dataset.shape}; one or two dimensions can be read")


def _check_bits(dataset: Any, where: str) -> None:
    """Numbers whose bits in the file are those of the NumPy type that h5py gives them.

    HDF5 also has integers of 12 bits that begin at the fourth, and floats with an exponent of any width; libhdf5
    converts them, but their bytes taken as they lie would be other numbers.
    """
    import h5py

    if dataset.id.get_type() != h5py.h5t.py_create(dataset.dtype):
        raise ShardsError(
            f"{where} has numbers in a form of its own (of {dataset.id.get_type().get_precision()} bits), other than "
            f"{dataset.dtype} in the same bytes; only plain numbers can be read"
        )


def _check_filters(dataset: Any, where: str) -> None:
    properties = dataset.id.get_create_plist()
    for number in range(properties.get_nfilters()):
        code, _, _, name = properties.get_filter(number)
        if code not in FILTERS:
            raise ShardsError(
                f"{where} passes through the filter {code} ({name.decode(errors='replace')[:60]!r}), which is not "
                f"known; known are {', '.join(FILTERS.values())}"
            )


def _check_places(dataset: Any, where: str) -> None:
    """The bytes: all there, in the file, each belonging to one chunk."""
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
            f"{where} declares {size:,} values in {count:,} pieces, {len(places):,} of which are in the file; the "
            "others were never written"
        )
    before = 0
    for place in sorted(places, key=lambda place: place.offset):
        if needed is not None and place.size != needed:
            raise CorruptShardError(f"{where} has a piece of {place.size:,} bytes that should have {needed:,}")
        if place.offset + place.size > end:
            raise CorruptShardError(
                f"{where} lies outside the file: bytes [{place.offset:,}, {place.offset + place.size:,}) of {end:,}"
            )
        if place.offset < before:
            raise CorruptShardError(f"{where} has pieces that lie over each other at byte {place.offset:,}")
        before = place.offset + place.size


def chunk_places(dataset: Any) -> list[ChunkPlace]:
    """Where the chunks of an h5py dataset lie, in row-major order; of a contiguous one, its values as one piece.

    Raises:
        ShardsError: there are more than `MAX_CHUNKS`.
    """
    if dataset.chunks is None:
        offset = dataset.id.get_offset()
        return [] if offset is None else [ChunkPlace(offset, dataset.id.get_storage_size(), 0)]
    count = dataset.id.get_num_chunks()
    if count > MAX_CHUNKS:
        raise ShardsError(
            f"'{dataset.name}' in '{dataset.file.filename}' has {count:,} chunks, at most {MAX_CHUNKS:,} can be used; "
            "store it with larger chunks (h5repack -l)"
        )
    chunks: list[Any] = []
    if count:
        dataset.id.chunk_iter(chunks.append)
    chunks.sort(key=lambda chunk: chunk.chunk_offset)
    return [ChunkPlace(chunk.byte_offset, chunk.size, chunk.filter_mask) for chunk in chunks]


def filter_names(dataset: Any) -> tuple[str, ...]:
    """The filters of a checked dataset, in the order in which a writer applies them."""
    properties = dataset.id.get_create_plist()
    return tuple(FILTERS[properties.get_filter(number)[0]] for number in range(properties.get_nfilters()))


def open_untrusted(path: Path) -> Any:
    """Open an HDF5 file for reading.

    Raises:
        ShardsError: it is missing or cannot be read.
        CorruptShardError: it is no HDF5 file.
    """
    h5py = load_h5py()
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise ShardsError(f"'{path}' cannot be read: {error.strerror}; check the path and the permissions") from error
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError, ValueError) as error:
        raise CorruptShardError(f"'{path}' is not an HDF5 file, or is damaged ({error})") from error
