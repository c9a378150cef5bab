"""What docs/scaling.md shows is what happens: its script for Dask on one machine is run, its figures are computed."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from shardtrain.datasets.demo import write_demo
from shardtrain.shards.manifest import read_manifest

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_its_script_builds_the_shards_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    blocks = [each for each in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "LocalCluster" in each]
    assert len(blocks) == 1
    (tmp_path / "build.py").write_text(blocks[0])
    write_demo(tmp_path / "data" / "demo", documents=300, classes=2, seed=1)
    done = subprocess.run([sys.executable, "build.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "data" / "shards").splits["train"].examples > 200


def test_its_figures_of_large_builds_are_those_of_the_tool(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.chdir(ROOT)
    simulate = importlib.import_module("simulate_scale")
    shown = re.findall(r"```sh\npython tools/simulate_scale.py ([^\n]*)\n```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
    assert len(shown) == 3
    for arguments, text in shown:
        assert simulate.main(shlex.split(arguments)) == 0
        assert capsys.readouterr().out == text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ratios", "missing.json"], "missing.json cannot be used"),
        (["--ratios", "mkdocs.yml"], "mkdocs.yml cannot be used"),
        (["--ratios", "docs/data/scale.json", "--corpus-bytes", "1XB"], "'1XB' is not a size"),
    ],
    ids=["no file of ratios", "another file", "no size"],
)
def test_the_tool_refuses_what_it_cannot_use(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(ROOT / "tools")
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="2"):
        importlib.import_module("simulate_scale").main(arguments)
    assert said in capsys.readouterr().err


def test_the_limits_that_it_names_are_those_of_the_code() -> None:
    from shardtrain.runtime.engines import ray_engine
    from shardtrain.runtime.passes import UNIT_BYTES
    from shardtrain.vectorize.groups import GROUP_UNITS, MOST_FILES

    most = f"{MOST_FILES:,} units ({MOST_FILES * UNIT_BYTES >> 30} GiB)"
    assert f"Beyond {most} files are put together, {GROUP_UNITS} units in one" in TEXT
    design = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    assert f"(beyond {most.replace(' (', ', ')} puts the terms of {GROUP_UNITS} units into one file" in design
    assert f"Ray: {ray_engine._RETRIES + 1} times" in TEXT
    assert f"per unit of {UNIT_BYTES >> 20} MiB" in TEXT
