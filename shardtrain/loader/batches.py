"""Executes a plan with a reader: windows are read, mixed where the plan says so, and cut into batches.

A batch of neighbouring rows of one shard is a view of the mapped file. Where rows are mixed, some batches at a time are
gathered from the mapped files into a buffer that fits the processor's cache, and are views of it. A
background thread does this, and the verifying, ahead of the consumer; memory is the batches that are ahead.

Batch k holds the positions [k * size, (k + 1) * size) of the plan, also where damaged rows are left out of it: then it
is shorter, or missing if nothing is left, and all others are as they always were.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.buffers import BufferPool
from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples, Features, join_examples, slice_rows
from shardtrain.errors import CorruptShardError, UsageError
from shardtrain.loader.options import BatchOptions
from shardtrain.loader.order import BLOCK_ROWS, EpochPlan, Window
from shardtrain.loader.reader import SplitReader
from shardtrain.runtime.prefetch import prefetched
from shardtrain.runtime.progress import say
from shardtrain.shards.shard import Mask, Shard, runs

GATHERED_ROWS = 4096  # at a time: 2 MB of 256 token ids or of n-grams, which stay in the cache until they are used
READERS = 8  # blocks that are read at a time where files are not mapped


@dataclass(frozen=True)
class Piece:
    """Rows of an epoch that follow each other; fewer than `positions` where some were left out."""

    positions: int
    x: Features
    y: npt.NDArray[Any]

    def between(self, start: int, stop: int) -> Examples:
        """Positions [start, stop) of a part from which nothing was left out, or all of it."""
        if (start, stop) == (0, self.positions):
            return self.x, self.y
        return slice_rows(self.x, start, stop), self.y[start:stop]


class Batches:
    """One epoch of (x, y) batches; `len` is the number of steps from `start_step` on, and every `iter` begins there.

    Attributes:
        plan: the order of rows.
        windows_ahead: windows that are being read before they are asked for.
        dropped: rows that the latest iteration left out so far, because they are damaged.
    """

    def __init__(self, split: SplitReader, options: BatchOptions, buffers: BufferPool) -> None:
        self.split = split
        self.options = chosen = options
        self.dropped = 0
        self._buffers = buffers
        size = chosen.batch_size
        # whole batches in a block: then batches of contiguous rows are views, never joined from two blocks
        mixing = chosen.shuffle in ("window", "global")
        self.plan = EpochPlan(
            num_rows=split.num_examples,
            mode=chosen.shuffle,
            seed=chosen.seed,
            epoch=chosen.epoch,
            block_rows=BLOCK_ROWS if mixing else -(-BLOCK_ROWS // size) * size,
        )
        self.windows_ahead = 1 if mixing else READERS
        # batches made in one step: no more than half of what may be ahead, so that two steps overlap
        self._together = max(1, min(GATHERED_ROWS // size, chosen.prefetch // 2 if chosen.prefetch else GATHERED_ROWS))

    def __len__(self) -> int:
        rows, size = self.split.num_examples, self.options.batch_size
        steps = rows // size if self.options.drop_remainder else -(-rows // size)
        return max(0, steps - self.options.start_step)

    def __iter__(self) -> Generator[Examples, None, None]:
        groups = self._groups()
        if self.options.prefetch and self._has_work:
            groups = prefetched(groups, max(1, self.options.prefetch // self._together))
        with closing(groups):
            for group in groups:
                yield from group

    @property
    def _has_work(self) -> bool:
        """Whether making a batch takes time: contiguous rows of files that are in memory and verified are views."""
        mixing = self.plan.mode in ("window", "global")
        return mixing or self.options.as_int32 or self.split.larger_than_memory or not self.split.touched

    def _groups(self) -> Generator[list[Examples], None, None]:
        """The batches, some at a time."""
        size = self.options.batch_size
        left = min(len(self) * size, self.split.num_examples - self.options.start_step * size)  # positions to come
        held: list[Examples] = []  # less than one batch, waiting for more rows
        missing = size
        self.dropped = 0
        for part in self._parts() if left > 0 else ():
            group: list[Examples] = []
            position, stop = 0, min(part.positions, left)
            left -= stop
            while position < stop:
                following = min(position + missing, stop)
                held.append(part.between(position, following))
                missing -= following - position
                position = following
                if not missing or (position == stop and not left):
                    x, y = join_examples(held)
                    held, missing = [], size
                    if len(y):
                        group.append((x, y))
            yield group
            if not left:
                break
        if self.dropped == self.split.num_examples:
            raise CorruptShardError(
                f"all {self.dropped:,} rows of '{self.split.name}' are damaged, so nothing is left; restore the files "
                "from a copy or rebuild the shards"
            )
        if self.dropped:
            say(f"{self.dropped:,} damaged rows of '{self.split.name}' were left out of epoch {self.options.epoch + 1}")

    def _parts(self) -> Iterator[Piece]:
        """All rows from `start_step` on; no part with rows left out reaches over the end of a batch."""
        split, start = self.split, self.options.start_step * self.options.batch_size
        everywhere = self.plan.mode == "global"
        if everywhere and split.larger_than_memory and not all(file.mapped for file in split.files):
            raise UsageError(
                f"shuffle 'global' would hold all of '{split.name}' in memory, which is too small for it, because the "
                "files are not mapped; choose the shuffle 'window', or map them with --io map (in Python io='map')"
            )
        split.check_unchanged()
        # what is read ahead of a block that has another place in the epoch would be gone again before its turn
        split.advise(random=split.larger_than_memory and not split.mapped and self.plan.mode != "none")
        reads = self.options.prefetch and not split.mapped and split.options.on_corrupt == "fail"
        pool = ThreadPoolExecutor(READERS, "shardtrain-read") if reads else None
        before: Loaded | None = None  # the window before, whose last batches may still be in use
        loaded: Loaded | None = None
        try:
            for window, rows in self._loading(start, pool):
                if loaded is not None and rows is not loaded:
                    loaded.finish()
                    if before is not None:
                        self._forget(before)
                    before = loaded
                first, loaded = loaded is None, rows
                yield from self._window_parts(loaded, window, max(window.start, start))
                if everywhere and first:  # all rows were read and verified from front to back
                    split.advise(random=True)
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
            for each in (before, loaded):
                if each is not None:
                    self._forget(each)
            split.block_buffers.clear()

    def _loading(self, start: int, pool: Executor | None) -> Iterator[tuple[Window, Loaded]]:
        """The windows from position `start` on with their rows; those of later windows are on their way already."""
        split = self.split
        coming: deque[tuple[Window, Loaded]] = deque()
        ask = pool is None and (split.larger_than_memory or not split.touched)  # the kernel, to begin to read
        for window in self.plan.windows(start):
            if coming and coming[-1][1].segments == window.segments:
                coming.append((window, coming[-1][1]))
            else:
                if coming and ask:
                    split.need(window.segments)
                coming.append((window, Loaded(split, window.segments, pool)))
            if len(coming) > self.windows_ahead:
                yield coming.popleft()
        yield from coming

    def _forget(self, loaded: Loaded) -> None:
        """Give pages back where they are in the way of what comes next."""
        if self.plan.mode != "global" and self.split.larger_than_memory:
            self.split.release(loaded.segments)

    def _window_parts(self, loaded: Loaded, window: Window, start: int) -> Iterator[Piece]:
        """The rows of one window from position `start` of the epoch on."""
        together = self._together if loaded.lost is None else 1
        for first, last in self._cuts(start, window.start + len(window), together):
            begin, end = first - window.start, last - window.start
            if window.order is not None:
                rows = window.order[begin:end]
                part = self._part(len(rows), *loaded.gather(rows, self._buffers))
            elif loaded.lost is None:
                for x, y in loaded.between(begin, end):
                    yield self._part(len(y), x, y)
                continue
            else:
                part = self._part(end - begin, *join_examples(list(loaded.between(begin, end))))
            self.dropped += part.positions - len(part.y)
            yield part

    def _part(self, positions: int, x: Features, y: npt.NDArray[Any]) -> Piece:
        if not self.options.as_int32:
            return Piece(positions, x, y)
        if not isinstance(x, Csr) and x.dtype.kind != "f":  # dense features are float32 anyway
            return Piece(positions, self._cast(x), self._cast(y))
        return Piece(positions, x, self._cast(y))

    def _cast(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        out = self._buffers.allocate(values.size, np.int32).reshape(values.shape)
        np.copyto(out, values, casting="unsafe")
        return out

    def _cuts(self, start: int, stop: int, batches: int) -> Iterator[tuple[int, int]]:
        """Positions [start, stop) in ranges that end where a batch does, each of up to so many batches."""
        size = self.options.batch_size
        while start < stop:
            end = min((start // size + batches) * size, stop)
            yield start, end
            start = end


class Loaded:
    """The rows of a window's segments, numbered through; read when they are asked for, or by a pool from now on.

    Attributes:
        segments: half-open row ranges of the split.
    """

    def __init__(self, split: SplitReader, segments: tuple[tuple[int, int], ...], pool: Executor | None = None) -> None:
        self.segments = segments
        self._split = split
        self._pieces = [piece for start, stop in segments for piece in split.pieces(start, stop)]
        self._starts = list(accumulate((last - first for _, first, last in self._pieces), initial=0))
        self._reading = [pool.submit(_read, piece) for piece in self._pieces] if pool else []
        self._gatherer: Any = None
        self._places: npt.NDArray[np.int64] | None = None  # of each row among those that are left

    @cached_property
    def lost(self) -> Mask | None:
        """Which rows are damaged and left out; None where none is, or where damage is an error."""
        return self._split.lost_rows(self._pieces) if self._split.options.on_corrupt == "skip" else None

    def between(self, start: int, stop: int) -> Iterator[Examples]:
        """Rows [start, stop) as they lie, without lost ones, one for each run of rows of a shard; at least one."""
        found = False
        for number, ((shard, first, last), base) in enumerate(zip(self._pieces, self._starts[:-1], strict=True)):
            begin, end = max(start - base, 0), min(stop - base, last - first)
            if begin >= end:
                continue
            if self._reading:
                found = True
                yield self._reading[number].result().between(begin, end)
                continue
            good = [(begin, end)]
            if self.lost is not None:
                good = [(begin + a, begin + b) for a, b in runs(~self.lost[base + begin : base + end])]
            for run_start, run_stop in good:
                found = True
                yield shard.x(first + run_start, first + run_stop), shard.y(first + run_start, first + run_stop)
        if not found:
            yield self._nothing()

    def gather(self, rows: npt.NDArray[np.int64], buffers: BufferPool) -> Examples:
        """The given rows in that order, without lost ones, in buffers that are used again once they are free."""
        if self._gatherer is None:
            self._gatherer = self._make_gatherer()
        if self.lost is not None:
            rows = rows[~self.lost[rows]]
            if not len(rows):
                return self._nothing()
            assert self._places is not None
            rows = self._places[rows]
        taken: Examples = self._gatherer.take(rows, buffers.allocate)
        return taken

    def _make_gatherer(self) -> Any:
        from shardtrain.loader.gather import Gatherer  # compiled kernels; contiguous batches do without

        parts = list(self.between(0, self._starts[-1]))
        if self.lost is not None:
            self._places = np.cumsum(~self.lost) - 1
        return Gatherer(parts)

    def finish(self) -> None:
        """Let go of what was read to be gathered from."""
        self._gatherer = None
        self._reading = []

    def _nothing(self) -> Examples:
        """No rows, of the right type; damaged arrays are not touched for it."""
        shard = self._pieces[0][0]
        return shard.no_rows()


def _read(piece: tuple[Shard, int, int]) -> Piece:
    shard, first, last = piece
    return Piece(last - first, shard.x(first, last), shard.y(first, last))
