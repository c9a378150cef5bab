"""Classify the same rows by several runs, batch by batch, with rows and classes aligned.

On shards of one vectorizer each batch is read once. Runs with other shards read those, of the same documents in the
same order, in step; labels and ordinals of all are compared. Raw text is read once, and each vectorizer makes its own
rows of it. Memory is that of one evaluation per run, whatever the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.rows import Features, Labels, slice_rows
from shardtrain.corpus.readers import read_unit
from shardtrain.corpus.source import BadRow, Documents, Source, Unit
from shardtrain.errors import ModelError, RunError, command_line
from shardtrain.inference.classifier import Classifier
from shardtrain.inference.known_labels import KnownLabels
from shardtrain.inference.predictions import Probabilities
from shardtrain.inference.rows import check_shards
from shardtrain.inference.run import Run
from shardtrain.inference.units import units_of
from shardtrain.loader.shards import Shards
from shardtrain.pipeline.facts import MAX_LISTED
from shardtrain.pipeline.origin import recorded_origins
from shardtrain.runtime.executors import threads
from shardtrain.runtime.progress import progress
from shardtrain.runtime.quantities import ESCAPED, enumerated
from shardtrain.training.engine import EVALUATION_ROWS


@dataclass(frozen=True, eq=False)
class CommonRows:
    """Rows with what every run says of them.

    Attributes:
        y: true class indices, in the order of the first run's classes, (rows,).
        probabilities: of each run, (rows, num_classes), in the same order of classes.
        documents: ordinals in the file, (rows,).
        texts: of the documents; None where they were not read.
    """

    y: Labels
    probabilities: tuple[Probabilities, ...]
    documents: npt.NDArray[np.int64]
    texts: Sequence[str] | None


def check_classes(runs: Sequence[Run]) -> None:
    """Check that all runs know the same classes, in whatever order.

    Raises:
        ModelError: they do not.
    """
    first = runs[0]
    known = set(first.description.class_names)
    for run in runs[1:]:
        if (names := set(run.description.class_names)) != known:
            parts = [
                f"only '{owner.path}' has {enumerated(sorted(only), 5, ESCAPED)}"
                for owner, only in ((first, known - names), (run, names - known))
                if only
            ]
            raise ModelError(
                f"'{run.path}' has other classes than '{first.path}': {', '.join(parts)}; only runs of the same "
                f"classes can be compared: train one of them again on the classes of the other, or measure each by "
                f"itself with `{command_line('evaluate', run.path)} DATA`"
            )


def columns_of(runs: Sequence[Run]) -> list[npt.NDArray[np.int64]]:
    """Return for each run the column of its probabilities for each class of the first run."""
    names = runs[0].description.class_names
    places = [{name: place for place, name in enumerate(run.description.class_names)} for run in runs]
    return [np.array([known[name] for name in names]) for known in places]


def rows_of_shards(runs: Sequence[Run], shards: Sequence[Shards], *, split: str = "validation") -> Iterator[CommonRows]:
    """Classify a split of shards by each run.

    Args:
        runs: with the same classes.
        shards: for each run; the same object where they are the same.
        split: "train", "validation" or "test".

    Raises:
        ModelError: shards do not fit a run, or their rows are not the same documents.
        ShardsError: there is no such split.
        RunError: the files of a run are damaged.
    """
    for run, each in zip(runs, shards, strict=True):
        check_shards(run, each)
    distinct = list(dict.fromkeys(shards))
    _check_origins(distinct, split)
    places, columns = [distinct.index(each) for each in shards], columns_of(runs)
    codes = [np.argsort(columns[places.index(number)]) for number in range(len(distinct))]  # of the first run's classes
    classifiers = [run.classifier(threshold=False) for run in runs]
    with progress("comparing", total=distinct[0].split(split).num_examples, unit="rows") as shown:
        for y, documents, made in _in_step(distinct, split, codes):
            outputs = (
                classifier.classify_rows(made[place]).probabilities[:, column]
                for classifier, place, column in zip(classifiers, places, columns, strict=True)
            )
            yield CommonRows(y, tuple(outputs), documents, None)
            shown.add(len(y))


def _in_step(
    shards: Sequence[Shards], split: str, codes: Sequence[npt.NDArray[np.int64]]
) -> Iterator[tuple[Labels, npt.NDArray[np.int64], list[Features]]]:
    """Yield the labels and documents of the rows of a split, and the features that each of the shards has of them.

    `codes` are the class index to use for each class of the shards.

    Raises:
        ModelError: the rows are not the same documents.
    """
    splits, start = [each.split(split) for each in shards], 0
    for batches in zip(*(each.batches(EVALUATION_ROWS) for each in splits), strict=True):
        found = [code[y.astype(np.int64)] for code, (_, y) in zip(codes, batches, strict=True)]
        stop = start + len(found[0])
        documents = [each.documents(start, stop) for each in splits]
        for other, labels, ordinals in zip(shards[1:], found[1:], documents[1:], strict=True):
            if not (np.array_equal(labels, found[0]) and np.array_equal(ordinals, documents[0])):
                raise _other_rows(shards[0].path, other.path, split)
        yield found[0], documents[0], [x for x, _ in batches]
        start = stop


def _check_origins(shards: Sequence[Shards], split: str) -> None:
    """Check that shards were built from the same files, read in the same way, and are as long.

    Raises:
        ModelError: they were not, or it is not recorded.
    """
    first = shards[0]
    expected = [_source(origin) for origin in recorded_origins(first.path)] if len(shards) > 1 else []
    for other in shards[1:]:
        found = [_source(origin) for origin in recorded_origins(other.path)]
        known = bool(found) and None not in found
        if not known or found != expected or other.split(split).num_examples != first.split(split).num_examples:
            raise _other_rows(first.path, other.path, split)


def _source(origin: dict[str, Any] | None) -> dict[str, Any] | None:
    return None if origin is None else {name: origin.get(name) for name in ("validation", "test", "files", "read")}


def _other_rows(first: Path, other: Path, split: str) -> ModelError:
    return ModelError(
        f"the {split} rows of '{first}' and '{other}' are not known to be the same documents in the same order, as "
        "those of shards of one corpus with one seed are; compare the runs on raw text: add --data CORPUS"
    )


@dataclass(kw_only=True)
class RawText:
    """Documents of a corpus that several runs classify, and what was found in it so far.

    Attributes:
        runs: with the same classes and with vectorizers.
        source: the documents.
        labels: of the first run.
        rejected_rows: number of invalid records.
        rejected: the first of them.
    """

    runs: Sequence[Run]
    source: Source
    labels: KnownLabels
    rejected_rows: int = 0
    rejected: tuple[BadRow, ...] = ()

    def rows(self, workers: int) -> Iterator[CommonRows]:
        """Classify all documents by each run; `workers` threads read them and make features.

        Raises:
            CorpusError: the corpus cannot be read.
            LabelError: a label is not one of the runs'.
            RunError: a run has no vectorizer, or its files are damaged.
        """
        classifiers = [run.classifier(threshold=False) for run in self.runs]
        prints = [run.description.vectorizer for run in self.runs]
        distinct = [prints.index(each) for each in dict.fromkeys(prints)]  # the first run with each vectorizer
        places = [list(dict.fromkeys(prints)).index(each) for each in prints]
        vectorizers = [classifiers[number].vectorizer for number in distinct]
        units = units_of(self.source, max(each.settings.density for each in vectorizers) * len(vectorizers))

        def features(unit: Unit) -> tuple[Documents, list[Features]]:
            documents = read_unit(self.source, unit)
            return documents, [each.transform(documents.texts) for each in vectorizers]

        with (
            threads(workers) as pool,
            progress("comparing", total=sum(unit.num_documents for unit in units), unit="documents") as shown,
        ):
            for documents, made in pool.map(features, units):
                yield from self._classified(documents, made, classifiers, places)
                shown.add(len(documents.texts) + len(documents.bad_rows))

    def _classified(
        self, documents: Documents, made: list[Features], classifiers: Sequence[Classifier], places: Sequence[int]
    ) -> Iterator[CommonRows]:
        y, columns = self.labels.codes_of(documents.labels), columns_of(self.runs)
        self.rejected_rows += len(documents.bad_rows)
        self.rejected += tuple(documents.bad_rows[: MAX_LISTED - len(self.rejected)])
        for start in range(0, len(y), EVALUATION_ROWS):
            stop = min(start + EVALUATION_ROWS, len(y))
            outputs = (
                classifier.classify_rows(slice_rows(made[place], start, stop)).probabilities[:, column]
                for classifier, place, column in zip(classifiers, places, columns, strict=True)
            )
            yield CommonRows(y[start:stop], tuple(outputs), documents.ordinals[start:stop], documents.texts[start:stop])


def check_readings(runs: Iterable[Run]) -> None:
    """Check that all runs have a vectorizer, so that they can read raw text.

    Raises:
        RunError: a run has none.
    """
    for run in runs:
        if not run.description.vectorizer:
            raise RunError(
                f"'{run.path}' was trained on {run.description.kind} features that were not made from text, so it "
                "cannot classify raw text; compare on shards: --data SHARDS"
            )
