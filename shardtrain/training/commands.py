"""Write the command that resumes a run, from what its config.json records."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shardtrain.errors import command_line
from shardtrain.models.options import SIZES
from shardtrain.options import as_json, defaults_of, flag, options_of
from shardtrain.training.options import FitOptions


def fit_command(config: Mapping[str, Any], folder: Path) -> str:
    """Return the command that resumes the training in a folder.

    Args:
        config: of the run; of a damaged or older one, what it lacks is left to the user.
        folder: of the run.
    """
    recorded = config.get("options")
    options: Mapping[str, Any] = recorded if isinstance(recorded, Mapping) else {}
    words = [command_line("fit", config.get("shards", "SHARDS"))]
    words += _changed(FitOptions, options)
    for name, cls in SIZES.items():
        sizes = options.get(name)
        words += _changed(cls, sizes if isinstance(sizes, Mapping) else {})
    return " ".join([*words, "--out", shlex.quote(str(folder)), "--resume"])


def _changed(cls: type[Any], recorded: Mapping[str, Any]) -> Iterator[str]:
    """Yield the flags and values of the options that decide the result and differ from their defaults."""
    for name, default in defaults_of(cls).items():
        declared, value = options_of(cls)[name], recorded.get(name)
        if not declared.identity or value is None or value == as_json(default):
            continue
        yield flag(name, value)
        if not isinstance(value, bool):
            yield " ".join(shlex.quote(str(each)) for each in (value if isinstance(value, list) else [value]))
