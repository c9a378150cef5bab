"""Texts of many documents as one array of UTF-8 bytes, so that they pass from reader to kernels without a string each.

It is a sequence of strings to whoever wants strings; making one costs a decoding. Halves of surrogate pairs, which
strings may hold, are kept as three bytes each, as Python's "surrogatepass" writes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import overload

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.kernels import kernel

Bytes = npt.NDArray[np.uint8]
Offsets = npt.NDArray[np.int64]


class Texts(Sequence[str]):
    """Documents in order.

    Attributes:
        data: UTF-8 bytes of all documents, (bytes,) uint8.
        offsets: document d is bytes [offsets[d], offsets[d + 1]), (documents + 1,) int64; `offsets[0]` is 0.
    """

    def __init__(self, data: Bytes, offsets: Offsets) -> None:
        self.data = data
        self.offsets = offsets

    @classmethod
    def of(cls, texts: Iterable[str]) -> Texts:
        """The same documents; those that are `Texts` already as they are."""
        if isinstance(texts, Texts):
            return texts
        return cls.of_bytes([text.encode("utf-8", "surrogatepass") for text in texts])

    @classmethod
    def of_bytes(cls, encoded: Sequence[bytes]) -> Texts:
        """Documents given as UTF-8."""
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, encoded), np.int64, len(encoded)), out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

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
        place = range(len(self))[index]
        piece = self.data[self.offsets[place] : self.offsets[place + 1]]
        return piece.tobytes().decode("utf-8", "surrogatepass")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Texts of {len(self):,} documents, {len(self.data):,} bytes"

    def take(self, chosen: npt.NDArray[np.int64]) -> Texts:
        """Return the documents with these indices, in the order of the indices."""
        if len(chosen) == len(self) and np.array_equal(chosen, np.arange(len(self))):
            return self
        return Texts(*_take(self.data, self.offsets, chosen))


@kernel
def _take(data, offsets, chosen):  # type: ignore[no-untyped-def]
    places = np.zeros(len(chosen) + 1, np.int64)
    for i in range(len(chosen)):
        places[i + 1] = places[i] + offsets[chosen[i] + 1] - offsets[chosen[i]]
    taken = np.empty(places[-1], np.uint8)
    for i in range(len(chosen)):
        taken[places[i] : places[i + 1]] = data[offsets[chosen[i]] : offsets[chosen[i] + 1]]
    return taken, places
