"""Read the label and text columns of Parquet and Arrow files into blocks, in bounded memory.

Files are mapped and decoded batch by batch, so memory holds one batch and not a row group, and only the columns that
are used are decoded. pyarrow is imported when such a file is opened.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from shardtrain.arrays.arrow import load_pyarrow
from shardtrain.arrays.parquet_pages import check_pages
from shardtrain.arrays.texts import Texts
from shardtrain.corpus import copies
from shardtrain.corpus.blocks import BlockWriter
from shardtrain.corpus.options import Column
from shardtrain.corpus.source import SourceFile
from shardtrain.corpus.staging import Scratch
from shardtrain.errors import CorpusFormatError, MissingExtraError
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.machine import give_back_freed_memory
from shardtrain.runtime.progress import progress

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS, _BATCH_BYTES = 4096, 8 << 20
_SAMPLE_ROWS = 500


class ColumnarFile:
    """A Parquet or Arrow file that is open: its columns, and its rows batch by batch."""

    def __init__(self, path: Path, format: str, memory_limit: int | None = None) -> None:  # noqa: A002 - the users' word
        self.path, self.format, self._memory_limit = path, format, memory_limit
        self.schema = self._open().schema if format == "arrow" else self._parquet().schema_arrow

    @property
    def num_rows(self) -> int | None:
        """Number of rows; None if the file does not say it at its end."""
        return self._parquet().metadata.num_rows if self.format == "parquet" else None

    def names(self) -> list[str]:
        """Names of the columns whose values can be a label or a text."""
        import pyarrow as pa

        def usable(kind: Any) -> bool:
            kind = kind.value_type if pa.types.is_dictionary(kind) else kind
            texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
            numbers = (pa.types.is_integer, pa.types.is_boolean, pa.types.is_floating)
            return any(check(kind) for check in (*texts, *numbers))

        found = [field.name for field in self.schema if usable(field.type)]
        if repeated := [name for name in dict.fromkeys(found) if found.count(name) > 1]:
            raise CorpusFormatError(
                f"'{self.path}' has several columns named '{repeated[0]}', and columns go by names; rename the others"
            )
        return found

    def refuse_unusable(self, wanted: Iterable[Column | None]) -> None:
        """Refuse columns whose values can be neither a label nor a text, such as times.

        Raises:
            CorpusFormatError: a wanted column is one of these.
        """
        usable = self.names()
        for column in wanted:
            if column is not None and str(column) in self.schema.names and str(column) not in usable:
                kind = self.schema.field(str(column)).type
                raise CorpusFormatError(
                    f"'{self.path}': column '{column}' holds values of type {kind}, and text, numbers or truth values "
                    "are expected; write it as text, or name another column"
                )

    def lists(self) -> list[str]:
        """Names of the columns that hold lists."""
        import pyarrow as pa

        checks = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
        return [field.name for field in self.schema if any(check(field.type) for check in checks)]

    def class_names(self, column: Column) -> tuple[str, ...] | None:
        """Names of the classes that `datasets` of Hugging Face stores with a column of class indices, or None."""
        try:
            features = json.loads((self.schema.metadata or {})[b"huggingface"])["info"]["features"]
            return tuple(map(str, features[column]["names"]))
        except (KeyError, IndexError, TypeError, ValueError, RecursionError):
            return None

    def batches(self, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of some columns in batches of at most `_BATCH_ROWS` rows.

        Raises:
            CorpusFormatError: the file is damaged, or a page of it does not fit the memory.
        """
        import pyarrow as pa

        try:
            if self.format == "parquet":
                opened = self._parquet()
                check_pages(self.path, opened.metadata, columns, self._memory_limit)
                rows = _rows_per_batch(opened.metadata)
                yield from opened.iter_batches(batch_size=rows, columns=list(columns), use_threads=False)
                return
            reader = self._open()
            count = getattr(reader, "num_record_batches", None)
            for batch in map(reader.get_batch, range(count)) if count is not None else reader:
                chosen = batch.select(list(columns))
                for start in range(0, len(chosen), _BATCH_ROWS):
                    yield chosen.slice(start, _BATCH_ROWS)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def sample(self, columns: Sequence[str]) -> list[list[str]]:
        """Return the first rows of some columns as texts."""
        batch = next((batch for batch in self.batches(columns) if len(batch)), None)
        if batch is None:
            return []
        head = batch.slice(0, _SAMPLE_ROWS)
        return [["" if cell is None else _shown(cell) for cell in row.values()] for row in head.to_pylist()]

    def _parquet(self) -> Any:
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return pq.ParquetFile(self.path, memory_map=True, pre_buffer=False, buffer_size=1 << 20)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _open(self) -> Any:
        import pyarrow as pa

        try:
            mapped = pa.memory_map(str(self.path))
            is_file = mapped.read(6) == b"ARROW1"
            mapped.seek(0)
            return pa.ipc.open_file(mapped) if is_file else pa.ipc.open_stream(mapped)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> CorpusFormatError:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        return CorpusFormatError(f"'{self.path}' cannot be read as {self.format.title()}: {reason}; write it again")


