"""Tell shards from raw text where a command takes either."""

from __future__ import annotations

import glob
from pathlib import Path

from shardtrain.corpus.options import STANDARD
from shardtrain.shards.layout import MANIFEST


def is_raw_text(data: Path) -> bool:
    """Return whether raw text is named: a file, a folder without shards, standard input, or a pattern."""
    if data.exists():
        return data.is_file() or not (data / MANIFEST).exists()
    return str(data) == STANDARD or glob.has_magic(str(data))
