"""CONTRIBUTING.md and docs/design.md name files that exist, and the floors of the contract."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
DESIGN = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", [CONTRIBUTING, DESIGN], ids=["contributing", "design"])
def test_the_files_it_names_exist(page: str) -> None:
    named = set(re.findall(r"`((?:shardtrain|tests|tools|docs)/[\w./-]*)`", page))
    assert named
    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_the_make_targets_it_names_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make ([a-z-]+)", CONTRIBUTING)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_design_shows_the_floors_of_the_contract() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(each["layers"] for each in contracts if each["id"] == "floors")
    floors = [re.split(r" [|:] ", layer) for layer in layers if layer != "__main__"]
    section = DESIGN.partition("\n## Floors\n")[2].partition("\n## ")[0]
    assert [line.strip().split(", ") for line in re.findall(r"^    \S.*$", section, re.MULTILINE)] == floors


def test_the_design_has_a_line_for_every_room() -> None:
    table = DESIGN.partition("\n## Layout\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE)
    listed = {name.rstrip("/") for cell in cells for name in re.findall(r"`([^`]+)`", cell)}
    package = ROOT / "shardtrain"
    rooms = {path.stem for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert listed == rooms - {"__init__", "__main__"}
