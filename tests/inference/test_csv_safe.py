"""Laws of CSV for spreadsheets: with --csv-safe no cell is a formula, and without it names are exact."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtrain.cli.main import main
from shardtrain.errors import UsageError
from shardtrain.inference.predictions import Predictions
from shardtrain.inference.writers import csv_lines, without_formula, writer_for

FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n")
NAMES = st.lists(
    st.one_of(st.text(), st.text().map("=1+{}".format), st.sampled_from(FORMULAS).flatmap(lambda f: st.just(f + "x"))),
    min_size=1,
    max_size=5,
)


def _rows(names: list[str], *, safe: bool) -> list[list[str]]:
    """What Python's csv reads of the predictions of a text of each class."""
    lines = csv_lines(names, proba=True, notes=True, safe=safe)
    predictions = Predictions(tuple(names), np.eye(len(names), dtype=np.float32), np.zeros(len(names), np.uint8))
    written = lines.header + lines.part(np.arange(len(names)), predictions)
    return list(csv.reader(io.StringIO(written.decode(), newline="")))


@given(NAMES)
def test_no_cell_is_a_formula(names: list[str]) -> None:
    rows = _rows(names, safe=True)
    assert not [cell for row in rows for cell in row if cell.startswith(FORMULAS)]
    assert [row[1] for row in rows[1:]] == [f"'{name}" if name.startswith(FORMULAS) else name for name in names]


@given(NAMES)
def test_names_are_exact_by_default(names: list[str]) -> None:
    assert [row[1] for row in _rows(names, safe=False)[1:]] == names


def test_other_cells_stay_as_they_are() -> None:
    assert [without_formula(cell) for cell in ("a=1", "'=1", "", " -1")] == ["a=1", "'=1", "", " -1"]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_formats_without_formulas_refuse_it(suffix: str) -> None:
    with pytest.raises(UsageError, match="csv_safe is for CSV"):
        writer_for(Path(f"out{suffix}"), ["a", "b"], proba=False, notes=False, csv_safe=True)


def test_json_refuses_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(tmp_path), "text", "--json", "--csv-safe"]) == 2
    assert "not for --json" in capsys.readouterr().err
