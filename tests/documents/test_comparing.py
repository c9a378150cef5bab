"""What docs/comparing.md shows is what happens: its commands, then its Python, run in one folder."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

from support.console import check, steps

TEXT = (Path(__file__).parents[2] / "docs" / "comparing.md").read_text(encoding="utf-8")


def test_its_commands_and_cells_show_what_it_says(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = list(steps(TEXT))
    for step in shown:
        check(*step)
    cells = re.findall(r"```python\n(.*?)```\n\n```text\n(.*?)```", TEXT, re.DOTALL)
    names: dict[str, object] = {"__name__": "comparing"}
    for code, printed in cells:
        with contextlib.redirect_stdout(io.StringIO()) as found:
            exec(compile(code, "comparing.md", "exec"), names)
        assert found.getvalue() == printed
    assert (len(shown), len(cells)) >= (8, 1)
