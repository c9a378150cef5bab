"""Write the documents' feature rows to scratch, one file per unit.

Documents that the vectorizer was fitted to are made from the postings of the terms, so their text is not tokenized
again. All others (held out, or of a corpus that reuses a vectorizer) are transformed as texts are by `predict`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from shardtrain.arrays.scratch import open_spilled
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import Counted
from shardtrain.pipeline.fitting import fit_ngrams, fit_sequences
from shardtrain.pipeline.units import (
    MadeRows,
    TransformTask,
    UnitTask,
    classes_of_postings,
    fields_of,
    spill_rows,
    transform_unit,
)
from shardtrain.runtime.passes import Passes
from shardtrain.vectorize import ngrams, sequences
from shardtrain.vectorize.fitted import Vectorizer
from shardtrain.vectorize.settings import NgramSettings
from shardtrain.vectorize.weights import Weights


def fit_rows(passes: Passes, counted: Counted, codes: dict[str, int], folder: Path) -> tuple[Vectorizer, list[Path]]:
    """Fit a vectorizer, save it in `folder`, and write the rows of the documents it was fitted to."""
    files = [path.with_name(path.name.replace("run", "rows")) for path in counted.postings]
    pairs = list(zip(counted.postings, files, strict=True))
    write: Callable[[tuple[Path, Path]], None]
    if isinstance(counted.settings, NgramSettings):
        fitted = fit_ngrams(passes, counted, codes, folder)
        vectorizer = fitted.vectorizer
        columns = (fitted.ids, fitted.of_columns, fitted.weights)
        write = partial(_write_ngram_rows, columns=columns, codes=codes)
    else:
        vectorizer, vocabulary = fit_sequences(passes, counted, folder)
        shape = (vectorizer.num_features, vectorizer.vocabulary_size)
        write = partial(_write_sequence_rows, vocabulary=vocabulary, shape=shape, codes=codes)
    passes.run(titles.VECTORIZE, write, pairs, counted.sizes, names=[path.name for path in files])
    return vectorizer, files


def transform_rows(
    passes: Passes,
    units: Sequence[UnitTask],
    sizes: Sequence[int],
    folder: Path,
    codes: dict[str, int],
    *,
    split: str,
) -> list[Path]:
    """Write the rows of the units' documents of a split, with the vectorizer saved in `folder`.

    Those of the training split are the documents that train, those of the others the documents that are held out.
    """
    stem = {"train": "rows", "validation": "held", "test": "tested"}[split]
    files = [passes.scratch / f"{stem}-{task.unit.index:05}" for task in units]
    tasks = [
        TransformTask(
            **fields_of(task),
            held_out=split != "train",
            vectorizer=folder,
            codes=codes,
            out=out,
        )
        for task, out in zip(units, files, strict=True)
    ]
    passes.run(titles.VECTORIZE_SPLIT[split], transform_unit, tasks, sizes, names=[path.name for path in files])
    return files


def _write_ngram_rows(paths: tuple[Path, Path], *, columns: tuple[Any, Any, Weights], codes: dict[str, int]) -> None:
    postings_path, out = paths
    postings = open_spilled(postings_path)
    norms = postings_path.with_name(postings_path.name.replace("run", "norms"))
    x = ngrams.unit_rows(postings_path, norms, *columns)
    spill_rows(out, x, classes_of_postings(postings, codes)[postings["labels"]], postings["ordinals"], postings["keys"])


def _write_sequence_rows(
    paths: tuple[Path, Path], *, vocabulary: Any, shape: tuple[int, int], codes: dict[str, int]
) -> None:
    postings_path, out = paths
    postings = open_spilled(postings_path)
    length, vocabulary_size = shape
    made = sequences.unit_rows(postings_path, vocabulary, length, vocabulary_size)
    x = MadeRows(made, length, sequences.id_type(vocabulary_size))
    spill_rows(out, x, classes_of_postings(postings, codes)[postings["labels"]], postings["ordinals"], postings["keys"])
