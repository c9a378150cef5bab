"""Parse the name of an executor, as `--executor` has it, without importing what it names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from shardtrain.errors import UsageError

PROCESSES = "processes"
RAY, DASK = "ray", "dask"
_CALLABLE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")


@dataclass(frozen=True)
class ExecutorName:
    """The name of an executor.

    Attributes:
        kind: `PROCESSES`, `RAY`, `DASK`, or `MODULE:CALLABLE` itself.
        address: of a Ray or Dask cluster; empty: Ray's own choice.
    """

    kind: str
    address: str = ""

    @property
    def local(self) -> bool:
        """Whether passes run in this process and in processes that it starts itself."""
        return self.kind == PROCESSES

    def __str__(self) -> str:
        return f"{self.kind}:{self.address}" if self.address else self.kind


def executor_name(text: str) -> ExecutorName:
    """Parse the name of an executor: `processes`, `ray[:ADDRESS]`, `dask:ADDRESS` or `MODULE:CALLABLE`.

    `ray://HOST:PORT` is the address of a Ray Client.

    Raises:
        UsageError: it is none of these.
    """
    kind, _, address = text.partition(":")
    if text == PROCESSES:
        return ExecutorName(PROCESSES)
    if kind == RAY:
        return ExecutorName(RAY, text if address.startswith("//") else address)
    if kind == DASK and address:
        return ExecutorName(DASK, address)
    if kind != DASK and _CALLABLE.fullmatch(text):
        return ExecutorName(text)
    raise UsageError(
        f"--executor {text}: expected {PROCESSES}, {RAY}, {RAY}:ADDRESS, {DASK}:ADDRESS (of a running scheduler, or "
        "its file .json) or MODULE:CALLABLE, a function that returns a concurrent.futures.Executor"
    )
