"""Render the section on training: loss and accuracy over the epochs, with the epoch whose weights were kept.

The first epochs of a training often fall so far that all others look flat. Where they would take more than three fifths
of the height, the axis covers the later epochs only, and the chart and its note say what lies beyond it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from shardtrain.report.axes import TOP, Frame, label, text_width
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import figure, grid, table
from shardtrain.report.svg import drawing
from shardtrain.runtime.quantities import enumerated

_RIGHT = 84  # of a chart: room for the names of its lines
_METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")
_FLAT = 2.5  # the range of all epochs to that of the later ones, above which these look flat
_TALL = 9  # rows of a table that does not scroll

Epoch = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """A metric over the epochs: its name in the chart, and (epoch, value) in order."""

    name: str
    points: tuple[tuple[float, float], ...]

    def at(self, epoch: float) -> float:
        """Return the value of an epoch, or of the last one if it has none."""
        return dict(self.points).get(epoch, self.points[-1][1])


def training_section(epochs: Sequence[Epoch], best: int | None) -> Markup:
    """Render the charts and the table of all epochs.

    Args:
        epochs: metrics of each epoch, at least one.
        best: epoch whose weights were kept; None: the last one.
    """
    kept = best if best is not None else int(epochs[-1].get("epoch", len(epochs)))
    names = ["epoch", *(name for name in _METRICS if any(name in epoch for epoch in epochs))]
    rows = [tuple(number(epoch[name]) if name in epoch else "" for name in names) for epoch in epochs]
    heads = [name.replace("val_", "validation ").replace("_", " ") for name in names]
    listed = table(heads, rows, caption="Metrics of each epoch", text=0, tall=len(rows) > _TALL)
    return grid(*(_chart(epochs, name, kept, last=best is None) for name in ("loss", "accuracy")), listed)


def engine_table(epochs: Sequence[Epoch]) -> Markup | None:
    """Render what the epochs recorded beside loss and accuracy, such as their speed; None if that is nothing."""
    found = list(dict.fromkeys(name for epoch in epochs for name in epoch if name not in ("epoch", *_METRICS)))
    if not found:
        return None
    rows = [
        (number(epoch["epoch"]), *(number(epoch[name]) if name in epoch else "" for name in found)) for epoch in epochs
    ]
    heads = ("epoch", *(name.replace("_", " ") for name in found))
    return table(heads, rows, caption="Further figures of each epoch", text=0, tall=len(rows) > _TALL)


def number(value: float) -> str:
    """Format a metric: integers as such, others with four digits after the point, or as many that are not zero."""
    return f"{value:,.0f}" if value == int(value) else f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.2e}"


def axis_range(series: Sequence[Series]) -> tuple[float, float]:
    """Return the lowest and the highest value of the axis.

    With three epochs or more the first one, of many the first tenth, is left out where the others would look flat.
    """
    first = series[0].points[0][0]
    most = max(len(each.points) for each in series)
    early = first + max(1, most // 10)
    every = [value for each in series for _, value in each.points]
    later = [value for each in series for epoch, value in each.points if epoch >= early]
    low, high = min(every), max(every)
    if most >= 3 and (high - low) > _FLAT * (max(later) - min(later)) > 0:
        low, high = min(later), max(later)
    pad = 0.08 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad if low < 0 else max(0.0, low - pad), high + pad


def _chart(epochs: Sequence[Epoch], name: str, kept: int, *, last: bool) -> Markup | None:
    """Draw a metric for training and validation rows; None if it was not recorded."""
    found = []
    for key, title in ((name, "training"), (f"val_{name}", "validation")):
        points = tuple((epoch["epoch"], epoch[key]) for epoch in epochs if key in epoch and "epoch" in epoch)
        if points:
            found.append(Series(name=title, points=points))
    if not found:
        return None
    low, high = axis_range(found)
    chosen = found[-1]
    note = f"{chosen.name.capitalize()} {name} {number(chosen.at(kept))} at epoch {kept:,}, whose weights were kept"
    if not last and kept != chosen.points[-1][0]:
        note += f"; {number(chosen.points[-1][1])} at the last epoch, {chosen.points[-1][0]:,.0f}"
    note += "."
    beyond = [
        f"{each.name} {number(y)} at epoch {x:,.0f}" for each in found for x, y in each.points if not low <= y <= high
    ]
    if beyond:
        note += f" Beyond the axis: {enumerated(beyond, 4)}."
    return figure(name.capitalize(), note, _draw(found, name, kept, (low, high), note))


def _draw(series: Sequence[Series], name: str, kept: int, bounds: tuple[float, float], note: str) -> Markup:
    low, high = bounds
    xs = [x for each in series for x, _ in each.points]
    frame = Frame(min(xs), max(xs), low, high, right=_RIGHT, y_share=name == "accuracy")
    drawn = [frame.axes("epoch", name), _kept_line(frame, kept)]
    ends = _apart([frame.y(each.points[-1][1]) for each in series])
    for place, (each, end) in enumerate(zip(series, ends, strict=True)):
        drawn.append(element("path", d=_path(each, frame, bounds), class_=f"curve c{place}{' main' if place else ''}"))
        for x, y in each.points:
            hint = element("title", f"epoch {x:g}, {each.name}: {number(y)}")
            drawn.append(element("g", hint, _mark(frame, x, y, bounds, place, few=len(each.points) <= 40)))
        drawn.append(label(each.name, frame.right + 8, end + 4))
    chosen = series[-1].at(kept)
    drawn.append(element("circle", cx=frame.x(kept), cy=frame.y(chosen), r=6.5, class_="ring-mark"))
    return drawing(frame.height, f"{name.capitalize()} over {len(series[-1].points):,} epochs. {note}", *drawn)


def _kept_line(frame: Frame, kept: int) -> Markup:
    """Draw the line of the epoch whose weights were kept, with its name above the plot area."""
    x, shown = frame.x(kept), f"epoch {kept:,} kept"
    place = min(max(x, 72 + text_width(shown) / 2), frame.right + 40 - text_width(shown) / 2)
    line = element("line", x1=x, x2=x, y1=TOP - 4, y2=frame.height - 42, class_="marked")
    return joined(line, label(shown, place, TOP - 9, "soft", "middle"))


def _mark(frame: Frame, x: float, y: float, bounds: tuple[float, float], place: int, *, few: bool) -> Markup:
    """Draw a point, or at the edge an arrow towards one that lies beyond it, with a larger place to point at."""
    across, down = frame.x(x), frame.y(y)
    hit = element("circle", cx=across, cy=down, r=7, class_="hit")
    if bounds[0] <= y <= bounds[1]:
        return joined(element("circle", cx=across, cy=down, r=2.5, class_=f"s{place}") if few else None, hit)
    sign = -1 if y > bounds[1] else 1
    across += 9 * place
    return joined(element("path", d=f"M{across - 4:.1f} {down:.1f}h8l-4 {6 * sign}z", class_=f"s{place}"), hit)


def _path(series: Series, frame: Frame, bounds: tuple[float, float]) -> str:
    """Return the path of a line, cut at the edges of the plot area."""
    pieces = []
    points = series.points if len(series.points) > 1 else series.points * 2
    for (x, y), (next_x, next_y) in pairwise(points):
        reach = sorted((edge - y) / (next_y - y) for edge in bounds) if next_y != y else [0.0, 1.0]
        start, stop = max(0.0, reach[0]), min(1.0, reach[1])
        if start < stop and (next_y != y or bounds[0] <= y <= bounds[1]):
            ends = [(x + part * (next_x - x), y + part * (next_y - y)) for part in (start, stop)]
            pieces.append("M" + "L".join(f"{frame.x(a):.1f} {frame.y(b):.1f}" for a, b in ends))
    return "".join(pieces) or "M0 0"


def _apart(places: list[float]) -> list[float]:
    """Move two labels apart that would be written over each other."""
    if len(places) < 2 or abs(places[0] - places[1]) >= 16:
        return places
    middle, sign = sum(places) / 2, 1 if places[0] > places[1] else -1
    return [middle + 8 * sign, middle - 8 * sign]
