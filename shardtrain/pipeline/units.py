"""Process one unit of a corpus: pure functions of its bytes that an executor runs, with results in scratch files."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.scratch import Pieces, SpilledArrays, open_spilled, spill
from shardtrain.arrays.texts import Texts
from shardtrain.corpus.readers import read_unit
from shardtrain.corpus.source import Documents, Source, Unit
from shardtrain.corpus.words import count_words
from shardtrain.errors import CorpusFormatError, ScratchError
from shardtrain.loader.order import document_keys
from shardtrain.pipeline.facts import MAX_LISTED, Totals, UnitFacts
from shardtrain.pipeline.holdout import ALL_HELD_OUT, Spare, best_spares, spare_documents, trains
from shardtrain.runtime.passes import Passes
from shardtrain.vectorize.counts import Bucket, first_documents, spill_postings
from shardtrain.vectorize.fitted import Rows, Vectorizer, load_vectorizer
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.indexing import index_ngrams, index_texts, index_words, prepare_texts, tokenizer_of
from shardtrain.vectorize.saved import DESCRIPTION
from shardtrain.vectorize.sequences import id_type
from shardtrain.vectorize.settings import CountedSettings, NgramSettings, SequenceSettings
from shardtrain.vectorize.ties import Tied, beating, tied_terms
from shardtrain.vectorize.tokens import find_terms

_MADE_BYTES = 8 << 20  # of dense rows that are made at a time


@dataclass(frozen=True, kw_only=True)
class UnitTask:
    """A unit; its documents with keys of at least `threshold` and those with the ordinals `kept` train."""

    source: Source
    unit: Unit
    seed: int
    threshold: int
    kept: tuple[int, ...] = ()


def fields_of(task: UnitTask) -> dict[str, Any]:
    """Return the fields of a unit, for a task that has more."""
    return {each.name: getattr(task, each.name) for each in fields(UnitTask)}


def load_kernels() -> None:
    """Load compiled kernels and Unicode tables, which the first unit would wait for."""
    text = Texts.from_strings(["w\u00f6rd"])
    index_ngrams(NgramSettings(), text)
    index_words(SequenceSettings(), text)


def _read(task: UnitTask) -> tuple[Documents, npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    documents = read_unit(task.source, task.unit)
    return documents, document_keys(documents.ordinals, task.seed), _trains(task, documents.ordinals)


def _trains(task: UnitTask, ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    return trains(document_keys(ordinals, task.seed), ordinals, task.threshold, task.kept)


def keep_every_class(units: Sequence[UnitTask], facts: Sequence[Path]) -> tuple[list[UnitTask], Totals, list[int]]:
    """Keep a document in training of each label that would lose all of them to the validation fraction.

    Args:
        units: of the corpus.
        facts: of the units, one file each.

    Returns:
        the units and the totals of their facts as they are then, and the indices of the units that changed.

    Raises:
        LabelError: there are more labels than classes are supported.
    """
    totals, tasks = Totals.of(facts), list(units)
    if totals.held_out.keys() <= totals.train.keys():
        return tasks, totals, []
    starts = [task.unit.first_document for task in units]
    kept: dict[int, list[int]] = {}
    for label, (_, ordinal) in best_spares(totals.train, (UnitFacts.read(path).spares for path in facts)).items():
        kept.setdefault(bisect_right(starts, ordinal) - 1, []).append(ordinal)
        totals.train[label] += 1
        totals.held_out[label] -= 1
    totals.held_out = +totals.held_out  # without labels that occur no more
    for number, ordinals in kept.items():
        tasks[number] = replace(units[number], kept=tuple(sorted(ordinals)))
    return tasks, totals, sorted(kept)


@dataclass(frozen=True, kw_only=True)
class SurveyTask(UnitTask):
    """A unit whose labels, and with `words` its documents' lengths, are to be counted into the facts `out`."""

    words: bool
    out: Path


def survey(
    passes: Passes, units: Sequence[UnitTask], sizes: Sequence[int], title: str, *, words: bool = False
) -> list[Path]:
    """Count the labels of all units' documents, and with `words` their lengths in words; return files of facts."""
    names = [f"{title.replace(' ', '-')}-{task.unit.index:05}" for task in units]
    tasks = [
        SurveyTask(**fields_of(task), words=words, out=passes.scratch / f"{name}.facts")
        for task, name in zip(units, names, strict=True)
    ]
    passes.run(title, survey_unit, tasks, sizes, names=names)
    return [task.out for task in tasks]


def survey_unit(task: SurveyTask) -> None:
    """Count labels, and with `words` training documents by number of words (split at white space, as in the guide)."""
    documents, keys, train = _read(task)
    chosen = documents.texts.take(np.flatnonzero(train)) if task.words else ()
    _facts(task, documents, keys, train, words=Counter(map(count_words, chosen))).write(task.out)


