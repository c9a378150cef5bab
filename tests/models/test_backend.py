"""Laws of Keras' backend: another one than TensorFlow is refused before any work, by the rules of Keras itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from shardtrain.models.backend import backend_problem

ROOT = Path(__file__).resolve().parents[2]
CHOICES = [  # KERAS_BACKEND, what keras.json says, what Keras chooses
    (None, None, "tensorflow"),
    (None, {"backend": "jax"}, "jax"),
    (None, {"floatx": "float32"}, "tensorflow"),
    ("", {"backend": "torch"}, "torch"),
    ("torch", {"backend": "jax"}, "torch"),
    ("tensorflow", {"backend": "jax"}, "tensorflow"),
]


def choose(backend: str | None, file: dict[str, str] | None, home: Path) -> dict[str, str]:
    """An environment in which Keras would choose so."""
    home.mkdir(exist_ok=True)
    if file is not None:
        (home / "keras.json").write_text(json.dumps(file))
    kept = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    return {**kept, "KERAS_HOME": str(home), **({} if backend is None else {"KERAS_BACKEND": backend})}


@pytest.mark.parametrize(("backend", "file", "chosen"), CHOICES)
def test_the_choice_is_known_without_importing_keras(
    backend: str | None, file: dict[str, str] | None, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in choose(backend, file, tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    if backend is None:
        monkeypatch.delenv("KERAS_BACKEND", raising=False)
    problem = backend_problem()
    assert (f"chooses '{chosen}'" in problem) == (chosen != "tensorflow") == bool(problem)


@pytest.mark.parametrize(("backend", "file"), [(None, {"backend": "jax"}), ("", {"backend": "jax"}), ("jax", None)])
def test_keras_chooses_by_these_rules(backend: str | None, file: dict[str, str] | None, tmp_path: Path) -> None:
    """Whether the backend is installed or not: then the import names what is missing."""
    code = "try:\n import keras; print(keras.config.backend())\nexcept ImportError as error:\n print(error.name)"
    environment = choose(backend, file, tmp_path / "home")
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["jax"]


def refused(arguments: list[str], home: Path) -> str:
    """The line with which a process ends that imported no TensorFlow, where Keras would choose JAX."""
    environment = {**choose("jax", None, home), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-X", "importtime", *arguments]
    done = subprocess.run(command, env=environment, cwd=home, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert not [line for line in done.stderr.splitlines() if line.endswith("| tensorflow")]
    (line,) = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    return line


IN_A_COMMAND = """
import sys
from shardtrain.cli import tensorflow
from shardtrain.errors import UsageError
try:
    tensorflow.load_tensorflow(None)
except UsageError as error:
    print(error, file=sys.stderr)
    sys.exit(2)
"""


@pytest.mark.parametrize(
    "arguments",
    [["-m", "shardtrain", "fit", "absent"], ["-c", IN_A_COMMAND]],
    ids=["fit", "where other commands load TensorFlow"],
)
def test_another_backend_is_refused_before_tensorflow_is_imported(arguments: list[str], tmp_path: Path) -> None:
    line = refused(arguments, tmp_path)
    assert "KERAS_BACKEND chooses 'jax'; unset KERAS_BACKEND or set it to 'tensorflow'" in line
