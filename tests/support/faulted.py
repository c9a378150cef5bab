"""Commands of every kind on small inputs, to be run while one of their calls on files fails, and the law they obey.

The law: a command in which a call fails ends with exit code 1 and one line that names the file, or does its work; then
the same command ends with exit code 0 and leaves exactly the files of a run that nothing disturbed; and it changed no
other file. Calls that were interrupted by a signal, and writes that took only a part of the bytes, are no failures.

Nothing here knows how a command works: which files it makes on its way, or under which names.
"""

from __future__ import annotations

import contextlib
import csv
import errno
import functools
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from support.forked import COMMAND, TENSORFLOW, Forking, forking
from support.learnable import write_shards
from support.published import Site, files_of, in_small, packed, serving
from support.supervised import SHORT, Call, Decide, supervised
from support.topics import TOPICS, write_corpus

FULL = -2  # a fault: the disk is full from this call on
SURVIVED = (errno.EINTR, SHORT)
SQLITE = "study.db"  # files of SQLite, which takes an interrupted fsync for a failure and rolls back
# What can happen to calls of each kind. POSIX has no EINTR for calls on names, nor for opendir.
FAILURES = {
    "write": (errno.ENOSPC, errno.EIO, FULL),
    "pwrite": (errno.ENOSPC, errno.EIO, FULL),
    "copy": (errno.ENOSPC, errno.EIO),
    "fsync": (errno.EIO, errno.ENOSPC),
    "sync": (),
    "truncate": (errno.ENOSPC, errno.EIO),
    "reserve": (errno.ENOSPC, errno.EIO, FULL),
    "mmap": (errno.ENOMEM, errno.EIO),
    "create": (errno.ENOSPC, errno.EIO, FULL),
    "open": (errno.EIO,),
    "rename": (errno.EIO, errno.ENOSPC),
    "link": (errno.ENOSPC, errno.EIO),
    "unlink": (errno.EIO,),
    "mkdir": (errno.ENOSPC, errno.EIO),
}
INTERRUPTED = ("write", "pwrite", "fsync", "truncate", "reserve", "create", "open")
SHORTENED = ("write", "pwrite")
GROWING = ("write", "pwrite", "copy", "reserve", "create", "mkdir", "link")  # what fails while a disk is full
# Names of figures that differ from run to run; a model's file has a date in it.
_MEASURED = re.compile(r"seconds|per_second|input_wait|peak_memory|(model|config)_sha256")

_OF_TENSORFLOW = re.compile(r"[IWEF]\d{4} \d\d:\d\d|WARNING: All log messages before absl")  # its own log

# All kernels are loaded once, in the server, but for those of commands that train. Most commands never import
# TensorFlow; the others are forked from a second server, which has imported it and must not run it.
_SERVED = "import support.supervised, shardtrain.cli.main, shardtrain.inference.predict_file\n"
_WARM = """
from shardtrain.cli.main import main
for words in {commands!r}:
    assert main(words + ["--quiet"]) == 0, words
"""


@dataclass(frozen=True)
class Command:
    """A command line.

    Attributes:
        words: with `{inputs}` and `{work}` for the folders of the home.
        first: a command that made what lies in the working folder before; none if empty.
        before: code that the process runs first.
        differing: names of files whose content differs between equal runs.
        every: in `make soak` every n-th call fails, where one run takes long.
        keras: it imports Keras.
    """

    words: str
    first: str = ""
    before: str = ""
    differing: tuple[str, ...] = ("build.json",)
    every: int = 1
    keras: bool = False


