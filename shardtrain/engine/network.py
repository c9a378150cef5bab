"""A network over sparse rows: its weights as arrays, how they begin, and what it says of rows."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples, Labels
from shardtrain.engine import kernels
from shardtrain.errors import ShardsError

Floats = npt.NDArray[np.float32]

_PARTS = 4  # of a phase, per thread: a thread that is slower takes fewer


class Team:
    """Threads that call a kernel together, each with its own number; a context manager.

    Args:
        threads: including the one that calls `run`.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._others = ThreadPoolExecutor(threads - 1, "shardtrain-engine") if threads > 1 else None

    def run(self, kernel: Any, *arguments: Any) -> None:
        """Call `kernel(thread, gate, parts, *arguments)` in every thread that is free before thread 0 is done."""
        gate = np.array([kernels.NOTHING, 0])
        parts = 1 if self.threads == 1 else _PARTS * self.threads
        others = [
            self._others.submit(kernel, thread, gate, parts, *arguments)
            for thread in range(1, self.threads)
            if self._others is not None
        ]
        kernel(0, gate, parts, *arguments)
        for each in others:
            if not each.cancel():
                each.result()

    def map(self, function: Any, tasks: Sequence[Any]) -> None:
        """Call `function(task)` for all tasks, in any order."""
        if self._others is None or len(tasks) < 2:
            for task in tasks:
                function(task)
            return
        rest = [
            self._others.submit(partial(_all, function, tasks[thread :: self.threads]))
            for thread in range(1, self.threads)
        ]
        _all(function, tasks[:: self.threads])
        for each in rest:
            each.result()

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *_: object) -> None:
        if self._others is not None:
            self._others.shutdown()


def _all(function: Any, tasks: Sequence[Any]) -> None:
    for task in tasks:
        function(task)


@dataclass(frozen=True)
class Shape:
    """The sizes of a network.

    Attributes:
        features: columns of the rows.
        dims: width of each layer; the last one is 1 for two classes, where it is the logit of class 1.
    """

    features: int
    dims: tuple[int, ...]

    @classmethod
    def of(cls, features: int, classes: int, layers: int, units: int) -> Shape:
        """Return the shape of a network with `layers` layers, of which all but the last have `units` units."""
        return cls(features, (*(units for _ in range(layers - 1)), 1 if classes == 2 else classes))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return max(2, self.dims[-1])

    @property
    def num_weights(self) -> int:
        """Number of all weights."""
        inputs = (self.features, *self.dims[:-1])
        return sum((before + 1) * width for before, width in zip(inputs, self.dims, strict=True))


def check_examples(columns: npt.NDArray[Any], y: npt.NDArray[Any], features: int, classes: int) -> None:
    """Refuse rows that the kernels, which do not look, would read or write outside their arrays for.

    Args:
        columns: of the entries of rows.
        y: class of each row.
        features: of which columns are.
        classes: of which labels are.

    Raises:
        ShardsError: a column or a label is outside its range.
    """
    if len(columns) and not 0 <= columns.min() <= columns.max() < features:
        raise ShardsError(
            f"rows have columns outside [0, {features:,}), which the features are; check the shards with "
            "`python -m shardtrain verify`"
        )
    if len(y) and not 0 <= int(y.min()) <= int(y.max()) < classes:
        raise ShardsError(
            f"rows have labels outside [0, {classes:,}), which the classes are; check the shards with "
            "`python -m shardtrain verify`"
        )


