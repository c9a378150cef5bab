"""Build the HTML components of a report: page, tiles, figures, tables. One file, no script, no external resource.

The page's Content-Security-Policy forbids loading or running anything. Each chart has a text alternative and, under
"Values", the table it was drawn from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from shardtrain.report.markup import Child, Markup, element, joined
from shardtrain.version import __version__

GENERATOR = "shardtrain"
_UNBROKEN = 26  # characters of a word of a name
_MANY_SECTIONS = 20  # whose links are folded away
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of a page; `name` is its anchor."""

    name: str
    title: str
    body: Markup


def render_page(kicker: str, title: str, lead: Child, key_figures: Markup, sections: Sequence[Section]) -> str:
    """Return a complete HTML document.

    Args:
        kicker: kind of report, above the title.
        title: name of the folder.
        lead: introduction of one or two sentences.
        key_figures: built by `tiles`.
        sections: sections in order.
    """
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="generator", content=f"{GENERATOR} {__version__}"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", title if title.lower() == kicker.lower() else f"{title} – {kicker}"),
        element("style", Markup(_css())),
    )
    links = element("ul", *(element("li", element("a", each.title, href=f"#{each.name}")) for each in sections))
    if len(sections) > _MANY_SECTIONS:
        links = element("details", element("summary", f"All {len(sections):,}"), links)
    contents = element("nav", links, aria_label="Contents")
    header = element(
        "header", element("p", kicker, class_="kicker"), element("h1", title), element("p", lead), key_figures, contents
    )
    main = element(
        "main", *(element("section", element("h2", each.title), each.body, id_=each.name) for each in sections)
    )
    footer = element("footer", f"Made by shardtrain {__version__}.")
    return "<!DOCTYPE html>\n" + element("html", head, element("body", header, main, footer), lang="en") + "\n"


def _css() -> str:
    """Return the style sheet without its leading comment."""
    return resources.files(__package__).joinpath("style.css").read_text("utf-8").partition("*/")[2].strip()


def tiles(*each: tuple[str, str, str]) -> Markup:
    """Lay out key figures as tiles, each given as (name, value, note); an empty note is omitted."""
    pairs = (
        element("div", element("dt", name), element("dd", value, element("small", more) if more else None))
        for name, value, more in each
    )
    return element("dl", *pairs, class_="facts")


def stack(*parts: Markup | None) -> Markup:
    """Stack parts vertically, as one cell of a `grid`."""
    return element("div", *parts)


def grid(*figures: Markup | None) -> Markup:
    """Lay out figures side by side, as many as fit the width."""
    return element("div", *figures, class_="charts")


def beside(*parts: Markup | None) -> Markup:
    """Lay out parts of different widths side by side, and below each other where they do not fit."""
    return element("div", *parts, class_="beside")


def figure(
    title: str, note: Child, chart: Markup, *, legend: Markup | None = None, values: Markup | None = None
) -> Markup:
    """Return a chart with its title, a note on what it shows, and a collapsed table of its values."""
    caption = element("figcaption", element("h3", title), element("p", note) if note else None, legend)
    more = element("details", element("summary", "Values", _hidden(title)), values) if values else None
    return element("figure", caption, chart, more)


def _hidden(title: str) -> Markup:
    """Return text for screen readers only, which distinguishes links of the same name."""
    return element("span", f" of {title}", class_="hidden")


def legend(*names: str, outline: bool = False) -> Markup:
    """Return the names of series with their colours; with `outline` all but the first are shown as outlines."""
    looks = ("k0", "k1 ring", "k2 ring") if outline else ("k0", "k1", "k2")
    return element(
        "ul",
        *(element("li", element("span", class_=look), name) for look, name in zip(looks, names, strict=False)),
        class_="legend",
    )


def table(
    heads: Sequence[Child],
    rows: Sequence[Sequence[Child]],
    *,
    caption: str,
    foot: Sequence[Child] | None = None,
    text: int = 1,
    chart: int | None = None,
    tall: bool = False,
    hide_caption: bool = False,
    hide_heads: bool = False,
    look: str | None = None,
) -> Markup:
    """Return a table whose first column holds the row headers; it scrolls horizontally if it is too wide.

    Args:
        heads: column headers.
        rows: cells in the order of the columns.
        caption: what the table shows.
        foot: a last row, for a mean or a sum.
        text: number of leading columns that hold text; the rest hold numbers.
        chart: a column whose cells are charts.
        tall: whether the height is limited and the table scrolls vertically.
        hide_caption: whether the caption is for screen readers only.
        hide_heads: whether the column headers are for screen readers only.
        look: a class of the style sheet.
    """

    def kind(column: int) -> str | None:
        return "chart" if column == chart else "n" if column >= text else None

    def row(cells: Sequence[Child]) -> Markup:
        head = element("th", _worded(cells[0], kind(0)), scope="row", dir="auto", class_=kind(0))
        others = (
            element("td", _worded(cell, kind(i)), class_=kind(i), dir_="auto" if kind(i) is None else None)
            for i, cell in enumerate(cells[1:], start=1)
        )
        return element("tr", head, *others)

    head = element("tr", *(element("th", name, scope="col", class_=kind(i)) for i, name in enumerate(heads)))
    made = element(
        "table",
        element("caption", element("span", caption, class_="hidden" if hide_caption else None)),
        element("thead", head, class_="hidden" if hide_heads else None),
        element("tbody", *map(row, rows)),
        element("tfoot", row(foot)) if foot else None,
        class_=look,
    )
    return scrolling(made, caption, tall=tall)


def _worded(cell: Child, kind: str | None) -> Child:
    return cell if kind or isinstance(cell, Markup) else named(str(cell or ""))


def named(name: str, tag: str = "span") -> Markup:
    """Return a name that breaks between words, and within a word only if that is longer than any line of a phone."""
    longest = max(map(len, name.split()), default=0)
    return element(tag, name, class_="name" if longest <= _UNBROKEN else "name long", dir_="auto")


def scrolling(content: Markup, name: str, *, tall: bool = False) -> Markup:
    """Return a region that scrolls where its content is too wide, or too high if `tall`.

    It is reached with the keyboard and named for screen readers. Where it scrolls, the edges behind which there is more
    are shaded, and in browsers with scroll-driven animations a line above it says so.
    """
    region = element(
        "div", content, class_="scroll tall" if tall else "scroll", tabindex=0, role="region", aria_label=name
    )
    signs = (
        element("span", f"scrolls {way}", class_=look) for way, look in (("sideways →", "across"), ("down ↓", "down"))
    )
    return element("div", element("p", *signs, class_="more", aria_hidden="true"), region, class_="wide")


def key_value_table(caption: str, values: Sequence[tuple[str, str]], *, numbers: bool = False) -> Markup:
    """Return a table of names and values; with `numbers` the values are aligned as numbers."""
    return table(("name", "value"), values, caption=caption, text=1 if numbers else 2, hide_heads=True, look="pairs")


def notice(*text: Child) -> Markup:
    """Return a highlighted note, for instance on what is missing and why."""
    return element("p", joined(*text), class_="notice", role="note")
