"""Score candidates bucket by bucket: add up the values of each class over all documents, in their order.

The values of a bucket are gathered from the postings and norms of all units, or read from files in which those of some
hundred units are put together (`group_values`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import SpilledArrays, find_spilled, open_spilled, spill
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.buckets import Buckets
from shardtrain.vectorize.counts import places_in
from shardtrain.vectorize.groups import Runs
from shardtrain.vectorize.ngrams import classes_of_labels
from shardtrain.vectorize.selection import SELECTORS, Moments, highest
from shardtrain.vectorize.weights import Float, Weights

SCORE_BYTES = 96  # memory of a candidate while scores are computed, beside that of its classes


def scored_at_once(select: str, num_classes: int, budget: int) -> int:
    """Return how many candidates can be scored at once within `budget` bytes, at least 1."""
    return max(1, budget // (SELECTORS[select].class_bytes * num_classes + SCORE_BYTES))


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreBuckets:
    """Write `scores`, those of the candidates of each bucket, in their order, and `best`, the highest of each task.

    Candidates are taken in pieces whose sums fit into `budget` bytes; every piece reads the buckets' part of all
    postings.

    Attributes:
        runs: the postings.
        buckets: of candidates, merged from them.
        norms: a file per unit; None: scores are of counts.
        values: a file per group, see `GroupValues`, where the postings are grouped; else None.
        weights: how counts become values.
        select: name of the selector.
        codes: class index by label.
        class_counts: documents of each class.
        keep: how many scores are in `best`, at most.
        budget: bytes.
        outs: a file of scores per bucket.
        best: a file per task.
    """

    runs: Runs
    buckets: Buckets
    norms: FileSet | None
    values: FileSet | None
    weights: Weights
    select: str
    codes: dict[str, int]
    class_counts: npt.NDArray[np.int64]
    keep: int
    budget: int
    outs: FileSet
    best: FileSet

    def __call__(self, task: tuple[int, range]) -> None:
        """Score the candidates of some adjacent buckets; the task has its number and theirs."""
        number, chosen = task
        merged = [open_spilled(self.buckets.files[bucket]) for bucket in chosen]
        counts = np.concatenate([each["counts"] for each in merged])
        ends = np.cumsum([0, *(len(each["counts"]) for each in merged)]).tolist()
        idf = self.weights.of_terms(counts, int(self.class_counts.sum()))
        scores = np.zeros(len(idf))
        step = scored_at_once(self.select, len(self.class_counts), self.budget)
        for start in range(0, len(idf), step):
            moments = Moments.zeros(min(step, len(idf) - start), len(self.class_counts))
            for part in self._parts(chosen, merged):
                term = 0
                for places, base in zip(part.places, ends, strict=False):
                    _accumulate(
                        places, base, start, part.indptr[term:], part.indptr[0], part.documents, part.times, idf,
                        self.weights.of_times(part.most_times), part.norms, part.classes, moments.pairs, moments.totals,
                    )  # fmt: skip
                    term += len(places)
            scores[start : start + step] = SELECTORS[self.select].score(moments, self.class_counts)
            del moments  # before those of the next piece are allocated
        for (first, last), bucket in zip(pairwise(ends), chosen, strict=True):
            spill(self.outs[bucket], {"scores": scores[first:last]})
        spill(self.best[number], {"scores": highest(scores, self.keep)})

    def _parts(self, chosen: range, merged: Sequence[SpilledArrays]) -> Iterator[_Part]:
        """Yield what each file of postings has of some buckets, in the order of documents."""
        for number in range(len(self.runs)):
            if self.values is not None:
                yield _grouped_part(self.values[number], chosen)
            else:
                yield self._unit_part(number, chosen, merged)

    def _unit_part(self, number: int, chosen: range, merged: Sequence[SpilledArrays]) -> _Part:
        postings = find_spilled(self.runs.units[number])
        places = [places_in(each, number) for each in merged]
        first = self.buckets[chosen.start].part_of(postings).start
        part = slice(first, first + sum(map(len, places)) + 1)
        indptr, labels = postings.read(indptr=part, labels=None)
        entries = slice(int(indptr[0]), int(indptr[-1]))
        documents, times = postings.read(documents=entries, times=entries)
        norms = find_spilled(self.norms[number]).read(norms=None)[0] if self.norms else np.ones(len(labels))
        classes = classes_of_labels(postings.facts, self.codes)[labels]
        return _Part(places, indptr, documents, times, norms, classes, postings.facts["most_times"])


@dataclass(frozen=True, eq=False)
class _Part:
    """What a file of postings has of adjacent buckets.

    Attributes:
        places: of the terms of each bucket, the index of the candidate in the bucket, or -1.
        indptr: term t of all buckets has the entries [indptr[t] - indptr[0], indptr[t + 1] - indptr[0]).
        documents, times: of the entries.
        norms, classes: of the documents.
        most_times: the largest of `times`, of all buckets.
    """

    places: list[npt.NDArray[np.int32]]
    indptr: npt.NDArray[Any]
    documents: npt.NDArray[Any]
    times: npt.NDArray[Any]
    norms: Float
    classes: npt.NDArray[np.int64]
    most_times: int


def _grouped_part(path: Path, chosen: range) -> _Part:
    """Return what a file of `GroupValues` has of some buckets: every entry is a document of its own."""
    values = find_spilled(path)
    of_buckets = slice(chosen.start, chosen.stop + 1)
    terms, entries = values.read(term_starts=of_buckets, entry_starts=of_buckets)
    of_terms, of_entries = (slice(int(starts[0]), int(starts[-1])) for starts in (terms, entries))
    places, sizes = values.read(places=of_terms, sizes=of_terms)
    times, classes, norms = values.read(times=of_entries, classes=of_entries, norms=of_entries)
    return _Part(
        places=[places[start:stop] for start, stop in pairwise((terms - terms[0]).tolist())],
        indptr=np.append(0, np.cumsum(sizes, dtype=np.int64)),
        documents=np.arange(len(times), dtype=np.uint32),
        times=times,
        norms=norms,
        classes=classes.astype(np.int64),
        most_times=values.facts["most_times"],
    )


@kernel
def _accumulate(  # type: ignore[no-untyped-def]
    places, base, start, indptr, before, documents, times, idf, tf, norms, classes, pairs, totals
):
    """Add up the values of the candidates from `start` on for which there are sums.

    `base` and `places` are the terms' candidates, `indptr` their entries; `documents` and `times` lack the entries
    `before` them.
    """
    # Invariant: totals and pairs have the terms before i; a term's documents are added in ascending order.
    for i in range(len(places)):
        place = base + places[i]
        if places[i] < 0 or not 0 <= place - start < len(totals):
            continue
        for entry in range(indptr[i] - before, indptr[i + 1] - before):
            document = documents[entry]
            value = tf[times[entry]] * idf[place] / norms[document]
            totals[place - start] += value
            pairs[place - start, classes[document], 0] += value
            pairs[place - start, classes[document], 1] += value * value
