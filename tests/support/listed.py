"""Let small folders of shards keep checksums as large ones do: in lists beside the shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardtrain.shards import listing


@contextmanager
def lists_forced(most: int = 0) -> Iterator[None]:
    """Let folders of more than `most` blocks and chunks have lists."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(listing, "MAX_INLINE", most)
        yield
