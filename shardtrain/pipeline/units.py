"""Process one unit of a corpus: pure functions of its bytes that an executor runs, with results in scratch files."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.scratch import SpilledArrays, open_spilled, spill
from shardtrain.arrays.texts import Texts
from shardtrain.corpus.readers import read_unit
from shardtrain.corpus.source import BadRow, Documents, Source, Unit
from shardtrain.loader.order import document_keys
from shardtrain.pipeline.holdout import ALL_HELD_OUT, Spare, best_spares, spare_documents, trains
from shardtrain.runtime.machine import keep_freed_memory
from shardtrain.runtime.passes import Passes
from shardtrain.vectorize.counts import Bucket, first_documents, spill_postings
from shardtrain.vectorize.fitted import DESCRIPTION, Rows, Vectorizer, load_vectorizer
from shardtrain.vectorize.indexing import index_ngrams, index_texts, index_words, prepare_texts, tokenizer_of
from shardtrain.vectorize.settings import CountedSettings, NgramSettings, SequenceSettings
from shardtrain.vectorize.ties import Tied, beating, tied_terms
from shardtrain.vectorize.tokens import find_terms

MAX_LISTED = 1000  # invalid rows listed in the manifest; all are counted


@dataclass(frozen=True, kw_only=True)
class UnitTask:
    """A unit; its documents with keys of at least `threshold` and those with the ordinals `kept` train."""

    source: Source
    unit: Unit
    seed: int
    threshold: int
    kept: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class UnitFacts:
    """Counts of a unit: training and held-out documents by raw label, invalid rows, and terms or words.

    `spares` are the documents that could stay in training, of labels with none there (`holdout`).
    """

    train: dict[str, int]
    held_out: dict[str, int]
    num_bad_rows: int
    bad_rows: tuple[BadRow, ...]
    num_replaced: int
    num_terms: int = 0
    words: dict[int, int]
    spares: dict[str, Spare] = field(default_factory=dict)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> UnitFacts:
        """Parse the fields from JSON values."""
        bad_rows = tuple(BadRow(**row) for row in record["bad_rows"])
        words = {int(length): count for length, count in record["words"].items()}
        spares = {label: (key, ordinal) for label, (key, ordinal) in record.get("spares", {}).items()}
        return cls(**{**record, "bad_rows": bad_rows, "words": words, "spares": spares})


def warm_up() -> None:
    """Warm up a worker: load compiled kernels and Unicode tables, which the first unit would wait for."""
    keep_freed_memory()
    text = Texts.from_strings(["w\u00f6rd"])
    index_ngrams(NgramSettings(), text)
    index_words(SequenceSettings(), text)


def _read(task: UnitTask) -> tuple[Documents, npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    documents = read_unit(task.source, task.unit)
    keys = document_keys(documents.ordinals, task.seed)
    return documents, keys, trains(keys, documents.ordinals, task.threshold, task.kept)


def keep_every_class(
    units: Sequence[UnitTask], facts: Sequence[UnitFacts]
) -> tuple[list[UnitTask], list[UnitFacts], list[int]]:
    """Keep a document in training of each label that would lose all of them to the validation fraction.

    Returns:
        the units and their facts as they are then, and the indices of the units that changed.
    """
    trained = {label for unit in facts for label in unit.train}
    starts = [task.unit.first_document for task in units]
    kept: dict[int, dict[str, int]] = {}
    for label, (_, ordinal) in best_spares(trained, (unit.spares for unit in facts)).items():
        kept.setdefault(bisect_right(starts, ordinal) - 1, {})[label] = ordinal
    tasks, changed_facts = list(units), list(facts)
    for number, ordinals in kept.items():
        unit = facts[number]
        tasks[number] = replace(units[number], kept=tuple(sorted(ordinals.values())))
        held_out = Counter(unit.held_out) - Counter(ordinals.keys())
        changed_facts[number] = replace(unit, train={**unit.train, **dict.fromkeys(ordinals, 1)}, held_out=held_out)
    return tasks, changed_facts, sorted(kept)


def survey(
    passes: Passes, units: Sequence[UnitTask], sizes: Sequence[int], title: str, *, words: bool = False
) -> list[UnitFacts]:
    """Count the labels of all units' documents, and with `words` their lengths in words."""
    names = [f"{title.replace(' ', '-')}-{task.unit.index:05}" for task in units]
    function = partial(survey_unit, words=words)
    return passes.run(title, function, units, sizes, names=names, encode=asdict, decode=UnitFacts.from_record)


def survey_unit(task: UnitTask, *, words: bool) -> UnitFacts:
    """Count labels, and with `words` training documents by number of words (split at white space, as in the guide)."""
    documents, keys, train = _read(task)
    counted = Counter(len(text.split()) for text in documents.texts.take(np.flatnonzero(train))) if words else {}
    return _facts(task, documents, keys, train, words=dict(counted))


