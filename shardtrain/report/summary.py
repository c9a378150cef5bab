"""Summarize a folder of shards: sizes, classes, vectorizer, some rows decoded to terms.

Counts come from the manifest, non-zeros and rows from the mapped arrays, chunk shapes from the HDF5 files. A sequence
split is read in full, to exclude padding from the counts; of n-grams only the row pointers are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from shardtrain.loader.shards import Shards, open_shards
from shardtrain.loader.split import Split
from shardtrain.shards.hdf5 import open_shard_file, shard_dataset
from shardtrain.shards.packing import codec_of
from shardtrain.shards.shard import Shard
from shardtrain.shards.verify import Verification

if TYPE_CHECKING:
    from shardtrain.vectorize.fitted import Vectorizer

_ROWS_AT_ONCE = 1 << 14

Chunk = tuple[int, ...] | None  # None: not chunked, as an array without values is


@dataclass(frozen=True, kw_only=True)
class NonzeroStatistics:
    """Statistics of the non-zeros per row: n-grams, or in-vocabulary words."""

    min: int
    median: float
    mean: float
    max: int


@dataclass(frozen=True, kw_only=True)
class ShardSummary:
    """Summary of one shard; `chunks` has the chunk shape of each of its arrays.

    `compression` is the codec, or None; `sources` are the external files that hold its features.
    """

    file: str
    examples: int
    nonzeros: NonzeroStatistics
    bytes: int
    chunks: dict[str, Chunk]
    compression: str | None
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ClassCount:
    """Number of examples of one class in a split."""

    name: str
    examples: int


@dataclass(frozen=True, kw_only=True)
class DecodedRow:
    """A row decoded to terms, n-grams by descending weight; `document` is its ordinal in the source file, from 0.

    `terms` is None if the shards have no vectorizer, or one that hashes.
    """

    row: int
    document: int
    label: str
    terms: tuple[str, ...] | None


@dataclass(frozen=True, kw_only=True)
class SplitSummary:
    """Summary of one split: its shards in row order, its classes, and its first rows (shuffled documents)."""

    name: str
    examples: int
    bytes: int
    shards: tuple[ShardSummary, ...]
    classes: tuple[ClassCount, ...]
    rows: tuple[DecodedRow, ...]


@dataclass(frozen=True, kw_only=True)
class ShardsSummary:
    """Summary of a folder of shards; `verified` is None if checksums were not compared."""

    path: str
    format_version: int
    kind: str
    features: int
    vocabulary_size: int
    seed: int
    fingerprint: str
    bytes: int
    vectorizer: dict[str, Any]
    splits: tuple[SplitSummary, ...]
    verified: Verification | None


def summarize_shards(folder: Path, *, num_rows: int, verified: Verification | None = None) -> ShardsSummary:
    """Summarize the shards in `folder`; the first `num_rows` rows of each split are decoded to terms.

    Raises:
        ShardsError: the shards are missing or damaged.
        VectorizerError: the vectorizer is missing, damaged or not the one that the shards were built with.
    """
    with open_shards(folder) as shards:
        manifest = shards.manifest
        vectorizer = load_shards_vectorizer(shards) if num_rows and manifest.files else None
        splits = tuple(
            _summarize_split(split, manifest.class_names, vectorizer, num_rows) for split in shards.splits.values()
        )
    return ShardsSummary(
        path=str(folder),
        format_version=manifest.version,
        kind=manifest.kind,
        features=manifest.num_features,
        vocabulary_size=manifest.vocabulary_size,
        seed=manifest.seed,
        fingerprint=manifest.fingerprint,
        bytes=sum(split.bytes for split in splits),
        vectorizer=manifest.vectorizer,
        splits=splits,
        verified=verified,
    )


def load_shards_vectorizer(shards: Shards) -> Vectorizer:
    """Load the vectorizer of the shards.

    Raises:
        VectorizerError: it is missing, damaged or not the one that the shards were built with.
    """
    from shardtrain.vectorize.fitted import load_vectorizer
    from shardtrain.vectorize.saved import check_fingerprint

    vectorizer = load_vectorizer(shards.vectorizer_path)
    check_fingerprint(shards.vectorizer_path, shards.description.vectorizer)
    return vectorizer


def _summarize_split(
    split: Split, class_names: Sequence[str], vectorizer: Vectorizer | None, num_rows: int
) -> SplitSummary:
    counts = split.entry.class_counts
    return SplitSummary(
        name=split.name,
        examples=split.num_examples,
        bytes=sum(shard.entry.bytes for shard in split.shards),
        shards=tuple(_summarize_shard(shard) for shard in split.shards),
        classes=tuple(ClassCount(name=name, examples=count) for name, count in zip(class_names, counts, strict=True)),
        rows=tuple(
            _decode_row(split, row, class_names, vectorizer) for row in range(min(num_rows, split.num_examples))
        ),
    )


def _decode_row(split: Split, row: int, class_names: Sequence[str], vectorizer: Vectorizer | None) -> DecodedRow:
    x, y = split.rows(row, row + 1)
    return DecodedRow(
        row=row,
        document=int(split.documents(row, row + 1)[0]),
        label=class_names[int(y[0])],
        terms=tuple(vectorizer.decode(x)) if vectorizer and vectorizer.terms else None,
    )


def _summarize_shard(shard: Shard) -> ShardSummary:
    entry = shard.entry
    histogram = np.zeros(1, np.int64)
    for start in range(0, entry.rows, _ROWS_AT_ONCE):
        counts = np.bincount(shard.nonzeros(start, min(start + _ROWS_AT_ONCE, entry.rows)), minlength=len(histogram))
        counts[: len(histogram)] += histogram
        histogram = counts
    return ShardSummary(
        file=entry.file,
        examples=entry.rows,
        nonzeros=_nonzero_statistics(histogram),
        bytes=entry.bytes,
        chunks=_chunks(shard),
        compression=codec_of(entry),
        sources=tuple(sorted({where.source for where in entry.datasets.values() if where.source is not None})),
    )


def _nonzero_statistics(histogram: npt.NDArray[np.int64]) -> NonzeroStatistics:
    """Compute statistics from a histogram: entry v is the number of rows with v non-zeros."""
    values, ends = np.flatnonzero(histogram), np.cumsum(histogram)
    total = int(ends[-1])
    middle = [int(np.searchsorted(ends, position, side="right")) for position in ((total - 1) // 2, total // 2)]
    return NonzeroStatistics(
        min=int(values[0]),
        median=sum(middle) / 2,
        mean=float(histogram @ np.arange(len(histogram))) / total,
        max=int(values[-1]),
    )


def _chunks(shard: Shard) -> dict[str, Chunk]:
    with open_shard_file(shard.path) as file:
        own = {name: where for name, where in shard.entry.datasets.items() if where.source is None}
        return {name: shard_dataset(file, name, where).chunks for name, where in own.items()}
