"""Warn about the texts of a corpus or an input, in the same words whichever command read them."""

from __future__ import annotations

from shardtrain.runtime.progress import warn


def warn_of_replaced_bytes(number: int, *, again: str, encoding: str | None) -> None:
    """Warn of bytes that could not be decoded, if there are any.

    Args:
        number: of these bytes.
        again: what to do then, as "build again".
        encoding: that was asked for; None: none was, so UTF-8 was expected.
    """
    if number:
        expected, another = (encoding, "another one") if encoding else ("UTF-8", "it")
        bytes_are, were = ("byte is", "was") if number == 1 else ("bytes are", "were")
        warn(
            f"{number:,} {bytes_are} not {expected} and {were} read as U+FFFD; if the texts are in another encoding, "
            f"name {another} with --encoding and {again}"
        )
