"""Laws of reading in training: the plan counts what is held, a limit is kept or refused, and memory does not grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from support.forked import Forking
from support.learnable import write_shards

from shardtrain.arrays.csr import Csr
from shardtrain.errors import UsageError
from shardtrain.loader.memory import MAX_PREFETCH, MIN_PREFETCH, plan_reading
from shardtrain.loader.order import BLOCK_ROWS, WINDOW_BLOCKS
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.shards.layout import BLOCK_BYTES, Manifest, SplitEntry
from shardtrain.shards.manifest import write_manifest
from shardtrain.shards.write import ShardShape, new_shard

GIB = 1 << 30


@pytest.fixture(scope="module", params=["ngram", "sequence"])
def shards(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return open_shards(write_shards(tmp_path_factory.mktemp("shards") / "s", kind=request.param))


@pytest.mark.parametrize("shuffle", ["none", "blocks", "window"])
def test_the_plan_counts_the_bytes_of_the_arrays_that_are_held(shards: Shards, shuffle: str) -> None:
    plan = plan_reading(shards.train, 300, shuffle, batches=1, limit=GIB)
    x, _ = shards.train.rows(0, 300)
    given = 4 * 300 + (x.data.nbytes + x.indices.nbytes + 8 * 300 if isinstance(x, Csr) else 4 * x.size)
    assert plan.window_rows == (300 if shuffle == "window" else 0)
    assert plan.window_bytes == 0  # views of mapped files
    assert plan.batch_bytes == pytest.approx(given, rel=0.01)
    assert plan.prefetch_bytes == pytest.approx(given, rel=0.01)  # the split has no more rows
    window = "shuffles in windows of 300 rows, " if shuffle == "window" else ""
    assert str(plan).startswith(f"reading {window}prefetches up to 64 batches (")


@pytest.mark.parametrize("verify", [True, False], ids=["verified", "not verified"])
def test_a_window_is_counted_where_it_has_to_be_held(shards: Shards, verify: bool) -> None:
    with open_shards(shards.path, io="read", verify=verify) as read:
        x, y = read.train.rows(0, 300)
        stored = x.data.nbytes + x.indices.nbytes + 8 * 300 if isinstance(x, Csr) else x.nbytes
        plan = plan_reading(read.train, 300, "window", batches=1, limit=GIB)
        together = BLOCK_BYTES * (4 if isinstance(x, Csr) else 2) if verify else 0  # whole blocks of each array
        assert plan.window_bytes == pytest.approx(2 * (stored + y.nbytes + together), rel=0.01)


def test_a_limit_reduces_prefetching_and_below_the_minimum_it_is_refused(shards: Shards) -> None:
    most = plan_reading(shards.train, 4, "window", batches=1, limit=GIB)
    assert most.prefetch == MAX_PREFETCH
    fewer = plan_reading(shards.train, 4, "window", batches=1, limit=most.total_bytes - 1)
    assert MIN_PREFETCH <= fewer.prefetch < most.prefetch
    assert fewer.total_bytes < most.total_bytes
    with pytest.raises(UsageError, match=r"in total .*, more than memory_limit .* or choose a smaller batch_size"):
        plan_reading(shards.train, 4, "window", batches=1, limit=100)


def write_long(folder: Path, rows: int) -> None:
    """Shards of many short rows."""
    rng = np.random.default_rng(0)
    splits = {}
    for name, count in (("train", rows), ("validation", 1000)):
        x = Csr(
            rng.random(6 * count, np.float32),
            np.sort(rng.integers(0, 1000, (count, 6), np.int32)).ravel() // 6 * 6
            + np.tile(np.arange(6, dtype=np.int32), count),
            np.arange(0, 6 * count + 1, 6),
            (count, 1010),
        )
        y = (x.indices[::6] > 100).astype(np.int64)
        shape = ShardShape(
            kind="ngram", rows=count, num_features=1010, nonzeros=6 * count, num_classes=2, vocabulary_size=1010
        )
        with new_shard(folder / f"{name}-00000.h5", shape) as writer:
            writer.append(x, y, np.arange(count))
        counts = tuple(np.bincount(y, minlength=2).tolist())
        splits[name] = SplitEntry(examples=count, nonzeros=6 * count, class_counts=counts, shards=(writer.entry,))
    (folder / "vectorizer").mkdir()
    write_manifest(
        folder,
        Manifest(
            kind="ngram",
            num_features=1010,
            vocabulary_size=1010,
            class_names=("a", "b"),
            seed=0,
            fingerprint="f",
            splits=splits,
            files={},
            vectorizer={"fingerprint": "v"},
        ),
    )


TRAINING = """
import os, sys
from pathlib import Path
import keras
from shardtrain.runtime.memory import anonymous_bytes
from shardtrain.training.fit import fit
from shardtrain.training.options import FitOptions
from shardtrain.loader.shards import open_shards

class Weighing(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        print(anonymous_bytes(os.getpid()), flush=True)

folder, epochs, batch_size = sys.argv[1:]
options = FitOptions(model="linear", batch_size=int(batch_size), epochs=int(epochs), patience=99, learning_rate=1e-4)
fit(open_shards(folder), options, out=Path(folder, "run"), callbacks=[Weighing()])
"""


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("windows", "epochs", "batch_size"),
    [(2, 3, 8192), pytest.param(10, 10, 1024, marks=pytest.mark.slow)],
    ids=["a few", "ten of ten windows"],
)
def test_memory_does_not_grow_over_epochs(
    forked: Forking, tmp_path: Path, windows: int, epochs: int, batch_size: int
) -> None:
    write_long(tmp_path, windows * BLOCK_ROWS * WINDOW_BLOCKS)
    done = forked.run(TRAINING, tmp_path, epochs, batch_size)
    assert done.returncode == 0, done.stderr.decode()
    weighed = [int(line) for line in done.stdout.split()]
    assert len(weighed) == epochs
    if not weighed[0]:
        pytest.skip("this system does not tell a process's anonymous memory")
    assert weighed[-1] <= weighed[0] * 1.02
