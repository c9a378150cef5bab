"""The real text that comes with the documents: 1,610 definitions, their topics and lengths."""

from __future__ import annotations

from pathlib import Path

DOCS = Path(__file__).parents[2] / "docs"
DEFINITIONS = Path("docs", "data", "definitions")  # as the documents name it, from the root of a checkout


def link_definitions(folder: Path) -> None:
    """Make the definitions appear in a folder as they do in a checkout."""
    (folder / "docs").mkdir()
    (folder / "docs" / "data").symlink_to(DOCS / "data")
