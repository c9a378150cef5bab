"""Build in a process of its own whose workers, attempts or driver come to harm at a moment that the caller chooses.

`drive` is what that process runs; `Asked` says what happens to it. Workers of engines import this module too, so the
folder of the tests has to be on their PYTHONPATH.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import IO, Any

import psutil

TESTS = Path(__file__).resolve().parents[1]
BUCKET_BITS, GROUP_UNITS, MOST_FILES = 3, 5, 6  # of a build in groups
ASK, DIE = "ask", "die"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A build, and what happens to it.

    Attributes:
        corpus: that is read.
        out: the output folder.
        options: of the build, by their names in Python.
        unit_bytes: of a unit, small enough for every pass to have several tasks.
        title: of the pass in which something happens.
        act: `ASK`: write a line at the second result of the pass and wait for one; `DIE`: kill this process then.
        twice: every task is submitted twice, and only the second attempt is awaited.
        grouped: put units together in groups, as a corpus of many gigabytes does.
        marks: folder in which an attempt of the pass says that it stopped its process, and how it ended.
        at_rename: it stops just before it renames its first file, not when it begins.
        below: the attempt that stops descends from one of these processes; empty: from any.
    """

    corpus: str
    out: str
    options: dict[str, Any] = field(default_factory=dict)
    unit_bytes: int
    title: str = ""
    act: str = ""
    twice: bool = False
    grouped: bool = False
    marks: str = ""
    at_rename: bool = False
    below: Sequence[int] = ()


def started(asked: Asked, log: IO[str]) -> subprocess.Popen[str]:
    """Start a driver; what it says goes to a file."""
    code = "from support.attempts import drive; drive()"
    paths = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": paths, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONWARNINGS": "ignore"}
    command = [sys.executable, "-c", code, json.dumps(asdict(asked))]
    return subprocess.Popen(command, stdin=-1, stdout=-1, stderr=log, text=True, env=environment)


def drive() -> None:
    """Build as `Asked` says, which is the argument of this process as JSON."""
    from shardtrain.pipeline import build as building
    from shardtrain.pipeline.options import BuildOptions
    from shardtrain.runtime.engines.cluster import Cluster
    from shardtrain.runtime.executors import Pool

    asked = Asked(**json.loads(sys.argv[1]))
    building.UNIT_BYTES, building.PARALLEL_BYTES = asked.unit_bytes, 0
    if asked.grouped:
        _group()
    if asked.twice:
        _submit_twice()
    for runner in (Cluster, Pool):
        runner.run = _watched(runner.run, asked)  # type: ignore[method-assign]
    building.build(asked.corpus, asked.out, BuildOptions(**asked.options))


def _group() -> None:
    from shardtrain.pipeline import counting, placing, planning

    counting.plan_buckets = lambda num_terms, budget: BUCKET_BITS
    for module in (counting, planning, placing):
        module.GROUP_UNITS, module.MOST_FILES = GROUP_UNITS, MOST_FILES  # type: ignore[attr-defined]


def _submit_twice() -> None:
    from shardtrain.runtime import executors
    from shardtrain.runtime.engines.dask_engine import DaskEngine
    from shardtrain.runtime.engines.ray_engine import RayEngine

    def twice(submit: Callable[..., Any]) -> Callable[..., Any]:
        def submitted(self: Executor, function: Any, /, *arguments: Any) -> Any:
            submit(self, function, *arguments)
            return submit(self, function, *arguments)

        return submitted

    for engine in (executors._Processes, DaskEngine, RayEngine):
        engine.submit = twice(engine.submit)  # type: ignore[method-assign]


def _watched(run: Callable[..., Iterator[Any]], asked: Asked) -> Callable[..., Iterator[Any]]:
    """Return the method that runs a pass with what happens in it."""

    def watching(self: Any, function: Any, tasks: Sequence[Any]) -> Iterator[Any]:
        met = isinstance(function, partial) and function.args[0] == asked.title
        if met and asked.marks:
            stopping = Stopping(function.args[1], Path(asked.marks), asked.at_rename, tuple(asked.below))
            function = partial(function.func, asked.title, stopping)
        for number, found in enumerate(run(self, function, tasks)):
            if met and number == 1:
                _act(asked.act)
            yield found

    return watching


def _act(what: str) -> None:
    if what == DIE:
        os.kill(os.getpid(), signal.SIGKILL)
    elif what == ASK:
        print(ASK, flush=True)
        sys.stdin.readline()


@dataclass(frozen=True)
class Stopping:
    """The function of a pass, one attempt of which stops its process: as it begins, or before its first rename.

    The file `stopped` then holds the number of the process. Once the process was continued and the attempt has ended,
    `ended` says that it `finished`, or `failed`.
    """

    function: Callable[[Any], Any]
    marks: Path
    at_rename: bool
    below: tuple[int, ...]

    def __call__(self, task: Any) -> Any:
        """Run a task."""
        if not self.below or {each.pid for each in psutil.Process().parents()} & set(self.below):
            with contextlib.suppress(FileExistsError), open(self.marks / "begun", "x"):
                return self._late(task)
        return self.function(task)

    def _late(self, task: Any) -> Any:
        rename, leave, thread, ended, said = os.replace, os._exit, threading.get_ident(), threading.Event(), "failed"

        def stop() -> None:
            _write(self.marks / "stopped", str(os.getpid()))
            signal.pthread_kill(thread, signal.SIGSTOP)  # no other thread takes the signal while this one goes on

        def stop_and_rename(source: Any, target: Any) -> None:
            if threading.get_ident() == thread:
                os.replace = rename
                stop()
            rename(source, target)

        def leave_afterwards(code: int) -> Any:  # as a worker process does whose parent has died
            ended.wait(60)
            leave(code)

        os._exit = leave_afterwards
        try:
            if self.at_rename:
                os.replace = stop_and_rename  # type: ignore[assignment]
            else:
                stop()
            result = self.function(task)
            said = "finished"
            return result
        finally:
            _write(self.marks / "ended", said)
            ended.set()


def _write(path: Path, text: str) -> None:
    """Let a file appear with its text."""
    path.with_suffix(".partial").write_text(text)
    path.with_suffix(".partial").rename(path)
