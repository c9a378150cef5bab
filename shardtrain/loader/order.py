"""The order of examples, as pure functions of (seed, epoch, position); no file is opened here.

Two orders are decided in this room. On disk, a document's place follows from a 64-bit hash of (seed, ordinal), so
it does not depend on how the corpus was cut into units. In an epoch, rows are moved in blocks, and windows of
blocks are mixed row by row, or every row has a place of its own; any position can be found without replaying the ones
before it.

Randomness is integer hashing (splitmix64) and sorting, not a numpy Generator, whose streams may change between
numpy versions. A sort costs more than a Fisher-Yates shuffle, but only over the blocks or rows of one window; the
permutation of a whole epoch is computed place by place and never stored.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.errors import UsageError

Keys = npt.NDArray[np.uint64]

MODES = ("none", "blocks", "window", "global")
BLOCK_ROWS = 4096  # long enough that a block is a sequential read, short enough that a window holds many
WINDOW_BLOCKS = 16  # 65,536 rows in memory: about 30 MB of n-gram rows
FEISTEL_ROUNDS = 6  # four are proven to look random for few queries; more cost about 1 ms a window each
_PIECE = 8192  # numbers
_GOLDEN = 0x9E3779B97F4A7C15
_MASK = (1 << 64) - 1


def mix64(values: Keys) -> Keys:
    """The finalizer of splitmix64 (Steele, Lea and Flood, OOPSLA 2014), element by element; a bijection."""
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
    """Views of an array, end to end, so short that what is made of one on the way lies in memory that was used before.

    Fresh memory for all elements at a time takes several times as long as the arithmetic.
    """
    flat = values.reshape(-1)  # a view, since `values` is contiguous
    for start in range(0, len(flat), _PIECE):
        yield flat[start : start + _PIECE]


def keys(numbers: npt.NDArray[np.int64], seed: int, *stream: int) -> Keys:
    """A 64-bit key for each number, independent for every seed and every stream of integers."""
    spread = numbers.astype(np.uint64, order="C", copy=True)
    _spread(spread, seed, *stream)
    return spread


def _spread(numbers: Keys, seed: int, *stream: int) -> None:
    """Put the key of each number in its place."""
    state = np.array([seed & _MASK], np.uint64)
    for word in stream:
        state = mix64(state + np.uint64(_GOLDEN)) ^ np.uint64(word & _MASK)
    base = mix64(state + np.uint64(_GOLDEN))
    for piece in _pieces(numbers):
        piece *= np.uint64(_GOLDEN)
        piece += base
        _mix64_in_place(piece)


def document_keys(ordinals: npt.NDArray[np.int64], seed: int) -> Keys:
    """Where documents go: rows lie in ascending key; keys below fraction * 2**64 make a validation split."""
    return keys(ordinals, seed, 1)


def permutation(count: int, seed: int, *stream: int) -> npt.NDArray[np.int64]:
    """A permutation of [0, count), a function of the arguments alone: numbers in the order of their keys.

    The low bits of each key are replaced by its number, so that sorting moves both: three times as fast as argsort, and
    numbers whose keys agree in all other bits, at least 32, keep their order.
    """
    low_bits = np.uint64((1 << (max(count, 1) - 1).bit_length()) - 1)
    packed = np.arange(count, dtype=np.uint64)
    _spread(packed, seed, *stream)
    packed &= ~low_bits
    first = 0
    for piece in _pieces(packed):
        piece |= np.arange(first, first + len(piece), dtype=np.uint64)
        first += len(piece)
    packed.sort()
    packed &= low_bits
    return packed.view(np.int64)


def scattered(places: npt.NDArray[np.int64], count: int, seed: int, *stream: int) -> npt.NDArray[np.int64]:
    """Where a permutation of [0, count) sends each of `places`, without computing it for the others.

    A Feistel network over pairs of numbers, with steps repeated for results outside [0, count) (the generalized
    network and cycle walking of Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002).
    """
    result = places.astype(np.int64, copy=True)
    if count < 2:
        return result
    left = math.isqrt(count - 1) + 1
    right = -(-count // left)  # left * right is at least `count`, and less than `left` more
    open_places = np.arange(len(result))
    while len(open_places):
        moved = _feistel(result[open_places], left, right, seed, *stream)
        result[open_places] = moved
        open_places = open_places[moved >= count]
    return result


def _feistel(values: npt.NDArray[np.int64], left: int, right: int, seed: int, *stream: int) -> npt.NDArray[np.int64]:
    """A permutation of [0, left * right), element by element."""
    a, b = values // right, values % right
    for number in range(FEISTEL_ROUNDS):
        a = (a + (keys(b, seed, *stream, number) % np.uint64(left)).view(np.int64)) % left
        a, b, left, right = b, a, right, left
    return a * right + b if FEISTEL_ROUNDS % 2 == 0 else b * left + a


@dataclass(frozen=True)
class Window:
    """Rows that are in memory together.

    Attributes:
        start: position in the epoch of the first of them.
        segments: half-open row ranges of the split, in the order they are read.
        order: for each position in the window the row among the concatenated segments; None: as they are. A window of
            the mode `global` has all rows as its one segment, and an order that picks some of them.
    """

    start: int
    segments: tuple[tuple[int, int], ...]
    order: npt.NDArray[np.int64] | None

    def __len__(self) -> int:
        return sum(stop - start for start, stop in self.segments) if self.order is None else len(self.order)


@dataclass(frozen=True, kw_only=True)
class EpochPlan:
    """Which rows an epoch visits, in which order; every row exactly once.

    - `none` keeps the rows as they lie. It mixes nothing and costs nothing.
    - `blocks` permutes blocks of `block_rows` rows: batches stay contiguous slices of the file, rows of a block stay
      neighbours. It is as cheap as `none`, and mixes only what the order on disk has mixed already.
    - `window` permutes blocks and then mixes the rows of `window_blocks` blocks. Reading stays sequential within
      blocks; each row is copied once. Rows further apart in the epoch than a window mix only as blocks.
    - `global` is a permutation of all rows, as if drawn by hand. Each row is read where it lies, so it wants data that
      fits in memory or a disk that is fast at random reads.

    Block borders move from epoch to epoch (the rows are rotated first), so that a block, and the short block at the
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
        if self.mode not in MODES:
            raise UsageError(f"shuffle is {self.mode!r}; choose one of {', '.join(MODES)}")
        if self.block_rows < 1 or self.window_blocks < 1:
            raise UsageError(f"blocks of {self.block_rows} rows and windows of {self.window_blocks} blocks: at least 1")

    @property
    def num_blocks(self) -> int:
        """Blocks in the epoch, the short last one included."""
        return -(-self.num_rows // self.block_rows)

    @property
    def window_rows(self) -> int:
        """Rows in every window but the last."""
        return self.block_rows * (self.window_blocks if self.mode in ("window", "global") else 1)

    def windows(self, start: int = 0) -> Iterator[Window]:
        """The windows in order, from the one that holds position `start` of the epoch."""
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
            places = np.arange(begin, min(begin + self.window_rows, self.num_rows))
            order = scattered(places, self.num_rows, self.seed, self.epoch, 5)
            yield Window(begin, ((0, self.num_rows),), order)

    def _segments(self, block: int, rotation: int) -> Iterator[tuple[int, int]]:
        """The row ranges of a block after rotation: one, or two where it wraps around the end."""
        begin = block * self.block_rows + rotation
        stop = min((block + 1) * self.block_rows, self.num_rows) + rotation
        if begin >= self.num_rows:
            yield begin - self.num_rows, stop - self.num_rows
        elif stop <= self.num_rows:
            yield begin, stop
        else:
            yield begin, self.num_rows
            yield 0, stop - self.num_rows
