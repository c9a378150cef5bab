"""Lower-case texts and strip accents as scikit-learn and Keras do, into one array of UTF-8 bytes with document offsets.

Python's own `str.lower`, `unicodedata` and `re` define what Unicode means, so results are exact: a kernel rewrites
documents character by character with tables made from those modules. Making the tables costs a few tenths of a second,
once, at the first text that is not ASCII.
"""

from __future__ import annotations

import functools
import re
import sys
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Bytes, Texts
from shardtrain.runtime.kernels import inlined_kernel, kernel

KERAS_FILTERS = '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~\t\n'  # keras.preprocessing.text.Tokenizer's default


@dataclass(frozen=True, eq=False)
class TextBlock:
    """Prepared documents in segments, each a document or a part of one; no n-gram crosses the end of a segment.

    Attributes:
        data: UTF-8 bytes of all documents, (bytes,) uint8.
        bounds: segment s is bytes [bounds[s], bounds[s + 1]), (segments + 1,) int64.
        offsets: document d is segments [offsets[d], offsets[d + 1]), (documents + 1,) int64.
    """

    data: Bytes
    bounds: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1


def lowered(texts: Sequence[str], *, strip: bool = False, prepared: bool = False) -> TextBlock:
    """Lower-case documents as Keras' Tokenizer does, or as TfidfVectorizer does.

    Args:
        texts: the documents.
        strip: also remove accents: strip_accents="unicode" in place of None.
        prepared: nothing is changed: the caller has done it.
    """
    documents = Texts.from_strings(texts)
    if prepared:
        return _whole(documents.data, documents.offsets)
    content = documents.data.tobytes()
    if content.isascii():
        return _whole(np.frombuffer(content.lower(), np.uint8), documents.offsets)
    around = around_sigma() if chr(_SIGMA).encode() in content else np.zeros(0, np.uint8)
    return _whole(*_replace(documents.data, documents.offsets, *replacements(strip=strip), around))


def with_single_spaces(texts: Sequence[str], *, strip: bool, prepared: bool = False) -> TextBlock:
    """Lower-case documents and replace each run of two or more white-space characters by one space."""
    block = lowered(texts, strip=strip, prepared=prepared)
    return _whole(*_join_white_space(block.data, block.bounds, white_space()))


def in_padded_words(texts: Sequence[str], *, strip: bool, prepared: bool = False) -> TextBlock:
    """Lower-case documents and make each word a segment, with a space before and after it."""
    block = lowered(texts, strip=strip, prepared=prepared)
    return TextBlock(*_pad_words(block.data, block.bounds, white_space()))


def _whole(data: Bytes, bounds: npt.NDArray[np.int64]) -> TextBlock:
    """Return a block whose segments are the documents."""
    return TextBlock(data, bounds, np.arange(len(bounds)))


_SIGMA, _FINAL_SIGMA = 0x3A3, 0x3C2  # the only character whose lower case depends on its neighbours
_CASED, _IGNORABLE = 1, 2
_IGNORABLE_PLANE = range(0xE0000, 0xE1000)  # tags and variation selectors: unchanged, but ignorable
UNCHANGED = 0xFF
_CODES = 1 << 12  # of characters that tables are made from at a time
_LAST_CHANGED = 0x2FFFF  # no code point above it has a lower case, decomposes or combines; a test checks them all


@functools.cache
def replacements(*, strip: bool) -> tuple[npt.NDArray[np.int64], Bytes, Bytes]:
    """Return what replaces each character: its lower case, with `strip` also decomposed without combining characters.

    Decomposition (NFKD) treats every character alone; the reordering that follows it moves combining characters only,
    and scikit-learn's `strip_accents_unicode` drops those, so characters can be replaced one by one.

    Returns:
        For each code point where its replacement begins among the replacements' bytes, and how many bytes it has
        (`UNCHANGED`: the character is not replaced); and those bytes.
    """
    dropped = frozenset(filter(unicodedata.combining, _characters(range(_LAST_CHANGED + 1)))) if strip else frozenset()
    starts = np.zeros(sys.maxunicode + 1, np.int64)
    lengths = np.full(sys.maxunicode + 1, UNCHANGED, np.uint8)
    pool = bytearray()
    for codes in _some_codes(range(1, _LAST_CHANGED + 1)):
        characters = list(_characters(codes))
        become = _one_by_one(str.lower, characters)
        if strip:
            become = _one_by_one(functools.partial(unicodedata.normalize, "NFKD"), become)
        for code, character, text in zip(codes, characters, become, strict=True):
            if text != character or character in dropped:
                kept = text if dropped.isdisjoint(text) else "".join(c for c in text if c not in dropped)
                content = kept.encode("utf-8", "surrogatepass")
                starts[code], lengths[code] = len(pool), len(content)
                pool += content
    return starts, lengths, np.frombuffer(bytes(pool), np.uint8)


