"""The rooms of the package and who may import whom, as docs/design.md has them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import shardtrain

PACKAGE = Path(shardtrain.__file__).parent
JUNK = {"utils", "helpers", "common", "misc", "types", "constants", "config"}

# Rooms from the ground up: each may import those before it, and nothing else of the package.
ORDER = [
    "errors",
    "machine",
    "durable",
    "progress",
    "notebook",
    "prefetch",
    "buffers",
    "kernels",
    "csr",
    "texts",
    "shuffle",
    "executors",
    "checkpoint",
    "embeddings",
    "schedules",
    "corpus",
    "vectorize",
    "shards",
    "batches",
    "reading",
    "build",
    "tables",
    "layers",
    "optimizers",
    "keras_data",
    "custom",
    "models",
    "run",
    "replicas",
    "steps",
    "state",
    "loop",
    "resuming",
    "fit_options",
    "board",
    "stages",
    "fit",
    "predict",
    "answers",
    "raw_text",
    "measuring",
    "api",
    "classifier",
    "mixing",
    "report",
    "doctor",
    "tune_options",
    "tuning",
    "cli",
    "__main__",
]
HEAVY = {"tensorflow", "keras"}
MAY_IMPORT_KERAS = {
    "schedules",
    "layers",
    "optimizers",
    "custom",
    "models",
    "keras_data",
    "run",
    "replicas",
    "steps",
    "state",
    "loop",
    "resuming",
    "fit_options",
    "board",
    "stages",
    "fit",
    "predict",
    "raw_text",
    "measuring",
    "api",
    "classifier",
    "tune_options",
    "tuning",
}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path):
    """Full names of what a module imports, and whether it does so only inside a function or for type checkers."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            yield name, id(node) not in top


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_go_down_the_order_of_rooms(path):
    room = room_of(path)
    assert room in ORDER, f"'{room}' is no room of docs/design.md"
    for name, late in imports(path):
        parts = name.split(".")
        if parts[0] == "shardtrain" and len(parts) > 1 and parts[1] in ORDER and parts[1] != room:
            below = ORDER.index(parts[1]) < ORDER.index(room)
            # Split.batches and Run.predict open the next room
            convenience = (room, parts[1]) in {("shards", "batches"), ("run", "predict")} and late
            assert below or convenience, f"{room} imports {name}"
        if parts[0] in HEAVY and not late:
            assert room in MAY_IMPORT_KERAS, f"{room} imports {name}"


def test_no_module_is_named_after_nothing():
    assert not {path.stem for path in MODULES} & JUNK


def modules_after(code: str) -> set[str]:
    """Top-level modules loaded in a new interpreter after `code`."""
    script = f"import sys\n{code}\nprint(*sorted({{name.split('.')[0] for name in sys.modules}}))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


def test_help_imports_nothing_heavy():
    loaded = modules_after(
        "from shardtrain.cli.main import main\ntry:\n    main(['--help'])\nexcept SystemExit:\n    pass"
    )
    assert not loaded & {"tensorflow", "keras", "h5py", "numba", "scipy", "numpy"}


def test_building_shards_never_imports_tensorflow(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"label": "x", "text": "aa bb"}\n{"label": "y", "text": "aa bb"}\n' * 20)
    loaded = modules_after(
        f"from shardtrain.build import build\nbuild({str(tmp_path / 'a.jsonl')!r}, {str(tmp_path / 'o')!r})"
    )
    assert "h5py" in loaded
    assert not loaded & {"tensorflow", "keras"}


def test_public_names_are_there_and_sorted():
    assert shardtrain.__all__ == sorted(shardtrain.__all__)
    assert all(getattr(shardtrain, name) is not None for name in shardtrain.__all__)
