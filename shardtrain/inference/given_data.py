"""Tell shards from raw text where a command takes either."""

from __future__ import annotations

import glob
from pathlib import Path

from shardtrain.corpus.options import STANDARD
from shardtrain.shards.layout import MANIFEST


def is_raw_text(data: Path) -> bool:
    """Return whether raw text is named: a file, a folder without shards or a run, standard input, or a pattern."""
    if data.is_dir() and not (data / MANIFEST).exists():
        from shardtrain.shards.manifest import is_run

        return not is_run(data)  # which is refused as shards are, with the name of its own
    if data.exists():
        return data.is_file()
    return str(data) == STANDARD or glob.has_magic(str(data))