@functools.cache
def around_sigma() -> Bytes:
    """Return what each code point means for a capital sigma near it: `_CASED`, `_IGNORABLE` or 0.

    A sigma is final if the nearest character before it that is not ignorable is cased and the nearest after it is not
    (Unicode, Final_Sigma). Python does not expose these properties, but `str.lower` uses them.
    """
    table = np.zeros(sys.maxunicode + 1, np.uint8)
    for codes in _some_codes(range(1, _LAST_CHANGED + 1), _IGNORABLE_PLANE):
        for before, meaning in (("A", _IGNORABLE), ("", _CASED)):  # after an A both end in a final sigma
            pairs = _one_by_one(str.lower, [f"{before}{character}{chr(_SIGMA)}" for character in _characters(codes)])
            final = [pair.endswith(chr(_FINAL_SIGMA)) for pair in pairs]
            table[np.array(codes)[final]] = meaning
    return table


def _some_codes(*every: range) -> Iterator[range]:
    """Yield the code points of ranges, so few at a time that strings of each take little memory."""
    for codes in every:
        for start in range(codes.start, codes.stop, _CODES):
            yield range(start, min(start + _CODES, codes.stop))


def _characters(codes: range) -> str:
    """Return code points as a string, halves of surrogate pairs included."""
    return np.array(codes, "<u4").tobytes().decode("utf-32-le", "surrogatepass")


def _one_by_one(function: Callable[[str], str], texts: list[str]) -> list[str]:
    """Apply a function to all texts in one call; none has a NUL, which separates them and is unchanged."""
    return function("\0".join(texts)).split("\0")


@kernel
def _replace(data, offsets, starts, lengths, pool, around):  # type: ignore[no-untyped-def]
    """Lower-case documents; characters of more than one byte are looked up and replaced.

    `around` is the table of `around_sigma`, or empty if no document has a sigma.
    """
    out = np.empty(_replaced_size(data, lengths), np.uint8)
    places = np.zeros(len(offsets), np.int64)
    size = 0
    for d in range(len(offsets) - 1):
        i = offsets[d]
        end = offsets[d + 1]
        # Invariant: out[:size] is data[:i] with its characters replaced; i is the first byte of a character, or `end`.
        while i < end:
            byte = data[i]
            if byte < 0x80:
                out[size] = byte | 0x20 if 0x41 <= byte <= 0x5A else byte
                size += 1
                i += 1
                continue
            code, width = decode(data, i)
            length = int(lengths[code])
            if length == UNCHANGED:
                for j in range(width):
                    out[size + j] = data[i + j]
                size += width
            else:
                for j in range(length):
                    out[size + j] = pool[starts[code] + j]
                if code == _SIGMA and _is_final(data, offsets[d], i, end, around):
                    out[size + 1] = _FINAL_SIGMA & 0x3F | 0x80
                size += length
            i += width
        places[d + 1] = size
    return out, places


@kernel
def _replaced_size(data, lengths):  # type: ignore[no-untyped-def]
    """Count the bytes of the documents that `_replace` returns."""
    size = len(data)
    # Invariant: size - len(data) is how many bytes replacing the characters that begin in data[:i] adds.
    for i in range(len(data)):
        if data[i] >= 0xC0:  # a character of more than one byte begins
            code, width = decode(data, i)
            if lengths[code] != UNCHANGED:
                size += np.int64(lengths[code]) - width
    return size


@kernel
def _is_final(data, begin, place, end, around):  # type: ignore[no-untyped-def]
    """Return whether the capital sigma at byte `place` of the document [begin, end) becomes a final one."""
    before = 0
    i = place
    # Invariant: all characters of data[i:place] are ignorable.
    while i > begin:
        i -= 1
        while i > begin and data[i] & 0xC0 == 0x80:
            i -= 1
        code, width = np.int64(data[i]), 1
        if code >= 0x80:
            code, width = decode(data, i)
        before = around[code]
        if before != _IGNORABLE:
            break
    if before != _CASED:
        return False
    i = place + 2
    # Invariant: all characters of data[place + 2:i] are ignorable.
    while i < end:
        code, width = np.int64(data[i]), 1
        if code >= 0x80:
            code, width = decode(data, i)
        if around[code] != _IGNORABLE:
            return around[code] != _CASED
        i += width
    return True


