"""Mutate values of JSON and arrays at every place, as an attacker or a careless program might."""

from __future__ import annotations

import copy
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
    """Yield a description and a mutated copy of a JSON value, for every place in it.

    At each place: the value is dropped, is another of every type, is nested without end, is swapped with its neighbour,
    lists are cut, doubled and reversed, numbers are one more and one less, and texts are cut.
    """
    for place in places(value):
        found = at(value, place)
        for name, change in _changes(found, root=not place):
            mutated = copy.deepcopy(value)
            if place:
                put(mutated, place, change)
            else:
                mutated = change
            yield f"{'.'.join(map(str, place)) or 'all'}: {name}", mutated
        if place:
            mutated = copy.deepcopy(value)
            del at(mutated, place[:-1])[place[-1]]
            yield f"{'.'.join(map(str, place))}: dropped", mutated
        if isinstance(found, dict):
            mutated = copy.deepcopy(value)
            at(mutated, place)["no such key"] = 1
            yield f"{'.'.join(map(str, place)) or 'all'}: one key more", mutated
            for one, other in zip(found, list(found)[1:], strict=False):
                mutated = copy.deepcopy(value)
                where = at(mutated, place)
                where[one], where[other] = where[other], where[one]
                yield f"{'.'.join(map(str, place))}: '{one}' and '{other}' swapped", mutated


def places(value: Any, start: Place = ()) -> Iterator[Place]:
    """Yield the paths to all values; of the items of a list the first and the last."""
    yield start
    if isinstance(value, dict):
        for key, item in value.items():
            yield from places(item, (*start, key))
    elif isinstance(value, list):
        for number in sorted({0, len(value) - 1} & set(range(len(value)))):
            yield from places(value[number], (*start, number))


def _changes(found: Any, *, root: bool) -> Iterator[tuple[str, Any]]:
    for other in _OF_ANY_TYPE:
        if type(other) is not type(found) or other != found:
            yield repr(other)[:20], other
    yield "nested", _DEEP
    if isinstance(found, list) and found:
        yield "cut", found[:-1]
        yield "doubled", found * 2
        yield "reversed", found[::-1]
        yield "the first again", [*found, found[0]]
    if isinstance(found, int | float) and not isinstance(found, bool):
        yield "one more", found + 1
        yield "one less", found - 1
        yield "a fraction", float(found)
    if isinstance(found, str) and found:
        yield "a text cut", found[:-1]
        yield "other case", found.swapcase()
        yield "escape", found + "\x1b[31m"


def at(value: Any, place: Place) -> Any:
    for key in place:
        value = value[key]
    return value


def put(value: Any, place: Place, change: Any) -> None:
    at(value, place[:-1])[place[-1]] = change


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
