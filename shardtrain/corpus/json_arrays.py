"""Turn one JSON array of objects into JSON Lines while it streams by: an item per line, in their order.

The array is the whole file, or the one value that is an array of objects in the object that is the whole file, as in
`{"data": [{...}, ...]}`. Items are copied byte by byte, not parsed, so that memory does not depend on the size of the
file; what is wrong inside an item is reported when it is read, by its number.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.kernels import kernel
from shardtrain.runtime.quantities import enumerated

_SPACE = b" \t\r\n"
_FOLLOWING = 1 << 16  # bytes after an array of which is looked whether they hold another one
_MOST_SHOWN = 5  # names in a message
_DEPTH, _IN_STRING, _ESCAPED, _DONE = range(4)  # fields of the state between two chunks
_FOLLOWED = "'{origin}': something follows the JSON array; expected one array, or one object per line"
_REMEDY = (
    'python -c "import pandas, sys; '
    "pandas.read_json(sys.argv[1]).to_json(sys.argv[2], orient='records', lines=True)\" OLD.json NEW.jsonl"
)


def array_start(head: bytes, *, whole: bool, origin: Path) -> int | None:
    """Return where the items of a JSON array begin in a file; None if the file is not one array.

    Args:
        head: the first bytes of the file, in UTF-8.
        whole: whether the file has no more bytes.
        origin: the file, for messages.

    Raises:
        CorpusFormatError: the file is one object that holds columns, not records, or several arrays of records.
    """
    begin = len(head) - len(head.lstrip(_SPACE))
    if head[begin : begin + 1] == b"[":
        return begin + 1
    if head[begin : begin + 1] != b"{":
        return None
    end, values = _values_of_object(head, begin)
    if end is not None and not (whole and not head[end:].strip(_SPACE)):
        return None  # something follows the first object: JSON Lines
    if end is None and any(_is_object(line) for line in head.split(b"\n")[:-1]):
        return None
    of_objects = _of_records(head, values)
    if len(of_objects) > 1:
        raise _several(origin, [name for name, _ in of_objects])
    if of_objects:
        return head.index(b"[", of_objects[0][1]) + 1
    places = [place for _, place in values]
    if any(_opens(head, place, b"[") for place in places) or (
        places and all(_opens(head, place, b"{") for place in places)
    ):
        raise CorpusFormatError(
            f"'{origin}' is one JSON object that holds no array of records; expected these, as JSON Lines or an "
            f"array of objects; if it holds columns, `{_REMEDY}` converts it"
        )
    return None


def as_lines(chunks: Iterable[bytes], origin: Path, *, wrapped: bool) -> Iterator[bytes]:
    """Yield the items of an array as lines.

    Args:
        chunks: of the file, from after the opening bracket on.
        origin: the file, for messages.
        wrapped: whether the array is inside an object, whose rest follows it.

    Raises:
        CorpusFormatError: the array does not end, something follows it, or another array of records does.
    """
    state = np.zeros(4, np.int64)
    following = b""
    for chunk in chunks:
        if not state[_DONE]:
            out = np.empty(len(chunk) + 1, np.uint8)
            yield out[: _copy_items(np.frombuffer(chunk, np.uint8), state, out)].tobytes()
            if not state[_DONE]:
                continue
            chunk = chunk[state[_DONE] :]
        if not wrapped and chunk.strip(_SPACE):
            raise CorpusFormatError(_FOLLOWED.format(origin=origin))
        following += chunk[: _FOLLOWING - len(following)]
    if not state[_DONE]:
        raise CorpusFormatError(f"'{origin}' is cut: its JSON array does not end; write or download it again")
    rest = b"{" + following
    if others := _of_records(rest, _values_of_object(rest, 0)[1]):
        raise _several(origin, ["", *(name for name, _ in others)])


@kernel
def _copy_items(data, state, out):  # type: ignore[no-untyped-def]
    depth, in_string, escaped = state[_DEPTH], state[_IN_STRING], state[_ESCAPED]
    size = 0
    # out[:size] has the items in data[:i], each ended by a newline but for the one that is not complete; `depth` counts
    # the brackets that are open inside that item.
    for i in range(len(data)):
        byte = data[i]
        if in_string:
            if escaped:
                escaped = 0
            elif byte == 0x5C:  # backslash
                escaped = 1
            elif byte == 0x22:  # quote
                in_string = 0
        elif byte == 0x22:
            in_string = 1
        elif byte == 0x7B or byte == 0x5B:  # { [
            depth += 1
        elif byte == 0x7D or byte == 0x5D:  # } ]
            if depth == 0:
                state[_DONE] = i + 1
                out[size] = 0x0A
                return size + 1
            depth -= 1
        elif depth == 0 and byte == 0x2C:  # comma
            byte = np.uint8(0x0A)
        if byte == 0x0D or (byte == 0x0A and data[i] == 0x0A):
            byte = np.uint8(0x20)
        out[size] = byte
        size += 1
    state[_DEPTH], state[_IN_STRING], state[_ESCAPED] = depth, in_string, escaped
    return size


def _several(origin: Path, names: Sequence[str]) -> CorpusFormatError:
    """Return the error for a file of several arrays of records; a name may be unknown, which is empty."""
    known = enumerated([name for name in names if name], _MOST_SHOWN, "'{}'")
    return CorpusFormatError(
        f"'{origin}' holds several arrays of records ({known}{'' if all(names) else ' and one before'}); expected one: "
        "write each to a file of its own, such as train.json, valid.json and test.json in a folder"
    )


def _values_of_object(head: bytes, begin: int) -> tuple[int | None, list[tuple[str, int]]]:
    """Return where the object that begins at `begin` ends, None if after `head`; its values' names and beginnings."""
    depth, in_string, escaped, name = 0, False, False, begin
    values: list[tuple[str, int]] = []
    for i in range(begin, len(head)):
        byte = head[i : i + 1]
        if in_string:
            in_string, escaped = escaped or byte != b'"', not escaped and byte == b"\\"
        elif byte == b'"':
            in_string = True
            name = i + 1 if depth == 1 else name
        elif byte in (b"{", b"["):
            depth += 1
        elif byte in (b"}", b"]"):
            depth -= 1
            if depth == 0:
                return i + 1, values
        elif byte == b":" and depth == 1:
            values.append((head[name:i].rstrip(_SPACE)[:-1].decode(errors="replace"), i + 1))
    return None, values


def _opens(head: bytes, place: int, bracket: bytes) -> bool:
    return head[place:].lstrip(_SPACE).startswith(bracket)


def _of_records(head: bytes, values: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """Select the values that are arrays of objects."""
    arrays = [(name, place) for name, place in values if _opens(head, place, b"[")]
    return [(name, place) for name, place in arrays if _opens(head, head.index(b"[", place) + 1, b"{")]


def _is_object(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False
