"""Let small folders of shards keep checksums as large ones do: in lists beside the shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shardtrain.shards import checksum_lists


@contextmanager
def lists_forced(most: int = 0) -> Iterator[None]:
    """Let folders of more than `most` blocks have lists."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checksum_lists, "MAX_INLINE_BLOCKS", most)
        yield
