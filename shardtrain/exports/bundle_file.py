"""Pack header and arrays into the one file that `bundle_reader` reads; docs/export.md specifies it.

Each array is stored as planes, the first bytes of all items, then all second bytes and so on, because high bytes are
nearly always equal and low ones are not. Each plane is compressed by zlib, which every Python has, with the strategy
that suits it. Ascending arrays are stored as differences. Equal runs give equal bytes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.exports.bundle_reader import HEAD, MAGIC, digest_of

Array = npt.NDArray[Any]

_STRATEGIES = (zlib.Z_DEFAULT_STRATEGY, zlib.Z_FILTERED, zlib.Z_HUFFMAN_ONLY)
_MOST_TRIED = 16 << 20  # bytes of a plane up to which all are tried


def packed(header: Mapping[str, Any], arrays: Mapping[str, Array], version: int) -> bytes:
    """Return the bytes of a bundle.

    Args:
        header: what it says of itself, as JSON values; `sections` are added.
        arrays: its arrays, by name.
        version: of the format that has all of them.
    """
    streams = {name: _compressed(array) for name, array in arrays.items()}
    sections = [
        [name, array.dtype.newbyteorder("<").str, list(array.shape), len(streams[name])]
        for name, array in arrays.items()
    ]
    described = json.dumps({**header, "sections": sections}, separators=(",", ":")).encode()
    body = b"".join([described, *streams.values()])
    size = HEAD.size + len(body)
    digest = digest_of(HEAD.pack(MAGIC, version, len(described), size, b"") + body)
    return HEAD.pack(MAGIC, version, len(described), size, digest) + body


def differences(ascending: Array) -> Array:
    """Return an ascending array as its first item and the differences that follow."""
    return np.diff(ascending, prepend=ascending.dtype.type(0))


def _compressed(array: Array) -> bytes:
    """Return the planes of an array, each a zlib stream."""
    items = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return b"".join(map(_deflated, items.reshape(-1, 1).view(np.uint8).T))


def _deflated(plane: Array) -> bytes:
    """Return the shortest zlib stream of a plane."""
    content = plane.tobytes()
    strategies = _STRATEGIES if len(content) <= _MOST_TRIED else _STRATEGIES[:1]
    streams = [zlib.compressobj(9, zlib.DEFLATED, zlib.MAX_WBITS, 9, strategy) for strategy in strategies]
    return min((stream.compress(content) + stream.flush() for stream in streams), key=len)
