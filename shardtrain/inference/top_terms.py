"""Find the terms that a model itself takes for a class, whatever texts it is given.

A term is measured by the logits of a row with this term alone, with the value 1, less those of a row without any: the
weight of a linear model, and of an mlp what the layers make of the term by itself. With two classes and one output,
what speaks for one class speaks against the other as much.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Features
from shardtrain.errors import VectorizerError
from shardtrain.inference.attribution import Numbers
from shardtrain.inference.classifier import SPARSE_ROWS
from shardtrain.inference.explain import check_most, load_explainer
from shardtrain.inference.explanations import TopTerm

if TYPE_CHECKING:
    from shardtrain.inference.run import Run
    from shardtrain.vectorize.fitted import Vectorizer


def top_terms(run: Run, most: int) -> dict[str, tuple[TopTerm, ...]]:
    """Return the terms with the largest positive effect on the logit of each class; see `Run.top_terms`."""
    check_most(most)
    explainer = load_explainer(run, most)
    vectorizer = explainer.vectorizer
    if not vectorizer.terms:
        raise VectorizerError(
            "hashed features have no terms: a column is a hash that many n-grams share; build with --vectorizer ngram "
            "to see the terms of a model"
        )
    names = explainer.class_names
    terms, effects = np.zeros((len(names), 0), np.int64), np.zeros((len(names), 0))
    nothing = explainer.scores(_rows_of(vectorizer, np.zeros(1, np.int64), 0))
    for numbers in _some(len(vectorizer.terms)):
        found = (explainer.scores(_rows_of(vectorizer, numbers, 1)) - nothing).T
        terms, effects = _best(
            np.concatenate([terms, np.broadcast_to(numbers, found.shape)], axis=1),
            np.concatenate([effects, found], axis=1),
            most,
        )
    return {
        name: tuple(
            TopTerm(term=vectorizer.terms[term], effect=effect)
            for term, effect in zip(terms[code].tolist(), effects[code].tolist(), strict=True)
            if effect > 0
        )
        for code, name in enumerate(names)
    }


def _some(number: int) -> Iterator[npt.NDArray[np.int64]]:
    for start in range(0, number, SPARSE_ROWS):
        yield np.arange(start, min(start + SPARSE_ROWS, number))


def _rows_of(vectorizer: Vectorizer, terms: npt.NDArray[np.int64], value: int) -> Features:
    """Return rows with one term each, of a value; of words with their id in the last place; or rows without terms."""
    shape = (len(terms), vectorizer.num_features)
    if vectorizer.kind == "sequence":
        rows = np.zeros(shape, np.uint32)
        rows[:, -1] = (terms + 1) * value
        return rows
    ends = np.arange(len(terms) + 1) * value
    number = int(ends[-1])
    return Csr(np.ones(number, np.float32), terms[:number].astype(np.int32), ends, shape)


def _best(terms: npt.NDArray[np.int64], effects: Numbers, most: int) -> tuple[npt.NDArray[np.int64], Numbers]:
    """Return the terms of each class with the largest effects, and these; equal ones in the order of the terms."""
    order = np.argsort(-effects, axis=1, kind="stable")[:, :most]
    return np.take_along_axis(terms, order, axis=1), np.take_along_axis(effects, order, axis=1)
