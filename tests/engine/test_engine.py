"""Laws of the fused engine: it is Keras' training, with the same bits for any number of threads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import random as random_rows
from support.forked import Forking
from support.sampled import sampled

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples
from shardtrain.engine import kernels
from shardtrain.engine.keras_file import read_keras, write_keras
from shardtrain.engine.network import Network, Shape, Team
from shardtrain.engine.optimizers import OPTIMIZERS
from shardtrain.engine.trainer import Trainer
from shardtrain.errors import ModelError

OPTIONS = st.fixed_dictionaries(
    {
        "dropout": st.sampled_from([0.0, 0.3]),
        "clip_norm": st.sampled_from([None, 0.01, 1e9]),
        "weighted": st.booleans(),
    }
)


def batches_of(sizes: Sequence[int], features: int, classes: int, seed: int = 0) -> list[Examples]:
    """Batches of sparse rows, some of them empty, with columns in any frequency."""
    rng = np.random.default_rng(seed)
    found: list[Examples] = []
    for rows in sizes:
        x = random_rows(rows, features, 0.15, "csr", np.float32, random_state=rng)
        x.sort_indices()
        y = rng.integers(0, classes, rows).astype(np.uint16)
        found.append((Csr(x.data, x.indices, x.indptr.astype(np.int64), x.shape), y))
    return found


def trained(
    batches: Sequence[Examples],
    shape: Shape,
    optimizer: str,
    threads: int,
    groups: Sequence[int],
    *,
    weighted: bool = False,
    **options: Any,
) -> tuple[list[float], Network, Trainer]:
    network = Network(shape)
    network.initialize(7)
    weights = np.linspace(0.5, 2, max(shape.dims[-1], 2)) if weighted else ()
    losses: list[float] = []
    with Team(threads) as team:
        trainer = Trainer(network, OPTIMIZERS[optimizer], team, seed=3, class_weights=weights, **options)
        start = 0
        for size in groups:
            found, _ = trainer.advance(batches[start : start + size], [0.05] * size)
            losses += found
            start += size
    return losses, network, trainer


@settings(max_examples=15, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=2, max_size=5),
    layers=st.integers(1, 3),
    units=st.sampled_from([1, 5, 64]),
    classes=st.sampled_from([2, 3, 17]),
    optimizer=st.sampled_from(sorted(OPTIMIZERS)),
    options=OPTIONS,
)
def test_threads_and_groups_change_no_bit(
    sizes: list[int], layers: int, units: int, classes: int, optimizer: str, options: dict[str, Any]
) -> None:
    shape = Shape.of(50, classes, layers, units)
    batches = batches_of(sizes, 50, classes)
    expected, network, trainer = trained(batches, shape, optimizer, 1, [1] * len(sizes), **options)
    for threads, groups in ((2, [len(sizes)]), (3, [1, len(sizes) - 1]), (8, [len(sizes)])):
        losses, other, others = trained(batches, shape, optimizer, threads, groups, **options)
        assert losses == expected
        pairs = zip(
            (network.wide, network.small, *trainer.state), (other.wide, other.small, *others.state), strict=True
        )
        assert all(np.array_equal(one, two) for one, two in pairs)


def keras_losses(
    batches: Sequence[Examples], network: Network, optimizer: str, weights: Any, clip_norm: float | None
) -> tuple[list[float], list[Any]]:
    """Train a dense model of Keras' own layers from the same weights on the same batches."""
    import keras

    dims, makers = network.shape.dims, {"sgd": "SGD", "adagrad": "Adagrad", "adam": "Adam"}
    last = "sigmoid" if dims[-1] == 1 else "softmax"
    layers = [keras.layers.Dense(width, "relu") for width in dims[:-1]] + [keras.layers.Dense(dims[-1], last)]
    model = keras.Sequential([keras.Input((network.shape.features,)), *layers])
    model.set_weights([array for pair in zip(network.kernels, network.biases, strict=True) for array in pair])
    maker = getattr(keras.optimizers, makers[optimizer])
    loss = "binary_crossentropy" if dims[-1] == 1 else "sparse_categorical_crossentropy"
    model.compile(maker(0.05, global_clipnorm=clip_norm), loss)
    losses = []
    for x, y in batches:
        assert isinstance(x, Csr)
        sample = None if not len(weights) else np.asarray(weights, np.float32)[y]
        losses.append(float(model.train_on_batch(x.toarray(), y.astype(np.int32), sample_weight=sample)))
        model.reset_metrics()
    return losses, model.get_weights()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("optimizer", "layers", "classes", "weighted", "clip_norm"),
    sampled(
        [
            ("sgd", 2, 3, False, None),
            ("adagrad", 2, 2, True, None),
            ("adagrad", 3, 14, False, 0.1),
            ("adam", 1, 2, False, 0.1),
            ("adam", 2, 3, True, None),
            ("adagrad", 1, 3, False, None),
        ],
        (2,),
    ),
)
def test_two_hundred_steps_are_those_of_dense_keras(
    optimizer: str, layers: int, classes: int, weighted: bool, clip_norm: float | None
) -> None:
    shape = Shape.of(60, classes, layers, 16)
    batches = batches_of([32] * 199 + [9], 60, classes)
    network = Network(shape)
    network.initialize(7)
    weights = np.linspace(0.5, 2, max(shape.dims[-1], 2)) if weighted else ()
    expected, theirs = keras_losses(batches, network, optimizer, weights, clip_norm)
    losses, ours, _ = trained(batches, shape, optimizer, 2, [50] * 4, weighted=weighted, clip_norm=clip_norm)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    found = [array for pair in zip(ours.kernels, ours.biases, strict=True) for array in pair]
    for one, two in zip(found, theirs, strict=True):
        np.testing.assert_allclose(one, two, rtol=2e-3, atol=2e-4)


