"""New processes that have TensorFlow imported: forked, before any of it has run, from a process that imported it once.

Importing takes four seconds. Tests whose law needs a process (kills, memory, standard streams, devices) save them here.
Processes that build have, instead, the compiled kernels loaded, which takes two seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]

# Requests come in as lines of JSON: to run code, which the number of the new process answers, or to wait for one,
# which its code answers.
SERVER = """
import gc, io, json, os, sys, traceback

def run(request):
    os.chdir(request["cwd"])
    for number, (path, flags) in enumerate(request["streams"]):
        os.dup2(os.open(path, flags, 0o644), number)
    sys.stdin, sys.stdout, sys.stderr = open(0), open(1, "w"), open(2, "w", buffering=1)
    sys.argv = request["argv"]
    try:
        exec(compile(request["code"], "<code>", "exec"), {"__name__": "__main__"})
        code = 0
    except SystemExit as left:
        code = left.code or 0
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code)

requests, answers = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
gc.disable()
exec(compile(sys.argv[1], "<before>", "exec"), {})
gc.freeze()
gc.enable()
for line in requests:
    request = json.loads(line)
    if "wait" in request:
        print(os.waitstatus_to_exitcode(os.waitpid(request["wait"], 0)[1]), file=answers)
        continue
    child = os.fork()
    if not child:
        run(request)
    print(child, file=answers)
"""
COMMAND = "import sys\nfrom shardtrain.cli.main import main\nsys.exit(main(sys.argv[1:]))"
# Without scikit-learn, which Keras imports for its wrappers where it is installed: a third of its time and memory.
TENSORFLOW = """
import sys
sys.modules["sklearn"] = None
import keras
del sys.modules["sklearn"]
import shardtrain.cli.main, shardtrain.training.fit, shardtrain.training.staged, shardtrain.inference.predict_file
"""
BUILDING = """
import tempfile
from pathlib import Path
import shardtrain.cli.main
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.progress import QUIET, verbosity

with tempfile.TemporaryDirectory() as folder, verbosity(QUIET):
    corpus = Path(folder, "a.csv")
    corpus.write_text("".join(f"{number % 2},a few words {number % 7}\\n" for number in range(40)))
    for kind in ("ngram", "sequence"):
        build(corpus, Path(folder, kind), BuildOptions(vectorizer=kind, workers=1))
"""
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC


class Forking:
    """Runs code in new processes; those of which the standard output is not kept elsewhere one after the other."""

    def __init__(self, folder: Path, before: str) -> None:
        self.folder = folder
        self._server = subprocess.Popen(
            [sys.executable, "-c", SERVER, before],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env={
                **os.environ,
                "TF_CPP_MIN_LOG_LEVEL": "2",
                "PYTHONPATH": f"{TESTS.parent}:{TESTS}",
                "TMPDIR": str(folder),
            },
        )

    def start(
        self,
        code: str,
        *arguments: object,
        stderr: Path,
        stdin: Path | None = None,
        stdout: Path | None = None,
        cwd: Path,
    ) -> int:
        """Begin to run; the number of the process, for which `wait` must be called."""
        streams = [
            (str(stdin or os.devnull), os.O_RDONLY),
            (str(stdout or self.folder / "out"), _WRITE),
            (str(stderr), _WRITE),
        ]
        self._last = self._ask(code=code, argv=["-c", *map(str, arguments)], streams=streams, cwd=str(cwd))
        return self._last

    def wait(self, process: int | None = None) -> int:
        """How a process ended, by default the one that was started last."""
        return self._ask(wait=process or self._last)

    def run(
        self, code: str, *arguments: object, stdin: Path | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run to the end."""
        stderr = self.folder / "err"
        self.start(code, *arguments, stderr=stderr, stdin=stdin, cwd=cwd or self.folder)
        ended = self.wait()
        return subprocess.CompletedProcess([], ended, (self.folder / "out").read_bytes(), stderr.read_bytes())

    def command(
        self, *arguments: object, stdin: Path | None = None, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the command line to the end."""
        return self.run(COMMAND, *arguments, stdin=stdin, cwd=cwd)

    def _ask(self, **request: object) -> int:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        return int(self._server.stdout.readline())

    def close(self) -> None:
        """End the server."""
        self._server.communicate()
        assert self._server.returncode == 0


@contextmanager
def forking(folder: Path, before: str = TENSORFLOW) -> Iterator[Forking]:
    """A server that keeps what its processes print in `folder`; it runs the code `before` once, before it forks."""
    server = Forking(folder, before)
    try:
        yield server
    finally:
        server.close()
