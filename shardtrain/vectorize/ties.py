"""Choose the best of terms whose scores are equal, by the order of their strings, in bounded memory.

All terms of a corpus may be tied: where every token occurs once, all have one score. Each unit therefore looks up the
strings of the tied terms that appear first in it and keeps no more than are wanted in all; these are merged. Strings
are compared as UTF-8, whose order is that of code points, as Python compares them, lone surrogates included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.runtime.kernels import kernel

_STEP = 7  # bytes of a string that are compared at a time


@dataclass(frozen=True, eq=False)
class Tied:
    """Terms with equal scores: a column each of what is known of them, (terms,), and their strings."""

    COLUMNS: ClassVar = {
        "hashes": np.uint64,
        "checks": np.uint32,
        "counts": np.int64,
        "first": np.uint64,
        "scores": np.float64,
    }

    columns: dict[str, npt.NDArray[Any]]
    terms: Texts

    @classmethod
    def none(cls) -> Tied:
        """Return no terms."""
        return cls({name: np.empty(0, dtype) for name, dtype in cls.COLUMNS.items()}, Texts.from_strings([]))

    def take(self, chosen: npt.NDArray[np.int64]) -> Tied:
        """Return the terms with these indices."""
        return Tied({name: column[chosen] for name, column in self.columns.items()}, self.terms.take(chosen))

    def best(self, room: int, *, later_wins: bool) -> Tied:
        """Return the `room` best of these terms, or all if they are not more; see `best_strings`."""
        return self.take(best_strings(self.terms, room, later_wins=later_wins))

    def joined(self, other: Tied) -> Tied:
        """Return these and other terms."""
        columns = {name: np.concatenate([column, other.columns[name]]) for name, column in self.columns.items()}
        return Tied(columns, Texts.concatenated([self.terms, other.terms]))


def best_strings(terms: Texts, room: int, *, later_wins: bool) -> npt.NDArray[np.int64]:
    """Return the indices of the `room` last, or first, of distinct strings in the order of strings; all if fewer.

    Strings are compared a few bytes at a time: those above the boundary are chosen, and only those that are equal so
    far are compared further.
    """
    rest, chosen, depth = np.arange(len(terms)), [np.empty(0, np.int64)], 0
    longest = int(np.diff(terms.offsets).max(initial=0))
    while 0 < room < len(rest) and depth <= longest:
        keys = _keys(terms.data, terms.offsets, rest, depth)
        if not later_wins:
            keys = ~keys
        boundary = np.partition(keys, len(keys) - room)[len(keys) - room]
        chosen.append(rest[keys > boundary])
        room -= len(chosen[-1])
        rest = rest[keys == boundary]
        depth += _STEP
    return np.concatenate([*chosen, rest[:room]])


@kernel
def _keys(data, offsets, chosen, depth):  # type: ignore[no-untyped-def]
    """Return the bytes of strings from `depth` on as integers, whose last digit tells where shorter ones end."""
    keys = np.zeros(len(chosen), np.uint64)
    for i in range(len(chosen)):
        start = offsets[chosen[i]] + depth
        left = max(0, offsets[chosen[i] + 1] - start)
        for j in range(_STEP):
            keys[i] = keys[i] << np.uint64(8) | np.uint64(data[start + j] if j < left else 0)
        keys[i] = keys[i] << np.uint64(8) | np.uint64(min(left, _STEP + 1))
    return keys


def worst_string(terms: Texts, *, later_wins: bool) -> bytes:
    """Return the string that loses against all others."""
    index = int(best_strings(terms, 1, later_wins=not later_wins)[0])
    return terms.data[terms.offsets[index] : terms.offsets[index + 1]].tobytes()


def beating(terms: Texts, rival: bytes, *, later_wins: bool) -> npt.NDArray[np.int64]:
    """Return the indices of the strings that win against `rival`."""
    wins: npt.NDArray[np.bool_] = _beat(terms.data, terms.offsets, np.frombuffer(rival, np.uint8), later_wins)
    return np.flatnonzero(wins)


@kernel
def _beat(data, offsets, rival, later):  # type: ignore[no-untyped-def]
    wins = np.zeros(len(offsets) - 1, np.bool_)
    for i in range(len(wins)):
        start = offsets[i]
        size = offsets[i + 1] - start
        same = 0
        # Invariant: the first `same` bytes of string i are those of `rival`.
        while same < size and same < len(rival) and data[start + same] == rival[same]:
            same += 1
        if same == size or same == len(rival):
            wins[i] = size > len(rival) if later else size < len(rival)
        else:
            wins[i] = (data[start + same] > rival[same]) == later
    return wins
