"""Report progress on stderr: a tqdm bar on a terminal or in a notebook, one line per finished pass elsewhere.

Passes report through a `Pass` object and never print, so that terminals, notebooks and log files each get a suitable
form. Bytes are shown in powers of 1000, as for disks and networks. `verbosity` alone decides how much is shown; colours
are for terminals, unless NO_COLOR is set (https://no-color.org).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

QUIET, NORMAL, VERBOSE = -1, 0, 1  # warnings and errors only; lasting passes; every pass with its time
RED, YELLOW = 31, 33

_level = NORMAL  # of this process; worker processes show nothing


class Pass:
    """A running pass; `add` may be called from one thread only."""

    def __init__(self, bar: Any | None) -> None:
        self._bar = bar
        self.done = 0

    def add(self, amount: int) -> None:
        """Report that `amount` more units (bytes, rows or steps) are done."""
        self.done += amount
        if self._bar is not None:
            self._bar.update(amount)

    def say(self, **values: str) -> None:
        """Show values beside the bar, such as `loss='0.31'`."""
        if self._bar is not None:
            self._bar.set_postfix(values, refresh=False)


@contextmanager
def verbosity(level: int) -> Iterator[None]:
    """Set the verbosity, `QUIET`, `NORMAL` or `VERBOSE`, while the block runs."""
    global _level
    before, _level = _level, level
    try:
        yield
    finally:
        _level = before


@contextmanager
def progress(
    title: str, *, total: int | None, unit: str = "B", lasting: bool = True, initial: int = 0
) -> Iterator[Pass]:
    """Show a pass over `total` units named `unit`; with `lasting` false its bar is removed when it ends.

    On a terminal and in a notebook this is a bar with rate and remaining time that starts at `initial` units. Elsewhere
    one line is written when the pass succeeds, and none if `lasting` is false. `VERBOSE` makes all passes lasting;
    `QUIET` shows none.
    """
    lasting = lasting or _level == VERBOSE
    if _level == QUIET:
        yield Pass(None)
        return
    if sys.stderr.isatty() or _in_notebook():
        from tqdm.auto import tqdm

        colour = "green" if _coloured(sys.stderr) else None
        with tqdm(
            total=total,
            initial=initial,
            desc=title,
            unit=unit,
            unit_scale=True,
            leave=lasting,
            dynamic_ncols=True,
            colour=colour,
        ) as bar:
            yield Pass(bar)
        return
    started = time.perf_counter()
    plain = Pass(None)
    yield plain
    if lasting:
        seconds = time.perf_counter() - started
        amount = f"{plain.done:,} {unit}" if unit != "B" else f"{plain.done / 1e6:,.1f} MB"
        rate = plain.done / max(seconds, 1e-9)
        per_second = f"{rate / 1e6:,.1f} MB/s" if unit == "B" else f"{rate:,.0f} {unit}/s"
        _write(f"{title}: {amount} in {seconds:.1f} s ({per_second})")


def say(line: str) -> None:
    """Write a line to stderr, unless the verbosity is `QUIET`."""
    if _level != QUIET:
        _write(line)


def detail(line: str) -> None:
    """Write a line to stderr if the verbosity is `VERBOSE`."""
    if _level == VERBOSE:
        _write(line)


def warn(text: str) -> None:
    """Write a warning to stderr, at any verbosity."""
    _write(painted(f"warning: {text}", YELLOW, sys.stderr))


def painted(text: str, colour: int, stream: IO[str]) -> str:
    """Return the text in a colour if the stream is a terminal that may have colours, otherwise unchanged."""
    return f"\x1b[{colour}m{text}\x1b[0m" if _coloured(stream) else text


def _coloured(stream: IO[str]) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _in_notebook() -> bool:
    """Return whether this is a notebook kernel, whose stderr is not a terminal but can show bars."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def _write(line: str) -> None:
    """Write a line to stderr without breaking a visible bar."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
