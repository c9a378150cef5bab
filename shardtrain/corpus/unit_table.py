"""The units of a source as one array, which makes `Unit`s when they are asked for.

A corpus of 10 TB has millions of units. A row of the array is 64 bytes, an object several times that; questions about
all units are asked of the columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from shardtrain.corpus.source import Unit, text_bytes

Column = npt.NDArray[np.int64]

_FIELDS = ("index", "file", "start", "stop", "first_line", "first_document", "num_documents", "num_bytes")
_AT_ONCE = 1 << 10  # units made at a time while they are iterated over


@dataclass(frozen=True, eq=False)
class UnitTable(Sequence[Unit]):
    """Units in their order; picklable, and a slice is one as well, which copies nothing.

    Attributes:
        values: (num_units, 8) the fields of `Unit`, in their order.
    """

    values: npt.NDArray[np.int64]

    @classmethod
    def between(cls, cuts: npt.NDArray[np.int64]) -> UnitTable:
        """Return the units that lie between neighbouring cuts of the same file.

        Args:
            cuts: (num_cuts, 5) file, start, first line, first document and bytes before it of each unit; after those
                of a file, a cut where it ends.
        """
        first = np.flatnonzero(cuts[:-1, 0] == cuts[1:, 0])
        values = np.empty((len(first), len(_FIELDS)), np.int64)
        values[:, 0] = np.arange(len(first))
        for column, of_cut in ((1, 0), (2, 1), (4, 2), (5, 3)):
            values[:, column] = cuts[first, of_cut]
        values[:, 3] = cuts[first + 1, 1]
        for column, of_cut in ((6, 3), (7, 4)):
            values[:, column] = cuts[first + 1, of_cut] - cuts[first, of_cut]
        return cls(values)

    def __len__(self) -> int:
        return len(self.values)

    @overload
    def __getitem__(self, chosen: int) -> Unit: ...

    @overload
    def __getitem__(self, chosen: slice) -> UnitTable: ...

    def __getitem__(self, chosen: int | slice) -> Unit | UnitTable:
        """Return a unit, or the table of some neighbouring ones, with their indices in the whole.

        Raises:
            IndexError: there is no such unit.
        """
        return UnitTable(self.values[chosen]) if isinstance(chosen, slice) else _unit(self.values[chosen].tolist())

    def __iter__(self) -> Iterator[Unit]:
        for start in range(0, len(self), _AT_ONCE):
            yield from map(_unit, self.values[start : start + _AT_ONCE].tolist())

    @property
    def file(self) -> Column:
        """Index of each unit's file."""
        return self.values[:, 1]

    @property
    def first_document(self) -> Column:
        """Ordinal of each unit's first record."""
        return self.values[:, 5]

    @property
    def num_documents(self) -> Column:
        """Number of each unit's records."""
        return self.values[:, 6]

    @property
    def num_bytes(self) -> Column:
        """Size of each unit's records or files."""
        return self.values[:, 7]

    @property
    def num_text_bytes(self) -> Column:
        """Bytes of each unit that can become texts."""
        return text_bytes(self.num_documents, self.num_bytes)


def _unit(values: list[int]) -> Unit:
    return Unit(**dict(zip(_FIELDS, values, strict=True)))
