"""What importing the rooms costs; who may import whom is checked by import-linter (`make lint`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import shardtrain

PACKAGE = Path(shardtrain.__file__).parent
JUNK = {"utils", "helpers", "common", "misc", "types", "constants", "config"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


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
        f"from shardtrain.pipeline.build import build\nbuild({str(tmp_path / 'a.jsonl')!r}, {str(tmp_path / 'o')!r})"
    )
    assert "h5py" in loaded
    assert not loaded & {"tensorflow", "keras"}


def test_public_names_are_there_and_sorted():
    assert shardtrain.__all__ == sorted(shardtrain.__all__)
    assert all(getattr(shardtrain, name) is not None for name in shardtrain.__all__)
