"""Name the passes of a build for its progress, its plan and build.json, in words that a user knows."""

from __future__ import annotations

CHECK = "checking what the interrupted build left"
SCAN = "scanning the corpus"
LABELS, VALIDATION_LABELS, TEST_LABELS = "reading labels", "reading validation labels", "reading test labels"
OTHER_SPLITS = {  # those with a file of their own: scanning it, and reading its labels
    "validation": ("scanning the validation corpus", VALIDATION_LABELS),
    "test": ("scanning the test corpus", TEST_LABELS),
}
LENGTHS = "measuring documents"
COUNT, COUNT_WORDS = "counting n-grams", "counting words"
KEEP = "keeping rare classes in training"
GROUP = "grouping counts"
MERGE = "merging counts"
NORMS = "computing document norms"
GROUP_VALUES = "grouping values"
SELECT = "selecting features"
CHOOSE = "choosing features"
LONGEST = "measuring sequences"
TIES = "settling ties"
NAMES = "looking up the features' names"
VECTORIZE = "vectorizing documents"
VECTORIZE_SPLIT = {
    "train": VECTORIZE,
    "validation": "vectorizing validation documents",
    "test": "vectorizing test documents",
}
GROUP_ROWS = "grouping rows"
READ_ROWS = "reading rows"


def plan_shards(split: str) -> str:
    """Return the pass that plans the shards of a split."""
    return f"planning {split} shards"


DETAILS = frozenset(  # shown with --verbose
    {
        *(
            CHECK,
            VALIDATION_LABELS,
            TEST_LABELS,
            LABELS,
            LENGTHS,
            KEEP,
            GROUP,
            MERGE,
            CHOOSE,
            NORMS,
            GROUP_VALUES,
            LONGEST,
            TIES,
        ),
        *(NAMES, GROUP_ROWS, *map(plan_shards, VECTORIZE_SPLIT)),
    }
)


def write_shards(split: str) -> str:
    """Return the pass that writes the shards of a split."""
    return f"writing {split} shards"
