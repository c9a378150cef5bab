"""Select the best n-grams by their scores, bucket by bucket; ties at the boundary are settled by the n-grams' strings.

Scores are written for all candidates, and what is held is what is chosen. Candidates that are tied at the boundary may
be nearly all of a corpus. A moderate number of them is named together with the chosen ones; of more, the best are first
found unit by unit (`vectorize.ties`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import open_spilled
from shardtrain.arrays.texts import Texts
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import Counted
from shardtrain.pipeline.naming import check_features, check_names, find_names
from shardtrain.pipeline.units import TieTask, fields_of, settle_in_unit
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Integer
from shardtrain.vectorize import ngrams, selection
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.ngrams import ScoreTask
from shardtrain.vectorize.selection import SELECTORS, Boundary, find_boundary, ranked
from shardtrain.vectorize.settings import NgramSettings
from shardtrain.vectorize.ties import Tied, worst_string
from shardtrain.vectorize.weights import Float, Weights

TIE_BYTES = 1024  # of the memory for each tied candidate that is named and then not chosen
_LEAST_GROUPS = 16  # of buckets that are scored together, so that many workers end at the same time
_FIRST_ROUND = 4  # units; each further round doubles their number


@dataclass(frozen=True, eq=False)
class Chosen:
    """The chosen n-grams in column order."""

    ids: TermIds
    counts: npt.NDArray[np.int64]
    first: npt.NDArray[np.uint64]
    scores: Float
    terms: list[str]


def select_ngrams(
    passes: Passes,
    counted: Counted,
    norms: tuple[Path, ...] | None,
    weights: Weights,
    *,
    classes: tuple[npt.NDArray[np.int64], ...],
    class_counts: npt.NDArray[np.int64],
) -> Chosen:
    """Score the candidates and select the best: by weighted values if norms are given, else by counts.

    Raises:
        UsageError: memory has no room for so many features, or for their names.
    """
    settings = counted.settings
    assert isinstance(settings, NgramSettings)
    keep, later_wins = min(settings.max_features, counted.num_candidates), SELECTORS[settings.select].later_wins
    check_features(passes, keep)
    scores = tuple(path.with_name(path.name.replace("bucket", "scores")) for _, path in counted.buckets)
    groups = _groups(counted.candidates, ngrams.scored_at_once(settings.select, len(class_counts), passes.budget))
    tasks = [
        ScoreTask(
            postings_paths=counted.postings,
            norms=norms,
            weights=weights,
            select=settings.select,
            classes=classes,
            class_counts=class_counts,
            bucket=counted.buckets[group.start][0],
            candidates=tuple(path for _, path in counted.buckets[group]),
            budget=passes.budget,
            outs=scores[group],
        )
        for group in groups
    ]
    share = [sum(counted.candidates[group]) for group in groups]
    names = [f"{task.outs[0].name}-{len(task.outs)}" for task in tasks]
    passes.run(titles.SELECT, ngrams.score_buckets, tasks, share, names=names, unit="n-grams")
    boundary = find_boundary((open_spilled(path)["scores"] for path in scores), keep)
    settled = None
    if _count_tied(scores, boundary) > max(boundary.room, passes.room // TIE_BYTES):
        settled = _settle(passes, counted, scores, boundary, later_wins=later_wins)
    columns = _gather(counted, scores, boundary, settled)
    ids = TermIds.of(columns)
    terms = find_names(passes, counted, ids)
    best = selection.choose(columns["scores"], terms, keep, later_wins=later_wins)
    values = {name: columns[name][best] for name in ("counts", "first", "scores")}
    return Chosen(ids=ids.take(best), **values, terms=[terms[i] for i in best])


def _groups(sizes: Sequence[int], most: int) -> list[slice]:
    """Group adjacent buckets of no more than `most` candidates, but into enough groups for all workers."""
    groups, start = [], 0
    most = min(most, sum(sizes) // _LEAST_GROUPS)
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or sum(sizes[start : stop + 1]) > most:
            groups.append(slice(start, stop))
            start = stop
    return groups


def _count_tied(scores: Sequence[Path], boundary: Boundary) -> int:
    """Count the candidates with the score of the boundary."""
    return sum(int(np.count_nonzero(ranked(open_spilled(path)["scores"]) == boundary.score)) for path in scores)


def _gather(
    counted: Counted, scores: Sequence[Path], boundary: Boundary, settled: TermIds | None
) -> dict[str, npt.NDArray[Any]]:
    """Gather the candidates above the boundary and those at it, of these only the `settled` ones if they are given."""
    of_merged = ("hashes", "checks", "counts", "first")
    parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in (*of_merged, "scores")}
    for (_, path), of_bucket in zip(counted.buckets, scores, strict=True):
        merged, values = open_spilled(path), open_spilled(of_bucket)["scores"]
        order = ranked(values)
        chosen = np.flatnonzero(order >= boundary.score)
        if settled is not None:
            tied = order[chosen] == boundary.score
            chosen = chosen[~tied | (settled.find(TermIds.of(merged).take(chosen)) >= 0)]
        for name in of_merged:
            parts[name].append(merged[name][chosen])
        parts["scores"].append(values[chosen])
    return {name: np.concatenate(columns) for name, columns in parts.items()}


def _settle(
    passes: Passes, counted: Counted, scores: tuple[Path, ...], boundary: Boundary, *, later_wins: bool
) -> TermIds:
    """Return the tied candidates that are chosen, ascending.

    In rounds, because the units of a round omit what loses against the best of the rounds before. Each round doubles
    the number of units, so that about as many terms come from all rounds but the first as there is room for.

    Raises:
        UsageError: memory has no room for their names.
    """
    held = Tied(TermIds.none(), Texts.from_strings([]))
    rival = None
    for numbers in _rounds(len(counted.units)):
        tasks = [
            TieTask(
                **fields_of(counted.units[number]),
                settings=counted.settings,
                number=number,
                postings=counted.postings[number],
                buckets=counted.buckets,
                scores=scores,
                score=boundary.score,
                room=boundary.room,
                later_wins=later_wins,
                rival=rival,
                out=path.with_name(path.name.replace("run", "ties")),
            )
            for number, path in ((number, counted.postings[number]) for number in numbers)
        ]
        sizes = counted.sizes[numbers.start : numbers.stop]
        names = [task.out.name for task in tasks]
        passes.run(titles.TIES, settle_in_unit, tasks, sizes, names=names, schema=Integer())
        for task in tasks:
            found = open_spilled(task.out)
            held = held.joined(Tied(TermIds.of(found), Texts(found["data"], found["offsets"])))
            held = held.best(boundary.room, later_wins=later_wins)
            check_names(passes, len(held.terms.data))
        if len(held.ids) == boundary.room:
            rival = worst_string(held.terms, later_wins=later_wins)
    return held.ids.sorted()


def _rounds(number: int) -> Iterator[range]:
    """Yield ranges that cover [0, number); they depend on nothing else, so a resumed build has the same."""
    start, stop = 0, _FIRST_ROUND
    while start < number:
        yield range(start, min(stop, number))
        start, stop = stop, 2 * stop
