"""Turn SIGINT (Ctrl-C) and SIGTERM into KeyboardInterrupt, at a moment at which it ends what runs.

Within an import it would not: libraries turn an exception there into an error of their own, or swallow it, and half of
a module is left. So the exception is raised when the import is done, at most seconds later; a second signal in the
meantime ends the process. Worker processes are started with SIGINT blocked, because a terminal sends it to all
processes, and one that is still starting would end with a traceback.
"""

from __future__ import annotations

import multiprocessing.context
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from shardtrain.runtime.progress import say
from shardtrain.runtime.terminal import flush_stdout, tell, tell_now

EXIT_CODE = 130  # 128 + SIGINT, as shells have it
_AGAIN = 0.02  # seconds until a deferred interruption is tried again
_NUMBERS = (signal.SIGINT, signal.SIGTERM)
_IMPORTING = "<frozen importlib._bootstrap>"

_requested = False  # a signal came
_deferred = False  # and waits for the end of an import
_said = False  # that a signal came, in a line that also says what is kept
_held = 0  # and waits until what must not be interrupted is done: how many such blocks run


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt for both signals while the block runs; a signal that is ignored stays ignored."""
    global _requested, _deferred, _said
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _requested = _deferred = _said = False
    before = {number: signal.getsignal(number) for number in _NUMBERS}
    hook = sys.unraisablehook
    for number, handler in before.items():
        if handler is not signal.SIG_IGN:
            signal.signal(number, _interrupt)
    sys.unraisablehook = _unraisable
    try:
        yield
    finally:
        if _deferred:  # what was interrupted is done
            signal.setitimer(signal.ITIMER_REAL, 0)
        _requested = False
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


def interrupted() -> bool:
    """Return whether a signal came, so that an error may be what a library made of the interruption."""
    return _requested


def say_kept(line: str) -> None:
    """Say, in a line that begins with "interrupted", what is kept of the work; the command ends without another one."""
    global _said
    _said = say(line) or _said


def tell_interrupted() -> None:
    """Say that a command was interrupted, unless a line said so with what is kept."""
    if not _said:
        tell("interrupted")


def let_signals_end_it() -> None:
    """Let a signal end the process at once and without a traceback from now on, when nothing is left but to exit."""
    for number in _NUMBERS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def end_process(code: int) -> NoReturn:
    """End an interrupted process whose work is unwound, with this exit code.

    Python itself would end it by SIGINT if the interruption passed through an `exec` of some library, and would wait
    for the threads of pools.
    """
    flush_stdout()
    os._exit(code)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Let an interruption wait until the block ends; processes that it starts begin with SIGINT blocked."""
    global _held
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    _held += 1  # another thread may take the signal, and Python runs its handler here
    try:
        yield
    finally:
        _held -= 1
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class _Process(multiprocessing.context.SpawnProcess):
    """A spawned process that starts with SIGINT blocked."""

    def start(self) -> None:
        """Start it; an interruption comes when it has got from this process what it starts with."""
        with uninterrupted():
            super().start()


class SpawnContext(multiprocessing.context.SpawnContext):
    """The context of worker processes, which Ctrl-C does not reach: it is the parent's to handle.

    Attributes:
        made: the processes of the context, also those that have ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.made: list[multiprocessing.context.SpawnProcess] = []

    def Process(self, *arguments: Any, **keywords: Any) -> multiprocessing.context.SpawnProcess:  # type: ignore[override]  # noqa: N802 - the name in multiprocessing
        """Make a process, which is not started yet."""
        self.made.append(_Process(*arguments, **keywords))
        return self.made[-1]


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _requested, _deferred
    if _deferred and number != signal.SIGALRM:
        tell_now("interrupted")
        os._exit(EXIT_CODE)
    _requested = True
    if _held or _importing(frame):
        _try_again()
        return
    _deferred = False
    raise KeyboardInterrupt


def _importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORTING:
            return True
        frame = frame.f_back
    return False


def _try_again() -> None:
    global _deferred
    _deferred = True
    signal.signal(signal.SIGALRM, _interrupt)
    signal.setitimer(signal.ITIMER_REAL, _AGAIN)


def _unraisable(what: Any) -> None:
    """Raise an interruption again that came where Python cannot raise it, such as in a callback of C.

    Other errors of this kind after an interruption come of objects that it left half-made, and are not shown.
    """
    if issubclass(what.exc_type, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
        _try_again()
    elif not _requested:
        sys.__unraisablehook__(what)
