"""Draw labelled sparse rows whose columns occur as n-grams do, for the table of `training.py`.

How often a column occurs is taken from a real build: the document frequencies of all 1- and 2-grams of the synthetic
corpus, sorted. Their tail, from rank 1,000 on, is fitted by a power law (least squares of the logarithms, up to the
last rank that three documents have), which replaces it and continues it to as many columns as are asked for. A row
draws columns with probabilities in proportion, until it has as many different ones as asked for. A column that is drawn
again counts again, values are counts times idf, and rows have the length 1. The places of columns are shuffled.

Labels come from a planted linear model: each of the `INFORMATIVE` most frequent columns speaks for one class with a
weight of its own, the class with the largest sum is the label, and `WRONG` of the labels are drawn anew at random.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from synthetic import write_synthetic

from shardtrain.arrays.csr import Csr
from shardtrain.loader.shards import open_shards

DOCUMENTS = 20_000  # of the build
HEAD = 1_000  # ranks whose frequencies are taken as they are
LEAST = 3  # documents of the last rank of the fit
INFORMATIVE = 2_000
WRONG = 0.05
TEST_ROWS = 5_000
_DRAWS = 4  # per column of a row, of which the different ones are taken in order


@dataclass(frozen=True)
class Rows:
    """Labelled rows: (rows, columns) with their classes, to train on and to test."""

    train: Csr
    train_labels: npt.NDArray[np.uint32]
    test: Csr
    test_labels: npt.NDArray[np.uint32]
    classes: int


def document_frequencies(scratch: Path) -> tuple[npt.NDArray[np.float64], float]:
    """Build the synthetic corpus; return the frequencies of the head and the exponent of the tail's power law."""
    corpus, shards = scratch / "frequencies", scratch / "frequencies-shards"
    write_synthetic(corpus, documents=DOCUMENTS)
    command = ["build", corpus, "--out", shards, "--select", "none", "--min-df", "1", "--max-features", 4_000_000]
    subprocess.run([sys.executable, "-m", "shardtrain", *map(str, command)], check=True, capture_output=True)
    with open_shards(shards) as opened:
        counts = np.zeros(opened.description.num_features, np.int64)
        for x, _ in opened.train.batches(4_096):
            counts += np.bincount(x.indices, minlength=len(counts))  # type: ignore[union-attr]
        rows = opened.train.num_examples
    found = np.sort(counts)[::-1]
    ranks = np.unique(np.geomspace(HEAD, np.count_nonzero(found >= LEAST), 200).astype(np.int64))
    slope, _ = np.polyfit(np.log(ranks), np.log(found[ranks - 1]), 1)
    return found[:HEAD] / rows, float(slope)


def extended(head: npt.NDArray[np.float64], slope: float, columns: int) -> npt.NDArray[np.float64]:
    """Return the frequencies of so many columns, as shares of documents."""
    ranks = np.arange(HEAD + 1, columns + 1, dtype=np.float64)
    return np.concatenate([head, head[-1] * (ranks / HEAD) ** slope])


def draw(frequencies: npt.NDArray[np.float64], *, rows: int, nonzeros: int, classes: int, seed: int) -> Rows:
    """Draw the rows to train on and `TEST_ROWS` to test, each of so many non-zeros."""
    generator = np.random.default_rng(seed)
    total, columns = rows + TEST_ROWS, len(frequencies)
    below = np.cumsum(frequencies)
    indices, counts = np.empty((total, nonzeros), np.int64), np.empty((total, nonzeros))
    for row in range(total):
        indices[row], counts[row] = _row(generator, below, nonzeros)
    labels = _labels(generator, indices, counts * -np.log(frequencies[indices]), classes)
    values = counts * (1 - np.log(frequencies[indices]))
    values /= np.linalg.norm(values, axis=1, keepdims=True)
    places = generator.permutation(columns).astype(np.int32)[indices]
    order = np.argsort(places, axis=1)
    places, values = np.take_along_axis(places, order, 1), np.take_along_axis(values, order, 1).astype(np.float32)
    indptr = np.arange(total + 1, dtype=np.int64) * nonzeros
    whole = Csr(values.ravel(), places.ravel(), indptr, (total, columns))
    return Rows(whole.rows(0, rows), labels[:rows], whole.rows(rows, total), labels[rows:], classes)


def _row(generator: np.random.Generator, below: npt.NDArray[np.float64], nonzeros: int) -> tuple[Any, Any]:
    """Draw the ranks of a row, and how often each was drawn."""
    draws = _DRAWS * nonzeros
    while True:
        drawn = np.searchsorted(below, generator.random(draws) * below[-1], "right")
        ranks, first, counts = np.unique(drawn, return_index=True, return_counts=True)
        if len(ranks) >= nonzeros:
            taken = np.argsort(first)[:nonzeros]
            return ranks[taken], counts[taken]
        draws *= 2


def _labels(
    generator: np.random.Generator, ranks: npt.NDArray[np.int64], values: npt.NDArray[np.float64], classes: int
) -> npt.NDArray[np.uint32]:
    """Return the classes that the planted model gives, and some wrong ones."""
    speaks_for = generator.permutation(INFORMATIVE) % classes
    weights = np.abs(generator.standard_normal(INFORMATIVE))
    informative = ranks < INFORMATIVE
    known = np.where(informative, ranks, 0)
    parts = np.where(informative, values * weights[known], 0.0)
    scores = np.zeros((len(ranks), classes))
    np.add.at(scores, (np.arange(len(ranks))[:, None], speaks_for[known]), parts)
    labels = (scores - scores.mean(axis=0)).argmax(axis=1)
    wrong = generator.random(len(ranks)) < WRONG
    return np.where(wrong, generator.integers(0, classes, len(ranks)), labels).astype(np.uint32)
