"""Build corpora on every executor while workers, nodes, drivers and old attempts come to harm; compare all bytes.

    python tests/faults/engines.py --corpus data/ag_news data/dbpedia --synthetic-bytes 100MB

What must come out is what `build --workers 1` makes. Executors are two processes, two workers of Dask, and Ray with two
nodes, all on loopback addresses, started and ended here. A build whose driver is killed is finished by the next of
these executors. A late attempt is that of a killed driver: its process is stopped as it begins, or just before its
rename, and goes on while another driver works, which does the same job or another one (--overwrite). Printed is a table
of corpora and faults by executors; exit code 1 if any output differs or a fault did not happen.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from support.attempts import ASK, DIE, Asked, started  # noqa: E402 - found there
from support.comparing import assert_same_folder  # noqa: E402
from support.executors import SECOND_NODE, Clustered, clustered  # noqa: E402

from shardtrain.datasets.demo import write_demo  # noqa: E402
from shardtrain.options import parse_size  # noqa: E402
from shardtrain.pipeline import titles  # noqa: E402

KINDS = ("processes", "dask", "ray")
DOCUMENT_BYTES = 340  # of the demo corpus, about
UNITS = 24  # at least, in which a corpus is read
PATIENCE = 300.0  # seconds for an attempt to stop or to end
KILLED_IN = (titles.COUNT, titles.NORMS, titles.VECTORIZE)
OTHER_SEED = 5  # of another job


class NotSeenError(Exception):
    """A fault did not happen, or a build failed."""


@dataclass(frozen=True)
class Bench:
    """What the builds of a corpus have in common.

    Attributes:
        corpus: that is read.
        whole: what one process made of it.
        scratch: folder for outputs and marks.
        kinds: the executors.
        clusters: those that are clusters, by their kind.
    """

    corpus: Path
    whole: Path
    scratch: Path
    kinds: Sequence[str]
    clusters: dict[str, Clustered]

    def next(self, kind: str) -> str:
        """Return the executor after one, round and round."""
        return self.kinds[(self.kinds.index(kind) + 1) % len(self.kinds)]

    def asked(self, kind: str, **more: Any) -> Asked:
        """Return a build on an executor."""
        name = self.clusters[kind].name if kind in self.clusters else kind
        options = {"executor": name, "vectorizer": "ngram", **({"workers": 2} if kind == KINDS[0] else {})}
        unit_bytes = min(4 << 20, bytes_of(self.corpus) // UNITS)
        out = str(self.scratch / "out")
        return Asked(corpus=str(self.corpus), out=out, options=options, unit_bytes=unit_bytes, **more)

    def build(self, asked: Asked, answer: Callable[[int], object] | None = None) -> None:
        """Build, to the end or until the driver kills itself; `answer` gets its process when it asks.

        Raises:
            NotSeenError: it fails, or never asks.
        """
        with self.driver(asked) as process:
            assert process.stdout is not None
            assert process.stdin is not None
            waits = answer is not None
            while process.stdout.readline():
                assert answer is not None
                answer(process.pid)
                waits = False
                process.stdin.write("\n")
                process.stdin.flush()
            code = process.wait()
        if code != (-signal.SIGKILL if asked.act == DIE else 0):
            raise NotSeenError(f"exit code {code}: {(self.scratch / 'log').read_text()[-1500:]}")
        if waits:
            raise NotSeenError(f"no second result in the pass '{asked.title}'")

    @contextlib.contextmanager
    def driver(self, asked: Asked) -> Iterator[subprocess.Popen[str]]:
        """Start a driver, which is dead afterwards."""
        with open(self.scratch / "log", "w") as log, started(asked, log) as process:
            try:
                yield process
            finally:
                process.kill()


def undisturbed(bench: Bench, kind: str) -> None:
    """Build."""
    bench.build(bench.asked(kind))


def in_groups(bench: Bench, kind: str) -> None:
    """Build with units in groups."""
    bench.build(bench.asked(kind, grouped=True))


def every_task_twice(bench: Bench, kind: str) -> None:
    """Build while every task is attempted twice."""
    bench.build(bench.asked(kind, twice=True))


def worker_killed(bench: Bench, kind: str, *, title: str) -> None:
    """Build while a worker, or a node of Ray, is killed."""

    def kill(driver: int) -> None:
        if kind in bench.clusters:
            bench.clusters[kind].kill(0)
        else:
            workers = [each for each in psutil.Process(driver).children() if "spawn_main" in " ".join(each.cmdline())]
            workers[0].kill()

    bench.build(bench.asked(kind, title=title, act=ASK), kill)


def driver_killed(bench: Bench, kind: str) -> None:
    """Build until the driver is killed, and to the end on another executor."""
    bench.build(bench.asked(kind, title=titles.NORMS, act=DIE))
    bench.build(resumed(bench.asked(bench.next(kind))))


def late_attempt(bench: Bench, kind: str, *, same_job: bool, at_rename: bool) -> None:
    """Kill a driver while an attempt is stopped, which goes on in the middle of another driver's build.

    Raises:
        NotSeenError: the attempt did not end as it must: it commits its file in the folder of the same job, unless the
            next driver swept what was not renamed yet.
    """
    marks = bench.scratch / "marks"
    shutil.rmtree(marks, ignore_errors=True)
    marks.mkdir()
    nodes = second_nodes(bench.clusters[kind]) if kind == "ray" else []
    old = bench.asked(
        kind, title=titles.COUNT, marks=str(marks), at_rename=at_rename, below=[node.pid for node in nodes]
    )
    if not same_job:
        old = replace(old, options={**old.options, "seed": OTHER_SEED})
    with bench.driver(old) as process:
        attempt = psutil.Process(int(awaited(marks / "stopped", process)))
        for node in nodes:  # it would end the workers of a dead driver
            node.suspend()
    ended: list[str] = []

    def go_on(driver: int) -> None:
        attempt.resume()
        ended.append(awaited(marks / "ended"))

    new = bench.asked(bench.next(kind), title=titles.NORMS, act=ASK)
    try:
        bench.build(resumed(new) if same_job else replace(new, options={**new.options, "overwrite": True}), go_on)
    finally:
        for each in [attempt, *nodes]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.resume()
        if nodes:  # the cluster may have given the node up
            bench.clusters[kind].kill(0)
    expected = "finished" if same_job and not at_rename else "failed"
    if ended != [expected]:
        raise NotSeenError(f"the late attempt {ended}, expected {expected}")


FAULTS: dict[str, Callable[[Bench, str], None]] = {
    "none": undisturbed,
    "none, units in groups": in_groups,
    **{f"worker killed: {title}": partial(worker_killed, title=title) for title in KILLED_IN},
    "driver killed, finished by the next": driver_killed,
    "every task attempted twice": every_task_twice,
    **{
        f"late attempt of {whose} job, stopped {'before its rename' if at_rename else 'as it began'}": partial(
            late_attempt, same_job=whose == "the same", at_rename=at_rename
        )
        for whose in ("the same", "another")
        for at_rename in (False, True)
    },
}


def resumed(asked: Asked) -> Asked:
    """Return the build that requires an interrupted one."""
    return replace(asked, options={**asked.options, "resume": True})


def second_nodes(cluster: Clustered) -> list[psutil.Process]:
    """Return the process that manages the second node of Ray."""
    below = psutil.Process(cluster.process.pid).children(recursive=True)
    return [each for each in below if each.name() == "raylet" and f"--node_ip_address={SECOND_NODE}" in each.cmdline()]


def awaited(path: Path, process: subprocess.Popen[str] | None = None) -> str:
    """Wait for a file, which a process is to write, and return what it says."""
    until = time.monotonic() + PATIENCE
    while not path.exists():
        if time.monotonic() > until or (process and process.poll() is not None):
            raise NotSeenError(f"no attempt wrote '{path.name}'")
        time.sleep(0.02)
    return path.read_text()


def outcome(bench: Bench, kind: str, fault: str) -> str:
    """Return what a table says of a fault, and say on standard error why it is not `equal`."""
    out = bench.scratch / "out"
    shutil.rmtree(out, ignore_errors=True)
    for cluster in bench.clusters.values():
        cluster.complete()
    start, said, why = time.monotonic(), "equal", ""
    try:
        FAULTS[fault](bench, kind)
        assert_same_folder(out, bench.whole)
    except NotSeenError as error:
        said, why = "NOT SEEN", f"\n{error}"
    except AssertionError as error:
        said, why = "DIFFERENT", f"\n{error}"
    print(f"{bench.corpus.name}, {kind}, {fault}: {said}, {time.monotonic() - start:.0f} s{why}", file=sys.stderr)
    return said


def bytes_of(corpus: Path) -> int:
    """Return the bytes of the training file of a corpus."""
    return (corpus / "train.csv").stat().st_size


def whole(corpus: Path, out: Path) -> Path:
    """Build with one process."""
    command = [sys.executable, "-m", "shardtrain", "build", str(corpus), "--out", str(out), "--workers", "1"]
    subprocess.run([*command, "--vectorizer", "ngram"], check=True, stdout=subprocess.DEVNULL)
    return out


def main() -> int:
    """Run all builds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", nargs="+", type=Path, default=[], metavar="DIR", help="with train.csv")
    parser.add_argument("--synthetic-bytes", default="10MB", metavar="SIZE", help="of a demo corpus; 0: none (10MB)")
    parser.add_argument("--executors", nargs="+", choices=KINDS, default=KINDS, help="all by default")
    parser.add_argument("--faults", nargs="+", choices=FAULTS, default=list(FAULTS), metavar="FAULT", help="all")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print("| corpus | fault |", " | ".join(args.executors), "|")
    print("|---|---|" + "---|" * len(args.executors), flush=True)
    good = True
    with tempfile.TemporaryDirectory(prefix="engines-") as name, started_clusters(Path(name), args.executors) as found:
        corpora = [path.resolve() for path in args.corpus]
        if size := parse_size(args.synthetic_bytes):
            corpora.append(Path(name) / "demo")
            write_demo(corpora[-1], documents=size // DOCUMENT_BYTES, classes=10, seed=1)
        for corpus in corpora:
            reference = whole(corpus, Path(name) / f"whole-{corpus.name}")
            bench = Bench(corpus, reference, Path(name), args.executors, found)
            for fault in args.faults:
                said = [outcome(bench, kind, fault) for kind in args.executors]
                row = f"{corpus.name}, {bytes_of(corpus) / 1e6:.1f} MB", fault, *said
                print("|", " | ".join(row), "|", flush=True)
                good = good and set(said) == {"equal"}
    return 0 if good else 1


@contextlib.contextmanager
def started_clusters(scratch: Path, kinds: Sequence[str]) -> Iterator[dict[str, Clustered]]:
    """Start the clusters among executors."""
    with contextlib.ExitStack() as stack:
        found = {}
        for kind in set(KINDS[1:]) & set(kinds):
            (scratch / kind).mkdir()
            found[kind] = stack.enter_context(clustered(kind, scratch / kind))
        yield found


if __name__ == "__main__":
    sys.exit(main())
