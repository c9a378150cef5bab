"""Analyze a run on shards for its report: everything is computed here, the pages only format and draw it.

Rows are read and classified batch by batch, as by the command `evaluate`, so memory does not depend on their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy.typing as npt

from shardtrain.errors import VectorizerError
from shardtrain.inference.explanations import Explanation
from shardtrain.inference.run import Run
from shardtrain.inference.source_texts import find_source_texts
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.loader.split import Split
from shardtrain.metrics.classification import Metrics
from shardtrain.metrics.ranking import Curves
from shardtrain.report.analysis import analyze_rows
from shardtrain.report.duplicates import DuplicateCounts
from shardtrain.report.evaluation import Mistake, evaluate_predictions
from shardtrain.report.run_reasons import Terms, class_terms, explain_texts
from shardtrain.report.summary import load_shards_vectorizer
from shardtrain.runtime.progress import progress

MISTAKES = 20
MAX_IN_ORDER = 20  # more classes are sorted by F1
_MAX_CLASSES = 12  # whose terms are shown
_MAX_TERMS = 30  # of a row whose text is not available


@dataclass(frozen=True, kw_only=True)
class MistakeDetails:
    """A mistake with the text of its document, or else the terms of its features, if available.

    Attributes:
        mistake: the mistake.
        document: number of its document in the corpus.
        text: of the document.
        terms: of the features, where the text is not available.
        explanation: of the predicted class, where there is a text.
    """

    mistake: Mistake
    document: int
    text: str | None
    terms: tuple[str, ...]
    explanation: Explanation | None


@dataclass(frozen=True, kw_only=True)
class RunEvaluation:
    """Evaluation of a run's model on the validation rows of shards.

    Attributes:
        shards: folder of the shards.
        changed: whether they differ from the shards the run was trained on; the vectorizer is the same.
        metrics: the metrics.
        curves: of each class against the rest; empty or None where there are none.
        mistakes: the most confident mistakes.
        reasons: why texts are missing.
        no_explanations: why mistakes are not explained; empty where they are, or where there are no texts.
        terms: of the classes, in the order of their table.
        duplicates: rows of a split that are also rows of another.
        split_rows: number of rows of each split, by its name.
    """

    shards: Path
    changed: bool
    metrics: Metrics
    curves: tuple[Curves | None, ...]
    mistakes: tuple[MistakeDetails, ...]
    reasons: tuple[str, ...]
    no_explanations: str
    terms: Terms
    duplicates: DuplicateCounts
    split_rows: dict[str, int]


def evaluate_run(run: Run, folder: Path, *, scratch: Path) -> RunEvaluation:
    """Classify the validation rows of the shards in `folder` and look up the texts of the most confident mistakes.

    Raises:
        ShardsError: the shards are missing or damaged.
        ModelError: the shards were built with another vectorizer or have other classes.
        RunError: a file of the run is damaged.
    """
    from shardtrain.inference.rows import predict_rows

    with open_shards(folder) as shards:
        split = shards.validation
        with progress("classifying", total=split.num_examples, unit="rows") as done:

            def batches() -> Iterator[tuple[npt.NDArray[Any], npt.NDArray[Any]]]:
                for y, predictions in predict_rows(run, shards):
                    yield y, predictions.probabilities
                    done.add(len(y))

            found = evaluate_predictions(batches(), run.description.num_classes, mistakes=MISTAKES)
        texts, reasons = find_source_texts(shards, split, [each.row for each in found.mistakes], scratch=scratch)
        explained, unexplained = explain_texts(run, texts)
        statistics, duplicates = analyze_rows(shards, scratch)
        classes = order_of(found.metrics)[:_MAX_CLASSES]
        return RunEvaluation(
            shards=folder,
            changed=shards.manifest.fingerprint != run.description.fingerprint,
            metrics=found.metrics,
            curves=found.curves,
            mistakes=_with_texts(shards, split, found.mistakes, texts, explained),
            reasons=reasons,
            no_explanations=unexplained,
            terms=class_terms(run, shards, statistics["train"].occurrences, classes),
            duplicates=duplicates,
            split_rows={name: each.rows for name, each in statistics.items()},
        )


def order_of(metrics: Metrics) -> list[int]:
    """Return the classes that occur, in the model's order, or of more than `MAX_IN_ORDER` those of lowest F1 first."""
    occurring: list[int] = metrics.occurring.tolist()
    if len(occurring) <= MAX_IN_ORDER:
        return occurring
    return sorted(occurring, key=lambda index: float(metrics.f1[index]))


def _with_texts(
    shards: Shards,
    split: Split,
    mistakes: Sequence[Mistake],
    texts: dict[int, str],
    explained: dict[int, Explanation],
) -> tuple[MistakeDetails, ...]:
    vectorizer = None
    if len(texts) < len(mistakes) and shards.manifest.files:
        try:
            vectorizer = load_shards_vectorizer(shards)
        except VectorizerError:  # rows are classified without it; only their terms are missing then
            vectorizer = None
    found = []
    for each in mistakes:
        text = texts.get(each.row)
        terms: list[str] = []
        if text is None and vectorizer is not None and vectorizer.terms:
            terms = vectorizer.decode(split.rows(each.row, each.row + 1)[0])
        document = int(split.documents(each.row, each.row + 1)[0])
        found.append(
            MistakeDetails(
                mistake=each,
                document=document,
                text=text,
                terms=tuple(terms[:_MAX_TERMS]),
                explanation=explained.get(each.row),
            )
        )
    return tuple(found)
