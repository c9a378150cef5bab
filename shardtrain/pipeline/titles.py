"""Name the passes of a build for its progress, its plan and build.json, in words that a user knows."""

from __future__ import annotations

SCAN, SCAN_VALIDATION = "scanning the corpus", "scanning the validation corpus"
LABELS, VALIDATION_LABELS = "reading labels", "reading validation labels"
LENGTHS = "measuring documents"
COUNT, COUNT_WORDS = "counting n-grams", "counting words"
KEEP = "keeping rare classes in training"
MERGE = "merging counts"
NORMS = "computing document norms"
SELECT = "selecting features"
LONGEST = "measuring sequences"
NAMES = "looking up the features' names"
VECTORIZE, VECTORIZE_VALIDATION = "vectorizing documents", "vectorizing validation documents"
READ_ROWS = "reading rows"
DETAILS = frozenset({VALIDATION_LABELS, LABELS, LENGTHS, KEEP, MERGE, NORMS, LONGEST, NAMES})  # shown with --verbose


def write_shards(split: str) -> str:
    """Return the pass that writes the shards of a split."""
    return f"writing {split} shards"
