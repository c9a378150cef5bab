"""The corpus of the benchmarks: the bytes that it had from the beginning, so that measurements stay comparable."""

from __future__ import annotations

import csv
import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "bench" / "synthetic.py"


@pytest.mark.parametrize(
    ("documents", "classes", "seed", "expected"),
    [
        (3_000, 5, 7, "06436ac199c2abd6309ac5d7b801c85d80f3bc5ffb2bd121520edcbe18bef92d"),
        (1_003, 300, 2**64 - 1, "7ead15f6e22378730860c04f380e3746099e7ae363ca425379fd495420163ab5"),
    ],
)
def test_its_bytes_are_those_of_the_first_demo(
    documents: int, classes: int, seed: int, expected: str, tmp_path: Path
) -> None:
    numbers = {"documents": documents, "classes": classes, "seed": seed}
    options = [word for name, number in numbers.items() for word in (f"--{name}", str(number))]
    subprocess.run([sys.executable, SCRIPT, "--out", tmp_path, *options], check=True)
    content = b"".join((tmp_path / name).read_bytes() for name in ("train.csv", "test.csv", "classes.txt"))
    assert hashlib.sha256(content).hexdigest() == expected
    assert len(set((tmp_path / "classes.txt").read_text(encoding="utf-8").split())) == classes
    with open(tmp_path / "train.csv", newline="", encoding="utf-8") as file:
        assert sum(1 for _ in csv.reader(file, strict=True)) == documents
