"""What docs/scaling.md shows is what happens: its script for Dask on one machine is run, its module is an executor."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from shardtrain.datasets.demo import write_demo
from shardtrain.shards.manifest import read_manifest

TEXT = (Path(__file__).parents[2] / "docs" / "scaling.md").read_text(encoding="utf-8")


@pytest.mark.heavy
def test_its_script_builds_the_shards_of_one_process(tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    blocks = [each for each in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL) if "LocalCluster" in each]
    assert len(blocks) == 1
    (tmp_path / "build.py").write_text(blocks[0])
    write_demo(tmp_path / "data" / "demo", documents=300, classes=2, seed=1)
    done = subprocess.run([sys.executable, "build.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_manifest(tmp_path / "data" / "shards").splits["train"].examples > 200


def test_the_limits_that_it_names_are_those_of_the_code() -> None:
    from shardtrain.runtime.engines import ray_engine
    from shardtrain.runtime.passes import UNIT_BYTES

    assert f"Ray: {ray_engine._RETRIES + 1} times" in TEXT
    assert f"per unit of {UNIT_BYTES >> 20} MiB" in TEXT