_BUILD = "build {inputs}/corpus --out {work}/out --workers 1 --rows-per-shard 40"
_BASE = "build {inputs}/other.csv --out {work}/out --workers 1 --rows-per-shard 40"
_TRAIN = "--epochs 2 --checkpoint-every 1epochs --batch-size 32 --seed 1"
_FETCHED = """
import shardtrain.corpus.published as module
from pathlib import Path
from support.published import in_small
module.DATASETS = tuple(
    in_small(each, "{url}", Path("{aside}/archive").read_bytes()) for each in module.DATASETS if each.name == "imdb"
)
"""
_PARALLEL = """
import sys
import shardtrain.pipeline.build
sys.modules["shardtrain.pipeline.build"].PARALLEL_BYTES = 0
"""
COMMANDS = {
    "build": Command(_BUILD),
    "build parallel": Command(_BUILD.replace("--workers 1", "--workers 2"), before=_PARALLEL, every=20),
    "build words": Command(_BUILD + " --vectorizer sequence --compress lz4"),
    "overwrite": Command(_BUILD + " --overwrite", first=_BASE),
    "append": Command("build {inputs}/corpus/test.csv --out {work}/out --workers 1 --append", first=_BUILD),
    "convert": Command("convert {inputs}/table.npz --y y --out {work}/out --rows-per-shard 60"),
    "recompress": Command("recompress {inputs}/shards --out {work}/out --compress lz4"),
    "index": Command("index {inputs}/table.h5 --x x --y y --out {work}/out"),
    "report": Command("report {inputs}/shards --out {work}/report.html"),
    "fetch": Command("fetch imdb --out {work}/set", before=_FETCHED, differing=()),
    "predict": Command("predict {inputs}/run --input {inputs}/corpus/test.csv --output {work}/out.csv"),
    "predict page": Command(
        "predict {inputs}/run --input {inputs}/corpus/test.csv --explain 2 --html {work}/page.html"
    ),
    "evaluate": Command("evaluate {inputs}/run {inputs}/corpus --errors {work}/wrong.jsonl --overwrite"),
    "thresholds": Command(
        "evaluate {work}/run {inputs}/text --choose-threshold precision>=0.1",
        first="fit {inputs}/text --out {work}/run " + _TRAIN,
    ),
    "export": Command("export {inputs}/run --out {work}/model.bundle"),
    "export folder": Command(
        "export {inputs}/run --to savedmodel --out {work}/model",
        differing=("saved_model.pb", "fingerprint.pb"),
        keras=True,
    ),
    "fit": Command("fit {inputs}/shards --out {work}/run " + _TRAIN, differing=("config.json",)),
    "tune": Command(
        "tune {inputs}/shards --units 4 8 --out {work}/study " + _TRAIN.replace("--epochs 2", "--epochs 1"),
        differing=("config.json", "study.db"),
    ),
}


