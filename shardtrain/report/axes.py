"""Where values lie in a chart of 360 units width, its axes, and text of about the right length.

Text is measured by a rule of thumb, since no font is known here: the cost is some room.
"""

from __future__ import annotations

import math
import unicodedata

from shardtrain.report.formatting import cut, printable
from shardtrain.report.markup import Markup, element, joined

WIDTH = 360
TEXT = 13  # height of all text
LEFT, RIGHT, TOP, BOTTOM = 48, 10, 26, 42  # margins around what is plotted
PLOT = 180  # height of what is plotted
_NARROW, _WIDE = frozenset("ijlrtfI .,:;'|!()[]-"), frozenset("mwMW%@…")
_MAX_TICKS = 5


class Frame:
    """Where values lie between the margins, and the axes around them."""

    height = TOP + PLOT + BOTTOM

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
    ) -> None:
        self._log = log_x
        self._low_x, self._high_x = (math.log(low_x), math.log(high_x)) if log_x else (low_x, high_x)
        self._low_y, self._high_y = low_y, high_y
        self._x_share, self._y_share, self._integers = x_share, y_share, integers

    def x(self, value: float) -> float:
        """Where a value lies, in units from the left."""
        value = math.log(value) if self._log else value
        spread = (self._high_x - self._low_x) or 1
        share = (value - self._low_x) / spread if self._high_x > self._low_x else 0.5
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        """Where a value lies, in units from the top; values beyond the axis are put at its end."""
        share = (value - self._low_y) / ((self._high_y - self._low_y) or 1)
        return TOP + PLOT * (1 - min(max(share, 0.0), 1.0))

    def axes(self, x_label: str, y_label: str) -> Markup:
        """Both axes with ticks, the grid, and what they show."""
        base = self.y(self._low_y)
        drawn = [label(y_label, 0, TEXT, "soft")]
        for tick in ticks(self._low_y, self._high_y):
            y = self.y(tick)
            drawn.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="grid"))
            drawn.append(label(_share(tick) if self._y_share else short(tick), LEFT - 6, y + 4, "soft", "end"))
        for tick in self._x_ticks():
            x = self.x(tick)
            shown = _share(tick) if self._x_share else short(tick)
            half = text_width(shown) / 2
            place = min(max(x, half), WIDTH - half)
            drawn.append(element("line", x1=x, x2=x, y1=base, y2=base + 4, class_="axis"))
            drawn.append(label(shown, place, base + 18, "soft", "middle"))
        drawn.append(element("line", x1=LEFT, x2=WIDTH - RIGHT, y1=base, y2=base, class_="axis"))
        drawn.append(label(x_label, (WIDTH + LEFT - RIGHT) / 2, base + 37, "soft", "middle"))
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
    """Round numbers in [low, high], about five of them; 1, 2 and 5 times powers of ten apart."""
    if not high > low:
        return [low]
    raw = (high - low) / _MAX_TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def _share(value: float) -> str:
    return f"{100 * value:g}%"


def short(value: float) -> str:
    """A number in few characters."""
    for limit, divisor, suffix in ((1e9, 1e9, "G"), (1e6, 1e6, "M"), (1e4, 1e3, "k")):
        if abs(value) >= limit:
            return f"{value / divisor:.3g}{suffix}"
    return f"{value:,.0f}" if value == int(value) or abs(value) >= 100 else f"{value:.3g}"


def text_width(text: str) -> float:
    """About how wide a text is, in fonts that run wide; characters of East Asia take a square each."""
    return TEXT * sum(map(_width, text))


def _width(character: str) -> float:
    """Of a character, in heights of the text: those of DejaVu Sans, rounded up."""
    if character in _NARROW:
        return 0.42
    if character in _WIDE or unicodedata.east_asian_width(character) in "WF":
        return 1.0
    if not character.isalnum():
        return 0.86
    return 0.74 if character.isupper() else 0.64


def fitted(text: str, width: float) -> str:
    """A text as it will be shown, cut to about a width."""
    text = printable(text)
    length = min(len(text), int(width / (0.42 * TEXT)) + 1)  # of the narrowest characters no more fit
    while length > 1 and text_width(cut(text, length)) > width:
        length -= 1
    return cut(text, length)


def label(text: str, x: float, y: float, look: str = "", anchor: str | None = None) -> Markup:
    """Text in a chart, its baseline at `y`; `look` is a class of the page's style."""
    return element("text", text, x=float(x), y=float(y), class_=look or None, text_anchor=anchor)
