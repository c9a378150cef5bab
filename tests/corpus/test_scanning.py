"""Chunks that are scanned on their own, from a guess, give the units of one scan, whatever the bytes and the chunks."""

from __future__ import annotations

import functools
import os
import pickle
import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sampled import sampled

from shardtrain.corpus import cutting
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.records import CSV, LINES, MAX_RECORD, TOO_LONG, Syntax, find_records
from shardtrain.corpus.scanning import Place, Read, Rule, join, scan, scan_chunk
from shardtrain.corpus.source import Source, Unit
from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.executors import Serial, threads

ESCAPING = Syntax(delimiter=";", quoting=True, escape="\\")
SYNTAXES = [CSV, ESCAPING, Syntax(delimiter="\t"), Syntax(), LINES]
PIECES = [
    '"',
    '""',
    ",",
    ";",
    "\\",
    '\\"',
    '"\\\n',
    "\n",
    "\r\n",
    "\r",
    "a",
    " ",
    '"\n',
    ',"',
    '","',
    '"\n"',
    "\n\n",
    "é",
]
nasty_bytes = st.lists(st.sampled_from(PIECES), max_size=60).map("".join).map(str.encode)

Cut = tuple[int, int, int]  # start, line, index


class Shuffled:
    """An executor that runs tasks in another order, after sending them and the function through pickle."""

    workers = 2

    def run(self, function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        order = list(range(len(tasks)))
        random.Random(len(tasks)).shuffle(order)
        for number in order:
            call, task = pickle.loads(pickle.dumps((function, tasks[number])))
            yield number, pickle.loads(pickle.dumps(call(task)))

    def __enter__(self) -> Shuffled:
        return self

    def __exit__(self, *_: object) -> None:
        pass


@pytest.fixture
def chunked(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that has files of any size be scanned in chunks of a size, if there are workers."""

    def patch(chunk_bytes: int) -> None:
        monkeypatch.setattr(cutting, "ALONE_BYTES", 0)
        monkeypatch.setattr(cutting, "CHUNK_BYTES", chunk_bytes)

    return patch


def reader(data: bytes, base: int = 0) -> Read:
    """Return a function that reads a file of which `data` begins at `base`."""

    def read(position: int, size: int) -> bytes:
        assert base <= position
        assert 0 < size <= base + len(data) - position
        return data[position - base : position - base + size]

    return read


def records_of(rule: Rule, data: bytes, start: int, line: int, until: int) -> tuple[list[list[int]], tuple[int, int]]:
    """Return the records of a file that start in [start, until), and where scanning ended."""
    found = find_records(
        reader(data),
        start,
        len(data),
        first_line=line,
        syntax=rule.syntax,
        until=until,
        max_record=rule.max_record,
        chunk_bytes=5,
    )
    records = []
    while True:
        try:
            records += next(found).tolist()
        except StopIteration as end:
            return records, end.value


def cuts_by_definition(rule: Rule, data: bytes, line: int) -> list[Cut]:
    """Return the cuts of a file as the rule says it, one record after the other."""
    records, _ = records_of(rule, data, rule.origin, line, len(data))
    cuts, next_cell, after_long = [], 0, False
    for index, (start, _, number, code) in enumerate(records):
        if after_long or code == TOO_LONG or start >= rule.origin + next_cell * rule.cell:
            cuts.append((start, number, index))
        next_cell, after_long = (start - rule.origin) // rule.cell + 1, code == TOO_LONG
    return cuts


def cuts_in_chunks(rule: Rule, read: Read, size: int, line: int, cells: int, known: int) -> tuple[list[Cut], Place]:
    """Return the cuts of a file that is scanned in chunks of so many cells, and the place of its end."""
    place, found, step = Place(rule.origin, line, 0), [], cells * rule.cell
    for begin in range(rule.origin, size, step):
        until = min(begin + step, size)
        first = begin == rule.origin
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("shardtrain.corpus.scanning.KNOWN", known)
            patch.setattr("shardtrain.corpus.scanning._PIECE", 3)
            guess = (
                scan(rule, read, begin, until, size, line=line) if first else scan_chunk(rule, read, begin, until, size)
            )
        cuts, place = join(rule, read, place, until, size, guess)
        found += [cut for piece in cuts for cut in map(tuple, piece.tolist())]
    return found, place


@pytest.mark.parametrize("examples", sampled([200, 2000]))
def test_what_is_found_from_a_boundary_on_does_not_depend_on_what_is_before(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(nasty_bytes, st.sampled_from(SYNTAXES), st.sampled_from([1 << 30, 9, 25]), st.data())
    def check(data: bytes, syntax: Syntax, max_record: int, drawn: st.DataObject) -> None:
        rule = Rule(syntax=syntax, origin=0, cell=1, max_record=max_record)
        whole, end = records_of(rule, data, 0, 1, len(data))
        assert end[0] == len(data)
        until = drawn.draw(st.integers(0, len(data)))
        before, (boundary, line) = records_of(rule, data, 0, 1, until)
        assert before == [record for record in whole if record[0] < until]
        assert boundary >= until
        after, _ = records_of(rule, data, boundary, line, len(data))
        assert before + after == whole

    check()


@pytest.mark.parametrize("examples", sampled([350, 3000]))
def test_chunks_that_are_joined_have_the_cuts_of_one_scan(examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(
        nasty_bytes,
        st.sampled_from(SYNTAXES),
        st.sampled_from([1 << 30, 9, 25]),
        st.integers(1, 40),
        st.integers(1, 4),
        st.sampled_from([0, 1, 64]),
        st.sampled_from([b"", b"label,text\n", b"\xef\xbb\xbf\n\n"]),
    )
    def check(data: bytes, syntax: Syntax, max_record: int, cell: int, cells: int, known: int, head: bytes) -> None:
        rule = Rule(syntax=syntax, origin=len(head), cell=cell, max_record=max_record)
        line, whole = 1 + head.count(b"\n"), head + data
        expected = cuts_by_definition(rule, whole, line)
        serial = scan(rule, reader(whole), rule.origin, len(whole), len(whole), line=line)
        assert list(map(tuple, serial.cuts(0, 0).tolist())) == expected
        found, place = cuts_in_chunks(rule, reader(whole), len(whole), line, cells, known)
        assert found == expected
        assert place == Place(len(whole), serial.end_line, serial.num_records)

    check()


@pytest.mark.parametrize("base", [(1 << 32) - 30, (1 << 40) + 7])
def test_positions_beyond_four_gibibytes_and_a_tebibyte_are_exact(base: int) -> None:
    data = b'1,"a\nb"\n2,c\n' * 40
    shifted = Rule(syntax=CSV, origin=base, cell=20)
    found, place = cuts_in_chunks(shifted, reader(data, base), base + len(data), 1 << 33, 3, 4)
    expected = cuts_by_definition(Rule(syntax=CSV, origin=0, cell=20), data, 1 << 33)
    assert found == [(start + base, line, index) for start, line, index in expected]
    assert place == Place(base + len(data), (1 << 33) + 120, 80)


rows = st.lists(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), max_size=8)


def opened(folder: Path, kind: str, parts: Sequence[bytes], **options: Any) -> Source:
    folder.mkdir(exist_ok=True, parents=True)
    paths = [folder / f"part-{number}.{kind}" for number in range(len(parts))]
    for path, part in zip(paths, parts, strict=True):
        path.write_bytes(part)
    named = {"label_column": "label", "text_columns": ("text",)} if kind == "jsonl" else {"header": False}
    (folder / "scratch").mkdir(exist_ok=True)
    return open_corpus(paths, CorpusOptions(**named, **options), scratch=folder / "scratch").train


def read(source: Source, units: Sequence[Unit]) -> list[Any]:
    """Return texts, labels, ordinals and bad rows of all units, one after the other."""
    parts = [read_unit(source, unit) for unit in units]
    return [
        [text for part in parts for text in part.texts],
        [label for part in parts for label in part.labels],
        [ordinal for part in parts for ordinal in part.ordinals.tolist()],
        [row for part in parts for row in part.bad_rows],
    ]


@pytest.mark.parametrize("examples", sampled([30, 300]))
def test_documents_ordinals_lines_and_bad_rows_do_not_depend_on_chunks(
    tmp_path_factory: pytest.TempPathFactory, examples: int
) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(st.lists(rows, min_size=1, max_size=3), st.sampled_from(["csv", "tsv", "jsonl"]), st.integers(1, 9))
    def check(parts: list[list[str]], kind: str, unit_bytes: int) -> None:
        first = {"csv": '1,"a ""b"""\n', "tsv": "1\ta\n", "jsonl": '{"label": 1, "text": "a"}\n'}[kind]
        contents = [(first + "\n".join(part)).encode() for part in parts]
        source = opened(tmp_path_factory.mktemp("chunks"), kind, contents, on_bad_row="skip")
        serial = plan_units(source, unit_bytes=unit_bytes, advance=lambda size: None)
        expected = read(source, plan_units(source, unit_bytes=1 << 30, advance=lambda size: None))
        for chunk_bytes in (1, 13, 40):
            reported: list[int] = []
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(cutting, "ALONE_BYTES", 0)
                patch.setattr(cutting, "CHUNK_BYTES", chunk_bytes)
                units = plan_units(source, unit_bytes=unit_bytes, advance=reported.append, executor=Shuffled())
            assert list(units) == list(serial)
            assert sum(reported) == source.num_bytes
        assert read(source, serial) == expected

    check()


@functools.cache
def multi_line(quoting: str) -> bytes:
    """Return a CSV file of texts with newlines, quotes and commas, half of it in quotes."""
    drawn = random.Random(0)
    words = [
        "the",
        "a",
        "storm,",
        '""quoted""',
        "said:",
        "x,",
        "\n",
        "\n\n",
        "ever.",
        'go ""home"",',
        ",",
        '""',
        "\r\n",
    ]
    lines = []
    for number in range(20_000):
        text = " ".join(drawn.choices(words, k=drawn.randint(5, 200)))
        label = f"{quoting}{number % 3}{quoting}"
        lines.append(f'{label},"{text}"\n' if drawn.random() < 0.9 else f"{label},plain words\n")
    return "".join(lines).encode()


@pytest.mark.parametrize("quoting", ["", '"'], ids=["bare labels", "quoted labels"])
def test_a_guess_in_the_middle_of_quotes_is_met_soon(
    tmp_path: Path, quoting: str, chunked: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where most lines begin in quotes, a chunk is scanned again at its begin at most, whatever its size."""
    data = multi_line(quoting)
    source = opened(tmp_path, "csv", [data])
    chunked(1 << 18)
    own, reads = cutting._read, []
    monkeypatch.setattr(cutting, "_read", lambda file, start, size: reads.append(size) or own(file, start, size))
    units = plan_units(source, unit_bytes=1 << 12, advance=lambda size: None, executor=Shuffled())
    assert list(units) == list(plan_units(source, unit_bytes=1 << 12, advance=lambda size: None))
    inside = sum(unit.num_documents for unit in units) / data.count(b"\n")
    assert inside < 0.1  # of lines, those where a record begins
    chunks = -(-len(data) // (1 << 18))
    assert len(reads) < chunks / 2
    assert max(reads, default=0) <= 64 << 10  # the first read was enough


def test_a_file_in_which_no_guess_is_ever_met_is_read_all_the_same(
    tmp_path: Path, chunked: Callable[[int], None]
) -> None:
    r"""Read from within quotes, `"\n"","\n` is a record: the two scans never meet."""
    source = opened(tmp_path, "csv", [b'"0","a"\n' + b'"","\nfoo\n"\n' * 3_000], on_bad_row="skip")
    chunked(1 << 12)
    units = plan_units(source, unit_bytes=1 << 10, advance=lambda size: None, executor=Shuffled())
    assert list(units) == list(plan_units(source, unit_bytes=1 << 10, advance=lambda size: None))
    assert sum(unit.num_documents for unit in units) == 3_001


def test_threads_scan_as_one_process_does(tmp_path: Path, chunked: Callable[[int], None]) -> None:
    source = opened(tmp_path, "csv", [multi_line(""), b"1,a\n", multi_line('"')])
    serial = list(plan_units(source, unit_bytes=1 << 12, advance=lambda size: None, executor=Serial()))
    chunked(1 << 15)
    with threads(3) as pool:
        assert list(plan_units(source, unit_bytes=1 << 12, advance=lambda size: None, executor=pool)) == serial


def test_a_line_that_is_too_long_is_a_unit_of_its_own_across_chunks(
    tmp_path: Path, chunked: Callable[[int], None]
) -> None:
    source = opened(tmp_path, "csv", [b"1,a\n" * 20_000], on_bad_row="skip")
    with open(source.files[0].path, "r+b") as file:
        file.seek(0, os.SEEK_END)
        file.write(b"2,")
        file.seek(MAX_RECORD + (9 << 20), os.SEEK_CUR)  # a hole: NUL bytes that take no room
        file.write(b"\n3,c\n4,d\n")
    chunked(1 << 20)
    for executor in (Serial(), Shuffled()):
        units = plan_units(source, unit_bytes=1 << 20, advance=lambda size: None, executor=executor)
        assert units.num_documents.tolist() == [20_000, 1, 2]
        assert units.num_text_bytes.tolist() == [80_000, 0, 8]
        assert [unit.first_line for unit in units] == [1, 20_001, 20_002]


def test_a_file_that_is_truncated_while_chunks_are_scanned_is_an_error(
    tmp_path: Path, chunked: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(tmp_path, "csv", [b"1,some text\n" * 1_000])
    chunked(1 << 10)
    size = os.path.getsize(source.files[0].path)
    monkeypatch.setattr(cutting.os.path, "getsize", lambda path: size + 5)
    with pytest.raises(CorpusFormatError, match=r"part-0.csv' ends at byte 12,000: it was truncated while being read"):
        plan_units(source, unit_bytes=1 << 8, advance=lambda size: None, executor=Shuffled())


@pytest.mark.parametrize("executor", [Serial(), Shuffled()], ids=["one process", "chunks"])
def test_a_quarter_of_a_million_units_take_64_bytes_each(
    tmp_path: Path, chunked: Callable[[int], None], executor: Any
) -> None:
    line = b"1,a text\n"
    source = opened(tmp_path, "csv", [line * 2_500_000])
    chunked(4 << 20)
    descriptors = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None
    tracemalloc.start()
    units = plan_units(source, unit_bytes=10 * len(line), advance=lambda size: None, executor=executor)
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(units) == 250_000
    assert units.values.nbytes == 64 * len(units)
    assert kept < units.values.nbytes + (1 << 20)
    assert peak < 3 * units.values.nbytes + (16 << 20)  # what is read at a time
    assert descriptors is None or len(os.listdir("/proc/self/fd")) == descriptors
    assert (units.num_documents == 10).all()
    assert np.array_equal(units.first_document, 10 * np.arange(len(units)))
