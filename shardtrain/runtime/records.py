"""Record the results of finished tasks, so that an interrupted pass goes on where it was.

The records of a pass are lines of one file, appended as tasks finish: a checksum, and the task's number with its result
as JSON. A pass of a million tasks thus takes one open file and no memory. A line that was cut off by a kill, or is
damaged, counts as none, and its task is done again. The file is not synced: it need not survive a power failure.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.schema import Integer, Row, Schema, check, parse_json
from shardtrain.runtime.storage import storage_errors
from shardtrain.runtime.system import write_all

_DIGITS = 16


class Records:
    """The records of one pass; a context manager that holds the file open from the first record that is added.

    Args:
        path: of the file, which may not exist.
        schema: of a result as JSON values.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        self._path, self._schema = path, Row((Integer(), schema))
        self._descriptor = -1
        self._end = 0

    def read(self) -> Iterator[tuple[int, Any]]:
        """Yield number and result of each record that is sound, in the order in which they were added.

        Raises:
            StorageError: the file cannot be read.
        """
        if not os.path.lexists(self._path):
            return
        with storage_errors(self._path, "open", done="read") as call:
            descriptor = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            call.name = "read"
            with open(descriptor, "rb") as file:
                for line in file:
                    with contextlib.suppress(ValueError):
                        yield self._parsed(line)

    def _parsed(self, line: bytes) -> tuple[int, Any]:
        """Return number and result of a line.

        Raises:
            ValueError: it is damaged, of another version, or does not fit the schema.
        """
        digits, content = line[:_DIGITS], line[_DIGITS + 1 : -1]
        if not line.endswith(b"\n") or checksum(content).encode() != digits:
            raise ValueError(f"a line of '{self._path}' is damaged")
        record = parse_json(content)
        check(record, self._schema)
        return record[0], record[1]

    def add(self, number: int, result: Any) -> None:
        """Append the record of a task's result.

        Raises:
            ValueError: the result does not fit the schema, so it could not be read.
            StorageError: it cannot be written.
        """
        content = json.dumps([number, result]).encode()
        check(json.loads(content), self._schema)
        line = memoryview(checksum(content).encode() + b" " + content + b"\n")
        with storage_errors(self._path, "open") as call:
            self._open()
            call.name = "write"
            write_all(self._descriptor, line, self._end)
            self._end += len(line)

    def _open(self) -> None:
        if self._descriptor >= 0:
            return
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        self._end = os.fstat(self._descriptor).st_size
        if self._end and os.pread(self._descriptor, 1, self._end - 1) != b"\n":  # a kill cut its last line off
            self._end += os.pwrite(self._descriptor, b"\n", self._end)

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
