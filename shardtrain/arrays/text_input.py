"""Check what a Python program passes as texts: the one check of every public call that takes texts.

Texts are whatever yields `str`: a list, a tuple, a generator, a NumPy array, a column of pandas, polars or Arrow. None
of these libraries is imported: what tells a table from a column is read off its type. Everything else is refused with
the call that is right, and an item that is not a text with its position. Items are checked as they are read, so a
stream stays a stream.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import islice
from typing import Any

import numpy as np

from shardtrain.arrays.texts import Texts
from shardtrain.errors import TextsError
from shardtrain.runtime.quantities import ESCAPED, enumerated

_SHOWN = 60  # characters of a value in a message
_LISTED = 5  # columns in a message
_MISSING = frozenset({"NAType", "NaTType"})  # of pandas; comparing them with themselves gives no bool


def checked_texts(texts: Iterable[str], *, call: str) -> Iterator[str]:
    """Check that `texts` are a series of texts, and return an iterator that checks each as it is read.

    Args:
        texts: what a caller passed.
        call: the function that was called, for messages that show how it is called, such as "run.predict".

    Raises:
        TextsError: now, `texts` is a single text, a table or no series at all; later, an item is not a `str`.
    """
    if reason := _reason_against(texts, call):
        raise TextsError(f"{call} takes a list of texts, not {reason}")
    to_list = getattr(texts, "to_pylist", None)  # of Arrow, whose own items are scalars
    return _checked_items(texts if to_list is None else to_list(), call)


def text_sequence(texts: Iterable[str], *, call: str) -> Sequence[str]:
    """Return texts as a sequence, all of them checked as `checked_texts` does; `Texts` are returned as they are."""
    return texts if isinstance(texts, Texts) else list(checked_texts(texts, call=call))


def holds_texts(values: Any) -> bool:
    """Return whether a caller's data are texts rather than numbers: one text, or a series or table with one in it.

    Only for data that may be either; what is wrong with texts is for `checked_texts` to say.
    """
    if isinstance(values, str | bytes | bytearray | Texts):
        return True
    if isinstance(values, list | tuple):
        first = values[0] if values and isinstance(values[0], list | tuple) else ()
        return any(isinstance(each, str | bytes) for each in (*values, *first))
    if not hasattr(values, "dtype") and not _is_table(values) and not hasattr(values, "to_pylist"):
        return False
    if isinstance(dtype := getattr(values, "dtype", None), np.dtype) and dtype.kind not in "OUST":
        return False
    array = np.asarray(values)
    return array.dtype.kind in "UST" or (array.dtype == object and any(isinstance(each, str) for each in array.flat))


def _checked_items(texts: Iterable[Any], call: str) -> Iterator[str]:
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise TextsError(f"{call}: the text at position {position:,}, counted from 0, is {_fault_of(text, call)}")
        yield text


def _reason_against(texts: Any, call: str) -> str:
    """Return what `texts` are in place of a series of texts, with the call that is right; empty if nothing is wrong."""
    if isinstance(texts, str):
        return f"a single text; call {call}([{texts!r}])" if len(texts) <= _SHOWN else f"a text; call {call}([text])"
    if isinstance(texts, bytes | bytearray | memoryview):
        return f"bytes; call {call}([data.decode()])"
    if isinstance(texts, os.PathLike):
        return f"a path; call {call}(path.read_text().splitlines()) to have a text for each line"
    if isinstance(texts, Mapping):
        return f"a {type(texts).__name__}; call {call}(list(texts.values()))"
    if isinstance(texts, Set):
        return f"a {type(texts).__name__}, which has no order; call {call}(sorted(texts))"
    if _is_table(texts):
        names = _column_names(texts)
        shown = enumerated(names, _LISTED, ESCAPED)
        held = f"a {type(texts).__name__} of the columns {shown}" if names else f"a {type(texts).__name__}"
        column = "text" if "text" in names or not names else names[0]
        return f"{held}; pass one column: {call}(table[{column!r}])"
    shape = getattr(texts, "shape", None)
    if shape is not None and len(shape) != 1:
        how = f"{call}(texts[:, 0])" if len(shape) == 2 else f"{call}(texts.reshape(-1))"
        return f"a {type(texts).__name__} of shape {tuple(shape)}; pass one of shape (texts,), such as {how}"
    if not isinstance(texts, Iterable) and not hasattr(texts, "__getitem__"):
        return f"{_shown(texts)} ({type(texts).__name__}); call {call}([text])"
    return ""


def _fault_of(item: Any, call: str) -> str:
    """Return what an item is in place of a text, and what to do about it."""
    if item is None or type(item).__name__ in _MISSING or (isinstance(item, float | np.floating) and item != item):
        return f'{_shown(item)}, a missing value; leave it out, or replace missing values by "" first'
    if isinstance(item, bytes | bytearray):
        return f"{_shown(item)}, which is bytes; call {call}([text.decode() for text in texts])"
    if isinstance(item, bool | int | float | complex | np.generic):
        return f"{_shown(item)} ({type(item).__name__}), not a text; if it is meant as one, convert it with str()"
    return f"{_shown(item)} ({type(item).__name__}), not a text; pass a flat list, each item one text (str)"


def _is_table(values: Any) -> bool:
    """Return whether values are a table of pandas, polars, Arrow or Hugging Face, by what its class has."""
    return hasattr(type(values), "columns") or hasattr(type(values), "column_names")


def _column_names(table: Any) -> list[str]:
    names = getattr(table, "column_names", None)
    return [str(name) for name in (table.columns if names is None else names)]


def _shown(value: Any) -> str:
    shown = repr(list(islice(value, _SHOWN)) if isinstance(value, list) else value)  # a long list is cut first
    shown = " ".join(shown.split())
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
