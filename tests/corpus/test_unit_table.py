"""A table of units is the sequence of its units, at 64 bytes each."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from shardtrain.corpus.records import MAX_RECORD
from shardtrain.corpus.source import Unit
from shardtrain.corpus.unit_table import UnitTable

FAR = (1 << 40) + 3
CUTS = np.array(
    [
        [0, 7, 2, 0, 7],
        [0, (1 << 32) + 5, 9, 1, (1 << 32) + 5],
        [0, FAR, 1 << 34, 1 << 33, FAR],
        [0, FAR + 50, 0, (1 << 33) + 2, FAR + 50],
        [1, 40, 0, (1 << 33) + 2, 40],  # a file without records
        [2, 0, 1, (1 << 33) + 2, 0],
        [2, 10, 0, (1 << 33) + 5, 10],
    ]
)


def test_units_lie_between_the_cuts_of_a_file() -> None:
    units = UnitTable.between(CUTS)
    assert [(unit.index, unit.file, unit.start, unit.stop, unit.first_line) for unit in units] == [
        (0, 0, 7, (1 << 32) + 5, 2),
        (1, 0, (1 << 32) + 5, FAR, 9),
        (2, 0, FAR, FAR + 50, 1 << 34),
        (3, 2, 0, 10, 1),
    ]
    assert [(unit.first_document, unit.num_documents, unit.num_bytes) for unit in units] == [
        (0, 1, (1 << 32) - 2),
        (1, (1 << 33) - 1, FAR - (1 << 32) - 5),
        (1 << 33, 2, 50),
        ((1 << 33) + 2, 3, 10),
    ]
    assert all(type(value) is int for unit in units for value in vars(unit).values())


def test_columns_are_the_fields_of_all_units() -> None:
    units = UnitTable.between(CUTS)
    for name in ("file", "first_document", "num_documents", "num_bytes", "num_text_bytes"):
        assert getattr(units, name).tolist() == [getattr(unit, name) for unit in units]
    assert units[0].num_bytes > MAX_RECORD
    assert units.num_text_bytes[0] == 0  # its only record is too long


def test_a_table_is_a_sequence_whose_slices_are_tables() -> None:
    units = UnitTable.between(CUTS)
    assert list(units) == [units[number] for number in range(4)]
    assert (units[-1], units[1:3][0], list(units[::2])) == (units[3], units[1], [units[0], units[2]])
    assert isinstance(units[1:3], UnitTable)
    assert np.shares_memory(units[1:3].values, units.values)
    assert units[2] in units
    assert len(UnitTable.between(CUTS[:0])) == len(UnitTable.between(CUTS[:1])) == 0
    with pytest.raises(IndexError):
        units[4]


def test_a_part_of_a_table_is_pickled_without_the_rest() -> None:
    units = UnitTable.between(np.repeat(CUTS[:1], 10_001, axis=0))
    sent = pickle.dumps(units[500:504])
    assert len(sent) < 1_000
    assert list(pickle.loads(sent)) == list(units[500:504])
    assert isinstance(pickle.loads(pickle.dumps(units[3])), Unit)
