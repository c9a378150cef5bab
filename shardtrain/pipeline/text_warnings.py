"""Warn about the texts of a corpus or an input, in the same words whichever command read them."""

from __future__ import annotations

from shardtrain.runtime.progress import warn


def warn_of_replaced_bytes(number: int, *, again: str) -> None:
    """Warn that bytes were not UTF-8, if there are any; `again` is what to do then, as "build again"."""
    if number:
        bytes_are, were = ("byte is", "was") if number == 1 else ("bytes are", "were")
        warn(
            f"{number:,} {bytes_are} not UTF-8 and {were} read as U+FFFD; if the texts are in another encoding, "
            f"name it with --encoding and {again}"
        )
