"""Look up the source texts of rows in the corpus that shards were built from, if it exists and is unchanged."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from shardtrain.errors import CorpusError
from shardtrain.loader.shards import Shards
from shardtrain.loader.split import Split
from shardtrain.pipeline.origin import open_again, read_documents, recorded_origins


def find_source_texts(
    shards: Shards, split: Split, rows: Sequence[int], *, scratch: Path
) -> tuple[dict[int, str], tuple[str, ...]]:
    """Look up the source texts of some rows of a split.

    Args:
        shards: the shards that hold the split.
        split: the split.
        rows: row numbers in the split.
        scratch: folder for temporary files; compressed corpora are unpacked in it.

    Returns:
        The texts found, by row, and one reason for each part of the shards whose texts were not found.
    """
    origins = recorded_origins(shards.path)
    by_part: dict[int | None, dict[int, int]] = defaultdict(dict)  # part -> row -> ordinal of its document
    for row in rows:
        by_part[_part_of(shards, split, row)][row] = int(split.documents(row, row + 1)[0])
    texts: dict[int, str] = {}
    reasons = []
    for part, ordinals in by_part.items():
        origin = origins[part] if part is not None and part < len(origins) else None
        if origin is None:
            reasons.append("build.json does not record where the corpus is")
            continue
        try:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                corpus = open_again(origin, scratch=Path(folder))
                source = corpus.sources.get(split.name, corpus.train)
                found = read_documents(source, ordinals.values())
            texts |= {row: found[ordinal] for row, ordinal in ordinals.items() if ordinal in found}
        except CorpusError as error:
            reasons.append(error.on_command_line)
        except OSError as error:
            reasons.append(str(error))
    return texts, tuple(dict.fromkeys(reasons))


def _part_of(shards: Shards, split: Split, row: int) -> int | None:
    """Return the number of the part of the shards that holds a row; None if the manifest does not record it."""
    shard = next(split.pieces(row, row + 1))[0]
    place = split.shards.index(shard)
    for number, part in enumerate(shards.manifest.build.get("parts", ())):
        start, stop = part.get("shards", {}).get(split.name, (0, 0))
        if start <= place < stop:
            return number
    return None
