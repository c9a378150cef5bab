"""Map values to positions in a chart 360 units wide, draw its axes, and fit text to a width.

The font is unknown when a chart is drawn, so text widths are upper estimates; the cost is some empty space.
"""

from __future__ import annotations

import math
import unicodedata

from shardtrain.report.formatting import truncate
from shardtrain.report.markup import Markup, element, joined
from shardtrain.runtime.terminal import printable

WIDTH = 360
TEXT = 13  # font size of all text
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 26, 42  # margins around the plot area
PLOT = 180  # height of the plot area
_NARROW, _WIDE = frozenset("ijlrtfI .,:;'|!()[]-"), frozenset("mwMW%@…")
_MAX_TICKS = 5


class Frame:
    """Scales that map values to positions in the plot area, and its axes.

    Args:
        low_x: value at the left.
        high_x: value at the right.
        low_y: value at the bottom.
        high_y: value at the top.
        log_x: whether x is logarithmic.
        x_share: whether x is written in percent.
        y_share: whether y is written in percent.
        integers: whether ticks of x are integers, where there is more than one.
        right: space on the right of the plot area.
        plot: height of the plot area.
    """

    def __init__(
        self,
        low_x: float,
        high_x: float,
        low_y: float,
        high_y: float,
        *,
        log_x: bool = False,
        x_share: bool = False,
        y_share: bool = False,
        integers: bool = True,
        right: float = RIGHT,
        plot: float = PLOT,
    ) -> None:
        self.right, self.plot = WIDTH - right, plot
        self.height = TOP + plot + BOTTOM
        self._log = log_x
        self._low_x, self._high_x = (math.log(low_x), math.log(high_x)) if log_x else (low_x, high_x)
        self._low_y, self._high_y = low_y, high_y
        self._x_share, self._y_share, self._integers = x_share, y_share, integers

    def x(self, value: float) -> float:
        """Return the position of a value, in units from the left."""
        value = math.log(value) if self._log else value
        spread = (self._high_x - self._low_x) or 1
        share = (value - self._low_x) / spread if self._high_x > self._low_x else 0.5
        return LEFT + share * (self.right - LEFT)

    def y(self, value: float) -> float:
        """Return the position of a value, in units from the top; values beyond the axis are clipped."""
        share = (value - self._low_y) / ((self._high_y - self._low_y) or 1)
        return TOP + self.plot * (1 - min(max(share, 0.0), 1.0))

    def axes(self, x_label: str, y_label: str) -> Markup:
        """Draw both axes with ticks, labels and grid lines."""
        base = self.y(self._low_y)
        drawn = [label(y_label, 0, TEXT, "soft")]
        for tick in ticks(self._low_y, self._high_y):
            y = self.y(tick)
            drawn.append(element("line", x1=LEFT, x2=self.right, y1=y, y2=y, class_="grid"))
            drawn.append(label(percent(tick) if self._y_share else short_number(tick), LEFT - 6, y + 4, "soft", "end"))
        for tick in self._x_ticks():
            x = self.x(tick)
            shown = percent(tick) if self._x_share else short_number(tick)
            half = text_width(shown) / 2
            place = min(max(x, half), WIDTH - half)
            drawn.append(element("line", x1=x, x2=x, y1=base, y2=base + 4, class_="axis"))
            drawn.append(label(shown, place, base + 18, "soft", "middle"))
        drawn.append(element("line", x1=LEFT, x2=self.right, y1=base, y2=base, class_="axis"))
        drawn.append(label(x_label, (LEFT + self.right) / 2, base + 37, "soft", "middle"))
        return joined(*drawn)

    def _x_ticks(self) -> list[float]:
        if self._log:
            powers = range(math.ceil(self._low_x / math.log(10) - 1e-9), math.floor(self._high_x / math.log(10)) + 1)
            return [10.0**power for power in powers]
        if self._low_x == self._high_x:
            return [self._low_x]
        found = ticks(self._low_x, self._high_x)
        whole = [tick for tick in found if tick == int(tick)]
        return whole if self._integers and not self._x_share and len(whole) > 1 else found


def ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers in [low, high], spaced by 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    raw = (high - low) / _MAX_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def percent(value: float) -> str:
    """Format a share in percent, with as few digits as it needs."""
    return f"{100 * value:g}%"


def short_number(value: float) -> str:
    """Format a number in few characters."""
    for limit, divisor, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / divisor:.3g}{suffix}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def text_width(text: str) -> float:
    """Estimate the width of a text in a wide font; East Asian wide characters take a full square."""
    return TEXT * sum(map(_width, text))


def _width(character: str) -> float:
    """Return the width of a character in multiples of the font size: that of DejaVu Sans, rounded up."""
    if character in _NARROW:
        return 0.42
    if character in _WIDE or unicodedata.east_asian_width(character) in "WF":
        return 1.0
    if not character.isalnum():
        return 0.86
    return 0.74 if character.isupper() else 0.64


def fit_text(text: str, width: float) -> str:
    """Escape a text and truncate it to an estimated width."""
    text = printable(text)
    length = min(len(text), int(width / (0.42 * TEXT)) + 1)  # upper bound: all characters of the least width
    while length > 1 and text_width(truncate(text, length)) > width:
        length -= 1
    return truncate(text, length)


def label(text: str, x: float, y: float, look: str = "", anchor: str | None = None) -> Markup:
    """Return a text element whose baseline is at `y`; `look` is a class of the style sheet."""
    return element("text", text, x=float(x), y=float(y), class_=look or None, text_anchor=anchor)
