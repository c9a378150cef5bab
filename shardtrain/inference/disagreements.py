"""Keep the rows on which exactly one of two runs is right, the most confident ones first.

The order is by the mean of the probabilities that both runs give to what they predict, of equal ones by the row. A
fixed number is kept, so memory does not depend on the number of rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, order=True)
class Disagreement:
    """A row that only one of two runs classifies rightly.

    Attributes:
        confidence: mean probability of the predicted classes; the first in the order.
        order: minus the row number: of equally confident rows the earlier is the greater.
        label: index of the true class.
        predicted: class index that each run predicts.
        probability: of each run for the class that it predicts.
        label_probability: of each run for the true class.
        document: ordinal of the document in its file, where it is known.
        text: of the document, where it is known.
    """

    confidence: float
    order: int
    label: int = field(compare=False)
    predicted: tuple[int, int] = field(compare=False)
    probability: tuple[float, float] = field(compare=False)
    label_probability: tuple[float, float] = field(compare=False)
    document: int | None = field(default=None, compare=False)
    text: str | None = field(default=None, compare=False)

    @property
    def row(self) -> int:
        """Row number in the split, or among the valid documents of the corpus, from 0."""
        return -self.order

    def record(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return it as JSON values."""
        return {
            "row": self.row,
            "document": self.document,
            "label": class_names[self.label],
            "predicted": [class_names[each] for each in self.predicted],
            "probability": list(self.probability),
            "label_probability": list(self.label_probability),
            "text": self.text,
        }


class Disagreements:
    """The most confident disagreements of two runs so far.

    Args:
        most: number of rows to keep of each kind.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._rows = 0
        self._kept: tuple[list[Disagreement], list[Disagreement]] = ([], [])

    def add(
        self,
        y: npt.NDArray[Any],
        first: npt.NDArray[Any],
        second: npt.NDArray[Any],
        *,
        documents: npt.NDArray[np.int64],
        texts: Sequence[str] | None,
    ) -> None:
        """Add rows.

        Args:
            y: true class indices, (rows,).
            first: probabilities of the first run, (rows, num_classes).
            second: likewise of the second.
            documents: ordinals, (rows,).
            texts: of the documents, if they are known.
        """
        labels, shares = y.astype(np.int64), (first, second)
        guesses = [each.argmax(axis=1) for each in shares]
        confidence = sum(each.max(axis=1).astype(np.float64) for each in shares) / 2
        right = [guess == labels for guess in guesses]
        for kept, rows in zip(self._kept, (right[0] & ~right[1], right[1] & ~right[0]), strict=True):
            places = np.flatnonzero(rows)
            for i in places[np.argsort(-confidence[places], kind="stable")[: self._most]].tolist():
                found = Disagreement(
                    confidence=float(confidence[i]),
                    order=-(self._rows + i),
                    label=int(labels[i]),
                    predicted=(int(guesses[0][i]), int(guesses[1][i])),
                    probability=(float(first[i, guesses[0][i]]), float(second[i, guesses[1][i]])),
                    label_probability=(float(first[i, labels[i]]), float(second[i, labels[i]])),
                    document=int(documents[i]),
                )
                if len(kept) == self._most and found < kept[0]:
                    continue
                found = found if texts is None else replace(found, text=texts[i])
                heapq.heappush(kept, found) if len(kept) < self._most else heapq.heapreplace(kept, found)
        self._rows += len(y)

    @property
    def only_first(self) -> tuple[Disagreement, ...]:
        """Rows on which only the first run is right, the most confident first."""
        return tuple(sorted(self._kept[0], reverse=True))

    @property
    def only_second(self) -> tuple[Disagreement, ...]:
        """Rows on which only the second run is right, the most confident first."""
        return tuple(sorted(self._kept[1], reverse=True))
