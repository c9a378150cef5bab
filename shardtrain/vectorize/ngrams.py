"""Compute n-gram features equal to scikit-learn's TfidfVectorizer (or CountVectorizer) and SelectKBest, in passes.

1. count (`counts`): the postings of each unit, merged into the candidates, the terms with min_df documents or more.
2. weigh: the l2 norm of every document over all its candidates.
3. score: per candidate the class sums of its values, and from them its score.
4. choose: the candidates with the highest scores; of those that are tied at the boundary, the best by their strings.
5. rows: the chosen columns of every document.

A choice by frequency comes before the weights, as TfidfVectorizer(max_features=...) makes it: 1, 3, 4, 2, 5.

Values are computed in float64 with scikit-learn's operations in scikit-learn's order (a document's norm adds up its
terms by first appearance in the corpus, a class sum adds up documents in order), so features and ties agree
exactly. Postings keep first appearances for that order; it costs a sort of each unit's terms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import (
    SpilledArrays,
    SpilledFile,
    find_spilled,
    open_spilled,
    open_spilled_cached,
    spill,
    spilling,
)
from shardtrain.errors import ScratchError
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.buckets import Buckets
from shardtrain.vectorize.counts import lookup, places_in
from shardtrain.vectorize.groups import Batch, Runs, by_bucket, steps
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.selection import SELECTORS, Moments, highest
from shardtrain.vectorize.weights import Float, Weights

SCORE_BYTES = 96  # memory of a candidate while scores are computed, beside that of its classes
_VALUED_TERM_BYTES, _VALUED_ENTRY_BYTES = 80, 56  # memory of a term and of an entry while values are grouped


@dataclass(frozen=True)
class WeighUnits:
    """Write `norms`, the divisor of each document, (documents,) float64: the l2 norm over all its candidates, or 1.

    Attributes:
        runs: the postings.
        buckets: of candidates, merged from them.
        weights: how counts become values.
        num_documents: of the corpus.
        outs: a file per unit.
    """

    runs: Runs
    buckets: Buckets
    weights: Weights
    num_documents: int
    outs: FileSet

    def __call__(self, task: Batch) -> None:
        """Weigh the documents of some units."""
        units = [open_spilled(self.runs.units[unit]) for unit in task.units]
        if not self.weights.norm:
            for unit, postings in zip(task.units, units, strict=True):
                spill(self.outs[unit], {"norms": np.ones(len(postings["labels"]))})
            return
        collected = [_Collected.empty(len(postings["hashes"])) for postings in units]
        for of_units in _candidates_of(self.runs, self.buckets, task):
            for each, (places, counts, firsts) in zip(collected, of_units, strict=True):
                each.add(places, counts, firsts)
        for unit, postings, found in zip(task.units, units, collected, strict=True):
            spill(self.outs[unit], {"norms": self._norms_of(postings, found)})

    def _norms_of(self, postings: SpilledArrays, found: _Collected) -> Float:
        order = _ascending(found.firsts[: found.size])  # by first appearance: the order in which scikit-learn adds
        norms: Float = _norms(
            found.terms[order],
            self.weights.of_terms(found.counts[order], self.num_documents),
            self.weights.of_times(postings.facts["most_times"]),
            postings["indptr"],
            postings["documents"],
            postings["times"],
            len(postings["labels"]),
        )
        return norms


Candidates = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]  # places, and counts and firsts of candidates


def _candidates_of(runs: Runs, buckets: Buckets, task: Batch) -> Iterator[list[Candidates]]:
    """Yield, for each bucket in order, the candidate of each term of some units, and what is known of candidates."""
    if not runs.grouped:
        for path in buckets.files:
            merged = open_spilled_cached(path)
            yield [(places_in(merged, task.number), merged["counts"], merged["first"])]
        return
    for bucket, path in zip(buckets, buckets.files, strict=True):
        starts, candidates = task.within(runs.part(task.number, bucket)), find_spilled(path)
        begin = int(candidates.read(starts=slice(task.number, task.number + 1))[0][0])
        here = slice(begin + int(starts[0]), begin + int(starts[-1]))
        counts, firsts = candidates.read(term_counts=here, term_firsts=here)
        places = np.where(counts > 0, np.arange(len(counts)), -1)
        yield [(places[start:stop], counts, firsts) for start, stop in pairwise((starts - starts[0]).tolist())]


@dataclass(eq=False)
class _Collected:
    """The candidates among the terms of a unit: the first `size` items of each array; `start` terms were looked at."""

    terms: npt.NDArray[np.uint32]
    counts: npt.NDArray[np.int64]
    firsts: npt.NDArray[np.uint64]
    start: int = 0
    size: int = 0

    @classmethod
    def empty(cls, num_terms: int) -> _Collected:
        """Return no candidates, with room for those of a unit with so many terms."""
        return cls(np.empty(num_terms, np.uint32), np.empty(num_terms, np.int64), np.empty(num_terms, np.uint64))

    def add(self, places: npt.NDArray[Any], counts: npt.NDArray[Any], firsts: npt.NDArray[Any]) -> None:
        """Add the candidates among the next terms."""
        self.size = _collect(places, self.start, counts, firsts, self.terms, self.counts, self.firsts, self.size)
        self.start += len(places)


@kernel
def _collect(places, start, of_counts, of_firsts, terms, counts, firsts, size):  # type: ignore[no-untyped-def]
    """Append the candidates among a unit's terms, those from `start` on, with count and first appearance."""
    # Invariant: the first `size` entries of terms, counts and firsts are filled.
    for i in range(len(places)):
        if places[i] >= 0:
            terms[size] = start + i
            counts[size] = of_counts[places[i]]
            firsts[size] = of_firsts[places[i]]
            size += 1
    return size


