"""Laws of systems: macOS, imitated, gives the very bytes that Linux gives; Windows is refused before any work.

`tests/support/macos` and `tests/support/windows` take away what Python does not have there, in processes that tests
start; `make test-portable` runs quick tests of runtime, shards and loader so as a whole.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path

import h5py
import pytest
from support.topics import TEXTS, TOPICS, write_corpus

ROOT = Path(__file__).resolve().parents[2]
IMITATED = {name: ROOT / "tests" / "support" / name for name in ("macos", "windows")}

# All commands on one corpus, in one process; what a command prints is kept beside what it writes.
JOURNEY = """
    import contextlib, io, json, os, sys
    import numpy as np
    from shardtrain.cli.main import main

    def run(*words):
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = main([*words, "--quiet"])
        assert code == 0, (words, out.getvalue())
        return out.getvalue()

    if __name__ == "__main__":
        corpus, texts = sys.argv[1], json.loads(sys.argv[2])
        run("build", corpus, "--out", "shards", "--workers", "2", "--rows-per-shard", "50")
        run("build", corpus, "--out", "words", "--vectorizer", "sequence", "--workers", "1", "--compress", "lz4")
        run("build", corpus + "/test.csv", "--out", "shards", "--append", "--workers", "1")
        run("recompress", "words", "--out", "small", "--compress", "zstd")
        np.savez("features.npz", x=np.arange(800, dtype="f4").reshape(200, 4), y=np.arange(200) % 2)
        run("convert", "features.npz", "--y", "y", "--out", "table")
        for shards in ("shards", "words", "small", "table"):
            run("verify", shards)
        run("fit", "shards", "--out", "run", "--epochs", "2", "--seed", "1")
        printed = {"evaluate": run("evaluate", "run", "shards", "--json"), "predict": run("predict", "run", *texts)}
        run("predict", "run", "--input", corpus + "/test.csv", "--output", "predicted.csv", "--proba")
        run("export", "run", "--out", "model.bundle")
        run("report", "shards", "--out", "shards.html")
        printed["inspect"] = run("inspect", "shards")
        with open("printed.json", "w") as file:
            json.dump(printed, file, indent=1)
