"""Count the terms of a corpus: the postings of each unit, merged into buckets by hash.

Postings are a unit's terms with their counts, one file per unit. Memory does not depend on the vocabulary candidates of
the corpus, because buckets are as small as the memory requires. A bucket reads its part of all files; of a corpus with
very many units the postings of some hundred units are therefore first put into one file (`vectorize.groups`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.pipeline import titles
from shardtrain.pipeline.facts import Totals, UnitFacts
from shardtrain.pipeline.units import SplitSource, Units, UnitTask, facts_of, gather, keep_every_class, read
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Integer, Row
from shardtrain.vectorize.buckets import Buckets, plan_buckets
from shardtrain.vectorize.counts import spill_postings
from shardtrain.vectorize.groups import Runs, files_together, fold_postings
from shardtrain.vectorize.indexing import index_texts
from shardtrain.vectorize.merging import merge_bucket
from shardtrain.vectorize.settings import CountedSettings, SequenceSettings

_MERGED = Row((Integer(), Integer()))  # distinct terms and candidates of a bucket


@dataclass(frozen=True)
class Counted:
    """A counted corpus.

    Attributes:
        settings: of the vectorizer.
        units: of the corpus.
        postings: files, one per unit.
        runs: files of the same postings as they are merged.
        totals: of the units' facts.
        buckets: of terms, merged.
        num_distinct: terms of all buckets.
        candidates: how many candidates each bucket has, (buckets,).
    """

    settings: CountedSettings
    units: Units
    postings: FileSet
    runs: Runs
    totals: Totals
    buckets: Buckets
    num_distinct: int
    candidates: npt.NDArray[np.int64]

    @property
    def num_candidates(self) -> int:
        """Number of candidates of all buckets."""
        return int(self.candidates.sum())


Check = Callable[[Totals], object]


def count(passes: Passes, units: Units, settings: CountedSettings, *, check: Check) -> Counted:
    """Count the terms of the units' training documents.

    Args:
        passes: runs the tasks.
        units: of the corpus.
        settings: of the vectorizer.
        check: called with the totals of all units after they are counted, to refuse a corpus before the later passes.

    Raises:
        UsageError: max_df corresponds to fewer documents than min_df, or memory has no room for terms with one hash.
    """
    postings = FileSet(passes.scratch / "run", len(units)).made()
    title = titles.COUNT_WORDS if isinstance(settings, SequenceSettings) else titles.COUNT
    gathered = gather(passes, title, _CountUnits(units.split, settings, postings), units, name="run")
    units, totals = keep_every_class(units, gathered)
    check(totals)
    if units.kept:  # the postings of these units lack the documents that stay in training
        postings = replace(postings, again=frozenset(units.kept))
        changed = [units[number] for number in units.kept]
        recount = _CountUnits(units.split, settings, postings)
        sizes = [task.unit.num_bytes for task in changed]
        how: dict[str, Any] = {"name": "run-again", "schema": Integer()}
        for place, num_terms in passes.stream(titles.KEEP, _Recount(recount), changed, sizes, **how):
            gathered.count_terms(changed[place].number, num_terms)
        totals = replace(totals, num_terms=gathered.num_terms)
    bits = plan_buckets(totals.num_terms, passes.budget)
    runs = _runs_of(passes, postings, bits, totals.num_terms)
    return _merged(passes, units, settings, postings, runs, totals, bits)


def _runs_of(passes: Passes, postings: FileSet, bits: int, num_terms: int) -> Runs:
    """Return the postings as they are merged, which are those of groups if there are very many units."""
    if (width := files_together(len(postings))) == 1:
        return Runs(postings, postings, bits)
    name = f"group-{bits}"
    files = FileSet(passes.scratch / name, -(-len(postings) // width)).made()
    runs = Runs(postings, files, bits, width)
    share = [num_terms // len(files)] * len(files)
    passes.do(titles.GROUP, _Fold(runs, passes.budget), range(len(files)), share, name=name, unit="terms")
    return runs


def _merged(
    passes: Passes,
    units: Units,
    settings: CountedSettings,
    postings: FileSet,
    runs: Runs,
    totals: Totals,
    bits: int,
) -> Counted:
    least, most = settings.document_range(totals.train.total())
    buckets = Buckets(bits, FileSet(passes.scratch / f"bucket-{bits}", 1 << bits).made())
    share = [totals.num_terms // len(buckets)] * len(buckets)
    merge = _Merge(runs, buckets, least, most, passes.budget)
    num_distinct, candidates = 0, np.zeros(len(buckets), np.int64)
    how: dict[str, Any] = {"name": f"bucket-{bits}", "unit": "terms", "schema": _MERGED}
    for number, (distinct, kept) in passes.stream(titles.MERGE, merge, range(len(buckets)), share, **how):
        num_distinct += distinct
        candidates[number] = kept
    return Counted(
        settings=settings,
        units=units,
        postings=postings,
        runs=runs,
        totals=totals,
        buckets=buckets,
        num_distinct=num_distinct,
        candidates=candidates,
    )


@dataclass(frozen=True)
class _CountUnits:
    """Count units, and write their postings: terms, and each document's ordinal, key and label code."""

    split: SplitSource
    settings: CountedSettings
    outs: FileSet

    def __call__(self, task: UnitTask) -> UnitFacts:
        documents, keys, train = read(self.split, task)
        chosen = np.flatnonzero(train)
        terms = index_texts(self.settings, documents.texts.take(chosen))
        names, codes = _numbered([documents.labels[i] for i in chosen])
        per_document: dict[str, npt.NDArray[Any]] = {
            "labels": codes,
            "ordinals": documents.ordinals[chosen],
            "keys": keys[chosen],
        }
        spill_postings(self.outs[task.number], terms, per_document, {"label_names": names})
        return facts_of(self.split, documents, keys, train, num_terms=len(terms.hashes), words={})


def _numbered(labels: list[str]) -> tuple[list[str], npt.NDArray[np.uint32]]:
    """Return the different labels in order, and the number of each document's label among them."""
    names = sorted(set(labels))
    numbers = {name: number for number, name in enumerate(names)}
    return names, np.fromiter((numbers[label] for label in labels), np.uint32, len(labels))


@dataclass(frozen=True)
class _Recount:
    """Count units again, and return their numbers of terms."""

    count: _CountUnits

    def __call__(self, task: UnitTask) -> int:
        return self.count(task).num_terms


@dataclass(frozen=True)
class _Fold:
    """Put the postings of a group of units into one file, within `budget` bytes."""

    runs: Runs
    budget: int

    def __call__(self, number: int) -> None:
        fold_postings(self.runs, number, self.budget)


@dataclass(frozen=True)
class _Merge:
    """Merge buckets, and return how many distinct terms and candidates each has."""

    runs: Runs
    buckets: Buckets
    least: int
    most: int | None
    budget: int

    def __call__(self, number: int) -> tuple[int, int]:
        return merge_bucket(
            self.runs,
            self.buckets[number],
            self.buckets.files[number],
            min_count=self.least,
            max_count=self.most,
            budget=self.budget,
        )