def _facts(
    task: UnitTask,
    documents: Documents,
    keys: npt.NDArray[np.uint64],
    train: npt.NDArray[np.bool_],
    *,
    num_terms: int = 0,
    words: Mapping[int, int],
) -> UnitFacts:
    trained = Counter(compress(documents.labels, train))
    held_out = list(compress(documents.labels, ~train))
    spares: dict[str, Spare] = {}
    if task.threshold < ALL_HELD_OUT:
        spares = spare_documents(held_out, keys[~train], documents.ordinals[~train], trained)
    return UnitFacts(
        train=trained,
        held_out=Counter(held_out),
        num_bad_rows=len(documents.bad_rows),
        bad_rows=documents.bad_rows[:MAX_LISTED],
        num_replaced=documents.num_replaced,
        num_terms=num_terms,
        words=words,
        spares=spares,
    )


@dataclass(frozen=True, kw_only=True)
class CountTask(UnitTask):
    """A unit whose training documents are to be counted into the postings `out`, and its facts into a file."""

    settings: CountedSettings
    out: Path
    facts: Path


def count_unit(task: CountTask) -> None:
    """Write the postings of a unit's training documents: its terms, and each document's ordinal, key and label code."""
    documents, keys, train = _read(task)
    chosen = np.flatnonzero(train)
    terms = index_texts(task.settings, documents.texts.take(chosen))
    labels = [documents.labels[i] for i in chosen]
    names = sorted(set(labels))
    code = {name: number for number, name in enumerate(names)}
    per_document: dict[str, npt.NDArray[Any]] = {
        "labels": np.fromiter((code[label] for label in labels), np.uint32, len(labels)),
        "ordinals": documents.ordinals[chosen],
        "keys": keys[chosen],
    }
    spill_postings(task.out, terms, per_document, {"label_names": names})
    _facts(task, documents, keys, train, num_terms=len(terms.hashes), words={}).write(task.facts)


@dataclass(frozen=True, kw_only=True)
class FindTask(UnitTask):
    """A unit whose postings are known to hold the terms `wanted` (ascending), to write their strings.

    The file has `data` and `offsets` of the strings as `Texts`, in the order of `wanted`.
    """

    settings: CountedSettings
    wanted: TermIds
    postings: Path
    out: Path


def find_in_unit(task: FindTask) -> int:
    """Look up the strings of the wanted terms; return how many bytes they have."""
    found = _find(task, task.settings, open_spilled(task.postings), task.wanted)
    spill(task.out, {"data": found.data, "offsets": found.offsets})
    return len(found.data)


def _find(task: UnitTask, settings: CountedSettings, postings: SpilledArrays, wanted: TermIds) -> Texts:
    """Look up the strings of terms; only the documents in which they appear first are tokenized."""
    chosen = postings["ordinals"][first_documents(postings, wanted)]
    documents = read_unit(task.source, task.unit, lambda ordinals: np.isin(ordinals, chosen))
    block = prepare_texts(settings, documents.texts)
    del documents
    found = find_terms(block, tokenizer_of(settings), settings.hashing, wanted)
    if missing := int((np.diff(found.offsets) == 0).sum()):
        raise ScratchError(
            f"'{task.source.origin}' lacks {missing:,} terms that were counted in it: it was changed, or scratch files "
            "of the interrupted build are damaged; start again with --overwrite"
        )
    return found


@dataclass(frozen=True, kw_only=True)
class TieTask(UnitTask):
    """A unit of which the tied terms that appear first in it are to be settled; see `vectorize.ties`.

    Attributes:
        settings: of the vectorizer.
        number: of the unit among the postings.
        postings: of the unit.
        buckets: of candidates, and for each a file of its candidates' scores.
        score: of the tied terms.
        room: how many of them are chosen in all.
        later_wins: whether the later strings are better.
        rival: `room` terms of other units are at least as good as this string.
        out: gets `hashes` and `checks`, and `data` and `offsets` of the strings, of at most `room` terms.
    """

    settings: CountedSettings
    number: int
    postings: Path
    buckets: tuple[tuple[Bucket, Path], ...]
    scores: tuple[Path, ...]
    score: float
    room: int
    later_wins: bool
    rival: bytes | None
    out: Path


def settle_in_unit(task: TieTask) -> int:
    """Write the best of a unit's tied terms; return how many there are."""
    postings = open_spilled(task.postings)
    ids = tied_terms(task.number, TermIds.of(postings), task.buckets, task.scores, task.score)
    tied = Tied(ids, _find(task, task.settings, postings, ids) if len(ids) else Texts.from_strings([]))
    if task.rival is not None:
        tied = tied.take(beating(tied.terms, task.rival, later_wins=task.later_wins))
    tied = tied.best(task.room, later_wins=task.later_wins)
    spill(task.out, {**tied.ids.arrays, "data": tied.terms.data, "offsets": tied.terms.offsets})
    return len(tied.ids)


