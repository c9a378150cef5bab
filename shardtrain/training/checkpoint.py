"""Write and read checkpoints, one checksummed file of arrays and plain values each, without blocking training.

    line 1          `shardtrain-checkpoint 1`
    line 2          one JSON object: `arrays` (dtype and shape of each) and `state`, which refers to them by number
    then            the arrays, one after the other, in C order
    last 16 bytes   XXH3, 64 bits, of all bytes before, as hex digits

A file cannot run code, as a pickle could, and is read without libhdf5. `Checkpoints` writes in a background thread; a
new state replaces one that still waits to be written, so training never waits for the disk. The last two are kept: if
the newest is damaged, that is reported and the one before is used. The cost is memory for two copies of the state.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import CheckpointError, ShardtrainError
from shardtrain.runtime.atomic import committed, remove_partials
from shardtrain.runtime.checksums import checksum, running_checksum
from shardtrain.runtime.progress import say

KEPT = 2
MAGIC = b"shardtrain-checkpoint 1\n"
_DIGITS = 16
_NAME = re.compile(r"checkpoint-(\d{8})")
_PLAIN = (bool, int, float, str, type(None))

Array = npt.NDArray[Any]


def pack(value: Any, arrays: list[Array]) -> Any:
    """Return `value` as JSON values; its arrays are appended to `arrays`.

    Raises:
        TypeError: it holds something that is neither a plain value nor an array of numbers.
    """
    if type(value) in _PLAIN:
        return value
    if type(value) is list:  # no subclass: a named tuple would come back as a tuple
        return [pack(item, arrays) for item in value]
    if type(value) is tuple:
        return {"tuple": [pack(item, arrays) for item in value]}
    if type(value) is dict:
        return {"dict": [[pack(key, arrays), pack(item, arrays)] for key, item in value.items()]}
    if isinstance(value, np.ndarray | np.generic) and _is_named(value.dtype):
        arrays.append(np.asarray(value))
        return {"array" if isinstance(value, np.ndarray) else "scalar": len(arrays) - 1}
    raise TypeError(f"a checkpoint cannot hold a {type(value).__name__}")


def _is_named(dtype: np.dtype[Any]) -> bool:
    """Return whether the dtype can be made from its name, as those of numbers can, bfloat16 included."""
    try:
        return not dtype.hasobject and np.dtype(dtype.name) == dtype
    except TypeError:
        return False


def unpack(tree: Any, arrays: Sequence[Array]) -> Any:
    """Return the value from which `pack` made `tree` and `arrays`."""
    if isinstance(tree, list):
        return [unpack(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    if kind == "array":
        return arrays[content]
    if kind == "scalar":
        return arrays[content][()]
    if kind == "tuple":
        return tuple(unpack(item, arrays) for item in content)
    return {unpack(key, arrays): unpack(item, arrays) for key, item in content}


@dataclass(frozen=True, eq=False)
class Packed:
    """A state as `pack` returns it, with copies of the arrays."""

    tree: Any
    arrays: list[Array]


def packed(state: Any) -> Packed:
    """Return `state` packed, with copies of its arrays, so that later changes do not affect it.

    Raises:
        TypeError: as `pack` does.
    """
    arrays: list[Array] = []
    tree = pack(state, arrays)
    return Packed(tree, [np.array(array, order="C") for array in arrays])


def write_checkpoint(path: Path, state: Packed) -> None:
    """Write `state` to `path`, atomically.

    Raises:
        DiskFullError: the disk has no room.
    """
    described = [{"dtype": array.dtype.name, "shape": array.shape} for array in state.arrays]
    header = json.dumps({"arrays": described, "state": state.tree}).encode() + b"\n"
    state_checksum = running_checksum()
    with committed(path) as file:
        parts: list[Any] = [MAGIC, header, *(array.reshape(-1).view(np.uint8) for array in state.arrays)]
        for part in parts:
            state_checksum.update(part)
            file.write(part)
        file.write(state_checksum.hexdigest().encode())


def read_checkpoint(path: Path) -> Any:
    """Read the state in `path`.

    Raises:
        CheckpointError: the file is damaged.
    """
    content = memoryview(path.read_bytes())
    body, digits = content[:-_DIGITS], bytes(content[-_DIGITS:])
    if not bytes(body[: len(MAGIC)]) == MAGIC:
        raise CheckpointError(f"'{path}' is damaged: it does not begin with {MAGIC.decode().strip()!r}")
    found = checksum(body)
    if found.encode() != digits:
        raise CheckpointError(f"'{path}' is damaged: its checksum is {found}, its end says {digits.decode('latin-1')}")
    end = bytes(body).index(b"\n", len(MAGIC)) + 1
    header = json.loads(bytes(body[len(MAGIC) : end]))
    return unpack(header["state"], list(_arrays(body, end, header["arrays"])))


def _arrays(body: memoryview, position: int, described: Sequence[dict[str, Any]]) -> Iterator[Array]:
    """Yield copies of the arrays from `position` on."""
    for each in described:
        dtype, shape = np.dtype(each["dtype"]), tuple(each["shape"])
        count = int(np.prod(shape, dtype=np.int64))
        yield np.frombuffer(body, dtype, count, position).reshape(shape).copy()
        position += count * dtype.itemsize


class Checkpoints:
    """The checkpoints of one training; leaving the context waits until the latest is written.

    Attributes:
        folder: that holds them and nothing else; created with the first one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._changed = threading.Condition()
        self._waiting: Packed | None = None
        self._writing = False
        self._failure: Exception | None = None
        self._thread: threading.Thread | None = None
        self._closed = False

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def newest(self) -> Any:
        """Read the newest state that is not damaged, or None; damaged ones after it are reported and removed.

        Raises:
            CheckpointError: there are checkpoints, and all are damaged.
        """
        paths = self._paths()
        damaged = []
        for path in reversed(paths):
            try:
                state = read_checkpoint(path)
            except CheckpointError as error:
                damaged.append((path, error.on_command_line))
                continue
            for broken, message in damaged:
                say(f"{message}; resuming from the one before, '{path.name}'")
                broken.unlink()
            return state
        if damaged:
            raise CheckpointError(f"{damaged[0][1]}; no undamaged checkpoint is left, start again with --overwrite")
        return None

    def save(self, state: Packed) -> None:
        """Queue a state to be written, and return at once; a failure is reported and does not end training."""
        with self._changed:
            self._waiting = state
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="checkpoints", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def finish(self) -> None:
        """Wait until the latest state is written.

        Raises:
            OSError: writing failed.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not self._writing)
            if self._failure is not None:
                raise self._failure

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting is not None or self._closed)
                if self._waiting is None:
                    return
                state, self._waiting, self._writing = self._waiting, None, True
            failure = self._write(state)
            del state  # it may be large, and the next one may come late
            with self._changed:
                self._failure, self._writing = failure, False
                self._changed.notify_all()

    def _write(self, state: Packed) -> Exception | None:
        """Write a state and remove checkpoints that are no longer kept; return the error, if any."""
        try:
            self.folder.mkdir(exist_ok=True)
            paths = self._paths()
            number = 1 + (_number(paths[-1]) if paths else 0)
            write_checkpoint(self.folder / f"checkpoint-{number:08}", state)
            for path in paths[: 1 - KEPT]:
                path.unlink(missing_ok=True)
        except Exception as error:  # a thread must pass on every error
            text = error.on_command_line if isinstance(error, ShardtrainError) else error
            say(f"a checkpoint could not be written, training continues without it: {text}")
            return error
        return None

    def _paths(self) -> list[Path]:
        """Return the files, oldest first."""
        found = self.folder.iterdir() if self.folder.is_dir() else ()
        return sorted(path for path in found if _NAME.fullmatch(path.name))

    def remove(self) -> None:
        """Remove all checkpoints and the folder; a state that waits to be written is dropped."""
        with self._changed:
            self._waiting = None
            self._changed.wait_for(lambda: not self._writing)
        for path in self._paths():
            path.unlink(missing_ok=True)
        if self.folder.is_dir():
            remove_partials(self.folder)
            self.folder.rmdir()


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])
