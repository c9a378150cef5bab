"""Render the calibration: accuracy against confidence, over a histogram of the rows that each figure rests on.

A dot is as large as its rows are many and has its 95 % interval, so a bin of few rows does not weigh as much as the
one that holds nearly all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from shardtrain.metrics.classification import BINS, Metrics
from shardtrain.metrics.intervals import wilson_interval
from shardtrain.report.axes import LEFT, PLOT, TOP, Frame, label, short_number, ticks
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import figure, grid, table
from shardtrain.report.svg import drawing

_COUNTS = 72  # height of the histogram below the diagram
_GAP = 56  # between both
_LARGEST, _SMALLEST = 10.0, 2.75  # radius of a dot


@dataclass(frozen=True, kw_only=True)
class _Bin:
    """A range of confidence: its rows, their mean confidence and accuracy, and the interval of that."""

    start: float
    stop: float
    rows: float
    confidence: float
    accuracy: float

    @property
    def name(self) -> str:
        return f"{100 * self.start:.0f}–{100 * self.stop:.0f}%"

    @property
    def interval(self) -> tuple[float, float]:
        return wilson_interval(self.accuracy, self.rows)


def calibration_section(metrics: Metrics) -> Markup:
    """Render the diagram with its histogram, and the table of the bins."""
    found = metrics.calibration
    bins = [
        _Bin(start=i / BINS, stop=(i + 1) / BINS, rows=rows, confidence=confidence, accuracy=accuracy)
        for i, (rows, confidence, accuracy) in enumerate(
            zip(found.counts, found.confidence, found.accuracy, strict=True)
        )
    ]
    mean = sum(each.rows * each.confidence for each in bins) / (metrics.rows or 1)
    note = (
        f"Expected calibration error {found.error:.3f}. The accuracy is {metrics.accuracy:.1%} and the mean confidence "
        f"{mean:.1%}, so the model is {bias_in_words(mean, metrics.accuracy)}. The area of a dot is its number of "
        "rows, the line through it the 95% interval; on the dashed line confidence equals accuracy."
    )
    rows = [
        (
            each.name,
            f"{each.rows:,}",
            *((f"{each.confidence:.1%}", f"{each.accuracy:.1%}", _span(each)) if each.rows else ("–", "–", "–")),
        )
        for each in bins
    ]
    heads = ("confidence", "rows", "mean", "accuracy", "95% interval")
    listed = table(heads, rows, caption="Accuracy by confidence")
    return grid(figure("Reliability diagram", note, _draw(bins, f"Reliability diagram. {note}")), listed)


def _span(each: _Bin) -> str:
    low, high = each.interval
    return f"{100 * low:.0f}–{100 * high:.0f}%"


def bias_in_words(confidence: float, accuracy: float) -> str:
    """Compare the mean confidence with the accuracy, in percentage points of one decimal."""
    points = f"{100 * abs(confidence - accuracy):.1f}"
    if points == "0.0":
        return "as confident as it is right"
    return f"{'over' if confidence > accuracy else 'under'}confident by {points} percentage points"


def _draw(bins: list[_Bin], alt: str) -> Markup:
    frame = Frame(0, 1, 0, 1, x_share=True, y_share=True)
    most = max(each.rows for each in bins) or 1
    ideal = element("line", x1=frame.x(0), y1=frame.y(0), x2=frame.x(1), y2=frame.y(1), class_="chance")
    base = TOP + PLOT + _GAP + _COUNTS
    marks = [_mark(frame, each, most, base) for each in bins]
    counts = _count_axis(frame, most, base)
    return drawing(base + 40, alt, frame.axes("", "accuracy"), ideal, counts, *marks)


def _count_axis(frame: Frame, most: float, base: float) -> Markup:
    """Draw the axes of the histogram, with counts, and the name of the confidence, which both charts share."""
    drawn = [label("rows", 0, base - _COUNTS - 14, "soft")]
    for tick in [0.0, *[each for each in ticks(0, most) if each > 0][-1:]]:
        y = base - _COUNTS * tick / most
        drawn.append(element("line", x1=LEFT, x2=frame.right, y1=y, y2=y, class_="grid" if tick else "axis"))
        drawn.append(label(short_number(tick), LEFT - 6, y + 4, "soft", "end"))
    drawn.append(
        label("confidence: probability of the predicted class", (LEFT + frame.right) / 2, base + 22, "soft", "middle")
    )
    return joined(*drawn)


def _mark(frame: Frame, each: _Bin, most: float, base: float) -> Markup:
    """Draw the dot of a bin with its interval, and its bar in the histogram."""
    left, right = frame.x(each.start), frame.x(each.stop)
    height = max(_COUNTS * each.rows / most, 1.0 if each.rows else 0.0)
    hint = f"confidence {each.name}: {each.rows:,} rows"
    drawn: list[Markup] = []
    if each.rows:
        hint += f", mean confidence {each.confidence:.1%}, accuracy {each.accuracy:.1%} ({_span(each)})"
        x, (low, high) = frame.x(each.confidence), each.interval
        share = math.sqrt(each.rows / most)
        radius = max(_SMALLEST, _LARGEST * share)
        drawn.append(
            element("line", x1=x, x2=x, y1=frame.y(low), y2=frame.y(high), class_="whisker", opacity=0.3 + 0.6 * share)
        )
        drawn.append(element("circle", cx=x, cy=frame.y(each.accuracy), r=radius, class_="s0 halo"))
    drawn.append(element("rect", x=left + 1, y=base - height, width=right - left - 2, height=height, class_="s0 quiet"))
    drawn.append(element("rect", x=left, y=TOP, width=right - left, height=base - TOP, class_="hit"))
    return element("g", element("title", hint), *drawn)
