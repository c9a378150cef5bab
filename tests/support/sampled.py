"""Parameters of a law of which `make test` takes some, where each costs seconds, and `make soak` all."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def sampled(values: Iterable[Any], now: Collection[int] = (0,), ids: Iterable[str] = ()) -> list[Any]:
    """Return the values as parameters: those at the places `now` for `make test`, the others for `make soak` alone.

    Args:
        values: one for each parameter; a tuple holds the values of several arguments.
        now: places from 0.
        ids: their names in reports.
    """
    names = [*ids]
    return [
        pytest.param(
            *(value if isinstance(value, tuple) else (value,)),
            id=names[place] if names else None,
            marks=() if place in now else pytest.mark.slow,
        )
        for place, value in enumerate(values)
    ]
