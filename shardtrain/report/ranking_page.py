"""Render ROC and precision-recall curves, each class against the rest: their mean, and the weakest classes by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.metrics.classification import MAX_MATRIX, Metrics
from shardtrain.metrics.ranking import Curves
from shardtrain.report.axes import Frame
from shardtrain.report.formatting import MAX_NAME, truncate
from shardtrain.report.markup import Markup, element
from shardtrain.report.page import figure, grid, named, notice, table
from shardtrain.report.svg import drawing

_NAMED = 3  # classes with a line and a name of their own
_FAINT = 12  # other classes, as thin lines
_PLOT = 250  # height of the plot area
_GRID = np.linspace(0, 1, 201)[1:]  # where curves are averaged
_MAX_ROWS = 200

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class _Kind:
    """One of the two charts.

    Attributes:
        title: of the chart.
        figure: name of the area under a curve.
        x_label: of the x axis.
        y_label: of the y axis.
        points: of a curve: x ascending, and y.
        mean: mean of the curves at `_GRID`.
        steps: whether y holds from the x before up to its own.
        values: of each class, the area; None where it is undefined.
    """

    title: str
    figure: str
    x_label: str
    y_label: str
    points: Callable[[Curves], tuple[Floats, Floats]]
    mean: Callable[[Sequence[Curves]], Floats]
    steps: bool
    values: Sequence[float | None]


def ranking_section(metrics: Metrics, curves: Sequence[Curves | None], names: Sequence[str]) -> Markup:
    """Render both charts; `names` are those of all classes."""
    if not any(curves):
        why = (
            f"of more than {MAX_MATRIX:,} classes; the model has {len(names):,}"
            if len(names) > MAX_MATRIX
            else "where all rows have one class"
        )
        return notice(f"There are no curves {why}.")
    roc = _Kind(
        title="ROC curve",
        figure="area under the curve",
        x_label="false positive rate",
        y_label="recall",
        points=lambda curve: (curve.false_positives, curve.true_positives),
        mean=lambda found: np.mean([curve.true_positives_at(_GRID) for curve in found], axis=0),
        steps=False,
        values=[each.roc_auc for each in metrics.rankings],
    )
    precision = _Kind(
        title="Precision-recall curve",
        figure="average precision",
        x_label="recall",
        y_label="precision",
        points=_steps,
        mean=lambda found: np.mean([curve.precision_at(_GRID) for curve in found], axis=0),
        steps=True,
        values=[each.average_precision for each in metrics.rankings],
    )
    found = [(index, curve) for index, curve in enumerate(curves) if curve is not None]
    found.sort(key=lambda pair: precision.values[pair[0]] or 0.0)
    return grid(*(_chart(kind, found, names) for kind in (roc, precision)))


def _chart(kind: _Kind, found: Sequence[tuple[int, Curves]], names: Sequence[str]) -> Markup:
    """Draw the curves of classes, those that are named first; a class has one look in both charts."""
    mean = float(np.mean([kind.values[index] or 0.0 for index, _ in found]))
    worst = found[:_NAMED]
    others = found[_NAMED:]
    faint = others[:: -(-len(others) // _FAINT) or 1]
    frame = Frame(0, 1, 0, 1, x_share=True, y_share=True, plot=_PLOT)
    drawn = [frame.axes(kind.x_label, kind.y_label)]
    if not kind.steps:
        ends = {"x1": frame.x(0), "y1": frame.y(0), "x2": frame.x(1), "y2": frame.y(1)}
        drawn.append(element("line", class_="chance", **ends))
    drawn += [_line(frame, kind, curve, names[index], "curve faint") for index, curve in faint]
    drawn += [_line(frame, kind, curve, names[i], f"curve w{place}") for place, (i, curve) in enumerate(worst)]
    average = (np.append(0.0, _GRID), np.append(0.0, kind.mean([curve for _, curve in found])))
    if kind.steps:
        average = (average[0][1:], average[1][1:])
    title = element("title", f"mean of {len(found):,} classes")
    drawn.append(element("g", title, element("path", d=_smooth(frame, *average), class_="curve mean")))
    entries = [("mean", f"mean of {len(found):,} classes", mean)]
    entries += [(f"w{place}", names[i], kind.values[i] or 0.0) for place, (i, _) in enumerate(worst)]
    what = f"The {len(worst)} classes of the lowest average precision have lines"
    note = f"Each class against the rest; {kind.figure} {mean:.3f} in the mean. "
    note += f"{what} of their own" if others else "Each class has a line of its own"
    if faint:
        few = "the other has a thin one" if len(others) == 1 else "the others have thin ones"
        note += f", {len(faint):,} of the other {len(others):,} thin ones" if len(faint) < len(others) else f", {few}"
    note += "."
    note += "" if kind.steps else " The dashed diagonal is guessing."
    listed = ", ".join(f"{truncate(name, MAX_NAME)} {value:.3f}" for _, name, value in entries)
    rows = [(names[i], f"{kind.values[i] or 0.0:.4f}") for i, _ in found[:_MAX_ROWS]]
    more = f", the {_MAX_ROWS} lowest of {len(found):,}" if len(found) > _MAX_ROWS else ""
    caption = f"{kind.figure.capitalize()} of each class, the lowest first{more}"
    return figure(
        kind.title,
        note,
        drawing(frame.height, f"{kind.title}. {note} {kind.figure.capitalize()}: {listed}.", *drawn),
        legend=_legend(entries),
        values=table(("class", kind.figure), rows, caption=caption, hide_caption=not more, tall=len(rows) > 12),
    )


def _steps(curve: Curves) -> tuple[Floats, Floats]:
    """Return recall and precision from recall 0 on."""
    return np.append(0.0, curve.recall), np.append(curve.precision[:1], curve.precision)


def _line(frame: Frame, kind: _Kind, curve: Curves, name: str, look: str) -> Markup:
    x, y = kind.points(curve)
    path = _stairs(frame, x, y) if kind.steps else _smooth(frame, x, y)
    return element("g", element("title", name), element("path", d=path, class_=look))


def _smooth(frame: Frame, x: Floats, y: Floats) -> str:
    """Return a path through points, without those that lie on a straight line between their neighbours."""
    points = [(round(frame.x(a), 1), round(frame.y(b), 1)) for a, b in zip(x.tolist(), y.tolist(), strict=True)]
    kept: list[tuple[float, float]] = []
    for point in points:
        if len(kept) > 1 and _straight(kept[-2], kept[-1], point):
            kept.pop()
        if not kept or kept[-1] != point:
            kept.append(point)
    return "M" + "L".join(f"{a:g} {b:g}" for a, b in kept)


def _straight(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return abs((b[0] - a[0]) * (c[1] - a[1]) - (c[0] - a[0]) * (b[1] - a[1])) < 1e-6


def _stairs(frame: Frame, x: Floats, y: Floats) -> str:
    """Return a path of steps: y holds from the point before up to its own x."""
    path = [f"M{frame.x(float(x[0])):.1f} {frame.y(float(y[0])):.1f}"]
    level = across = ""
    for a, b in zip(x[1:].tolist(), y[1:].tolist(), strict=True):
        down, to = f"V{frame.y(b):.1f}", f"H{frame.x(a):.1f}"
        path += [each for each, before in ((down, level), (to, across)) if each != before]
        level, across = down, to
    return "".join(path)


def _legend(entries: Sequence[tuple[str, str, float]]) -> Markup:
    """Return the named lines with their looks and areas."""
    return element(
        "ul",
        *(
            element(
                "li",
                element(
                    "svg",
                    element("line", x1=1, x2=27, y1=8, y2=8, class_=f"curve {look}"),
                    viewBox="0 0 28 16",
                    class_="sample",
                    aria_hidden="true",
                ),
                named(name),
                element("b", f"{value:.3f}"),
            )
            for look, name, value in entries
        ),
        class_="lines",
    )
