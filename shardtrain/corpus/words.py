"""Look at the words of texts that may be megabytes long, without a list of all of them (50 bytes a word)."""

from __future__ import annotations

import re

_LONG = 1 << 16  # characters; of shorter texts a list is faster
_WORD = re.compile(r"\S+")  # as `str.split` finds them


def count_words(text: str) -> int:
    """Count the words of a text, as `len(text.split())`."""
    return len(text.split()) if len(text) < _LONG else sum(1 for _ in _WORD.finditer(text))


def has_words(text: str, least: int) -> bool:
    """Return whether a text has at least so many words, as `len(text.split()) >= least`."""
    return len(text.split(maxsplit=least)) >= least


def beginning(text: str, most: int) -> str:
    """Return a text with single spaces between its words, as `" ".join(text.split())`, cut after `most` characters."""
    found: list[str] = []
    size = 0
    for word in _WORD.finditer(text):
        found.append(word[0][: most + 1])
        size += len(found[-1]) + 1
        if size > most + 1:
            break
    joined = " ".join(found)
    return joined if len(joined) <= most else joined[: most - 1] + "…"