@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 1000))
def test_a_transposed_batch_has_the_entries_of_every_column_by_rows(rows: int, features: int, seed: int) -> None:
    ((x, _),) = batches_of([rows], features, 2, seed)
    assert isinstance(x, Csr)
    table, spans = np.full(features, -1, np.int32), spans_of(x.indptr)
    slots, starts = np.empty(len(x.data), np.int32), np.empty(len(x.data) + 1, np.int32)
    places, entries = np.empty(len(x.data), np.int32), np.empty(len(x.data), np.float32)
    count = kernels.transpose(spans, x.indices, x.data, 0, rows, table, slots, starts, places, entries)
    dense = x.toarray()
    assert sorted(slots[:count]) == np.flatnonzero(dense.any(axis=0)).tolist()
    for slot in range(count):
        start, stop = starts[slot], starts[slot + 1]
        assert places[start:stop].tolist() == np.flatnonzero(dense[:, slots[slot]]).tolist()
        np.testing.assert_array_equal(entries[start:stop], dense[places[start:stop], slots[slot]])
    assert (table == -1).all()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.75])
def test_dropout_drops_its_share_and_scales_the_rest(share: float) -> None:
    threshold, scale = np.uint32(share * 2**32), np.float32(1 / (1 - share))
    kept = []
    for seed in (5, 6):
        indices, values = np.arange(200_000, dtype=np.int32), np.arange(1, 200_001, dtype=np.float32)
        spans = spans_of(np.arange(0, 200_001, 50))
        kernels.drop(indices, values, 0, 4000, spans, np.uint64(seed), threshold, scale)
        assert (spans[1:, 0] == spans[:-1, 1]).all()
        stop = spans[-1, 1]
        np.testing.assert_array_equal(values[:stop], (indices[:stop] + 1).astype(np.float32) * scale)
        rows = np.repeat(np.arange(4000), spans[:, 1] - spans[:, 0])
        np.testing.assert_array_equal(indices[:stop] // 50, rows)  # each row keeps entries of its own
        kept.append(np.isin(np.arange(200_000), indices[:stop]))
    dropped, again = ~kept[0], ~kept[1]
    assert np.mean(dropped) == pytest.approx(share, abs=0.005)
    assert np.mean(dropped[1:] & dropped[:-1]) == pytest.approx(share**2, abs=0.005)  # neighbours are independent
    assert np.mean(dropped & again) == pytest.approx(share**2, abs=0.005)


def spans_of(indptr: Any) -> Any:
    return np.stack([indptr[:-1], indptr[1:]], axis=1).astype(np.int64)


def test_a_loss_that_is_not_finite_is_seen() -> None:
    shape = Shape.of(10, 3, 2, 4)
    for value in (np.nan, np.inf):
        network = Network(shape)
        network.initialize(1)
        network.wide[:] = value
        with Team(1) as team:
            trainer = Trainer(network, OPTIMIZERS["sgd"], team, seed=1)
            (loss,), _ = trainer.advance(batches_of([40], 10, 3), [0.1])
        assert not np.isfinite(loss)


LOAD = """
import sys
import keras, numpy as np
for name in [name for name in sys.modules if name.partition(".")[0] == "shardtrain"]:
    del sys.modules[name]
sys.modules["shardtrain"] = None  # cannot be imported
keras.saving.get_custom_objects().clear()
for name in sys.argv[1:]:
    found = np.load(name + ".npz")
    model = keras.saving.load_model(name + ".keras")
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    print(np.abs(model.predict(found["x"], verbose=0) - found["outputs"]).max())
"""


@pytest.mark.heavy
def test_plain_keras_loads_the_model_and_predicts_the_same(forked: Forking, tmp_path: Path) -> None:
    names = []
    for classes, layers in ((2, 1), (3, 1), (2, 2), (4, 3)):
        network = Network(Shape.of(30, classes, layers, 8))
        network.initialize(classes)
        network.small += 0.1
        ((x, y),) = batches_of([50], 30, classes)
        with Team(2) as team:
            _, _, outputs = network.evaluate(x, y, team)  # type: ignore[arg-type]
        names.append(str(tmp_path / f"{classes}-{layers}"))
        np.savez(names[-1], x=x.toarray(), outputs=outputs)  # type: ignore[union-attr]
        for suffix in (".keras", ".again"):
            with open(names[-1] + suffix, "wb") as file:
                write_keras(file, network, name="mlp", dropout=0.2 if layers > 1 else 0.0)
        assert Path(names[-1] + ".keras").read_bytes() == Path(names[-1] + ".again").read_bytes()
        again = read_keras(Path(names[-1] + ".keras"), network.shape)
        assert all(np.array_equal(one, two) for one, two in zip(again.kernels, network.kernels, strict=True))
        assert all(np.array_equal(one, two) for one, two in zip(again.biases, network.biases, strict=True))
    done = forked.run(LOAD, *names)
    assert done.returncode == 0, done.stderr.decode()
    errors = [float(word) for word in done.stdout.split()]
    assert len(errors) == 4
    assert max(errors) < 1e-6


def test_a_file_of_another_model_is_refused(tmp_path: Path) -> None:
    network = Network(Shape.of(30, 3, 2, 8))
    with open(tmp_path / "a.keras", "wb") as file:
        write_keras(file, network, name="mlp", dropout=0.2)
    for shape in (Shape.of(31, 3, 2, 8), Shape.of(30, 3, 3, 8), Shape.of(30, 3, 1, 8)):
        with pytest.raises(ModelError, match=r"a\.keras' (has weights of the shape|cannot be read as a model)"):
            read_keras(tmp_path / "a.keras", shape)
    (tmp_path / "a.keras").write_bytes((tmp_path / "a.keras").read_bytes()[:-200])
    with pytest.raises(ModelError, match="cannot be read as a model"):
        read_keras(tmp_path / "a.keras", network.shape)
