"""Report what was counted in each unit of a corpus, and add the reports up as they come, in any order.

A corpus may have nearly as many labels as documents, until it is refused for that, and very many units; so neither the
reports nor all labels are held. What is made of them depends on no order.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import numpy as np

from shardtrain.corpus.labels import MAX_CLASSES, check_number_of_labels
from shardtrain.corpus.source import BAD_ROW, BadRow
from shardtrain.pipeline.holdout import SPARE, Spare, keep_best
from shardtrain.runtime.schema import Fields, Integer, Items, Keyed, Text

MAX_LISTED = 1000  # invalid rows listed in the manifest; all are counted


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """Counts of a unit: training and held-out documents by raw label, invalid rows, blank texts, and terms or words.

    `spares` are the documents that could stay in training, of labels with none there (`holdout`).
    """

    train: Mapping[str, int]
    held_out: Mapping[str, int]
    num_bad_rows: int
    bad_rows: tuple[BadRow, ...]
    num_replaced: int
    num_blank: int = 0
    num_terms: int = 0
    words: Mapping[int, int]
    spares: Mapping[str, Spare] = field(default_factory=dict)

    def as_record(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        record = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**record, "bad_rows": [asdict(row) for row in self.bad_rows]}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> UnitFacts:
        """Make the facts from a record that fits `UNIT_FACTS`."""
        bad_rows = tuple(BadRow(**row) for row in record["bad_rows"])
        words = {int(length): number for length, number in record["words"].items()}
        spares = {label: (key, ordinal) for label, (key, ordinal) in record["spares"].items()}
        return cls(**{**record, "bad_rows": bad_rows, "words": words, "spares": spares})


UNIT_FACTS = Fields(
    {
        **{name: Keyed(Integer()) for name in ("train", "held_out")},
        **{name: Integer() for name in ("num_bad_rows", "num_replaced", "num_blank", "num_terms")},
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
    num_blank: int = 0
    num_terms: int = 0
    words: Counter[int] = field(default_factory=Counter)

    @property
    def num_documents(self) -> int:
        """Number of valid documents."""
        return self.train.total() + self.held_out.total()


def joined(parts: Sequence[Totals]) -> Totals:
    """Add up the totals of several sources."""
    return Totals(
        train=sum((part.train for part in parts), Counter()),
        held_out=sum((part.held_out for part in parts), Counter()),
        num_bad_rows=sum(part.num_bad_rows for part in parts),
        bad_rows=[row for part in parts for row in part.bad_rows][:MAX_LISTED],
        num_replaced=sum(part.num_replaced for part in parts),
        num_blank=sum(part.num_blank for part in parts),
        num_terms=sum(part.num_terms for part in parts),
        words=sum((part.words for part in parts), Counter()),
    )


class Gathered:
    """The facts of units, added up as they come.

    Args:
        num_units: of the source.

    Attributes:
        spares: the best spare document of each label that a unit had only held-out documents of (`holdout`).
    """

    def __init__(self, num_units: int) -> None:
        self.spares: dict[str, Spare] = {}
        self._sums = Totals()
        self._num_terms = np.zeros(num_units, np.int64)
        self._bad_rows: dict[int, tuple[BadRow, ...]] = {}

    def add(self, number: int, found: UnitFacts) -> None:
        """Add the facts of a unit that has not been added."""
        sums = self._sums
        sums.train.update(found.train)
        forget_labels(sums.train, 2 * MAX_CLASSES)  # seldom, because it takes a sort
        if len(sums.train) > MAX_CLASSES:  # then the corpus is refused for them, whatever follows
            sums.held_out, self.spares = Counter(), {}
        else:
            sums.held_out.update(found.held_out)
            forget_labels(sums.held_out, 2 * MAX_CLASSES)
            keep_best(self.spares, found.spares)
            if len(self.spares) > 2 * MAX_CLASSES:
                self.spares = {label: self.spares[label] for label in self.spares if label in sums.held_out}
        sums.num_bad_rows += found.num_bad_rows
        sums.num_replaced += found.num_replaced
        sums.num_blank += found.num_blank
        sums.words.update(found.words)
        self._num_terms[number] = found.num_terms
        if found.bad_rows:
            self._bad_rows[number] = found.bad_rows
            self._forget_bad_rows()

    def _forget_bad_rows(self) -> None:
        """Forget the invalid rows of units that come after enough others."""
        room = MAX_LISTED
        for number in sorted(self._bad_rows):
            if room <= 0:
                del self._bad_rows[number]
            else:
                room -= len(self._bad_rows[number])

    def count_terms(self, number: int, num_terms: int) -> None:
        """Replace the number of terms of a unit, which was counted again."""
        self._num_terms[number] = num_terms

    @property
    def num_terms(self) -> int:
        """Distinct terms of each unit, added up."""
        return int(self._num_terms.sum())

    def totals(self) -> Totals:
        """Return the sums of all units that were added.

        Raises:
            LabelError: there are more labels than classes are supported.
        """
        sums = self._sums
        check_number_of_labels(sums.train)
        check_number_of_labels(sums.held_out)
        return Totals(
            train=Counter(sums.train),
            held_out=Counter(sums.held_out),
            num_bad_rows=sums.num_bad_rows,
            bad_rows=[row for number in sorted(self._bad_rows) for row in self._bad_rows[number]][:MAX_LISTED],
            num_replaced=sums.num_replaced,
            num_blank=sums.num_blank,
            num_terms=self.num_terms,
            words=Counter(sums.words),
        )


def forget_labels(counts: Counter[str], most: int) -> None:
    """Forget labels of a corpus with more than `most` of them, which will be refused; which are kept needs no order.

    Args:
        counts: by label.
        most: at least the number of classes that are supported.
    """
    if len(counts) > most:
        kept = {label: counts[label] for label in heapq.nsmallest(MAX_CLASSES + 1, counts)}
        counts.clear()
        counts.update(kept)
