"""Draw dots on one axis in the rows of a table, whose other cells have the numbers: a column of small charts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from shardtrain.report.axes import label, short_number
from shardtrain.report.markup import Markup, element, joined

HEIGHT = 22  # of a row's chart
_WIDTH, _EDGE = 176, 16  # of a row's chart, and of the space on either side
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """An axis of shares that is as wide as a row's chart: from `low` to `high` in steps of `step`."""

    low: float
    high: float
    step: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Scale:
        """Return the axis with few round steps that holds all values, enlarged to them."""
        low, high = min(values), max(values)
        step = next(each for each in _STEPS if high - low <= 3 * each or each == _STEPS[-1])
        top = min(max(1, math.floor(low / step + 1e-9) + 1, math.ceil(high / step - 1e-9)), round(1 / step))
        bottom = max(0, min(math.floor(low / step + 1e-9), top - 2))
        return cls(low=bottom * step, high=top * step, step=step)

    @property
    def ticks(self) -> list[float]:
        """Values of the steps."""
        return [self.low + i * self.step for i in range(round((self.high - self.low) / self.step) + 1)]

    def x(self, value: float) -> float:
        """Return the place of a value, in pixels from the left."""
        return _EDGE + (value - self.low) / (self.high - self.low) * (_WIDTH - 2 * _EDGE)

    def head(self, name: str) -> Markup:
        """Draw the ticks, for the head of the column, whose name is for screen readers."""
        shown = self.ticks[:: 1 if len(self.ticks) <= 4 else 2]
        drawn = [label(short_number(round(tick, 4)), self.x(tick), 14.0, "soft", "middle") for tick in shown]
        return joined(element("span", name, class_="hidden"), _chart(*drawn))

    def row(self, *marks: Markup) -> Markup:
        """Draw marks over the lines of the axis."""
        places = [self.x(tick) for tick in self.ticks]
        lines = [element("line", x1=place, x2=place, y1=0, y2=HEIGHT, class_="grid") for place in places]
        return _chart(*lines, *marks)


def _chart(*drawn: Markup) -> Markup:
    return element("svg", *drawn, viewBox=f"0 0 {_WIDTH} {HEIGHT}", class_="inline", aria_hidden="true")
