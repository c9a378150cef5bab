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
import math
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import CheckpointError, DiskFullError, ShardtrainError
from shardtrain.runtime.atomic import committed, final_name, remove_partials
from shardtrain.runtime.checksums import checksum, running_checksum
from shardtrain.runtime.progress import say, warn
from shardtrain.runtime.schema import (
    Anything,
    Fields,
    Integer,
    Items,
    Mismatch,
    Schema,
    Text,
    check,
    parse_json,
    shown,
)
from shardtrain.runtime.storage import remove, storage_errors

KEPT = 2
ANYTHING = Anything(300)  # Keras nests the configuration of a model, and packing needs three levels for one
MAGIC = b"shardtrain-checkpoint 1\n"
_DIGITS = 16
_NAME = re.compile(r"checkpoint-(\d{8})")
_PLAIN = (bool, int, float, str, type(None))
_KINDS = ("array", "scalar", "tuple", "dict")  # of what JSON does not have
_HEADER = Fields({"arrays": Items(Fields({"dtype": Text(), "shape": Items(Integer(), most=32)})), "state": ANYTHING})

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
    """Return the value from which `pack` made `tree` and `arrays`.

    Raises:
        Mismatch: `pack` made no such tree.
    """
    if isinstance(tree, list):
        return [unpack(item, arrays) for item in tree]
    if not isinstance(tree, dict):
        return tree
    kind: str = next(iter(tree), "")
    content: Any = tree.get(kind)
    if len(tree) != 1 or kind not in _KINDS:
        raise Mismatch(f"an object with {', '.join(sorted(tree)[:5])!r:.60}", f"one of the keys {', '.join(_KINDS)}")
    if kind in ("array", "scalar"):
        check(content, Integer(0, len(arrays) - 1))
        if kind == "array":
            return arrays[content]
        if arrays[content].ndim:
            raise Mismatch(f"an array of shape {arrays[content].shape}", "a scalar")
        return arrays[content][()]
    pairs = kind == "dict"
    if type(content) is not list or (pairs and not all(type(each) is list and len(each) == 2 for each in content)):
        raise Mismatch(shown(content), "a list of pairs" if pairs else "a list", (kind,))
    if not pairs:
        return tuple(unpack(item, arrays) for item in content)
    keys = [unpack(key, arrays) for key, _ in content]
    try:
        return dict(zip(keys, (unpack(item, arrays) for _, item in content), strict=True))
    except TypeError:
        raise Mismatch("a list, an object or an array as key", "a plain value", (kind,)) from None


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


