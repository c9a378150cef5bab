"""Laws of the PyDataset: every batch once per epoch and in order, for any threads and processes, whoever asks."""

from __future__ import annotations

import multiprocessing
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from support.batches import array, assert_same_batches
from support.forked import Forking
from support.learnable import write_shards
from support.sampled import sampled

from shardtrain.errors import CorruptShardError
from shardtrain.loader.shards import open_shards
from shardtrain.loader.split import Split
from shardtrain.models.pydataset import to_pydataset

SIZE, EPOCHS = 20, 2
ORDER = {"seed": 5, "shuffle": "window"}

# Keras' own `fit`, with a model that records what its training step is given.
FIT = """
import sys
import keras, numpy as np, tensorflow as tf
from shardtrain.loader.shards import open_shards
from shardtrain.models.pydataset import to_pydataset

class Recorder(keras.Model):
    def call(self, x):
        return x

    def train_step(self, data):
        x, y = data
        rows.append((tf.sparse.to_dense(x) if isinstance(x, tf.SparseTensor) else x).numpy())
        labels.append(y.numpy())
        return {"steps": tf.constant(len(labels))}

folder, out, *ways = sys.argv[1:]
found = {}
for way in ways:
    workers, processes = int(way.split("-")[0]), way.endswith("True")
    rows, labels = [], []
    model = Recorder()
    model.compile(run_eagerly=True)
    data = to_pydataset(
        open_shards(folder).train, 20, seed=5, shuffle="window", workers=workers, use_multiprocessing=processes
    )
    model.fit(data, epochs=2, shuffle=False, verbose=0)
    name = f"{workers}-{processes}"
    found[f"rows-{name}"], found[f"labels-{name}"] = np.concatenate(rows), np.concatenate(labels)
    found[f"sizes-{name}"] = np.array([len(batch) for batch in labels])
np.savez(out, **found)
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shards")
    return {kind: write_shards(root / kind, kind=kind, rows=230) for kind in ("ngram", "sequence")}


@pytest.fixture
def ngrams(folders: dict[str, Path]) -> Split:
    return open_shards(folders["ngram"]).train


EVERY_WAY = [(workers, processes) for workers in (1, 2, 4) for processes in (False, True)]


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("kind", "ways"), sampled([("ngram", [(4, False), (2, True)]), ("ngram", EVERY_WAY), ("sequence", EVERY_WAY)])
)
def test_fit_gets_every_batch_once_per_epoch_and_in_order_whatever_the_workers(
    kind: str, ways: list[tuple[int, bool]], folders: dict[str, Path], forked: Forking, tmp_path: Path
) -> None:
    names = [f"{workers}-{processes}" for workers, processes in ways]
    done = forked.run(FIT, folders[kind], tmp_path / "found.npz", *names)
    assert done.returncode == 0, done.stderr.decode()
    assert b"UserWarning" not in done.stderr
    split = open_shards(folders[kind]).train
    expected = [batch for epoch in range(EPOCHS) for batch in split.batches(SIZE, epoch=epoch, **ORDER)]
    with np.load(tmp_path / "found.npz") as found:
        assert len(found.files) == 3 * len(ways)
        for name in names:
            assert found[f"sizes-{name}"].tolist() == [len(y) for _, y in expected]
            np.testing.assert_array_equal(found[f"labels-{name}"], np.concatenate([y for _, y in expected]))
            np.testing.assert_array_equal(found[f"rows-{name}"], np.concatenate([array(x) for x, _ in expected]))


@pytest.mark.parametrize("workers", [1, 2, 8])
@pytest.mark.parametrize("shuffle", ["none", "blocks", "window", "global"])
def test_threads_that_ask_at_the_same_time_get_their_batches(shuffle: str, workers: int, ngrams: Split) -> None:
    data = to_pydataset(ngrams, SIZE, seed=5, shuffle=shuffle, workers=workers)
    expected = list(ngrams.batches(SIZE, seed=5, shuffle=shuffle))
    with warnings.catch_warnings(), ThreadPoolExecutor(8) as threads:
        warnings.simplefilter("ignore")  # of 8 threads with a dataset for fewer
        assert_same_batches(threads.map(data.__getitem__, range(len(data))), expected)


def test_as_many_threads_as_workers_are_never_warned_of_an_order(ngrams: Split) -> None:
    data = to_pydataset(ngrams, SIZE, workers=4, **ORDER)
    for epoch in range(3):
        with ThreadPoolExecutor(4) as threads:  # a warning is an error
            found = list(threads.map(data.__getitem__, range(len(data))))
        assert_same_batches(found, ngrams.batches(SIZE, epoch=epoch, **ORDER))
        data.on_epoch_end()


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_a_pickled_copy_gives_the_batches_of_the_epoch_that_it_was_pickled_in(
    kind: str, folders: dict[str, Path]
) -> None:
    split = open_shards(folders[kind]).train
    data = to_pydataset(split, SIZE, **ORDER)
    data[3], data.on_epoch_begin(), data.on_epoch_end()
    copy = pickle.loads(pickle.dumps(data))
    assert_same_batches([copy[index] for index in range(len(copy))], split.batches(SIZE, epoch=1, **ORDER))


def test_a_worker_of_keras_sends_arrays_that_arrive_as_sparse_tensors(
    ngrams: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = to_pydataset(ngrams, SIZE, **ORDER)
    monkeypatch.setattr(multiprocessing.current_process(), "name", "Keras_worker_ForkPoolWorker-1")
    sent = [data[index] for index in (1, 4, 7)]  # what one of three workers is asked for
    assert not any(isinstance(x, tf.SparseTensor) for x, _ in sent)
    arrived = pickle.loads(pickle.dumps(sent))
    assert all(isinstance(x, tf.SparseTensor) for x, _ in arrived)
    expected = list(ngrams.batches(SIZE, **ORDER))
    assert_same_batches(arrived, [expected[index] for index in (1, 4, 7)])


def test_looking_at_the_first_batches_as_fit_does_is_no_epoch(ngrams: Split) -> None:
    data = to_pydataset(ngrams, SIZE, **ORDER)
    data[0], data[1], data.on_epoch_end()  # the types of the first two, and the reset before the first epoch
    assert_same_batches([data[0]], [next(iter(ngrams.batches(SIZE, epoch=0, **ORDER)))])


def test_skipped_rows_that_leave_nothing_of_a_batch_are_named(folders: dict[str, Path]) -> None:
    class Missing:
        name = "train"
        num_examples = 40

        def batches(self, *_: Any, **__: Any) -> Any:
            yield np.zeros((1, 1), np.float32), np.zeros(1, np.uint8)

    from shardtrain.models.pydataset import EpochReader

    reader = EpochReader(Missing(), 20, {})  # type: ignore[arg-type]
    reader.read(0, epoch=0, ahead=0, kept=0)
    with pytest.raises(CorruptShardError, match="all its rows are damaged"):
        reader.read(1, epoch=0, ahead=0, kept=0)


def test_a_pydataset_goes_to_the_next_epoch_when_keras_says_so(ngrams: Split) -> None:
    data = to_pydataset(ngrams, 50, seed=5, shuffle="window")
    for epoch in range(3):
        for _ in range(2):  # looking again is not a new epoch
            batches = [data[index] for index in range(len(data))]
            assert_same_batches(batches, ngrams.batches(50, seed=5, epoch=epoch, shuffle="window"))
        data.on_epoch_end()


def test_a_pydataset_gives_the_same_batch_in_any_order_of_asking_and_warns_of_the_cost(ngrams: Split) -> None:
    expected = list(ngrams.batches(50, seed=5, shuffle="window"))
    data = to_pydataset(ngrams, 50, seed=5, shuffle="window")
    with pytest.warns(UserWarning, match="pass shuffle=False"):
        found = {index: data[index] for index in (3, 1, 2, 4, 0)}
    assert_same_batches([found[index] for index in range(5)], expected)
    with pytest.raises(IndexError, match="batch 5 of an epoch of 5"):
        data[5]