"""
MEASURED = {"build.json", "config.json", "metrics.json", "shards.html"}  # times, and the paths of folders


def run_on(system: Path | None, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a folder; `system` is the folder of its imitation."""
    paths = [ROOT, ROOT / "tests"] if system is None else [system, ROOT, ROOT / "tests"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "TF_CPP_MIN_LOG_LEVEL": "2"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def made_on(system: Path | None, corpus: Path, folder: Path) -> dict[str, bytes]:
    """The files that all commands make on a system, but those of measurements; weights as their values."""
    folder.mkdir()
    done = run_on(system, folder, "-c", textwrap.dedent(JOURNEY), str(corpus), json.dumps(TEXTS))
    assert done.returncode == 0, done.stderr
    made = {}
    for path in folder.rglob("*"):
        if path.name == "model.keras":  # a zip file, with times
            with zipfile.ZipFile(path) as archive, h5py.File(archive.open("model.weights.h5")) as weights:
                weights.visititems(
                    lambda name, item: made.update({name: item[()].tobytes()} if isinstance(item, h5py.Dataset) else {})
                )
        elif path.is_file() and path.name not in MEASURED:
            made[str(path.relative_to(folder))] = path.read_bytes()
    return made


@pytest.mark.portable
def test_all_commands_work_without_the_calls_of_linux_and_make_the_same_bytes(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", tuple(TOPICS), documents=150)
    here = made_on(None, corpus, tmp_path / "here")
    there = made_on(IMITATED["macos"], corpus, tmp_path / "there")
    assert sorted(there) == sorted(here)
    assert [name for name in here if there[name] != here[name]] == []
    assert len({name.casefold() for name in here}) == len(here)  # for file systems that ignore case
    assert {"shards/train-00002.h5", "table/manifest.json", "predicted.csv", "printed.json"} < set(here)
    assert any("vars/0" in name for name in here)


MISSING = """
import fcntl, mmap, os, signal
print(*(f"{module.__name__}.{name}" for module in (fcntl, mmap, os, signal) for name in dir(module)))
"""


def test_the_imitation_takes_away_all_that_the_known_one_does(systems: Path, tmp_path: Path) -> None:
    here, known, ours = (
        set(run_on(system, tmp_path, "-c", MISSING).stdout.split())
        for system in (None, systems / "mac", IMITATED["macos"])
    )
    assert here - known <= here - ours
    assert len(here - ours) > 60


def test_the_imitation_reaches_the_processes_that_a_build_starts(tmp_path: Path) -> None:
    code = """
        import os
        from pathlib import Path
        from shardtrain.runtime.executors import processes

        def prepare():
            pass

        def seen(path):
            return hasattr(os, "posix_fallocate"), path.exists()

        if __name__ == "__main__":
            with processes(1, prepare=prepare) as workers:
                print(*workers.map(seen, [Path("/proc/self/status")]))
    """
    (tmp_path / "program.py").write_text(textwrap.dedent(code))
    assert run_on(IMITATED["macos"], tmp_path, "program.py").stdout.split() == ["(False,", "False)"]
    assert run_on(None, tmp_path, "program.py").stdout.split() == ["(True,", "True)"]


AS_SCRIPT = "import sys; sys.argv = ['C:/Scripts/shardtrain.exe', 'doctor']; from shardtrain.cli.main import main"


@pytest.mark.parametrize("imitation", ["ours", "known"])
@pytest.mark.parametrize(
    "command",
    [
        ["-m", "shardtrain"],
        ["-m", "shardtrain", "build", "absent.csv"],
        ["-c", AS_SCRIPT],
        [str(ROOT / "tools" / "inspect_shards.py"), "shards"],
    ],
    ids=["no command", "build", "the installed command", "the script in tools"],
)
def test_windows_is_refused_with_one_line_that_names_wsl(
    command: list[str], imitation: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    windows = IMITATED["windows"] if imitation == "ours" else request.getfixturevalue("systems") / "win"
    done = run_on(windows, tmp_path, *command)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: shardtrain runs on Linux and macOS, not on Windows")
    assert "`wsl --install`" in line


def test_importing_on_windows_is_an_import_error_before_any_heavy_import(tmp_path: Path) -> None:
    code = """
        import sys
        try:
            from shardtrain.loader.shards import open_shards
        except ImportError as error:
            print(type(error).__name__, "WSL" in str(error), *{"numpy", "h5py", "numba"} & set(sys.modules))
    """
    done = run_on(IMITATED["windows"], tmp_path, "-c", textwrap.dedent(code))
    assert (done.stdout.split(), done.stderr) == (["UnsupportedSystemError", "True"], "")


NEWER = {  # than what macOS has: GNU make 3.81, bash 3.2 and BSD's tools
    "Makefile": r"\.ONESHELL|\$\((file|let|intcmp)\b|^\w+ *(!=|::=|:::=)|^undefine|&:",
    "tools/*.sh": r"\b(mapfile|readarray|coproc)\b|declare -[An]|local -n|\$\{\w+(\^|,|@)|&>>|\|&",
    ".ci/run": r"\b(mapfile|readarray|coproc)\b|declare -[An]|local -n|\$\{\w+(\^|,|@)|&>>|\|&",
}
GNU_ONLY = r"\bnproc\b|readlink -f|realpath|sed -i|grep -P|\bdate -d|stat -c|xargs -r|sort -V|find [^|]* -printf"


def test_make_and_scripts_use_nothing_that_macos_lacks() -> None:
    for pattern, newer in NEWER.items():
        paths = list(ROOT.glob(pattern))
        assert paths
        for path in paths:
            assert re.findall(f"(?m){newer}|{GNU_ONLY}", path.read_text()) == [], path


def test_make_works_where_it_ignores_shellflags() -> None:
    """As make 3.81 does; recipes then run with `bash -c` alone."""
    command = ["make", "--dry-run", "--always-make", ".SHELLFLAGS=-c", "check", "shards"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    script = "\n".join(line for line in done.stdout.splitlines() if not line.startswith("make["))
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    assert "pytest" in script
    assert "shardtrain build" in script
