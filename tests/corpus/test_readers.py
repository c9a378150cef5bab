"""Units and documents: nothing depends on where units are cut, and published datasets are read completely."""

from __future__ import annotations

import csv
import gzip
import json
import pickle
import tracemalloc
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sampled import sampled

from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.records import MAX_RECORD
from shardtrain.corpus.source import Corpus, Documents, Source
from shardtrain.corpus.unit_table import UnitTable
from shardtrain.errors import CorpusFormatError

HUGE = 1 << 40


def opened(path: Path, validation: Path | None = None, **options: object) -> Corpus:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return open_corpus(path, CorpusOptions(**options), validation=validation, scratch=scratch)  # type: ignore[arg-type]


def planned(source: Source, unit_bytes: int = HUGE) -> UnitTable:
    reported: list[int] = []
    units = plan_units(source, unit_bytes=unit_bytes, advance=reported.append)
    assert sum(reported) == source.num_bytes
    started = sum(file.data_start for file in source.files)
    assert sum(unit.num_bytes for unit in units) == source.num_bytes - started
    return units


def documents(source: Source, unit_bytes: int = HUGE) -> Documents:
    """Read all units of a source as if they were one."""
    parts = [read_unit(source, unit) for unit in planned(source, unit_bytes)]
    return Documents(
        texts=[text for part in parts for text in part.texts],
        labels=[label for part in parts for label in part.labels],
        ordinals=[int(ordinal) for part in parts for ordinal in part.ordinals],  # type: ignore[arg-type]
        bad_rows=tuple(row for part in parts for row in part.bad_rows),
        num_replaced=sum(part.num_replaced for part in parts),
    )


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("folder", "num_train", "num_test"),
    [("ag_news", 24_210, 7_600), ("dbpedia", 12_040, 1_960), ("mr", 10_662, 0), ("sms_spam", 5_574, 0)],
)
def test_a_published_dataset_is_read_completely(
    data: Path, tmp_path: Path, folder: str, num_train: int, num_test: int
) -> None:
    corpus = open_corpus(data / folder, CorpusOptions(), scratch=tmp_path)
    for source, number in ((corpus.train, num_train), (corpus.test, num_test)):
        if source is None:
            assert number == 0
            continue
        units = planned(source, 200_000)
        assert len(units) == pytest.approx(source.num_bytes / 200_000, abs=1)
        assert [unit.index for unit in units] == list(range(len(units)))
        read = documents(source, 200_000)
        assert list(read.ordinals) == list(range(number))
        assert len(read.texts) == len(read.labels) == number
        assert not read.bad_rows


