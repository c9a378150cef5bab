"""Refuse Parquet files with pages that do not fit the memory: a page is the least that a reader must unpack at once.

Writers cut pages by numbers of values as well as by bytes, so a column of long texts may have pages of hundreds of
megabytes. The sizes are in the header before each page and nowhere else: a structure in Thrift's compact protocol, of
which only the sizes are read (https://parquet.apache.org/docs/file-format/data-pages/,
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardtrain.errors import CorpusFormatError
from shardtrain.options import show_size
from shardtrain.runtime.quantities import size
from shardtrain.runtime.system import mapped

_BASE_BYTES = 60 << 20  # what a process has taken when it reads such files, with pyarrow and a batch of rows
_PAGE_COPIES = 5  # packed, unpacked, its values, those of a batch: 4.8 were measured with a dictionary
_UNPACKED_SIZE, _PACKED_SIZE = 2, 3  # fields of a page's header
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_MAX_DEPTH = 16  # of structures in structures; a header has three


@dataclass(frozen=True)
class Page:
    """The size of a page, in bytes once unpacked, its column, and its row group, counted from 0."""

    num_bytes: int
    column: str
    group: int


def check_pages(path: Path, metadata: Any, columns: Collection[str], memory_limit: int | None) -> None:
    """Check that a page of some columns can be unpacked within a memory limit; None: there is no limit.

    Args:
        path: the file.
        metadata: of pyarrow, of the file.
        columns: names of top-level columns.
        memory_limit: of this process, in bytes.

    Raises:
        CorpusFormatError: a page is too long, or the file is damaged.
    """
    if memory_limit is None:
        return
    try:
        page = longest_page(path, metadata, columns, max(memory_limit - _BASE_BYTES, 0) // _PAGE_COPIES)
    except ValueError as error:
        raise CorpusFormatError(f"'{path}' cannot be read as Parquet: {error}; write it again") from error
    if page is not None:
        needed = -(-(_BASE_BYTES + _PAGE_COPIES * page.num_bytes) >> 20) << 20
        raise CorpusFormatError(
            f"'{path}': the column '{page.column}' has a page of {size(page.num_bytes)} in row group {page.group}, "
            f"which must be unpacked at once and does not fit within {show_size(memory_limit)}; give --memory-limit "
            f"{show_size(needed)}, or write the file with smaller pages (pyarrow: write_batch_size=16)"
        )


def longest_page(path: Path, metadata: Any, columns: Collection[str], least: int) -> Page | None:
    """Return the longest page of some columns, if one may be longer than `least` bytes; else None.

    Only headers of column chunks that are longer than `least` are read.

    Args:
        path: the file.
        metadata: of pyarrow, of the file.
        columns: names of top-level columns.
        least: in bytes.

    Raises:
        ValueError: the file is damaged.
    """
    found: Page | None = None
    with open(path, "rb") as file, mapped(file.fileno()) as content:
        for group in range(metadata.num_row_groups):
            row_group = metadata.row_group(group)
            for number in range(row_group.num_columns):
                chunk = row_group.column(number)
                name = chunk.path_in_schema.partition(".")[0]
                if name not in columns or chunk.total_uncompressed_size <= least:
                    continue
                longest = max(_page_sizes(content, chunk), default=0)
                if longest > (found.num_bytes if found else least):
                    found = Page(longest, name, group)
    return found


def _page_sizes(content: mmap.mmap, chunk: Any) -> list[int]:
    """Return the unpacked bytes of each page of a column chunk."""
    starts = (chunk.data_page_offset, chunk.dictionary_page_offset if chunk.has_dictionary_page else None)
    position = min(start for start in starts if start is not None)
    end = position + chunk.total_compressed_size
    if not 0 < position <= end <= len(content):
        raise ValueError(f"a column chunk is at bytes [{position:,}, {end:,}) of {len(content):,}")
    sizes = []
    while position < end:
        header = _Header(content, position)
        if min(header.unpacked, header.packed) < 0:
            raise ValueError(f"the page at byte {position:,} has no size")
        sizes.append(header.unpacked)
        position = header.end + header.packed
    return sizes


class _Header:
    """The header of a page: its unpacked and packed size in bytes (-1: not given), and where it ends."""

    def __init__(self, content: mmap.mmap, position: int) -> None:
        self._content, self.end = content, position
        self.unpacked = self.packed = -1
        field = 0
        while (kind := self._byte()) & 15:
            field = field + (kind >> 4) if kind >> 4 else self._integer()
            if field in (_UNPACKED_SIZE, _PACKED_SIZE) and kind & 15 == _I32:
                value = self._integer()
                self.unpacked, self.packed = (value, self.packed) if field == _UNPACKED_SIZE else (self.unpacked, value)
            else:
                self._skip(kind & 15)

    def _byte(self) -> int:
        if not self.end < len(self._content):
            raise ValueError("the header of a page is cut off")
        self.end += 1
        return self._content[self.end - 1]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("the header of a page has a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, kind: int, depth: int = 0) -> None:
        """Skip a value, except that of a truth value in a structure, which its type holds."""
        if depth > _MAX_DEPTH:
            raise ValueError("the header of a page has structures in structures without end")
        if kind in (_BYTE, _DOUBLE):
            self.end += 1 if kind == _BYTE else 8
        elif kind in (_I16, _I32, _I64):
            self._varint()
        elif kind == _BINARY:
            length = self._varint()
            self.end += length
        elif kind == _STRUCT:
            while (field := self._byte()) & 15:
                if not field >> 4:
                    self._integer()
                self._skip(field & 15, depth + 1)
        elif kind not in (_TRUE, _FALSE):  # a header has no list, set or map
            raise ValueError(f"the header of a page has a value of the type {kind}")
