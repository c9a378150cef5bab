"""Find the backend that Keras will use without importing Keras, and refuse any but TensorFlow.

Importing Keras with a backend that is not installed fails with a message about that backend, after seconds; asking
first costs nothing. The rules are Keras' own (keras/src/backend/config.py): the environment decides before the file.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from shardtrain.errors import UsageError
from shardtrain.runtime.schema import Fields, Text, read_if_sound

EXPECTED = "tensorflow"
_VARIABLE = "KERAS_BACKEND"


def check_backend() -> None:
    """Check that Keras runs, or will run, on TensorFlow.

    Raises:
        UsageError: another backend is chosen.
    """
    if problem := backend_problem():
        raise UsageError(problem)


def backend_problem() -> str:
    """Return in one line which other backend is chosen, where, and how to change that; empty if it is TensorFlow."""
    needed = "shardtrain needs Keras on TensorFlow"
    loaded = getattr(sys.modules.get("keras"), "config", None)
    if loaded is not None:
        if (found := str(loaded.backend())) == EXPECTED:
            return ""
        return (
            f"Keras was imported with the backend {found!r}, but {needed}: set {_VARIABLE}={EXPECTED} before keras is "
            "imported"
        )
    if found := os.environ.get(_VARIABLE, ""):
        if found == EXPECTED:
            return ""
        return f"{_VARIABLE} is {found!r}, but {needed}: run `unset {_VARIABLE}`, or set {_VARIABLE}={EXPECTED}"
    path = settings_file()
    found = _configured(path)
    if found == EXPECTED:
        return ""
    return (
        f'\'{path}\' sets the backend of Keras to {found!r}, but {needed}: write "backend": "{EXPECTED}" there, or set '
        f"{_VARIABLE}={EXPECTED}"
    )


def settings_file() -> Path:
    """Return the path of Keras' settings, which may not exist."""
    if home := os.environ.get("KERAS_HOME"):
        return Path(home) / "keras.json"
    user = os.path.expanduser("~")
    return Path(user if os.access(user, os.W_OK) else "/tmp") / ".keras" / "keras.json"


def _configured(path: Path) -> str:
    """Return the backend that a file of settings names; TensorFlow where there is no such file."""
    settings = read_if_sound(path, Fields(optional={"backend": Text()}, others=True))
    return str((settings or {}).get("backend", EXPECTED))
