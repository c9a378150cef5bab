"""Write and read the postings of a unit: its distinct terms, ascending by hash and check, and where they occur.

See `groups` for how the postings of many units are read together.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import SpilledArrays, narrow, spill
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.buckets import tops_of
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.inverted import Inverted
from shardtrain.vectorize.tokens import BlockTerms


def spill_postings(
    path: Path, terms: Inverted | BlockTerms, per_document: dict[str, npt.NDArray[Any]], facts: dict[str, Any]
) -> None:
    """Write a unit's postings: its terms in ascending order, where they occur, and the arrays `per_document`.

    Inverted terms have `documents` and `times`: those of term t are the entries [indptr[t], indptr[t + 1]), in
    document order, and the fact `most_times` is the largest of `times`. Otherwise `tokens` holds the documents' terms
    in order, and `indptr` says where documents begin. `first` increases with a term's first appearance in the unit.
    """
    arrays: dict[str, npt.NDArray[Any]]
    if isinstance(terms, Inverted):
        facts = {**facts, "most_times": int(terms.times.max(initial=0))}
        arrays = {
            "hashes": terms.hashes,
            "checks": terms.checks,
            "counts": narrow(np.diff(terms.indptr)),
            "first": terms.first,
            "indptr": narrow(terms.indptr),
            "documents": narrow(terms.documents),
            "times": narrow(terms.times),
        }
    else:
        order = terms.ids.order()
        position = np.empty(len(order), np.uint32)
        position[order] = np.arange(len(order), dtype=np.uint32)
        arrays = {
            "hashes": terms.hashes[order],
            "checks": terms.checks[order],
            "counts": narrow(terms.counts[order]),
            "first": order.astype(np.uint32),
            "indptr": terms.indptr,
            "tokens": position[terms.occurrences],
        }
    spill(path, {"tops": tops_of(arrays["hashes"]), **arrays, **per_document}, facts)


def places_in(merged: SpilledArrays, number: int) -> npt.NDArray[np.int32]:
    """Return, for each term of a file of postings in a merged bucket, the index of its candidate, or -1."""
    return merged["places"][merged["starts"][number] : merged["starts"][number + 1]]


def lookup(postings: SpilledArrays, wanted: TermIds) -> npt.NDArray[np.int64]:
    """Return, for each term of the postings, its place among the wanted ones (ascending), or -1."""
    places: npt.NDArray[np.int64] = _join(postings["hashes"], postings["checks"], wanted.hashes, wanted.checks)
    return places


def first_documents(postings: SpilledArrays, wanted: TermIds) -> npt.NDArray[np.int64]:
    """Return the documents, ascending, in which the wanted ones (ascending) of a unit's terms appear first."""
    terms = np.flatnonzero(lookup(postings, wanted) >= 0)
    if "documents" in postings:
        return np.unique(postings["documents"][postings["indptr"][terms]].astype(np.int64))
    tokens = postings["tokens"]
    places = np.zeros(len(postings["hashes"]), np.int64)
    places[tokens[::-1]] = np.arange(len(tokens) - 1, -1, -1)  # of equal indices the last assignment stays
    return np.unique(np.searchsorted(postings["indptr"], places[terms], side="right") - 1)


@kernel
def _join(hashes, checks, wanted_hashes, wanted_checks):  # type: ignore[no-untyped-def]
    places = np.full(len(hashes), -1, np.int64)
    place = 0
    # Invariant: the wanted terms before `place` are below term i; both sets ascend, so `place` never moves back.
    for i in range(len(hashes)):
        while place < len(wanted_hashes) and wanted_hashes[place] < hashes[i]:
            place += 1
        while place < len(wanted_hashes) and wanted_hashes[place] == hashes[i] and wanted_checks[place] < checks[i]:
            place += 1
        if place < len(wanted_hashes) and wanted_hashes[place] == hashes[i] and wanted_checks[place] == checks[i]:
            places[i] = place
    return places