@dataclass
class Home:
    """The folder that is watched: inputs, and where commands work; with the servers that fork them.

    Attributes:
        folder: the home.
        server: forks commands that have the modules loaded.
        keras_server: starts another one, for commands that import Keras.
        url: of the server of data sets.
        states: by command, the working folder before it runs, and all files after a run that nothing disturbed.
        started: by command, all files before it runs.
        calls: by command, its calls in the home if nothing disturbs it.
    """

    folder: Path
    server: Forking
    keras_server: Callable[[], Forking]
    url: str
    states: dict[str, tuple[Path, dict[str, str]]] = field(default_factory=dict)
    started: dict[str, dict[str, str]] = field(default_factory=dict)
    calls: dict[str, list[Call]] = field(default_factory=dict)

    @property
    def work(self) -> Path:
        """The folder in which commands work."""
        return self.folder / "work"

    def words(self, text: str) -> list[str]:
        """Return a command line's words."""
        return [*text.format(inputs=self.folder / "inputs", work=self.work).split(), "--quiet"]

    def server_of(self, command: Command) -> Forking:
        """Return the server that forks a command."""
        return self.keras_server() if command.keras else self.server

    def before(self, command: Command) -> str:
        """Return the code that runs before a command."""
        return command.before.format(url=self.url, aside=self.server.folder)

    def run(self, command: Command, *, before: str = "") -> subprocess.CompletedProcess[bytes]:
        """Run a command undisturbed."""
        code = f"{self.before(command)}\n{before}\n{COMMAND}"
        return self.server_of(command).run(code, *self.words(command.words), cwd=self.folder / "inputs")

    def supervise(self, command: Command, decide: Decide) -> subprocess.CompletedProcess[bytes]:
        """Run a command whose calls in the home are decided."""

        def here(call: Call) -> int:
            return decide(call) if Path(call.path).is_relative_to(self.folder) or call.kind == "sync" else 0

        words, before = self.words(command.words), self.before(command)
        return supervised(self.server_of(command), here, *words, before=before, cwd=self.folder / "inputs")

    def reset(self, name: str) -> None:
        """Lay the working folder out as it is before a command."""
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.states[name][0], self.work, symlinks=True)

    def prepare(self, name: str) -> dict[str, str]:
        """Return the files that a command leaves if nothing disturbs it; what it starts from is kept."""
        if name not in self.states:
            command = COMMANDS[name]
            shutil.rmtree(self.work, ignore_errors=True)
            self.work.mkdir()
            (self.work / "neighbour.txt").write_text("somebody's")
            if command.first:
                done = self.run(Command(command.first))
                assert done.returncode == 0, done.stderr
            self.started[name] = self.files(command)
            kept = self.folder.parent / f"{self.folder.name} before" / name
            shutil.copytree(self.work, kept, symlinks=True)
            calls = self.calls[name] = []

            def note(call: Call) -> int:
                calls.append(call)
                return 0

            done = self.supervise(command, note)
            assert done.returncode == 0, done.stderr
            self.states[name] = kept, self.files(command)
        return self.states[name][1]

    def files(self, command: Command) -> dict[str, str]:
        """Return what lies in the home: for each file a checksum of what must be equal in equal runs."""
        found = {}
        for path in sorted(self.folder.rglob("*")):
            name = str(path.relative_to(self.folder))
            if path.is_symlink():
                found[name] = f"-> {os.readlink(path)}"
            elif path.is_dir():
                found[name] = "folder"
            else:
                found[name] = "measured" if path.name in command.differing else _checksum(path)
        return found


def _checksum(path: Path) -> str:
    """Identify a file's content, of files of a run without the times in them."""
    content = path.read_bytes()
    if path.suffix == ".keras" and zipfile.is_zipfile(path):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:  # its other parts have addresses and a date in them
            content = archive.read("model.weights.h5")
    elif path.suffix == ".json" and b"seconds" in content:
        content = json.dumps(_untimed(json.loads(content))).encode()
    elif path.name == "history.csv":
        content = repr([_untimed(row) for row in csv.DictReader(io.StringIO(content.decode()))]).encode()
    return hashlib.sha256(content).hexdigest()


def _untimed(value: object) -> object:
    """Return JSON without the figures that are measured."""
    if isinstance(value, dict):
        seal = {"checksum"} if "model_sha256" in value else set()  # of the figures
        return {name: _untimed(part) for name, part in value.items() if not _MEASURED.search(name) and name not in seal}
    return [_untimed(part) for part in value] if isinstance(value, list) else value


