"""What the pages of Python cells in docs show works: the cells run in order and print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(("name", "fewest"), [("python.md", 8), ("migrating.md", 5), ("explaining.md", 4)])
def test_its_cells_run_one_after_the_other_and_print_what_it_says(
    name: str, fewest: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = (DOCS / name).read_text(encoding="utf-8")
    cells = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, re.DOTALL)
    names: dict[str, object] = {"__name__": "cells"}
    for number, (code, printed) in enumerate(cells, 1):
        with contextlib.redirect_stdout(io.StringIO()) as found:
            exec(compile(code, f"{name}, cell {number}", "exec"), names)
        assert found.getvalue() == printed, f"cell {number}"
    assert len(cells) >= fewest
