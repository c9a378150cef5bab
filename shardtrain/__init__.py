"""Train a Keras text model on a corpus larger than memory, from memory-mapped HDF5 shards."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shardtrain.api import build, fit
    from shardtrain.classifier import ShardClassifier
    from shardtrain.csr import Csr
    from shardtrain.predict import Predictions
    from shardtrain.run import Run
    from shardtrain.shards.read import Shards, open_shards
    from shardtrain.vectorize import Vectorizer, load_vectorizer

__version__ = "0.1.0"
__all__ = [
    "Csr",
    "Predictions",
    "Run",
    "ShardClassifier",
    "Shards",
    "Vectorizer",
    "build",
    "fit",
    "load_vectorizer",
    "open_shards",
]

_HOMES = {
    "Csr": "shardtrain.csr",
    "Predictions": "shardtrain.predict",
    "Run": "shardtrain.run",
    "ShardClassifier": "shardtrain.classifier",
    "Shards": "shardtrain.shards.read",
    "Vectorizer": "shardtrain.vectorize",
    "build": "shardtrain.api",
    "fit": "shardtrain.api",
    "load_vectorizer": "shardtrain.vectorize",
    "open_shards": "shardtrain.shards.read",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import shardtrain` stays light."""
    if name not in _HOMES:
        raise AttributeError(f"module 'shardtrain' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, whether they were imported or not."""
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps the verbs `build` and `fit` where the import system would put the modules of the same names.

    `from shardtrain.build import BuildOptions` works as for any other room, since it goes by the module's full name.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