def _rows_per_batch(metadata: Any) -> int:
    """Return how many rows of the largest row group fit in `_BATCH_BYTES`, at most `_BATCH_ROWS`."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    longest = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=0.0)
    return int(min(_BATCH_ROWS, max(1, _BATCH_BYTES // max(longest, 1))))


def require_pyarrow(path: Path) -> None:
    """Check that pyarrow is installed.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        load_pyarrow()
    except ImportError as error:
        raise MissingExtraError(
            f"'{path}' is a Parquet or Arrow file, and the package that reads it is not installed; install it with "
            "`pip install 'shardtrain[parquet]'`"
        ) from error


def copied_columns(
    opened: ColumnarFile, label: Column | None, texts: Sequence[Column], scratch: Scratch, name: str
) -> SourceFile:
    """Write label and text columns of a file to the scratch folder, or find those that an interrupted build left."""
    target = scratch.folder / name
    if scratch.keep_bytes is None and not copies.is_whole(target):
        with committed(target, synced=False) as file:
            writer = BlockWriter(file)
            with progress(f"reading {opened.path.name}", total=opened.num_rows, unit="rows") as done:
                for rows in copy_columns(opened, label, texts, writer):
                    done.add(rows - done.done)
                writer.finish()
                done.add(writer.num_rows - done.done)
        copies.note_checksum(target)
    size = opened.path.stat().st_size
    num_bytes = size if scratch.keep_bytes is not None else target.stat().st_size
    return SourceFile(path=str(target), origin=str(opened.path), num_bytes=num_bytes, origin_bytes=size, counted="row")


@contextlib.contextmanager
def system_memory() -> Iterator[None]:
    """Let Arrow take memory from the system meanwhile: its own pools keep what is freed, 50 MiB and more."""
    import pyarrow as pa

    before = pa.default_memory_pool()
    pa.set_memory_pool(pa.system_memory_pool())
    try:
        yield
    finally:
        pa.set_memory_pool(before)
        before.release_unused()  # what Arrow's own code took from it all the same
        give_back_freed_memory()


def copy_columns(
    file: ColumnarFile, label: Column | None, texts: Sequence[Column], writer: BlockWriter
) -> Iterator[int]:
    """Write label and texts of all rows to blocks; yield the number of rows written after each batch."""
    names = list(dict.fromkeys(str(name) for name in (*(() if label is None else (label,)), *texts)))
    for batch in file.batches(names):
        labels = [None] * len(batch) if label is None else as_labels(batch.column(str(label)))
        writer.append(labels, as_texts([batch.column(str(name)) for name in texts]))
        yield writer.num_rows


def as_labels(column: Any) -> list[str | None]:
    """Return the values of an Arrow array as labels: numbers and truth values as JSON writes them, None where null."""
    import pyarrow as pa

    if pa.types.is_floating(column.type) or pa.types.is_boolean(column.type):
        return [None if value is None else _shown(value) for value in column.to_pylist()]
    return column.cast(pa.large_string()).to_pylist()  # type: ignore[no-any-return]


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def as_texts(columns: Sequence[Any]) -> Texts:
    """Join Arrow arrays row by row with a comma and a space; null is an empty text."""
    import pyarrow as pa
    import pyarrow.compute as pc

    strings = [pc.coalesce(column.cast(pa.large_string()), _scalar("")) for column in columns]
    joined = strings[0] if len(strings) == 1 else pc.binary_join_element_wise(*strings, _scalar(", "))
    joined = joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
    _, offsets, data = joined.buffers()
    ends = np.frombuffer(offsets, np.int64)[joined.offset : joined.offset + len(joined) + 1]
    content = np.frombuffer(data, np.uint8) if data is not None and data.size else np.empty(0, np.uint8)
    return Texts(content[ends[0] : ends[-1]].copy(), ends - ends[0])


def _scalar(text: str) -> Any:
    """Return a text as an Arrow scalar; `pa.scalar` would import pandas, if it is installed, and 24 MiB with it."""
    import pyarrow as pa

    data = text.encode()
    offsets = np.array([0, len(data)], np.int64)
    return pa.Array.from_buffers(pa.large_string(), 1, [None, pa.py_buffer(offsets), pa.py_buffer(data)])[0]
