"""Shorten the hashes of terms, so that many terms share one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardtrain.vectorize.settings import Hashing, NgramSettings, SequenceSettings


@contextmanager
def shortened_hashes(bits: int, *, leading: bool = False) -> Iterator[Hashing]:
    """Have settings that are made here hash terms to so many low or leading bits."""
    mask = (1 << bits) - 1
    hashing = Hashing(mask=mask << (64 - bits) if leading else mask)
    with pytest.MonkeyPatch.context() as patch:
        for settings in (NgramSettings, SequenceSettings):
            patch.setitem(settings.__init__.__kwdefaults__, "hashing", hashing)  # type: ignore[misc]
        yield hashing