@pytest.mark.parametrize("name", ["ag_news", "dbpedia"])
def test_a_published_dataset_is_read_as_the_guide_reads_it(data: Path, tmp_path: Path, name: str) -> None:
    corpus = open_corpus(data / name, CorpusOptions(), scratch=tmp_path)
    with open(data / name / "train.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file, strict=True))
    texts = [f"{title}, {body}" for _, title, body in rows]
    if name == "ag_news":
        texts = [text.replace("\\n", "\n").replace('\\"', '"') for text in texts]
    read = documents(corpus.train)
    assert read.labels == [row[0] for row in rows]
    assert read.texts == texts


def test_the_first_message_of_the_sms_collection_is_not_a_header(data: Path, tmp_path: Path) -> None:
    corpus = open_corpus(data / "sms_spam", CorpusOptions(), scratch=tmp_path)
    read = documents(corpus.train)
    assert corpus.train.format == "tsv"
    assert Counter(read.labels) == {"ham": 4_827, "spam": 747}
    assert read.texts[0].startswith("Go until jurong point")


nasty_rows = st.lists(
    st.lists(
        st.sampled_from(["", "a", '"', '""', "\n", "\r\n", "\r", ",", "\t", " ", "\x00", "é", "\udc80", "\\n", "{}"]),
        max_size=9,
    ).map("".join),
    max_size=8,
)


@pytest.mark.parametrize("examples", sampled([50, 500]))
def test_nothing_read_depends_on_where_units_are_cut(tmp_path_factory: pytest.TempPathFactory, examples: int) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(nasty_rows, st.sampled_from(["csv", "tsv", "jsonl"]), st.booleans())
    def check(rows: list[str], kind: str, marked: bool) -> None:
        first = {"csv": '1,"a ""b"""\n', "tsv": "1\ta\n", "jsonl": '{"label": 1, "text": "a"}\n'}[kind]
        content = (first + "\n".join(rows)).encode(errors="surrogateescape")
        path = tmp_path_factory.mktemp("nasty") / f"some.{kind}"
        path.write_bytes((b"\xef\xbb\xbf" if marked else b"") + content)
        options = {"label_column": "label", "text_columns": ("text",)} if kind == "jsonl" else {"header": False}
        source = opened(path, on_bad_row="skip", **options).train
        whole = documents(source)
        assert whole.texts[0] == ('a "b"' if kind == "csv" else "a")
        for unit_bytes in (1, 7):
            units = planned(source, unit_bytes)
            assert [unit.first_document for unit in units] == [
                sum(unit.num_documents for unit in units[:index]) for index in range(len(units))
            ]
            cells = [(unit.start - source.files[0].data_start) // unit_bytes for unit in units]
            assert cells == sorted(set(cells))  # one unit begins in a cell of the grid
            assert documents(source, unit_bytes) == whole
        num_records = sum(unit.num_documents for unit in planned(source))
        assert len(whole.ordinals) + len(whole.bad_rows) == num_records
        assert list(whole.ordinals) == sorted(set(whole.ordinals))

    check()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=8), st.text(max_size=8)), min_size=1, max_size=9), st.integers(1, 60))
def test_what_the_csv_module_writes_comes_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], unit_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("round") / "some.csv"
    with open(path, "w", newline="", encoding="utf-8", errors="surrogatepass") as file:
        csv.writer(file).writerows([("1", title, body) for title, body in rows])
    assert documents(opened(path, header=False).train, unit_bytes).texts == [", ".join(row) for row in rows]


def test_a_source_and_its_units_survive_pickling(tmp_path: Path) -> None:
    source = opened(written(tmp_path / "some.csv", "1,a\n2,b\n")).train
    unit = planned(source)[0]
    assert pickle.loads(pickle.dumps((source, unit))) == (source, unit)


