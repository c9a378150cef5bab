"""Select the best n-grams by their scores, bucket by bucket; ties at the boundary are settled by the n-grams' strings.

Scores are written for all candidates, and what is held is what is chosen. Candidates that are tied at the boundary may
be nearly all of a corpus. A moderate number of them is named together with the chosen ones; of more, the best are first
found unit by unit (`vectorize.ties`).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import find_spilled, open_spilled, spill
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import Counted
from shardtrain.pipeline.naming import check_features, find_names
from shardtrain.pipeline.tying import settle
from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Integer
from shardtrain.vectorize import selection
from shardtrain.vectorize.buckets import Buckets
from shardtrain.vectorize.group_values import GroupValues
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.scoring import ScoreBuckets, scored_at_once
from shardtrain.vectorize.selection import SELECTORS, Boundary, find_boundary, ranked
from shardtrain.vectorize.settings import NgramSettings
from shardtrain.vectorize.ties import Tied
from shardtrain.vectorize.weights import Float, Weights

TIE_BYTES = 1024  # of the memory for each tied candidate that is named and then not chosen
# Of buckets that are scored together: enough that many workers end at about the same time.
_LEAST_GROUPS, _GROUPS_PER_WORKER = 16, 4
_MOST_BUCKETS = 256  # of a group: each takes a file descriptor


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
    norms: FileSet | None,
    weights: Weights,
    *,
    codes: dict[str, int],
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
    most = scored_at_once(settings.select, len(class_counts), passes.budget)
    groups = scored_together(counted.candidates, most, passes.executor.workers)
    name = f"scores-{counted.buckets.bits}-{checksum(repr(groups).encode())}"
    score = ScoreBuckets(
        runs=counted.runs,
        buckets=counted.buckets,
        norms=norms,
        values=_grouped_values(passes, counted, norms, codes) if counted.runs.grouped else None,
        weights=weights,
        select=settings.select,
        codes=codes,
        class_counts=class_counts,
        keep=keep,
        budget=passes.budget,
        outs=FileSet(passes.scratch / name, len(counted.buckets)).made(),
        best=FileSet(passes.scratch / f"best-{name}", len(groups)).made(),
    )
    share = [int(counted.candidates[group.start : group.stop].sum()) for group in groups]
    passes.do(titles.SELECT, score, list(enumerate(groups)), share, name=name, unit="n-grams")
    boundary = find_boundary((open_spilled(path)["scores"] for path in score.best), keep)
    columns = _gather(passes, counted, score.outs, boundary, groups, name, later_wins=later_wins)
    ids = TermIds.of(columns)
    terms = find_names(passes, counted, ids, columns["first"])
    best = selection.choose(columns["scores"], terms, keep, later_wins=later_wins)
    values = {each: columns[each][best] for each in ("counts", "first", "scores")}
    return Chosen(ids=ids.take(best), **values, terms=[terms[i] for i in best])


def scored_together(sizes: npt.NDArray[np.int64], most: int, workers: int) -> list[range]:
    """Group adjacent buckets of no more than `most` candidates, but into enough groups for all workers.

    Args:
        sizes: candidates of each bucket.
        most: candidates of a group, unless one bucket has more.
        workers: that score at once.
    """
    groups, start = [], 0
    ends = np.append(0, np.cumsum(sizes))
    most = min(most, int(ends[-1]) // max(_LEAST_GROUPS, _GROUPS_PER_WORKER * workers))
    for stop in range(1, len(sizes) + 1):
        if stop == len(sizes) or ends[stop + 1] - ends[start] > most or stop - start == _MOST_BUCKETS:
            groups.append(range(start, stop))
            start = stop
    return groups


def _grouped_values(passes: Passes, counted: Counted, norms: FileSet | None, codes: dict[str, int]) -> FileSet:
    """Write the values of all candidates, group by group of units, and return the files."""
    name = f"values-{counted.buckets.bits}"
    outs = FileSet(passes.scratch / name, len(counted.runs)).made()
    group = GroupValues(counted.runs, counted.buckets, norms, codes, passes.budget, outs)
    share = [counted.totals.num_terms // len(outs)] * len(outs)
    passes.do(titles.GROUP_VALUES, group, range(len(outs)), share, name=name, unit="terms")
    return outs


def _gather(
    passes: Passes,
    counted: Counted,
    scores: FileSet,
    boundary: Boundary,
    groups: list[range],
    name: str,
    *,
    later_wins: bool,
) -> dict[str, npt.NDArray[Any]]:
    """Gather the candidates above the boundary and those at it; of more than can be named, only those that are chosen.

    Raises:
        UsageError: memory has no room for their names.
    """
    room = max(boundary.room, passes.room // TIE_BYTES)
    name = f"chosen-{name}-{room}"
    files = FileSet(passes.scratch / name, len(groups)).made()
    pick = _PickBest(counted.buckets, scores, boundary.score, room, files)
    share = [int(counted.candidates[group.start : group.stop].sum()) for group in groups]
    how: dict[str, Any] = {"name": name, "unit": "n-grams", "schema": Integer()}
    num_tied = sum(passes.run(titles.CHOOSE, pick, list(enumerate(groups)), share, **how))
    kinds = ("above",) if num_tied > room else ("above", "tied")
    parts = [_columns_in(path, kind) for path in files for kind in kinds]
    columns = {each: np.concatenate([part[each] for part in parts]) for each in _COLUMNS}
    if num_tied > room:
        settled = settle(passes, counted, scores, boundary, later_wins=later_wins)
        columns = {each: np.concatenate([columns[each], settled[each]]) for each in _COLUMNS}
    return columns


_COLUMNS = tuple(Tied.COLUMNS)


def _columns_in(path: Path, kind: str) -> dict[str, npt.NDArray[Any]]:
    """Read what a file of `_PickBest` has of a kind."""
    names = [f"{kind}_{each}" for each in _COLUMNS]
    return dict(zip(_COLUMNS, find_spilled(path).read(**dict.fromkeys(names)), strict=True))


@dataclass(frozen=True)
class _PickBest:
    """Write the candidates of adjacent buckets above a score, and those at it if these are at most `room`.

    Returns how many there are at it.
    """

    buckets: Buckets
    scores: FileSet
    score: float
    room: int
    outs: FileSet

    def __call__(self, task: tuple[int, range]) -> int:
        number, chosen = task
        parts: dict[str, list[npt.NDArray[Any]]] = {f"{kind}_{name}": [] for kind in _KINDS for name in _COLUMNS}
        num_tied = 0
        for bucket in chosen:
            merged, values = open_spilled(self.buckets.files[bucket]), open_spilled(self.scores[bucket])["scores"]
            order = ranked(values)
            num_tied += int(np.count_nonzero(order == self.score))
            for kind, those in zip(_KINDS, (order > self.score, order == self.score), strict=True):
                here = np.flatnonzero(those if kind == "above" or num_tied <= self.room else [])
                for name in _COLUMNS:
                    parts[f"{kind}_{name}"].append((values if name == "scores" else merged[name])[here])
        spill(self.outs[number], {name: np.concatenate(columns) for name, columns in parts.items()})
        return num_tied


_KINDS = ("above", "tied")
