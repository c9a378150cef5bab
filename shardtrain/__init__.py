"""Train a Keras text model on a corpus larger than memory, from memory-mapped HDF5 shards."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from shardtrain.version import __version__

if TYPE_CHECKING:
    from shardtrain.api import build, export, fit, train
    from shardtrain.arrays.csr import Csr
    from shardtrain.inference.predictions import Predictions
    from shardtrain.inference.run import Run
    from shardtrain.loader.shards import Shards, open_shards
    from shardtrain.sklearn import ShardClassifier
    from shardtrain.vectorize.fitted import Vectorizer, load_vectorizer

__all__ = [
    "Csr",
    "Predictions",
    "Run",
    "ShardClassifier",
    "Shards",
    "Vectorizer",
    "__version__",
    "build",
    "export",
    "fit",
    "load_vectorizer",
    "open_shards",
    "train",
]

_HOMES = {
    "Csr": "shardtrain.arrays.csr",
    "Predictions": "shardtrain.inference.predictions",
    "Run": "shardtrain.inference.run",
    "ShardClassifier": "shardtrain.sklearn",
    "Shards": "shardtrain.loader.shards",
    "Vectorizer": "shardtrain.vectorize.fitted",
    "build": "shardtrain.api",
    "export": "shardtrain.api",
    "fit": "shardtrain.api",
    "load_vectorizer": "shardtrain.vectorize.fitted",
    "open_shards": "shardtrain.loader.shards",
    "train": "shardtrain.api",
}


def _refuse_windows() -> None:
    """Refuse a system without `fcntl`, which is Windows, before anything is imported that needs what it lacks.

    A command ends with one line and exit code 1, a program that imports shardtrain gets the error.
    """
    try:
        import fcntl  # noqa: F401 - only whether it is there
    except ImportError:
        from shardtrain.errors import UnsupportedSystemError

        error = UnsupportedSystemError(
            "shardtrain runs on Linux and macOS, not on Windows itself; install WSL, the Linux that Windows has, with "
            "`wsl --install`, and run shardtrain in it"
        )
        program = os.path.basename(sys.argv[0] if sys.argv else "")  # "-m" while Python looks for a module to run
        if program.removesuffix(".exe") in ("-m", "shardtrain", "inspect_shards.py"):
            sys.exit(f"error: {error.on_command_line}")
        raise error from None


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import shardtrain` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shardtrain' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Return the public names, whether they were imported or not."""
    return sorted({*globals(), *__all__})


_refuse_windows()
