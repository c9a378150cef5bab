"""Hold the predictions of a model: class names and probabilities."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Predictions:
    """The predictions of some texts.

    Attributes:
        class_names: names of the columns.
        probabilities: (texts, num_classes).
    """

    class_names: tuple[str, ...]
    probabilities: Probabilities

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> list[str]:
        """Return the name of the most probable class of each text."""
        return [self.class_names[best] for best in self.probabilities.argmax(axis=1)]
