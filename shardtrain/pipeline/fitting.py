"""Fit a vectorizer to the training documents, pass by pass over the postings of the terms, one file per unit.

The postings of a unit are its terms with their counts. They are merged into buckets by hash, so memory does not depend
on the vocabulary candidates of the corpus. Strings are looked up only for the terms that are chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import open_spilled, spill
from shardtrain.errors import CorpusFormatError, HashCollisionError
from shardtrain.pipeline import titles
from shardtrain.pipeline.spacing import CHARACTERS, texts_lack_spaces
from shardtrain.pipeline.units import (
    UNIT_FACTS,
    CountTask,
    FindTask,
    UnitFacts,
    UnitTask,
    classes_of_postings,
    count_unit,
    find_in_unit,
    keep_every_class,
)
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Integer, Items, Row, Text
from shardtrain.vectorize import ngrams, selection, sequences
from shardtrain.vectorize.counts import Bucket, lookup, merge_bucket, plan_buckets
from shardtrain.vectorize.fitted import Vectorizer, save_vectorizer
from shardtrain.vectorize.ngrams import ScoreTask
from shardtrain.vectorize.selection import SELECTORS
from shardtrain.vectorize.settings import CountedSettings, NgramSettings, SequenceSettings
from shardtrain.vectorize.weights import Float, Weights, weights_of

_MERGED = Row((Integer(), Integer()))  # distinct terms and candidates of a bucket
HASH_SEEDS = 4  # 100 million terms collide in 64 bits with a probability of 1 in thousands, so four seeds suffice


@dataclass(frozen=True)
class Counted:
    """A counted corpus: its postings, one file per unit, and the buckets of terms merged from them."""

    settings: CountedSettings
    units: tuple[UnitTask, ...]
    sizes: tuple[int, ...]
    postings: tuple[Path, ...]
    facts: tuple[UnitFacts, ...]
    buckets: tuple[tuple[Bucket, Path], ...]
    num_distinct: int
    num_candidates: int


Check = Callable[[Sequence[UnitFacts]], object]


def count(
    passes: Passes, units: Sequence[UnitTask], sizes: Sequence[int], settings: CountedSettings, *, check: Check
) -> Counted:
    """Count the terms of the units' training documents; after a hash collision start again with another seed.

    Args:
        passes: runs the tasks.
        units: of the corpus.
        sizes: of the units, for the progress bar.
        settings: of the vectorizer.
        check: called with the facts of all units after they are counted, to refuse a corpus before the later passes.

    Raises:
        HashCollisionError: every seed led to a collision, which only happens with a shortened hash.
        UsageError: max_df corresponds to fewer documents than min_df.
    """
    for seed in range(HASH_SEEDS):
        hashing = replace(settings.hashing, seed=settings.hashing.seed + seed)
        try:
            return _count(passes, units, sizes, replace(settings, hashing=hashing), check)
        except HashCollisionError:
            if seed == HASH_SEEDS - 1:
                raise
    raise AssertionError("unreachable")


def _count(
    passes: Passes, units: Sequence[UnitTask], sizes: Sequence[int], settings: CountedSettings, check: Check
) -> Counted:
    seed = settings.hashing.seed
    postings = [passes.scratch / f"run-{seed}-{task.unit.index:05}" for task in units]
    title = titles.COUNT_WORDS if isinstance(settings, SequenceSettings) else titles.COUNT
    counted = _count_units(passes, title, units, sizes, settings, postings)
    units, facts, changed = keep_every_class(units, counted)
    check(facts)
    for i in changed:
        postings[i] = postings[i].with_name(f"{postings[i].name}-kept")
    if changed:  # their postings lack the documents that stay in training
        again = ([units[i] for i in changed], [sizes[i] for i in changed], settings, [postings[i] for i in changed])
        for i, found in zip(changed, _count_units(passes, titles.KEEP, *again), strict=True):
            facts[i] = found
    least, most = settings.document_range(sum(sum(unit.train.values()) for unit in facts))
    num_terms = sum(unit.num_terms for unit in facts)
    planned = plan_buckets(num_terms, passes.budget)
    buckets = tuple((b, passes.scratch / f"bucket-{seed}-{b.bits}-{b.number:05}") for b in planned)
    share = [num_terms // len(buckets)] * len(buckets)
    merge = partial(_merge, postings=tuple(postings), least=least, most=most)
    names = [path.name for _, path in buckets]
    merged = passes.run(titles.MERGE, merge, buckets, share, names=names, unit="terms", schema=_MERGED)
    return Counted(
        settings=settings,
        units=tuple(units),
        sizes=tuple(sizes),
        postings=tuple(postings),
        facts=tuple(facts),
        buckets=buckets,
        num_distinct=sum(distinct for distinct, _ in merged),
        num_candidates=sum(kept for _, kept in merged),
    )


def _count_units(
    passes: Passes,
    title: str,
    units: Sequence[UnitTask],
    sizes: Sequence[int],
    settings: CountedSettings,
    postings: Sequence[Path],
) -> list[UnitFacts]:
    """Run a pass that writes the postings of units."""
    tasks = [
        CountTask(
            source=task.source,
            unit=task.unit,
            seed=task.seed,
            threshold=task.threshold,
            kept=task.kept,
            settings=settings,
            out=out,
        )
        for task, out in zip(units, postings, strict=True)
    ]
    names = [path.name for path in postings]
    return passes.run(
        title, count_unit, tasks, sizes, names=names, schema=UNIT_FACTS, encode=asdict, decode=UnitFacts.from_record
    )


def _merge(bucket: tuple[Bucket, Path], *, postings: tuple[Path, ...], least: int, most: int | None) -> tuple[int, int]:
    return merge_bucket(postings, bucket[0], bucket[1], min_count=least, max_count=most)


def _find(passes: Passes, counted: Counted, hashes: npt.NDArray[np.uint64]) -> list[str]:
    """Look up the strings of terms, in as few units as possible."""
    by_hash = np.argsort(hashes)
    wanted = hashes[by_hash]
    tasks, places, sizes = [], [], []
    for number, members in _cover(counted, wanted):
        unit = counted.units[number]
        task = FindTask(
            source=unit.source,
            unit=unit.unit,
            seed=unit.seed,
            threshold=unit.threshold,
            kept=unit.kept,
            settings=counted.settings,
            wanted=wanted[members],
            postings=counted.postings[number],
        )
        tasks.append(task)
        places.append(members)
        sizes.append(counted.sizes[number])
    names = [f"names-{counted.settings.hashing.seed}-{task.unit.index:05}" for task in tasks]
    strings = [""] * len(hashes)
    terms = passes.run(
        titles.NAMES,
        find_in_unit,
        tasks,
        sizes,
        names=names,
        schema=Items(Text()),
        fits=lambda task, found: len(found) == len(task.wanted),
    )
    for members, found in zip(places, terms, strict=True):
        for place, term in zip(members, found, strict=True):
            strings[by_hash[place]] = term
    return strings


def _cover(counted: Counted, wanted: npt.NDArray[np.uint64]) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield units that together hold all wanted terms, by greedy set cover, with the terms to look up in each.

    A term is in many units, so few units hold nearly all terms; a corpus sorted by class needs about one per class.
    """
    holds = np.zeros((len(counted.postings), len(wanted)), np.bool_)
    for number, path in enumerate(counted.postings):
        postings = open_spilled(path)
        places = lookup(postings, slice(0, len(postings["hashes"])), wanted)
        holds[number, places[places >= 0]] = True
    while holds.any():
        number = int(holds.sum(axis=1).argmax())
        members = np.flatnonzero(holds[number])
        yield number, members
        holds[:, members] = False


