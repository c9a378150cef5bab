"""Render summaries of shards and runs for notebooks: small HTML tables with every value escaped."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from shardtrain.runtime.quantities import enumerated

MAX_NAMES = 8


def table(title: str, rows: Mapping[str, object]) -> str:
    """Return an HTML table with a caption and a row per name and value; colours are the notebook's."""
    lines = "".join(
        f'<tr><th scope="row" style="text-align:left">{escape(name)}</th>'
        f'<td style="text-align:left">{escape(str(value))}</td></tr>'
        for name, value in rows.items()
    )
    return f'<table><caption style="text-align:left">{escape(title)}</caption><tbody>{lines}</tbody></table>'


def listed(names: tuple[str, ...]) -> str:
    """Return the number of names and the first `MAX_NAMES` of them as text."""
    return f"{len(names):,}: {enumerated(names, MAX_NAMES)}"
