"""Find out which backend Keras would choose, without importing it, to refuse another than TensorFlow before any work.

Keras itself decides at its import, which takes seconds and fails with a message of the backend if it is not installed.
The rules are those of keras/src/backend/config.py.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from shardtrain.errors import UsageError


def backend_problem() -> str:
    """Explain which other backend Keras would choose, and the remedy; empty if it would choose TensorFlow."""
    backend, chosen_by, remedy = (
        os.environ.get("KERAS_BACKEND", ""),
        "KERAS_BACKEND",
        "unset KERAS_BACKEND or set it to",
    )
    if not backend:
        base = os.path.expanduser("~")
        folder = os.environ.get("KERAS_HOME", os.path.join(base if os.access(base, os.W_OK) else "/tmp", ".keras"))
        file = Path(folder, "keras.json").expanduser()
        try:
            backend = str(json.loads(file.read_text()).get("backend", ""))
        except (OSError, ValueError, AttributeError):  # Keras uses its defaults then
            return ""
        chosen_by, remedy = f"'{file}'", 'change its "backend" to'
    if backend in ("", "tensorflow"):
        return ""
    return f"shardtrain trains with Keras on TensorFlow, but {chosen_by} chooses '{backend}'; {remedy} 'tensorflow'"


def check_backend() -> None:
    """Check that Keras would choose TensorFlow.

    Raises:
        UsageError: it would choose another backend.
    """
    if "keras" in sys.modules:  # it has chosen, and `models.layers` checks that
        return
    if problem := backend_problem():
        raise UsageError(problem)
