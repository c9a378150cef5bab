"""The wheel, not the checkout: in an environment of its own it goes from an empty folder to a prediction."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import shardtrain

PROJECT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built of what git knows: not of what lies about in a checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=PROJECT,
        capture_output=True,
        check=True,
    )
    for name in filter(None, listed.stdout.decode().split("\0")):
        if (PROJECT / name).is_file():
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((PROJECT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(folder / "source"),
    ]
    subprocess.run(command, check=True)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel installed, which borrows everything else from the one that runs the tests."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    site = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    install = ["-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, *install], check=True)
    # A plain line is added to the path behind the wheel's folder, and the .pth files in it, one of which leads to the
    # checkout, are not read.
    (Path(site) / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def run(environment: Path, folder: Path, *words: str) -> str:
    """What a command prints, in a folder that has nothing of the checkout, nor its path in a variable."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    command = [str(environment / "bin" / words[0]), *words[1:]]
    done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return done.stdout


def test_it_holds_what_users_need_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = [archive.read(name).decode() for name in names if name.endswith("/METADATA")]
        (entries,) = [archive.read(name).decode() for name in names if name.endswith("/entry_points.txt")]
    assert f"\nVersion: {shardtrain.__version__}\n" in metadata
    assert "\nProvides-Extra: all\n" in metadata
    assert "shardtrain = shardtrain.cli.main:main" in entries
    ours = {name for name in names if ".dist-info/" not in name}
    there = {
        str(path.relative_to(PROJECT))
        for path in (PROJECT / "shardtrain").rglob("*")
        if "__pycache__" not in path.parts and path.is_file()
    }
    assert {"shardtrain/py.typed", "shardtrain/corpus/published.toml", "shardtrain/report/style.css"} <= there
    assert ours == there


def test_from_an_empty_folder_to_a_prediction(environment: Path, tmp_path: Path) -> None:
    def python(*words: str) -> str:
        return run(environment, tmp_path, "python", *words)

    assert python("-c", "import shardtrain; print(shardtrain.__file__)").startswith(str(environment))
    assert run(environment, tmp_path, "shardtrain", "--version") == f"shardtrain {shardtrain.__version__}\n"
    python("-m", "shardtrain", "demo", "--out", "data/demo", "--documents", "4000", "--classes", "4")
    python("-m", "shardtrain", "build", "data/demo", "--out", "data/shards", "--overwrite")  # as `make fit` does
    done = json.loads(python("-m", "shardtrain", "fit", "data/shards", "--json"))
    assert (done["run"], done["val_accuracy"] > 0.8) == ("runs/mlp-1", True)
    said = json.loads(python("-m", "shardtrain", "predict", "runs/mlp-1", "--json", "a text"))
    assert said["label"] in (tmp_path / "data" / "demo" / "classes.txt").read_text().split("\n")
    for folder in ("data/shards", "runs/mlp-1"):
        python("-m", "shardtrain", "report", folder, "--out", "report.html")
        assert "<svg" in (tmp_path / "report.html").read_text()
    python("-m", "shardtrain", "verify", "data/shards")
    assert "classes of train, 4,000 examples" in python("-m", "shardtrain", "inspect", "data/shards")
    assert "_shtab_shardtrain" in run(environment, tmp_path, "shardtrain", "completion", "bash")
