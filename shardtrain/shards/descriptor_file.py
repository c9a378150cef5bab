"""Let libhdf5 write through a descriptor of ours, so that a failed call is an ordinary error and never one inside it.

After a failed write libhdf5 raises errors of several types, blames the wrong object, and may crash when the process
ends; it does not repeat calls that a signal interrupted. h5py can give it a file object of Python instead of a path.
This one makes each call as Python does, and after a failure it pretends to go on; the caller asks for the failure at
the end.
"""

from __future__ import annotations

import os
from typing import Any

from shardtrain.runtime.system import read_into, write_all


class DescriptorFile:
    """A file object for h5py over an open descriptor.

    Attributes:
        failure: the first error of a call; later calls do nothing.
    """

    def __init__(self, descriptor: int) -> None:
        self.failure: OSError | None = None
        self._descriptor = descriptor
        self._position = 0

    def raise_failure(self) -> None:
        """Raise the first error, if there was one."""
        if self.failure is not None:
            raise self.failure

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move to a position; it is counted from the front or, with SEEK_END, from the end."""
        end = os.fstat(self._descriptor).st_size if whence == os.SEEK_END else 0
        self._position = end + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def read(self, size: int) -> bytes:
        """Read bytes at the position."""
        content = bytearray(size)
        self.readinto(content)
        return bytes(content)

    def readinto(self, buffer: Any) -> int:
        """Read bytes at the position and return how many; what lies behind the end is zero."""
        view = memoryview(buffer).cast("B")
        done = 0
        try:
            while done < len(view) and (found := read_into(self._descriptor, view[done:], self._position + done)):
                done += found
        except OSError as error:
            self.failure = self.failure or error
        view[done:] = bytes(len(view) - done)
        return len(view)

    def write(self, content: Any) -> int:
        """Write bytes at the position and return how many."""
        view = memoryview(content).cast("B")
        if self.failure is None:
            try:
                write_all(self._descriptor, view, self._position)
            except OSError as error:
                self.failure = error
        return len(view)

    def truncate(self, size: int) -> int:
        """Set the size of the file."""
        if self.failure is None:
            try:
                os.ftruncate(self._descriptor, size)
            except OSError as error:
                self.failure = error
        return size

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""
