"""Prepare a process that runs nothing but one command or worker of ours: what affects all of it, for speed."""

from __future__ import annotations

import os
import sys
import threading

from shardtrain.runtime.machine import keep_freed_memory

_LINEAR_ALGEBRA = "scipy.linalg.cython_blas"


def own_process(*, later: str | None = None) -> None:
    """Keep freed memory for later allocations, and start numba without linear algebra.

    Both affect the whole process, so only commands and workers call it, never library functions.

    Args:
        later: a module that compiles kernels of which this process or the next command will have need; where kernels
            must be compiled, another process runs it meanwhile.
    """
    keep_freed_memory()
    _start_without_linear_algebra()
    if later is not None:
        from shardtrain.runtime.kernels import compile_ahead

        compile_ahead(later)


def end_with_parent() -> None:
    """End this process when its standard input ends: a pipe of the process that started it, however that one ends."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os._exit(1)

    threading.Thread(target=wait, name="shardtrain-parent", daemon=True).start()


def _start_without_linear_algebra() -> None:
    """Load what numba loads with its first kernel, but for scipy's linear algebra, which no kernel of ours uses.

    Numba imports it, if it is installed, for products of matrices; that takes as long as all the rest of numba.
    """
    if _LINEAR_ALGEBRA in sys.modules:
        return
    sys.modules[_LINEAR_ALGEBRA] = None  # type: ignore[assignment]  # an import fails, as if it were missing
    try:
        import numba.np.arraymath  # noqa: F401 - decides once whether it is there
    finally:
        del sys.modules[_LINEAR_ALGEBRA]
