"""HDF5's filters without HDF5: what a chunk's bytes mean, and chunks that any HDF5 tool with the filter reads.

Filters have registered numbers and frozen formats, so decoding them here gives the same bytes as libhdf5, but in any
number of threads: libhdf5 decodes under one lock. Encoders run in one thread with fixed settings, so that equal values
give equal bytes. zstd, lz4 and blosc2 need their bindings, an extra; the others need what is there anyway.
"""

from __future__ import annotations

import importlib
import threading
import zlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import CorruptShardError, MissingExtraError
from shardtrain.shards.safety import load_h5py

PIPELINES = {"zstd": ("shuffle", "zstd"), "lz4": ("shuffle", "lz4"), "blosc2": ("blosc2",)}
MODULES = {"zstd": "zstandard", "lz4": "lz4.block", "blosc2": "blosc2"}
ZSTD_LEVEL = 3  # zstd's own default; higher levels cost far more time than they save space on features
BLOSC2_LEVEL = 1  # with zstd inside; 5 takes ten times as long here and saves one part in fifty
_WORDS = 1 << 16  # of 16 bits that are summed at a time, so that sums stay below 2**64
BLOSC2_BLOCK = 1 << 15  # fixed, because blosc2 would choose it by the processor's caches

Bytes = npt.NDArray[np.uint8]
Decoder = Callable[[Any, int, int], Any]  # raw bytes, size of an item, most bytes that may come out -> bytes

_local = threading.local()


def codec_module(codec: str) -> ModuleType:
    """The binding of a codec.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module(MODULES[codec])
    except ImportError as error:
        raise MissingExtraError(
            f"these shards are compressed with {codec}, which needs the package '{MODULES[codec].split('.')[0]}'; "
            "install it with `pip install 'shardtrain[compress]'`"
        ) from error


def load_plugins() -> bool:
    """Let libhdf5 have the filters of hdf5plugin, and no others; whether that is installed."""
    load_h5py()  # first: it switches the search for plugins off
    try:
        import hdf5plugin  # noqa: F401 - registers them
    except ImportError:
        return False
    return True


def decode_chunk(raw: Any, filters: tuple[str, ...], mask: int, itemsize: int, size: int) -> Bytes:
    """The values of a stored chunk as bytes, (size,); filter i is skipped where bit i of `mask` is set.

    Raises:
        CorruptShardError: something else comes out than `size` bytes.
        MissingExtraError: a codec is not installed.
    """
    content = raw
    for number in reversed(range(len(filters))):
        if not mask >> number & 1:
            name = filters[number]
            try:
                content = _DECODERS[name](content, itemsize, size)
            except (ValueError, RuntimeError, zlib.error, IndexError, OverflowError) as error:
                raise CorruptShardError(f"a chunk is not what {name} wrote: {error}") from error
    values = np.frombuffer(content, np.uint8)
    if len(values) != size:
        raise CorruptShardError(f"a chunk holds {len(values):,} bytes that should hold {size:,}")
    return values


def encode_chunk(codec: str, values: npt.NDArray[Any]) -> bytes:
    """The bytes of a chunk, whole and contiguous, as the filters in `PIPELINES` write them."""
    if codec == "blosc2":
        return _encode_blosc2(values)
    shuffled = np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T)
    return _encode_zstd(shuffled) if codec == "zstd" else _encode_lz4(shuffled)


def filter_options(codec: str, itemsize: int) -> list[tuple[int, tuple[int, ...]]]:
    """Numbers and options of a codec's HDF5 filters, in order, for a dataset's creation properties."""
    options: dict[str, list[tuple[int, tuple[int, ...]]]] = {
        "zstd": [(2, (itemsize,)), (32015, (ZSTD_LEVEL,))],
        "lz4": [(2, (itemsize,)), (32004, (0,))],
        "blosc2": [(32026, (0, 0, 0, 0, BLOSC2_LEVEL, 1, 5))],  # shuffled, zstd inside; the plugin fills in the sizes
    }
    return options[codec]


def _unshuffle(raw: Any, itemsize: int, size: int) -> Bytes:
    """Bytes of equal place, which lie together, back to their items."""
    planes = np.frombuffer(raw, np.uint8)
    if itemsize == 1:
        return planes
    count = len(planes) // itemsize
    items = np.empty(len(planes), np.uint8)
    by_place, by_item = (
        planes[: count * itemsize].reshape(itemsize, count),
        items[: count * itemsize].reshape(count, -1),
    )
    for place in range(itemsize):  # three times as fast as a transposed copy
        by_item[:, place] = by_place[place]
    items[count * itemsize :] = planes[count * itemsize :]
    return items


def _inflate(raw: Any, itemsize: int, size: int) -> bytes:
    inflater = zlib.decompressobj()
    content = inflater.decompress(raw, size + 4)  # four more: what fletcher32 may have put behind the values
    if not inflater.eof:  # so its own checksum, at the end, was not compared
        raise ValueError("its stream does not end where it should")
    return content


def _without_fletcher32(raw: Any, itemsize: int, size: int) -> Bytes:
    """The values before the checksum, which is the only one when somebody else's file is indexed."""
    content = np.frombuffer(raw, np.uint8)
    values, stored = content[:-4], content[-4:].tobytes()
    found = _fletcher32(values)
    # HDF5 1.6.2 and older may have swapped the bytes of each half, and libhdf5 takes both
    if not any(found == _halves(each) for each in (stored, stored[1::-1] + stored[:1:-1])):
        raise ValueError("its checksum differs")
    return values


