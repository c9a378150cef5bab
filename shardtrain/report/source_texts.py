"""The texts behind rows of shards, from the corpus they were made of, if it is still there and unchanged."""

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
    """The texts of some rows of a split.

    Args:
        shards: whose split it is.
        split: of the rows.
        rows: places in the split.
        scratch: a folder of a disk; packed files are unpacked in it for the time being.

    Returns:
        Texts by row, as far as they are found, and a reason for each part of the shards whose texts are not.
    """
    origins = recorded_origins(shards.path)
    by_part: dict[int | None, dict[int, int]] = defaultdict(dict)  # of each part, its rows and their ordinals
    for row in rows:
        by_part[_part_of(shards, split, row)][row] = int(split.documents(row, row + 1)[0])
    texts: dict[int, str] = {}
    reasons = []
    for part, ordinals in by_part.items():
        origin = origins[part] if part is not None and part < len(origins) else None
        if origin is None:
            reasons.append("build.json does not say where the corpus is")
            continue
        try:
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                corpus = open_again(origin, scratch=Path(folder))
                own = split.name == "validation" and corpus.validation is not None
                source = corpus.validation if own and corpus.validation else corpus.train
                found = read_documents(source, ordinals.values())
            texts |= {row: found[ordinal] for row, ordinal in ordinals.items() if ordinal in found}
        except (CorpusError, OSError) as error:
            reasons.append(str(error))
    return texts, tuple(dict.fromkeys(reasons))


def _part_of(shards: Shards, split: Split, row: int) -> int | None:
    """Which part of the shards a row is of; None if the manifest does not tell."""
    shard = next(split.pieces(row, row + 1))[0]
    place = split.shards.index(shard)
    for number, part in enumerate(shards.manifest.build.get("parts", ())):
        try:
            start, stop = part["shards"][split.name]
        except (KeyError, TypeError, ValueError):
            continue
        if start <= place < stop:
            return number
    return None
