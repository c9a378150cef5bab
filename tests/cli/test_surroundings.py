"""The command line in odd surroundings: the work is done, or it ends with one line and the right exit code.

Processes are forked from one that has imported everything; those whose start is what is tested are started anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from support.forked import Forking, forking
from support.sampled import sampled
from support.terminals import terminal

from shardtrain.cli.main import COMMANDS, main
from shardtrain.datasets.demo import write_demo
from shardtrain.pipeline.build import PARALLEL_BYTES

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")

NASTY = "\x1b]0;title\x07\x1b[2J\u202e\x9b31m"
BUILT = """
import tempfile
from pathlib import Path
from shardtrain.cli.main import main

with tempfile.TemporaryDirectory() as folder:
    Path(folder, "a.csv").write_text("".join(f"{number % 2},a few words {number % 7}\\n" for number in range(40)))
    assert main(["build", f"{folder}/a.csv", "--out", f"{folder}/out", "--workers", "1", "--quiet"]) == 0
"""
START = "import os, sys\n{0}\nfrom shardtrain.cli.start import main\nsys.exit(main())"

# Of commands that make something, its name in place of {new}; what they print only sums it up.
MAKERS = {
    "demo": ["demo", "--out", "{new}", "--documents", "60", "--classes", "2"],
    "build": ["build", "{home}/corpus", "--out", "{new}"],
    "convert": ["convert", "{home}/table.npz", "--x", "x", "--y", "y", "--out", "{new}"],
    "index": ["index", "{home}/table.h5", "--x", "x", "--y", "y", "--out", "{new}"],
    "recompress": ["recompress", "{home}/shards", "--compress", "zstd", "--out", "{new}"],
    "train": ["train", "{home}/corpus", "--epochs", "1", "--out", "{new}"],
    "fit": ["fit", "{home}/shards", "--epochs", "1", "--out", "{new}"],
    "launch": ["launch", "--local", "1", "--", "fit", "{home}/shards", "--epochs", "1", "--out", "{new}"],
    "tune": ["tune", "{home}/shards", "--epochs", "1", "--units", "2", "4", "--out", "{new}"],
    "predict": ["predict", "{home}/run", "--input", "{home}/texts.txt", "--output", "{new}.csv"],
    "predict, page": ["predict", "{home}/run", "--input", "{home}/texts.txt", "--explain", "2", "--html", "{new}.html"],
    "export": ["export", "{home}/run", "--out", "{new}.bundle"],
    "export, SavedModel": ["export", "{home}/run", "--to", "savedmodel", "--out", "{new}"],
    "report": ["report", "{home}/run", "--out", "{new}.html"],
}
# What these print is the result.
SHOWING = {
    "build, planned": ["build", "{home}/corpus", "--dry-run"],
    "evaluate": ["evaluate", "{home}/run", "{home}/shards"],
    "runs": ["runs", "{home}"],
    "compare": ["compare", "{home}/run", "{home}/again"],
    "predict, lines": ["predict", "{home}/run", "--input", "{home}/texts.txt"],
    "predict, reasons": ["predict", "{home}/run", "--input", "{home}/texts.txt", "--explain", "2"],
    "predict, CSV": ["predict", "{home}/run", "--input", "{home}/texts.txt", "--output", "-"],
    "inspect": ["inspect", "{home}/shards", "--rows", "2"],
    "verify": ["verify", "{home}/shards"],
    "doctor": ["doctor", "{home}"],
    "completion": ["completion", "bash"],
    "fetch": ["fetch", "--list"],
    "help": ["fit", "--help"],
    "version": ["--version"],
    "print-config": ["fit", "--print-config"],
}
EVERY = {**{f"{name}, made": words for name, words in MAKERS.items()}, **SHOWING}
ALWAYS = ("build", "inspect", "predict, CSV", "help")  # the others in `make soak`
STDOUT_FULL = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)"
MESSAGES_LOST = {
    "standard error is full": "os.dup2(os.open('/dev/full', os.O_WRONLY), 2)",
    "standard error is closed": "os.close(2); sys.stderr = None",
    "the reader of standard error ended": "r, w = os.pipe(); os.close(r); os.dup2(w, 2)",
    "standard error and input are closed": "os.close(0); os.close(2); sys.stdin = sys.stderr = None",
}
OTHER = {
    "few descriptors": "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))",
    "a strict umask": "os.umask(0o077)",
    "no temporary folder": "import tempfile; tempfile.tempdir = None; os.environ['TMPDIR'] = '/nonexistent'",
    "no current folder": "os.mkdir('gone'); os.chdir('gone'); os.rmdir('../gone')",
    "a narrow dumb terminal": "os.environ.update(COLUMNS='1', TERM='dumb')",
    "ASCII": "sys.stdout.reconfigure(encoding='ascii', errors='strict')",
}


def _all(commands: dict[str, list[str]]) -> list[object]:
    return [pytest.param(name, marks=() if name in ALWAYS else pytest.mark.slow) for name in commands]


@pytest.fixture(scope="module")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forking]:
    """Runs code in new processes that have built before; of the commands only the export to TensorFlow imports it."""
    with forking(tmp_path_factory.mktemp("forked"), BUILT) as server:
        yield server


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("surroundings")
    write_demo(folder / "corpus", documents=300, classes=2, seed=1, advance=lambda _: None)
    assert main(["build", str(folder / "corpus"), "--out", str(folder / "shards"), "--quiet"]) == 0
    assert main(["fit", str(folder / "shards"), "--epochs", "1", "--out", str(folder / "run"), "--quiet"]) == 0
    shutil.copytree(folder / "run", folder / "again")
    (folder / "texts.txt").write_text("a text\nanother one\n")
    row = f'{"some words " * 400}"\n'
    (folder / "big.csv").write_text(f'"1","one {row}"2","two {row}' * (PARALLEL_BYTES // (2 * len(row)) + 1))
    assert (folder / "big.csv").stat().st_size > PARALLEL_BYTES
    x, y = np.random.default_rng(1).random((40, 3), np.float32), np.arange(40) % 2
    np.savez(folder / "table.npz", x=x, y=y)
    with h5py.File(folder / "table.h5", "w") as file:
        file["x"], file["y"] = x, y
    return folder


@pytest.fixture
def run(home: Path, forked: Forking, tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[bytes]]:
    def run(words: list[str], prepare: str, *more: str) -> subprocess.CompletedProcess[bytes]:
        filled = [word.format(home=home, new=tmp_path / "new") for word in words]
        return forked.run(START.format(prepare), *filled, *more, cwd=tmp_path)

    return run


def _lines(text: bytes) -> list[str]:
    return text.decode().splitlines()


def _made(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.name.startswith("new")]


def test_every_command_is_tried(home: Path) -> None:
    assert {words[0] for words in (*MAKERS.values(), *SHOWING.values())} >= {command.name for command in COMMANDS}


@pytest.mark.parametrize("name", _all(MAKERS))
def test_a_log_that_is_full_does_not_fail_what_is_made(name, run, tmp_path) -> None:
    both = f"{STDOUT_FULL}; {MESSAGES_LOST['standard error is full']}"
    assert run(MAKERS[name], both).returncode == 0
    assert _made(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("lost", MESSAGES_LOST)
@pytest.mark.parametrize("name", EVERY)
def test_messages_that_are_lost_change_nothing(name, lost, run) -> None:
    done = run(EVERY[name], MESSAGES_LOST[lost])
    assert done.returncode == 0
    assert done.stdout


@pytest.mark.parametrize("name", _all(SHOWING))
def test_a_result_that_cannot_be_printed_is_one_line_and_exit_code_1(name, run) -> None:
    done = run(SHOWING[name], STDOUT_FULL)
    assert done.returncode == 1
    errors = [line for line in _lines(done.stderr) if line.startswith("error: ")]  # TensorFlow logs lines of its own
    assert errors == ["error: the result cannot be written to standard output: No space left on device"]


@pytest.mark.parametrize("name", _all(MAKERS))
def test_json_that_cannot_be_printed_is_one_line_and_exit_code_1(name, run, tmp_path) -> None:
    done = run(MAKERS[name], STDOUT_FULL, "--json")
    assert done.returncode == 1
    assert "error: the result cannot be written" in _lines(done.stderr)[-1]
    assert _made(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("around", OTHER)
@pytest.mark.parametrize("name", EVERY)
def test_other_surroundings_change_nothing_or_are_named(name, around, run) -> None:
    done = run(EVERY[name], OTHER[around])
    assert b"Traceback" not in done.stderr
    assert b"unexpected" not in done.stderr
    assert done.returncode == 0 or (done.returncode == 1 and _lines(done.stderr)[-1].startswith("error: "))


def test_a_reader_that_ends_is_no_error(run) -> None:
    done = run(SHOWING["inspect"], "r, w = os.pipe(); os.close(r); os.dup2(w, 1)")
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")


def test_a_current_folder_that_was_removed_is_named(run, home) -> None:
    done = run(["build", f"{home}/corpus", "--out", "relative"], OTHER["no current folder"])
    assert done.returncode == 1
    assert _lines(done.stderr)[-1].endswith("the current folder does not exist any more: change to another one")


def test_names_that_are_not_utf_8_are_read_shown_and_kept(run, tmp_path) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/odd \xe9"))
    for label in ("one", "two"):
        folder = odd / os.fsdecode(label.encode() + b"\xff")
        folder.mkdir(parents=True)
        for number in range(20):
            (folder / f"{number}.txt").write_text(f"{label} words words {number % 3}")
    script = f"sys.argv = [os.fsdecode(word.encode('latin-1')) for word in {_latin(odd)!r}]"
    done = run([], script)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert Path(facts["shards"]) == odd / "out"
    assert (odd / "out" / "manifest.json").exists()
    assert rb"\xff" in done.stderr or facts["class_names"]
    done = run([], script.replace("--json", "--dry-run").replace("'build'", "'build'"))
    assert rb"odd \xe9" in done.stdout + done.stderr


def _latin(odd: Path) -> list[str]:
    words = ["shardtrain", "build", os.fspath(odd), "--out", os.fspath(odd / "out"), "--min-df", "1", "--json"]
    return [os.fsencode(word).decode("latin-1") for word in words]


def test_text_of_files_does_not_act_on_a_terminal(forked: Forking, home: Path, tmp_path: Path) -> None:
    header, named = tmp_path / "h.csv", tmp_path / f"odd{NASTY}.csv"
    rows = "".join(f"a{NASTY},one two {n % 3}\nb{NASTY},three four {n % 3}\n" for n in range(20))
    header.write_text(f"label{NASTY},text{NASTY}\n{rows}")
    named.write_text(f'"1","{NASTY}\n')
    commands = [
        ["build", header, "--header", "--label-column", "0", "--labels", "names", "--out", tmp_path / "s"],
        ["inspect", tmp_path / "s", "--rows", "3"],
        ["build", named, "--out", tmp_path / "t"],
        ["build", header, f"--bad{NASTY}"],
        ["predict", home / "run", f"a text {NASTY}"],
    ]
    for words in commands:
        with terminal() as screen:
            prepare = f"t = os.open({screen.name!r}, os.O_RDWR)\nfor number in range(3): os.dup2(t, number)"
            forked.run(START.format(prepare), *words, cwd=tmp_path)
        shown = bytes(screen.shown)
        assert shown, words
        left = re.sub(rb"\x1b\[(0|3[0-9])?m|\x1b\[A", b"", shown).decode()  # our colours, tqdm's line up
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202e]", left), (words, left)
    assert r"\x1b]0;title\x07" in left


def _started(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "shardtrain", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def _wait_for(process: subprocess.Popen[str], seen: Callable[[int], bool]) -> None:
    while not seen(process.pid):
        assert process.poll() is None, "it ended before"
        time.sleep(0.002)


def _has_mapped(library: str) -> Callable[[int], bool]:
    return lambda number: library in Path(f"/proc/{number}/maps").read_text()


def _has_worker(number: int) -> bool:
    children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
    return any(b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes() for child in children)


# Which signal comes when; the first of each moment in `make test`.
START_UP = {
    "while numba is imported": (["build", "{home}/corpus", "--out", "{new}"], _has_mapped("llvmlite"), signal.SIGINT),
    "while TensorFlow is imported": (
        ["fit", "{home}/shards", "--engine", "keras", "--out", "{new}"],
        _has_mapped("_pywrap_tensorflow"),
        signal.SIGTERM,
    ),
    "while workers start": (
        ["build", "{home}/big.csv", "--workers", "2", "--out", "{new}"],
        _has_worker,
        signal.SIGINT,
    ),
}


@pytest.mark.heavy
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system has no /proc")
@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["", "the other signal"])
@pytest.mark.parametrize("when", sampled(START_UP, (0, 2)))
def test_an_interruption_at_the_start_is_one_line(when, again, home, tmp_path) -> None:
    words, moment, number = START_UP[when]
    if again:
        number = signal.SIGINT if number == signal.SIGTERM else signal.SIGTERM
    with _started(*(word.format(home=home, new=tmp_path / "new") for word in words)) as process:
        _wait_for(process, moment)
        if number == signal.SIGINT:
            os.killpg(process.pid, number)  # as a terminal does
        else:
            process.send_signal(number)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert err.splitlines()[-1] == "interrupted"


@pytest.mark.heavy
def test_a_process_without_home_caches_and_streams_works(home: Path, tmp_path: Path) -> None:
    lost = dict.fromkeys(("XDG_CACHE_HOME", "NUMBA_CACHE_DIR", "TMPDIR", "KERAS_HOME"), "/proc/nowhere")
    env = {name: value for name, value in os.environ.items() if name != "HOME"} | lost
    command = [sys.executable, "-m", "shardtrain", "verify", str(home / "shards")]
    script = 'exec "$@" <&- 2>&-'
    done = subprocess.run(["sh", "-c", script, "sh", *command], env=env, capture_output=True, check=False)
    assert done.returncode == 0
    assert b"all as written" in done.stdout
    for redirect, code in ((">/dev/full", 1), (">&-", 1), (">/dev/full 2>&1", 1)):
        script = f'exec "$@" {redirect}'
        done = subprocess.run(["sh", "-c", script, "sh", *command[:3], "--version"], capture_output=True, check=False)
        assert done.returncode == code  # not 120, which is Python's own code for a stream that it could not flush
        assert b"Exception ignored" not in done.stderr
