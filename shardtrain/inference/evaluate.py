"""Evaluate a run on a split of shards, or on a labelled corpus of raw text without making shards.

Documents of a corpus are read and vectorized unit by unit in threads, or on workers elsewhere, while the model
evaluates those before. The metrics equal those on shards of the same documents, made with the run's vectorizer, up to
float32 rounding: documents are summed in another order.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from shardtrain.arrays.rows import Examples, Features, slice_rows
from shardtrain.corpus.label_spelling import must_be_literal
from shardtrain.corpus.labels import known_classes
from shardtrain.corpus.options import Column, CorpusOptions
from shardtrain.corpus.source import BadRow, Corpus, Documents, Source
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, ModelError
from shardtrain.inference.answered import Answers, Observer, Rows
from shardtrain.inference.classifier import not_finite
from shardtrain.inference.known_labels import KnownLabels
from shardtrain.inference.notes import TextCounts, marks_of
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.rows import check_shards
from shardtrain.inference.slices import MISSING, ColumnReader, Slice, SliceSums, column_source
from shardtrain.inference.unit_rows import unit_rows
from shardtrain.inference.units import units_of
from shardtrain.loader.shards import Shards
from shardtrain.metrics.outputs import Measured, OutputSums
from shardtrain.pipeline.facts import MAX_LISTED
from shardtrain.pipeline.given import CorpusLike, as_files
from shardtrain.pipeline.origin import recorded_origins
from shardtrain.runtime.engines.names import PROCESSES
from shardtrain.runtime.progress import progress, say, warn
from shardtrain.training.engine import EVALUATION_ROWS, EachBatch, Logs

if TYPE_CHECKING:
    from shardtrain.inference.run import Run


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """The metrics of a run on a corpus.

    Attributes:
        measured: all metrics.
        split: of the corpus that was evaluated, "train", "validation" or "test"; None: all of a corpus without splits.
        examples: number of documents evaluated.
        rejected_rows: number of invalid records in the corpus.
        rejected: the first of them.
        counts: of the texts of which the predictions say little.
        classes_found: number of the model's classes that occur in the corpus.
        respelled_labels: the class of each label that is spelled unlike it.
        slices: the parts of the rows that a column makes, the largest first.
    """

    measured: Measured
    split: str | None
    examples: int
    rejected_rows: int
    rejected: tuple[BadRow, ...]
    counts: TextCounts
    classes_found: int
    respelled_labels: dict[str, str]
    slices: tuple[Slice, ...] = ()

    @property
    def metrics(self) -> Logs:
        """Accuracy, loss and the model's other metrics."""
        return dict(self.measured.logs)


def evaluate(run: Run, shards: Shards, *, split: str = "validation") -> Logs:
    """Compute accuracy, loss and the model's other metrics on a split of `shards`.

    Args:
        run: a finished run.
        shards: made by the run's vectorizer.
        split: "train", "validation" or "test".

    Raises:
        ModelError: the shards were made with another vectorizer, or have other classes; or the loss is not finite.
        ShardsError: there is no such split.
        RunError: the run's files are damaged.
    """
    return dict(measure(run, shards, split=split).logs)


def measure(run: Run, shards: Shards, *, split: str = "validation", observers: Sequence[Observer] = ()) -> Measured:
    """Compute all metrics on a split of `shards`, in one pass.

    Args:
        run: a finished run.
        shards: made by the run's vectorizer.
        split: "train", "validation" or "test".
        observers: what else sees the model's answers, such as `errors_file`.

    Raises:
        ModelError: the shards were made with another vectorizer, or have other classes; or the loss is not finite; or
            the outputs are not probabilities and an observer needs them.
        ShardsError: there is no such split, or a label is not a class.
        RunError: the run's files are damaged.
    """
    check_shards(run, shards)
    rows = shards.split(split)

    def batches() -> Iterator[tuple[Examples, Rows]]:
        first = 0
        for x, y in rows.batches(EVALUATION_ROWS):
            yield (x, y), Rows(numbers=np.arange(first, first + len(y)))
            first += len(y)

    return _finite(_loaded(run, observers)(batches()), run)


