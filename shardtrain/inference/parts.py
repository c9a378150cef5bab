"""Classify a unit of raw text and write its part of the output, in this process or on a worker elsewhere.

A part is a pure function of its unit. Threads share one model; a worker elsewhere opens the run itself, once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shardtrain.corpus.readers import read_unit
from shardtrain.corpus.source import BAD_ROW, BadRow, Documents, Source, Unit
from shardtrain.errors import RunError
from shardtrain.inference.classifier import SPARSE_ROWS, Classifier
from shardtrain.inference.notes import TextCounts
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.predictions import Predictions
from shardtrain.inference.writers import Piece, PredictionWriter, writer_for
from shardtrain.pipeline.facts import MAX_LISTED
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.checksums import file_checksum, rest_checksum
from shardtrain.runtime.engines.work import made_once
from shardtrain.runtime.schema import Fields, Integer, Items, hex_digits

if TYPE_CHECKING:
    from shardtrain.inference.explain import Explainer
    from shardtrain.inference.run import Run

_PIECE_ROWS, _PIECE_VALUES = 1 << 16, 1 << 22  # predicted at a time, and values of their rows or probabilities


@dataclass(frozen=True, kw_only=True)
class UnitResult:
    """The stored result of a unit: its predictions and marked texts in numbers, and the first of its invalid rows.

    `checksum` is that of its part of the output.
    """

    checksum: str
    rows: int
    undecided: int
    num_bad_rows: int
    bad_rows: tuple[BadRow, ...]
    counts: TextCounts

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> UnitResult:
        """Make the value from a record that fits `RESULT`."""
        bad_rows = tuple(BadRow(**row) for row in record["bad_rows"])
        return cls(**{**record, "bad_rows": bad_rows, "counts": TextCounts(**record["counts"])})


RESULT = Fields(
    {
        "checksum": hex_digits(16),
        "rows": Integer(),
        "undecided": Integer(),
        "num_bad_rows": Integer(),
        "bad_rows": Items(BAD_ROW, most=MAX_LISTED),
        "counts": Fields({each.name: Integer() for each in fields(TextCounts)}),
    }
)


@dataclass(frozen=True, kw_only=True)
class Input:
    """An input cut into units, and the classifier."""

    source: Source
    units: Sequence[Unit]
    classifier: Classifier | Explainer

    @property
    def sizes(self) -> list[int]:
        """Bytes of each unit."""
        return [unit.num_bytes for unit in self.units]

    def classify(self, unit: Unit) -> tuple[Documents, Predictions]:
        """Read the documents of a unit and classify them."""
        documents = read_unit(self.source, unit)
        return documents, self._classify(documents, 0, len(documents.texts))

    def write_part(self, unit: Unit, writer: PredictionWriter, folder: Path) -> UnitResult:
        """Classify a unit and write its part of the output to a folder."""
        documents = read_unit(self.source, unit)
        bad, marks, undecided = documents.bad_rows, [np.empty(0, np.uint8)], [0]

        def pieces() -> Iterator[Piece]:
            step = rows_per_piece(max(len(self.classifier.class_names), self._row_values))
            for start in range(0, len(documents.texts), step):
                predictions = self._classify(documents, start, start + step)
                marks.append(predictions.marks)
                undecided.append(int(np.count_nonzero(~predictions.decided)))
                yield documents.ordinals[start : start + step], predictions

        with committed(part_path(folder, unit), synced=False) as file:
            writer.write_part(pieces(), file)
            file.seek(0)
            written = rest_checksum(file)
        counts = TextCounts.of(np.concatenate(marks), documents.num_replaced)
        return UnitResult(
            checksum=written,
            rows=len(documents.texts),
            undecided=sum(undecided),
            num_bad_rows=len(bad),
            bad_rows=bad[:MAX_LISTED],
            counts=counts,
        )

    @property
    def _row_values(self) -> int:
        """Values of a row of features in memory; few where rows are sparse."""
        vectorizer = self.classifier.vectorizer
        return vectorizer.num_features if vectorizer.kind == "sequence" else 1

    def _classify(self, documents: Documents, start: int, stop: int) -> Predictions:
        columns = max(1, len(self.source.text_columns))
        return self.classifier(documents.texts[start:stop], replaced=documents.num_replaced > 0, columns=columns)


@dataclass(frozen=True, kw_only=True)
class FarParts:
    """Writes parts on workers that open the run themselves; picklable.

    Attributes:
        run: folder of the run.
        model: SHA-256 of its model, which the worker must find there.
        module: that registers layers of the model; None: none does.
        source: the input.
        options: of predicting.
        output: the file of which parts are written.
        folder: of the parts.
    """

    run: Path
    model: str
    module: str | None
    source: Source
    options: PredictOptions
    output: Path
    folder: Path

    def __call__(self, unit: Unit) -> UnitResult:
        """Classify a unit and write its part."""
        classifier = _loaded(self.run, self.model, self.module, self.options.explain, self.options.threshold)
        writer = writer_of(self.output, classifier.class_names, self.options)
        return Input(source=self.source, units=[], classifier=classifier).write_part(unit, writer, self.folder)


@made_once(maxsize=1)
def _loaded(
    folder: Path, model: str, module: str | None, explain: int | None, threshold: bool
) -> Classifier | Explainer:
    """Load the classifier of a run in a worker.

    Raises:
        RunError: the worker sees another model than the driver.
    """
    from shardtrain.inference.run import load_run

    if module is not None:
        from shardtrain.models.user_models import import_module

        import_module(module)
    run = load_run(folder)
    if run.metrics["model_sha256"] != model:
        raise RunError(f"the model in '{folder}' was changed meanwhile; run the command again")
    return loaded(run, explain=explain, threshold=threshold)


def loaded(run: Run, *, explain: int | None, threshold: bool) -> Classifier | Explainer:
    """Load the classifier of a run, or with `explain` one that explains by so many terms."""
    return run.classifier(threshold=threshold) if explain is None else run.explainer(explain, threshold=threshold)


def writer_of(output: Path, class_names: tuple[str, ...], options: PredictOptions) -> PredictionWriter:
    """Return the writer of an output file."""
    return writer_for(
        output,
        class_names,
        proba=options.proba,
        notes=options.notes,
        reasons=options.explain is not None,
        csv_safe=options.csv_safe,
    )


def part_name(unit: Unit) -> str:
    """Return the name of a unit's part and of its record."""
    return f"part-{unit.index:06}"


def part_path(folder: Path, unit: Unit) -> Path:
    """Return the file of a unit's part."""
    return folder / f"{part_name(unit)}.rows"


def is_whole(folder: Path, unit: Unit, result: UnitResult) -> bool:
    """Return whether the part of a unit is there, and what was written."""
    path = part_path(folder, unit)
    return path.is_file() and file_checksum(path) == result.checksum


def rows_per_piece(row_values: int) -> int:
    """Return how many rows of so many values are predicted at a time: a unit may have a million short texts.

    A multiple of the rows per call of the model, so that the calls, and the last bit of their results, are the same.
    """
    return max(1, min(_PIECE_ROWS, _PIECE_VALUES // row_values) // SPARSE_ROWS) * SPARSE_ROWS
