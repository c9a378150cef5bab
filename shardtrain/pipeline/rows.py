"""Write the documents' feature rows to scratch, one file per unit.

Documents that the vectorizer was fitted to are made from the postings of the terms, so their text is not tokenized
again. All others (held out, or of a corpus that reuses a vectorizer) are transformed as texts are by `predict`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import SpilledArrays, open_spilled
from shardtrain.corpus.readers import read_unit
from shardtrain.errors import CorpusFormatError
from shardtrain.loader.order import document_keys
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import Counted
from shardtrain.pipeline.fitting import NgramColumns, fit_ngrams, fit_sequences
from shardtrain.pipeline.row_files import MadeRows, spill_rows
from shardtrain.pipeline.units import SplitSource, Units, UnitTask, in_training
from shardtrain.runtime.passes import Passes
from shardtrain.vectorize import ngrams, sequences
from shardtrain.vectorize.fitted import Rows, Vectorizer, load_vectorizer
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.ngrams import classes_of_labels
from shardtrain.vectorize.saved import DESCRIPTION
from shardtrain.vectorize.sequences import id_type
from shardtrain.vectorize.settings import NgramSettings

_STEMS = {"train": "rows", "validation": "held", "test": "tested"}  # of row files, by split


def fit_rows(passes: Passes, counted: Counted, codes: dict[str, int], folder: Path) -> tuple[Vectorizer, FileSet]:
    """Fit a vectorizer, save it in `folder`, and write the rows of the documents it was fitted to."""
    write: Callable[[int], None]
    files = FileSet(passes.scratch / _STEMS["train"], len(counted.units)).made()
    if isinstance(counted.settings, NgramSettings):
        vectorizer, columns = fit_ngrams(passes, counted, codes, folder)
        write = _WriteNgrams(counted.postings, columns, codes, files)
    else:
        vectorizer, vocabulary = fit_sequences(passes, counted, folder)
        shape = (vectorizer.num_features, vectorizer.vocabulary_size)
        write = _WriteSequences(counted.postings, vocabulary, shape, codes, files)
    passes.do(titles.VECTORIZE, write, range(len(files)), counted.units.sizes, name=_STEMS["train"])
    return vectorizer, files


def transform_rows(passes: Passes, units: Units, folder: Path, codes: dict[str, int], *, split: str) -> FileSet:
    """Write the rows of the units' documents of a split, with the vectorizer saved in `folder`.

    Those of the training split are the documents that train, those of the others the documents that are held out.
    """
    files = FileSet(passes.scratch / _STEMS[split], len(units)).made()
    transform = _TransformUnits(units.split, split != "train", folder, codes, files)
    passes.do(titles.VECTORIZE_SPLIT[split], transform, units, units.sizes, name=_STEMS[split])
    return files


@dataclass(frozen=True, eq=False)
class _WriteNgrams:
    """Write the rows of units from their postings."""

    postings: FileSet
    columns: NgramColumns
    codes: dict[str, int]
    outs: FileSet

    def __call__(self, number: int) -> None:
        path, columns = self.postings[number], self.columns
        x = ngrams.unit_rows(path, columns.norms[number], columns.ids, columns.of_columns, columns.weights)
        _spill_counted(self.outs[number], x, open_spilled(path), self.codes)


@dataclass(frozen=True, eq=False)
class _WriteSequences:
    """Write the rows of units from their postings; `shape` is the length and the size of the vocabulary."""

    postings: FileSet
    vocabulary: TermIds
    shape: tuple[int, int]
    codes: dict[str, int]
    outs: FileSet

    def __call__(self, number: int) -> None:
        path, (length, vocabulary_size) = self.postings[number], self.shape
        made = sequences.unit_rows(path, self.vocabulary, length, vocabulary_size)
        x = MadeRows(made, length, id_type(vocabulary_size))
        _spill_counted(self.outs[number], x, open_spilled(path), self.codes)


def _spill_counted(out: Path, x: Rows | MadeRows, postings: SpilledArrays, codes: dict[str, int]) -> None:
    """Write the rows of documents that were counted."""
    y = classes_of_labels(postings.facts, codes)[postings["labels"]]
    spill_rows(out, x, y, postings["ordinals"], postings["keys"])


@dataclass(frozen=True)
class _TransformUnits:
    """Write the rows of units' held-out or training documents, by a vectorizer from a folder."""

    split: SplitSource
    held_out: bool
    vectorizer: Path
    codes: dict[str, int]
    outs: FileSet

    def __call__(self, task: UnitTask) -> None:
        source = self.split.source
        wanted = read_unit(source, task.unit, lambda ordinals: in_training(self.split, task, ordinals) != self.held_out)
        description = self.vectorizer / DESCRIPTION
        vectorizer, texts = _vectorizer(self.vectorizer, description.stat().st_mtime_ns), wanted.texts
        x = (
            MadeRows(
                lambda some: vectorizer.transform(texts.take(some)),
                vectorizer.num_features,
                id_type(vectorizer.vocabulary_size),
            )
            if vectorizer.kind == "sequence"
            else vectorizer.transform(texts)
        )
        if unknown := [label for label in wanted.labels if label not in self.codes]:
            raise CorpusFormatError(
                f"'{source.origin}' has the label {unknown[0]!r:.60}, which it did not have when it was counted; do "
                "not change it during a build, and start again with --overwrite"
            )
        y = np.fromiter((self.codes[label] for label in wanted.labels), np.int64, len(wanted.labels))
        spill_rows(self.outs[task.number], x, y, wanted.ordinals, document_keys(wanted.ordinals, self.split.seed))


@lru_cache(maxsize=1)
def _vectorizer(folder: Path, modified: int) -> Vectorizer:
    """Return the build's vectorizer, loaded and checked once per process."""
    return load_vectorizer(folder)
