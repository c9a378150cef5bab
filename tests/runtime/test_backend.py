"""Laws of the backend of Keras: any but TensorFlow is refused in one line before any work, wherever it is set."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.sampled import sampled

from shardtrain.runtime import backend
from shardtrain.runtime.backend import backend_problem

PROJECT = Path(__file__).resolve().parents[2]


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    return subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**clean, "PYTHONPATH": str(PROJECT), **environment},
    )


def settings(folder: Path, backend: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "keras.json").write_text(json.dumps({"backend": backend}))
    return folder / "keras.json"


@pytest.fixture
def unset(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A process that has not imported Keras, without settings in the environment."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "keras", None)
    return monkeypatch


def test_the_environment_decides_then_the_file_and_without_both_it_is_tensorflow(
    unset: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unset.setenv("HOME", str(tmp_path))
    assert backend_problem() == ""
    file = settings(tmp_path / ".keras", "jax")
    assert backend_problem().startswith(f"'{file}' sets the backend of Keras to 'jax'")
    unset.setenv("KERAS_BACKEND", "torch")
    assert backend_problem().startswith("KERAS_BACKEND is 'torch', but")
    assert "unset KERAS_BACKEND" in backend_problem()
    unset.setenv("KERAS_BACKEND", "tensorflow")
    assert backend_problem() == ""
    unset.setenv("KERAS_BACKEND", "")  # as if it were not set
    assert "'jax'" in backend_problem()
    unset.setenv("KERAS_HOME", str(settings(tmp_path / "other", "tensorflow").parent))
    assert backend_problem() == ""


@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_file_that_names_no_backend_chooses_none(content: str, unset: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "keras.json").write_text(content)
    unset.setenv("KERAS_HOME", str(tmp_path))
    assert backend_problem() == ""


def test_keras_that_is_imported_already_knows_best(unset: pytest.MonkeyPatch) -> None:
    class Keras:
        class config:  # noqa: N801 - as in Keras
            backend = staticmethod(lambda: "jax")

    unset.setitem(sys.modules, "keras", Keras)  # type: ignore[arg-type]
    unset.setenv("KERAS_BACKEND", "tensorflow")
    assert backend.backend_problem().startswith("Keras was imported with the backend 'jax'")


@pytest.mark.parametrize(
    "command",
    [
        ("fit", "no-shards", "--engine", "keras"),
        ("tune", "no-shards", "--engine", "keras", "--out", "no-study"),
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_trains_with_keras_refuses_another_backend_first(
    command: tuple[str, ...], tmp_path: Path
) -> None:
    done = run("-m", "shardtrain", *command, KERAS_BACKEND="torch")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: KERAS_BACKEND is 'torch', but shardtrain needs Keras on TensorFlow: run")
    assert done.stderr.count("\n") == 1


def test_a_keras_program_is_told_before_keras_looks_for_its_backend() -> None:
    done = run("-c", "import shardtrain.keras", KERAS_BACKEND="torch")
    assert done.stderr.splitlines()[-1].startswith("shardtrain.errors.UsageError: KERAS_BACKEND is 'torch'")


def test_what_needs_no_keras_works_with_any_backend(tmp_path: Path) -> None:
    done = run("-m", "shardtrain", "demo", "--out", str(tmp_path / "demo"), "--documents", "20", KERAS_BACKEND="torch")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("variable", "file", "chosen"),
    sampled([("", "jax", "jax"), ("tensorflow", "jax", "tensorflow")], ()),
)
def test_keras_chooses_by_these_rules(variable: str | None, file: str | None, chosen: str, tmp_path: Path) -> None:
    """Whether the backend is installed or not: then the import names what is missing."""
    if file is not None:
        settings(tmp_path, file)
    environment = {"KERAS_HOME": str(tmp_path), **({} if variable is None else {"KERAS_BACKEND": variable})}
    code = "try:\n import keras; print(keras.config.backend())\nexcept ImportError as error:\n print(error.name)"
    assert run("-c", code, **environment).stdout.split() == [chosen]
