"""Write what was counted in each unit of a corpus to a file, and add it up, reading one file at a time.

A corpus may have nearly as many labels as documents, until it is refused for that; what the units report is therefore
not held for all of them together.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from shardtrain.arrays.scratch import damaged_scratch
from shardtrain.corpus.labels import check_number_of_labels
from shardtrain.corpus.source import BAD_ROW, BadRow
from shardtrain.pipeline.holdout import SPARE, Spare
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.schema import Fields, Integer, Items, Keyed, Text, read_sealed, sealed

MAX_LISTED = 1000  # invalid rows listed in the manifest; all are counted


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """Counts of a unit: training and held-out documents by raw label, invalid rows, and terms or words.

    `spares` are the documents that could stay in training, of labels with none there (`holdout`).
    """

    train: Mapping[str, int]
    held_out: Mapping[str, int]
    num_bad_rows: int
    bad_rows: tuple[BadRow, ...]
    num_replaced: int
    num_terms: int = 0
    words: Mapping[int, int]
    spares: Mapping[str, Spare] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the facts to a file."""
        record = {each.name: getattr(self, each.name) for each in fields(self)}
        with committed(path, synced=False) as file:
            file.write(
                json.dumps(sealed({**record, "bad_rows": [asdict(row) for row in self.bad_rows]}, UNIT_FACTS)).encode()
            )

    @classmethod
    def read(cls, path: Path) -> UnitFacts:
        """Read the facts from a file.

        Raises:
            ScratchError: the file is missing or damaged.
        """
        try:
            record: dict[str, Any] = read_sealed(path, UNIT_FACTS)
        except (FileNotFoundError, ValueError) as error:
            raise damaged_scratch(path, error) from error
        bad_rows = tuple(BadRow(**row) for row in record["bad_rows"])
        words = {int(length): number for length, number in record["words"].items()}
        spares = {label: (key, ordinal) for label, (key, ordinal) in record["spares"].items()}
        return cls(**{**record, "bad_rows": bad_rows, "words": words, "spares": spares})


UNIT_FACTS = Fields(
    {
        **{name: Keyed(Integer()) for name in ("train", "held_out")},
        **{name: Integer() for name in ("num_bad_rows", "num_replaced", "num_terms")},
        "bad_rows": Items(BAD_ROW),
        "words": Keyed(Integer(), Text("[0-9]{1,18}", "numbers of words")),
        "spares": Keyed(SPARE),
    }
)


@dataclass(kw_only=True)
class Totals:
    """What was counted in several units together; of their invalid rows the first."""

    train: Counter[str] = field(default_factory=Counter)
    held_out: Counter[str] = field(default_factory=Counter)
    num_bad_rows: int = 0
    bad_rows: list[BadRow] = field(default_factory=list)
    num_replaced: int = 0
    num_terms: int = 0
    words: Counter[int] = field(default_factory=Counter)

    @classmethod
    def of(cls, paths: Sequence[Path]) -> Totals:
        """Add up the facts of units, in their order.

        Raises:
            LabelError: there are more labels than classes are supported.
        """
        totals = cls()
        for path in paths:
            totals.add(UnitFacts.read(path))
        return totals

    def add(self, found: UnitFacts | Totals) -> None:
        """Add the counts of units that come later in the corpus.

        Raises:
            LabelError: there are more labels than classes are supported.
        """
        self.train.update(found.train)
        self.held_out.update(found.held_out)
        check_number_of_labels(self.train)
        check_number_of_labels(self.held_out)
        self.num_bad_rows += found.num_bad_rows
        self.bad_rows += found.bad_rows[: MAX_LISTED - len(self.bad_rows)]
        self.num_replaced += found.num_replaced
        self.num_terms += found.num_terms
        self.words.update(found.words)

    @property
    def num_documents(self) -> int:
        """Number of valid documents."""
        return self.train.total() + self.held_out.total()


def joined(parts: Sequence[Totals]) -> Totals:
    """Add up the totals of several sources."""
    totals = Totals()
    for part in parts:
        totals.add(part)
    return totals
