"""Declare the option that says where passes run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from shardtrain.options import checked, option
from shardtrain.runtime.engines.names import PROCESSES, ExecutorName, executor_name


@checked
@dataclass(frozen=True, kw_only=True)
class ExecutorOptions:
    """Where passes run.

    Attributes:
        executor: "processes" of this machine; "ray" or "ray:ADDRESS"; "dask:ADDRESS"; or "MODULE:CALLABLE", which
            returns a concurrent.futures.Executor. Workers elsewhere see the same folders under the same paths, and each
            may take `memory_limit`.

    Raises:
        UsageError: it is none of these.
    """

    executor: str = option(
        PROCESSES,
        "who does the work: processes, those of this machine; or workers of ray[:ADDRESS], of dask:ADDRESS, or of what "
        "MODULE:CALLABLE returns, a concurrent.futures.Executor",
        group="resources",
        metavar="NAME",
        identity=False,
    )

    def __post_init__(self) -> None:
        executor_name(self.executor)

    @property
    def executor_name(self) -> ExecutorName:
        """The executor, parsed."""
        return executor_name(self.executor)

    def placed(self, path: Path) -> Path:
        """Return a path as workers are told it: workers elsewhere have another current folder."""
        return path if self.executor_name.local else Path(os.path.abspath(path))
