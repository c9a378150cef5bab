"""Texts of many documents as one array of UTF-8 bytes, so that kernels read them without one Python string each.

`Texts` is also a sequence of strings; each access decodes one. Lone surrogates, which Python strings may hold, are
stored as three bytes each, as the error handler "surrogatepass" writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.kernels import inlined_kernel, kernel

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


class Texts(Sequence[str]):
    """A sequence of documents.

    Attributes:
        data: UTF-8 bytes of all documents, (bytes,) uint8.
        offsets: document d is bytes [offsets[d], offsets[d + 1]), (documents + 1,) int64; `offsets[0]` is 0.
    """

    def __init__(self, data: Bytes, offsets: Offsets) -> None:
        self.data = data
        self.offsets = offsets

    @classmethod
    def from_strings(cls, texts: Iterable[str]) -> Texts:
        """Encode strings; `Texts` are returned as they are."""
        if isinstance(texts, Texts):
            return texts
        return cls.from_utf8([text.encode("utf-8", "surrogatepass") for text in texts])

    @classmethod
    def from_utf8(cls, encoded: Sequence[bytes]) -> Texts:
        """Concatenate documents given as UTF-8."""
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    @classmethod
    def concatenated(cls, parts: Sequence[Texts]) -> Texts:
        """Concatenate the documents of all parts."""
        sizes = np.concatenate([np.zeros(1, np.int64), *(np.diff(texts.offsets) for texts in parts)])
        return cls(np.concatenate([np.empty(0, np.uint8), *(texts.data for texts in parts)]), np.cumsum(sizes))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> Texts: ...
    def __getitem__(self, index: int | slice) -> str | Texts:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                return self.take(np.arange(start, stop, step))
            stop = max(start, stop)
            first, last = self.offsets[start], self.offsets[stop]
            return Texts(self.data[first:last], self.offsets[start : stop + 1] - first)
        document = range(len(self))[index]
        encoded = self.data[self.offsets[document] : self.offsets[document + 1]]
        return encoded.tobytes().decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Texts of {len(self):,} documents, {len(self.data):,} bytes"

    def to_list(self) -> list[str]:
        """Decode all documents at once, which is several times as fast as one after the other."""
        encoded, places = self.data.tobytes(), self.offsets
        if not encoded.isascii():
            starts = np.zeros(len(encoded) + 1, np.int64)  # characters that begin before each byte
            np.cumsum(self.data & 0xC0 != 0x80, out=starts[1:])
            places = starts[self.offsets]
        content = encoded.decode("utf-8", "surrogatepass")
        return [content[start:stop] for start, stop in pairwise(places.tolist())]

    def take(self, chosen: npt.NDArray[np.int64]) -> Texts:
        """Return the documents with these indices, in the given order."""
        if len(chosen) == len(self) and np.array_equal(chosen, np.arange(len(self))):
            return self
        return Texts(*_take(self.data, self.offsets, chosen))


@kernel
def _take(data, offsets, chosen):  # type: ignore[no-untyped-def]
    # Document i of the result is out[out_offsets[i] : out_offsets[i + 1]].
    out_offsets = np.zeros(len(chosen) + 1, np.int64)
    for i in range(len(chosen)):
        out_offsets[i + 1] = out_offsets[i] + offsets[chosen[i] + 1] - offsets[chosen[i]]
    out = np.empty(out_offsets[-1], np.uint8)
    for i in range(len(chosen)):
        copy_bytes(data, offsets[chosen[i]], offsets[chosen[i] + 1], out, out_offsets[i])
    return out, out_offsets


@inlined_kernel
def copy_bytes(data: Any, start: Any, stop: Any, out: Any, place: Any) -> Any:
    """Copy bytes [start, stop) of `data` into `out` from `place` on; return the place after them.

    A loop, because slices that are assigned take numba two seconds to compile.
    """
    for i in range(start, stop):
        out[place] = data[i]
        place += 1
    return place
