"""Divide the score of a class among the features of a row: what computes it is a `RowReasons`, one per kind of model.

A network of ReLU layers is affine wherever no unit switches on or off. With the units that are on for a row, the logit
of a class is a sum over the features of the row and over the biases, which is exact for any number of layers. For all
other models the parts are gradient times input (Shrikumar et al., arXiv:1605.01713), and what is missing to the logit
is reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Features, slice_rows
from shardtrain.engine.network import Network

EXACT, GRADIENT = "exact", "gradient x input"
Numbers = npt.NDArray[np.float64]
Classes = npt.NDArray[np.int64]

_MOST_VALUES = 1 << 20  # of weights at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Attribution:
    """What the features of some rows add to the score of a class.

    Attributes:
        scores: of the class of each row, before softmax or sigmoid, (rows,).
        values: what each feature adds: of sparse rows each stored value, (nnz,); of other rows (rows, num_features).
        rest: what no feature adds: the biases, or with gradient times input what is missing to the score, (rows,).
    """

    scores: Numbers
    values: Numbers
    rest: Numbers


class RowReasons(Protocol):
    """Divides the scores of a trained model; may be called by several threads at a time.

    Attributes:
        method: `EXACT` or `GRADIENT`.
    """

    method: str

    def __call__(self, x: Features, classes: Classes) -> Attribution:
        """Divide the score of one class of each row; (rows,) are the classes."""
        ...

    def scores(self, x: Features) -> Numbers:
        """Return the score of each class for rows, (rows, num_classes)."""
        ...


class NetworkReasons:
    """The `RowReasons` of a network, computed in float64 from its weights.

    Args:
        network: the trained network.
    """

    method = EXACT

    def __init__(self, network: Network) -> None:
        self._wide = network.wide
        self._kernels = [kernel.astype(np.float64) for kernel in network.kernels[1:]]
        self._biases = [bias.astype(np.float64) for bias in network.biases]

    def __call__(self, x: Features, classes: Classes) -> Attribution:
        """Divide the score of one class of each row; see `RowReasons`."""
        parts = [self._divided(rows, classes[start : start + len(rows)]) for start, rows in self._pieces(x)]
        scores, values, rest = zip(*parts, strict=True) if parts else ((), (), ())
        nothing = np.zeros(0)
        return Attribution(
            scores=np.concatenate([nothing, *scores]),
            values=np.concatenate([nothing, *values]),
            rest=np.concatenate([nothing, *rest]),
        )

    def scores(self, x: Features) -> Numbers:
        """Return the score of each class for rows; see `RowReasons`."""
        logits = [self._forward(rows)[0] for _, rows in self._pieces(x)]
        return of_each_class(np.concatenate([np.zeros((0, len(self._biases[-1]))), *logits]))

    def _divided(self, x: Csr, classes: Classes) -> tuple[Numbers, Numbers, Numbers]:
        """Divide the scores of rows that are few."""
        logits, active, weights = self._forward(x)
        columns, signs = column_and_sign(classes, logits.shape[1])
        slopes = signs[:, None] * np.eye(logits.shape[1])[columns]  # of the score by the values of the layer's units
        rest = slopes @ self._biases[-1]
        for kernel, bias, on in zip(
            reversed(self._kernels), reversed(self._biases[:-1]), reversed(active), strict=True
        ):
            slopes = (slopes @ kernel.T) * on
            rest += slopes @ bias
        rows = np.repeat(np.arange(len(x)), np.diff(x.indptr))
        values = x.data * np.einsum("ij,ij->i", weights, slopes[rows])
        return signs * logits[np.arange(len(x)), columns], values, rest

    def _forward(self, x: Csr) -> tuple[Numbers, list[npt.NDArray[np.bool_]], npt.NDArray[np.float32]]:
        """Return the logits, which units of each hidden layer are on, and the weights of each stored value."""
        weights = self._wide[x.indices]
        units = np.zeros((len(x), weights.shape[1]))
        some = np.flatnonzero(np.diff(x.indptr))
        if len(some):
            units[some] = np.add.reduceat(weights * x.data.astype(np.float64)[:, None], x.indptr[:-1][some], axis=0)
        units += self._biases[0]
        active = []
        for kernel, bias in zip(self._kernels, self._biases[1:], strict=True):
            active.append(units > 0)
            units = np.maximum(units, 0) @ kernel + bias
        return units, active, weights

    def _pieces(self, x: Features) -> Iterator[tuple[int, Csr]]:
        """Yield rows of few weights, and the number of the first."""
        assert isinstance(x, Csr)
        widths = [len(bias) for bias in self._biases]
        costs = np.concatenate([np.zeros(1), np.cumsum(np.diff(x.indptr) * widths[0] + sum(widths))])
        start = 0
        while start < len(x):
            stop = max(start + 1, int(np.searchsorted(costs, costs[start] + _MOST_VALUES, side="right")) - 1)
            rows = slice_rows(x, start, stop)
            assert isinstance(rows, Csr)
            yield start, rows
            start = stop


def column_and_sign(classes: Classes, width: int) -> tuple[Classes, Numbers]:
    """Return which output has the score of each class and its sign: of one output, the logit of class 1 of two."""
    if width > 1:
        return classes, np.ones(len(classes))
    return np.zeros_like(classes), np.where(classes == 1, 1.0, -1.0)


def of_each_class(logits: Numbers) -> Numbers:
    """Return a score per class, from one per class or from that of class 1 of two."""
    return np.concatenate([-logits, logits], axis=1) if logits.shape[1] == 1 else logits
