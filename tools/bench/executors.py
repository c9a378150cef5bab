"""Build a corpus with processes, with Dask and with Ray on this machine: processor time, and bytes sent per task.

    python tools/bench/executors.py --documents 300000

Each engine has two workers here, so nothing is gained; the question is what an engine costs. Processor time is that of
all processes of the build, the engine's own included, but for what the engine takes to start. That all shards are equal
is checked.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from features import print_machine

from shardtrain.datasets.demo import write_demo
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.engines.engine import packed
from shardtrain.runtime.executors import Pool
from shardtrain.shards.layout import MEASURED


class Processors:
    """Add up the processor time of this process and of all that descend from it."""

    def __init__(self) -> None:
        self._seen: dict[int, float] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._stop.wait(0.2):
            self.seconds()

    def seconds(self) -> float:
        """Return what was used so far, also by processes that have ended, up to 0.2 seconds of each."""
        this = psutil.Process()
        for process in [this, *this.children(recursive=True)]:
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue
            self._seen[process.pid] = times.user + times.system
        return sum(self._seen.values())

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join()


@contextmanager
def weighed(sent: list[int]) -> Iterator[None]:
    """Record the bytes that are sent for each task of each pass that a pool runs."""
    run = Pool.run

    def watched(self: Pool, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        sent.extend(len(packed(function, [task])) for task in tasks)
        return run(self, function, tasks)

    Pool.run = watched  # type: ignore[method-assign]
    try:
        yield
    finally:
        Pool.run = run  # type: ignore[method-assign]


@contextmanager
def dask(folder: Path) -> Iterator[str]:
    """Start two workers of Dask."""
    from distributed import LocalCluster

    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, memory_limit=0, local_directory=folder
    ) as cluster:
        yield f"dask:{cluster.scheduler_address}"


@contextmanager
def ray(folder: Path) -> Iterator[str]:
    """Start a node of Ray with two cores."""
    import logging

    import ray

    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    yield "ray"
    ray.shutdown()


@contextmanager
def processes(folder: Path) -> Iterator[str]:
    """Start nothing: a build starts its processes itself."""
    yield "processes"


def files_in(folder: Path) -> dict[Path, bytes]:
    """Read the shards in a folder, without build.json."""
    found = [path for path in folder.rglob("*") if path.is_file() and path.name != MEASURED]
    return {path.relative_to(folder): path.read_bytes() for path in found}


def main() -> None:
    """Run the builds and print what each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000, help="of the demo corpus")
    options = parser.parse_args()
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    print_machine()
    print(*(f"{name} {metadata.version(name)}" for name in ("distributed", "ray")), sep=", ")
    processors = Processors()
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus"
        write_demo(corpus, documents=options.documents, classes=10, seed=1)
        print(f"{sum(path.stat().st_size for path in corpus.glob('*.csv')) / 1e6:.1f} MB of demo corpus")
        outs: list[Path] = []
        for start in (processes, processes, dask, ray):  # the first warms up
            outs.append(Path(scratch) / str(len(outs)))
            sent: list[int] = []
            with start(Path(scratch)) as name, weighed(sent):
                before, began = processors.seconds(), time.perf_counter()
                build(corpus, outs[-1], BuildOptions(executor=name, workers=2))
                taken, seconds = time.perf_counter() - began, processors.seconds() - before
            if len(outs) == 1:
                continue
            record = json.loads((outs[-1] / MEASURED).read_text())
            print(
                f"{name.partition(':')[0]:<10} {taken:6.1f} s, {seconds:6.1f} s of processors; "
                f"{sum(sent) / 1e6:5.2f} MB sent with {len(sent)} tasks, median {statistics.median(sent):,.0f} B; peak "
                f"{record['peak_memory_bytes'] / 1e6:,.0f} MB"
            )
            assert files_in(outs[-1]) == files_in(outs[0]), "the shards differ"
    processors.close()


if __name__ == "__main__":
    main()
