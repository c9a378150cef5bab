"""Draw the validation fraction so that every class keeps a document in training.

Documents with keys below the threshold are held out. Of a class that would lose all its documents, the one with the
highest key stays in training. That is a pure function of seed, ordinals and labels, and equals the plain draw if no
class would be lost. It needs the labels of the whole corpus, which no unit has: a unit therefore reports its `Spare`
documents, one for each class that it holds out completely, and only the units whose spares are kept are done again.
"""

from __future__ import annotations

from collections.abc import Container, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.schema import Integer, Row

Keys = npt.NDArray[np.uint64]
Ordinals = npt.NDArray[np.int64]
Label = TypeVar("Label", bound=Hashable)
SPARE = Row((Integer(0, (1 << 64) - 1), Integer()))  # as a record of work has it
Spare = tuple[int, int]  # key and ordinal of the held-out document of a class that would stay in training first

ALL_HELD_OUT = 1 << 64  # a threshold above every key


def trains(keys: Keys, ordinals: Ordinals, threshold: int, kept: Sequence[int] = ()) -> npt.NDArray[np.bool_]:
    """Return which documents train: those with keys of at least `threshold`, and those with the ordinals `kept`."""
    if threshold >= ALL_HELD_OUT:
        return np.zeros(len(keys), np.bool_)
    chosen = keys >= np.uint64(threshold)
    if kept:
        chosen |= np.isin(ordinals, np.array(kept, np.int64))
    return chosen


def spare_documents(
    labels: Sequence[Label], keys: Keys, ordinals: Ordinals, trained: Container[Label]
) -> dict[Label, Spare]:
    """Return the spare document of each label that is not among those `trained`, given the held-out documents."""
    spares: dict[Label, Spare] = {}
    for i, label in enumerate(labels):
        if label not in trained:
            spares[label] = max(spares.get(label, (-1, -1)), (int(keys[i]), int(ordinals[i])))
    return spares


def best_spares(trained: Container[Label], spares: Iterable[Mapping[Label, Spare]]) -> dict[Label, Spare]:
    """Return the best of several spare documents of each label that is not among those `trained`."""
    best: dict[Label, Spare] = {}
    for unit in spares:
        keep_best(best, unit)
    return {label: spare for label, spare in best.items() if label not in trained}


def keep_best(best: dict[Label, Spare], spares: Mapping[Label, Spare]) -> None:
    """Add spare documents to the best of others, of each label."""
    for label, spare in spares.items():
        best[label] = max(best.get(label, spare), spare)


def note_of(num_kept: int) -> str:
    """Return the line that reports how many classes kept a document."""
    classes, each = ("1 class has", "it") if num_kept == 1 else (f"{num_kept:,} classes have", "each")
    return f"{classes} only rows that the validation fraction would hold out: one row of {each} stays in training"
