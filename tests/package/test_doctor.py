"""Laws of `doctor`: it finds what is there, says what is missing, leaves no trace, and works where little else does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from typing import Any

import pytest
from support.sampled import sampled

from shardtrain import doctor
from shardtrain.cli.main import main

PROJECT = Path(__file__).resolve().parents[2]


def told(python: Path | str, *arguments: object, path: str = "") -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of `doctor` in a new process, with `path` before the project in which modules are found."""
    environment = {**os.environ, "PYTHONPATH": f"{path}:{PROJECT}" if path else str(PROJECT)}
    command = [str(python), "-m", "shardtrain", "doctor", *map(str, arguments), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert "Traceback" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, found


def test_it_names_every_dependency_and_every_extra_of_the_project() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> list[str]:
        return sorted(re.match(r"[\w-]+", each)[0] for each in requirements)

    assert names(project["dependencies"]) == sorted(doctor.NEEDED)
    extras = {name: needed for name, needed in project["optional-dependencies"].items() if name != "all"}
    assert {name: names(needed) for name, needed in extras.items()} == {
        name: sorted(packages) for name, (_, packages) in doctor.EXTRAS.items()
    }


def test_workers_elsewhere_are_named_with_what_keeps_them_from_working(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "try_tensorflow", lambda _: doctor.TensorFlow(tensorflow="2", keras="3"))
    assert main(["doctor", str(tmp_path), "--executor", "support.executors:two_threads"]) == 0
    said = capsys.readouterr().out
    assert "executor     support.executors:two_threads: 1 machine, 2 tasks at once" in said
    assert re.search(
        r"1 worker, \d+ cores?, [\d.]+ GiB of memory, shardtrain \S+ Python [\d.]+, numpy \S+; sees the folder", said
    )
    assert main(["doctor", str(tmp_path), "--executor", "support.executors:another_disk"]) == 1
    said = capsys.readouterr().out
    assert "does NOT see the folder" in said
    assert f"does not see '{tmp_path}'" in said


@pytest.mark.slow
def test_what_is_there_is_found_and_the_folder_is_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import h5py
    import keras
    import tensorflow as tf

    assert main(["doctor", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert f"h5py {h5py.__version__}" in said
    assert re.search(r"^system +\w+ \w+ \(\w+", said, re.MULTILINE)
    assert f"training     works: TensorFlow {tf.__version__}, Keras {keras.__version__}" in said
    assert re.search(r"disk .*GB free; writes [\d.,]+ [kMG]B/s, reads [\d.,]+ [kMG]B/s", said)
    assert re.search(r"cores +\d+\b", said)
    assert not list(tmp_path.iterdir())


def test_an_environment_with_nothing_in_it_is_told_what_to_install(tmp_path: Path) -> None:
    venv.create(tmp_path / "empty", with_pip=False)
    code, found = told(tmp_path / "empty" / "bin" / "python", tmp_path)
    assert code == 1
    assert set(found["packages"].values()) == {None}
    assert found["extras"]["tune"]["install"] == "pip install 'shardtrain[tune]'"
    assert found["problems"][0].startswith("not installed: h5py keras numba numpy")
    assert "No module named 'tensorflow'" in found["tensorflow"]["problem"]
    assert found["disk"]["read"] > 0


@pytest.mark.parametrize(
    ("module", "said"),
    sampled(
        [("raise ImportError('no libcublas')", "no libcublas"), ("import os; os.abort()", "ended by signal 6")],
        (1,),
        ids=["an import that fails", "an import that crashes"],
    ),
)
def test_a_broken_tensorflow_is_told_and_the_rest_as_well(module: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(module)
    code, found = told(sys.executable, tmp_path, path=str(tmp_path))
    assert code == 1
    assert said in found["tensorflow"]["problem"]
    assert found["packages"]["h5py"] is not None
    assert found["memory_bytes"] <= found["machine_memory_bytes"]


def test_a_folder_that_is_none_is_refused_and_one_that_cannot_be_written_to_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", str(tmp_path / "absent")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    found = doctor.measure_disk(Path("/proc/self"))  # where nobody can make a file, whoever it is
    assert found.problem is not None
    assert found.write is None


@pytest.mark.slow
def test_another_backend_of_keras_is_a_problem_and_tensorflow_is_tried_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    code, found = told(sys.executable, tmp_path)
    assert code == 1
    assert [problem[:24] for problem in found["problems"]] == ["KERAS_BACKEND is 'torch'"]
    assert found["tensorflow"]["problem"] is None