@inlined_kernel
def decode(data: Any, i: Any) -> Any:
    """Decode the character at byte i, which is not ASCII; return its code point and its width in bytes."""
    b = data[i]
    if b >= 0xF0:
        code = ((b & 0x07) << 18) | ((data[i + 1] & 0x3F) << 12) | ((data[i + 2] & 0x3F) << 6) | (data[i + 3] & 0x3F)
        return code, 4
    if b >= 0xE0:
        return ((b & 0x0F) << 12) | ((data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F), 3
    return ((b & 0x1F) << 6) | (data[i + 1] & 0x3F), 2


@kernel
def _join_white_space(data, offsets, white):  # type: ignore[no-untyped-def]
    """Replace each run of two or more white-space characters in documents by one space."""
    out = np.empty(len(data), np.uint8)
    places = np.zeros(len(offsets), np.int64)
    size = 0
    for d in range(len(offsets) - 1):
        run = 0  # white-space characters just seen
        run_place = 0  # where the first of them was written
        i = offsets[d]
        # Invariant: out[:size] is the result for data[:i]; if run > 0, out[run_place:size] is that of its last run.
        while i < offsets[d + 1]:
            code, width = np.int64(data[i]), 1
            if code >= 0x80:
                code, width = decode(data, i)
            run = run + 1 if white[code] else 0
            if run < 2:
                run_place = size
                for j in range(i, i + width):
                    out[size] = data[j]
                    size += 1
            else:
                out[run_place] = 0x20
                size = run_place + 1
            i += width
        places[d + 1] = size
    return out[:size], places


@kernel
def _pad_words(data, offsets, white):  # type: ignore[no-untyped-def]
    """Write each word between two spaces; return these bytes, the bounds of words, and each document's first word."""
    documents = len(offsets) - 1
    most = (len(data) + documents) // 2  # words, of at least one byte each and one between two
    out = np.empty(len(data) + most + 2 * documents, np.uint8)
    bounds = np.zeros(most + 1, np.int64)
    firsts = np.zeros(len(offsets), np.int64)
    size = 0
    words = 0
    for d in range(documents):
        inside = False
        i = offsets[d]
        # Invariant: out[:bounds[words]] holds the padded words that are complete at byte i; out[bounds[words]:size] is
        # a space and the unfinished word if `inside`, otherwise empty.
        while i <= offsets[d + 1]:
            code, width = np.int64(0x20), 1  # what ends the last word
            if i < offsets[d + 1]:
                code = np.int64(data[i])
                if code >= 0x80:
                    code, width = decode(data, i)
            if inside == white[code]:  # a word begins or ends: a space either way
                out[size] = 0x20
                size += 1
                inside = not inside
                if not inside:
                    words += 1
                    bounds[words] = size
            if inside:
                for j in range(i, i + width):
                    out[size] = data[j]
                    size += 1
            i += width
        firsts[d + 1] = words
    return out[:size], bounds[: words + 1], firsts


@functools.cache
def white_space() -> npt.NDArray[np.bool_]:
    r"""Return for each code point whether `\s` of Python's `re` matches it, (1114112,)."""
    table = np.zeros(sys.maxunicode + 1, np.bool_)
    for codes in _some_codes(range(_LAST_CHANGED + 1)):
        table[codes.start : codes.stop] = [character.isspace() for character in _characters(codes)]
    return table


@functools.cache
def single_characters() -> Bytes:
    """Return 2 for each code point: every character is a word by itself, (1114112,) uint8."""
    return np.full(sys.maxunicode + 1, 2, np.uint8)


@functools.cache
def word_characters() -> Bytes:
    r"""Return 1 for each code point that `\w` of Python's `re` matches, otherwise 0, (1114112,) uint8."""
    table = np.zeros(sys.maxunicode + 1, np.uint8)
    for codes in _some_codes(range(sys.maxunicode + 1)):
        for match in re.finditer(r"\w+", _characters(codes)):
            table[codes.start + match.start() : codes.start + match.end()] = 1
    return table


@functools.cache
def keras_characters() -> Bytes:
    """Return 0 for each code point at which Keras' Tokenizer splits, otherwise 1, (1114112,) uint8."""
    table = np.ones(sys.maxunicode + 1, np.uint8)
    table[[ord(character) for character in KERAS_FILTERS + " "]] = 0
    return table