@contextlib.contextmanager
def home_of(folder: Path) -> Iterator[Home]:
    """Write the inputs of all commands and start the server."""
    inputs = folder / "inputs"
    write_corpus(inputs / "corpus", tuple(TOPICS), documents=90)
    write_corpus(folder / "second", tuple(TOPICS)[:2], documents=60)
    shutil.move(folder / "second" / "train.csv", inputs / "other.csv")
    shutil.rmtree(folder / "second")
    x = np.random.default_rng(1).random((150, 6), np.float32)
    np.savez(inputs / "table.npz", x=x, y=np.arange(150) % 3)
    with h5py.File(inputs / "table.h5", "w") as file:
        file["x"], file["y"] = x, np.arange(150) % 3
    write_shards(inputs / "shards", rows=90, validation_rows=30, num_features=20)
    warm = [["build", f"{inputs}/corpus", "--out", f"{inputs}/text", "--workers", "1"]]
    warm += [["build", f"{inputs}/corpus", "--out", f"{folder}/words", "--workers", "1", "--vectorizer", "sequence"]]
    warm += [["recompress", f"{inputs}/text", "--out", f"{folder}/small", "--compress", "lz4"]]
    warm += [["convert", f"{inputs}/table.npz", "--y", "y", "--out", f"{folder}/table"]]
    warm += [["index", f"{inputs}/table.h5", "--x", "x", "--y", "y", "--out", f"{folder}/indexed"]]
    warm += [["report", f"{inputs}/text", "--out", f"{folder}/report.html"]]
    aside = folder.parent / f"{folder.name} server"
    aside.mkdir()
    with contextlib.ExitStack() as stack:
        site = stack.enter_context(serving())
        server = stack.enter_context(forking(aside, _SERVED + _WARM.format(commands=warm)))

        @functools.cache
        def keras_server() -> Forking:
            other = folder.parent / f"{folder.name} keras"
            other.mkdir()
            return stack.enter_context(forking(other, TENSORFLOW + _SERVED))

        home = Home(folder, server, keras_server, site.url)
        _publish(site, aside / "archive")
        done = home.run(Command("fit {inputs}/text --out {inputs}/run --epochs 1 --seed 1"))
        assert done.returncode == 0, done.stderr
        for name in ("words", "small", "table", "indexed"):
            shutil.rmtree(folder / name)
        (folder / "report.html").unlink()
        yield home


def _publish(site: Site, archive: Path) -> None:
    """Put a small data set on the server."""
    from shardtrain.corpus.published import DATASETS

    dataset = next(each for each in DATASETS if each.name == "imdb")
    archive.write_bytes(packed(files_of(dataset)))
    site.files[in_small(dataset, site.url, archive.read_bytes()).archive.file_name] = archive.read_bytes()


@dataclass(frozen=True)
class Fault:
    """What happens to one call.

    Attributes:
        kind: of the call.
        number: of the call among those of its kind, from 1 on.
        error: number of the error, `SHORT` or `FULL`.
    """

    kind: str
    number: int
    error: int

    def __str__(self) -> str:
        name = {SHORT: "is short", FULL: "finds the disk full, and so do all after it"}
        return f"{self.kind} {self.number} {name.get(self.error) or 'fails with ' + errno.errorcode[self.error]}"


@dataclass
class Outcome:
    """What a fault led to.

    Attributes:
        fault: that was injected.
        call: that it happened to; None if there were fewer calls.
        code: the exit code, and `said` what was on standard error.
        wrong: how the law was broken; empty if it was obeyed.
    """

    fault: Fault
    call: Call | None
    code: int
    said: str
    wrong: str


def calls_of(home: Home, name: str) -> list[Call]:
    """Return a command's calls in the home."""
    home.prepare(name)
    return home.calls[name]


def faults_of(calls: Sequence[Call]) -> list[Fault]:
    """Return a fault of every kind for every call; errors of one kind take turns."""
    counts: dict[str, int] = {}
    faults = []
    for call in calls:
        number = counts[call.kind] = counts.get(call.kind, 0) + 1
        failures = FAILURES[call.kind]
        if failures:
            faults.append(Fault(call.kind, number, failures[number % len(failures)]))
        if _may_be(errno.EINTR, call):
            faults.append(Fault(call.kind, number, errno.EINTR))
        if _may_be(SHORT, call):
            faults.append(Fault(call.kind, number, SHORT))
    return faults


def _may_be(error: int, call: Call) -> bool:
    """Whether this error can happen to a call."""
    if error == errno.EINTR:
        return call.kind in INTERRUPTED and not (call.kind == "open" and call.size & os.O_DIRECTORY)  # by opendir
    return error != SHORT or (call.kind in SHORTENED and call.size > 1)


