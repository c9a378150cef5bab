"""Format values and untrusted text for reports; characters that are not printable are escaped."""

from __future__ import annotations

from typing import Any


def printable(text: str) -> str:
    """Escape control characters, bidirectional overrides and lone surrogates."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def truncate(text: str, length: int) -> str:
    """Return at most `length` characters of a text; a truncated one ends with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def megabytes(num_bytes: float) -> str:
    """Format a number of bytes in MB of 10^6 bytes."""
    return f"{num_bytes / 1e6:,.1f} MB"


def format_value(value: Any) -> str:
    """Format a JSON value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_value(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