def evaluate_corpus(
    run: Run,
    corpus: CorpusLike,
    read: CorpusOptions | None = None,
    *,
    split: str | None = None,
    workers: int | None = None,
    executor: str = PROCESSES,
    by: Column | None = None,
    weight: Column | None = None,
    observers: Sequence[Observer] = (),
) -> Evaluated:
    """Compute accuracy, loss and the model's other metrics on a labelled corpus, without making shards.

    They equal those of `evaluate` on shards of the same documents, made with the run's vectorizer, up to float32
    rounding.

    Args:
        run: a finished run with a vectorizer.
        corpus: as for a build.
        read: how the corpus is read.
        split: "train", "validation" or "test"; None: the test split if there is one, else the validation split, else
            all documents.
        workers: as in `PredictOptions`.
        executor: who reads and vectorizes, as in `PredictOptions`; this process evaluates the model.
        by: column by whose values the rows are also measured part by part.
        weight: column with the weights of the rows.
        observers: what else sees the model's answers, such as `errors_file`.

    Raises:
        CorpusError: the corpus cannot be read, does not have the split or a column, holds no valid document, or all
            weights are 0.
        UsageError: the corpus has no columns besides label and text, or there are too many values in `by`.
        LabelError: a label is not one of the run's.
        RunError: the run's files are damaged.
        ModelError: the loss is not finite, or the outputs are not probabilities and `by`, `weight` or an observer needs
            them.
    """
    read = read or CorpusOptions()
    if must_be_literal(run.labels):
        read = replace(read, labels="names")
    work = PredictOptions(workers=workers, executor=executor)
    with tempfile.TemporaryDirectory(prefix="shardtrain-") as scratch, contextlib.ExitStack() as files:
        given = files.enter_context(as_files(corpus, Path(scratch) / "given", read))
        given = replace(given, paths=tuple(map(work.placed, given.paths)))
        opened = given.open(read, scratch=Path(scratch), remembered=run.reading)
        for note in opened.notes:
            say(note)
        name = chosen_split(opened, split)
        source = opened.sources[name]
        _warn_if_trained_on(run, source)
        vectorizer = run.load_vectorizer()
        units = units_of(source, vectorizer.settings.density)
        labels = KnownLabels(known_classes(run.description.class_names, run.labels))

        def reader(column: Column) -> ColumnReader:
            def reopened(texts: tuple[Column, ...]) -> Source:
                how = replace(read, label_column=column, text_columns=texts, labels="names")
                return given.open(how, scratch=Path(tempfile.mkdtemp(dir=scratch))).sources[name]

            found = column_source(source, column, reopened)
            return ColumnReader(column, found, units_of(found, 1))

        slices = None if by is None else SliceSums(str(by), run.description.num_classes)
        seen = _Evaluation(
            labels,
            columns=max(1, len(source.text_columns)),
            values=None if by is None else reader(by),
            weights=None if weight is None else reader(weight),
        )
        measure_batches = _loaded(run, [*observers, *([slices] if slices else [])], weighted=weight is not None)

        with unit_rows(work, run, source, vectorizer, Path(scratch)) as rows_of:
            batches = seen.batches(rows_of(units), sum(unit.num_documents for unit in units))
            measured = measure_batches(batches)
    if weight is not None:
        measured = _weighted(measured, given.paths[0], weight)
    if not seen.examples:
        raise CorpusNotFoundError(f"'{given.paths[0]}' holds no valid document, so there is nothing to evaluate")
    seen.counts.warn("evaluate", advice="such texts count in accuracy and loss", encoding=read.encoding)
    for line in seen.labels.warnings(opened.class_names):
        warn(line)
    return Evaluated(
        measured=_finite(measured, run),
        split=name if split or len(opened.sources) > 1 else None,
        examples=seen.examples,
        rejected_rows=seen.num_rejected,
        rejected=tuple(seen.rejected),
        counts=seen.counts,
        classes_found=seen.labels.num_found,
        respelled_labels=seen.labels.class_of,
        slices=tuple(slices.slices()) if slices else (),
    )


def _loaded(
    run: Run, observers: Sequence[Observer], *, weighted: bool = False
) -> Callable[[Iterable[tuple[Examples, Rows]]], Measured]:
    """Load the model of a run; return what computes all metrics over batches, which `observers` see as well.

    The returned function raises ModelError where observers or weights of rows need probabilities and there are none.

    Raises:
        RunError: the run's files are damaged.
    """
    if (network := run.load_network()) is not None:
        from shardtrain.inference import network_model

        def logs_of(batches: Iterable[Examples], each: EachBatch) -> Logs:
            return network_model.evaluate(network, batches, each)

    else:
        model = run.load_model()
        from shardtrain.inference import keras_model

        def logs_of(batches: Iterable[Examples], each: EachBatch) -> Logs:
            return keras_model.evaluate(model, run.description, batches, each, run.config.get("outputs"))

    def measured(batches: Iterable[tuple[Examples, Rows]]) -> Measured:
        outputs = OutputSums(run.description.num_classes)
        answers = Answers(outputs, observers)
        found = outputs.measured(logs_of(answers.examples(batches), answers.add))
        if found.metrics is None and (observers or weighted):
            raise ModelError(
                "parts, weights, thresholds and a file of wrong rows need probabilities of each row, and "
                f"{found.reason}"
            )
        return found

    return measured


