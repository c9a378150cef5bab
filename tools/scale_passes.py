"""Compute the passes of a build that is too large to be run: tasks, files and bytes of each.

How many units, groups, buckets, batches, pieces and shards there are is asked of the functions that the build plans
with. How many files a task opens follows from what it reads, which is written down here beside each pass; the test
compares it with a build. Bytes and seconds are ratios of a measured build (`scale_measured`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from scale_measured import CANDIDATES, CHOSEN, GROUPED, PLAIN, TEXT, Measured, PassMeasured

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import HEADER_BYTES
from shardtrain.corpus.cutting import ALONE_BYTES, chunk_bytes
from shardtrain.pipeline import titles
from shardtrain.pipeline.build import unit_bytes
from shardtrain.pipeline.fitting import weighed_together
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.placing import num_pieces, row_bytes_of
from shardtrain.pipeline.plan import counting_titles
from shardtrain.pipeline.planning import MAX_NONZEROS, bin_bits, files_counted, first_rows, mark_tasks
from shardtrain.pipeline.selecting import scored_together
from shardtrain.runtime.passes import Workers
from shardtrain.shards.write import ShardShape
from shardtrain.vectorize.buckets import TOP_BITS, plan_buckets
from shardtrain.vectorize.group_values import value_bytes
from shardtrain.vectorize.groups import Batches, Runs, files_together, fold_bytes, num_steps
from shardtrain.vectorize.merging import MERGED
from shardtrain.vectorize.scoring import scored_at_once
from shardtrain.vectorize.selection import SELECTORS
from shardtrain.vectorize.settings import NgramSettings, SequenceSettings
from shardtrain.vectorize.weights import weights_of

_PLACE = 8  # bytes of an item that says where something begins


@dataclass(frozen=True, kw_only=True)
class Pass:
    """What a pass does, in all of its tasks together.

    Attributes:
        title: of the pass.
        tasks: how many there are.
        texts: files of the corpus, or units of them, that are opened.
        found: scratch files whose header is read.
        opened: times that a scratch file is opened to be read, for its header or for a range.
        made: files that are written.
        read, written: bytes.
        seconds: of CPU.
    """

    title: str
    tasks: int
    texts: int = 0
    found: int = 0
    opened: int = 0
    made: int = 0
    read: int = 0
    written: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """A build of a corpus in one file, of which a fraction of the documents is held out.

    Attributes:
        num_bytes: of the corpus.
        document_bytes: on average, of the corpus.
        classes: of its labels.
        options: of the build.
        cores: of all machines, each of which runs a task if memory allows it.
        workers: tasks of a process.
        memory_limit: of these processes.
        measured: ratios.
    """

    num_bytes: int
    document_bytes: float
    classes: int
    options: BuildOptions
    cores: int
    workers: Workers
    memory_limit: int
    measured: Measured

    @cached_property
    def settings(self) -> NgramSettings | SequenceSettings:
        """Those of the vectorizer."""
        found = self.options.settings(self.measured.vectorizer)
        assert isinstance(found, NgramSettings | SequenceSettings)
        return found

    @cached_property
    def scale(self) -> float:
        """How many times as large as the sample the corpus is."""
        return self.num_bytes / self.measured.num_bytes

    @cached_property
    def budget(self) -> int:
        """Bytes of a task."""
        return self.workers.task_budget(self.memory_limit)

    @cached_property
    def units(self) -> int:
        """How many units there are."""
        cells = -(-self.num_bytes // unit_bytes(self.settings.density))
        return max(1, min(cells, round(self.num_bytes / self.document_bytes)))

    @cached_property
    def terms(self) -> int:
        """Distinct terms of each unit, added up."""
        return round(self.measured.terms * self.scale)

    @cached_property
    def candidates(self) -> int:
        """Candidates of all buckets."""
        return self.measured.candidates_of(self.num_bytes)

    @cached_property
    def runs(self) -> Runs:
        """The files of postings, none of which exists."""
        width = files_together(self.units)
        bits = plan_buckets(self.terms, self.budget)
        return Runs(FileSet(Path(), self.units), FileSet(Path(), -(-self.units // width)), bits, width)

    @cached_property
    def buckets(self) -> int:
        """How many buckets there are."""
        return 1 << self.runs.bits

    @cached_property
    def scored(self) -> list[range]:
        """Groups of buckets that are scored together."""
        assert isinstance(self.settings, NgramSettings)
        sizes = np.random.default_rng(0).poisson(self.candidates / self.buckets, self.buckets)  # hashes are uniform
        at_once = scored_at_once(self.settings.select, self.classes, self.budget)
        return scored_together(sizes, at_once, max(self.workers.number, self.cores))

    def rows(self, split: str) -> int:
        """Return the rows of a split."""
        found = self.measured.rows.get(split, 0) / sum(self.measured.rows.values())
        return round(self.num_bytes / self.document_bytes * found)

    def shape(self, split: str) -> ShardShape:
        """Return the shape of the largest shard of a split."""
        each = self.measured.nonzeros[split] / self.measured.rows[split]
        each *= self.document_bytes / (self.measured.num_bytes / self.measured.documents)
        rows = self.options.rows_per_shard
        while rows > 1 and rows * each > MAX_NONZEROS:
            rows = -(-rows // 2)
        rows = min(rows, self.rows(split))
        return ShardShape(
            kind=self.measured.vectorizer,
            rows=rows,
            num_features=self.measured.num_features,
            nonzeros=round(rows * each),
            num_classes=self.classes,
            vocabulary_size=self.measured.vocabulary_size,
        )

    def passes(self) -> Iterator[Pass]:
        """Yield the passes of the build, in order, but for those that only some corpora need."""
        counting = counting_titles(self.settings, many=self.runs.grouped)
        splits = [split for split in self.measured.rows if self.rows(split)]
        chunk = chunk_bytes(unit_bytes(self.settings.density))
        chunks = 1 if self.num_bytes < ALONE_BYTES else -(-self.num_bytes // chunk)
        yield self._pass(titles.SCAN, chunks, texts=chunks, read=self.num_bytes)
        of_title = {
            titles.COUNT: self._counting,
            titles.COUNT_WORDS: self._counting,
            titles.GROUP: self._grouping,
            titles.MERGE: self._merging,
            titles.NORMS: self._weighing,
            titles.GROUP_VALUES: self._grouping_values,
            titles.SELECT: self._selecting,
            titles.CHOOSE: self._choosing,
            titles.LONGEST: self._measuring,
            titles.NAMES: self._naming,
        }
        for title in counting:
            yield of_title[title](title)
        yield self._vectorizing()
        for split in splits:
            if split != "train":
                title = titles.VECTORIZE_SPLIT[split]
                yield self._pass(title, self.units, texts=self.units, made=self.units, read=self.num_bytes)
        if self.runs.grouped:
            yield self._grouping_rows(splits)
        for split in splits:
            yield self._planning(split)
            yield self._writing(split)

    def _pass(self, title: str, tasks: int, *, finds: int = 0, reads: int = 0, **counts: int) -> Pass:
        """Return a pass; `finds` and `reads` are files whose header or another range is read.

        `counts` may have texts, made, and bytes `read` and `written` beside those that are measured.
        """
        variant = GROUPED if self.runs.grouped else PLAIN
        found = self.measured.passes[variant].get(title, PassMeasured())
        of_text = self.scale if title != titles.NAMES else tasks / max(1, found.made)
        growth = {
            TEXT: of_text,
            CANDIDATES: self.candidates / self.measured.candidates_of(self.measured.num_bytes),
            CHOSEN: 1.0,
        }
        measured = {
            name: sum(round(size * growth.get(key, 0.0)) for key, size in getattr(found, name).items())
            for name in ("read", "written")
        }
        header = found.headers // max(1, found.made)
        made = counts.get("made", 0)
        return Pass(
            title=title,
            tasks=tasks,
            texts=counts.get("texts", 0),
            found=finds,
            opened=finds + reads,
            made=made,
            read=measured["read"] + counts.get("read", 0) + finds * HEADER_BYTES,
            written=measured["written"] + counts.get("written", 0) + made * header,
            seconds=found.seconds * growth[CANDIDATES if title == titles.CHOOSE else TEXT],
        )

    @property
    def _finds(self) -> int:
        """How many ranges are read to find a bucket in the postings of a unit."""
        return 1 + (self.runs.bits > TOP_BITS)

    def _groups(self) -> Iterator[tuple[int, int]]:
        """Yield the units of a group, and how many groups have so many: all but the last have the same."""
        yield len(self.runs.units_of(0)), len(self.runs) - 1
        yield len(self.runs.units_of(len(self.runs) - 1)), 1

    def _steps(self, units: int, needed: int) -> tuple[int, int]:
        """Return in how many steps a group is written, and how many ranges are read to find where these begin."""
        steps = num_steps(self.runs.bits, needed, self.budget)
        return steps, (steps - 1) * units * self._finds

    def _counting(self, title: str) -> Pass:
        return self._pass(title, self.units, texts=self.units, made=self.units, read=self.num_bytes)

    def _grouping(self, title: str) -> Pass:
        reads = 0
        for units, number in self._groups():
            steps, ranges = self._steps(units, fold_bytes(units * self.terms // self.units))
            reads += number * (steps * units + ranges)
        places = (self.units * self.buckets + len(self.runs)) * _PLACE
        return self._pass(title, len(self.runs), finds=self.units, reads=reads, made=len(self.runs), written=places)

    def _merging(self, title: str) -> Pass:
        pairs = self.buckets * len(self.runs)
        reads = pairs * (1 + (1 if self.runs.grouped else self._finds))
        places = self.buckets * (self.units + len(self.runs)) * _PLACE if self.runs.grouped else 0
        written = self.buckets * (len(self.runs) + 1) * _PLACE
        return self._pass(
            title, self.buckets, finds=pairs, reads=reads, made=self.buckets, read=places, written=written
        )

    def _weighing(self, title: str) -> Pass:
        batches = Batches(self.runs, weighed_together(max(1, self.terms // self.units), self.budget))
        pairs = len(batches) * self.buckets if self.runs.grouped else 0
        mapped = self.units + (0 if self.runs.grouped else self.buckets)  # buckets are mapped once per process
        places = pairs * (self.runs.width + 2) * _PLACE
        return self._pass(title, len(batches), finds=mapped + 2 * pairs, reads=3 * pairs, made=self.units, read=places)

    def _grouping_values(self, title: str) -> Pass:
        assert isinstance(self.settings, NgramSettings)
        files = 2 if SELECTORS[self.settings.select].by_counts else 3  # postings, twice, and norms
        reads, norms = 2 * self.buckets * len(self.runs), 0
        for units, number in self._groups():
            share = units / self.units
            needed = value_bytes(round(self.terms * share), round(self.measured.entries * self.scale * share))
            steps, ranges = self._steps(units, needed)
            reads += number * (steps * units * 2 + ranges)
            norms += number * steps * units * (files - 2)
        finds = self.units + self.buckets * len(self.runs) + norms
        written = 2 * len(self.runs) * (self.buckets + 1) * _PLACE
        return self._pass(title, len(self.runs), finds=finds, reads=reads, made=len(self.runs), written=written)

    def _selecting(self, title: str) -> Pass:
        keep, each = min(self.settings.max_features, self.candidates), self.candidates // self.buckets
        if isinstance(self.settings, SequenceSettings):
            item_bytes = sum(np.dtype(dtype).itemsize for dtype in MERGED.values())
            best = self.buckets * min(keep, each) * item_bytes
            return self._pass(title, self.buckets, finds=self.buckets, made=self.buckets, written=best)
        most = scored_at_once(self.settings.select, self.classes, self.budget)
        pieces = sum(max(1, -(-len(group) * each // most)) for group in self.scored)
        pairs = pieces * len(self.runs)
        norms = 0 if self.runs.grouped or SELECTORS[self.settings.select].by_counts else pairs
        reads = pairs * (3 if self.runs.grouped else 2 + self._finds) + norms
        made = self.buckets + len(self.scored)
        best = sum(min(keep, len(group) * each) for group in self.scored) * np.dtype(np.float64).itemsize
        finds = self.buckets + pairs + norms
        return self._pass(title, len(self.scored), finds=finds, reads=reads, made=made, written=best)

    def _choosing(self, title: str) -> Pass:
        assert isinstance(self.settings, NgramSettings)
        restricted = SELECTORS[self.settings.select].by_counts or not weights_of(self.settings).norm
        again = self.buckets if restricted else 0  # buckets that are written again, with the chosen candidates alone
        tasks, places = len(self.scored) + again, again * (len(self.runs) + 1) * _PLACE
        return self._pass(title, tasks, finds=2 * self.buckets + again, made=tasks, written=places)

    def _measuring(self, title: str) -> Pass:
        return self._pass(title, self.units, finds=self.units)

    def _naming(self, title: str) -> Pass:
        """At most: each feature may appear first in a unit of its own."""
        units = min(self.units, self.settings.max_features)
        size = units * self.num_bytes // self.units
        return self._pass(title, units, texts=units, finds=units, made=units, read=size)

    def _vectorizing(self) -> Pass:
        files = 3 if isinstance(self.settings, NgramSettings) else 2  # postings, twice, and norms
        return self._pass(titles.VECTORIZE, self.units, finds=files * self.units, made=self.units)

    def _row_files(self) -> int:
        return -(-self.units // files_together(self.units))

    def _grouping_rows(self, splits: list[str]) -> Pass:
        opened = 0
        for split in splits:
            each = self._row_file_bytes(split) * self.runs.width
            rows = max(1, self.rows(split) * self.runs.width // self.units)
            opened += self.units * (1 + num_pieces(rows, each // rows, self.budget))
        number = self._row_files() * len(splits)
        return self._pass(titles.GROUP_ROWS, number, finds=opened, made=number)

    def _row_file_bytes(self, split: str) -> int:
        """Return the bytes of the rows of a unit."""
        title = titles.VECTORIZE_SPLIT[split]
        return self._pass(title, self.units).written // self.units

    def _planning(self, split: str) -> Pass:
        files, total = self._row_files(), self.rows(split)
        counts = len(files_counted(files))
        starts = np.arange((1 << bin_bits(files)) + 1) * total >> bin_bits(files)
        shape = self.shape(split)
        tasks = len(mark_tasks(starts, first_rows(total, shape.rows), self.budget))
        histograms = counts * 2 * _PLACE << bin_bits(files)
        title = titles.plan_shards(split)
        return self._pass(title, counts + tasks, finds=files * (1 + tasks), made=counts, written=histograms)

    def _writing(self, split: str) -> Pass:
        shape = self.shape(split)
        shards = 1 + len(first_rows(self.rows(split), shape.rows))
        pieces = num_pieces(shape.rows, row_bytes_of(shape), self.budget)
        return self._pass(titles.write_shards(split), shards, finds=shards * pieces * self._row_files(), made=shards)

    @property
    def vectorizer_bytes(self) -> int:
        """Bytes of the saved vectorizer, but for what its features take."""
        growth = self.candidates / self.measured.candidates_of(self.measured.num_bytes)
        return round(self.measured.vectorizer_bytes * growth)

    def files(self) -> int:
        """Return the number of files that exist when the build ends."""
        return sum(each.made for each in self.passes())

    def disk(self) -> int:
        """Return the bytes of all files that are written, which stay until the build ends."""
        return sum(each.written for each in self.passes()) + self.vectorizer_bytes

    def hours(self) -> float:
        """Return the hours of one core."""
        return math.fsum(each.seconds for each in self.passes()) / 3600
