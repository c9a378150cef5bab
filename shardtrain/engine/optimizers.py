"""The optimizers of the fused engine: what they keep of each weight, and the rate of a step.

SGD and Adagrad (Duchi, Hazan and Singer, JMLR 2011) move a weight only where its gradient is not 0, so steps that touch
the rows of features that occur are those of Keras' dense ones. Adam (Kingma and Ba, ICLR 2015) moves every weight in
every step, and is computed so. Two optimizers differ from Keras' by design:

    row-adagrad    one number per row of a kernel, the sum of the mean squares of its gradients, as in DLRM (Naumov and
                   others, 2019): a fraction of Adagrad's memory and arithmetic
    lazy-adam      Adam for the rows that occur in a batch; moments of the others do not decay
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from shardtrain.engine import kernels
from shardtrain.engine.network import Floats, Network

INITIAL_SUM = 0.1  # of squares, as Keras' Adagrad begins


@dataclass(frozen=True)
class Optimizer:
    """An optimizer.

    Attributes:
        name: for users.
        code: for the kernels.
        numbers: that it keeps of each weight.
        per_row: whether it keeps them of each row of a kernel instead.
        initial: value of these numbers at first.
    """

    name: str
    code: int
    numbers: int
    per_row: bool = False
    initial: float = 0.0

    def state(self, network: Network) -> tuple[Floats, Floats, Floats, Floats]:
        """Return what it keeps at first: the first and second number of the wide kernel, then of the other weights."""
        found = []
        for weights in (network.wide, network.small):
            for number in range(2):
                rows, width = weights.shape if number < self.numbers else (1, weights.shape[1])
                found.append(np.full((rows, 1 if self.per_row else width), self.initial, np.float32))
        return tuple(found)  # type: ignore[return-value]

    def num_bytes(self, features: int, width: int) -> int:
        """Return the bytes that it keeps of a kernel."""
        return 4 * self.numbers * features * (1 if self.per_row else width)

    def rate(self, rate: float, step: int) -> float:
        """Return the rate of step number `step`, from 1: of Adam with the correction for its first steps."""
        if self.code not in (kernels.ADAM, kernels.LAZY_ADAM):
            return rate
        return rate * math.sqrt(1 - float(kernels.BETA_2) ** step) / (1 - float(kernels.BETA_1) ** step)


OPTIMIZERS = {
    each.name: each
    for each in (
        Optimizer("sgd", kernels.SGD, 0),
        Optimizer("adagrad", kernels.ADAGRAD, 1, initial=INITIAL_SUM),
        Optimizer("row-adagrad", kernels.ROW_ADAGRAD, 1, per_row=True, initial=INITIAL_SUM),
        Optimizer("adam", kernels.ADAM, 2),
        Optimizer("lazy-adam", kernels.LAZY_ADAM, 2),
    )
}
