"""Process one unit of a corpus: pure functions of its bytes that an executor runs, with results in scratch files.

A function gets what all units have in common, such as the source and the names of files, once per pass, and a
`UnitTask` for each unit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus.blank import blank_texts
from shardtrain.corpus.labels import MAX_CLASSES
from shardtrain.corpus.readers import read_unit
from shardtrain.corpus.source import Documents, Source, Unit
from shardtrain.corpus.unit_table import UnitTable
from shardtrain.corpus.words import count_words
from shardtrain.loader.order import document_keys
from shardtrain.pipeline.facts import MAX_LISTED, UNIT_FACTS, Gathered, Totals, UnitFacts, forget_labels
from shardtrain.pipeline.holdout import ALL_HELD_OUT, Spare, spare_documents, trains
from shardtrain.runtime.passes import Passes
from shardtrain.vectorize.indexing import index_ngrams, index_words
from shardtrain.vectorize.settings import NgramSettings, SequenceSettings


@dataclass(frozen=True, kw_only=True)
class SplitSource:
    """What the units of a split have in common; their documents with keys of at least `threshold` train."""

    source: Source
    seed: int
    threshold: int


@dataclass(frozen=True)
class UnitTask:
    """A unit; its documents with the ordinals `kept` train, whatever their keys are."""

    unit: Unit
    kept: tuple[int, ...] = ()

    @property
    def number(self) -> int:
        """Index among the units of the split, and of their files."""
        return self.unit.index


@dataclass(frozen=True)
class Units(Sequence[UnitTask]):
    """The units of a split, each made when it is asked for.

    Attributes:
        split: what they have in common.
        table: the ranges of the source.
        kept: ordinals of documents that train whatever their keys are, by the number of their unit.
    """

    split: SplitSource
    table: UnitTable
    kept: Mapping[int, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return UnitTask(self.table[index], self.kept.get(index, ()))

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Bytes of each unit, (units,)."""
        return self.table.num_bytes


def load_kernels() -> None:
    """Load compiled kernels and Unicode tables, which the first unit would wait for."""
    text = Texts.from_strings(["w\u00f6rd"])
    index_ngrams(NgramSettings(), text)
    index_words(SequenceSettings(), text)


def read(split: SplitSource, task: UnitTask) -> tuple[Documents, npt.NDArray[np.uint64], npt.NDArray[np.bool_]]:
    """Read a unit: its documents, their keys, and which of them train."""
    documents = read_unit(split.source, task.unit)
    return documents, document_keys(documents.ordinals, split.seed), in_training(split, task, documents.ordinals)


def in_training(split: SplitSource, task: UnitTask, ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return which documents of a unit train."""
    return trains(document_keys(ordinals, split.seed), ordinals, split.threshold, task.kept)


def keep_every_class(units: Units, gathered: Gathered) -> tuple[Units, Totals]:
    """Keep a document in training of each label that would lose all of them to the validation fraction.

    Args:
        units: of the corpus.
        gathered: their facts.

    Returns:
        the units, of which those in `kept` changed, and the totals of their facts as they are then, but for terms.

    Raises:
        LabelError: there are more labels than classes are supported.
    """
    totals = gathered.totals()
    if totals.held_out.keys() <= totals.train.keys():
        return units, totals
    kept: dict[int, list[int]] = {}
    for label, (_, ordinal) in gathered.spares.items():
        if label not in totals.train:
            number = int(np.searchsorted(units.table.first_document, ordinal, side="right")) - 1
            kept.setdefault(number, []).append(ordinal)
            totals.train[label] += 1
            totals.held_out[label] -= 1
    totals.held_out = +totals.held_out  # without labels that occur no more
    return replace(units, kept={number: tuple(sorted(kept[number])) for number in sorted(kept)}), totals


def gather(
    passes: Passes,
    title: str,
    function: Callable[[UnitTask], UnitFacts],
    units: Units,
    *,
    name: str,
) -> Gathered:
    """Run a pass that returns facts of all units, and add them up; the arguments are those of `Passes.stream`."""
    found = Gathered(len(units))
    how: dict[str, Any] = {
        "name": name,
        "schema": UNIT_FACTS,
        "encode": UnitFacts.as_record,
        "decode": UnitFacts.from_record,
    }
    for number, facts in passes.stream(title, function, units, units.sizes, **how):
        found.add(number, facts)
    return found


def survey(passes: Passes, units: Units, title: str, *, words: bool = False) -> Gathered:
    """Count the labels of all units' documents, and with `words` their lengths in words."""
    return gather(passes, title, partial(survey_unit, units.split, words=words), units, name=title.replace(" ", "-"))


def survey_unit(split: SplitSource, task: UnitTask, *, words: bool) -> UnitFacts:
    """Count labels, and with `words` training documents by number of words (split at white space, as in the guide)."""
    documents, keys, train = read(split, task)
    chosen = documents.texts.take(np.flatnonzero(train)) if words else ()
    return facts_of(split, documents, keys, train, words=Counter(map(count_words, chosen)))


def facts_of(
    split: SplitSource,
    documents: Documents,
    keys: npt.NDArray[np.uint64],
    train: npt.NDArray[np.bool_],
    *,
    num_terms: int = 0,
    words: Mapping[int, int],
) -> UnitFacts:
    """Return the facts of a unit that was read; the arguments are what `read` returns, and counts."""
    trained, held_out = Counter(compress(documents.labels, train)), Counter(compress(documents.labels, ~train))
    spares: dict[str, Spare] = {}
    if split.threshold < ALL_HELD_OUT and len(held_out) <= MAX_CLASSES:
        spares = spare_documents(
            list(compress(documents.labels, ~train)), keys[~train], documents.ordinals[~train], trained
        )
    for counts in (trained, held_out):
        forget_labels(counts, MAX_CLASSES)
    return UnitFacts(
        train=trained,
        held_out=held_out,
        num_bad_rows=len(documents.bad_rows),
        bad_rows=documents.bad_rows[:MAX_LISTED],
        num_replaced=documents.num_replaced,
        num_blank=int(np.count_nonzero(blank_texts(documents.texts, columns=max(1, len(split.source.text_columns))))),
        num_terms=num_terms,
        words=words,
        spares=spares,
    )
