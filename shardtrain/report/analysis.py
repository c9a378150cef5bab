"""Analyze shards for a report: everything is computed here, the pages only format and draw it.

Each split is read once for counts and hashes, the training split a second time for distinctive features.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shardtrain.loader.shards import Shards, open_shards
from shardtrain.loader.split import Split
from shardtrain.pipeline.build_record import BuildRecord, read_build_record
from shardtrain.report.distinctive import DistinctiveFeature, distinctive_features
from shardtrain.report.duplicates import DuplicateCounter, DuplicateCounts
from shardtrain.report.row_statistics import Counts, RowEntries, SplitStatistics, compute_statistics
from shardtrain.report.summary import load_shards_vectorizer
from shardtrain.runtime.progress import progress
from shardtrain.shards.layout import Manifest
from shardtrain.vectorize.fitted import NgramVectorizer, Vectorizer

MAX_CLASSES = 16  # the most frequent classes, for which distinctive features are computed
FEATURES_PER_CLASS = 8
SAMPLED_DOCUMENTS = 500  # enough for a histogram, and few reads of a large corpus
NAMES = {"train": "training", "validation": "validation", "test": "test"}
FEATURE = {"ngram": "n-gram", "sequence": "word", "dense": "feature"}
_STEP = 1 << 20  # candidates per step of a sum


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """Coverage of the vocabulary.

    Attributes:
        candidates: number of n-grams that passed the frequency limits, or of distinct words of the training documents.
        chosen: number of candidates in the vocabulary.
        covered: share of all (document, candidate) pairs whose candidate was chosen; None if unknown.
    """

    candidates: int
    chosen: int
    covered: float | None


@dataclass(frozen=True, kw_only=True)
class ShardsAnalysis:
    """The content of a report of shards.

    Attributes:
        path: folder of the shards.
        manifest: manifest of the shards.
        statistics: by name of a split, the statistics of its rows.
        duplicates: duplicate rows within and between splits.
        terms: the term of each column, or of each token id from 1; empty if columns have no names.
        distinctive: by class index, its most distinctive features; None if columns are hashed or too many.
        vocabulary: coverage of the vocabulary; None if none was chosen.
        build_record: times and memory of the last build, if known.
        document_lengths: entry n is the number of sampled documents of n words; None if the corpus is not available,
            or the shards are not n-grams.
    """

    path: Path
    manifest: Manifest
    statistics: dict[str, SplitStatistics]
    duplicates: DuplicateCounts
    terms: list[str]
    distinctive: dict[int, tuple[DistinctiveFeature, ...]] | None
    vocabulary: Vocabulary | None
    build_record: BuildRecord | None
    document_lengths: Counts | None

    def name_of(self, column: int) -> str:
        """Return the name of a column or token id."""
        if not self.terms:
            return f"column {column:,}"
        return self.terms[column - 1 if self.manifest.kind == "sequence" else column]


def analyze_shards(folder: Path, *, scratch: Path) -> ShardsAnalysis:
    """Analyze the shards in `folder`, in bounded memory.

    Args:
        folder: folder of the shards.
        scratch: folder for temporary files.

    Raises:
        ShardsError: the shards are missing or damaged.
        VectorizerError: the vectorizer is missing, damaged or not the one that the shards were built with.
    """
    with open_shards(folder) as shards:
        manifest = shards.manifest
        vectorizer = load_shards_vectorizer(shards) if manifest.files else None
        terms = vectorizer.terms if vectorizer else []
        statistics, duplicates = analyze_rows(shards, scratch)
        occurrences = statistics["train"].occurrences
        distinctive = None
        if occurrences is not None and (terms or manifest.vectorizer.get("kind") != "hashing"):
            counts = manifest.splits["train"].class_counts
            classes = sorted(sorted(range(len(counts)), key=lambda index: -counts[index])[:MAX_CLASSES])
            distinctive = distinctive_features(shards.train, occurrences, classes, most=FEATURES_PER_CLASS)
        lengths = _document_lengths(shards, scratch) if manifest.files and manifest.kind == "ngram" else None
    return ShardsAnalysis(
        path=folder,
        manifest=manifest,
        statistics=statistics,
        duplicates=duplicates,
        terms=terms,
        distinctive=distinctive,
        vocabulary=_vocabulary(manifest, vectorizer),
        build_record=read_build_record(folder),
        document_lengths=lengths,
    )


def analyze_rows(shards: Shards, scratch: Path) -> tuple[dict[str, SplitStatistics], DuplicateCounts]:
    """Read each split once; return its statistics by its name, and the duplicates in and between splits.

    Temporary files in the folder `scratch` take 15 bytes per row.
    """
    splits = shards.splits.values()
    total = sum(split.num_examples for split in splits)
    with DuplicateCounter(total, scratch) as hashes, progress("analyzing rows", total=total, unit="rows") as done:

        def of_split(split: Split) -> SplitStatistics:
            def visit(entries: RowEntries) -> None:
                hashes.add(entries, split=split.name)
                done.add(len(entries.y))

            return compute_statistics(split, shards.manifest.vocabulary_size, visit)

        statistics = {split.name: of_split(split) for split in splits}
        return statistics, hashes.count()


def _document_lengths(shards: Shards, scratch: Path) -> Counts | None:
    """Count the words of sampled documents. Rows are shuffled on disk, so equally spaced rows are a random sample."""
    from shardtrain.inference.source_texts import find_source_texts

    number = shards.train.num_examples
    rows = range(0, number, -(-number // SAMPLED_DOCUMENTS))
    texts, _ = find_source_texts(shards, shards.train, rows, scratch=scratch)
    return np.bincount([len(text.split()) for text in texts.values()]) if texts else None


def _vocabulary(manifest: Manifest, vectorizer: Vectorizer | None) -> Vocabulary | None:
    if isinstance(vectorizer, NgramVectorizer):
        counts, columns = vectorizer.arrays["counts"], vectorizer.arrays["columns"]
        chosen = everything = 0
        for start in range(0, len(counts), _STEP):
            piece = counts[start : start + _STEP]
            everything += int(piece.sum())
            chosen += int(piece[columns[start : start + _STEP] >= 0].sum())
        return Vocabulary(
            candidates=len(counts), chosen=manifest.num_features, covered=chosen / everything if everything else None
        )
    if manifest.kind == "sequence" and "num_words" in manifest.vectorizer:
        words = int(manifest.vectorizer["num_words"])
        return Vocabulary(candidates=words, chosen=manifest.vocabulary_size - 1, covered=None)
    return None
