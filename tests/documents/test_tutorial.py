"""What docs/tutorial.md shows is what happens: its commands run one after the other, on the data that it ships."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.console import check, steps
from support.definitions import DOCS, link_definitions

TEXT = (DOCS / "tutorial.md").read_text(encoding="utf-8")


def test_its_commands_show_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    link_definitions(tmp_path)
    shown = list(steps(TEXT))
    for step in shown:
        check(*step, figures=True)
    assert len(shown) >= 15
