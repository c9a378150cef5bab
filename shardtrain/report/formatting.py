"""How values and foreign text are worded in every report: nothing that is not printable gets through."""

from __future__ import annotations

from typing import Any


def printable(text: str) -> str:
    """Text that cannot move the cursor, turn the reading direction or fail to be encoded: all else is escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, length: int) -> str:
    """At most `length` characters of a text, the last of them telling that it goes on."""
    return text if len(text) <= length else text[: length - 1] + "…"


def size(num_bytes: float) -> str:
    """Bytes in powers of 1000, as disks and networks count them."""
    return f"{num_bytes / 1e6:,.1f} MB"


def format_value(value: Any) -> str:
    """A JSON value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_value(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
