"""Declare the options for verifying shards."""

from __future__ import annotations

from dataclasses import dataclass

from shardtrain.errors import UsageError
from shardtrain.options import option


@dataclass(frozen=True, kw_only=True)
class VerifyOptions:
    """How shards are verified.

    Attributes:
        workers: threads that compare checksums; None: one per core.

    Raises:
        UsageError: fewer than one worker.
    """

    workers: int | None = option(
        None,
        "threads that compare checksums",
        group="resources",
        metavar="N",
        parse=int,
        unset="one per core",
        identity=False,
    )

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise UsageError(f"--workers is {self.workers}; it must be at least 1")
