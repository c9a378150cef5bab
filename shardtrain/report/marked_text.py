"""Mark in a text what its terms add to the score of a class.

A character has the sum of its terms' contributions, each divided by the number of characters in its places: what
is marked most is what adds most. What speaks for the class is underlined solidly, what speaks against it with dashes:
colour is never the only sign.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import numpy.typing as npt

from shardtrain.inference.explanations import Reason
from shardtrain.report.markup import Child, element

_LEVELS = 3  # of a mark
_LEAST = 0.01  # share of the largest sum, below which nothing is marked


def marked(text: str, reasons: Sequence[Reason], start: int, stop: int) -> Iterator[Child]:
    """Yield the pieces of the characters [start, stop) of a text, marked by what they add; white space is a space."""
    text = "".join(" " if character.isspace() else character for character in text)
    levels = _levels(len(text), reasons)[start:stop].tolist()
    places = iter(range(start, start + len(levels)))
    for level, group in groupby(levels):
        size = len(list(group))
        first = next(places)
        for _ in range(size - 1):
            next(places)
        piece = text[first : first + size]
        side = "for" if level > 0 else "against"
        yield element("mark", piece, class_=f"{side} m{abs(level)}") if level else piece


def _levels(length: int, reasons: Sequence[Reason]) -> npt.NDArray[np.int64]:
    """Return how much each character is marked: from `_LEVELS` down to 0; negative: it speaks against the class."""
    sums = np.zeros(length)
    for reason in reasons:
        size = sum(stop - start for start, stop in reason.places)
        for start, stop in reason.places:
            sums[start:stop] += reason.contribution / size
    most = np.abs(sums).max(initial=0.0)
    if not most:
        return np.zeros(length, np.int64)
    shares = np.abs(sums) / most
    levels = np.where(shares < _LEAST, 0, np.minimum(_LEVELS, 1 + (shares * _LEVELS).astype(np.int64)))
    found: npt.NDArray[np.int64] = levels * np.sign(sums).astype(np.int64)
    return found
