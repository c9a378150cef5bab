"""Look up the strings of chosen terms, which only the texts hold, and refuse features that memory has no room for.

The strings of all features are in memory when a vectorizer is saved or loaded, so their number is limited by the
memory, and so are their bytes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.scratch import open_spilled
from shardtrain.arrays.texts import Texts
from shardtrain.errors import UsageError
from shardtrain.pipeline import titles
from shardtrain.pipeline.counting import Counted
from shardtrain.pipeline.units import FindTask, fields_of, find_in_unit
from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.quantities import size
from shardtrain.runtime.schema import Integer
from shardtrain.vectorize.counts import lookup
from shardtrain.vectorize.identity import TermIds

# Memory of a feature while it is named, saved and loaded, and of each byte of its name.
FEATURE_BYTES, NAME_BYTES = 256, 8
_SET_BITS = np.array([bin(byte).count("1") for byte in range(256)], np.uint8)


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


def find_names(passes: Passes, counted: Counted, ids: TermIds) -> list[str]:
    """Look up the strings of terms, in as few units as possible.

    Raises:
        UsageError: there is no room for them.
    """
    order = ids.order()
    wanted = ids.take(order)
    tasks, places, sizes, names = [], [], [], []
    for number, members in _cover(counted, wanted, passes.room):
        unit = counted.units[number]
        of_unit = wanted.take(members)
        content = of_unit.hashes.tobytes() + of_unit.checks.tobytes()
        names.append(f"names-{unit.unit.index:05}-{checksum(content)}")
        task = FindTask(
            **fields_of(unit),
            settings=counted.settings,
            wanted=of_unit,
            postings=counted.postings[number],
            out=passes.scratch / names[-1],
        )
        tasks.append(task)
        places.append(order[members])
        sizes.append(counted.sizes[number])
    check_names(passes, sum(passes.run(titles.NAMES, find_in_unit, tasks, sizes, names=names, schema=Integer())))
    strings = [""] * len(ids)
    for task, members in zip(tasks, places, strict=True):
        for place, term in zip(members.tolist(), _read(task.out), strict=True):
            strings[place] = term
    return strings


def _read(path: Path) -> Texts:
    found = open_spilled(path)
    return Texts(found["data"], found["offsets"])


def _cover(counted: Counted, wanted: TermIds, budget: int) -> Iterator[tuple[int, npt.NDArray[np.int64]]]:
    """Yield units that together hold all wanted terms, by greedy set cover, with the terms to look up in each.

    A term is in many units, so few units hold nearly all terms; a corpus sorted by class needs about one per class.
    Terms are covered in pieces whose table of units and terms, one bit each, fits into `budget` bytes.
    """
    step = max(8, 8 * (budget // 4 // len(counted.postings)))
    for start in range(0, len(wanted), step):
        piece = wanted.take(slice(start, start + step))
        holds = np.empty((len(counted.postings), -(-len(piece) // 8)), np.uint8)
        for number, path in enumerate(counted.postings):
            places = lookup(open_spilled(path), piece)
            found = np.zeros(len(piece), np.bool_)
            found[places[places >= 0]] = True
            holds[number] = np.packbits(found)
        while holds.any():
            number = int(_SET_BITS[holds].sum(axis=1, dtype=np.int64).argmax())
            covered = holds[number].copy()
            holds &= ~covered
            yield number, start + np.flatnonzero(np.unpackbits(covered, count=len(piece)))
