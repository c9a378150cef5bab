"""Capture and restore what differs between workers: random states, and what the metrics of an epoch have summed up.

All else of a training (weights, optimizer, history) is the same in all of them, and is the chief's to save. Resumed
with the same number of workers, each continues with its own state, so the result is the same in every bit. Resumed with
another number, the chief keeps its random state, and each other worker's is made from the chief's and its
index, as at the beginning of a training, where the chief's is that of a training in one process; the chief takes over
all sums.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from shardtrain.training.distribution.replicas import Replicas

State = dict[str, Any]  # JSON values


def capture(model: keras.Model, metrics: Sequence[Any], replicas: Replicas) -> State:
    """Capture the state of this worker; `metrics` are the variables in which metrics are summed up."""
    version, words, gauss = random.getstate()
    _, key, position, has_gauss, cached = np.random.get_state()
    return {
        "seeds": [values[0].tolist() for values in (replicas.values(each) for each in _seeds(model))],
        "metrics": [[each.ravel().tolist() for each in replicas.values(variable)] for variable in metrics],
        "python": [version, list(words), gauss],
        "numpy": [np.asarray(key).tolist(), int(position), int(has_gauss), float(cached)],
    }


def summed(states: Sequence[State], described: Sequence[Sequence[Any]]) -> list[Any]:
    """Return what the metrics of all workers and devices have summed up.

    Args:
        states: of all workers, in order.
        described: [name, shape, type] of each variable.
    """
    totals = []
    for number, (_, shape, dtype) in enumerate(described):
        total = np.zeros(shape, dtype)
        for each in (values for state in states for values in state["metrics"][number]):
            total += np.array(each, dtype).reshape(shape)
        totals.append(total)
    return totals


def restore(
    model: keras.Model, metrics: Sequence[Any], replicas: Replicas, states: Sequence[State], totals: Sequence[Any]
) -> None:
    """Restore this worker's state, after the chief's was restored in all workers.

    Args:
        model: with the chief's random state.
        metrics: the variables in which metrics are summed up.
        replicas: the workers.
        states: of the workers that saved it; empty: it was one process.
        totals: sums of the metrics of all of them.
    """
    index = replicas.team.index
    if len(states) == replicas.team.size and all(len(each) == replicas.local for each in states[index]["metrics"]):
        mine = states[index]
        for variable, words in zip(_seeds(model), mine["seeds"], strict=True):
            replicas.assign(variable, [np.array(words, variable.dtype)] * replicas.local)
        for variable, values in zip(metrics, mine["metrics"], strict=True):
            replicas.assign(variable, [np.array(each, variable.dtype).reshape(variable.shape) for each in values])
        version, words, gauss = mine["python"]
        random.setstate((version, tuple(words), gauss))
        key, position, has_gauss, cached = mine["numpy"]
        np.random.set_state(("MT19937", np.array(key, np.uint32), position, has_gauss, cached))
        return
    for variable, total in zip(metrics, totals, strict=True):
        rest = [np.zeros_like(total)] * (replicas.local - 1)
        replicas.assign(variable, [total if index == 0 else np.zeros_like(total), *rest])
    diverge(model, replicas)


def diverge(model: keras.Model, replicas: Replicas) -> None:
    """Give this worker a random state of its own, made from the chief's, which the model has, and its index."""
    index = replicas.team.index
    if index == 0:
        return
    for variable in _seeds(model):
        words = replicas.values(variable)[0]
        seed = int.from_bytes(hashlib.sha256(f"{words.tolist()} {index}".encode()).digest()[:4]) >> 1
        replicas.assign(variable, [np.array([seed, *words[1:]], words.dtype)] * replicas.local)  # the count stays
    digest = hashlib.sha256(f"{random.getstate()} {index}".encode()).digest()
    random.seed(digest)
    np.random.seed(np.frombuffer(digest, np.uint32))


def _seeds(model: keras.Model) -> list[Any]:
    """Return the variables from which layers draw random numbers."""
    return [each for each in model.variables if each.path.endswith("seed_generator_state")]