@dataclass(frozen=True)
class FittedNgrams:
    """A fitted n-gram vectorizer, the hashes and weights of its columns, and its weighting of counts."""

    vectorizer: Vectorizer
    hashes: npt.NDArray[np.uint64]
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
    select = partial(_select, passes, classes=classes, class_counts=class_counts)
    if SELECTORS[settings.select].by_counts:
        chosen = select(counted, None, replace(weights, sublinear=False, idf=False))
        counted = _restricted(counted, chosen)
    norms = tuple(path.with_name(path.name.replace("run", "norms")) for path in counted.postings)
    weigh = partial(_weigh, buckets=counted.buckets, weights=weights, num_documents=num_documents)
    numbered = list(zip(range(len(norms)), counted.postings, norms, strict=True))
    passes.run(titles.NORMS, weigh, numbered, counted.sizes, names=[path.name for path in norms])
    if not SELECTORS[settings.select].by_counts:
        chosen = select(counted, norms, weights)
        if not weights.norm:  # then no row depends on the candidates that were not selected
            counted = _restricted(counted, chosen)
    facts = {"num_documents": num_documents}
    vectorizer = save_vectorizer(out, settings, facts, chosen.terms, _ngram_arrays(counted, chosen))
    return FittedNgrams(vectorizer, chosen.hashes, weights.of_terms(chosen.counts, num_documents), weights)


