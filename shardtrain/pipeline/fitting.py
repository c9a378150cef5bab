"""Fit a vectorizer to counted terms: select its features, weigh them, look up their names and save it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import open_spilled
from shardtrain.errors import CorpusFormatError
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import Counted
from shardtrain.pipeline.naming import check_features, find_names
from shardtrain.pipeline.selecting import Chosen, select_ngrams
from shardtrain.pipeline.spacing import CHARACTERS, texts_lack_spaces
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Integer
from shardtrain.vectorize import sequences
from shardtrain.vectorize.buckets import Buckets
from shardtrain.vectorize.fitted import Vectorizer, save_vectorizer
from shardtrain.vectorize.groups import Batches
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.merging import spill_bucket
from shardtrain.vectorize.selection import SELECTORS
from shardtrain.vectorize.settings import NgramSettings, SequenceSettings
from shardtrain.vectorize.weighing import WeighUnits
from shardtrain.vectorize.weights import Float, Weights, weights_of

_WEIGHED_BYTES = 40  # memory of a term of a unit while its documents are weighed


@dataclass(frozen=True)
class NgramColumns:
    """What makes rows of postings with a fitted n-gram vectorizer.

    Attributes:
        ids: of its columns.
        of_columns: their weights.
        weights: how counts become values.
        norms: of documents, a file per unit.
    """

    ids: TermIds
    of_columns: Float
    weights: Weights
    norms: FileSet


def fit_ngrams(passes: Passes, counted: Counted, codes: dict[str, int], out: Path) -> tuple[Vectorizer, NgramColumns]:
    """Compute norms, score n-grams and select the best; the vectorizer is saved in the folder `out`.

    Raises:
        CorpusFormatError: no n-gram occurs in min_df to max_df documents.
    """
    settings = counted.settings
    assert isinstance(settings, NgramSettings)
    if counted.num_candidates == 0:
        remedy = "use a larger corpus, or --min-df 1 and --max-df 1.0"
        if settings.analyzer == "word" and texts_lack_spaces(counted.units):
            remedy = (
                f"the texts have nearly no spaces, so each is one word: make n-grams of characters with {CHARACTERS}"
            )
        raise CorpusFormatError(
            f"no n-gram of the training documents occurs in as many of them as --min-df {settings.min_df} and "
            f"--max-df {settings.max_df} allow; {remedy}"
        )
    class_counts = np.zeros(max(codes.values()) + 1, np.int64)
    for label, number in counted.totals.train.items():
        class_counts[codes[label]] += number
    num_documents = int(class_counts.sum())
    weights = weights_of(settings)
    select = partial(select_ngrams, passes, codes=codes, class_counts=class_counts)
    if SELECTORS[settings.select].by_counts:
        chosen = select(counted, None, replace(weights, sublinear=False, idf=False))
        counted = _restricted(passes, counted, chosen)
    norms = FileSet(passes.scratch / "norms", len(counted.units)).made()
    together = weighed_together(_terms_of_unit(counted), passes.budget)
    batches = Batches(counted.runs, min(together, counted.runs.width))
    weigh = WeighUnits(counted.runs, counted.buckets, weights, num_documents, norms)
    passes.do(titles.NORMS, weigh, batches, _sizes_of(batches, counted), name=f"norms-{batches.size}")
    if not SELECTORS[settings.select].by_counts:
        chosen = select(counted, norms, weights)
        if not weights.norm:  # then no row depends on the candidates that were not selected
            counted = _restricted(passes, counted, chosen)
    facts = {"num_documents": num_documents}
    vectorizer = save_vectorizer(out, settings, facts, chosen.terms, _ngram_arrays(counted, chosen))
    return vectorizer, NgramColumns(chosen.ids, weights.of_terms(chosen.counts, num_documents), weights, norms)


def weighed_together(terms_of_unit: int, budget: int) -> int:
    """Return how many units are weighed at once within `budget` bytes, at least 1."""
    return max(1, budget // (_WEIGHED_BYTES * terms_of_unit))


def _terms_of_unit(counted: Counted) -> int:
    """Return how many distinct terms a unit has on average, at least 1."""
    return max(1, counted.totals.num_terms // len(counted.units))


def _sizes_of(batches: Batches, counted: Counted) -> npt.NDArray[np.int64]:
    """Return the bytes of the units of each batch."""
    starts = [batch.units.start for batch in batches]
    return np.add.reduceat(counted.units.sizes, starts)


def _restricted(passes: Passes, counted: Counted, chosen: Chosen) -> Counted:
    """Return the same, restricted to the chosen candidates."""
    order = chosen.ids.order()
    name = f"kept-{counted.buckets.bits}"
    kept = replace(counted.buckets, files=FileSet(passes.scratch / name, len(counted.buckets)).made())
    columns = {**chosen.ids.take(order).arrays, "counts": chosen.counts[order], "first": chosen.first[order]}
    restrict = _Restrict(counted.buckets, kept, columns)
    how: dict[str, Any] = {"name": name, "unit": "n-grams", "schema": Integer()}
    sizes = passes.run(titles.CHOOSE, restrict, range(len(kept)), counted.candidates, **how)
    return replace(counted, buckets=kept, candidates=np.array(sizes, np.int64))


@dataclass(frozen=True, eq=False)
class _Restrict:
    """Write buckets that hold the chosen candidates alone; return how many these are.

    Attributes:
        buckets: of all candidates.
        kept: with the files to write.
        columns: of the chosen candidates, ascending.
    """

    buckets: Buckets
    kept: Buckets
    columns: dict[str, npt.NDArray[Any]]

    def __call__(self, number: int) -> int:
        part = self.buckets[number].range(self.columns["hashes"])
        columns = {name: column[part] for name, column in self.columns.items()}
        merged = open_spilled(self.buckets.files[number])
        rank = np.full(len(merged["hashes"]) + 1, -1, np.int32)  # the last is that of no candidate, -1
        rank[TermIds.of(merged).find(TermIds.of(columns))] = np.arange(len(columns["hashes"]))
        places, grouped = rank[merged["places"]], "term_counts" in merged
        spill_bucket(self.kept.files[number], columns, places, merged["starts"], grouped=grouped)
        return len(columns["hashes"])


def _ngram_arrays(counted: Counted, chosen: Chosen) -> dict[str, Iterator[npt.NDArray[np.generic]]]:
    """Yield the vectorizer's arrays, one bucket at a time."""
    order = chosen.ids.order()
    ordered = chosen.ids.take(order)

    def columns(ids: TermIds) -> npt.NDArray[np.int32]:
        found = np.full(len(ids), -1, np.int32)
        places = ids.find(ordered)
        found[places[places >= 0]] = order[places >= 0]
        return found

    merged = counted.buckets.files
    return {
        "hashes": (open_spilled(path)["hashes"] for path in merged),
        "checks": (open_spilled(path)["checks"] for path in merged),
        "counts": (open_spilled(path)["counts"] for path in merged),
        "columns": (columns(TermIds.of(open_spilled(path))) for path in merged),
        "scores": iter([chosen.scores]),
    }


