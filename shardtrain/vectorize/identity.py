"""Identify terms by 96 bits: a 64-bit hash, and an independent 32-bit hash, the check.

Two terms with one hash and different checks are two terms, everywhere. Of 10**12 distinct terms, two agree in both with
a probability of about 1 in 160,000, and would be counted as one. Sets of terms are two arrays, ascending by
hash and then by check wherever an order is required. A saved vectorizer whose hashes all differ has no checks: its
terms are known by their hashes alone (`saved`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.kernels import inlined_kernel, kernel
from shardtrain.vectorize.settings import Hashing

Places = npt.NDArray[np.int64]

_WHOLE = Hashing().mask


class _Arrays(Protocol):
    """Arrays by name."""

    def __getitem__(self, name: str, /) -> npt.NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class TermIds:
    """A set of terms.

    Attributes:
        hashes: (terms,) uint64.
        checks: (terms,) uint32, or (0,) where terms are known by their hashes alone.
    """

    hashes: npt.NDArray[np.uint64]
    checks: npt.NDArray[np.uint32]

    @classmethod
    def of(cls, arrays: _Arrays) -> TermIds:
        """Return the terms of a scratch file, which has `hashes` and `checks`."""
        return cls(arrays["hashes"], arrays["checks"])

    @classmethod
    def none(cls) -> TermIds:
        """Return no terms."""
        return cls(np.empty(0, np.uint64), np.empty(0, np.uint32))

    @classmethod
    def joined(cls, parts: Sequence[TermIds]) -> TermIds:
        """Join sets of terms that have checks, one after the other."""
        return cls(np.concatenate([each.hashes for each in parts]), np.concatenate([each.checks for each in parts]))

    def __len__(self) -> int:
        return len(self.hashes)

    @property
    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """The arrays by name, as a scratch file has them."""
        return {"hashes": self.hashes, "checks": self.checks}

    def take(self, chosen: slice | Places) -> TermIds:
        """Return the terms with these indices."""
        return TermIds(self.hashes[chosen], self.checks[chosen] if len(self.checks) else self.checks)

    def order(self) -> Places:
        """Return the order in which the terms ascend."""
        order = np.argsort(self.hashes)
        ordered = self.hashes[order]
        if len(self.checks) and (ordered[1:] == ordered[:-1]).any():
            return np.lexsort((self.checks, self.hashes))
        return order

    def sorted(self) -> TermIds:
        """Return the terms in ascending order."""
        return self.take(self.order())

    def distinct(self) -> tuple[TermIds, Places]:
        """Return the distinct ones of terms with checks, ascending, and for each of all terms its index among these."""
        order = self.order()
        found = self.take(order)
        new = np.ones(len(found), np.bool_)
        new[1:] = (found.hashes[1:] != found.hashes[:-1]) | (found.checks[1:] != found.checks[:-1])
        numbers = np.empty(len(found), np.int64)
        numbers[order] = np.cumsum(new) - 1
        return found.take(np.flatnonzero(new)), numbers

    def find(self, wanted: TermIds) -> Places:
        """Return the place of each wanted term among these, which ascend, or -1; those wanted have checks."""
        if not len(self):
            return np.full(len(wanted), -1, np.int64)
        if len(self.checks):
            found: Places = _find(self.hashes, self.checks, wanted.hashes, wanted.checks)
            return found
        places = np.minimum(np.searchsorted(self.hashes, wanted.hashes), len(self) - 1)
        return np.where(self.hashes[places] == wanted.hashes, places, -1)

    def shortest(self, hashing: Hashing) -> TermIds:
        """Return these terms, which ascend, without their checks where hashes are enough; see `need_checks`."""
        if need_checks(hashing, shared=bool((self.hashes[1:] == self.hashes[:-1]).any())):
            return self
        return TermIds(self.hashes, self.checks[:0])


def need_checks(hashing: Hashing, *, shared: bool) -> bool:
    """Return whether a vectorizer keeps checks: where two of its terms share a hash, or hashes are shortened.

    Otherwise one new n-gram in 2**64 / terms is taken for a term, which is none in any corpus.
    """
    return shared or hashing.mask != _WHOLE


@inlined_kernel
def first_place(h: Any, c: Any, hashes: Any, checks: Any) -> Any:
    """Return where among ascending terms the one with hash h and check c is, or where it would be."""
    low, high = 0, len(hashes)
    # Invariant: the terms before `low` are below (h, c); those from `high` on are not.
    while low < high:
        middle = (low + high) >> 1
        if hashes[middle] < h or (hashes[middle] == h and checks[middle] < c):
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _find(hashes, checks, wanted_hashes, wanted_checks):  # type: ignore[no-untyped-def]
    places = np.full(len(wanted_hashes), -1, np.int64)
    for i in range(len(wanted_hashes)):
        place = first_place(wanted_hashes[i], wanted_checks[i], hashes, checks)
        if place < len(hashes) and hashes[place] == wanted_hashes[i] and checks[place] == wanted_checks[i]:
            places[i] = place
    return places
