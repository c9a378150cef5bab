"""Comparing what builds leave behind."""

from __future__ import annotations

import filecmp
from pathlib import Path

from shardtrain.pipeline import workspace


def assert_same_folder(ours: Path, theirs: Path) -> None:
    """Both hold the same names and bytes, but for what is measured anew in every build."""
    names, expected = (
        sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) for root in (ours, theirs)
    )
    assert names == expected
    compared = [name for name in names if name != workspace.MEASURED]
    assert filecmp.cmpfiles(ours, theirs, compared, shallow=False)[1:] == ([], [])
