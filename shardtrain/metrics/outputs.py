"""Measure what a model outputs for labelled rows, as far as its outputs are probabilities of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.errors import ModelError, UsageError
from shardtrain.metrics.classification import Metrics, MetricSums

Outputs = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a model says of labelled rows.

    Attributes:
        logs: accuracy, loss and the metrics that the model was compiled with.
        metrics: all that follows from the probabilities; None where the model's outputs are not probabilities.
        reason: why there are no metrics; empty where there are.
    """

    logs: Mapping[str, float]
    metrics: Metrics | None
    reason: str

    def named(self, measures: Sequence[str]) -> dict[str, float]:
        """Return some of the metrics that follow from the probabilities, by their names.

        Raises:
            ModelError: the model's outputs are not probabilities.
            UsageError: a metric is undefined for these rows.
        """
        if self.metrics is None:
            raise ModelError(f"{', '.join(measures)} cannot be computed: {self.reason}")
        found = {}
        for name in measures:
            if (value := self.metrics.measure(name)) is None:
                raise UsageError(
                    f"{name} is undefined for {self.metrics.rows:,} rows of "
                    f"{np.count_nonzero(self.metrics.support):,} of {len(self.metrics.support):,} classes; choose "
                    "another metric"
                )
            found[name] = value
        return found


class OutputSums:
    """Sums of what a model outputs, until an output is not a probability, which gives the reason to stop.

    Args:
        num_classes: number of classes, at least 2.
        detailed: see `MetricSums`.
    """

    def __init__(self, num_classes: int, *, detailed: bool = True) -> None:
        self._sums = MetricSums(num_classes, detailed=detailed)
        self._reason = ""

    def add(
        self, y: npt.NDArray[np.integer], outputs: Outputs, weights: npt.NDArray[np.float64] | None = None
    ) -> Outputs | None:
        """Add the classes of rows, (rows,), and the outputs for them, as `class_probabilities` takes them.

        Args:
            y: class of each row.
            outputs: of the model.
            weights: of the rows, (rows,); None: each counts 1.

        Returns:
            The probabilities; None if an output was not one.

        Raises:
            ShardsError: a label is not a class.
        """
        if self._reason:
            return None
        try:
            probabilities = class_probabilities(outputs, self._sums.num_classes)
        except ModelError as error:
            self._reason = error.on_command_line
            return None
        self._sums.add(y, probabilities, weights)
        return probabilities

    def measured(self, logs: Mapping[str, float]) -> Measured:
        """Return all metrics; `logs` are those that the model was compiled with."""
        metrics = None if self._reason else self._sums.metrics()
        return Measured(logs=logs, metrics=metrics, reason=self._reason)


def class_probabilities(outputs: Outputs, num_classes: int) -> Outputs:
    """Return one column per class, from softmax rows or from the probability of class 1 alone.

    Raises:
        ModelError: the outputs are not probabilities of `num_classes` classes.
    """
    if not ((outputs >= 0) & (outputs <= 1)).all():
        raise ModelError(
            f"the model's outputs lie between {outputs.min():.3g} and {outputs.max():.3g}, so they are neither "
            "probabilities, as its last layer promises, nor logits; end the model with a softmax, or a sigmoid for two "
            "classes"
        )
    found = np.concatenate([1 - outputs, outputs], axis=1) if outputs.shape[1] == 1 else outputs
    if found.shape[1] != num_classes:
        raise ModelError(
            f"the model tells {found.shape[1]:,} classes apart, the run names {num_classes:,}; restore the run from a "
            "copy or train again"
        )
    return found