@dataclass(frozen=True, kw_only=True)
class TransformTask(UnitTask):
    """A unit whose held-out or training documents are transformed to rows in `out`, by a vectorizer from a folder."""

    held_out: bool
    vectorizer: Path
    codes: dict[str, int]
    out: Path


def transform_unit(task: TransformTask) -> None:
    """Write the rows of a unit's held-out or training documents."""
    documents = read_unit(task.source, task.unit, lambda ordinals: _trains(task, ordinals) != task.held_out)
    description = task.vectorizer / DESCRIPTION
    vectorizer, texts = _vectorizer(task.vectorizer, description.stat().st_mtime_ns), documents.texts
    x = (
        MadeRows(
            lambda some: vectorizer.transform(texts.take(some)),
            vectorizer.num_features,
            id_type(vectorizer.vocabulary_size),
        )
        if vectorizer.kind == "sequence"
        else vectorizer.transform(texts)
    )
    if unknown := [label for label in documents.labels if label not in task.codes]:
        raise CorpusFormatError(
            f"'{task.source.origin}' has the label {unknown[0]!r:.60}, which it did not have when it was counted; do "
            "not change it during a build, and start again with --overwrite"
        )
    y = np.fromiter((task.codes[label] for label in documents.labels), np.int64, len(documents.labels))
    spill_rows(task.out, x, y, documents.ordinals, document_keys(documents.ordinals, task.seed))


@lru_cache(maxsize=1)
def _vectorizer(folder: Path, modified: int) -> Vectorizer:
    """Return the build's vectorizer, loaded and checked once per process."""
    return load_vectorizer(folder)


def classes_of_postings(postings: SpilledArrays, codes: dict[str, int]) -> npt.NDArray[np.int64]:
    """Return the class index of each label code of postings."""
    names = postings.facts["label_names"]
    if unknown := [name for name in names if name not in codes]:
        raise ScratchError(
            f"documents with the label {unknown[0]!r:.60} were counted and are on no record: scratch files of the "
            "interrupted build are damaged; discard them with --overwrite"
        )
    return np.array([codes[name] for name in names], np.int64)


@dataclass(frozen=True, eq=False)
class MadeRows:
    """Dense rows that are made when they are written: many short documents have rows as long as the longest.

    Attributes:
        make: returns the rows of the documents with some indices, (rows, width).
        width: of a row.
        dtype: of the values.
    """

    make: Callable[[npt.NDArray[np.int64]], Any]
    width: int
    dtype: np.dtype[Any]

    def ordered(self, order: npt.NDArray[np.int64]) -> Pieces:
        """Return the rows in an order."""
        step = max(1, _MADE_BYTES // (self.width * self.dtype.itemsize))
        pieces = (self.make(order[start : start + step]) for start in range(0, len(order), step))
        return Pieces(self.dtype, (len(order), self.width), pieces)


def spill_rows(
    path: Path,
    x: Rows | MadeRows,
    y: npt.NDArray[np.int64],
    documents: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
) -> None:
    """Write a unit's rows in ascending order of their keys."""
    order = np.argsort(keys)
    arrays: dict[str, npt.NDArray[Any] | Pieces] = {"keys": keys[order], "y": y[order], "documents": documents[order]}
    if isinstance(x, Csr):
        rows = x.take(order)
        arrays |= {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr.astype(np.int64)}
        spill(path, arrays, {"num_features": x.shape[1]})
    else:
        spill(path, arrays | {"x": x.ordered(order) if isinstance(x, MadeRows) else x[order]})


def rows_between(
    path: Path, first: int, last: int
) -> tuple[Rows, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Read the rows with keys in [first, last) from a file of `spill_rows`: copies of x, y, documents and keys.

    Views would keep a file descriptor open per unit.
    """
    rows = open_spilled(path)
    start, stop = key_range(rows, first, last)
    y, documents, keys = (rows[name][start:stop].copy() for name in ("y", "documents", "keys"))
    if "x" in rows:
        return rows["x"][start:stop].copy(), y, documents, keys
    shape = (len(rows["keys"]), rows.facts["num_features"])
    x = Csr(rows["data"], rows["indices"], rows["indptr"], shape).rows(start, stop)
    return Csr(x.data.copy(), x.indices.copy(), x.indptr.copy(), x.shape), y, documents, keys


def key_range(rows: SpilledArrays, first: int, last: int) -> tuple[int, int]:
    """Return the range [start, stop) of rows whose keys are in [first, last); `last` may be 2**64."""
    start = int(np.searchsorted(rows["keys"], np.uint64(first)))
    stop = len(rows["keys"]) if last >= 1 << 64 else int(np.searchsorted(rows["keys"], np.uint64(last)))
    return start, stop
