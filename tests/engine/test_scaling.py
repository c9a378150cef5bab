"""Laws of naive-Bayes scaling: the published formula, and weights that take features as they are once it is folded."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import random as random_rows

from shardtrain.arrays.csr import Csr
from shardtrain.engine.network import Network, Shape, Team
from shardtrain.engine.optimizers import OPTIMIZERS
from shardtrain.engine.scaling import naive_bayes_scales
from shardtrain.engine.trainer import Trainer


def rows_of(rows: int, features: int, classes: int, seed: int) -> tuple[Csr, Any]:
    found = random_rows(rows, features, 0.2, "csr", np.float32, rng=np.random.default_rng(seed))
    found.sort_indices()
    y = np.random.default_rng(seed).integers(0, classes, rows)
    return Csr(found.data, found.indices.astype(np.int32), found.indptr, found.shape), y


def batches_of(x: Csr, y: Any, size: int) -> Iterator[tuple[Csr, Any]]:
    for start in range(0, len(y), size):
        stop = min(start + size, len(y))
        yield x.rows(start, stop), y[start:stop]


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 60),
    features=st.integers(1, 30),
    classes=st.integers(2, 5),
    size=st.integers(1, 70),
    seed=st.integers(0, 9),
)
def test_scales_are_the_largest_log_count_ratios_and_rows_have_length_1(
    rows: int, features: int, classes: int, size: int, seed: int
) -> None:
    x, y = rows_of(rows, features, classes, seed)
    found = naive_bayes_scales(batches_of(x, y, size), features, classes)
    there = (x.toarray() != 0).astype(float)
    ratios = []
    for each in range(classes):
        inside, outside = 1 + there[y == each].sum(axis=0), 1 + there[y != each].sum(axis=0)
        ratios.append(np.log((inside / inside.sum()) / (outside / outside.sum())))
    expected = np.abs(ratios).max(axis=0) * (there.sum(axis=0) > 0)
    length = np.sqrt(np.mean(np.sum((x.toarray() * expected) ** 2, axis=1)))
    np.testing.assert_allclose(found, expected / (length or 1), rtol=1e-5, atol=1e-7)
    whole = naive_bayes_scales([(x, y)], features, classes)
    assert found.tobytes() == whole.tobytes()  # whatever the batches


@pytest.mark.parametrize("layers", [1, 2])
def test_folded_weights_say_of_rows_what_scales_and_weights_said(layers: int) -> None:
    x, y = rows_of(200, 50, 3, 1)
    network = Network(Shape.of(50, 3, layers, 8))
    network.initialize(1)
    network.scales = naive_bayes_scales([(x, y)], 50, 3)
    network.scales[7] = 0
    with Team(2) as team:
        Trainer(network, OPTIMIZERS["lazy-adam"], team, seed=1, dropout=0.2).advance([(x, y)] * 5, [0.01] * 5)
        _, _, before = network.evaluate(x, y, team)
        before = before.copy()
        network.fold_scales()
        _, _, after = network.evaluate(x, y, team)
    np.testing.assert_allclose(after, before, atol=1e-6)
    assert not network.wide[7].any()  # a feature that never occurred says nothing


def test_a_training_on_scaled_rows_is_one_on_rows_that_were_scaled_before() -> None:
    x, y = rows_of(200, 50, 3, 2)
    scales = naive_bayes_scales([(x, y)], 50, 3)
    scaled = Csr(x.data * scales[x.indices], x.indices, x.indptr, x.shape)
    networks = []
    for rows, by in ((x, scales), (scaled, None)):
        network = Network(Shape.of(50, 3, 2, 8))
        network.initialize(1)
        network.scales = by
        with Team(2) as team:
            trainer = Trainer(network, OPTIMIZERS["adagrad"], team, seed=1, dropout=0.2, clip_norm=0.5)
            trainer.advance([(rows, y)] * 5, [0.1] * 5)
        networks.append(network)
    assert networks[0].wide.tobytes() == networks[1].wide.tobytes()
    assert networks[0].small.tobytes() == networks[1].small.tobytes()
