"""The parts that every report is made of: the page, facts, figures, tables. One file, no script, nothing is fetched.

The page forbids itself to load or run anything (its Content-Security-Policy). Each chart has a text alternative and,
behind "Values", the table it was drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from shardtrain.report.markup import Child, Markup, element, joined
from shardtrain.version import __version__

GENERATOR = "shardtrain"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page; `name` is its anchor."""

    name: str
    title: str
    body: Markup


def page(kicker: str, title: str, lead: Child, facts: Markup, sections: Sequence[Section]) -> str:
    """A whole report.

    Args:
        kicker: what it is a report of.
        title: its name.
        lead: a sentence or two.
        facts: the most important figures.
        sections: in order.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"{GENERATOR} {__version__}"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{title} – {kicker}"),
        element("style", Markup(_css())),
    )
    contents = element(
        "nav",
        element("ul", *(element("li", element("a", each.title, href=f"#{each.name}")) for each in sections)),
        aria_label="Contents",
    )
    header = element(
        "header", element("p", kicker, class_="kicker"), element("h1", title), element("p", lead), facts, contents
    )
    main = element(
        "main", *(element("section", element("h2", each.title), each.body, id_=each.name) for each in sections)
    )
    footer = element("footer", f"Made by shardtrain {__version__}.")
    return "<!DOCTYPE html>\n" + element("html", head, element("body", header, main, footer), lang="en") + "\n"


def _css() -> str:
    """The style sheet, without the comment that explains it."""
    return resources.files(__package__).joinpath("style.css").read_text("utf-8").partition("*/")[2].strip()


def facts(*each: tuple[str, str, str]) -> Markup:
    """Figures side by side: name, value, and what belongs to it or nothing."""
    pairs = (
        element("div", element("dt", name), element("dd", value, element("small", more) if more else None))
        for name, value, more in each
    )
    return element("dl", *pairs, class_="facts")


def group(*parts: Markup | None) -> Markup:
    """Parts below each other, as one among `charts`."""
    return element("div", *parts)


def charts(*figures: Markup | None) -> Markup:
    """Figures side by side, as many as fit."""
    return element("div", *figures, class_="charts")


def figure(
    title: str, told: Child, chart: Markup, *, legend: Markup | None = None, values: Markup | None = None
) -> Markup:
    """A chart with its title, what it tells, and the table of its values."""
    caption = element("figcaption", element("h3", title), element("p", told) if told else None, legend)
    more = element("details", element("summary", "Values", _hidden(title)), values) if values else None
    return element("figure", caption, chart, more)


def _hidden(title: str) -> Markup:
    """What tells apart links of the same name, for who hears them."""
    return element("span", f" of {title}", class_="hidden")


def legend(*names: str, outline: bool = False) -> Markup:
    """The names of series in the order of their colours; with `outline` the second is one."""
    looks = ("k0", "k1 ring" if outline else "k1")
    return element(
        "ul",
        *(element("li", element("span", class_=look), name) for look, name in zip(looks, names, strict=False)),
        class_="legend",
    )


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[Child]],
    *,
    caption: str,
    text: int = 1,
    tall: bool = False,
    hide_caption: bool = False,
    hide_heads: bool = False,
) -> Markup:
    """A table whose first column heads its rows; it scrolls by itself where it is too wide.

    Args:
        heads: of the columns.
        rows: cells in the order of the columns.
        caption: what is in it.
        text: the first so many columns are text, the others are figures.
        tall: whether it scrolls where it is too long.
        hide_caption: whether the caption is for who hears the page only.
        hide_heads: whether the heads are.
    """

    def look(column: int) -> str | None:
        return "n" if column >= text else None

    head = element("tr", *(element("th", name, scope="col", class_=look(i)) for i, name in enumerate(heads)))
    body = (
        element(
            "tr",
            *(
                element("td", cell, class_=look(i), dir_="auto" if look(i) is None else None)
                if i
                else element("th", cell, scope="row", dir_="auto", class_=look(i))
                for i, cell in enumerate(row)
            ),
        )
        for row in rows
    )
    titled = element("caption", element("span", caption, class_="hidden" if hide_caption else None))
    made = element(
        "table", titled, element("thead", head, class_="hidden" if hide_heads else None), element("tbody", *body)
    )
    return element(
        "div", made, class_="scroll tall" if tall else "scroll", tabindex=0, role="region", aria_label=caption
    )


def settings(caption: str, values: Sequence[tuple[str, str]], *, numbers: bool = False) -> Markup:
    """Names and values, one below the other; with `numbers` values are figures."""
    return table(("name", "value"), values, caption=caption, text=1 if numbers else 2, hide_heads=True)


def notice(*text: Child) -> Markup:
    """Something that is missing, and why."""
    return element("p", joined(*text), class_="notice", role="note")
