"""Train a network on groups of batches with the fused kernels, reproducibly to the bit for any number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples
from shardtrain.engine import kernels
from shardtrain.engine.network import Network, Team, check_examples
from shardtrain.engine.one_logit import train_one_logit
from shardtrain.engine.optimizers import Optimizer

_Outcome = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]  # mean loss and hits of each batch
_BITS = 32  # of the random numbers that decide what is dropped


class _Group:
    """The arrays of a group of batches, reused from group to group."""

    def __init__(self) -> None:
        self._arrays: dict[str, npt.NDArray[Any]] = {}

    def array(self, name: str, size: int, dtype: Any) -> npt.NDArray[Any]:
        """Return an array of `size` undefined elements; the next call with its name may return the same memory."""
        found = self._arrays.get(name)
        if found is None or len(found) < size:
            found = self._arrays[name] = np.empty(size + size // 8, dtype)
        return found[:size]


@dataclass(frozen=True, kw_only=True)
class _Joined:
    """A group of batches, joined; `kernels` describes the arrays."""

    bounds: npt.NDArray[np.int64]
    indptr: npt.NDArray[np.int64]
    spans: npt.NDArray[np.int64]
    indices: npt.NDArray[np.int32]
    values: npt.NDArray[np.float32]
    y: npt.NDArray[np.int64]
    seeds: npt.NDArray[np.uint64]


class Trainer:
    """Takes the steps of a training.

    Args:
        network: that is trained.
        optimizer: that moves its weights.
        team: that computes.
        seed: of dropout.
        dropout: share of the values of rows, and of the units of hidden layers, that are dropped.
        clip_norm: length to which a longer gradient, of all weights together, is shortened; None: none is.
        class_weights: of each class in the loss; empty: all count the same.

    Attributes:
        step: steps taken so far.
        state: what the optimizer keeps, as `Optimizer.state` returns it.
    """

    def __init__(
        self,
        network: Network,
        optimizer: Optimizer,
        team: Team,
        *,
        seed: int,
        dropout: float = 0.0,
        clip_norm: float | None = None,
        class_weights: Sequence[float] = (),
    ) -> None:
        self.network, self.optimizer = network, optimizer
        self.step = 0
        self.state = optimizer.state(network)
        self._team = team
        self._seed = seed
        self._dropout = dropout
        self._clip = clip_norm or 0.0
        self._class_weights = np.array(class_weights, np.float32)
        self._group = _Group()
        features = network.shape.features
        self._at_once = not self._clip and optimizer.code != kernels.ADAM  # weights move as their gradient is known
        self._one_logit = self._at_once and network.shape.dims == (1,)
        self._tables = [np.full(features, -1, np.int32) for _ in range(0 if self._one_logit else team.threads)]
        self._totals = np.zeros(features if self._one_logit else 0, np.float32)
        self._small_gradient = np.zeros_like(network.small)
        self._small_squares = np.zeros(len(network.small_rows))

    def advance(self, batches: Sequence[Examples], rates: Sequence[float]) -> tuple[list[float], list[int]]:
        """Take a step on each batch.

        Args:
            batches: sparse rows and their classes.
            rates: learning rate of each step.

        Returns:
            The mean loss of each batch and how many of its rows were classified rightly, before its step.

        Raises:
            ShardsError: a column or a label is outside its range.
        """
        bounds = np.cumsum([0, *(len(y) for _, y in batches)])
        indptr, indices, values = self._joined([x for x, _ in batches if isinstance(x, Csr)], bounds)
        y = self._group.array("y", int(bounds[-1]), np.int64)
        np.concatenate([labels for _, labels in batches], out=y, casting="unsafe")
        check_examples(indices, y, self.network.shape.features, self.network.shape.classes)
        spans, count = self._spans(indptr), len(batches)
        seeds = np.array([_seed_of(self._seed, self.step + number) for number in range(count)], np.uint64)
        found = _Joined(bounds=bounds, indptr=indptr, spans=spans, indices=indices, values=values, y=y, seeds=seeds)
        losses, hits = (self._train_one_logit if self._one_logit else self._train)(found, rates)
        self.step += count
        return losses.tolist(), hits.tolist()

    def _weigh(self, found: _Joined, number: int) -> None:
        """Scale the entries of a batch, and drop some of them."""
        first, last = int(found.bounds[number]), int(found.bounds[number + 1])
        if self.network.scales is not None:
            entry, end = int(found.indptr[first]), int(found.indptr[last])
            kernels.scale(found.values, found.indices, entry, end, self.network.scales)
        if self._dropout:
            threshold, scale = _of_dropout(self._dropout)
            kernels.drop(found.indices, found.values, first, last, found.spans, ~found.seeds[number], threshold, scale)

    def _train_one_logit(self, found: _Joined, rates: Sequence[float]) -> _Outcome:
        """Take the steps of a linear model of two classes, whose weights move when a batch's gradient is known."""
        network, array, count = self.network, self._group.array, len(rates)
        for number in range(count):
            self._weigh(found, number)
        most_rows = int(np.diff(found.bounds).max())
        most_entries = int(np.diff(found.indptr[found.bounds]).max()) + 1
        losses, hits = np.zeros(count), np.zeros(count, np.int64)
        train_one_logit(
            *(found.spans, found.indices, found.values, found.bounds, found.y, self._class_weights),
            *(network.wide, *self.state[:2], network.small, *self.state[2:]),
            array("sums", most_rows, np.float32).reshape(most_rows, 1),
            array("slots", most_entries, np.int32),
            self._totals,
            self.optimizer.code,
            self._rates(rates),
            *(array("row_losses", most_rows, np.float32), array("row_hits", most_rows, np.bool_), losses, hits),
        )
        return losses, hits

    def _spans(self, indptr: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the half-open range of each row's entries, (rows, 2)."""
        spans = self._group.array("spans", 2 * (len(indptr) - 1), np.int64).reshape(-1, 2)
        spans[:, 0], spans[:, 1] = indptr[:-1], indptr[1:]
        return spans

    def _rates(self, rates: Sequence[float]) -> npt.NDArray[np.float32]:
        """Return the rates of the next steps, corrected as the optimizer does."""
        found = [self.optimizer.rate(rate, self.step + n) for n, rate in enumerate(rates, 1)]
        return np.clip(found, 0, np.finfo(np.float32).max).astype(np.float32)

    def _transposed(self, found: _Joined, count: int) -> tuple[npt.NDArray[Any], ...]:
        """Weigh the entries of every batch and transpose it, as `kernels.train` takes them."""
        array, num_values = self._group.array, int(found.indptr[-1])
        slots, parts = array("slots", num_values, np.int32), array("parts", num_values, np.float32)
        starts, places = array("starts", num_values + count, np.int32), array("rows", num_values, np.int32)
        counts = np.zeros(count, np.int64)

        def prepare(thread: int) -> None:
            for number in range(thread, count, self._team.threads):
                self._weigh(found, number)
                first, last = int(found.bounds[number]), int(found.bounds[number + 1])
                entry, end = int(found.indptr[first]), int(found.indptr[last])
                counts[number] = kernels.transpose(
                    *(found.spans, found.indices, found.values, first, last, self._tables[thread], slots[entry:end]),
                    *(starts[entry + number : end + number + 1], places[entry:end], parts[entry:end]),
                )

        self._team.map(prepare, range(self._team.threads))
        return counts, slots, starts, places, parts

    def _train(self, found: _Joined, rates: Sequence[float]) -> _Outcome:
        """Take the steps of any network."""
        network, array, count = self.network, self._group.array, len(rates)
        transposed = self._transposed(found, count)
        most_rows = int(np.diff(found.bounds).max())
        shape = (len(network.dims), most_rows, max(network.shape.dims))
        size = shape[0] * shape[1] * shape[2]
        width = network.shape.dims[0]
        most_columns = 0 if self._at_once else int(transposed[0].max())
        threshold, scale = _of_dropout(self._dropout)
        losses, hits = np.zeros(count), np.zeros(count, np.int64)
        self._team.run(
            kernels.train,
            *(found.indptr, found.spans, found.indices, found.values, found.bounds, found.y, self._class_weights),
            *transposed,
            *(network.wide, *self.state[:2], network.small, *self.state[2:]),
            *(network.dims, network.places, network.small_rows),
            array("sums", size, np.float32).reshape(shape),
            array("upstream", size, np.float32).reshape(shape),
            np.empty((self._team.threads, width), np.float32),
            array("columns", most_columns * width, np.float32).reshape(most_columns, width),
            array("squares", most_columns, np.float64),
            *(self._small_gradient, self._small_squares),
            self._tables[0],
            self.optimizer.code,
            self._rates(rates),
            *(found.seeds, threshold, scale, self._clip),
            *(array("row_losses", most_rows, np.float32), array("row_hits", most_rows, np.bool_), losses, hits),
            np.ones(1, np.float32),
        )
        return losses, hits

    def _joined(
        self, parts: Sequence[Csr], bounds: npt.NDArray[np.int64]
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.float32]]:
        """Join the rows of batches in the group's arrays: values are dropped there."""
        ends = np.cumsum([0, *(len(each.data) for each in parts)])
        indptr = self._group.array("indptr", int(bounds[-1]) + 1, np.int64)
        indices = self._group.array("indices", int(ends[-1]), np.int32)
        values = self._group.array("values", int(ends[-1]), np.float32)
        indptr[0] = 0
        for part, first, start, stop in zip(parts, bounds[:-1], ends[:-1], ends[1:], strict=True):
            np.add(part.indptr[1:], start, out=indptr[first + 1 : first + len(part) + 1], casting="unsafe")
            indices[start:stop] = part.indices
            values[start:stop] = part.data
        return indptr, indices, values


def _of_dropout(share: float) -> tuple[np.uint32, np.float32]:
    """Return the threshold of random bits below which a value is dropped, and the scale of the others."""
    return np.uint32(min(round(share * (1 << _BITS)), (1 << _BITS) - 1)), np.float32(1 / (1 - share))


def _seed_of(seed: int, step: int) -> int:
    """Return the seed of a step's dropout."""
    return ((seed * 0x9E3779B97F4A7C15) ^ (step * 0xD1342543DE82EF95)) & ((1 << 64) - 1)
