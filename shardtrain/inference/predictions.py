"""Hold the predictions of a model: class names, probabilities, and marks of texts of which they say little."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.inference.explanations import Explanation
from shardtrain.inference.notes import NOTES, Marks

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of some texts.

    Attributes:
        class_names: names of the columns.
        probabilities: (texts, num_classes).
        marks: bits of `inference.notes`, (texts,).
        explanations: why each text got its class, or none.
    """

    class_names: tuple[str, ...]
    probabilities: Probabilities
    marks: Marks
    explanations: tuple[Explanation, ...] = ()

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> list[str]:
        """Return the name of the most probable class of each text."""
        return [self.class_names[best] for best in self.probabilities.argmax(axis=1)]

    @property
    def notes(self) -> list[str]:
        """Return what makes the class of each text mean little: "blank", "no known feature", "undecodable" or ""."""
        return [NOTES[marks] for marks in self.marks.tolist()]
