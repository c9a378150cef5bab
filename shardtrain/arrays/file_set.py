"""Name the scratch files of a pass by a rule, so that a million paths are neither held nor sent to workers."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardtrain.runtime.storage import storage_errors

_PER_FOLDER = 1000  # files; a folder of millions is slow to list and to change on many file systems


@dataclass(frozen=True)
class FileSet(Sequence[Path]):
    """Files with the numbers [0, number), in folders of a thousand.

    Attributes:
        folder: of all of them.
        number: of files.
        again: numbers of files that are made a second time, with another content and so under another name.
    """

    folder: Path
    number: int
    again: frozenset[int] = frozenset()

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(self.number))]
        if not 0 <= index < self.number:
            raise IndexError(f"there is no file {index} of {self.number}")
        return Path(f"{self.folder}/{index // _PER_FOLDER:05}/{index:07}{'-again' * (index in self.again)}")

    def made(self) -> FileSet:
        """Make the folders and return this: tasks make none, so what is late finds none and is lost.

        Raises:
            StorageError: they cannot be made.
        """
        for start in range(0, max(1, self.number), _PER_FOLDER):
            with storage_errors(self.folder, "mkdir"):
                os.makedirs(f"{self.folder}/{start // _PER_FOLDER:05}", exist_ok=True)
        return self
