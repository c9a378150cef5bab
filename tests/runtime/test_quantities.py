"""Laws of sizes, durations and lists: none is rounded to nothing, and one module formats them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import shardtrain
from shardtrain.runtime.quantities import ESCAPED, QUOTED, duration, enumerated, size

PACKAGE = Path(shardtrain.__file__).parent
POWERS = {"byte": 1, "bytes": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9}


@given(st.integers(0, 1 << 60))
def test_a_size_is_right_to_three_digits_and_no_unit_is_too_large_for_it(num_bytes: int) -> None:
    number, unit = size(num_bytes).split()
    value = float(number.replace(",", ""))
    assert value * POWERS[unit] == pytest.approx(num_bytes, rel=0.051)
    assert value >= 1 or num_bytes == 0
    assert value < 1000 or unit == "GB"


@given(st.floats(0.001, 1e7))
def test_a_duration_is_right_to_a_part_of_it(seconds: float) -> None:
    units = {"s": 1, "min": 60, "h": 3600}
    words = duration(seconds).replace(",", "").split()
    total = sum(float(number) * units[unit] for number, unit in zip(words[::2], words[1::2], strict=True))
    assert total == pytest.approx(seconds, rel=0.05 if seconds >= 0.1 else 0.5, abs=0.0501 if seconds >= 0.1 else 1e-12)
    assert total > 0


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.012, "0.01 s"),
        (0.0, "0.001 s"),
        (2, "2.0 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (125, "2 min 5 s"),
        (3600, "1 h 0 min"),
    ],
)
def test_a_duration_has_at_most_two_units(seconds: float, shown: str) -> None:
    assert duration(seconds) == shown


@pytest.mark.parametrize(
    ("values", "form", "number", "shown"),
    [
        ([], QUOTED, None, ""),
        (["a", "b"], QUOTED, None, "'a', 'b'"),
        (["a", "b", "c{}"], "{}", None, "a, b, c{}"),
        (["a", "b\n", "c", "d"], ESCAPED, None, "'a', 'b\\n', 'c' and 1 more"),
        (range(2000), "{}", None, "0, 1, 2 and 1,997 more"),
        ([7, 8, 9], "{}", 5, "7, 8, 9 and 2 more"),
    ],
)
def test_a_list_says_how_many_it_leaves_out(
    values: Sequence[object], form: str, number: int | None, shown: str
) -> None:
    assert enumerated(values, 3, form, number=number) == shown


@pytest.mark.parametrize("form", [r"\} ?(kB|MB|GB)\b|/ ?1e[369]:", r"and \{[^}]*\} more[\"']"], ids=["sizes", "lists"])
def test_no_other_module_formats(form: str) -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if path.name != "quantities.py"
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(form, line)
    ]
    assert found == []
