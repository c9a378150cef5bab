"""Compile the kernels of this room, which takes about ten seconds where they have not been used before."""

from __future__ import annotations

import numpy as np

from shardtrain.arrays.csr import Csr
from shardtrain.engine.network import Network, Shape, Team
from shardtrain.engine.optimizers import OPTIMIZERS
from shardtrain.engine.scaling import naive_bayes_scales
from shardtrain.engine.trainer import Trainer
from shardtrain.runtime.process import end_with_parent

_FEATURES = 2


def compile_kernels() -> None:
    """Compile what a training calls: train networks of two rows, and evaluate them."""
    y = np.array([0, 1], np.uint32)
    x = Csr(np.ones(2, np.float32), np.array([0, 1], np.int32), np.array([0, 1, 2]), (2, _FEATURES))
    for array in (x.data, x.indices):
        array.flags.writeable = False  # as those of shards are; other ones are compiled for alone
    for classes, layers in ((3, 2), (2, 1)):  # those that take steps in different ways
        network = Network(Shape.of(_FEATURES, classes, layers, 1))
        with Team(1) as team:
            network.evaluate(x, y, team)
            network.scales = naive_bayes_scales([(x, y)], _FEATURES, classes)
            Trainer(network, OPTIMIZERS["lazy-adam"], team, seed=0, dropout=0.5).advance([(x, y)], [0.0])


if __name__ == "__main__":
    end_with_parent()
    compile_kernels()
