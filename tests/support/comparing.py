"""Compare the output folders of builds."""

from __future__ import annotations

import filecmp
from pathlib import Path

from shardtrain.shards import layout


def assert_nothing_published(out: Path) -> None:
    """Assert that a folder is not there, or holds nothing but the work of a build that failed."""
    assert not out.exists() or [path.name for path in out.iterdir()] == [layout.WORKING]


def assert_same_folder(ours: Path, theirs: Path) -> None:
    """Assert that both hold the same files with the same bytes, except for the times and memory of the build."""
    names, expected = (
        sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) for root in (ours, theirs)
    )
    assert names == expected
    compared = [name for name in names if name != layout.MEASURED]
    assert filecmp.cmpfiles(ours, theirs, compared, shallow=False)[1:] == ([], [])
