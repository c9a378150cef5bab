"""Evaluate a run on the validation split of shards, or on a labelled corpus of raw text without making shards.

Documents of a corpus are read and vectorized unit by unit in threads, while Keras evaluates those before. The metrics
equal those on shards of the same documents, made with the run's vectorizer, up to float32 rounding: documents are
summed in another order.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from shardtrain.arrays.rows import Examples, Features, slice_rows
from shardtrain.corpus.label_spelling import must_be_literal
from shardtrain.corpus.labels import Classes, check_known_labels, known_classes
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import read_unit
from shardtrain.corpus.source import BadRow, Documents, Unit
from shardtrain.errors import CorpusNotFoundError
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.predict_file import units_of
from shardtrain.inference.rows import check_shards
from shardtrain.inference.run import Run
from shardtrain.loader.shards import Shards
from shardtrain.models.guide import input_adapter
from shardtrain.pipeline.units import MAX_LISTED
from shardtrain.runtime.executors import Threads
from shardtrain.runtime.progress import progress, say
from shardtrain.training.steps import EVALUATION_ROWS, Logs, Steps


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The metrics of a run on a corpus.

    Attributes:
        metrics: accuracy, loss and the model's other metrics.
        examples: number of documents evaluated.
        rejected_rows: number of invalid records in the corpus.
        rejected: the first of them.
    """

    metrics: Logs
    examples: int
    rejected_rows: int
    rejected: tuple[BadRow, ...]


def evaluate(run: Run, shards: Shards) -> Logs:
    """Compute accuracy, loss and the model's other metrics on the validation split of `shards`.

    Raises:
        ModelError: the shards were made with another vectorizer, or have other classes.
        ShardsError: there is no validation split.
        RunError: the run's files are damaged.
    """
    check_shards(run, shards)
    model = run.load_model()
    return Steps(model, input_adapter(model, run.description)).evaluate(shards.validation.batches(EVALUATION_ROWS))


def evaluate_corpus(
    run: Run, corpus: Path | str, read: CorpusOptions | None = None, *, workers: int | None = None
) -> Evaluated:
    """Compute accuracy, loss and the model's other metrics on a labelled corpus, without making shards.

    They equal those of `evaluate` on shards of the same documents, made with the run's vectorizer, up to float32
    rounding.

    Args:
        run: a finished run with a vectorizer.
        corpus: as for a build; of a folder with a test split only that split, else all documents.
        read: how the corpus is read.
        workers: as in `PredictOptions`.

    Raises:
        CorpusError: the corpus cannot be read, or holds no valid document.
        LabelError: a label is not one of the run's.
        RunError: the run's files are damaged.
    """
    read = read or CorpusOptions()
    if must_be_literal(run.labels):
        read = replace(read, labels="names")
    with tempfile.TemporaryDirectory(prefix="shardtrain-") as scratch:
        opened = open_corpus(Path(corpus), read, scratch=Path(scratch))
        source = opened.validation or opened.train
        for note in opened.notes:
            say(note)
        model, vectorizer = run.load_model(), run.load_vectorizer()
        units = units_of(source, vectorizer.settings.density)
        seen = _Evaluation(known_classes(run.description.class_names, run.labels))

        def read_rows(unit: Unit) -> tuple[Documents, Features]:
            documents = read_unit(source, unit)
            return documents, vectorizer.transform(documents.texts)

        with Threads(PredictOptions(workers=workers).threads) as threads:
            batches = seen.batches(threads.map(read_rows, units), sum(unit.num_documents for unit in units))
            metrics = Steps(model, input_adapter(model, run.description)).evaluate(batches)
    if not seen.examples:
        raise CorpusNotFoundError(f"'{corpus}' holds no valid document, so there is nothing to evaluate")
    return Evaluated(
        metrics=metrics, examples=seen.examples, rejected_rows=seen.num_rejected, rejected=tuple(seen.rejected)
    )


class _Evaluation:
    """The documents evaluated so far, and the invalid records."""

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.examples = 0
        self.num_rejected = 0
        self.rejected: list[BadRow] = []

    def batches(self, units: Iterable[tuple[Documents, Features]], total: int) -> Iterator[Examples]:
        """Yield the rows of all units with their classes, in batches of `EVALUATION_ROWS`."""
        with progress("evaluating", total=total, unit="documents") as shown:
            for documents, x in units:
                check_known_labels(Counter(documents.labels), self.classes)
                y = np.array([self.classes.codes[label] for label in documents.labels], np.uint32)
                for start in range(0, len(y), EVALUATION_ROWS):
                    stop = min(start + EVALUATION_ROWS, len(y))
                    yield slice_rows(x, start, stop), y[start:stop]
                bad = documents.bad_rows
                self.examples += len(y)
                self.num_rejected += len(bad)
                self.rejected += bad[: MAX_LISTED - len(self.rejected)]
                shown.add(len(y) + len(bad))
