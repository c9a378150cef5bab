"""Compile kernels with numba: without the GIL, with the machine code cached on disk.

Compiling takes about 15 seconds and happens once per machine; `compile_ahead` has two processes share it. Where no
cache folder is writable (a read-only installation without a home folder), kernels are compiled in every process instead
of failing at import.
"""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numba
from numba.core import event as numba_event

from shardtrain.runtime.machine import cores
from shardtrain.runtime.progress import say

_FAST = {"reassoc", "contract", "arcp", "nsz"}  # what LLVM may do to floating-point numbers
_ahead: list[str] = []  # modules given to `compile_ahead`
_uncached: list[str] = []  # kernels of which no machine code is kept
_beside: list[subprocess.Popen[bytes]] = []  # processes that compile


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of arrays and numbers at its first call."""
    return _compiled(function)


def fast_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function whose sums may be computed in another order than written, the same one in every call.

    NaN and infinity keep their meaning, and a division by 0 is infinity or NaN, so that loops with divisions are
    vectorized. It must not make arrays: references to arrays are not counted, which in a function into which others
    are inlined costs more than what these compute.
    """
    return _compiled(function, fastmath=_FAST, error_model="numpy", _nrt=False)


def inlined_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function to be inlined into the kernels that call it."""
    return _compiled(function, inline="always")


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # "no locator available": no writable cache folder
        _uncached.append(function.__name__)
        return numba.njit(nogil=True, **options)(function)


def compile_ahead(module: str) -> None:
    """If this process has to compile a kernel, have another one run a module that compiles what is needed later."""
    _ahead.append(module)


class _FirstUse(numba_event.Listener):  # type: ignore[misc]
    """Reports once per process that kernels are being compiled, which numba does where its cache has none."""

    def on_start(self, event: Any) -> None:
        """Report it when the first compilation starts; workers leave that to their parent."""
        numba_event.unregister("numba:compile", self)
        if multiprocessing.parent_process() is None:
            say("compiling kernels that this machine has not used before; this takes up to half a minute, once")
            for module in _ahead[: 0 if _uncached else cores() - 1]:
                _run_beside(module)

    def on_end(self, event: Any) -> None:
        """Do nothing: one report is enough."""


def _run_beside(module: str) -> None:
    """Run a module in a process whose standard input ends with this process, at which it ends (`end_with_parent`).

    What it says and whether it fails does not matter.
    """
    quiet = subprocess.DEVNULL
    _beside.append(subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=quiet, stderr=quiet))


numba_event.register("numba:compile", _FirstUse())
