"""Hand rows that a model has answered to whatever measures them, with what is known of each row."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.rows import Examples, Labels
from shardtrain.arrays.texts import Texts
from shardtrain.inference.predictions import Probabilities
from shardtrain.metrics.outputs import OutputSums


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What is known of a batch of labelled rows.

    Attributes:
        numbers: in the split of shards, or of the records of a corpus, from 0; (rows,) int64.
        texts: one per row; None for rows of shards.
        values: of the column by which the rows are divided; None if they are not.
        weights: of the rows, (rows,); None: each counts 1.
    """

    numbers: npt.NDArray[np.int64]
    texts: Texts | None = None
    values: Sequence[str] | None = None
    weights: npt.NDArray[np.float64] | None = None

    def slice(self, start: int, stop: int) -> Rows:
        """Return rows [start, stop)."""
        parts: dict[str, Any] = {
            name: None if value is None else value[start:stop] for name, value in vars(self).items()
        }
        return Rows(**parts)


# Called with the classes of a batch, the probabilities of all classes, (rows, num_classes), and the rows.
Observer = Callable[[Labels, Probabilities, Rows], None]


class Answers:
    """The answers of a model to rows; its observers see each batch once it is answered, in order.

    Args:
        outputs: sums up all rows, as long as the model's outputs are probabilities.
        observers: what else measures them.
    """

    def __init__(self, outputs: OutputSums, observers: Sequence[Observer] = ()) -> None:
        self._outputs, self._observers = outputs, observers
        self._asked: deque[Rows] = deque()

    def examples(self, batches: Iterable[tuple[Examples, Rows]]) -> Iterator[Examples]:
        """Yield what the model is asked."""
        for examples, rows in batches:
            self._asked.append(rows)
            yield examples

    def add(self, y: Labels, outputs: Probabilities) -> None:
        """Take the model's outputs for the next batch; see `training.engine.EachBatch`."""
        rows = self._asked.popleft()
        probabilities = self._outputs.add(y, outputs, rows.weights)
        if probabilities is not None:
            for observe in self._observers:
                observe(y, probabilities, rows)
