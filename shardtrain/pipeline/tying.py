"""Settle which of many tied candidates are chosen, by their strings, which only the texts hold.

All candidates of a corpus may be tied. They are listed bucket by bucket in the order in which they appear first, so
that a unit finds those that appear first in it, looks up their strings and keeps the best (`vectorize.ties`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import find_spilled, open_spilled, open_spilled_cached, spill
from shardtrain.arrays.texts import Texts
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import Counted
from shardtrain.pipeline.naming import check_names, strings_in
from shardtrain.pipeline.units import SplitSource, Units, UnitTask
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Integer
from shardtrain.vectorize.buckets import Buckets
from shardtrain.vectorize.groups import Runs
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.selection import Boundary, ranked
from shardtrain.vectorize.settings import CountedSettings
from shardtrain.vectorize.ties import Tied, beating, worst_string

_FIRST_ROUND = 4  # units, or groups of them; each further round doubles their number
_TIED_BYTES = 64  # memory of a tied candidate before its string is known
_UNIT = np.uint64(32)  # bits of `first` below the unit


def settle(
    passes: Passes, counted: Counted, scores: FileSet, boundary: Boundary, *, later_wins: bool
) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of the tied candidates that are chosen.

    In rounds, because the units of a round omit what loses against the best of the rounds before. Each round doubles
    the number of units, so that about as many terms come from all rounds but the first as there is room for.

    Raises:
        UsageError: memory has no room for their names.
    """
    listed = _listed(passes, counted, scores, boundary)
    held, rival = Tied.none(), None
    for number, numbers in enumerate(_rounds(len(counted.runs))):
        name, tasks = f"{listed.folder.name}-{number}", _Round(counted.units, counted.runs, numbers)
        files = FileSet(passes.scratch / name, len(tasks)).made()
        how = boundary.room, later_wins, rival, passes.budget, files
        settle_units = _SettleUnits(counted.units.split, counted.settings, counted.postings, listed, *how)
        passes.run(titles.TIES, settle_units, tasks, tasks.sizes, name=name, schema=Integer())
        for path in files:
            found = open_spilled(path)
            terms = Texts(found["data"], found["offsets"])
            held = held.joined(Tied({each: found[each] for each in Tied.COLUMNS}, terms))
            held = held.best(boundary.room, later_wins=later_wins)
            check_names(passes, len(held.terms.data))
        if len(held.terms) == boundary.room:
            rival = worst_string(held.terms, later_wins=later_wins)
    return held.columns


def _rounds(number: int) -> Iterator[range]:
    """Yield ranges that cover [0, number); they depend on nothing else, so a resumed build has the same."""
    start, stop = 0, _FIRST_ROUND
    while start < number:
        yield range(start, min(stop, number))
        start, stop = stop, 2 * stop


@dataclass(frozen=True)
class _Round(Sequence[tuple[int, list[UnitTask]]]):
    """Tasks: the units of the files of `runs` with some numbers, each with its place in the round."""

    units: Units
    runs: Runs
    numbers: range

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: Any) -> Any:
        return place, [self.units[number] for number in self.runs.units_of(self.numbers[place])]

    @property
    def sizes(self) -> list[int]:
        """Bytes of each task's units."""
        chosen = map(self.runs.units_of, self.numbers)
        return [int(self.units.sizes[units.start : units.stop].sum()) for units in chosen]


def _listed(passes: Passes, counted: Counted, scores: FileSet, boundary: Boundary) -> FileSet:
    """List the tied candidates of each bucket; return the files."""
    name = f"ties-{scores.folder.name}"
    files = FileSet(passes.scratch / name, len(counted.buckets)).made()
    listing = _ListTied(counted.buckets, scores, boundary.score, files)
    passes.do(titles.TIES, listing, range(len(files)), counted.candidates, name=name, unit="n-grams")
    return files


