"""Hold the predictions of a model: class names, probabilities, and marks of texts of which they say little."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shardtrain.inference.notes import NOTES, Marks
from shardtrain.metrics.thresholds import UNDECIDED, Thresholds

if TYPE_CHECKING:
    from shardtrain.inference.explanations import Explanation

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of some texts.

    Attributes:
        class_names: names of the columns.
        probabilities: (texts, num_classes).
        marks: bits of `inference.notes`, (texts,).
        explanations: why each text got its class, or none.
        thresholds: below which a prediction is "undecided"; None: all are decided.
    """

    class_names: tuple[str, ...]
    probabilities: Probabilities
    marks: Marks
    explanations: tuple[Explanation, ...] = ()
    thresholds: Thresholds | None = None

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def decided(self) -> npt.NDArray[np.bool_]:
        """Whether the most probable class of each text is probable enough, (texts,)."""
        if self.thresholds is None:
            return np.ones(len(self), np.bool_)
        return self.thresholds.decided(self.probabilities)

    @property
    def codes(self) -> npt.NDArray[np.int64]:
        """Index of the most probable class of each text, and the number of classes where it is undecided, (texts,)."""
        found: npt.NDArray[np.int64] = self.probabilities.argmax(axis=1)
        return found if self.thresholds is None else np.where(self.decided, found, len(self.class_names))

    @property
    def labels(self) -> list[str]:
        """Return the name of the most probable class of each text, or "undecided"."""
        names = (*self.class_names, UNDECIDED)
        return [names[code] for code in self.codes.tolist()]

    @property
    def notes(self) -> list[str]:
        """Return what makes the class of each text mean little: "blank", "no known feature", "undecodable" or ""."""
        return [NOTES[marks] for marks in self.marks.tolist()]
