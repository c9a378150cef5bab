"""Format values and long texts for reports."""

from __future__ import annotations

from typing import Any

MAX_NAME = 40  # characters of a class name in a sentence


def truncate(text: str, length: int) -> str:
    """Return at most `length` characters of a text; a truncated one ends with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def format_value(value: Any) -> str:
    """Format a JSON value on one line."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_value(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value))
    return f"{value:.6g}" if isinstance(value, float) else str(value)
