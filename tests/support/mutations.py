"""Mutate values of JSON and arrays at every place, as an attacker or a careless program might."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

HUGE = 10**30
_NUMBERS = (-1, 0, 1, 1 << 31, 1 << 63, HUGE, 0.5, math.nan, 1e308)
_OF_ANY_TYPE = (None, True, *_NUMBERS, "", "\ud800", "x" * 300, [], [[]], {})
_DEEP: list[Any] = []
for _ in range(400):
    _DEEP = [_DEEP]

Place = tuple[Any, ...]


def mutations(value: Any) -> Iterator[tuple[str, Any]]:
    """Yield a description and a mutated copy of a value, for every place in it; what did not change is shared.

    At each place: the value is dropped, is another of every type, is nested without end, is swapped with its neighbour,
    lists are cut, doubled and reversed, numbers are one more and one less, and texts are cut.
    """
    for place in places(value):
        name, found = ".".join(map(str, place)) or "all", at(value, place)
        for how, change in _changes(found):
            yield f"{name}: {how}", replaced(value, place, change)
        if not place:
            continue
        above = at(value, place[:-1])
        if isinstance(above, dict):
            rest = {key: item for key, item in above.items() if key != place[-1]}
        else:
            rest = type(above)(item for number, item in enumerate(above) if number != place[-1])
        yield f"{name}: dropped", replaced(value, place[:-1], rest)


def places(value: Any, start: Place = ()) -> Iterator[Place]:
    """Yield the paths to all values; of the items of a list the first and the last."""
    yield start
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*start, key))
    elif isinstance(value, list | tuple):
        for number in sorted({0, len(value) - 1} & set(range(len(value)))):
            yield from places(value[number], (*start, number))


def _changes(found: Any) -> Iterator[tuple[str, Any]]:
    for other in _OF_ANY_TYPE:
        if type(other) is not type(found) or other != found:
            yield repr(other)[:20], other
    yield "nested", _DEEP
    if isinstance(found, list | tuple) and found:
        yield "cut", found[:-1]
        yield "doubled", found * 2
        yield "reversed", found[::-1]
        yield "the first again", type(found)([*found, found[0]])
        yield "a list or a tuple", list(found) if isinstance(found, tuple) else tuple(found)
    if isinstance(found, dict):
        yield "one key more", {**found, "no such key": 1}
        for one, other in zip(found, list(found)[1:], strict=False):
            yield f"'{one}' and '{other}' swapped", {**found, one: found[other], other: found[one]}
    if isinstance(found, int | float) and not isinstance(found, bool):
        yield "one more", found + 1
        yield "one less", found - 1
        yield "a fraction", float(found)
    if isinstance(found, str) and found:
        yield "a text cut", found[:-1]
        yield "other case", found.swapcase()
        yield "escape", found + "\x1b[31m"
    if isinstance(found, np.ndarray) and found.ndim == 1 and len(found):
        yield from array_mutations(found)


def at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def replaced(value: Any, place: Place, change: Any) -> Any:
    """Return a copy in which the value at a place is another."""
    if not place:
        return change
    first, *rest = place
    item = replaced(value[first], tuple(rest), change)
    if isinstance(value, dict):
        return {**value, first: item}
    return type(value)(item if number == first else each for number, each in enumerate(value))


def array_mutations(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield a description and a mutated copy of an array of one dimension."""
    yield "cut", array[:-1]
    yield "empty", array[:0]
    yield "longer", np.concatenate([array, array[-1:]])
    yield "reversed", array[::-1].copy()
    yield "of two axes", array.reshape(1, -1)
    yield "a scalar", array[0]
    for dtype in ("int8", "uint64", "int64", "float64", "U3", "bool", ">i4", "c16"):
        with np.errstate(all="ignore"):
            changed = array.astype(dtype)
        if changed.dtype != array.dtype:
            yield f"of type {dtype}", changed
    for name, number in {"negative": -1, "zero": 0, "huge": np.inf}.items():
        for place in (0, len(array) // 2, len(array) - 1):
            with np.errstate(all="ignore"):
                yield f"{name} at {place}", _with(array, place, number)
    yield "one twice", _with(array, 0, array[-1])
    if array.dtype.kind == "f":
        yield "not a number", _with(array, 0, np.nan)


def _with(array: np.ndarray, place: int, number: Any) -> np.ndarray:
    changed = array.copy()
    if array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        number = limits.max if number == np.inf else max(int(number), int(limits.min))
    changed[place] = number
    return changed