def _halves(stored: bytes) -> tuple[int, int]:
    """Both sums of a checksum, modulo 65,535 because libhdf5 writes 0 also as 65,535."""
    return int.from_bytes(stored[:2], "little") % 65_535, int.from_bytes(stored[2:], "little") % 65_535


def _fletcher32(values: Bytes) -> tuple[int, int]:
    """The sum of 16-bit words, big-endian, and that of its partial sums, modulo 65,535 (Fletcher 1982, as in HDF5)."""
    words = (np.append(values, np.uint8(0)) if len(values) % 2 else values).view(">u2")
    first = second = 0
    for start in range(0, len(words), _WORDS):
        part = words[start : start + _WORDS].astype(np.uint64)
        weighted = int(part @ np.arange(len(part), 0, -1, dtype=np.uint64))
        second = (second + first * len(part) + weighted) % 65_535
        first = (first + int(part.sum())) % 65_535
    return first, second


def _decode_lzf(raw: Any, itemsize: int, size: int) -> Bytes:
    from shardtrain.shards.lzf import decompress

    out = np.empty(size + 4, np.uint8)
    length = int(decompress(np.frombuffer(raw, np.uint8), out))
    if length < 0:
        raise ValueError("its references lead outside of it")
    return out[:length]


def _decode_zstd(raw: Any, itemsize: int, size: int) -> bytes:
    zstandard = codec_module("zstd")
    if not hasattr(_local, "zstd"):
        _local.zstd = zstandard.ZstdDecompressor()  # one a thread: it keeps tables
    try:
        found = zstandard.frame_content_size(raw)
        if found > size + 4:
            raise ValueError(f"it would hold {found:,} bytes")
        content: bytes = _local.zstd.decompress(raw, max_output_size=size + 4)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return content


def _encode_zstd(values: Bytes) -> bytes:
    zstandard = codec_module("zstd")
    content: bytes = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(values.data.cast("B"))
    return content


def _decode_lz4(raw: Any, itemsize: int, size: int) -> bytes:
    """The filter's own frame: sizes of all and of a block in 8 and 4 bytes, then blocks led by theirs, big-endian."""
    block_module = codec_module("lz4")
    view = memoryview(raw)
    total, block = int.from_bytes(view[:8], "big"), int.from_bytes(view[8:12], "big")
    if total > size + 4 or not block:
        raise ValueError(f"it would hold {total:,} bytes in blocks of {block:,}")
    parts: list[Any] = []
    position = 12
    for start in range(0, total, block):
        length, expected = int.from_bytes(view[position : position + 4], "big"), min(block, total - start)
        content = view[position + 4 : position + 4 + length]
        stored = length == expected  # a block that does not shrink is kept as it is
        try:
            parts.append(content if stored else block_module.decompress(content, uncompressed_size=expected))
        except block_module.LZ4BlockError as error:
            raise ValueError(str(error)) from error
        position += 4 + length
    return b"".join(parts)


def _encode_lz4(values: Bytes) -> bytes:
    size = values.nbytes
    content: bytes = codec_module("lz4").compress(values.data.cast("B"), store_size=False)
    if len(content) >= size:
        content = values.tobytes()
    return size.to_bytes(8, "big") + size.to_bytes(4, "big") + len(content).to_bytes(4, "big") + content


def _decode_blosc2(raw: Any, itemsize: int, size: int) -> bytes:
    blosc2 = codec_module("blosc2")
    content = bytes(raw)
    frame = blosc2.schunk_from_cframe(content, copy=False)
    if frame.nbytes > size + 4:
        raise ValueError(f"it would hold {frame.nbytes:,} bytes")
    if "b2nd" in frame.meta:  # the plugin's own chunks of several dimensions are arrays, in blocks
        return np.ascontiguousarray(blosc2.ndarray_from_cframe(content)[...]).tobytes()
    decoded: bytes = frame.decompress_chunk(0) if frame.nchunks == 1 else frame[:]
    return decoded


def _encode_blosc2(values: npt.NDArray[Any]) -> bytes:
    blosc2 = codec_module("blosc2")
    settings = {
        "codec": blosc2.Codec.ZSTD,
        "clevel": BLOSC2_LEVEL,
        "filters": [blosc2.Filter.SHUFFLE],
        "typesize": values.itemsize,
        "blocksize": min(BLOSC2_BLOCK, values.nbytes) // values.itemsize * values.itemsize,
        "nthreads": 1,
    }
    frame = blosc2.SChunk(
        chunksize=values.nbytes, data=values, contiguous=True, cparams=settings, dparams={"nthreads": 1}
    )
    content: bytes = frame.to_cframe()
    return content


_DECODERS: dict[str, Decoder] = {
    "deflate": _inflate,
    "shuffle": _unshuffle,
    "fletcher32": _without_fletcher32,
    "lzf": _decode_lzf,
    "zstd": _decode_zstd,
    "lz4": _decode_lz4,
    "blosc2": _decode_blosc2,
}
