"""Read one split of a folder of shards, as rows or as the batches of an epoch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shardtrain.arrays.buffers import BufferPool
from shardtrain.arrays.rows import Examples
from shardtrain.loader.batches import Batches
from shardtrain.loader.options import BatchOptions
from shardtrain.loader.reader import SplitReader
from shardtrain.options import with_options


class Split(SplitReader):
    """The rows of one split, numbered through its shards, and their batches.

    Args:
        batch_buffers: for batches that are copies; shared by all splits of a folder.
        reader: keywords of `SplitReader`.
    """

    def __init__(self, *args: Any, batch_buffers: BufferPool, **reader: Any) -> None:
        super().__init__(*args, **reader)
        self.batch_buffers = batch_buffers

    def steps_per_epoch(self, batch_size: int, drop_remainder: bool = False) -> int:
        """Count the batches of an epoch, including a shorter last one unless `drop_remainder`."""
        return self.num_examples // batch_size if drop_remainder else -(-self.num_examples // batch_size)

    @with_options(BatchOptions)
    def batches(self, options: BatchOptions) -> Batches:
        """Return the batches of one epoch, each (x, y); the keywords are those of `BatchOptions`."""
        return Batches(self, options, self.batch_buffers)

    def generator(self, batch_size: int, *, seed: int = 0, shuffle: str = "none") -> Iterator[Examples]:
        """Yield batches endlessly, epoch after epoch, including shorter last ones, as Keras expects of generators."""
        epoch = 0
        while True:
            yield from self.batches(batch_size, seed=seed, epoch=epoch, shuffle=shuffle)
            epoch += 1