def inject(home: Home, name: str, fault: Fault) -> Outcome:
    """Run a command with a fault, then again without one if it failed, and judge it by the law."""
    whole = home.prepare(name)
    home.reset(name)
    command = COMMANDS[name]
    counted, struck = 0, []

    def decide(call: Call) -> int:
        nonlocal counted
        counted += call.kind == fault.kind
        if fault.error == FULL and struck:
            if call.kind not in GROWING:
                return 0
            struck.append(call)
            return errno.ENOSPC
        if struck or call.kind != fault.kind or counted < fault.number:
            return 0
        if not _may_be(fault.error, call):  # with several threads another run makes its calls in another order
            return 0
        struck.append(call)
        return errno.ENOSPC if fault.error == FULL else fault.error

    done = home.supervise(command, decide)
    said = done.stderr.decode(errors="replace").strip()
    call = struck[0] if struck else None
    wrong = []
    if fault.error in SURVIVED and done.returncode and not (call and Path(call.path).name.startswith(SQLITE)):
        wrong.append("not survived")
    if done.returncode not in (0, 1):
        wrong.append(f"exit code {done.returncode}")
    if done.returncode:
        wrong += misworded(said, struck)
        again = home.run(command)
        if again.returncode:
            wrong.append("REFUSED: " + again.stderr.decode(errors="replace").strip()[-300:])
        if again.returncode == 0:
            wrong += differences(whole, home.files(command))
    else:
        wrong += differences(whole, home.files(command), but=_paths(said, "warning:"))
    return Outcome(fault, call, done.returncode, said, "; ".join(wrong))


def misworded(said: str, failed: Sequence[Call]) -> list[str]:
    """How a message breaks the law, which names one of the calls that failed: the first may be of no importance."""
    if "Traceback" in said:
        return ["traceback"]
    wrong = []
    lines = [line for line in said.splitlines() if not _OF_TENSORFLOW.match(line) and not line.startswith("warning:")]
    if len(lines) != 1:
        wrong.append(f"{len(lines)} lines")
    if "unexpected" in said:
        wrong.append("unforeseen")
    if failed and not any(_named(said, call) for call in failed):
        wrong.append("file not named")
    return wrong


def _paths(said: str, start: str = "") -> list[Path]:
    """Return the paths that the lines with a certain start name."""
    lines = [line for line in said.splitlines() if line.startswith(start)]
    return [Path(path) for line in lines for path in re.findall(r"'(/[^']*)'", line)]


def _named(said: str, call: Call) -> bool:
    """Whether a message names a call's file, by the name that it has or is to have, or its folder."""
    for path in (Path(path) for path in (call.path, call.other) if path):
        for named in _paths(said):
            if named in (path, path.parent) or path == named.parent:
                return True
            if named.name and path.name.lstrip(".").startswith(named.name.lstrip(".")):
                return True
    return False


def differences(whole: dict[str, str], found: dict[str, str], but: Sequence[Path] = ()) -> list[str]:
    """How the files of a home differ from those of an undisturbed run.

    Args:
        whole: files of the undisturbed run.
        found: files that are there.
        but: what may be left, because the user was asked to remove it.
    """
    wrong = []
    asked = [each for each in found if any(str(path).endswith(f"/{part}") for path in but for part in _above(each))]
    if left := sorted(found.keys() - whole.keys() - set(asked)):
        wrong.append(f"left: {', '.join(left[:3])}")
    if missing := sorted(whole.keys() - found.keys()):
        wrong.append(f"MISSING: {', '.join(missing[:3])}")
    if other := sorted(name for name in whole.keys() & found.keys() if whole[name] != found[name]):
        wrong.append(f"OTHER BYTES: {', '.join(other[:3])}")
    return wrong


def _above(name: str) -> list[str]:
    """Return a path and all folders above it, but for the first."""
    return [name, *map(str, list(Path(name).parents)[:-2])]
