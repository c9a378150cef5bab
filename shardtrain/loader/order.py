"""Compute the order of examples as pure functions of (seed, epoch, position), without opening files.

On disk, rows are sorted by a 64-bit hash of (seed, document ordinal), so their order does not depend on how the corpus
was split into work units. In an epoch, blocks of rows are permuted and windows of blocks shuffled row by row, or all
rows are permuted; any position is computed without replaying the ones before it.

Randomness is integer hashing (splitmix64) and sorting, not a numpy Generator, whose streams may change between numpy
versions. Sorting costs more than a Fisher-Yates shuffle, but only over the blocks or rows of one window; the
permutation of a whole epoch is computed element by element and never stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.errors import UsageError
from shardtrain.loader.options import SHUFFLES

Keys = npt.NDArray[np.uint64]

BLOCK_ROWS = 4096  # long enough that a block is a sequential read, short enough that a window holds many
WINDOW_BLOCKS = 16  # 65,536 rows in memory: about 30 MB of n-gram rows
FEISTEL_ROUNDS = 6  # four are proven to look random for few queries; each further one costs about 1 ms per window
_PIECE = 8192  # elements whose temporaries fit the cache
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix64(values: Keys) -> Keys:
    """Apply the finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), a bijection, to each element."""
    mixed = values.astype(np.uint64, order="C", copy=True)
    for z in _pieces(mixed):
        _mix64_in_place(z)
    return mixed


def _mix64_in_place(z: Keys) -> None:
    shifted = np.empty_like(z)
    z ^= np.right_shift(z, np.uint64(30), out=shifted)
    z *= np.uint64(0xBF58476D1CE4E5B9)
    z ^= np.right_shift(z, np.uint64(27), out=shifted)
    z *= np.uint64(0x94D049BB133111EB)
    z ^= np.right_shift(z, np.uint64(31), out=shifted)


def _pieces(values: Keys) -> Iterator[Keys]:
    """Yield consecutive views of an array, short enough that temporaries of their size reuse memory.

    Fresh memory for temporaries of the whole array takes several times as long as the arithmetic.
    """
    flat = values.reshape(-1)  # a view, since `values` is contiguous
    for start in range(0, len(flat), _PIECE):
        yield flat[start : start + _PIECE]


def keys(numbers: npt.NDArray[np.int64], seed: int, *stream: int) -> Keys:
    """Compute a 64-bit key for each number, independent for every seed and every stream of integers."""
    result = numbers.astype(np.uint64, order="C", copy=True)
    _keys_in_place(result, seed, *stream)
    return result


def _keys_in_place(numbers: Keys, seed: int, *stream: int) -> None:
    """Replace each number by its key."""
    state = np.array([seed & _MASK], np.uint64)
    for word in stream:
        state = mix64(state + np.uint64(_GOLDEN)) ^ np.uint64(word & _MASK)
    base = mix64(state + np.uint64(_GOLDEN))
    for piece in _pieces(numbers):
        piece *= np.uint64(_GOLDEN)
        piece += base
        _mix64_in_place(piece)


def document_keys(ordinals: npt.NDArray[np.int64], seed: int) -> Keys:
    """Compute the keys by which rows are sorted on disk; keys below fraction * 2**64 form the validation split."""
    return keys(ordinals, seed, 1)


def permutation(count: int, seed: int, *stream: int) -> npt.NDArray[np.int64]:
    """Compute a permutation of [0, count) that depends only on the arguments: the numbers sorted by their keys.

    The low bits of each key are replaced by its number, so that one sort moves both: three times as fast as argsort.
    Numbers whose keys agree in the remaining bits, at least 32, keep their order.
    """
    low_bits = np.uint64((1 << (max(count, 1) - 1).bit_length()) - 1)
    packed = np.arange(count, dtype=np.uint64)
    _keys_in_place(packed, seed, *stream)
    packed &= ~low_bits
    first = 0
    for piece in _pieces(packed):
        piece |= np.arange(first, first + len(piece), dtype=np.uint64)
        first += len(piece)
    packed.sort()
    packed &= low_bits
    return packed.view(np.int64)


def permuted(positions: npt.NDArray[np.int64], count: int, seed: int, *stream: int) -> npt.NDArray[np.int64]:
    """Compute the images of `positions` under a permutation of [0, count), without computing any other images.

    A Feistel network over pairs of numbers, applied again to results outside [0, count) (the generalized network and
    cycle walking of Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
    """
    result = positions.astype(np.int64, copy=True)
    if count < 2:
        return result
    left = math.isqrt(count - 1) + 1
    right = -(-count // left)  # count <= left * right < count + left
    outside = np.arange(len(result))
    while len(outside):  # invariant: all elements of result but those at `outside` are final and below count
        images = _feistel(result[outside], left, right, seed, *stream)
        result[outside] = images
        outside = outside[images >= count]
    return result


def _feistel(values: npt.NDArray[np.int64], left: int, right: int, seed: int, *stream: int) -> npt.NDArray[np.int64]:
    """Apply a permutation of [0, left * right) to each element."""
    a, b = values // right, values % right
    for number in range(FEISTEL_ROUNDS):
        a = (a + (keys(b, seed, *stream, number) % np.uint64(left)).view(np.int64)) % left
        a, b, left, right = b, a, right, left
    return a * right + b if FEISTEL_ROUNDS % 2 == 0 else b * left + a


@dataclass(frozen=True)
class Window:
    """Consecutive positions of an epoch whose rows are read together.

    Attributes:
        start: position in the epoch of the first row.
        segments: half-open row ranges of the split, in the order they are read.
        order: for each position in the window, the row among the concatenated segments; None: in order. In the mode
            `global` the one segment is the whole split, and `order` selects rows from it.
    """

    start: int
    segments: tuple[tuple[int, int], ...]
    order: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.segments) if self.order is None else len(self.order)


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """The order in which an epoch visits every row exactly once.

    - `none` keeps the order on disk.
    - `blocks` permutes blocks of `block_rows` rows: batches stay contiguous slices of the file. It is as cheap as
      `none`, and relies on the rows being shuffled on disk.
    - `window` permutes blocks and then shuffles the rows of `window_blocks` blocks, like a shuffle buffer. Reading
      stays sequential within blocks; each row is copied once. Across windows only blocks are mixed.
    - `global` permutes all rows. Rows are read at random positions, so the data should fit in memory or be on a disk
      with fast random reads.

    Block boundaries move from epoch to epoch (the rows are rotated first), so that blocks, and the short block at the
    end, do not always hold the same rows.

    Raises:
        UsageError: an unknown mode, or sizes below 1.
    """

    num_rows: int
    mode: str
    seed: int
    epoch: int
    block_rows: int = BLOCK_ROWS
    window_blocks: int = WINDOW_BLOCKS

    def __post_init__(self) -> None:
        if self.mode not in SHUFFLES:
            raise UsageError(f"--shuffle is {self.mode!r}; choose one of {', '.join(SHUFFLES)}")
        if self.block_rows < 1 or self.window_blocks < 1:
            raise UsageError(
                f"block_rows is {self.block_rows} and window_blocks is {self.window_blocks}; both must be at least 1"
            )

    @property
    def num_blocks(self) -> int:
        """Number of blocks in the epoch, including the short last one."""
        return -(-self.num_rows // self.block_rows)

    @property
    def window_rows(self) -> int:
        """Number of rows in every window except the last."""
        return self.block_rows * (self.window_blocks if self.mode in ("window", "global") else 1)

    def windows(self, start: int = 0) -> Iterator[Window]:
        """Yield the windows in order, from the one that contains position `start` of the epoch."""
        if self.mode == "global":
            yield from self._global_windows(start)
            return
        full = self.num_rows // self.block_rows
        rotation, blocks = 0, np.arange(self.num_blocks)
        if self.mode != "none" and self.num_rows:
            rotation = int(keys(np.array([0]), self.seed, self.epoch, 2)[0] % np.uint64(self.num_rows))
            blocks[:full] = permutation(full, self.seed, self.epoch, 3)  # the short block stays last
        group = self.window_blocks if self.mode == "window" else 1
        for number in range(start // self.window_rows, -(-self.num_blocks // group)):
            members = blocks[number * group : (number + 1) * group]
            segments = tuple(segment for block in members for segment in self._segments(int(block), rotation))
            order = None
            if self.mode == "window":
                rows = sum(stop - begin for begin, stop in segments)
                order = permutation(rows, self.seed, self.epoch, 4, number)
            yield Window(number * self.window_rows, segments, order)

    def _global_windows(self, start: int) -> Iterator[Window]:
        for begin in range(start // self.window_rows * self.window_rows, self.num_rows, self.window_rows):
            positions = np.arange(begin, min(begin + self.window_rows, self.num_rows))
            order = permuted(positions, self.num_rows, self.seed, self.epoch, 5)
            yield Window(begin, ((0, self.num_rows),), order)

    def _segments(self, block: int, rotation: int) -> Iterator[tuple[int, int]]:
        """Yield the row ranges of a block after rotation: one, or two if it wraps around the end."""
        begin = block * self.block_rows + rotation
        stop = min((block + 1) * self.block_rows, self.num_rows) + rotation
        if begin >= self.num_rows:
            yield begin - self.num_rows, stop - self.num_rows
        elif stop <= self.num_rows:
            yield begin, stop
        else:
            yield begin, self.num_rows
            yield 0, stop - self.num_rows