_DIGIT_BITS = np.uint64(11)
_DIGITS = 1 << 11
_32 = np.uint64(32)


@kernel
def _ascending(firsts):  # type: ignore[no-untyped-def]
    """Sort first appearances (unit << 32 | rank in the unit) and return their order: a radix sort, low digits first."""
    ranks = np.uint64(0)
    largest = np.uint64(0)
    for first in firsts:
        ranks |= first & np.uint64(0xFFFFFFFF)
        largest = max(largest, first)
    bits = np.uint64(0)
    while ranks >> bits:
        bits += np.uint64(1)
    keys = np.empty(len(firsts), np.uint64)  # without the gap between ranks and units: fewer digits
    for i in range(len(firsts)):
        keys[i] = firsts[i] >> _32 << bits | firsts[i] & np.uint64(0xFFFFFFFF)
    order = np.arange(len(firsts)).astype(np.uint32)
    other_keys = np.empty_like(keys)
    other_order = np.empty_like(order)
    shift = np.uint64(0)
    # Invariant: `order` sorts the keys by their low `shift` bits, equal ones in the order of `firsts`.
    while (largest >> _32 << bits | ranks) >> shift:
        starts = np.zeros(_DIGITS + 1, np.int64)
        for key in keys:
            starts[np.int64(key >> shift & np.uint64(_DIGITS - 1)) + 1] += 1
        starts = np.cumsum(starts)
        for i in range(len(keys)):
            digit = np.int64(keys[i] >> shift & np.uint64(_DIGITS - 1))
            other_keys[starts[digit]] = keys[i]
            other_order[starts[digit]] = order[i]
            starts[digit] += 1
        keys, other_keys = other_keys, keys
        order, other_order = other_order, order
        shift += _DIGIT_BITS
    return order


@kernel
def _norms(terms, idf, tf, indptr, documents, times, num_documents):  # type: ignore[no-untyped-def]
    squares = np.zeros(num_documents)
    # Invariant: squares[d] has the terms before i, added in the order given: float sums depend on it.
    for i in range(len(terms)):
        for entry in range(indptr[terms[i]], indptr[terms[i] + 1]):
            value = tf[times[entry]] * idf[i]
            squares[documents[entry]] += value * value
    return np.sqrt(squares)


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
        norms = open_spilled_cached(self.norms[number])["norms"] if self.norms else np.ones(len(labels))
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


