"""Align the bytes of prepared texts with the characters they were made from, so that a term has a place in its text.

Preparing changes lengths: a ligature becomes two letters, a combining accent nothing, several spaces one. How many
bytes a character becomes follows from the tables that `text` prepares texts with, so the kernels that do it need not
say it, and a build is no slower. That the sums are those of the prepared texts is checked each time.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Bytes, Texts
from shardtrain.vectorize import text
from shardtrain.vectorize.text import TextBlock

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Alignment:
    """Which bytes of a prepared block each character of some documents became.

    Attributes:
        ends: character c became the bytes up to ends[c], from where those of the character before end, (characters,).
        firsts: document d has the characters [firsts[d], firsts[d + 1]), (documents + 1,).
    """

    ends: Integers
    firsts: Integers

    def characters(self, document: int, starts: Integers, stops: Integers) -> tuple[Integers, Integers]:
        """Return the half-open ranges of characters of a document that became ranges of bytes, which are not empty.

        A character that became part of a range is in it as a whole, and so are the characters after it that became
        nothing, such as combining accents, but the first of several white-space characters stands for all of them.
        """
        first, last = self.firsts[document], self.firsts[document + 1]
        inside = self.ends[first:last]
        final = inside[np.searchsorted(inside, stops - 1, side="right")]
        return np.searchsorted(inside, starts, side="right"), np.searchsorted(inside, final, side="right")


def align(texts: Texts, block: TextBlock, lowered: TextBlock, lengths: Integers, *, strip: bool) -> Alignment:
    """Align documents with the block that an analyzer prepared from them.

    Args:
        texts: the documents.
        block: the same, prepared.
        lowered: the same, in lower case.
        lengths: bytes of `block` that each character of `lowered` became, (characters of lowered,).
        strip: whether accents were removed.
    """
    begins, codes = _characters(texts.data)
    ends = np.cumsum(_lowered_lengths(codes, np.diff(begins, append=len(texts.data)), strip=strip))
    assert len(lowered.data) == (ends[-1] if len(ends) else 0)
    firsts = np.searchsorted(begins, texts.offsets)
    if lowered is not block:
        source = np.searchsorted(ends, _begins(lowered.data), side="right")
        ends = np.cumsum(np.bincount(source, lengths, len(begins)).astype(np.int64))
    bytes_before = np.concatenate([np.zeros(1, np.int64), ends])
    assert np.array_equal(bytes_before[firsts], block.bounds[block.offsets])
    return Alignment(ends, firsts)


def unchanged_lengths(lowered: TextBlock) -> Integers:
    """Return the bytes of each character of texts in lower case."""
    return np.diff(_begins(lowered.data), append=len(lowered.data))


def single_space_lengths(lowered: TextBlock) -> Integers:
    """Return the bytes that `text.with_single_spaces` makes of each character of texts in lower case."""
    white, before, after = _white(lowered)
    return np.where(white & before, 0, np.where(white & after, 1, unchanged_lengths(lowered)))


def padded_lengths(lowered: TextBlock) -> Integers:
    """Return the bytes that `text.in_padded_words` makes of each character; padding belongs to the next letter."""
    white, before, after = _white(lowered, outside=True)
    padding = before.astype(np.int64) + after
    return np.where(white, 0, unchanged_lengths(lowered) + padding)


def _lowered_lengths(codes: npt.NDArray[np.uint32], widths: Integers, *, strip: bool) -> Integers:
    """Return how many bytes each character has in lower case."""
    if not len(codes) or int(codes.max()) < 0x80:
        return widths
    _, lengths, _ = text.replacements(strip=strip)
    found = lengths[codes].astype(np.int64)
    return np.where((codes < 0x80) | (found == text.UNCHANGED), widths, found)


def _white(lowered: TextBlock, *, outside: bool = False) -> tuple[npt.NDArray[np.bool_], ...]:
    """Return which characters are white space, and of which the one before and after in the same document is.

    `outside` is said of what is before the first character of a document and after its last.
    """
    begins, codes = _characters(lowered.data)
    white = text.white_space()[codes]
    before, after = np.roll(white, 1), np.roll(white, -1)
    edges = np.searchsorted(begins, lowered.bounds)
    some = edges[:-1] < edges[1:]
    before[edges[:-1][some]] = outside
    after[edges[1:][some] - 1] = outside
    return white, before, after


def _begins(data: Bytes) -> Integers:
    """Return the byte at which each character of UTF-8 begins."""
    return np.flatnonzero(data & 0xC0 != 0x80)


def _characters(data: Bytes) -> tuple[Integers, npt.NDArray[np.uint32]]:
    """Return the byte at which each character begins, and its code point."""
    content = data.tobytes()
    if content.isascii():
        return np.arange(len(data)), data.astype(np.uint32)
    decoded = content.decode("utf-8", "surrogatepass").encode("utf-32-le", "surrogatepass")
    return _begins(data), np.frombuffer(decoded, np.uint32)
