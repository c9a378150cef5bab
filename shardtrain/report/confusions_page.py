"""Render the confusion matrix, normalised by true class, and the pairs of classes that are confused most often.

The matrix is a table, so that names are whole, a screen reader can walk it, and a phone can scroll it. Of many classes
it has those of the most frequent confusions, and one row and column for all others, so that its totals are still true.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.metrics.classification import MAX_MATRIX, Metrics
from shardtrain.report.formatting import format_share, quoted
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import beside, named, notice, scrolling, table

MAX_CLASSES = 16  # of a matrix that has all classes
_CHOSEN = 10  # classes of a matrix that has some
_MAX_PAIRS = 30
_TALL = 12  # rows of a table that does not scroll
_LEVEL = 44  # letters of column heads that are not turned


def confusions_section(metrics: Metrics, names: Sequence[str]) -> Markup:
    """Render the matrix and the pairs; `names` are those of all classes."""
    if metrics.confusions is None:
        return notice(f"Confusions are not counted for more than {MAX_MATRIX:,} classes; the model has {len(names):,}.")
    matrix = choose(metrics, names)
    note = (
        "Rows are true classes, columns predicted ones. A cell has the share of the rows of its true class, and their "
        "number below."
    )
    if len(matrix.names) < len(names):
        chosen = len(matrix.names) - 1
        note += (
            f" The {chosen} classes with the most frequent confusions are shown, the other {len(names) - chosen:,} "
            "together."
        )
    both = beside(_table(matrix), _pairs(metrics, names))
    return joined(element("p", note, class_="soft"), both)


@dataclass(frozen=True, kw_only=True, eq=False)
class Matrix:
    """A confusion matrix to show.

    Attributes:
        names: of its rows and columns; "all other classes" is the last if some are not shown.
        counts: rows of true class i predicted as class j, (names, names).
        whole: whether the last row and column stand for several classes.
    """

    names: tuple[str, ...]
    counts: npt.NDArray[np.float64]
    whole: bool


def choose(metrics: Metrics, names: Sequence[str]) -> Matrix:
    """Return the matrix of all classes, or of more than `MAX_CLASSES` that of those in the most frequent confusions."""
    counts = np.asarray(metrics.confusions, np.float64)
    if len(names) <= MAX_CLASSES:
        return Matrix(names=tuple(names), counts=counts, whole=True)
    chosen: list[int] = []
    for _, i, j in metrics.confused_pairs():
        chosen += [each for each in (i, j) if each not in chosen]
        if len(chosen) >= _CHOSEN:
            break
    rest = np.setdiff1d(np.arange(len(names)), chosen)
    groups = np.zeros((len(chosen) + 1, len(names)))
    groups[np.arange(len(chosen)), chosen] = 1
    groups[-1, rest] = 1
    return Matrix(
        names=(*(names[i] for i in chosen), "all other classes"), counts=groups @ counts @ groups.T, whole=False
    )


def _table(matrix: Matrix) -> Markup:
    caption = "Confusion matrix"
    support, predicted = matrix.counts.sum(axis=1), matrix.counts.sum(axis=0)
    longest = sum(max(map(len, name.split() or [""])) for name in matrix.names)
    turned = "turned" if longest > _LEVEL else None
    heads = [element("th", named(name), scope="col", class_=turned) for name in matrix.names]
    head = element(
        "tr",
        element("th", "true ↓", element("br"), "predicted →", scope="col", class_="corner"),
        *heads,
        element("th", "rows", scope="col", class_="total"),
    )
    body = [
        element(
            "tr",
            element("th", named(name), scope="row", dir="auto"),
            *(
                _cell(matrix.counts[i, j], support[i], own=i == j, mixed=not matrix.whole and i == j == len(heads) - 1)
                for j in range(len(heads))
            ),
            element("td", f"{support[i]:,.0f}", class_="total"),
        )
        for i, name in enumerate(matrix.names)
    ]
    foot = element(
        "tr",
        element("th", "predicted rows", scope="row"),
        *(element("td", f"{count:,.0f}") for count in predicted),
        element("td", f"{support.sum():,.0f}", class_="total"),
    )
    made = element(
        "table",
        element("caption", element("span", caption)),
        element("thead", head),
        element("tbody", *body),
        element("tfoot", foot),
        class_="matrix",
    )
    return scrolling(made, caption)


def _cell(count: float, support: float, *, own: bool, mixed: bool) -> Markup:
    """Return a cell: blue where the class is right, vermilion where it is not, grey where both are in it.

    Shares of mistakes are small, so their tint grows with the root of the share; all tints leave enough contrast.
    """
    if not count:
        return element("td", "0", class_="none")
    share = count / support
    tint = 0.08 + 0.42 * share if own else min(0.5, 0.06 + 0.7 * math.sqrt(share))
    look = "mixed" if mixed else "right" if own else "wrong"
    return element(
        "td", format_share(share), element("small", f"{count:,.0f}"), class_=look, style=f"--tint:{tint:.2f}"
    )


def _pairs(metrics: Metrics, names: Sequence[str]) -> Markup:
    """List the most frequent confusions."""
    found = metrics.confused_pairs()
    if not found:
        return element("p", "No row is misclassified.")
    wrong = sum(count for count, _, _ in found)
    rows = [
        (names[i], names[j], f"{count:,}", f"{count / metrics.support[i]:.1%}") for count, i, j in found[:_MAX_PAIRS]
    ]
    count, i, j = found[0]
    note = f"Most often {quoted(names[i])} is taken for {quoted(names[j])}: {count:,} of {wrong:,} mistakes."
    more = f", the first {_MAX_PAIRS} of {len(found):,}" if len(found) > _MAX_PAIRS else ""
    heads = ("true class", "predicted class", "rows", "of class")
    caption = f"Most confused pairs{more}"
    listed = table(heads, rows, caption=caption, text=2, tall=len(rows) > _TALL, hide_caption=not more)
    return element(
        "div", element("h3", "Most confused pairs"), element("p", note, class_="soft"), listed, class_="rest"
    )
