"""Draw charts as inline SVG, 360 units wide: one unit is about one pixel on a phone, so text stays readable.

Every mark has a tooltip with its values (`<title>`). Colours are classes of the style sheet, so that a chart works in
light and dark mode.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from shardtrain.report.axes import LEFT, PLOT, RIGHT, TOP, WIDTH, Frame, fit_text, label, text_width
from shardtrain.report.markup import Markup, element, joined
from shardtrain.runtime.terminal import printable


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A labelled value per series; `shown` has the text of each value, `hint` is the tooltip."""

    label: str
    values: tuple[float, ...]
    shown: tuple[str, ...]
    hint: str = ""


@dataclass(frozen=True, kw_only=True)
class Bin:
    """A half-open range [start, stop) of a histogram and the height of each series in it."""

    start: float
    stop: float
    heights: tuple[float, ...]
    hint: str


@dataclass(frozen=True, kw_only=True)
class Line:
    """A named curve; `hints` has one tooltip per point, or is empty for curves of many points."""

    name: str
    points: tuple[tuple[float, float], ...]
    hints: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Span:
    """A shaded range of the x axis with a tooltip."""

    start: float
    stop: float
    label: str
    hint: str


def bars(rows: Sequence[Bar], *, alt: str) -> Markup:
    """Draw horizontal bars, the series of a row below each other; lengths are relative to the largest value."""
    longest = max((value for row in rows for value in row.values), default=0) or 1
    labels = min(165.0, max((text_width(printable(row.label)) for row in rows), default=0.0) + 8)
    figures = max((text_width(text) for row in rows for text in row.shown), default=0.0) + 6
    room = WIDTH - labels - figures
    series = max((len(row.values) for row in rows), default=1)
    thick, height = (14, 21) if series == 1 else (15, 15 * series + 9)
    parts = []
    for number, row in enumerate(rows):
        top = number * height
        drawn: list[Markup] = [element("title", row.hint or f"{row.label}: {', '.join(row.shown)}")]
        drawn.append(label(fit_text(row.label, labels - 7), 0, top + height / 2 + 4))
        for place, (value, shown) in enumerate(zip(row.values, row.shown, strict=True)):
            y = top + (height - thick * series) / 2 + place * thick
            length = max(room * value / longest, 1.0 if value else 0.0)
            drawn.append(element("rect", x=labels, y=y + 1, width=length, height=thick - 2, class_=f"s{place}"))
            drawn.append(label(shown, labels + length + 5, y + thick / 2 + 4, "soft"))
        parts.append(element("g", *drawn))
    return drawing(len(rows) * height, alt, *parts)


def histogram(bins: Sequence[Bin], *, alt: str, x_label: str, y_label: str, shares: bool = False) -> Markup:
    """Draw a histogram; the second and third series are outlines in front of the first.

    Heights are shares; with `shares` x is a share as well.
    """
    top = max((height for each in bins for height in each.heights), default=0) or 1
    frame = Frame(bins[0].start, bins[-1].stop, 0, top, x_share=shares, y_share=True)
    marks = []
    for each in bins:
        x, stop = frame.x(each.start), frame.x(each.stop)
        width = max(stop - x - (1 if stop - x > 3 else 0), 0.6)
        drawn = [element("title", each.hint)]
        for place, height in enumerate(each.heights):
            y = frame.y(height)
            look = "s0" if place == 0 else f"outline o{place}"
            drawn.append(element("rect", x=x, y=y, width=width, height=frame.y(0) - y, class_=look))
        drawn.append(element("rect", x=x, y=TOP, width=width, height=PLOT, class_="hit"))
        marks.append(element("g", *drawn))
    return drawing(frame.height, alt, frame.axes(x_label, y_label), *marks)


def lines(
    curves: Sequence[Line],
    *,
    alt: str,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float],
    spans: Sequence[Span] = (),
    level: tuple[float, str] | None = None,
    log_x: bool = False,
    area: bool = False,
    y_share: bool = False,
) -> Markup:
    """Draw line charts.

    Args:
        curves: at least one, with at least one point.
        alt: text alternative.
        x_label: label below the x axis.
        y_label: label above the y axis.
        y_range: lowest and highest y.
        spans: shaded ranges of x.
        level: y of a horizontal line and its label.
        log_x: whether the x axis is logarithmic; x must be positive.
        area: whether the area under the first curve is filled.
        y_share: whether y is a share, shown in per cent.
    """
    xs = [x for curve in curves for x, _ in curve.points] + [edge for span in spans for edge in (span.start, span.stop)]
    frame = Frame(min(xs), max(xs), *y_range, log_x=log_x, y_share=y_share, integers=not spans)
    drawn = [_shaded(frame, spans), frame.axes(x_label, y_label)]
    if level is not None:
        y = frame.y(level[0])
        drawn.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="level"))
        drawn.append(label(level[1], WIDTH - RIGHT, y - 6, anchor="end"))
    for place, curve in enumerate(curves):
        points = [(frame.x(x), frame.y(y)) for x, y in curve.points]
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        if area and place == 0:
            drawn.append(element("path", d=f"{path}V{frame.y(y_range[0]):.1f}H{points[0][0]:.1f}Z", class_="area"))
        drawn.append(element("path", d=path, class_=f"curve c{place}"))
        for (x, y), hint in zip(points, curve.hints, strict=False):
            dot = element("circle", cx=x, cy=y, r=2.5 if len(points) > 1 else 4, class_=f"s{place}")
            hit = element("circle", cx=x, cy=y, r=7, class_="hit")
            drawn.append(element("g", element("title", hint), dot, hit))
    return drawing(frame.height, alt, *drawn)


def _shaded(frame: Frame, spans: Sequence[Span]) -> Markup:
    """Draw shaded ranges of x, every second one darker, with their labels where they fit."""
    drawn = []
    for number, span in enumerate(spans):
        start, stop = frame.x(span.start), frame.x(span.stop)
        look = "span dark" if number % 2 else "span"
        inner = [element("title", span.hint)]
        inner.append(element("rect", x=start, y=TOP, width=max(stop - start, 0.5), height=PLOT, class_=look))
        if stop - start >= text_width(span.label) + 2:
            inner.append(label(span.label, (start + stop) / 2, TOP + PLOT - 6, "soft", "middle"))
        drawn.append(element("g", *inner))
    return joined(*drawn)


def drawing(height: float, alt: str, *parts: Markup) -> Markup:
    """Return a chart of a height; `alt` is its text alternative."""
    return element("svg", *parts, viewBox=f"0 0 {WIDTH} {height:.0f}", role="img", aria_label=alt)


def histogram_bins(counts: Sequence[Sequence[int]], names: Sequence[str], unit: str, *, most: int = 40) -> list[Bin]:
    """Bin histograms of integers from 0, one per series, into at most `most` bins of equal integer width.

    Heights are shares of each series.
    """
    stop = max(map(len, counts))
    width = max(1, math.ceil(stop / most))
    cuts = range(0, stop + width, width)
    totals = [sum(each) or 1 for each in counts]
    found = []
    for start, stop in pairwise(cuts):
        sums = [sum(each[start:stop]) for each in counts]
        span = f"{start:,}" if stop - start == 1 else f"{start:,} to {stop - 1:,}"
        shares = ", ".join(
            f"{name} {value:,} ({value / total:.1%})" for name, value, total in zip(names, sums, totals, strict=True)
        )
        found.append(
            Bin(
                start=start,
                stop=stop,
                heights=tuple(a / b for a, b in zip(sums, totals, strict=True)),
                hint=f"{span} {unit}: {shares}",
            )
        )
    return found