def fit_sequences(passes: Passes, counted: Counted, out: Path) -> tuple[Vectorizer, TermIds]:
    """Select the vocabulary and measure the longest document; return the vectorizer, saved in `out`, and its words.

    Raises:
        CorpusFormatError: the training documents contain no word.
    """
    settings = counted.settings
    assert isinstance(settings, SequenceSettings)
    keep = min(settings.max_features - 1, counted.num_distinct)  # id 0 is padding
    check_features(passes, keep)
    name = f"short-{counted.buckets.bits}"
    shorts = FileSet(passes.scratch / name, len(counted.buckets)).made()
    share = [counted.num_distinct // len(shorts)] * len(shorts)
    shorten = _Shorten(counted.buckets, keep, shorts)
    passes.do(titles.SELECT, shorten, range(len(shorts)), share, name=name, unit="words")
    words = _most_frequent(shorts, keep)
    vocabulary = TermIds.of(words)
    if not len(vocabulary):
        raise CorpusFormatError("the training documents contain no word; check --text-columns")
    measure = partial(sequences.longest, vocabulary=vocabulary)
    how: dict[str, Any] = {"name": "lengths", "schema": Integer()}
    lengths = passes.stream(titles.LONGEST, measure, counted.postings, counted.units.sizes, **how)
    longest = max(length for _, length in lengths)
    facts = {"num_words": counted.num_distinct, "length": max(1, min(longest, settings.max_length))}
    terms = find_names(passes, counted, vocabulary, words["first"])
    arrays = {name: [array] for name, array in vocabulary.arrays.items()}
    return save_vectorizer(out, settings, facts, terms, arrays), vocabulary


@dataclass(frozen=True)
class _Shorten:
    """Write the `keep` most frequent words of buckets."""

    buckets: Buckets
    keep: int
    outs: FileSet

    def __call__(self, number: int) -> None:
        sequences.shortlist_words(self.buckets.files[number], self.keep, self.outs[number])


def _most_frequent(shortlists: FileSet, keep: int) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of the `keep` most frequent words, best first; these and one shortlist are held."""
    held: dict[str, npt.NDArray[Any]] = {}
    for path in shortlists:
        file = open_spilled(path)
        held = {
            name: np.concatenate([held[name], file[name]]) if held else file[name]
            for name in ("hashes", "checks", "counts", "first")
        }
        best = sequences.most_frequent(held["counts"], held["first"])[:keep]
        held = {name: column[best] for name, column in held.items()}
    return held
