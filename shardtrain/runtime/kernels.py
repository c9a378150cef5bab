"""How kernels are compiled: by numba, without the GIL, the machine code cached on disk.

Compiling takes a few seconds and happens once a machine. Where no folder is writable for the cache (a read-only
installation without a home), kernels are compiled in every process instead of failing at import.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function of arrays and numbers when it is first called."""
    return _compiled(function)


def inlined_kernel(function: Callable[..., Any]) -> Any:
    """The same, inlined into the kernels that call it."""
    return _compiled(function, inline="always")


def _compiled(function: Callable[..., Any], **options: Any) -> Any:
    try:
        return numba.njit(cache=True, nogil=True, **options)(function)
    except RuntimeError:  # "no locator available": nowhere to cache
        return numba.njit(nogil=True, **options)(function)
