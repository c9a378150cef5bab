"""Import pyarrow so that what it frees is given back: its own allocators keep it, 100 MiB and more."""

from __future__ import annotations

import os
from types import ModuleType


def load_pyarrow() -> ModuleType:
    """Import pyarrow with the system's allocator, unless the user has chosen one or it is imported already.

    Raises:
        ImportError: it is not installed.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")  # read when the library is loaded
    import pyarrow

    return pyarrow  # type: ignore[no-any-return]
