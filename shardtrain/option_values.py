"""Check the value of an option against its declared type, and convert what means the same: texts, lists, paths.

One function, `as_declared`, serves all surfaces. A text is parsed as the command line parses it, but not where the
option tells texts from numbers: a column named "0" is a name in Python. Numbers of numpy are taken as Python's; True
and False are no numbers.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Set
from numbers import Integral, Real
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin

from shardtrain.errors import UsageError

_WORDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    Path: "a path",
    NoneType: "None",
}


class MismatchError(Exception):
    """The value is not of the declared type, and no text that can be parsed to it."""


def as_declared(
    value: Any,
    kind: Any,
    *,
    parse: Callable[[str], Any] | None = None,
    convert: Callable[[Any], Any] | None = None,
) -> Any:
    """Return the value as the declared type has it.

    Args:
        value: from Python, a TOML file or the command line.
        kind: the type; a union, and a tuple of a fixed or any length, included.
        parse: makes a value of a word of the command line; of an item where the type is a tuple.
        convert: makes the value of the parsed one, or of a text.

    Raises:
        MismatchError: the value is not of the type.
        UsageError: a text that `parse` or `convert` refuses with a message.
    """
    value, members = _as_python(value), members_of(kind)
    if convert is not None and isinstance(value, str | os.PathLike):
        return _parsed(value, convert)
    items = next((member for member in members if get_origin(member) is tuple), None)
    if items is not None and value is not None:
        return _as_tuple(value, get_args(items), parse)
    if parse is not None and isinstance(value, str) and _is_parsed(members):
        value = _parsed(value, parse)
    for member in members:
        if _fits(value, member):
            return member(value) if member in (int, float, Path) else value
    raise MismatchError


def members_of(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union, the narrower of two numbers first, or the type alone."""
    found = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
    return tuple(sorted(found, key=lambda each: (each is str, each is float)))


def in_words(kind: Any) -> str:
    """Describe what a type takes, such as "a whole number, a text or None"."""
    members = sorted(members_of(kind), key=lambda each: each is NoneType)
    *words, last = [word for member in members for word in _member_in_words(member).split(" or ")]
    return f"{', '.join(words)} or {last}" if words else last


def _member_in_words(member: Any) -> str:
    if get_origin(member) is not tuple:
        name = "a function" if get_origin(member) is not None else f"a {getattr(member, '__name__', 'value')}"
        return _WORDS.get(member, name)
    items = get_args(member)
    plural = in_words(items[0]).replace("a whole number", "whole numbers").replace("a text", "texts")
    if items[1:] == (...,):
        return f"a list of {plural.replace('a path', 'paths')}"
    return f"{len(items)} {plural}, such as {tuple(range(1, len(items) + 1))}"


def _as_python(value: Any) -> Any:
    """Return a number of numpy as one of Python; everything else unchanged."""
    return value.item() if getattr(value, "shape", None) == () and hasattr(value, "item") else value


def _is_parsed(members: tuple[Any, ...]) -> bool:
    """Return whether a text is parsed: where the type has texts beside other values, a text is meant as one."""
    return str not in members or set(members) <= {str, NoneType}


def _parsed(text: Any, parse: Callable[[Any], Any]) -> Any:
    try:
        return parse(text)
    except UsageError:
        raise
    except ValueError:
        raise MismatchError from None


def _as_tuple(value: Any, kinds: tuple[Any, ...], parse: Callable[[str], Any] | None) -> tuple[Any, ...]:
    """Convert each item; one that stands alone is a list of one, and sets are sorted, so that their order is fixed."""
    if isinstance(value, bytes | Mapping):
        raise MismatchError
    alone = isinstance(value, str | os.PathLike) or not isinstance(value, Iterable)
    items = [value] if alone else sorted(value, key=str) if isinstance(value, Set) else list(value)
    if kinds[1:] == (...,):
        kinds = kinds[:1] * len(items)
    if len(kinds) != len(items):
        raise MismatchError
    return tuple(as_declared(item, kind, parse=parse) for item, kind in zip(items, kinds, strict=True))


def _fits(value: Any, member: Any) -> bool:
    """Return whether a value is of a type that is no union and no tuple, or means the same."""
    if member is Any:
        return True
    if isinstance(value, bool):
        return member is bool
    if member is int:
        return isinstance(value, Integral)
    if member is float:
        return isinstance(value, Real)
    if member is Path:
        return isinstance(value, str | os.PathLike) and not isinstance(value, bytes)
    kind = get_origin(member) or member
    return isinstance(value, kind) if isinstance(kind, type) else True
