"""Look up the strings of chosen terms, which only the texts hold, and refuse features that memory has no room for.

The strings of all features are in memory when a vectorizer is saved or loaded, so their number is limited by the
memory, and so are their bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import SpilledArrays, open_spilled, spill
from shardtrain.arrays.texts import Texts
from shardtrain.corpus.readers import read_unit
from shardtrain.errors import ScratchError, UsageError
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import Counted
from shardtrain.pipeline.units import SplitSource, UnitTask
from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.quantities import size
from shardtrain.runtime.schema import Integer
from shardtrain.vectorize.counts import first_documents
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.indexing import prepare_texts, tokenizer_of
from shardtrain.vectorize.settings import CountedSettings
from shardtrain.vectorize.tokens import find_terms

# Memory of a feature while it is named, saved and loaded, and of each byte of its name.
FEATURE_BYTES, NAME_BYTES = 256, 8


def check_features(passes: Passes, number: int) -> None:
    """Refuse more features than memory has room for.

    Raises:
        UsageError: there is no room for this number.
    """
    if number > passes.room // FEATURE_BYTES:
        raise UsageError(
            f"{number:,} features would be chosen, --memory-limit has room for {passes.room // FEATURE_BYTES:,}; "
            "lower --max-features, or raise --memory-limit"
        )


def check_names(passes: Passes, num_bytes: int) -> None:
    """Refuse features whose names take more memory than there is.

    Raises:
        UsageError: there is no room for names of this many bytes.
    """
    if num_bytes * NAME_BYTES > passes.room:
        raise UsageError(
            f"the names of the features have {size(num_bytes)}, --memory-limit has room for "
            f"{size(passes.room // NAME_BYTES)}: the texts have very long words; lower --max-features, or "
            "raise --memory-limit"
        )


def find_names(passes: Passes, counted: Counted, ids: TermIds, firsts: npt.NDArray[np.uint64]) -> list[str]:
    """Look up the strings of terms, each in the unit in which it appears first.

    Args:
        passes: runs the tasks.
        counted: the corpus.
        ids: of the terms.
        firsts: where they appear first, as merged buckets have it.

    Raises:
        UsageError: there is no room for them.
    """
    by_unit = np.lexsort((ids.checks, ids.hashes, firsts >> np.uint64(32)))
    numbers, starts = np.unique((firsts >> np.uint64(32))[by_unit], return_index=True)
    members = np.split(by_unit, starts[1:]) if len(by_unit) else []
    name = f"names-{checksum(ids.hashes.tobytes() + ids.checks.tobytes())}"
    files = FileSet(passes.scratch / name, len(numbers)).made()
    find = _FindNames(counted.units.split, counted.settings, counted.postings, files)
    tasks = [
        (place, counted.units[int(number)], ids.take(those))
        for place, (number, those) in enumerate(zip(numbers, members, strict=True))
    ]
    sizes = [task.unit.num_bytes for _, task, _ in tasks]
    check_names(passes, sum(passes.run(titles.NAMES, find, tasks, sizes, name=name, schema=Integer())))
    strings = [""] * len(ids)
    for path, those in zip(files, members, strict=True):
        for place, term in zip(those.tolist(), _strings(path), strict=True):
            strings[place] = term
    return strings


@dataclass(frozen=True)
class _FindNames:
    """Write the strings of terms of units (ascending) to files; return how many bytes they have."""

    split: SplitSource
    settings: CountedSettings
    postings: FileSet
    outs: FileSet

    def __call__(self, task: tuple[int, UnitTask, TermIds]) -> int:
        place, unit, ids = task
        found = strings_in(self.split, unit, self.settings, open_spilled(self.postings[unit.number]), ids)
        spill(self.outs[place], {"data": found.data, "offsets": found.offsets})
        return len(found.data)


def strings_in(
    split: SplitSource,
    task: UnitTask,
    settings: CountedSettings,
    postings: SpilledArrays,
    wanted: TermIds,
) -> Texts:
    """Look up the strings of a unit's terms; only the documents in which they appear first are tokenized.

    Args:
        split: of the unit.
        task: the unit.
        settings: of the vectorizer.
        postings: of the unit.
        wanted: the terms, ascending.

    Raises:
        ScratchError: the unit has no such term.
    """
    chosen = postings["ordinals"][first_documents(postings, wanted)]
    documents = read_unit(split.source, task.unit, lambda ordinals: np.isin(ordinals, chosen))
    block = prepare_texts(settings, documents.texts)
    del documents
    found = find_terms(block, tokenizer_of(settings), settings.hashing, wanted)
    if missing := int((np.diff(found.offsets) == 0).sum()):
        raise ScratchError(
            f"'{split.source.origin}' lacks {missing:,} terms that were counted in it: it was changed, or scratch "
            "files of the interrupted build are damaged; run the same command again, which begins anew"
        )
    return found


def _strings(path: Path) -> Texts:
    found = open_spilled(path)
    return Texts(found["data"], found["offsets"])
