"""Execute an epoch plan: read its windows, shuffle them where the plan says so, and cut them into batches.

A batch of consecutive rows of one shard is a view of the mapped file. Shuffled rows are gathered from the mapped files
in groups of batches, into a buffer that fits the processor's cache. A background thread prefetches: it verifies, reads
and gathers ahead of the consumer; memory is that of the prefetched batches.

Batch k holds the positions [k * size, (k + 1) * size) of the plan; of several readers each gets its part of it. If
damaged rows are skipped, their batches are shorter, or missing if no row remains; all other batches are unchanged.
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
from shardtrain.loader.parts import WHOLE, Part
from shardtrain.loader.reader import SplitReader
from shardtrain.runtime.prefetch import prefetched
from shardtrain.runtime.progress import say
from shardtrain.shards.shard import Mask, Shard, runs

GATHERED_ROWS = 4096  # per group of batches: 2 MB of n-grams or 256 token ids, which stay in cache until they are used
READ_THREADS = 8  # blocks that are read concurrently if files are not mapped


@dataclass(frozen=True)
class Piece:
    """Consecutive rows of an epoch; fewer than `positions` if damaged rows were skipped, or others read some."""

    positions: int
    x: Features
    y: npt.NDArray[Any]

    def slice(self, start: int, stop: int) -> Examples:
        """Return rows [start, stop); after rows were skipped, only the whole piece."""
        if stop - start >= len(self.y):
            return self.x, self.y
        return slice_rows(self.x, start, stop), self.y[start:stop]


class Batches:
    """One epoch of (x, y) batches; `len` counts the steps from `start_step` on, where every `iter` starts.

    Attributes:
        plan: the order of rows.
        part: the rows of each batch that are read.
        prefetched_windows: windows whose reading starts before they are requested.
        dropped: damaged rows that the latest iteration has skipped so far.
    """

    def __init__(self, split: SplitReader, options: BatchOptions, buffers: BufferPool) -> None:
        self.split = split
        self.options = options
        self.dropped = 0
        self._buffers = buffers
        size, prefetch = options.batch_size, options.prefetch
        self.part = Part(*options.part, size, split.num_examples)
        if options.part != WHOLE and split.options.on_corrupt == "skip":
            raise UsageError(
                "--on-corrupt skip is for one process: several would disagree about the rows of a batch; restore the "
                "damaged files from a copy, or train in one process"
            )
        # without gathering a block is a whole number of batches, so that they are views, never joined from two blocks
        mixing = options.shuffle in ("window", "global")
        self.plan = EpochPlan(
            num_rows=split.num_examples,
            mode=options.shuffle,
            seed=options.seed,
            epoch=options.epoch,
            block_rows=BLOCK_ROWS if mixing else -(-BLOCK_ROWS // size) * size,
        )
        self.prefetched_windows = 1 if mixing else READ_THREADS
        # at most half of the prefetched batches, so that gathering a group overlaps with consuming the one before it
        self._group_size = max(1, min(GATHERED_ROWS // size, prefetch // 2 if prefetch else GATHERED_ROWS))

    def __len__(self) -> int:
        rows, size = self.split.num_examples, self.options.batch_size
        steps = rows // size if self.options.drop_remainder else -(-rows // size)
        return max(0, steps - self.options.start_step)

    def __iter__(self) -> Generator[Examples, None, None]:
        groups = self._groups()
        if self.options.prefetch and self._has_work:
            groups = prefetched(groups, max(1, self.options.prefetch // self._group_size))
        with closing(groups):
            for group in groups:
                yield from group

    @property
    def _has_work(self) -> bool:
        """Whether a batch costs work: contiguous rows of mapped, cached and verified files are views and cost none."""
        mixing = self.plan.mode in ("window", "global")
        return mixing or self.options.as_int32 or self.split.larger_than_memory or not self.split.touched

    def _groups(self) -> Generator[list[Examples], None, None]:
        """Yield the batches in groups, one group per piece of rows."""
        size = self.options.batch_size
        start = self.options.start_step * size  # of the piece
        left = min(len(self) * size, self.split.num_examples - start)  # positions to yield
        held: list[Examples] = []  # of an incomplete batch
        missing = size  # positions until it is complete
        self.dropped = 0
        for piece in self._row_pieces() if left > 0 else ():
            group: list[Examples] = []
            position, stop = 0, min(piece.positions, left)
            left -= stop
            before = self.part.count(start)
            while position < stop:  # invariant: the positions in `held` and `missing` add up to `size`
                following = min(position + missing, stop)
                first, last = self.part.count(start + position), self.part.count(start + following)
                held.append(piece.slice(first - before, last - before))
                missing -= following - position
                position = following
                if not missing or (position == stop and not left):
                    x, y = join_examples(held)
                    held, missing = [], size
                    if len(y) or self.options.part != WHOLE:
                        group.append((x, y))
            start += piece.positions
            yield group
            if not left:
                break
        if self.dropped == self.split.num_examples:
            raise CorruptShardError(
                f"all {self.dropped:,} rows of '{self.split.name}' are damaged; restore the files from a copy or "
                "rebuild the shards"
            )
        if self.dropped:
            say(f"{self.dropped:,} damaged rows of '{self.split.name}' were skipped in epoch {self.options.epoch + 1}")

    def _row_pieces(self) -> Iterator[Piece]:
        """Yield all rows from `start_step` on; a piece with skipped rows does not extend past the end of a batch."""
        split, start = self.split, self.options.start_step * self.options.batch_size
        everywhere = self.plan.mode == "global"
        if everywhere and split.larger_than_memory and not all(file.mapped for file in split.files):
            raise UsageError(
                f"--shuffle global would hold all of '{split.name}' in memory, which is too small for it, because the "
                "files are not mapped; use --shuffle window, or map the files with --io map"
            )
        split.check_unchanged()
        # blocks are not read in file order, so pages that the kernel reads ahead would be evicted before their turn
        split.advise(random=split.larger_than_memory and not split.mapped and self.plan.mode != "none")
        reads = self.options.prefetch and not split.mapped and split.options.on_corrupt == "fail"
        reads = reads and (self.plan.mode == "window" or self.options.part == WHOLE)  # which read whole windows
        pool = ThreadPoolExecutor(READ_THREADS, "shardtrain-read") if reads else None
        previous: WindowRows | None = None  # its last batches may still be in use
        current: WindowRows | None = None
        try:
            for window, rows in self._windows(start, pool):
                if current is not None and rows is not current:
                    current.finish()
                    if previous is not None:
                        self._release(previous)
                    previous = current
                first, current = current is None, rows
                yield from self._window_pieces(current, window, max(window.start, start))
                if everywhere and first:  # all rows were read and verified in file order
                    split.advise(random=True)
        finally:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
            for each in (previous, current):
                if each is not None:
                    self._release(each)
            split.block_buffers.clear()

    def _windows(self, start: int, pool: Executor | None) -> Iterator[tuple[Window, WindowRows]]:
        """Yield the windows from position `start` on with their rows; reading of later windows has already started."""
        split = self.split
        pending: deque[tuple[Window, WindowRows]] = deque()
        by_kernel = pool is None and (split.larger_than_memory or not split.touched)
        for window in self.plan.windows(start):
            if pending and pending[-1][1].segments == window.segments:
                pending.append((window, pending[-1][1]))
            else:
                if pending and by_kernel:
                    split.read_ahead(window.segments)
                pending.append((window, WindowRows(split, window.segments, pool)))
            if len(pending) > self.prefetched_windows:
                yield pending.popleft()
        yield from pending

    def _release(self, rows: WindowRows) -> None:
        """Release page cache that later windows need."""
        if self.plan.mode != "global" and self.split.larger_than_memory:
            self.split.release(rows.segments)

    def _window_pieces(self, rows: WindowRows, window: Window, start: int) -> Iterator[Piece]:
        """Yield the rows of one window from position `start` of the epoch on."""
        whole = self.options.part == WHOLE
        batches = self._group_size if rows.damaged is None and (whole or window.order is not None) else 1
        for first, last in self._batch_ranges(start, window.start + len(window), batches):
            begin, end = first - window.start, last - window.start
            if window.order is not None:
                order = window.order[begin:end]
                if not whole:
                    order = order[self.part.positions(first, last) - first]
                piece = self._piece(end - begin, *rows.gather(order, self._buffers))
            elif not whole:
                mine, until = self.part.within(first // self.options.batch_size)
                mine, until = max(mine, first), min(until, last)
                parts = list(rows.slices(mine - window.start, until - window.start))
                yield self._piece(end - begin, *join_examples(parts))
                continue
            elif rows.damaged is None:
                for x, y in rows.slices(begin, end):
                    yield self._piece(len(y), x, y)
                continue
            else:
                piece = self._piece(end - begin, *join_examples(list(rows.slices(begin, end))))
            if whole:
                self.dropped += piece.positions - len(piece.y)
            yield piece

    def _piece(self, positions: int, x: Features, y: npt.NDArray[Any]) -> Piece:
        if not self.options.as_int32:
            return Piece(positions, x, y)
        if not isinstance(x, Csr) and x.dtype.kind != "f":  # dense features are already float32
            return Piece(positions, self._as_int32(x), self._as_int32(y))
        return Piece(positions, x, self._as_int32(y))

    def _as_int32(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        out = self._buffers.allocate(values.size, np.int32).reshape(values.shape)
        np.copyto(out, values, casting="unsafe")
        return out

    def _batch_ranges(self, start: int, stop: int, batches: int) -> Iterator[tuple[int, int]]:
        """Cut positions [start, stop) into ranges of at most `batches` batches that end at the end of a batch."""
        size = self.options.batch_size
        while start < stop:
            end = min((start // size + batches) * size, stop)
            yield start, end
            start = end


class WindowRows:
    """The rows of a window's segments, numbered consecutively; read on request, or in advance by a pool.

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
        self._positions: npt.NDArray[np.int64] | None = None  # of each row among the undamaged ones

    @cached_property
    def damaged(self) -> Mask | None:
        """Mask of damaged rows to skip; None if there are none, or if damage is an error."""
        return self._split.damaged_rows(self._pieces) if self._split.options.on_corrupt == "skip" else None

    def slices(self, start: int, stop: int) -> Iterator[Examples]:
        """Yield rows [start, stop) without damaged ones, one item per run of rows of a shard; at least one item."""
        found = False
        for number, ((shard, first, last), base) in enumerate(zip(self._pieces, self._starts[:-1], strict=True)):
            begin, end = max(start - base, 0), min(stop - base, last - first)
            if begin >= end:
                continue
            if self._reading:
                found = True
                yield self._reading[number].result().slice(begin, end)
                continue
            good = [(begin, end)]
            if self.damaged is not None:
                good = [(begin + a, begin + b) for a, b in runs(~self.damaged[base + begin : base + end])]
            for run_start, run_stop in good:
                found = True
                yield shard.x(first + run_start, first + run_stop), shard.y(first + run_start, first + run_stop)
        if not found:
            yield self._no_rows()

    def gather(self, rows: npt.NDArray[np.int64], buffers: BufferPool) -> Examples:
        """Copy the given rows in that order, without damaged ones, into reusable buffers."""
        if self._gatherer is None:
            self._gatherer = self._make_gatherer()
        if self.damaged is not None:
            rows = rows[~self.damaged[rows]]
            if not len(rows):
                return self._no_rows()
            assert self._positions is not None
            rows = self._positions[rows]
        taken: Examples = self._gatherer.take(rows, buffers.allocate)
        return taken

    def _make_gatherer(self) -> Any:
        from shardtrain.loader.gather import Gatherer  # compiled kernels, which contiguous batches do not need

        parts = list(self.slices(0, self._starts[-1]))
        if self.damaged is not None:
            self._positions = np.cumsum(~self.damaged) - 1
        return Gatherer(parts)

    def finish(self) -> None:
        """Drop references to the rows that were read."""
        self._gatherer = None
        self._reading = []

    def _no_rows(self) -> Examples:
        """Return an empty batch of the right types, without touching damaged arrays."""
        shard = self._pieces[0][0]
        return shard.no_rows()


def _read(piece: tuple[Shard, int, int]) -> Piece:
    shard, first, last = piece
    return Piece(last - first, shard.x(first, last), shard.y(first, last))
