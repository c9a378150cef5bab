"""Compute n-gram features equal to scikit-learn's TfidfVectorizer (or CountVectorizer) and SelectKBest, in passes.

1. count (`counts`): the postings of each unit, merged into the candidates, the terms with min_df documents or more.
2. weigh (`weighing`): the l2 norm of every document over all its candidates.
3. score (`scoring`): per candidate the class sums of its values, and from them its score.
4. choose: the candidates with the highest scores; of those that are tied at the boundary, the best by their strings.
5. rows: the chosen columns of every document.

A choice by frequency comes before the weights, as TfidfVectorizer(max_features=...) makes it: 1, 3, 4, 2, 5.

Values are computed in float64 with scikit-learn's operations in scikit-learn's order (a document's norm adds up its
terms by first appearance in the corpus, a class sum adds up documents in order), so features and ties agree
exactly. Postings keep first appearances for that order; it costs a sort of each unit's terms.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.scratch import open_spilled
from shardtrain.errors import ScratchError
from shardtrain.runtime.kernels import kernel
from shardtrain.vectorize.counts import lookup
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.weights import Float, Weights


def classes_of_labels(facts: Mapping[str, Any], codes: Mapping[str, int]) -> npt.NDArray[np.int64]:
    """Return the class index of each label code of postings, of which `facts` are given.

    Raises:
        ScratchError: a label has no class.
    """
    names = facts["label_names"]
    if unknown := [name for name in names if name not in codes]:
        raise ScratchError(
            f"documents with the label {unknown[0]!r:.60} were counted and are on no record: scratch files of the "
            "interrupted build are damaged; run the same command again, which begins anew"
        )
    return np.array([codes[name] for name in names], np.int64)


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
