"""Put the values of the candidates of some hundred units into one file, bucket by bucket, for `scoring`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import SpilledFile, find_spilled, open_spilled, spilling
from shardtrain.vectorize.buckets import Buckets
from shardtrain.vectorize.groups import Runs, by_bucket, steps
from shardtrain.vectorize.ngrams import classes_of_labels

_VALUED_TERM_BYTES, _VALUED_ENTRY_BYTES = 80, 56  # memory of a term and of an entry while values are grouped


def value_bytes(num_terms: int, num_entries: int) -> int:
    """Return the memory of the values of a group, if they were written in one step."""
    return num_terms * _VALUED_TERM_BYTES + num_entries * _VALUED_ENTRY_BYTES


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
        needed = value_bytes(terms, entries)
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
