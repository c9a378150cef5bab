"""Classify and evaluate feature rows with a network of compiled kernels, without Keras."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples, Features
from shardtrain.engine import network as engine
from shardtrain.engine.network import Network, Team
from shardtrain.errors import ModelError
from shardtrain.inference.classifier import SPARSE_ROWS
from shardtrain.inference.predictions import Probabilities
from shardtrain.runtime.machine import cores
from shardtrain.training.engine import EachBatch, Logs

_MOST_VALUES = 1 << 22  # units of all layers for the rows of a call


class NetworkModel:
    """A `RowModel` of a network; each call computes in the thread that makes it.

    Args:
        network: the trained network.

    Attributes:
        most_rows: rows per call.
    """

    def __init__(self, network: Network) -> None:
        self._network = network
        per_row = len(network.shape.dims) * max(network.shape.dims)
        self.most_rows = max(1, min(SPARSE_ROWS, _MOST_VALUES // per_row))

    def __call__(self, x: Features) -> Probabilities:
        """Compute the probabilities of rows; see `RowModel`.

        Raises:
            ModelError: these are not sparse rows of the network's features.
        """
        rows = _checked(x, self._network)
        with Team(1) as team:
            _, _, probabilities = self._network.evaluate(rows, np.zeros(len(rows), np.int64), team)
        return probabilities


def evaluate(network: Network, batches: Iterable[Examples], each: EachBatch) -> Logs:
    """Compute accuracy and loss over all examples of the batches, with all cores.

    Args:
        network: the trained network.
        batches: rows and their classes.
        each: see `EachBatch`.

    Raises:
        ModelError: these are not sparse rows of the network's features.
    """
    with Team(cores()) as team:
        return engine.evaluate(network, ((_checked(x, network), y) for x, y in batches), team, each)


def _checked(x: Features, network: Network) -> Csr:
    """Return rows of the features that the network takes."""
    features = network.shape.features
    if not isinstance(x, Csr) or x.shape[1] != features:
        kind = "sparse" if isinstance(x, Csr) else "dense"
        raise ModelError(
            f"the rows are {kind} ones of {x.shape[1]:,} features; the model takes {features:,} sparse ones"
        )
    return x
