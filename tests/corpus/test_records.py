"""Record boundaries equal those of a slow reference implementation and of Python's csv module."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sampled import sampled

from shardtrain.corpus.parsing import split_fields
from shardtrain.corpus.records import (
    CSV,
    GOOD,
    STRAY_ESCAPE,
    STRAY_RETURN,
    STRAY_TEXT,
    TOO_LONG,
    UNCLOSED,
    Syntax,
    find_records,
)

Record = tuple[int, int, int, int]

ESCAPING = Syntax(delimiter=";", quoting=True, escape="\\")
pieces = [
    b'"',
    b'""',
    b",",
    b";",
    b"\\",
    b'\\"',
    b'"\\\n',
    b"\n",
    b"\r\n",
    b"\r",
    b"a",
    b" ",
    b'"\n',
    b',"',
    b'","',
    b"\x00",
    "é".encode(),
    b"\xff",
]
nasty_bytes = st.lists(st.sampled_from(pieces), max_size=40).map(b"".join)
cells = st.text(st.sampled_from('a"\\\n\r, \té\x00'), max_size=6)


def found_in(
    data: bytes, *, syntax: Syntax = CSV, max_record: int = 1 << 30, chunk_bytes: int = 1 << 20
) -> list[Record]:
    def read(position: int, size: int) -> bytes:
        assert 0 < size <= chunk_bytes
        assert position + size <= len(data)
        return data[position : position + size]

    blocks = find_records(
        read, 0, len(data), first_line=1, syntax=syntax, max_record=max_record, chunk_bytes=chunk_bytes
    )
    return [tuple(record) for block in blocks for record in block.tolist()]


def defined_in(data: bytes, max_record: int, syntax: Syntax) -> Iterator[Record]:
    """Yield the records of CSV bytes by trying each line as the start of one."""
    start, line = 0, 1
    while start < len(data):
        newline = data.find(b"\n", start)
        line_stop = len(data) if newline < 0 else newline + 1
        result, stop = try_record(data, start, syntax)
        if not data[start:line_stop].removesuffix(b"\n").rstrip(b"\r").strip(b" "):
            start, line = line_stop, line + 1
            continue
        if line_stop - start > max_record:
            code = TOO_LONG
        elif result == GOOD:
            code = GOOD if stop - start <= max_record else UNCLOSED
        else:
            code = UNCLOSED if stop > line_stop else result
        stop = stop if code == GOOD else line_stop
        yield start, stop, line, code
        start, line = stop, line + max(1, data.count(b"\n", start, stop))


def try_record(data: bytes, start: int, syntax: Syntax) -> tuple[int, int]:
    """Parse one record: (GOOD, its end) or (code, end of the first byte that violates the grammar)."""
    state = "field start"
    escape, delimiter = (syntax.escape or "").encode(), (syntax.delimiter or "").encode()
    for place in range(start, len(data)):
        byte = data[place : place + 1]
        if state == "quoted" and byte == escape:
            state = "escaped in quotes"
        elif state in ("quoted", "escaped in quotes"):
            state = "quote" if byte == b'"' and state == "quoted" else "quoted"
        elif state == "escaped":
            if byte == b"\n":
                return STRAY_ESCAPE, place + 1
            state = "field"
        elif byte == b"\n":
            return GOOD, place + 1
        elif state == "return":
            if byte != b"\r":
                return STRAY_RETURN, place + 1
        elif byte == b"\r":
            state = "return"
        elif state == "quote":
            if byte not in (b'"', delimiter):
                return STRAY_TEXT, place + 1
            state = "quoted" if byte == b'"' else "field start"
        elif byte == escape:
            state = "escaped"
        elif byte == b'"' and state == "field start":
            state = "quoted"
        else:
            state = "field start" if byte == delimiter else "field"
    ends = {"quoted": UNCLOSED, "escaped in quotes": UNCLOSED, "escaped": STRAY_ESCAPE}
    return ends.get(state, GOOD), len(data)


@pytest.mark.parametrize("examples", sampled([250, 2000]))
def test_records_are_those_of_the_definition_however_the_bytes_are_chunked(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(
        nasty_bytes,
        st.sampled_from([1 << 30, 9, 25]),
        st.sampled_from([1, 3, 7, 1 << 20]),
        st.sampled_from([CSV, ESCAPING, Syntax(delimiter="\t", quoting=True)]),
    )
    def check(data: bytes, max_record: int, chunk_bytes: int, syntax: Syntax) -> None:
        expected = list(defined_in(data, max_record, syntax))
        assert found_in(data, syntax=syntax, max_record=max_record, chunk_bytes=chunk_bytes) == expected

    check()


@pytest.mark.parametrize("examples", sampled([120, 1000]))
def test_well_formed_files_are_read_as_the_csv_module_reads_them(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(st.lists(st.lists(cells, min_size=2, max_size=4), max_size=12), st.booleans())
    def check(rows: list[list[str]], published: bool) -> None:
        file = io.StringIO(newline="")
        if published:
            csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(rows)
        else:  # the writer's own line ends: with others it leaves carriage returns unquoted
            csv.writer(file).writerows(rows)
        data = file.getvalue().encode()
        records = found_in(data, chunk_bytes=5)
        assert {code for *_, code in records} <= {GOOD}
        fields = split_fields(CSV, [data[start:stop] for start, stop, _, _ in records])
        assert fields == list(csv.reader(io.StringIO(data.decode(), newline=""), strict=True)) == rows

    check()


@pytest.mark.parametrize("examples", sampled([120, 1000]))
def test_files_with_escaped_quotes_are_read_as_the_csv_module_reads_them(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(st.lists(st.lists(cells, min_size=2, max_size=4), max_size=12), st.sampled_from(";|\t"), st.booleans())
    def check(rows: list[list[str]], delimiter: str, doubled: bool) -> None:
        def quoted(cell: str) -> str:
            cell = cell.replace("\\", "\\\\").replace('"', '""' if doubled else '\\"')
            return f'"{cell}"'

        data = "".join(delimiter.join(map(quoted, row)) + "\n" for row in rows)
        syntax = Syntax(delimiter=delimiter, quoting=True, escape="\\")
        records = found_in(data.encode(), syntax=syntax, chunk_bytes=5)
        assert {code for *_, code in records} <= {GOOD}
        fields = split_fields(syntax, [data.encode()[start:stop] for start, stop, _, _ in records])
        reader = csv.reader(io.StringIO(data, newline=""), strict=True, delimiter=delimiter, escapechar="\\")
        assert fields == list(reader) == rows

    check()


@settings(max_examples=200, deadline=None)
@given(nasty_bytes, st.sampled_from([1, 4, 1 << 20]))
def test_without_quoting_every_line_that_is_not_blank_is_a_record(data: bytes, chunk_bytes: int) -> None:
    lines = data.split(b"\n")
    expected = [(number, line) for number, line in enumerate(lines, start=1) if line.strip(b" \r")]
    found = found_in(data, syntax=Syntax(), chunk_bytes=chunk_bytes)
    assert [(line, data[start:stop].removesuffix(b"\n")) for start, stop, line, _ in found] == expected


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b'1,a\n2,"b\n3,c\n4,d\n', [(1, GOOD), (2, UNCLOSED), (3, GOOD), (4, GOOD)]),
        (b'"1","a"\n"2","b\n"3","c"\n"4","d"\n', [(1, GOOD), (2, UNCLOSED), (3, GOOD), (4, GOOD)]),
        (b'1,"a"b\n2,"c""d"\n', [(1, STRAY_TEXT), (2, GOOD)]),
        (b"1,a\rb\n2,c\r\n", [(1, STRAY_RETURN), (2, GOOD)]),
        (b'1,"a\nb"\n\n  \r\n2,c', [(1, GOOD), (5, GOOD)]),
        (b'1,it"s\n2,"', [(1, GOOD), (2, UNCLOSED)]),
    ],
    ids=[
        "an unclosed quote among bare fields costs one line",
        "an unclosed quote among quoted fields costs one line",
        "text after a closing quote is bad",
        "a bare carriage return is bad and one before the newline is not",
        "newlines in quotes count as lines and blank lines are not records",
        "a quote inside a bare field is text and one at the end is unclosed",
    ],
)
def test_one_bad_line_costs_one_record(data: bytes, expected: list[tuple[int, int]]) -> None:
    assert [(line, code) for _, _, line, code in found_in(data)] == expected


def test_more_records_than_are_reported_at_a_time_all_arrive_in_order() -> None:
    data = b"1,a\n" * 100_000
    assert [start for start, *_ in found_in(data)] == list(range(0, len(data), 4))


def test_a_file_of_lines_that_all_leave_a_quote_open_is_read_about_once() -> None:
    """No line closes the quote that another one opens: scanning ahead from each line anew would take quadratic time."""
    data = b'x","\n' * 300_000
    num_read = 0

    def read(position: int, size: int) -> bytes:
        nonlocal num_read
        num_read += size
        return data[position : position + size]

    blocks = list(find_records(read, 0, len(data), first_line=1, syntax=CSV))
    assert sum(len(block) for block in blocks) == 300_000
    assert all((block[:, 3] == UNCLOSED).all() for block in blocks)
    assert num_read < 4 * len(data)
