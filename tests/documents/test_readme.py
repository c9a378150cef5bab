"""What the README shows works: its commands run, its Python runs, its make targets exist."""

from __future__ import annotations

import gzip
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from shardtrain.cli.main import main
from shardtrain.datasets.demo import write_demo

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [line.strip() for line in README.splitlines() if re.match(r"    python ", line)]
PYTHON = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with the files that the README's commands read."""
    folder = tmp_path_factory.mktemp("readme")
    write_demo(folder / "demo", documents=700, classes=3, seed=1)
    lines = (folder / "demo" / "train.csv").read_bytes()
    with gzip.open(folder / "reviews.csv.gz", "wb") as file:
        file.write(b"stars,title,body\n" + lines)
    (folder / "new.csv.gz").write_bytes((folder / "reviews.csv.gz").read_bytes())
    (folder / "more.csv").write_bytes(b"stars,title,body\n" + (folder / "demo" / "test.csv").read_bytes())
    return folder


def test_its_commands_run_one_after_the_other(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    ran = []
    for command in COMMANDS:
        words = shlex.split(command)
        if words[1:3] == ["-m", "shardtrain"]:
            assert main(words[3:]) == 0, command
        else:
            subprocess.run([sys.executable, ROOT / words[1], *words[2:]], check=True, capture_output=True)
        ran.append(words[3] if words[1] == "-m" else words[1])
    used = ["train", "build", "fit", "evaluate", "predict", "predict", "evaluate", "export", "report", "report"]
    assert ran == [*used, "tools/inspect_shards.py", "verify"]
    assert "validation accuracy" in capsys.readouterr().out


def test_its_python_runs(folder, monkeypatch):
    monkeypatch.chdir(folder)
    if not Path("data/shards").exists():
        assert main(["build", "reviews.csv.gz", "--label-column", "stars"]) == 0
    names: dict[str, object] = {}
    for block in PYTHON:
        exec(compile(block, "README.md", "exec"), names)
    assert len(PYTHON) == 2
    assert names["x"].shape[0] == len(names["y"])


def shapes_of(lines: Iterable[str]) -> list[str]:
    """Return lines without their figures."""
    return [re.sub(r"\d[\d,.]*", "0", line) for line in lines]


def test_what_it_shows_of_make_fit_is_the_whole_result(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    assert main(["build", "demo", "--out", "data/small"]) == 0
    capsys.readouterr()
    assert main(["fit", "data/small", "--epochs", "2"]) == 0
    lines = [
        line[4:]
        for line in README.partition("    make fit\n")[2]
        .partition("    next: python -m shardtrain predict")[0]
        .splitlines()
    ]
    shown = lines[next(i for i, line in enumerate(lines) if line.startswith("validation accuracy")) :]
    printed = capsys.readouterr().out.splitlines()
    assert shapes_of(line for line in printed if not line.startswith("next: ")) == shapes_of(shown)


def test_the_table_of_jobs_names_commands_options_and_pages_that_exist(capsys):
    rows = re.findall(r"^\| ([^|]+) \| (`[^|]+`) \| \[[^|]+\]\((docs/[\w.]+)[^|]*\) \|$", README, re.MULTILINE)
    assert len(rows) >= 10
    for _, cell, page in rows:
        assert (ROOT / page).exists()
        for command in re.findall(r"`([^`]+)`", cell):
            words = shlex.split(command)
            if words[0] == "from":
                exec(command, {})
                continue
            with pytest.raises(SystemExit, match="0"):
                main([words[0], "--help"])
            helped = capsys.readouterr().out.split()
            assert {word for word in words if word.startswith("--")} <= set(helped), command


def test_the_make_targets_it_names_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"\bmake ([a-z-]+)\b", README)) - {"are"}
    assert named >= {"fit", "test", "shards", "bench"}
    for target in named:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