@pytest.mark.parametrize("name", ["train.csv", "train.tsv", "train.jsonl", "train.ndjson"])
def test_a_packed_corpus_equals_the_plain_one(tmp_path: Path, name: str) -> None:
    lines = {"csv": '{},"te""xt {}"\n', "tsv": "{}\ttext {}\n"}.get(name.split(".")[1], '{{"label":{},"text":"t{}"}}\n')
    content = "".join(lines.format(number % 3, number) for number in range(500)).encode()
    plain = opened(written(tmp_path / "plain" / name, content).parent)
    written(tmp_path / "packed" / f"test.{name.split('.')[1]}.gz", gzip.compress(content[: len(content) // 2]))
    packed = opened(written(tmp_path / "packed" / f"{name}.gz", gzip.compress(content)).parent, on_bad_row="skip")
    assert documents(packed.train) == documents(plain.train)
    assert packed.train.num_bytes == plain.train.num_bytes
    assert packed.train.describe()["name"] == f"{name}.gz"
    assert packed.train.describe()["bytes"] == (tmp_path / "packed" / f"{name}.gz").stat().st_size
    assert packed.test is not None
    assert documents(packed.test).texts == documents(plain.train).texts[: len(documents(packed.test).texts)]


@pytest.fixture
def reviews(tmp_path: Path) -> Path:
    """A folder laid out as aclImdb is."""
    root = tmp_path / "aclImdb"
    for split, number in (("train", 7), ("test", 3)):
        for name in ("pos", "neg"):
            for place in range(number):
                written(root / split / name / f"{place}_9.txt", f"{split} {name} {place}")
        written(root / split / "labeledBow.feat", "1 0:9")
    written(root / "train" / "unsup" / "0_0.txt", "nobody knows")
    written(root / "imdb.vocab", "the")
    written(root / "README", "about")
    return root


def test_a_folder_per_class_is_read_in_the_order_of_names(reviews: Path) -> None:
    corpus = opened(reviews)
    read = documents(corpus.train)
    assert read.labels == ["neg"] * 7 + ["pos"] * 7
    assert read.texts == [f"train {name} {place}" for name in ("neg", "pos") for place in range(7)]
    assert list(read.ordinals) == list(range(14))
    assert corpus.test is not None
    assert documents(corpus.test).texts[-1] == "test pos 2"
    assert "not used in train: labeledBow.feat, unsup" in corpus.notes
    assert corpus.train.describe()["files"] == {"neg": 7, "pos": 7}


def test_what_is_left_out_of_a_class_is_said(reviews: Path) -> None:
    written(reviews / "train" / "neg" / "a.TXT", "in capitals")
    written(reviews / "train" / "neg" / ".hidden", "hidden")
    written(reviews / "train" / "pos" / "b.md", "another kind")
    written(reviews / "train" / "pos" / "more" / "c.txt", "below")
    corpus = opened(reviews)
    assert "left out, as no .txt files of a class's folder: pos/b.md, pos/more" in corpus.notes
    assert corpus.train.describe()["files"] == {"neg": 8, "pos": 7}


@pytest.mark.parametrize("unit_bytes", [1, 20, 40])
def test_a_folder_per_class_does_not_depend_on_where_units_are_cut(reviews: Path, unit_bytes: int) -> None:
    source = opened(reviews).train
    assert len(planned(source, unit_bytes)) > 1
    assert documents(source, unit_bytes) == documents(source)


def test_a_folder_that_changes_between_planning_and_reading_is_noticed(reviews: Path) -> None:
    source = opened(reviews).train
    unit = planned(source)[0]
    written(reviews / "train" / "neg" / "00_1.txt", "new")
    with pytest.raises(CorpusFormatError, match="has changed: 8 text files, expected 7 as counted"):
        read_unit(source, unit)


def test_a_file_that_changes_between_planning_and_reading_is_noticed(tmp_path: Path) -> None:
    path = written(tmp_path / "some.csv", "1,a\n2,b\n3,c\n")
    source = opened(path).train
    unit = planned(source)[0]
    path.write_bytes(b"1,a\n2,bbbbb\n")
    with pytest.raises(CorpusFormatError, match="has changed: 2 records in bytes 0 to 12, expected 3 as counted"):
        read_unit(source, unit)
    path.write_bytes(b"1,a\n")
    with pytest.raises(CorpusFormatError, match="ends at byte 4: it was truncated"):
        read_unit(source, unit)


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        ('1,a\n2,b\n3,"c\n4,d\n', 3, "unclosed quote: the record that opens a quote on line 3 never ends"),
        ('"1","a"\n"2","b"\n"3","c\n"4","d"\n', 3, "unclosed quote"),
        ('"1","a\nb"\n"2","c"d\n', 3, "text after a closing quote"),
        ("1,a\n2,b\rc\n", 2, "a carriage return in the middle of the line"),
        ("1,a\n2\n", 2, "1 column where the first record has 2"),
        ("1,a\n2,b,c,d\n", 2, "4 columns where the first record has 2"),
        ("1,a\n ,b\n", 2, r"the label \(column 0\) is empty"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_with_file_line_and_reason(
    tmp_path: Path, content: str, line: int, reason: str
) -> None:
    path = written(tmp_path / "rows.csv", content)
    source = opened(path).train
    with pytest.raises(CorpusFormatError, match=f"rows.csv, line {line}: {reason}") as caught:
        documents(source)
    assert "on_bad_row skip" in str(caught.value)
    skipped = documents(replace(source, on_bad_row="skip"))
    assert [(row.path, row.line) for row in skipped.bad_rows] == [(str(path), line)]
    assert len(skipped.texts) == sum(unit.num_documents for unit in planned(source)) - 1


@pytest.mark.parametrize("bad", ['1,"unclosed', '1,"a"b', "1,a,b,c"])
def test_a_bad_row_right_after_the_header_is_a_row_like_any_other(tmp_path: Path, bad: str) -> None:
    path = written(tmp_path / "rows.csv", f"label,text\n{bad}\n3,good\n4,fine\n")
    source = opened(path).train
    with pytest.raises(CorpusFormatError, match=r"rows.csv, line 2: "):
        documents(source)
    skipped = documents(replace(source, on_bad_row="skip"))
    assert [row.line for row in skipped.bad_rows] == [2]
    assert list(skipped.ordinals) == [1, 2]
    assert list(skipped.labels) == ["3", "4"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("nonsense", "not JSON: Expecting value at character 1"),
        ("[1]", "an array where an object is expected"),
        ('{"text": "b"}', "the key 'label' is missing"),
        ('{"label": 1}', "the key 'text' is missing"),
        ('{"label": 1, "text": 7}', "the text 'text' is a number, not a string"),
        ('{"label": {}, "text": "b"}', "the label 'label' is an object, not a string or a number"),
        ('{"label": null, "text": "b"}', "the label 'label' is missing: null"),
        ('{"label": " ", "text": "b"}', "the label 'label' is empty"),
        ('{"label": NaN, "text": "b"}', "NaN is not a JSON number"),
        ("[" * 100_000, "nested too deeply|not JSON"),
        ('{"label": ' + "9" * 5000 + ', "text": "b"}', "a number of 5,000 digits"),
    ],
)
def test_a_line_of_json_that_cannot_be_used_is_named_with_file_line_and_reason(
    tmp_path: Path, line: str, reason: str
) -> None:
    path = written(tmp_path / "rows.jsonl", f'{{"label": 0, "text": "a"}}\n\n{line}\n')
    with pytest.raises(CorpusFormatError, match=f"rows.jsonl, line 3: .*({reason})"):
        documents(opened(path, label_column="label", text_columns=("text",)).train)


def test_labels_of_json_lines_become_text_as_json_writes_them(tmp_path: Path) -> None:
    values = [1, 2.5, True, "x ", "5"]
    lines = [json.dumps({"stars": value, "title": None, "text": f"t{value}"}) for value in values]
    read = documents(opened(written(tmp_path / "some.jsonl", "\n".join(lines))).train)
    assert read.labels == ["1", "2.5", "true", "x", "5"]
    assert read.texts == [f", t{value}" for value in values]


def test_half_a_surrogate_pair_in_json_becomes_a_replacement_mark(tmp_path: Path) -> None:
    path = written(tmp_path / "some.jsonl", '{"label": 1, "text": "a\\ud83d"}\n{"label": 1, "text": "\\ud83d\\ude00"}')
    assert documents(opened(path).train).texts == ["a\ufffd", "\U0001f600"]


def test_undecodable_bytes_are_replaced_and_only_they_are_counted(tmp_path: Path) -> None:
    rows = [b"1,caf\xe9 \xff\xfe,x", b"2,\xef\xbf\xbd was there,y", b"3,\xe2\x82,\xc3\xa9"]
    read = documents(opened(written(tmp_path / "some.csv", b"\n".join(rows))).train, unit_bytes=1)
    assert read.texts == ["caf\ufffd \ufffd\ufffd, x", "\ufffd was there, y", "\ufffd, é"]
    assert read.num_replaced == 5  # e9, ff, fe, and both bytes of the cut e2 82


def test_undecodable_bytes_in_text_files_are_counted(tmp_path: Path) -> None:
    written(tmp_path / "corpus" / "a" / "1.txt", b"\xef\xbb\xbfcaf\xe9")
    written(tmp_path / "corpus" / "b" / "1.txt", b"")
    read = documents(opened(tmp_path / "corpus").train)
    assert (read.texts, read.num_replaced) == (["caf\ufffd", ""], 1)


def test_nul_bytes_are_text(tmp_path: Path) -> None:
    path = written(tmp_path / "some.csv", b'1,"a\x00b"\n2,c\x00\n' + b"1,some more text\n" * 20)
    assert documents(opened(path).train).texts[:2] == ["a\x00b", "c\x00"]


def test_a_byte_order_mark_is_not_text(tmp_path: Path) -> None:
    read = documents(opened(written(tmp_path / "some.csv", b'\xef\xbb\xbf"1","a"\n2,b\n')).train)
    assert (read.labels, read.texts) == (["1", "2"], ["a", "b"])


def test_a_field_longer_than_the_csv_modules_limit_is_read(tmp_path: Path) -> None:
    long = 'x "y", ' * 131_072  # the limit of a new process
    path = written(tmp_path / "some.csv", '1,"{}"\n2,b\n'.format(long.replace('"', '""')))
    assert documents(opened(path).train).texts == [long, "b"]


def test_a_line_too_long_to_be_a_record_is_bad_and_never_read_completely(tmp_path: Path) -> None:
    path, size = tmp_path / "some.csv", 3 * MAX_RECORD
    with open(path, "wb") as file:
        file.write(b"1,a\n" * 20_000 + b"2,")
        file.seek(size, 1)  # a hole: NUL bytes that take no room
        file.write(b"\n3,c\n")
    source = opened(path, on_bad_row="skip").train
    units = planned(source)
    assert [unit.num_documents for unit in units] == [20_000, 1, 1]
    tracemalloc.start()
    read = documents(source)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert read.texts == ["a"] * 20_000 + ["c"]
    assert [(row.line, row.reason) for row in read.bad_rows] == [(20_001, "the line is longer than 64 MiB")]
    assert peak < size / 2


def test_unescaping_turns_backslashes_into_what_they_stand_for(tmp_path: Path) -> None:
    path = written(tmp_path / "some.csv", '1,"a\\nb \\""c\\"" d\\e"\n2,x\n')
    assert documents(opened(path, unescape=True).train).texts[0] == 'a\nb "c" d\\e'
    assert documents(opened(path).train).texts[0] == 'a\\nb \\"c\\" d\\e'


@pytest.mark.parametrize("kind", ["csv", "jsonl", "fasttext", "parquet", "folder"])
@pytest.mark.parametrize("unit_bytes", [1, 100, HUGE])
def test_documents_that_are_wanted_are_those_of_the_whole_unit(kind: str, unit_bytes: int, tmp_path: Path) -> None:
    named = {"csv": {"label_column": "label"}, "fasttext": {"format": "fasttext"}}.get(kind, {})
    source = opened(rows_written(kind, tmp_path), on_bad_row="skip", **named).train
    for unit in plan_units(source, unit_bytes=unit_bytes, advance=lambda size: None):
        whole = read_unit(source, unit)
        for wanted in ([], [3], [0, 2, 4, 5, 9], range(12)):
            part = read_unit(source, unit, lambda ordinals, wanted=wanted: np.isin(ordinals, list(wanted)))
            chosen = np.flatnonzero(np.isin(whole.ordinals, list(wanted)))
            assert part.ordinals.tolist() == whole.ordinals[chosen].tolist()
            assert list(part.texts) == [whole.texts[i] for i in chosen]
            assert part.labels == [whole.labels[i] for i in chosen]
            assert set(part.bad_rows) <= set(whole.bad_rows)
            assert len(wanted) < 12 or part.bad_rows == whole.bad_rows


def rows_written(kind: str, folder: Path) -> Path:
    """Write twelve documents; of the third and the eighth, the label is missing where a format can say so."""
    rows = [("" if i in (2, 7) else "ab"[i % 2], f"text {i} h\u00e9 " * (1 + i % 3)) for i in range(12)]
    if kind == "folder":
        for i, (label, text) in enumerate(rows):
            written(folder / "corpus" / (label or "a") / f"{i}.txt", text)
        return folder / "corpus"
    path = folder / f"corpus.{'txt' if kind == 'fasttext' else kind}"
    if kind == "parquet":
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        columns = {"label": [label or None for label, _ in rows], "text": [text for _, text in rows]}
        parquet.write_table(pyarrow.table(columns), path)
        return path
    if kind == "csv":
        return written(path, "label,text\n" + "".join(f"{label},{text}\n" for label, text in rows))
    if kind == "jsonl":
        return written(path, "".join(json.dumps({"label": label, "text": text}) + "\n" for label, text in rows))
    return written(path, "".join(f"__label__{label} {text}\n" if label else f"{text}\n" for label, text in rows))
