"""Hold the units of a source as one array, and make each when it is asked for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.corpus.records import MAX_RECORD
from shardtrain.corpus.source import Unit

_COLUMNS = [each.name for each in fields(Unit) if each.name != "index"]


@dataclass(frozen=True, eq=False)
class UnitTable(Sequence[Unit]):
    """Units of a source, in its order; `rows` are their values but the index, (units, 7) int64."""

    rows: npt.NDArray[np.int64]

    @classmethod
    def of(cls, units: Iterable[Unit]) -> UnitTable:
        """Make the table of some units."""
        rows = [astuple(unit)[1:] for unit in units]
        return cls(np.array(rows, np.int64).reshape(len(rows), len(_COLUMNS)))

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return Unit(index=index, **dict(zip(_COLUMNS, self.rows[index].tolist(), strict=True)))

    def column(self, name: str) -> npt.NDArray[np.int64]:
        """Return a value of all units, (units,)."""
        return self.rows[:, _COLUMNS.index(name)]

    @property
    def num_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of each unit."""
        return self.column("num_bytes")

    @property
    def num_text_bytes(self) -> npt.NDArray[np.int64]:
        """Bytes of each unit that can become texts."""
        too_long = (self.column("num_documents") == 1) & (self.num_bytes > MAX_RECORD)
        return np.where(too_long, 0, self.num_bytes)

    def of_document(self, ordinal: int) -> int:
        """Return the index of the unit with a record."""
        return int(np.searchsorted(self.column("first_document"), ordinal, side="right")) - 1
