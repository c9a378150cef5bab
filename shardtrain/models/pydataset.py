"""Show a split as a `keras.utils.PyDataset`, for `Model.fit` with any number of worker threads or processes.

The order of an epoch is a pure function of the seed, the epoch and the position, so any thread and any process can
compute batch `index`. Within a process batches are read in order under a lock, which is what reading is fast at: a
thread that is ahead of another leaves the other's batch for it. Tensors are made outside the lock.

A worker process opens the files itself, because locks and threads of its parent do not work in it, and returns arrays:
TensorFlow must not run in a fork. Sparse tensors are made where the arrays arrive. The cost: each process reads, and
compares with their checksums, all rows between those that it is asked for, so threads are the better choice.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from collections.abc import Generator
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples, Features
from shardtrain.errors import CorruptShardError
from shardtrain.loader.shards import open_split
from shardtrain.loader.split import Split
from shardtrain.models.adapters import label_array, model_array, sparse_parts, sparse_tensor

_LOOKED_AT = 2  # batches that Keras looks at before training, to learn their types
_SKIPPED_ROWS = 1 << 14  # that a worker process reads for nothing; beyond, starting at a position is cheaper
_KERAS_WORKER = "Keras_worker_"  # how Keras names its worker processes


class EpochReader:
    """Read the batches of an epoch for several threads, in order where they are requested nearly in order.

    Args:
        split: read by this reader only.
        order: keywords of `Split.batches` except the epoch and the position.
    """

    def __init__(self, split: Split, batch_size: int, order: dict[str, Any]) -> None:
        self._split = split
        self._batch_size = batch_size
        self._order = order
        self._lock = threading.Lock()
        self._epoch = -1
        self._next = 0  # the batch that the iterator yields next
        self._iterator: Generator[Examples, None, None] | None = None
        self._left: dict[int, Examples] = {}  # batches before `_next` that were not requested yet

    def read(self, index: int, *, epoch: int, ahead: int, kept: int) -> tuple[Examples, bool]:
        """Return batch `index` of an epoch, and whether it was out of order, which costs a window.

        Args:
            index: of the batch.
            epoch: from 0.
            ahead: batches that may be read past to reach this one.
            kept: how many of the batches that were read past are kept for other threads.
        """
        with self._lock:
            if index in self._left and epoch == self._epoch:
                return self._left.pop(index), False
            begun = self._iterator is not None and epoch == self._epoch
            apart = not (begun and 0 <= index - self._next <= ahead)
            if apart:
                self._start(max(0, index - kept), epoch)
            for passed in range(self._next, index):
                self._left[passed] = self._following()
                if len(self._left) > kept:
                    del self._left[min(self._left)]
            return self._following(), apart and begun and index > kept

    def _start(self, index: int, epoch: int) -> None:
        self._close()
        self._epoch, self._next = epoch, index
        self._iterator = iter(self._split.batches(self._batch_size, epoch=epoch, start_step=index, **self._order))

    def _following(self) -> Examples:
        assert self._iterator is not None
        try:
            batch = next(self._iterator)
        except StopIteration:
            raise CorruptShardError(
                f"a batch of '{self._split.name}' is missing, because all its rows are damaged; restore the files from "
                "a copy, or use larger batches"
            ) from None
        self._next += 1
        return batch

    def _close(self) -> None:
        if self._iterator is not None:
            self._iterator.close()
            self._iterator, self._left = None, {}

    def close(self) -> None:
        """Stop reading ahead."""
        with self._lock:
            self._close()


class SparseParts:
    """Components of a sparse tensor, which are one where they are unpickled."""

    def __init__(self, x: Csr) -> None:
        self.parts = sparse_parts(x)

    def __reduce__(self) -> tuple[Any, ...]:
        return tf.SparseTensor, self.parts


class ShardsPyDataset(keras.utils.PyDataset):
    """Batches of a split as a `keras.utils.PyDataset`; created by `to_pydataset`.

    It may be used by several threads and in forked processes, and pickled for other processes.
    """

    def __init__(self, split: Split, batch_size: int, *, dense: bool, order: dict[str, Any], **workers: Any) -> None:
        super().__init__(**workers)
        self._batch_size = batch_size
        self._dense = dense
        self._order = order
        self._epoch = 0
        self._steps = split.steps_per_epoch(batch_size, bool(order["drop_remainder"]))
        self._source = split.shards[0].path.parent, split.manifest, split.name, split.options
        self._enter(split, forked=False)

    def _enter(self, split: Split | None, *, forked: bool) -> None:
        """Begin the use in this process; without a split its files are opened when they are needed."""
        self._process = os.getpid()
        self._forked = forked
        self._split = split
        self._reader: EpochReader | None = None
        self._begun = False  # whether Keras has begun the epoch
        self._requested = 0  # batches in this process in this epoch
        self._opening = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        left = ("_split", "_reader", "_opening")
        return {name: value for name, value in self.__dict__.items() if name not in left}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._enter(None, forked=False)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> tuple[Any, npt.NDArray[np.int32]]:
        """Return batch `index` of this epoch; cheap in ascending order, otherwise its whole window is read again.

        Raises:
            IndexError: `index` is outside the epoch.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"batch {index} of an epoch of {len(self)} batches")
        if self._process != os.getpid():
            self._of_parent = self._reader, self._split  # kept: closing them here could wait for a lock for ever
            self._enter(None, forked=True)
        self._requested += 1
        worker = self._forked or multiprocessing.current_process().name.startswith(_KERAS_WORKER)
        kept = 0 if worker or self.use_multiprocessing else max(0, self.workers - 1)
        ahead = max(1, _SKIPPED_ROWS // self._batch_size) if worker else kept
        reader = self._opened(prefetch=not (worker or self.use_multiprocessing))
        (x, y), apart = reader.read(index, epoch=self._epoch, ahead=ahead, kept=kept)
        if apart and self._order["shuffle"] in ("window", "global"):
            self._warn(worker)
        return self._tensor(x, worker=worker), label_array(y)

    def _opened(self, *, prefetch: bool) -> EpochReader:
        """Return the reader of this process."""
        with self._opening:
            if self._reader is None:
                split = self._split or open_split(*self._source)
                order = self._order if prefetch else {**self._order, "prefetch": 0}
                self._reader = EpochReader(split, self._batch_size, order)
            return self._reader

    def _warn(self, worker: bool) -> None:
        """Warn of batches in another order; worker processes, which are new in each epoch, in the first one only."""
        if not worker or not self._epoch:
            warnings.warn(
                "batches are requested out of order, so windows are read repeatedly; Keras shuffles the batches of a "
                "PyDataset unless `fit` is called with shuffle=False: pass shuffle=False to `fit`, as the examples are "
                "already shuffled",
                stacklevel=3,
            )

    def _tensor(self, x: Features, *, worker: bool) -> Any:
        if not isinstance(x, Csr):
            return model_array(x)
        if self._dense:
            return x.toarray()
        return SparseParts(x) if worker else sparse_tensor(x)

    def on_epoch_begin(self) -> None:
        """Note that Keras begins the epoch."""
        self._begun = True

    def on_epoch_end(self) -> None:
        """Advance to the next epoch and its order; not where `fit` has only looked at the types of the first batches.

        `fit` resets a dataset before it begins the first epoch, as if an epoch had ended.
        """
        looked = self._requested == _LOOKED_AT < len(self) and not self._begun
        if not (looked and hasattr(keras.utils.PyDataset, "on_epoch_begin")):
            self._epoch += 1
        self._begun, self._requested = False, 0
        if self._reader is not None and self._process == os.getpid():
            self._reader.close()


def to_pydataset(
    split: Split,
    batch_size: int,
    *,
    dense: bool = False,
    seed: int = 0,
    shuffle: str = "none",
    drop_remainder: bool = False,
    workers: int = 1,
    use_multiprocessing: bool = False,
    max_queue_size: int = 10,
) -> ShardsPyDataset:
    """Create a `keras.utils.PyDataset` of (x, y) over the batches of a split; see also `to_tf_dataset`.

    Keras calls it at the end of every epoch, and the next pass has the order of the next epoch. Pass `shuffle=False` to
    `model.fit`: its default shuffles the order of batches, which is correct but slow to read. With any workers every
    batch is used once per epoch, in order.

    Args:
        split: for example `open_shards(path).train`.
        batch_size: rows per batch; the last batch may be shorter.
        dense: n-grams as dense arrays instead of `tf.SparseTensor`; no effect on other features.
        seed: determines the order of examples together with the epoch.
        shuffle: "none", "blocks", "window" or "global", as in `Split.batches`.
        drop_remainder: omit a shorter last batch.
        workers: threads, or processes, that make batches ahead; reading is already ahead with one.
        use_multiprocessing: processes instead of threads. Each opens the shards itself, in every epoch, and reads
            what the others read as well; threads cost less, because reading does not hold the GIL.
        max_queue_size: batches that Keras keeps ready with several workers.
    """
    order = {"seed": seed, "shuffle": shuffle, "drop_remainder": drop_remainder}
    keras_workers = {"workers": workers, "use_multiprocessing": use_multiprocessing, "max_queue_size": max_queue_size}
    return ShardsPyDataset(split, batch_size, dense=dense, order=order, **keras_workers)
