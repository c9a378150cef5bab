"""Builds on all executors whose workers, drivers and old attempts come to harm have the bytes of one process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("engines.py")


@pytest.mark.slow
def test_no_fault_of_an_executor_changes_a_byte() -> None:
    for package in ("distributed", "ray"):
        pytest.importorskip(package, reason=f"the extra for {package} is not installed")
    command = [sys.executable, PROGRAM, "--synthetic-bytes", "1MB"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("| equal | equal | equal |") == done.stdout.count("| demo") > 0
