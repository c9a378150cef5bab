"""What a report of shards tells, as a value: everything is found here, and only worded on the page.

Each split is read once for counts and hashes, and the training split once more for what tells classes apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shardtrain.loader.shards import Shards, open_shards
from shardtrain.loader.split import Split
from shardtrain.report.build_record import BuildRecord, read_build_record
from shardtrain.report.distinctive import DistinctiveFeature, distinctive_features
from shardtrain.report.duplicates import DuplicateCounter, DuplicateCounts
from shardtrain.report.row_statistics import Counts, RowEntries, SplitStatistics, compute_statistics
from shardtrain.report.summary import load_shards_vectorizer
from shardtrain.runtime.progress import progress
from shardtrain.shards.layout import Manifest
from shardtrain.vectorize.fitted import NgramVectorizer, Vectorizer

MAX_CLASSES = 16  # whose telling features are looked for: the most frequent ones
TELLING = 8  # features of a class
SAMPLED = 500  # training rows whose documents are measured: enough for a histogram, and few pieces of a large corpus
NAMES = {"train": "training", "validation": "validation"}
FEATURE = {"ngram": "n-gram", "sequence": "word", "dense": "feature"}
_STEP = 1 << 20  # candidates counted at a time


@dataclass(frozen=True, kw_only=True)
class Vocabulary:
    """How much of what documents hold has a column.

    Attributes:
        candidates: n-grams that were often enough to be chosen, or distinct words of the training documents.
        chosen: of them.
        covered: the share of all (document, candidate) pairs whose candidate was chosen; None where it is not known.
    """

    candidates: int
    chosen: int
    covered: float | None


@dataclass(frozen=True, kw_only=True)
class ShardsAnalysis:
    """What was found in shards.

    Attributes:
        path: of their folder.
        manifest: of the shards.
        surveys: what the rows of each split hold, by name.
        overlap: equal rows within and between splits.
        terms: the term of each column, or of each id from 1; empty where columns have none.
        telling: by class index, the features that tell it best; None where columns cannot be named or are too many.
        vocabulary: what was chosen from; None where nothing was.
        making: how they were built, if that is known.
        words: of some documents how many have how many words; None where documents are not known, or rows tell it.
    """

    path: Path
    manifest: Manifest
    surveys: dict[str, SplitStatistics]
    overlap: DuplicateCounts
    terms: list[str]
    telling: dict[int, tuple[DistinctiveFeature, ...]] | None
    vocabulary: Vocabulary | None
    making: BuildRecord | None
    words: Counts | None

    def name_of(self, column: int) -> str:
        """What a column, or a token id, is called."""
        if not self.terms:
            return f"column {column:,}"
        return self.terms[column - 1 if self.manifest.kind == "sequence" else column]


def analyze_shards(folder: Path, *, scratch: Path) -> ShardsAnalysis:
    """Look through the shards in `folder`, in bounded memory.

    Args:
        folder: of the shards.
        scratch: a folder of a disk, for files that are gone afterwards.

    Raises:
        ShardsError: there are none, or they are damaged.
        VectorizerError: the vectorizer is missing, damaged or another one than the shards were made with.
    """
    with open_shards(folder) as shards:
        manifest = shards.manifest
        vectorizer = load_shards_vectorizer(shards) if manifest.files else None
        terms = vectorizer.terms if vectorizer else []
        surveys, overlap = _survey(shards, scratch)
        occurrences = surveys["train"].occurrences
        telling = None
        if occurrences is not None and (terms or manifest.vectorizer.get("kind") != "hashing"):
            counts = manifest.splits["train"].class_counts
            classes = sorted(sorted(range(len(counts)), key=lambda index: -counts[index])[:MAX_CLASSES])
            telling = distinctive_features(shards.train, occurrences, classes, most=TELLING)
        words = _words(shards, scratch) if manifest.files and manifest.kind == "ngram" else None
    return ShardsAnalysis(
        path=folder,
        manifest=manifest,
        surveys=surveys,
        overlap=overlap,
        terms=terms,
        telling=telling,
        vocabulary=_vocabulary(manifest, vectorizer),
        making=read_build_record(folder),
        words=words,
    )


def _survey(shards: Shards, scratch: Path) -> tuple[dict[str, SplitStatistics], DuplicateCounts]:
    splits = shards.splits.values()
    total = sum(split.num_examples for split in splits)
    with DuplicateCounter(total, scratch) as hashes, progress("looking at rows", total=total, unit="rows") as done:

        def look_at(split: Split) -> SplitStatistics:
            def see(entries: RowEntries) -> None:
                hashes.add(entries, validation=split.name == "validation")
                done.add(len(entries.y))

            return compute_statistics(split, shards.manifest.vocabulary_size, see)

        surveys = {split.name: look_at(split) for split in splits}
        return surveys, hashes.count()


def _words(shards: Shards, scratch: Path) -> Counts | None:
    """How many words documents have. Rows lie in mixed order, so those of rows at equal distances are any documents."""
    from shardtrain.report.source_texts import find_source_texts

    number = shards.train.num_examples
    rows = range(0, number, -(-number // SAMPLED))
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