def _finite(measured: Measured, run: Run) -> Measured:
    """Return what was measured of a run.

    Raises:
        ModelError: the loss is not finite.
    """
    if not math.isfinite(measured.logs["loss"]):
        raise not_finite(run.path)
    return measured


def _weighted(measured: Measured, path: Path, column: Column) -> Measured:
    """Return what was measured with accuracy and loss by weights, which the model's own do not know.

    Raises:
        CorpusFormatError: all weights are 0.
    """
    assert measured.metrics is not None  # see `_loaded`
    if not measured.metrics.effective_rows:
        raise CorpusFormatError(f"'{path}': the weights in the column '{column}' are all 0")
    return replace(measured, logs={"accuracy": measured.metrics.accuracy, "loss": measured.metrics.log_loss})


def _warn_if_trained_on(run: Run, source: Source) -> None:
    """Warn of a file that was named as the corpus that a run was trained on, as far as is known."""
    files = {os.path.realpath(file.origin) for file in source.files}
    shards = run.config.get("shards")
    origins = [] if shards is None else recorded_origins(Path(shards))
    if any(not files.isdisjoint(origin.get("paths", ())) for origin in origins if origin):
        warn(
            f"'{run.path}' was trained on {Path(source.files[0].origin).name}, so its figures there are better "
            "than on other texts; evaluate on the validation or test split of its shards, or on a file that it has "
            "not seen"
        )


def chosen_split(corpus: Corpus, split: str | None) -> str:
    """Return the name of the split to evaluate on.

    Raises:
        CorpusNotFoundError: the corpus does not have it.
    """
    found = corpus.sources
    if split is None:
        return next(name for name in ("test", "validation", "train") if name in found)
    if split not in found:
        raise CorpusNotFoundError(
            f"the corpus of '{Path(corpus.train.origin).name}' has no {split} split, only {', '.join(found)}; a split "
            "that `build` held out is in the shards: evaluate on these, or name the file"
        )
    return split


class _Evaluation:
    """The documents evaluated so far, their labels and marks, and the invalid records.

    Args:
        labels: of the run.
        columns: number of columns that are joined to make a text.
        values: reads the column that divides the rows.
        weights: reads the column with their weights.
    """

    def __init__(
        self, labels: KnownLabels, *, columns: int, values: ColumnReader | None, weights: ColumnReader | None
    ) -> None:
        self.labels = labels
        self.columns = columns
        self._values, self._weights = values, weights
        self.counts = TextCounts()
        self.examples = 0
        self.num_rejected = 0
        self.rejected: list[BadRow] = []

    def batches(self, units: Iterable[tuple[Documents, Features]], total: int) -> Iterator[tuple[Examples, Rows]]:
        """Yield the rows of all units in batches of `EVALUATION_ROWS`, with their classes and what is known of them."""
        with progress("evaluating", total=total, unit="documents") as shown:
            for documents, x in units:
                y = self.labels.codes_of(documents.labels)
                marks = marks_of(documents.texts, x, replaced=documents.num_replaced > 0, columns=self.columns)
                self.counts += TextCounts.of(marks, documents.num_replaced)
                rows = self._rows(documents)
                for start in range(0, len(y), EVALUATION_ROWS):
                    stop = min(start + EVALUATION_ROWS, len(y))
                    yield (slice_rows(x, start, stop), y[start:stop]), rows.slice(start, stop)
                bad = documents.bad_rows
                self.examples += len(y)
                self.num_rejected += len(bad)
                self.rejected += bad[: MAX_LISTED - len(self.rejected)]
                shown.add(len(y) + len(bad))

    def _rows(self, documents: Documents) -> Rows:
        ordinals = documents.ordinals
        values = None if self._values is None else self._values.values(ordinals)
        return Rows(
            numbers=ordinals,
            texts=documents.texts,
            values=None if values is None else [MISSING if value is None else value for value in values],
            weights=None if self._weights is None else self._weights.weights(ordinals),
        )
