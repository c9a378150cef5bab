"""Declare the options for reading shards and for cutting an epoch into batches."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from shardtrain.errors import UsageError
from shardtrain.options import checked, option

IO_MODES = ("auto", "map", "read")
ON_CORRUPT = ("fail", "skip")
DEFAULT_LIMIT = 1 << 30  # bytes that reading batches may hold: that of a build
LEAST_LIMIT = 1 << 20
SHUFFLES = ("none", "blocks", "window", "global")  # `EpochPlan` says what each mixes and costs


@checked
@dataclass(frozen=True, kw_only=True)
class LoaderOptions:
    """How the files of a folder are read.

    Attributes:
        verify: compare each checksum block when it is first touched.
        io: "map" the files, "read" them at positions, or "auto": read where a split is larger than half of the memory
            and on network and FUSE file systems, map elsewhere. A split that is so large is read past the page cache.
        on_corrupt: "fail" at a damaged block, or "skip": batches leave out exactly the rows that lie in one.

    Raises:
        UsageError: a value that does not exist, or skipping without verification.
    """

    verify: bool = option(True, "do not compare checksums", group="reading", unset="once per process", identity=False)
    io: str = option(
        "auto",
        "map files into memory, read them, or auto: map what fits in memory and lies on a local disk",
        group="reading",
        choices=IO_MODES,
        identity=False,
    )
    on_corrupt: str = option(
        "fail",
        "at damaged rows: fail, or skip to train on the others",
        group="reading",
        choices=ON_CORRUPT,
        identity=False,
    )

    def __post_init__(self) -> None:
        if self.on_corrupt == "skip" and not self.verify:
            raise UsageError("--on-corrupt skip finds damage by checksums, so it needs verification; omit --no-verify")


@checked
@dataclass(frozen=True)
class BatchOptions:
    """How an epoch is cut into batches.

    Attributes:
        batch_size: rows per batch.
        seed: decides the order together with `epoch`.
        epoch: number of the epoch, from 0.
        shuffle: "none", "blocks", "window" or "global"; `EpochPlan` says what each mixes and costs.
        drop_remainder: leave a shorter last batch out.
        start_step: batches to leave out at the beginning.
        prefetch: batches that a background thread makes ahead at most; 0: none, and no thread.
        as_int32: labels and token ids in int32, as TensorFlow takes them, instead of their type on disk.
        part: (index, number) of one of several readers that share every batch, see `loader.parts`; its part of a small
            batch may have no row.

    Raises:
        UsageError: a value outside its range.
    """

    batch_size: int
    _: KW_ONLY
    seed: int = 0
    epoch: int = 0
    shuffle: str = "none"
    drop_remainder: bool = False
    start_step: int = 0
    prefetch: int = 64  # 32,768 rows of 512 per batch
    as_int32: bool = False
    part: tuple[int, int] = (0, 1)

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise UsageError(f"batch_size is {self.batch_size}; it must be at least 1")
        if self.start_step < 0 or self.epoch < 0:
            raise UsageError(f"start_step {self.start_step} and epoch {self.epoch} must not be negative")
        if not 0 <= self.part[0] < self.part[1]:
            raise UsageError(f"part is {self.part}; it must be the index of a reader, from 0, and their number")
        if self.prefetch < 0:
            raise UsageError(f"prefetch is {self.prefetch}; write 0 for none, or how many batches may be ahead")
