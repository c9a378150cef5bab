"""How a long pass shows itself: a tqdm bar on a terminal or in a notebook, one finished line elsewhere; on stderr.

Passes report through the `Pass` they are handed and never print, so that a test, a notebook or a log file sees
what suits it. Bytes are shown in powers of 1000, as disks and networks count them. How much is told is decided in one
place, `verbosity`; colours are for terminals, and for nobody who has set NO_COLOR (https://no-color.org).
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

QUIET, NORMAL, VERBOSE = -1, 0, 1  # warnings and errors only; what lasts; every pass with its time
RED, YELLOW = 31, 33

_level = NORMAL  # of this process; workers tell nothing


class Pass:
    """One pass under way; `add` may be called from one thread only."""

    def __init__(self, bar: Any | None) -> None:
        self._bar = bar
        self.done = 0

    def add(self, amount: int) -> None:
        """Say that `amount` more units (bytes, rows or steps) are done."""
        self.done += amount
        if self._bar is not None:
            self._bar.update(amount)

    def say(self, **values: str) -> None:
        """Show values beside the bar, such as `loss='0.31'`."""
        if self._bar is not None:
            self._bar.set_postfix(values, refresh=False)


@contextmanager
def verbosity(level: int) -> Iterator[None]:
    """Tell as much as `QUIET`, `NORMAL` or `VERBOSE` says while the block runs."""
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
    """Show a pass over `total` units named `unit`; with `lasting` false nothing of it remains when it ends.

    On a terminal and in a notebook it is a bar with rate and remaining time, `initial` of the units being done already.
    Elsewhere one line appears when the pass ends well, and none where `lasting` is false. Where everything is told, all
    passes last; quietly, none is shown.
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
    """Tell the user one fact, unless only warnings are wanted."""
    if _level != QUIET:
        _write(line)


def warn(text: str) -> None:
    """Tell the user what may be wrong, always."""
    _write(painted(f"warning: {text}", YELLOW, sys.stderr))


def painted(text: str, colour: int, stream: IO[str]) -> str:
    """The text in a colour where the stream is a terminal that may have colours, else as it is."""
    return f"\x1b[{colour}m{text}\x1b[0m" if _coloured(stream) else text


def _coloured(stream: IO[str]) -> bool:
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _in_notebook() -> bool:
    """Whether this is the kernel of a notebook, whose stderr is no terminal and can show bars all the same."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return shell is not None and "IPKernelApp" in getattr(shell, "config", {})


def _write(line: str) -> None:
    """A line on stderr that tears no bar."""
    from tqdm import tqdm

    tqdm.write(line, file=sys.stderr)
    sys.stderr.flush()
