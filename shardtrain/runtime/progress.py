"""Report progress on stderr: a tqdm bar on a terminal or in a notebook, one line per finished pass elsewhere.

Passes report through a `Pass` object and never print, so that terminals, notebooks and log files each get a suitable
form. `verbosity` alone decides how much is shown; how it is written is `terminal`'s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from shardtrain.runtime.quantities import duration, size
from shardtrain.runtime.terminal import MESSAGES, YELLOW, coloured, printable, stderr_is_terminal, tell

QUIET, NORMAL, VERBOSE = -1, 0, 1  # warnings and errors only; lasting passes; every pass with its time

_level = NORMAL  # of this process; worker processes show nothing


class Pass:
    """A running pass; `add` may be called from one thread only."""

    def __init__(self, bar: Any | None) -> None:
        self._bar = bar
        self.done = 0
        self.skipped = 0

    def add(self, amount: int) -> None:
        """Report that `amount` more units (bytes, rows or steps) are done."""
        self.done += amount
        if self._bar is not None:
            self._bar.update(amount)

    def skip(self, amount: int) -> None:
        """Report units that an interrupted job had done: they are done, but not part of the rate."""
        self.done += amount
        self.skipped += amount
        if self._bar is not None:
            self._bar.initial += amount
            self._bar.n += amount
            self._bar.last_print_n += amount
            self._bar.refresh()

    def say(self, **values: str) -> None:
        """Show values beside the bar, such as `loss='0.31'`."""
        if self._bar is not None:
            self._bar.set_postfix({name: printable(value) for name, value in values.items()}, refresh=False)


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
    if stderr_is_terminal() or _in_notebook():
        from tqdm.auto import tqdm

        with tqdm(
            total=total,
            initial=initial,
            desc=printable(title),
            file=MESSAGES,
            unit=unit,
            unit_scale=True,
            leave=lasting,
            dynamic_ncols=True,
            colour="green" if coloured() else None,
        ) as bar:
            yield Pass(bar)
        return
    started = time.perf_counter()
    plain = Pass(None)
    yield plain
    if lasting:
        seconds = time.perf_counter() - started
        tell(f"{title}: {_finished(plain, unit, seconds)}")


def _finished(done: Pass, unit: str, seconds: float) -> str:
    """Format what a pass did and how fast; the rate is that of the work done now."""

    def amount(number: float, digits: str = ",") -> str:
        return size(number) if unit == "B" else f"{number:{digits}} {unit}"

    if done.skipped and done.skipped == done.done:
        return f"{amount(done.done)}, all done before the interruption"
    before = f", {amount(done.skipped)} of it before the interruption," if done.skipped else ""
    rate = amount((done.done - done.skipped) / max(seconds, 1e-9), ",.0f")
    return f"{amount(done.done)}{before} in {duration(seconds)} ({rate}/s)"


def short(value: float) -> str:
    """Format a number with four decimals, or in scientific notation where it is below 0.001."""
    return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"


def say(line: str) -> bool:
    """Write a line to stderr, unless the verbosity is `QUIET`; return whether it was written."""
    if _level == QUIET:
        return False
    tell(line)
    return True


def detail(line: str) -> None:
    """Write a line to stderr if the verbosity is `VERBOSE`."""
    if _level == VERBOSE:
        tell(line)


def warn(text: str) -> None:
    """Write a warning to stderr, at any verbosity."""
    tell(f"warning: {text}", colour=YELLOW)


def _in_notebook() -> bool:
    """Return whether this is a notebook kernel, whose stderr is not a terminal but can show bars."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})
