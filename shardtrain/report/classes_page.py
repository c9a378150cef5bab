"""Render the section on classes: precision, recall and F1 of each, as dots in the rows of the table that has them."""

from __future__ import annotations

from collections.abc import Sequence

from shardtrain.metrics.classification import Metrics
from shardtrain.report.dots import HEIGHT, Scale
from shardtrain.report.formatting import quoted
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import table
from shardtrain.report.run_analysis import MAX_IN_ORDER, order_of

_MAX_ROWS = 200
_TALL = 24  # rows of a table that does not scroll


def classes_section(metrics: Metrics, names: Sequence[str]) -> Markup:
    """Render the table of classes; `names` are those of all classes."""
    order = order_of(metrics)
    shown = order[:_MAX_ROWS]
    macro = (metrics.macro_precision, metrics.macro_recall, metrics.macro_f1)
    scale = Scale.of([value for i in shown for value in _values(metrics, i)] + list(macro))
    ranked = bool(metrics.rankings)
    rows = [
        (names[i], _dots(scale, _values(metrics, i)), *(f"{value:.3f}" for value in _values(metrics, i)))
        + ((_figure(metrics.rankings[i].roc_auc), _figure(metrics.rankings[i].average_precision)) if ranked else ())
        + (f"{metrics.support[i]:,}",)
        for i in shown
    ]
    means = metrics.macro_ranking
    foot = (
        ("mean", _dots(scale, macro), *(f"{value:.3f}" for value in macro))
        + ((_figure(means.roc_auc), _figure(means.average_precision)) if ranked else ())
        + (f"{metrics.rows:,}",)
    )
    heads = (
        "class",
        scale.head("precision, recall and F1 as dots"),
        "precision",
        "recall",
        "F1",
        *(("ROC AUC", "AP") if ranked else ()),
        "rows",
    )
    listed = table(
        heads, rows, foot=foot, caption="Precision, recall and F1 of each class", chart=1, tall=len(rows) > _TALL
    )
    return joined(element("p", _note(metrics, names, order), class_="soft"), _legend(), listed)


def _note(metrics: Metrics, names: Sequence[str], order: Sequence[int]) -> str:
    """Say which class is the weakest, how the classes are sorted, and what the columns mean."""
    weakest = min(order, key=lambda index: float(metrics.f1[index]))
    note = f"The lowest F1 is that of {quoted(names[weakest])}, {metrics.f1[weakest]:.3f}."
    if len(order) > MAX_IN_ORDER:
        note += " Classes are sorted by F1, the weakest first."
    if len(order) > _MAX_ROWS:
        note += f" The first {_MAX_ROWS} of {len(order):,} are shown."
    note += " The axis of the dots is enlarged and need not begin at 0."
    return note + " ROC AUC and AP, the average precision, are each class against the rest." * bool(metrics.rankings)


def _values(metrics: Metrics, index: int) -> tuple[float, float, float]:
    return float(metrics.precision[index]), float(metrics.recall[index]), float(metrics.f1[index])


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _dots(scale: Scale, values: Sequence[float]) -> Markup:
    """Draw precision, recall and F1 on one line; the numbers are in the cells beside it."""
    precision, recall, f1 = (scale.x(value) for value in values)
    link = element("line", x1=precision, x2=recall, y1=HEIGHT / 2, y2=HEIGHT / 2, class_="link")
    return scale.row(link, *_symbols(precision, recall, f1))


def _symbols(precision: float, recall: float, f1: float) -> tuple[Markup, Markup, Markup]:
    """Draw the three symbols at their places: a bar, a dot and a diamond, distinct without colour."""
    middle = HEIGHT / 2
    return (
        element("line", x1=f1, x2=f1, y1=middle - 8, y2=middle + 8, class_="tick"),
        element("circle", cx=precision, cy=middle, r=4.5, class_="s0 halo"),
        element("path", d=f"M{recall:.1f} {middle - 5.5}l5.5 5.5l-5.5 5.5l-5.5-5.5z", class_="s1 halo"),
    )


def _legend() -> Markup:
    bar, dot, diamond = _symbols(8, 8, 8)
    each = ((dot, "precision"), (diamond, "recall"), (bar, "F1"))
    return element(
        "ul",
        *(
            element("li", element("svg", drawn, viewBox=f"0 0 16 {HEIGHT}", class_="symbol", aria_hidden="true"), name)
            for drawn, name in each
        ),
        class_="legend",
    )
