"""Elements of HTML and SVG, built so that foreign text cannot become markup.

A child or attribute that is a plain string is text and is escaped; only what `element` made is markup. Whoever forgets
something shows an angle bracket too many, and never runs a stranger's script.
"""

from __future__ import annotations

import html

from shardtrain.report.formatting import printable

_EMPTY = frozenset({"meta", "link", "br", "rect", "line", "path", "circle"})  # have no children here


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


Child = str | int | None  # None: nothing


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """An element; in names of attributes a trailing underscore is dropped and others become hyphens.

    Args:
        name: of the element.
        children: its content in order.
        attributes: those that are None are left out; an empty one has no value.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _EMPTY:
        return Markup(f"<{name}{written}>" if name in ("meta", "link", "br") else f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Children one after the other, without an element around them."""
    return Markup(
        "".join(child if isinstance(child, Markup) else escaped(str(child)) for child in children if child is not None)
    )


def escaped(text: str) -> Markup:
    """Foreign text as markup that shows it."""
    return Markup(html.escape(printable(text)))


def _attribute(key: str, value: str | float) -> str:
    name = key.rstrip("_").replace("_", "-")
    if isinstance(value, float):
        value = f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {name}="{escaped(str(value))}"' if value != "" else f" {name}"
