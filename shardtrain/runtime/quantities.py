"""Format sizes, durations and lists for people: the one way in messages, results and reports."""

from __future__ import annotations

from collections.abc import Sequence

QUOTED, ESCAPED = "'{}'", "{!r}"  # forms of names; the latter shows what cannot be printed


def size(num_bytes: float) -> str:
    """Format a number of bytes in powers of 1000, as for disks and networks; no size is rounded to nothing."""
    if abs(num_bytes) < 999.5:
        return f"{num_bytes:,.0f} byte{'s' * (round(num_bytes) != 1)}"
    if abs(num_bytes) < 999_950:
        return f"{num_bytes / 1e3:,.1f} kB"
    if abs(num_bytes) < 999_950_000:
        return f"{num_bytes / 1e6:,.1f} MB"
    return f"{num_bytes / 1e9:,.2f} GB"


def duration(seconds: float) -> str:
    """Format a time span: in seconds, never rounded to nothing; from a minute or an hour on in two units."""
    if seconds < 59.95:
        return f"{seconds:.1f} s" if seconds >= 0.1 else f"{max(seconds, 0.001):.1g} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def enumerated(values: Sequence[object], most: int, form: str = "{}", *, number: int | None = None) -> str:
    """Return the first `most` values, each in a form, separated by commas, and how many more there are.

    `number` is that of all values where `values` has only some.
    """
    rest = (len(values) if number is None else number) - most
    shown = ", ".join(form.format(value) for value in values[:most])
    return f"{shown} and {rest:,} more" if rest > 0 else shown
