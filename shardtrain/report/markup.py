"""Build HTML and SVG elements in which untrusted text cannot become markup.

Every plain `str`, child or attribute, is escaped; only `Markup`, which `element` returns, is inserted as it is. A
mistake in a caller therefore shows as a stray angle bracket and cannot inject a script.
"""

from __future__ import annotations

import html

from shardtrain.runtime.terminal import printable

_EMPTY = frozenset({"meta", "link", "br", "rect", "line", "path", "circle"})  # elements without children


class Markup(str):
    """Text that is already escaped."""

    __slots__ = ()


Child = str | int | None  # None is omitted


def element(name: str, /, *children: Child, **attributes: str | float | None) -> Markup:
    """Return an element.

    Args:
        name: tag name.
        children: content in order.
        attributes: a trailing underscore of a name is dropped, other underscores become hyphens; None omits the
            attribute, an empty string writes it without a value.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items() if value is not None)
    if name in _EMPTY:
        return Markup(f"<{name}{written}>" if name in ("meta", "link", "br") else f"<{name}{written}/>")
    return Markup(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: Child) -> Markup:
    """Concatenate children without an element around them."""
    return Markup(
        "".join(child if isinstance(child, Markup) else escaped(str(child)) for child in children if child is not None)
    )


def escaped(text: str) -> Markup:
    """Escape untrusted text."""
    return Markup(html.escape(printable(text)))


def _attribute(key: str, value: str | float) -> str:
    name = key.rstrip("_").replace("_", "-")
    if isinstance(value, float):
        value = f"{value:.2f}".rstrip("0").rstrip(".")
    return f' {name}="{escaped(str(value))}"' if value != "" else f" {name}"