def _weigh(
    unit: tuple[int, Path, Path], *, buckets: tuple[tuple[Bucket, Path], ...], weights: Weights, num_documents: int
) -> None:
    number, path, out = unit
    ngrams.weigh_unit(path, number, buckets, weights, num_documents, out)


@dataclass(frozen=True, eq=False)
class _Chosen:
    """The chosen n-grams in column order."""

    hashes: npt.NDArray[np.uint64]
    counts: npt.NDArray[np.int64]
    first: npt.NDArray[np.uint64]
    scores: Float
    terms: list[str]


def _select(
    passes: Passes,
    counted: Counted,
    norms: tuple[Path, ...] | None,
    weights: Weights,
    *,
    classes: tuple[npt.NDArray[np.int64], ...],
    class_counts: npt.NDArray[np.int64],
) -> _Chosen:
    """Score the candidates and select the best: by weighted values if norms are given, else by counts."""
    settings = counted.settings
    assert isinstance(settings, NgramSettings)
    tasks = [
        ScoreTask(
            postings_paths=counted.postings,
            norms=norms,
            weights=weights,
            select=settings.select,
            classes=classes,
            class_counts=class_counts,
            bucket=bucket,
            candidates=path,
            keep=settings.max_features,
            budget=passes.budget,
            out=path.with_name(path.name.replace("bucket", "short")),
        )
        for bucket, path in counted.buckets
    ]
    share = [counted.num_candidates // len(tasks)] * len(tasks)
    names = [task.out.name for task in tasks]
    passes.run(titles.SELECT, ngrams.score_bucket, tasks, share, names=names, unit="n-grams")
    best_of = partial(_shortlisted, keep=settings.max_features)
    columns = _gathered([task.out for task in tasks], ("hashes", "counts", "first", "scores"), best_of)
    terms = _find(passes, counted, columns["hashes"])
    later_wins = SELECTORS[settings.select].later_wins
    best = selection.choose(columns["scores"], terms, settings.max_features, later_wins=later_wins)
    return _Chosen(**{name: column[best] for name, column in columns.items()}, terms=[terms[i] for i in best])


Columns = dict[str, npt.NDArray[Any]]


def _gathered(
    files: Sequence[Path], names: Sequence[str], best_of: Callable[[Columns], npt.NDArray[np.int64]]
) -> Columns:
    """Gather columns of scratch files, one after the other, holding only the best so far."""
    held: Columns = {}
    for path in files:
        file = open_spilled(path)
        held = {name: np.concatenate([held[name], file[name]]) if held else file[name] for name in names}
        best = best_of(held)
        held = {name: column[best] for name, column in held.items()}
    return held


def _shortlisted(columns: Columns, *, keep: int) -> npt.NDArray[np.int64]:
    return selection.shortlist(columns["scores"], keep)


def _most_frequent(columns: Columns, *, keep: int) -> npt.NDArray[np.int64]:
    return sequences.most_frequent(columns["counts"], columns["first"])[:keep]


def _restricted(counted: Counted, chosen: _Chosen) -> Counted:
    """Return the same, restricted to the chosen candidates."""
    by_hash = np.argsort(chosen.hashes)
    buckets = []
    for bucket, path in counted.buckets:
        part = by_hash[bucket.range(chosen.hashes[by_hash])]
        kept = path.with_name(path.name.replace("bucket", "kept"))
        merged = open_spilled(path)
        rank = np.full(len(merged["hashes"]) + 1, -1, np.int32)  # the last is that of no candidate, -1
        rank[np.searchsorted(merged["hashes"], chosen.hashes[part])] = np.arange(len(part))
        arrays = {"hashes": chosen.hashes[part], "counts": chosen.counts[part], "first": chosen.first[part]}
        spill(kept, {**arrays, "places": rank[merged["places"]], "starts": merged["starts"]})
        buckets.append((bucket, kept))
    return replace(counted, buckets=tuple(buckets), num_candidates=len(chosen.terms))


def _ngram_arrays(counted: Counted, chosen: _Chosen) -> dict[str, Iterator[npt.NDArray[np.generic]]]:
    """Yield the vectorizer's arrays, one bucket at a time."""
    by_hash = np.argsort(chosen.hashes)
    ordered = chosen.hashes[by_hash]

    def columns(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.int32]:
        found = np.full(len(hashes), -1, np.int32)
        places = np.searchsorted(hashes, ordered)
        inside = (places < len(hashes)) & (hashes[np.minimum(places, len(hashes) - 1)] == ordered)
        found[places[inside]] = by_hash[inside]
        return found

    merged = [path for _, path in counted.buckets]
    return {
        "hashes": (open_spilled(path)["hashes"] for path in merged),
        "counts": (open_spilled(path)["counts"].astype(np.uint32) for path in merged),
        "columns": (columns(open_spilled(path)["hashes"]) for path in merged if len(open_spilled(path)["hashes"])),
        "scores": iter([chosen.scores]),
    }


def fit_sequences(passes: Passes, counted: Counted, out: Path) -> tuple[Vectorizer, npt.NDArray[np.uint64]]:
    """Select the vocabulary and measure the longest document; return the vectorizer, saved in `out`, and its hashes.

    Raises:
        CorpusFormatError: the training documents contain no word.
    """
    settings = counted.settings
    assert isinstance(settings, SequenceSettings)
    keep = settings.max_features - 1  # id 0 is padding
    shorts = [path.with_name(path.name.replace("bucket", "short")) for _, path in counted.buckets]
    pairs = [(path, short) for (_, path), short in zip(counted.buckets, shorts, strict=True)]
    share = [counted.num_distinct // len(pairs)] * len(pairs)
    names = [path.name for path in shorts]
    passes.run(titles.SELECT, partial(_shorten, keep=keep), pairs, share, names=names, unit="words")
    vocabulary = _gathered(shorts, ("hashes", "counts", "first"), partial(_most_frequent, keep=keep))["hashes"]
    if not len(vocabulary):
        raise CorpusFormatError("the training documents contain no word; check --text-columns")
    measure = partial(sequences.longest, vocabulary=vocabulary)
    names = [path.name.replace("run", "length") for path in counted.postings]
    lengths = passes.run(titles.LONGEST, measure, counted.postings, counted.sizes, names=names, schema=Integer())
    facts = {"num_words": counted.num_distinct, "length": max(1, min(max(lengths), settings.max_length))}
    terms = _find(passes, counted, vocabulary)
    return save_vectorizer(out, settings, facts, terms, {"hashes": [vocabulary]}), vocabulary


def _shorten(paths: tuple[Path, Path], *, keep: int) -> None:
    sequences.shortlist_words(paths[0], keep, paths[1])
