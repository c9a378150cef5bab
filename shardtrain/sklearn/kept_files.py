"""Keep the files of a folder in memory, so that a fitted estimator can be pickled and copied, and needs no folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the content of all files in a folder and below, by their relative names."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def written_files(files: Mapping[str, bytes]) -> Iterator[Path]:
    """Yield a folder with these files, which goes when the block ends; what is mapped of them stays."""
    with tempfile.TemporaryDirectory(prefix="shardtrain-") as scratch:
        for name, content in files.items():
            path = Path(scratch, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        yield Path(scratch)