def classes_of_labels(facts: Mapping[str, Any], codes: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """Return the class index of each label code of postings, of which `facts` are given.

    Raises:
        ScratchError: a label has no class.
    """
    names = facts["label_names"]
    if unknown := [name for name in names if name not in codes]:
        raise ScratchError(
            f"documents with the label {unknown[0]!r:.60} were counted and are on no record: scratch files of the "
            "interrupted build are damaged; discard them with --overwrite"
        )
    return np.array([codes[name] for name in names], np.int64)


@dataclass(frozen=True, eq=False)
class GroupValues:
    """Write the values of the candidates of a group of units, bucket by bucket, with about `budget` bytes in memory.

    The terms of a bucket that are candidates are in the order of a group's postings: `places` in the bucket, and
    `sizes`, how many entries each has. `times`, `classes` and `norms` are of the entries, in the order of documents: a
    bucket has the terms [term_starts[b], term_starts[b + 1]) and the entries [entry_starts[b], entry_starts[b + 1]).
    Norm and class are with each entry, because those of all documents are more than a bucket's task can read.

    Attributes:
        runs: the postings.
        buckets: of candidates, merged from them.
        norms: a file per unit; None: all are 1.
        codes: class index by label.
        budget: bytes.
        outs: a file per group.
    """

    runs: Runs
    buckets: Buckets
    norms: FileSet | None
    codes: dict[str, int]
    budget: int
    outs: FileSet

    def __call__(self, number: int) -> None:
        """Write the values of a group."""
        numbers = self.runs.units_of(number)
        units = [find_spilled(self.runs.units[unit]) for unit in numbers]
        terms, entries = (sum(unit.length(name) for unit in units) for name in ("hashes", "documents"))
        most_times = max((unit.facts["most_times"] for unit in units), default=0)
        ends = ((1 << self.buckets.bits) + 1,)
        arrays: dict[str, tuple[Any, tuple[int, ...]]] = {
            "places": (np.int32, (terms,)),
            "sizes": (np.uint32, (terms,)),
            "times": (np.min_scalar_type(most_times), (entries,)),
            "classes": (np.uint16, (entries,)),
            "norms": (np.float64, (entries,)),
            "term_starts": (np.int64, ends),
            "entry_starts": (np.int64, ends),
        }
        needed = terms * _VALUED_TERM_BYTES + entries * _VALUED_ENTRY_BYTES
        with spilling(self.outs[number], arrays, {"most_times": most_times}) as out:
            begin = np.zeros(1, np.int64)
            out.append(term_starts=begin, entry_starts=begin)
            written = [0, 0]
            for buckets, slices in steps(units, self.buckets.bits, needed, self.budget):
                found = self._step(number, numbers, units, buckets, slices)
                per_bucket = found.pop("per_bucket")
                out.append(**found, term_starts=written[0] + per_bucket[0], entry_starts=written[1] + per_bucket[1])
                written = [written[0] + int(per_bucket[0][-1]), written[1] + int(per_bucket[1][-1])]

    def _step(
        self,
        number: int,
        numbers: range,
        units: Sequence[SpilledFile],
        buckets: range,
        slices: Sequence[slice],
    ) -> dict[str, Any]:
        """Return the arrays of some buckets, and as `per_bucket` the terms and entries up to the end of each."""
        columns: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in ("sizes", "times", "classes", "norms")}
        hashes = []
        for unit, postings, part in zip(numbers, units, slices, strict=True):
            found, indptr, labels = postings.read(hashes=part, indptr=slice(part.start, part.stop + 1), labels=None)
            entries = slice(int(indptr[0]), int(indptr[-1]))
            documents, times = postings.read(documents=entries, times=entries)
            hashes.append(found)
            columns["sizes"].append(np.diff(indptr.astype(np.int64)))
            columns["times"].append(times)
            columns["classes"].append(
                classes_of_labels(postings.facts, self.codes)[labels][documents].astype(np.uint16)
            )
            norms = np.ones(len(labels)) if self.norms is None else open_spilled(self.norms[unit])["norms"]
            columns["norms"].append(norms[documents])
        joined = {name: np.concatenate(pieces) for name, pieces in columns.items()}
        order, _ = by_bucket(hashes, buckets, self.buckets.bits)
        parts = [self._places(number, bucket) for bucket in buckets]
        places = np.concatenate(parts)
        order = order[places >= 0]
        sizes, begins = joined["sizes"][order], (np.cumsum(joined["sizes"]) - joined["sizes"])[order]
        chosen = np.repeat(begins - (np.cumsum(sizes) - sizes), sizes) + np.arange(sizes.sum())
        kept = np.cumsum([np.count_nonzero(part >= 0) for part in parts])
        return {
            "places": places[places >= 0],
            "sizes": sizes,
            **{name: joined[name][chosen] for name in ("times", "classes", "norms")},
            "per_bucket": (kept, np.append(0, np.cumsum(sizes))[kept]),
        }

    def _places(self, number: int, bucket: int) -> npt.NDArray[np.int32]:
        merged = find_spilled(self.buckets.files[bucket])
        (starts,) = merged.read(starts=slice(number, number + 2))
        return merged.read(places=slice(int(starts[0]), int(starts[1])))[0]


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


def unit_rows(postings_path: Path, norm_path: Path, ids: TermIds, idf: Float, weights: Weights) -> Csr:
    """Return the chosen columns of a unit's documents; `ids` and `idf` are the columns', in column order."""
    postings = open_spilled(postings_path)
    by_id = ids.order()
    places = lookup(postings, ids.take(by_id))
    terms = np.flatnonzero(places >= 0)
    columns = by_id[places[terms]]
    order = np.argsort(columns)
    data, indices, indptr = _rows(
        terms[order],
        columns[order],
        idf,
        weights.of_times(postings.facts["most_times"]),
        postings["indptr"],
        postings["documents"],
        postings["times"],
        open_spilled(norm_path)["norms"],
    )
    return Csr(data, indices, indptr, (len(postings["labels"]), len(ids)))


@kernel
def _rows(terms, columns, idf, tf, indptr, documents, times, norms):  # type: ignore[no-untyped-def]
    row_ptr = np.zeros(len(norms) + 1, np.int64)
    for term in terms:
        for entry in range(indptr[term], indptr[term + 1]):
            row_ptr[np.int64(documents[entry]) + 1] += 1
    row_ptr = np.cumsum(row_ptr)
    data = np.empty(row_ptr[-1], np.float32)
    indices = np.empty(row_ptr[-1], np.int32)
    place = row_ptr[:-1].copy()
    # Invariant: document d's entries [row_ptr[d], place[d]) are written, columns ascending as `columns` ascends.
    for i in range(len(terms)):
        column = columns[i]
        for entry in range(indptr[terms[i]], indptr[terms[i] + 1]):
            document = documents[entry]
            data[place[document]] = tf[times[entry]] * idf[column] / norms[document]
            indices[place[document]] = column
            place[document] += 1
    return data, indices, row_ptr