@dataclass(frozen=True)
class _ListTied:
    """Write the candidates of buckets with a score, in the order in which they appear first."""

    buckets: Buckets
    scores: FileSet
    score: float
    outs: FileSet

    def __call__(self, bucket: int) -> None:
        merged, values = open_spilled(self.buckets.files[bucket]), open_spilled(self.scores[bucket])["scores"]
        here = np.flatnonzero(ranked(values) == self.score)
        here = here[np.argsort(merged["first"][here])]
        columns = {name: merged[name][here] for name in Tied.COLUMNS if name != "scores"}
        spill(self.outs[bucket], {**columns, "scores": values[here]})


@dataclass(frozen=True)
class _SettleUnits:
    """Write the best of the tied candidates that appear first in some units; return how many there are.

    Attributes:
        split: of the units.
        settings: of the vectorizer.
        postings: of the units.
        listed: files of `_ListTied`.
        room: how many candidates are chosen in all.
        later_wins: whether the later strings are better.
        rival: `room` candidates of other units are at least as good as this string.
        budget: bytes for candidates whose strings are not known.
        outs: get the columns, and `data` and `offsets` of the strings, of at most `room` candidates.
    """

    split: SplitSource
    settings: CountedSettings
    postings: FileSet
    listed: FileSet
    room: int
    later_wins: bool
    rival: bytes | None
    budget: int
    outs: FileSet

    def __call__(self, task: tuple[int, list[UnitTask]]) -> int:
        place, units = task
        first = units[0].number
        held = Tied.none()
        for number, columns in self._tied_in(range(first, first + len(units))):
            best = self._best_of(units[number - first], columns)
            held = held.joined(best).best(self.room, later_wins=self.later_wins)
        spill(self.outs[place], {**held.columns, "data": held.terms.data, "offsets": held.terms.offsets})
        return len(held.terms)

    def _tied_in(self, units: range) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
        """Yield the tied candidates that appear first in each of some units, where there are any."""
        edges = np.array([units.start, units.stop], np.uint64) << _UNIT
        # Files are opened one at a time, because each takes a file descriptor.
        ranges = [slice(*np.searchsorted(open_spilled_cached(path)["first"], edges).tolist()) for path in self.listed]
        size = sum(part.stop - part.start for part in ranges)
        if size * _TIED_BYTES > self.budget and len(units) > 1:
            middle = len(units) // 2
            yield from self._tied_in(units[:middle])
            yield from self._tied_in(units[middle:])
            return
        parts: dict[str, list[npt.NDArray[Any]]] = {name: [] for name in Tied.COLUMNS}
        for path, part in zip(self.listed, ranges, strict=True):
            if part.start < part.stop:
                found = find_spilled(path).read(**dict.fromkeys(parts, part))
                for pieces, column in zip(parts.values(), found, strict=True):
                    pieces.append(column)
        if size:  # the pieces of a column are freed when it is joined, so that candidates are held once
            yield from _by_unit({name: np.concatenate(parts.pop(name)) for name in Tied.COLUMNS})

    def _best_of(self, unit: UnitTask, columns: dict[str, npt.NDArray[Any]]) -> Tied:
        postings = open_spilled(self.postings[unit.number])
        tied = Tied(columns, strings_in(self.split, unit, self.settings, postings, TermIds.of(columns)))
        if self.rival is not None:
            tied = tied.take(beating(tied.terms, self.rival, later_wins=self.later_wins))
        return tied.best(self.room, later_wins=self.later_wins)


def _by_unit(columns: dict[str, npt.NDArray[Any]]) -> Iterator[tuple[int, dict[str, npt.NDArray[Any]]]]:
    """Yield the tied candidates of each unit that some appear first in, by hash; the columns are sorted in place."""
    numbers = columns["first"] >> _UNIT
    order = np.lexsort((columns["checks"], columns["hashes"], numbers))
    found, starts = np.unique(numbers[order], return_index=True)
    del numbers
    for name in columns:
        columns[name] = columns[name][order]
    del order
    stops = [*starts[1:].tolist(), len(columns["first"])]
    for number, start, stop in zip(found.tolist(), starts.tolist(), stops, strict=True):
        yield number, {name: column[start:stop] for name, column in columns.items()}
