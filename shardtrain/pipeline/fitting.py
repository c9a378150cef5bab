"""Fit a vectorizer to counted terms: select its features, weigh them, look up their names and save it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import open_spilled, spill
from shardtrain.errors import CorpusFormatError
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import Counted
from shardtrain.pipeline.naming import check_features, find_names
from shardtrain.pipeline.selecting import Chosen, select_ngrams
from shardtrain.pipeline.spacing import CHARACTERS, texts_lack_spaces
from shardtrain.pipeline.units import classes_of_postings
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Integer
from shardtrain.vectorize import ngrams, sequences
from shardtrain.vectorize.fitted import Vectorizer, save_vectorizer
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.selection import SELECTORS
from shardtrain.vectorize.settings import NgramSettings, SequenceSettings
from shardtrain.vectorize.weights import Float, Weights, weights_of


@dataclass(frozen=True)
class FittedNgrams:
    """A fitted n-gram vectorizer, the identities and weights of its columns, and its weighting of counts."""

    vectorizer: Vectorizer
    ids: TermIds
    of_columns: Float
    weights: Weights


def fit_ngrams(passes: Passes, counted: Counted, codes: dict[str, int], out: Path) -> FittedNgrams:
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
    classes = tuple(classes_of_postings(open_spilled(path), codes) for path in counted.postings)
    class_counts = np.zeros(max(codes.values()) + 1, np.int64)
    for path, mapping in zip(counted.postings, classes, strict=True):
        class_counts += np.bincount(mapping[open_spilled(path)["labels"]], minlength=len(class_counts))
    num_documents = int(class_counts.sum())
    weights = weights_of(settings)
    select = partial(select_ngrams, passes, classes=classes, class_counts=class_counts)
    if SELECTORS[settings.select].by_counts:
        chosen = select(counted, None, replace(weights, sublinear=False, idf=False))
        counted = _restricted(counted, chosen)
    norms = tuple(path.with_name(path.name.replace("run", "norms")) for path in counted.postings)
    candidates = tuple(path for _, path in counted.buckets)
    weigh = partial(_weigh, candidates=candidates, weights=weights, num_documents=num_documents)
    numbered = list(zip(range(len(norms)), counted.postings, norms, strict=True))
    passes.run(titles.NORMS, weigh, numbered, counted.sizes, names=[path.name for path in norms])
    if not SELECTORS[settings.select].by_counts:
        chosen = select(counted, norms, weights)
        if not weights.norm:  # then no row depends on the candidates that were not selected
            counted = _restricted(counted, chosen)
    facts = {"num_documents": num_documents}
    vectorizer = save_vectorizer(out, settings, facts, chosen.terms, _ngram_arrays(counted, chosen))
    return FittedNgrams(vectorizer, chosen.ids, weights.of_terms(chosen.counts, num_documents), weights)


def _weigh(unit: tuple[int, Path, Path], *, candidates: tuple[Path, ...], weights: Weights, num_documents: int) -> None:
    number, path, out = unit
    ngrams.weigh_unit(path, number, candidates, weights, num_documents, out)


def _restricted(counted: Counted, chosen: Chosen) -> Counted:
    """Return the same, restricted to the chosen candidates."""
    order = chosen.ids.order()
    ordered = chosen.ids.take(order)
    buckets, sizes = [], []
    for bucket, path in counted.buckets:
        part = order[bucket.range(ordered.hashes)]
        kept = path.with_name(path.name.replace("bucket", "kept"))
        merged = open_spilled(path)
        rank = np.full(len(merged["hashes"]) + 1, -1, np.int32)  # the last is that of no candidate, -1
        rank[TermIds.of(merged).find(chosen.ids.take(part))] = np.arange(len(part))
        arrays = {**chosen.ids.take(part).arrays, "counts": chosen.counts[part], "first": chosen.first[part]}
        spill(kept, {**arrays, "places": rank[merged["places"]], "starts": merged["starts"]})
        buckets.append((bucket, kept))
        sizes.append(len(part))
    return replace(counted, buckets=tuple(buckets), candidates=tuple(sizes))


def _ngram_arrays(counted: Counted, chosen: Chosen) -> dict[str, Iterator[npt.NDArray[np.generic]]]:
    """Yield the vectorizer's arrays, one bucket at a time."""
    order = chosen.ids.order()
    ordered = chosen.ids.take(order)

    def columns(ids: TermIds) -> npt.NDArray[np.int32]:
        found = np.full(len(ids), -1, np.int32)
        places = ids.find(ordered)
        found[places[places >= 0]] = order[places >= 0]
        return found

    merged = [path for _, path in counted.buckets]
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
    shorts = [path.with_name(path.name.replace("bucket", "short")) for _, path in counted.buckets]
    pairs = [(path, short) for (_, path), short in zip(counted.buckets, shorts, strict=True)]
    share = [counted.num_distinct // len(pairs)] * len(pairs)
    names = [path.name for path in shorts]
    passes.run(titles.SELECT, partial(_shorten, keep=keep), pairs, share, names=names, unit="words")
    vocabulary = _most_frequent(shorts, keep)
    if not len(vocabulary):
        raise CorpusFormatError("the training documents contain no word; check --text-columns")
    measure = partial(sequences.longest, vocabulary=vocabulary)
    names = [path.name.replace("run", "length") for path in counted.postings]
    lengths = passes.run(titles.LONGEST, measure, counted.postings, counted.sizes, names=names, schema=Integer())
    facts = {"num_words": counted.num_distinct, "length": max(1, min(max(lengths), settings.max_length))}
    terms = find_names(passes, counted, vocabulary)
    arrays = {name: [array] for name, array in vocabulary.arrays.items()}
    return save_vectorizer(out, settings, facts, terms, arrays), vocabulary


def _shorten(paths: tuple[Path, Path], *, keep: int) -> None:
    sequences.shortlist_words(paths[0], keep, paths[1])


def _most_frequent(shortlists: Sequence[Path], keep: int) -> TermIds:
    """Return the `keep` most frequent words, best first; the best so far and one shortlist are held."""
    held: dict[str, npt.NDArray[Any]] = {}
    for path in shortlists:
        file = open_spilled(path)
        held = {
            name: np.concatenate([held[name], file[name]]) if held else file[name]
            for name in ("hashes", "checks", "counts", "first")
        }
        best = sequences.most_frequent(held["counts"], held["first"])[:keep]
        held = {name: column[best] for name, column in held.items()}
    return TermIds.of(held)
