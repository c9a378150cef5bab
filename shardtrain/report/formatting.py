"""Format values and long texts for reports."""

from __future__ import annotations

from typing import Any

MAX_NAME = 40  # characters of a class name in a sentence


def truncate(text: str, length: int) -> str:
    """Return at most `length` characters of a text; a truncated one ends with an ellipsis."""
    return text if len(text) <= length else text[: length - 1] + "…"


def quoted(name: str) -> str:
    """Return the name of a class for a sentence."""
    return f"“{truncate(name, MAX_NAME)}”"


def format_share(share: float) -> str:
    """Format a share in percent with one decimal; none but 0 and 1 themselves become 0 and 100."""
    return "<0.1%" if 0 < share < 0.0005 else ">99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def format_value(value: Any) -> str:
    """Format a JSON value on one line, in words; 1.0 stays one, because a limit of 1 means another thing."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {format_value(inner)}" for key, inner in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(format_value, value))
    if value is None or isinstance(value, bool):
        return {None: "not set", True: "yes", False: "no"}[value]
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.6g}"
    return f"{text}.0" if text.removeprefix("-").isdecimal() else text
