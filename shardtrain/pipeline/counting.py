"""Count the terms of a corpus: the postings of each unit, merged into buckets by hash.

Postings are a unit's terms with their counts, one file per unit. Memory does not depend on the vocabulary candidates of
the corpus, because buckets are as small as the memory requires.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from shardtrain.pipeline import titles
from shardtrain.pipeline.facts import Totals
from shardtrain.pipeline.units import CountTask, UnitTask, count_unit, fields_of, keep_every_class
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Integer, Row
from shardtrain.vectorize.counts import Bucket
from shardtrain.vectorize.merging import merge_bucket, plan_buckets
from shardtrain.vectorize.settings import CountedSettings, SequenceSettings

_MERGED = Row((Integer(), Integer()))  # distinct terms and candidates of a bucket


@dataclass(frozen=True)
class Counted:
    """A counted corpus: its postings, one file per unit, and the buckets of terms merged from them.

    `candidates` are the numbers of candidates in the buckets.
    """

    settings: CountedSettings
    units: tuple[UnitTask, ...]
    sizes: tuple[int, ...]
    postings: tuple[Path, ...]
    totals: Totals
    buckets: tuple[tuple[Bucket, Path], ...]
    num_distinct: int
    candidates: tuple[int, ...]

    @property
    def num_candidates(self) -> int:
        """Number of candidates of all buckets."""
        return sum(self.candidates)


Check = Callable[[Totals], object]


def count(
    passes: Passes, units: Sequence[UnitTask], sizes: Sequence[int], settings: CountedSettings, *, check: Check
) -> Counted:
    """Count the terms of the units' training documents.

    Args:
        passes: runs the tasks.
        units: of the corpus.
        sizes: of the units, for the progress bar.
        settings: of the vectorizer.
        check: called with the totals of all units after they are counted, to refuse a corpus before the later passes.

    Raises:
        UsageError: max_df corresponds to fewer documents than min_df, or memory has no room for terms with one hash.
    """
    postings = [passes.scratch / f"run-{task.unit.index:05}" for task in units]
    title = titles.COUNT_WORDS if isinstance(settings, SequenceSettings) else titles.COUNT
    facts = _count_units(passes, title, units, sizes, settings, postings)
    units, totals, changed = keep_every_class(units, facts)
    check(totals)
    for i in changed:
        postings[i] = postings[i].with_name(f"{postings[i].name}-kept")
    if changed:  # their postings lack the documents that stay in training
        again = ([units[i] for i in changed], [sizes[i] for i in changed], settings, [postings[i] for i in changed])
        for i, found in zip(changed, _count_units(passes, titles.KEEP, *again), strict=True):
            facts[i] = found
        totals = Totals.of(facts)
    least, most = settings.document_range(totals.train.total())
    planned = plan_buckets(totals.num_terms, passes.budget)
    buckets = tuple((b, passes.scratch / f"bucket-{b.bits}-{b.number:05}") for b in planned)
    share = [totals.num_terms // len(buckets)] * len(buckets)
    merge = partial(_merge, postings=tuple(postings), least=least, most=most, budget=passes.budget)
    names = [path.name for _, path in buckets]
    merged = passes.run(titles.MERGE, merge, buckets, share, names=names, unit="terms", schema=_MERGED)
    return Counted(
        settings=settings,
        units=tuple(units),
        sizes=tuple(sizes),
        postings=tuple(postings),
        totals=totals,
        buckets=buckets,
        num_distinct=sum(distinct for distinct, _ in merged),
        candidates=tuple(kept for _, kept in merged),
    )


def _count_units(
    passes: Passes,
    title: str,
    units: Sequence[UnitTask],
    sizes: Sequence[int],
    settings: CountedSettings,
    postings: Sequence[Path],
) -> list[Path]:
    """Run a pass that writes the postings of units; return the files of their facts."""
    tasks = [
        CountTask(
            **fields_of(task),
            settings=settings,
            out=out,
            facts=out.with_name(f"{out.name}.facts"),
        )
        for task, out in zip(units, postings, strict=True)
    ]
    names = [path.name for path in postings]
    passes.run(title, count_unit, tasks, sizes, names=names)
    return [task.facts for task in tasks]


def _merge(
    bucket: tuple[Bucket, Path], *, postings: tuple[Path, ...], least: int, most: int | None, budget: int
) -> tuple[int, int]:
    return merge_bucket(postings, bucket[0], bucket[1], min_count=least, max_count=most, budget=budget)
