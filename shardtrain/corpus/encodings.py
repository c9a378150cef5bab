"""Detect the encoding of a file, and decode it to UTF-8, which is what all other modules read.

A byte order mark decides, then `--encoding`, then zeros in every second byte, which only UTF-16 has. Bytes that are not
valid in the encoding become the byte 0xFF, which is never valid in UTF-8, so that they are counted and replaced where
documents are read, as in files that are UTF-8.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator

UTF8_MARK = codecs.BOM_UTF8
_MARKS = (  # the longer ones first: the mark of UTF-16 is the beginning of that of UTF-32
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_MIN_ZEROS, _ZEROS = 8, 0.1  # in every second byte of UTF-16, as spaces, digits, commas and line ends have them
_ERRORS = "shardtrain.marked"
_NOT_OF_FILES = frozenset({"idna", "punycode", "undefined", "unicode-escape", "raw-unicode-escape"})


def is_encoding(name: str) -> bool:
    """Return whether Python knows an encoding of text by this name."""
    try:
        found = codecs.lookup(name)
    except (LookupError, ValueError):
        return False
    return bool(found._is_text_encoding) and found.name.replace("_", "-") not in _NOT_OF_FILES


def encoding_of(head: bytes, chosen: str | None, usual: str = "utf-8") -> tuple[str, bytes]:
    """Return the encoding of a file, as Python names it, and its byte order mark, which may be empty.

    Args:
        head: the first bytes of the file.
        chosen: the encoding that the user chose, or None.
        usual: the encoding where nothing says it, of bytes that are not UTF-8 with other characters than ASCII.
    """
    marked = next(((mark, name) for mark, name in _MARKS if head.startswith(mark)), None)
    wanted = codecs.lookup(chosen).name if chosen else None
    if marked and (wanted is None or marked[1].startswith(wanted.removesuffix("-sig"))):
        return marked[1], marked[0]
    if wanted == "utf-16":
        return ("utf-16-le" if head[::2].count(0) <= head[1::2].count(0) else "utf-16-be"), b""
    if wanted is None and _has_zeros(head[1::2], head[::2]):
        return "utf-16-le", b""
    if wanted is None and _has_zeros(head[::2], head[1::2]):
        return "utf-16-be", b""
    if wanted is None and usual.startswith(("utf-16", "utf-32")) and 0 not in head and _is_utf8(head):
        return "utf-8", b""
    if wanted is None:
        return (usual if head.isascii() or not _is_utf8(head) else "utf-8"), b""
    if wanted == "utf-32":  # without a mark Python's decoder would refuse it
        return "utf-32-le", b""
    return wanted.removesuffix("-sig"), b""


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # which may end inside a character
    except UnicodeDecodeError:
        return False
    return True


def _has_zeros(high: bytes, low: bytes) -> bool:
    """Return whether bytes can be the high and low ones of UTF-16: zeros only above printable Latin and line ends."""
    number = high.count(0)
    if number < max(_MIN_ZEROS, _ZEROS * len(high)) or 0 in low:
        return False
    below = {byte for byte, above in zip(low, high, strict=False) if above == 0}
    return all(32 <= byte < 127 or byte >= 160 or byte in b"\t\n\r" for byte in below)


def in_utf8(content: bytes, chosen: str) -> bytes:
    """Return the whole content of a file in UTF-8, without its byte order mark; bytes that are not valid become 0xFF.

    `chosen` is the encoding that the user chose; "utf-8" where none was chosen.
    """
    found, mark = encoding_of(content, None if chosen == "utf-8" else chosen)
    return b"".join(decoded([content[len(mark) :]], found))


def decoded(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """Decode chunks of bytes and yield them in UTF-8, those in UTF-8 as they are; bytes not valid become 0xFF each."""
    if encoding == "utf-8":
        yield from chunks
        return
    decoder = codecs.getincrementaldecoder(encoding)(_ERRORS)
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", "surrogateescape")
    yield decoder.decode(b"", True).encode("utf-8", "surrogateescape")


def _mark(error: UnicodeError) -> tuple[str, int]:
    """Decode each byte that is not valid to the surrogate that "surrogateescape" encodes as 0xFF."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udcff" * (error.end - error.start), error.end


codecs.register_error(_ERRORS, _mark)
