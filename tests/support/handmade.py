"""Write shards of rows with known values, without a corpus, for tests of the format and of batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import slice_rows
from shardtrain.shards.layout import Manifest, ShardEntry, SplitEntry
from shardtrain.shards.manifest import write_manifest
from shardtrain.shards.write import ShardShape, new_shard

NUM_FEATURES = {"ngram": 50, "sequence": 6, "dense": 5}
VOCABULARY = {"ngram": 50, "sequence": 1 << 20, "dense": 5}


@dataclass(frozen=True, eq=False)
class Rows:
    """Features, class indices and document ordinals of rows."""

    x: Csr | np.ndarray
    y: np.ndarray
    document: np.ndarray

    def __len__(self) -> int:
        return len(self.y)

    def between(self, start: int, stop: int) -> Rows:
        return Rows(slice_rows(self.x, start, stop), self.y[start:stop], self.document[start:stop])


def make_rows(kind: str, count: int, *, num_classes: int = 3, empty: bool = False) -> Rows:
    """Make rows whose values identify them: row r has document r, class r % num_classes, feature values r + 1.

    Row r of n-grams has r % 4 non-zeros; with `empty`, no row of any kind has a non-zero.
    """
    ids = np.arange(count)
    if kind == "dense":
        x = np.zeros((count, NUM_FEATURES[kind]), np.float32)
        if not empty:
            x[:, 1:] = ids[:, None] + np.array([1, 1.5, -2, 1 / 3], np.float32)
        return Rows(x, ids % num_classes, ids)
    if kind == "sequence":
        x = np.zeros((count, NUM_FEATURES[kind]), np.uint32)
        if not empty:
            x[:, 2:] = ids[:, None] + 1
        return Rows(x, ids % num_classes, ids)
    lengths = np.zeros(count, np.int64) if empty else ids % 4
    row_of_entry = np.repeat(ids, lengths)
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    places = np.arange(len(row_of_entry)) - indptr[row_of_entry]
    columns = (row_of_entry % 7 + places * 9).astype(np.int32)
    csr = Csr((row_of_entry + 1).astype(np.float32), columns, indptr, (count, NUM_FEATURES[kind]))
    return Rows(csr, ids % num_classes, ids)


def kind_of(rows: Rows) -> str:
    if isinstance(rows.x, Csr):
        return "ngram"
    return "dense" if rows.x.dtype.kind == "f" else "sequence"


def write_shard(path: Path, rows: Rows, *, num_classes: int = 3, pieces: int = 1) -> ShardEntry:
    """Write one shard, appended in `pieces` pieces."""
    kind = kind_of(rows)
    shape = ShardShape(
        kind=kind,
        rows=len(rows),
        num_features=rows.x.shape[1],
        vocabulary_size=VOCABULARY[kind],
        nonzeros=len(rows.x.data) if isinstance(rows.x, Csr) else 0,
        num_classes=num_classes,
    )
    cuts = np.linspace(0, len(rows), pieces + 1).astype(int)
    with new_shard(path, shape) as writer:
        for start, stop in pairwise(cuts):
            piece = rows.between(start, stop)
            writer.append(piece.x, piece.y, piece.document)
    return writer.entry


def write_shards(folder: Path, rows: Rows, sizes: Sequence[int], *, num_classes: int = 3, pieces: int = 1) -> Manifest:
    """Write a folder whose training split has the rows in shards of the given sizes, without a vectorizer."""
    folder.mkdir(parents=True, exist_ok=True)
    kind = kind_of(rows)
    starts = np.cumsum([0, *sizes])
    entries = tuple(
        write_shard(folder / f"train-{number:05}.h5", rows.between(start, stop), num_classes=num_classes, pieces=pieces)
        for number, (start, stop) in enumerate(pairwise(starts))
    )
    split = SplitEntry(
        examples=len(rows),
        nonzeros=len(rows.x.data) if isinstance(rows.x, Csr) else 0,
        class_counts=tuple(np.bincount(rows.y, minlength=num_classes).tolist()),
        shards=entries,
    )
    manifest = Manifest(
        kind=kind,
        num_features=rows.x.shape[1],
        vocabulary_size=VOCABULARY[kind],
        seed=1,
        fingerprint="by hand",
        class_names=tuple(f"class {i}" for i in range(num_classes)),
        splits={"train": split},
        files={},
        vectorizer={},
    )
    write_manifest(folder, manifest)
    return manifest


def dense(x: Csr | np.ndarray) -> np.ndarray:
    """Return rows, sparse or dense, as a dense array."""
    return x.toarray() if isinstance(x, Csr) else np.asarray(x)