class Network:
    """The weights of a network, all float32.

    Attributes:
        shape: its sizes.
        scales: (features,), by which rows are multiplied in training; None: by nothing.
        wide: kernel of the sparse layer, (features, width).
        small: the kernels of the dense layers and all biases, row by row, (rows, widest layer).
        dims: width of each layer.
        places: (layers, 2): the first row of a layer's kernel in `small`, and its bias; see `kernels`.
        small_rows: (rows, 3): layer, unit of the layer before or -1 for a bias, and width of each row of `small`.
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.scales: Floats | None = None
        self.wide: Floats = np.zeros((shape.features, shape.dims[0]), np.float32)
        self.dims = np.array(shape.dims, np.int64)
        self.places = np.zeros((len(shape.dims), 2), np.int64)
        rows: list[tuple[int, int, int]] = []
        for layer, width in enumerate(shape.dims):
            units = shape.dims[layer - 1] if layer else 0
            self.places[layer] = len(rows), len(rows) + units
            rows += [(layer, unit, width) for unit in (*range(units), -1)]
        self.small: Floats = np.zeros((len(rows), max(shape.dims)), np.float32)
        self.small_rows = np.array(rows, np.int64)

    def initialize(self, seed: int) -> None:
        """Draw the kernels as Keras' GlorotUniform does (Glorot and Bengio, AISTATS 2010); biases are 0."""
        self.small[:] = 0
        for layer, kernel in enumerate(self.kernels):
            generator = np.random.Generator(np.random.PCG64([seed, layer]))
            limit = np.float32(math.sqrt(6 / sum(kernel.shape)))
            kernel[:] = generator.random(kernel.shape, np.float32) * (2 * limit) - limit

    def folded(self) -> Network:
        """Return the network that says of rows as they are what this one says of scaled rows; itself without scales."""
        if self.scales is None:
            return self
        other = copy.copy(self)
        other.wide, other.scales = self.wide * self.scales[:, None], None
        return other

    @property
    def kernels(self) -> list[Floats]:
        """Views of the kernels of all layers, (inputs, width) each."""
        small = [
            self.small[first:bias, :width]
            for (first, bias), width in zip(self.places[1:], self.shape.dims[1:], strict=True)
        ]
        return [self.wide, *small]

    @property
    def biases(self) -> list[Floats]:
        """Views of the biases of all layers, (width,) each."""
        return [self.small[bias, :width] for (_, bias), width in zip(self.places, self.shape.dims, strict=True)]

    def evaluate(self, x: Csr, y: npt.NDArray[Any], team: Team) -> tuple[Floats, npt.NDArray[np.bool_], Floats]:
        """Compute the loss of each row, whether its class has the highest probability, and the probabilities.

        The network has no scales; `folded` returns one that has not.

        Args:
            x: (rows, features).
            y: class of each row.
            team: that computes it.

        Returns:
            Losses (rows,), hits (rows,), probabilities (rows, width of the last layer).
        """
        rows = len(x)
        assert self.scales is None
        check_examples(x.indices, y, self.shape.features, self.shape.classes)
        sums = np.empty((len(self.dims), rows, max(self.shape.dims)), np.float32)
        losses, hits = np.empty(rows, np.float32), np.empty(rows, np.bool_)
        team.run(
            kernels.evaluate,
            *(_read_only(np.asarray(x.indptr, np.int64)), _read_only(x.indices), _read_only(x.data)),
            _read_only(np.asarray(y, np.int64)),
            *(self.wide, self.small, self.dims, self.places, sums, losses, hits),
        )
        return losses, hits, sums[-1, :, : self.shape.dims[-1]]


def evaluate(
    network: Network,
    batches: Iterable[Examples],
    team: Team,
    each: Callable[[Labels, Floats], object] | None = None,
) -> dict[str, float]:
    """Compute accuracy and loss of a network over all examples of the batches.

    Args:
        network: without scales.
        batches: rows and their classes.
        team: that computes it.
        each: called with the classes of each batch, (rows,), and the probabilities of the last layer, (rows, width).
    """
    totals = np.zeros(3)
    for x, y in batches:
        assert isinstance(x, Csr)
        losses, hits, probabilities = network.evaluate(x, y, team)
        totals += np.array([losses.sum(dtype=np.float64), np.count_nonzero(hits), len(y)])
        if each is not None:
            each(y, probabilities)
    return metrics_of(totals)


def metrics_of(sums: npt.NDArray[np.float64]) -> dict[str, float]:
    """Return accuracy and loss from the sums of losses, hits and rows; 0 of no rows."""
    loss, hits, rows = sums.tolist()
    return {"accuracy": hits / max(rows, 1), "loss": loss / max(rows, 1)}


def _read_only(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a view that cannot be written to, as those of shards cannot: the kernel is compiled once for both."""
    view = array.view()
    view.flags.writeable = False
    return view
