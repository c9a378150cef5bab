"""A pseudo-terminal, and what a process shows on it."""

from __future__ import annotations

import contextlib
import os
import pty
import threading
from collections.abc import Iterator


class Terminal:
    """The screen's side of a terminal.

    Attributes:
        name: path of the other side, which a process opens as its standard streams.
        shown: the bytes that reached it.
    """

    def __init__(self) -> None:
        self._screen, self._other = pty.openpty()
        self.name = os.ttyname(self._other)
        self.shown = bytearray()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: nobody has the other side open
            while piece := os.read(self._screen, 1 << 16):
                self.shown += piece

    def close(self) -> None:
        """Wait for what is still on its way."""
        os.close(self._other)
        self._reader.join()
        os.close(self._screen)


@contextlib.contextmanager
def terminal() -> Iterator[Terminal]:
    """A terminal whose `shown` is complete after the block."""
    made = Terminal()
    try:
        yield made
    finally:
        made.close()
