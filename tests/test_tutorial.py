"""What docs/tutorial.md shows works: its cells run one after the other and print what stands below them."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
CELLS = re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", TUTORIAL.read_text(encoding="utf-8"), re.DOTALL)


def test_its_cells_run_one_after_the_other_and_print_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {"__name__": "tutorial"}
    for number, (code, printed) in enumerate(CELLS, 1):
        with contextlib.redirect_stdout(io.StringIO()) as found:
            exec(compile(code, f"tutorial.md, cell {number}", "exec"), names)
        assert found.getvalue() == printed, f"cell {number}"
    assert len(CELLS) >= 8
