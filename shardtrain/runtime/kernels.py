"""Compile kernels with numba: without the GIL, with the machine code cached on disk.

Compiling takes a few seconds and happens once per machine. Where no cache folder is writable (a read-only installation
without a home folder), kernels are compiled in every process instead of failing at import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of arrays and numbers at its first call."""
    return _compiled(function)


def inlined_kernel(function: Callable[..., Any]) -> Any:
    """Compile a function to be inlined into the kernels that call it."""
    return _compiled(function, inline="always")


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # "no locator available": no writable cache folder
        return numba.njit(nogil=True, **options)(function)
