"""Encode and decode chunks with HDF5's filters, without libhdf5.

Filters have registered numbers and frozen formats, so the results equal those of libhdf5, which decodes under one lock,
while these run in any number of threads. Encoders run in one thread with fixed settings, so that equal values give
equal bytes. zstd, lz4 and blosc2 need their bindings, which are an optional extra.
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
ZSTD_LEVEL = 3  # zstd's default; higher levels cost far more time than they save space on features
BLOSC2_LEVEL = 1  # with zstd inside; level 5 takes ten times as long here and saves 2 %
_SUM_WORDS = 1 << 16  # 16-bit words per partial sum, so that sums stay below 2**64
BLOSC2_BLOCK = 1 << 15  # bytes; fixed, because blosc2 would choose it by the processor's caches

Bytes = npt.NDArray[np.uint8]
Decoder = Callable[[Any, int, int], Any]  # raw bytes, item size, decoded size -> bytes; 4 more for a checksum

_local = threading.local()


def codec_module(codec: str) -> ModuleType:
    """Import the Python binding of a codec.

    Raises:
        MissingExtraError: the binding is not installed.
    """
    try:
        return importlib.import_module(MODULES[codec])
    except ImportError as error:
        raise MissingExtraError(
            f"these shards are compressed with {codec}, which needs the package '{MODULES[codec].split('.')[0]}'; "
            "install it with `pip install 'shardtrain[compress]'`"
        ) from error


def load_plugins() -> bool:
    """Register the filters of hdf5plugin, and no others, with libhdf5; return whether it is installed."""
    load_h5py()  # first, as it disables the search for plugins
    try:
        import hdf5plugin  # noqa: F401 - the import registers the filters
    except ImportError:
        return False
    return True


def decode_chunk(raw: Any, filters: tuple[str, ...], mask: int, itemsize: int, size: int) -> Bytes:
    """Decode a stored chunk to its values as bytes, (size,); filter i is skipped if bit i of `mask` is set.

    Raises:
        CorruptShardError: the chunk cannot be decoded, or not to `size` bytes.
        MissingExtraError: a codec is not installed.
    """
    content = raw
    for number in reversed(range(len(filters))):
        if not mask >> number & 1:
            name = filters[number]
            try:
                content = _DECODERS[name](content, itemsize, size)
            except (ValueError, RuntimeError, zlib.error, IndexError, OverflowError) as error:
                raise CorruptShardError(f"a chunk is not valid {name} data: {error}") from error
    values = np.frombuffer(content, np.uint8)
    if len(values) != size:
        raise CorruptShardError(f"a chunk decodes to {len(values):,} bytes, expected {size:,}")
    return values


def encode_chunk(codec: str, values: npt.NDArray[Any]) -> bytes:
    """Encode a full, contiguous chunk with the filters in `PIPELINES`."""
    if codec == "blosc2":
        return _encode_blosc2(values)
    shuffled = np.ascontiguousarray(values.reshape(-1).view(np.uint8).reshape(-1, values.itemsize).T)
    return _encode_zstd(shuffled) if codec == "zstd" else _encode_lz4(shuffled)


def filter_options(codec: str, itemsize: int) -> list[tuple[int, tuple[int, ...]]]:
    """Return numbers and options of a codec's HDF5 filters, in order, for a dataset's creation properties."""
    options: dict[str, list[tuple[int, tuple[int, ...]]]] = {
        "zstd": [(2, (itemsize,)), (32015, (ZSTD_LEVEL,))],
        "lz4": [(2, (itemsize,)), (32004, (0,))],
        "blosc2": [(32026, (0, 0, 0, 0, BLOSC2_LEVEL, 1, 5))],  # shuffle, then zstd; the plugin fills in the sizes
    }
    return options[codec]


def _unshuffle(raw: Any, itemsize: int, size: int) -> Bytes:
    """Transpose byte planes (all first bytes, then all second bytes, ...) back to items."""
    planes = np.frombuffer(raw, np.uint8)
    if itemsize == 1:
        return planes
    count = len(planes) // itemsize
    items = np.empty(len(planes), np.uint8)
    by_plane = planes[: count * itemsize].reshape(itemsize, count)
    by_item = items[: count * itemsize].reshape(count, -1)
    for plane in range(itemsize):  # three times as fast as a transposed copy
        by_item[:, plane] = by_plane[plane]
    items[count * itemsize :] = planes[count * itemsize :]  # the filter does not shuffle an incomplete last item
    return items


def _inflate(raw: Any, itemsize: int, size: int) -> bytes:
    inflater = zlib.decompressobj()
    content = inflater.decompress(raw, size + 4)  # 4 bytes more for a checksum of fletcher32
    if not inflater.eof:  # then zlib has not compared its own checksum at the end
        raise ValueError("the stream is longer than expected")
    return content


def _without_fletcher32(raw: Any, itemsize: int, size: int) -> Bytes:
    """Check and remove the checksum, which is the only one while an external file is being indexed."""
    content = np.frombuffer(raw, np.uint8)
    values, stored = content[:-4], content[-4:].tobytes()
    found = _fletcher32(values)
    # HDF5 1.6.2 and older may have swapped the bytes of each half; libhdf5 accepts both
    if not any(found == _checksum_halves(each) for each in (stored, stored[1::-1] + stored[:1:-1])):
        raise ValueError("its checksum differs")
    return values


def _checksum_halves(stored: bytes) -> tuple[int, int]:
    """Return both sums of a stored checksum, modulo 65,535 because libhdf5 writes 0 also as 65,535."""
    return int.from_bytes(stored[:2], "little") % 65_535, int.from_bytes(stored[2:], "little") % 65_535


def _fletcher32(values: Bytes) -> tuple[int, int]:
    """Sum big-endian 16-bit words, and their partial sums, modulo 65,535 (Fletcher 1982, as in HDF5)."""
    words = (np.append(values, np.uint8(0)) if len(values) % 2 else values).view(">u2")
    first = second = 0
    for start in range(0, len(words), _SUM_WORDS):  # invariant: both sums are those of words [0, start)
        part = words[start : start + _SUM_WORDS].astype(np.uint64)
        weighted = int(part @ np.arange(len(part), 0, -1, dtype=np.uint64))
        second = (second + first * len(part) + weighted) % 65_535
        first = (first + int(part.sum())) % 65_535
    return first, second


def _decode_lzf(raw: Any, itemsize: int, size: int) -> Bytes:
    from shardtrain.shards.lzf import decompress

    out = np.empty(size + 4, np.uint8)
    length = int(decompress(np.frombuffer(raw, np.uint8), out))
    if length < 0:
        raise ValueError("a back-reference or length is out of range")
    return out[:length]


def _decode_zstd(raw: Any, itemsize: int, size: int) -> bytes:
    zstandard = codec_module("zstd")
    if not hasattr(_local, "zstd"):
        _local.zstd = zstandard.ZstdDecompressor()  # one per thread: it keeps tables
    try:
        found = zstandard.frame_content_size(raw)
        if found > size + 4:
            raise ValueError(f"it would decode to {found:,} bytes")
        content: bytes = _local.zstd.decompress(raw, max_output_size=size + 4)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
    return content


def _encode_zstd(values: Bytes) -> bytes:
    zstandard = codec_module("zstd")
    content: bytes = zstandard.ZstdCompressor(level=ZSTD_LEVEL).compress(values.data.cast("B"))
    return content


def _decode_lz4(raw: Any, itemsize: int, size: int) -> bytes:
    """Decode the filter's frame: total size (8 bytes, big-endian), block size (4), then every block after its size."""
    block_module = codec_module("lz4")
    view = memoryview(raw)
    total, block = int.from_bytes(view[:8], "big"), int.from_bytes(view[8:12], "big")
    if total > size + 4 or not block:
        raise ValueError(f"it would decode to {total:,} bytes in blocks of {block:,}")
    parts: list[Any] = []
    position = 12
    for start in range(0, total, block):
        length, expected = int.from_bytes(view[position : position + 4], "big"), min(block, total - start)
        content = view[position + 4 : position + 4 + length]
        stored = length == expected  # a block that does not shrink is stored uncompressed
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
        raise ValueError(f"it would decode to {frame.nbytes:,} bytes")
    if "b2nd" in frame.meta:  # the plugin stores chunks of several dimensions as blocked arrays
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