def _facts(
    task: UnitTask,
    documents: Documents,
    keys: npt.NDArray[np.uint64],
    train: npt.NDArray[np.bool_],
    *,
    num_terms: int = 0,
    words: dict[int, int],
) -> UnitFacts:
    pairs = list(zip(documents.labels, train.tolist(), strict=True))
    trained = Counter(label for label, chosen in pairs if chosen)
    held_out = [label for label, chosen in pairs if not chosen]
    spares: dict[str, Spare] = {}
    if task.threshold < ALL_HELD_OUT:
        spares = spare_documents(held_out, keys[~train], documents.ordinals[~train], trained)
    return UnitFacts(
        train=dict(trained),
        held_out=dict(Counter(held_out)),
        num_bad_rows=len(documents.bad_rows),
        bad_rows=documents.bad_rows[:MAX_LISTED],
        num_replaced=documents.num_replaced,
        num_terms=num_terms,
        words=words,
        spares=spares,
    )


@dataclass(frozen=True, kw_only=True)
class CountTask(UnitTask):
    """A unit whose training documents are to be counted into the postings `out`."""

    settings: CountedSettings
    out: Path


def count_unit(task: CountTask) -> UnitFacts:
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
    return _facts(task, documents, keys, train, num_terms=len(terms.hashes), words={})


@dataclass(frozen=True, kw_only=True)
class FindTask(UnitTask):
    """A unit whose postings are known to hold the terms with the hashes `wanted` (ascending), to write their strings.

    The file has `data` and `offsets` of the strings as `Texts`, in the order of `wanted`.
    """

    settings: CountedSettings
    wanted: npt.NDArray[np.uint64]
    postings: Path
    out: Path


def find_in_unit(task: FindTask) -> int:
    """Look up the strings of the wanted terms; return how many bytes they have."""
    found = _find(task, task.settings, open_spilled(task.postings), task.wanted)
    spill(task.out, {"data": found.data, "offsets": found.offsets})
    return len(found.data)


def _find(task: UnitTask, settings: CountedSettings, postings: SpilledArrays, wanted: npt.NDArray[np.uint64]) -> Texts:
    """Look up the strings of terms; only the documents in which they appear first are tokenized."""
    documents, _, train = _read(task)
    chosen = np.flatnonzero(train)[first_documents(postings, wanted)]
    block = prepare_texts(settings, documents.texts.take(chosen))
    del documents
    return find_terms(block, tokenizer_of(settings), settings.hashing, wanted)


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
        out: gets `hashes`, and `data` and `offsets` of the strings, of at most `room` terms.
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
    hashes = tied_terms(task.number, postings["hashes"], task.buckets, task.scores, task.score)
    tied = Tied(hashes, _find(task, task.settings, postings, hashes) if len(hashes) else Texts.from_strings([]))
    if task.rival is not None:
        tied = tied.take(beating(tied.terms, task.rival, later_wins=task.later_wins))
    tied = tied.best(task.room, later_wins=task.later_wins)
    spill(task.out, {"hashes": tied.hashes, "data": tied.terms.data, "offsets": tied.terms.offsets})
    return len(tied.hashes)


@dataclass(frozen=True, kw_only=True)
class TransformTask(UnitTask):
    """A unit whose held-out or training documents are transformed to rows in `out`, by a vectorizer from a folder."""

    held_out: bool
    vectorizer: Path
    codes: dict[str, int]
    out: Path


def transform_unit(task: TransformTask) -> None:
    """Write the rows of a unit's held-out or training documents."""
    documents, keys, train = _read(task)
    chosen = np.flatnonzero(train != task.held_out)
    description = task.vectorizer / DESCRIPTION
    x = _vectorizer(task.vectorizer, description.stat().st_mtime_ns).transform(documents.texts.take(chosen))
    y = np.fromiter((task.codes[documents.labels[i]] for i in chosen), np.int64, len(chosen))
    spill_rows(task.out, x, y, documents.ordinals[chosen], keys[chosen])


@lru_cache(maxsize=1)
def _vectorizer(folder: Path, modified: int) -> Vectorizer:
    """Return the build's vectorizer, loaded and checked once per process."""
    return load_vectorizer(folder)


def classes_of_postings(postings: SpilledArrays, codes: dict[str, int]) -> npt.NDArray[np.int64]:
    """Return the class index of each label code of postings."""
    return np.array([codes[name] for name in postings.facts["label_names"]], np.int64)


def spill_rows(
    path: Path,
    x: Rows,
    y: npt.NDArray[np.int64],
    documents: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
) -> None:
    """Write a unit's rows in ascending order of their keys."""
    order = np.argsort(keys)
    arrays: dict[str, npt.NDArray[Any]] = {"keys": keys[order], "y": y[order], "documents": documents[order]}
    if isinstance(x, Csr):
        rows = x.take(order)
        arrays |= {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr.astype(np.int64)}
        spill(path, arrays, {"num_features": x.shape[1]})
    else:
        spill(path, arrays | {"x": x[order]})


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