def read_checkpoint(path: Path, schema: Schema = ANYTHING) -> Any:
    """Read the state in `path`, which must fit the schema.

    Raises:
        CheckpointError: the file cannot be read, is damaged or makes no sense.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"'{path}' cannot be read: {error.strerror}") from error
    body, digits = memoryview(content)[:-_DIGITS], content[-_DIGITS:]
    if not content.startswith(MAGIC):
        raise CheckpointError(f"'{path}' is damaged: it does not begin with {MAGIC.decode().strip()!r}")
    found = checksum(body)
    if found.encode() != digits:
        raise CheckpointError(f"'{path}' is damaged: its checksum is {found}, its end says {digits!r:.40}")
    end = content.find(b"\n", len(MAGIC), len(body)) + 1
    try:
        header = parse_json(content[len(MAGIC) : end], finite=False)  # states hold infinities, such as the best loss
        check(header, _HEADER)
        state = unpack(header["state"], list(_arrays(body, end, header["arrays"])))
        check(state, schema)
    except Mismatch as mismatch:
        raise CheckpointError(f"'{path}' makes no sense: {mismatch}") from mismatch
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{path}' is damaged: its second line is not JSON ({error})") from error
    return state


def _arrays(body: memoryview, position: int, described: Sequence[dict[str, Any]]) -> Iterator[Array]:
    """Yield copies of the arrays from `position` to the end.

    Raises:
        Mismatch: the types are not those of numbers, or the arrays are larger or smaller than what is there.
    """
    for number, each in enumerate(described):
        dtype, shape = _dtype(each["dtype"], number), tuple(each["shape"])
        count = math.prod(shape)
        if count * dtype.itemsize > len(body) - position:
            found = f"{count * dtype.itemsize:,} bytes"
            raise Mismatch(found, f"at most the {len(body) - position:,} that are left", ("arrays", number))
        yield np.frombuffer(body, dtype, count, position).reshape(shape).copy()
        position += count * dtype.itemsize
    if position != len(body):
        raise Mismatch(f"{len(body) - position:,} bytes after the arrays", "none")


def _dtype(name: str, number: int) -> np.dtype[Any]:
    try:
        dtype = np.dtype(name)
    except (TypeError, ValueError, SyntaxError):  # numpy parses names with commas and braces
        dtype = np.dtype(object)
    if not _is_named(dtype) or not dtype.itemsize:
        raise Mismatch(shown(name), "the name of a type of numbers", ("arrays", number, "dtype"))
    return dtype


class Checkpoints:
    """The checkpoints of one training; leaving the context waits until the latest is written.

    Attributes:
        folder: that holds them; created with the first one. Whatever else is in it stays there.

    Args:
        folder: as above.
        schema: of a state.
    """

    def __init__(self, folder: Path, schema: Schema = ANYTHING) -> None:
        self.folder = folder
        self._schema = schema
        self._changed = threading.Condition()
        self._waiting: Packed | None = None
        self._writing = False
        self._failure: Exception | None = None
        self._said = ""  # of the last attempt, if that failed
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
        """Read the newest state that is sound, or None; damaged ones after it are reported and removed.

        Raises:
            CheckpointError: there are checkpoints, and all are damaged.
        """
        paths = self._paths()
        damaged = []
        for path in reversed(paths):
            try:
                state = read_checkpoint(path, self._schema)
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
        self._wait()
        if self._failure is not None:
            raise self._failure

    def _wait(self) -> None:
        """Wait until no state is being written or waits to be."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is None and not self._writing)

    def beside(self, write: Callable[[], None]) -> None:
        """Call `write`, which commits a file of the run; if the disk is full, once more when no state is being written.

        A state that does not fit fills the disk until its file is removed; training continues without that checkpoint.

        Raises:
            StorageError: the file cannot be written; DiskFullError if there is no room without that state either.
        """
        try:
            write()
        except DiskFullError:
            self._wait()
            write()

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
            paths, number = self._paths(), 1 + max(map(_number, _named(self.folder)), default=0)
            write_checkpoint(self.folder / f"checkpoint-{number:08}", state)
            for path in paths[: 1 - KEPT]:
                path.unlink(missing_ok=True)
        except Exception as error:  # a thread must pass on every error
            text = error.on_command_line if isinstance(error, ShardtrainError) else str(error)
            if text != self._said:  # once, not at every checkpoint of a disk that stays full
                say(f"a checkpoint could not be written, training continues without it: {text}")
            self._said = text
            return error
        self._said = ""
        return None

    def _paths(self) -> list[Path]:
        """Return the files, oldest first."""
        return checkpoints_in(self.folder)

    def remove(self) -> None:
        """Remove all checkpoints, and the folder unless something else is in it, which is reported and stays.

        A state that waits to be written is dropped.

        Raises:
            StorageError: a checkpoint or the folder cannot be removed.
        """
        with self._changed:
            self._waiting = None
            self._changed.wait_for(lambda: not self._writing)
        for path in self._paths():
            remove(path)
        remove_partials(self.folder)
        if others := _others(self.folder):
            warn(
                f"'{min(others)}' is no checkpoint, so it stays, and '{self.folder}' with it; move it away if you need "
                "it, and delete the folder"
            )
            return
        if self.folder.is_dir() and not self.folder.is_symlink():
            with storage_errors(self.folder, "remove"):
                self.folder.rmdir()


def checkpoints_in(folder: Path) -> list[Path]:
    """Return the files of checkpoints in a folder, which may be missing, oldest first."""
    return sorted(path for path in _named(folder) if path.is_file())


def has_checkpoint(folder: Path) -> bool:
    """Return whether a file in a folder begins as a checkpoint does, and has the name of one."""
    return any(_begins_so(path) for path in checkpoints_in(folder))


def _begins_so(path: Path) -> bool:
    try:
        with open(path, "rb") as file:
            return file.read(len(MAGIC)) == MAGIC
    except OSError:
        return False


def left_behind(folder: Path) -> bool:
    """Return whether a folder of checkpoints is there that `Checkpoints.remove` would remove, or empty."""
    return folder.is_dir() and (bool(checkpoints_in(folder)) or not _others(folder))


def _others(folder: Path) -> list[Path]:
    """Return what is neither a checkpoint nor left of one that was being written."""
    ours = checkpoints_in(folder)
    return [path for path in _entries(folder) if path not in ours and not _NAME.fullmatch(final_name(path.name) or "")]


def _named(folder: Path) -> list[Path]:
    """Return what has the name of a checkpoint, whatever it is: no new one may get that name."""
    return [path for path in _entries(folder) if _NAME.fullmatch(path.name)]


def _entries(folder: Path) -> list[Path]:
    return list(folder.iterdir()) if folder.is_dir() else []


def _number(path: Path) -> int:
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])
