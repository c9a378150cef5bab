"""Documents do not depend on how they are written: format, dialect, compression, encoding, header, parts."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sampled import sampled
from support.written import COMPRESSIONS, ENCODINGS, ROWS, WRITERS, Rows, as_json_array, as_json_lines, as_separated

from shardtrain.corpus.opening import open_corpus, open_texts
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.reading import Reading
from shardtrain.corpus.source import Corpus, Source
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, UsageError


def opened(corpus: Path | Sequence[Path], scratch: Path, **options: object) -> Corpus:
    scratch.mkdir(parents=True, exist_ok=True)
    return open_corpus(corpus, CorpusOptions(**options), scratch=scratch)  # type: ignore[arg-type]


def rows_of(source: Source, unit_bytes: int = 1 << 30) -> Rows:
    parts = [read_unit(source, unit) for unit in plan_units(source, unit_bytes=unit_bytes, advance=lambda size: None)]
    assert [int(i) for part in parts for i in part.ordinals] == list(range(sum(len(part.labels) for part in parts)))
    return [(label, text) for part in parts for label, text in zip(part.labels, part.texts, strict=True)]


@pytest.mark.parametrize("examples", sampled([40, 400]))
def test_documents_do_not_depend_on_how_they_are_written(
    tmp_path_factory: pytest.TempPathFactory, examples: int
) -> None:
    @settings(max_examples=examples, deadline=None)
    @given(
        st.sampled_from(sorted(WRITERS)),
        st.sampled_from(sorted(COMPRESSIONS)),
        st.sampled_from(ENCODINGS),
        st.booleans(),
        st.integers(1, 3),
        st.sampled_from([1, 200, 1 << 30]),
    )
    def check(written: str, compression: str, encoding: str, header: bool, num_parts: int, unit_bytes: int) -> None:
        folder = tmp_path_factory.mktemp("matrix")
        extension, write = WRITERS[written]
        paths = []
        for part in range(num_parts):
            rows = ROWS[part * len(ROWS) // num_parts : (part + 1) * len(ROWS) // num_parts]
            content = write(rows, header).encode(encoding)
            paths.append(folder / f"part-{part}{extension}{compression}")
            paths[-1].write_bytes(COMPRESSIONS[compression](content))
        chosen = {"encoding": encoding} if encoding == "cp1252" else {}
        corpus = opened(paths, folder / "scratch", **chosen)
        assert rows_of(corpus.train, unit_bytes) == ROWS
        assert rows_of(opened(folder, folder / "scratch", **chosen).train, unit_bytes) == ROWS

    check()


@pytest.mark.parametrize("written", sorted(WRITERS))
def test_lines_that_end_with_a_carriage_return_alone_are_lines(tmp_path: Path, written: str) -> None:
    extension, write = WRITERS[written]
    rows = [(label, text.replace("\n", " ")) for label, text in ROWS]
    path = tmp_path / f"some{extension}"
    path.write_bytes(write(rows, True).replace("\n", "\r").encode())
    assert rows_of(opened(path, tmp_path / "scratch").train) == rows


@pytest.mark.parametrize("written", ["semicolons", "tabs", "backslashes", "bars"])
def test_pandas_reads_the_same(tmp_path: Path, written: str) -> None:
    pandas = pytest.importorskip("pandas")
    extension, write = WRITERS[written]
    path = tmp_path / f"some{extension}"
    path.write_text(write(ROWS, True), newline="")
    how = {"backslashes": {"escapechar": "\\"}, "semicolons": {"sep": ";"}, "bars": {"sep": "|"}}
    frame = pandas.read_csv(path, **how.get(written, {"sep": "\t"}))
    assert rows_of(opened(path, tmp_path / "scratch").train) == list(zip(frame.label, frame.text, strict=True))


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz", ".zst"])
@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_stream_is_refused_and_named(tmp_path: Path, compression: str, damage: str) -> None:
    content = bytearray(COMPRESSIONS[compression](as_separated(ROWS * 50, header=True).encode()))
    if damage == "cut":
        del content[-len(content) // 3 :]
    else:
        content[len(content) // 2] ^= 0x55
    path = tmp_path / f"some.csv{compression}"
    path.write_bytes(bytes(content))
    with pytest.raises(CorpusFormatError, match=f"some.csv{compression}' is (cut|damaged)"):
        opened(path, tmp_path / "scratch")
    assert list((tmp_path / "scratch").iterdir()) == []


def test_fasttext_files_are_read_by_their_labels(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("".join(f"__label__{label} {text.split(',')[0]}\n" for label, text in ROWS if "\n" not in text))
    expected = [(label, text.split(",")[0]) for label, text in ROWS if "\n" not in text]
    assert rows_of(opened(path, tmp_path / "scratch").train) == expected
    path.write_text("__label__a __label__b both\n__label__a one\n__label__b two\n")
    with pytest.raises(CorpusFormatError, match=r"line 1: 2 labels; several labels per document are not supported yet"):
        rows_of(opened(path, tmp_path / "scratch").train)
    path.write_text("first __label__a\n__label__b two\nno label\n")
    skipped = opened(path, tmp_path / "scratch", format="fasttext", on_bad_row="skip").train
    units = plan_units(skipped, unit_bytes=1, advance=lambda size: None)
    reasons = [row.reason for unit in units for row in read_unit(skipped, unit).bad_rows]
    assert reasons == ["the label (__label__NAME) is not the first word", "there is no label (__label__NAME)"]


@pytest.mark.parametrize("format", ["parquet", "arrow file", "arrow stream"])
@pytest.mark.parametrize("num_parts", [1, 2])
def test_columnar_files_are_read_by_their_columns(tmp_path: Path, format: str, num_parts: int) -> None:  # noqa: A002
    pa = pytest.importorskip("pyarrow")
    import pyarrow.feather as feather
    import pyarrow.parquet as pq

    for part in range(num_parts):
        rows = ROWS[part::num_parts]
        columns = {
            "id": list(range(len(rows))),
            "text": [text for _, text in rows],
            "label": [label for label, _ in rows],
        }
        table = pa.table(columns)
        if format == "parquet":
            pq.write_table(table, tmp_path / f"train-{part}.parquet", row_group_size=7)
        elif format == "arrow file":
            feather.write_feather(table, tmp_path / f"train-{part}.feather", chunksize=7)
        else:
            with (
                pa.OSFile(str(tmp_path / f"train-{part}.arrow"), "wb") as file,
                pa.ipc.new_stream(file, table.schema) as out,
            ):
                out.write_table(table, max_chunksize=7)
    expected = [row for part in range(num_parts) for row in ROWS[part::num_parts]]
    source = opened(tmp_path, tmp_path / "scratch").train
    for unit_bytes in (1, 1 << 30):
        assert rows_of(source, unit_bytes) == expected
    assert source.describe()["label_column"] == "label"


def test_missing_values_of_columnar_files_are_empty_texts_and_bad_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "some.parquet"
    pq.write_table(pa.table({"label": ["a", None, "b", "a"], "text": ["x", "y", None, "z"]}), path)
    source = opened(path, tmp_path / "scratch", on_bad_row="skip").train
    assert "reading some.parquet: 4 rows in " in capsys.readouterr().err
    (unit,) = plan_units(source, unit_bytes=1, advance=lambda size: None)
    found = read_unit(source, unit)
    assert list(zip(found.labels, found.texts, strict=True)) == [("a", "x"), ("b", ""), ("a", "z")]
    assert found.ordinals.tolist() == [0, 2, 3]
    assert [row.place for row in found.bad_rows] == [f"{path}, row 2"]


def test_class_names_that_datasets_stores_are_used(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    features = {"info": {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "text": {}}}}
    schema = pa.schema([("text", pa.string()), ("label", pa.int64())], {"huggingface": json.dumps(features)})
    table = pa.table({"text": ["a", "b"], "label": [0, 1]}, schema=schema)
    (tmp_path / "data").mkdir()
    pq.write_table(table, tmp_path / "data" / "train-00000-of-00001.parquet")
    pq.write_table(table, tmp_path / "data" / "test-00000-of-00001.parquet")
    corpus = opened(tmp_path, tmp_path / "scratch")
    assert corpus.class_names == ("neg", "pos")
    assert corpus.test is not None
    assert rows_of(corpus.test) == [("0", "a"), ("1", "b")]


def test_parts_are_sorted_by_their_numbers_and_need_the_same_columns(tmp_path: Path) -> None:
    for number in (10, 9, 1):
        (tmp_path / f"part-{number}.csv").write_text(f"label,text\nx,{number}\ny,{number}\n")
    expected = [(label, str(number)) for number in (1, 9, 10) for label in "xy"]
    assert rows_of(opened(tmp_path, tmp_path / "scratch").train) == expected
    some = opened(Path(f"{tmp_path}/part-*.csv"), tmp_path / "scratch")
    assert rows_of(some.train) == expected
    assert "part-1.csv and 2 more files are read one after the other" in some.notes
    (tmp_path / "part-11.csv").write_text("label,title\nx,11\ny,11\n")
    with pytest.raises(
        CorpusFormatError, match=r"part-11.csv' and '.*part-1.csv' are not parts of one corpus: the header"
    ):
        opened(tmp_path, tmp_path / "scratch")
    with pytest.raises(CorpusNotFoundError, match=r"no file matches '.*none-\*.csv'"):
        opened(tmp_path / "none-*.csv", tmp_path / "scratch")


@pytest.mark.parametrize(
    ("content", "label", "texts"),
    [
        ("label,text,\nbad,a b,\ngood,c d,\nbad,e f,\n", "label", ["text"]),
        ("text,label,text\na b,bad,n\nc d,good,n\ne f,bad,n\n", "label", [0, 2]),
        ("verdict,utterance\nbad,it is so\ngood,it is not\nbad,it may be\ngood,or not so\n", "verdict", ["utterance"]),
        ("label,text,,\nbad,a b\ngood,c d\nbad,e f\n", "label", ["text"]),
    ],
    ids=["cleared columns", "a name twice", "unknown names", "cleared columns in the header alone"],
)
def test_a_header_is_never_a_document(tmp_path: Path, content: str, label: str, texts: list[str | int]) -> None:
    path = tmp_path / "some.csv"
    path.write_text(content)
    source = opened(path, tmp_path / "scratch").train
    described = source.describe()
    assert (described["header"], described["label_column"], described["text_columns"]) == (True, label, texts)
    assert {label for label, _ in rows_of(source)} == {"bad", "good"}


def test_a_later_file_is_read_as_the_training_corpus_was(tmp_path: Path) -> None:
    train = tmp_path / "train.csv"
    train.write_bytes("label;title;body\nbad;x;schön\ngood;y;z\n".encode("cp1252"))
    source = opened(train, tmp_path / "scratch", encoding="cp1252", text_columns=("body",)).train
    remembered = Reading.of_record(json.loads(json.dumps(source.describe())))
    later = tmp_path / "later.csv"
    later.write_bytes("title;label;body\nx;bad;größer\ny;good;z\n".encode("cp1252"))
    corpus = open_corpus(later, CorpusOptions(), scratch=tmp_path / "scratch", remembered=remembered)
    assert rows_of(corpus.train) == [("bad", "größer"), ("good", "z")]
    texts, notes = open_texts(
        later,
        CorpusOptions(),
        labels=("bad", "good"),
        class_names=(),
        scratch=tmp_path / "scratch",
        remembered=remembered,
    )
    assert [text for _, text in rows_of(texts)] == ["größer", "z"]
    assert any("CP1252, as the training corpus was" in note for note in notes)
    other = tmp_path / "other.csv"
    other.write_text("stars;review\nbad;größer\ngood;z\n")
    corpus = open_corpus(other, CorpusOptions(), scratch=tmp_path / "scratch", remembered=remembered)
    assert rows_of(corpus.train) == [("bad", "größer"), ("good", "z")]
    assert any("does not have the columns of the training corpus (text 'body')" in note for note in corpus.notes)
    assert any("other.csv is UTF-8, the training corpus was CP1252" in note for note in corpus.notes)


@pytest.mark.parametrize("later", ["NOTE,DESK,REMARK", "note,desk,Remark", "Note , Desk,re_mark"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_a_later_file_whose_names_differ_in_case_only_is_read_as_the_training_corpus_was(
    kind: str, later: str, tmp_path: Path
) -> None:
    train, other = tmp_path / "train.csv", tmp_path / f"other.{kind}"
    train.write_text("desk,note,remark\n" + "World,one two,three four\nSports,five six,seven\n" * 5)
    source = opened(train, tmp_path / "scratch", label_column="desk", text_columns=("remark",)).train
    remembered = Reading.of_record(source.describe())
    rows = [("one two", "World", "three four"), ("five six", "Sports", "seven")]
    names = later.split(",")
    lines = [json.dumps(dict(zip(names, row, strict=True))) for row in rows] if kind == "jsonl" else map(",".join, rows)
    other.write_text("\n".join([later, *lines][kind == "jsonl" :]) + "\n")
    how: dict[str, Any] = {"scratch": tmp_path / "scratch", "remembered": remembered}
    corpus = open_corpus(other, CorpusOptions(), **how)
    assert rows_of(corpus.train) == [("World", "three four"), ("Sports", "seven")]
    texts, notes = open_texts(other, CorpusOptions(), labels=("World", "Sports"), class_names=(), **how)
    assert [text for _, text in rows_of(texts)] == ["three four", "seven"]
    assert not any("does not have the columns" in note for note in [*corpus.notes, *notes])


def test_names_that_differ_in_case_only_are_told_apart_by_their_case(tmp_path: Path) -> None:
    train, later, unclear = tmp_path / "train.csv", tmp_path / "later.csv", tmp_path / "unclear.csv"
    train.write_text("label,text\nbad,x one\ngood,y two\n")
    later.write_text("label,Text,text\nbad,p,x one\ngood,q,y two\n")
    unclear.write_text("label,Text,TEXT\nbad,p,x one\ngood,q,y two\n")
    remembered = Reading.of_record(opened(train, tmp_path / "scratch").train.describe())
    how: dict[str, Any] = {"scratch": tmp_path / "scratch", "remembered": remembered}
    assert rows_of(open_corpus(later, CorpusOptions(), **how).train) == [("bad", "x one"), ("good", "y two")]
    notes = open_corpus(unclear, CorpusOptions(), **how).notes
    assert any("does not have the columns of the training corpus (text 'text')" in note for note in notes)


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_columns_that_are_neither_label_nor_text_are_named(kind: str, tmp_path: Path) -> None:
    names = ["id", "label", "heading", "body", *(f"more {i}" for i in range(6))]
    rows = [dict.fromkeys(names, "some words") | {"id": str(i), "label": "ab"[i % 2]} for i in range(8)]
    path = tmp_path / f"corpus.{kind}"
    if kind == "csv":
        path.write_text("\n".join(",".join(each) for each in (names, *(row.values() for row in rows))))
    elif kind == "jsonl":
        path.write_text("\n".join(map(json.dumps, rows)))
    else:
        pq = pytest.importorskip("pyarrow.parquet")
        pa = pytest.importorskip("pyarrow")
        pq.write_table(pa.Table.from_pylist(rows), path)

    def said(**how: Any) -> str:
        (line,) = (note for note in opened(path, tmp_path / "scratch", **how).notes if "text 'body'" in note)
        return line

    assert said().endswith("text 'body'; not used: 'id', 'heading', 'more 0', 'more 1', 'more 2', 'more 3' and 2 more")
    assert said(text_columns=("body", *names[4:])).endswith("; not used: 'id', 'heading'")
    assert "not used" not in said(text_columns=("body", *(name for name in names if name not in ("label", "body"))))


def test_a_remembered_encoding_does_not_make_other_text_of_utf_8(tmp_path: Path) -> None:
    train, later = tmp_path / "train.csv", tmp_path / "later.csv"
    train.write_bytes("label,text\nbad,schön\ngood,z\n".encode("utf-16"))
    remembered = Reading.of_record(opened(train, tmp_path / "scratch").train.describe())
    assert remembered is not None
    assert remembered.encoding == "utf-16-le"
    for text in ("größer", "plain"):
        later.write_text(f"label,text\nbad,{text}\ngood,z\n")
        corpus = open_corpus(later, CorpusOptions(), scratch=tmp_path / "scratch", remembered=remembered)
        assert rows_of(corpus.train) == [("bad", text), ("good", "z")]


def test_a_json_object_of_columns_is_refused_with_a_command_that_converts_it(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps({"label": {"0": "a", "1": "b"}, "text": {"0": "x", "1": "y"}}))
    with pytest.raises(CorpusFormatError, match=r"holds no array of records; expected .*orient='records', lines=True"):
        opened(path, tmp_path / "scratch")
    path.write_text('[{"label": "a", "text": "x"}, {"label": "b", ')
    with pytest.raises(CorpusFormatError, match="is cut: its JSON array does not end"):
        opened(path, tmp_path / "scratch")
    path.write_text('[{"label": "a", "text": "x"}, {"label": "b"}]')
    with pytest.raises(CorpusFormatError, match="item 2: the key 'text' is missing"):
        rows_of(opened(path, tmp_path / "scratch").train)


@pytest.mark.parametrize(
    "content",
    [
        "label,,text\nbad,1,it is so\ngood,2,it is not\nbad,3,it may be\n",
        "label,text,2020\nbad,it is so,1\ngood,it is not,2\nbad,it may be,3\n",
        "0,1\nbad,it is so\ngood,it is not\nbad,it may be\n",
    ],
    ids=["a name is missing", "a name is a number", "columns that pandas numbered"],
)
def test_usual_names_make_a_header_whatever_stands_beside_them(tmp_path: Path, content: str) -> None:
    (tmp_path / "some.csv").write_text(content)
    source = opened(tmp_path / "some.csv", tmp_path / "scratch", **_text_of(content)).train
    assert source.header is not None
    assert {label for label, _ in rows_of(source)} == {"bad", "good"}


def _text_of(content: str) -> dict[str, object]:
    return {"label_column": 0, "text_columns": (1,)} if content.startswith("0,") else {}


def test_text_files_per_class_have_encodings_too(tmp_path: Path) -> None:
    expected = [("bad", "größer"), ("good", "größer")]
    for bad, good, chosen in (("utf-16", "utf-8-sig", {}), ("cp1252", "cp1252", {"encoding": "cp1252"})):
        for name, encoding in (("bad", bad), ("good", good)):
            (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "set" / name / "a.txt").write_bytes("größer".encode(encoding))
        assert rows_of(opened(tmp_path / "set", tmp_path / "scratch", **chosen).train) == expected


def test_quotes_that_would_join_lines_of_a_plain_tsv_are_text(tmp_path: Path) -> None:
    lines = [f"{'good' if i % 2 else 'bad'}\ttext {i}" for i in range(20)]
    lines[4], lines[9] = 'bad\t"I said', 'good\tso"'
    (tmp_path / "some.tsv").write_text("\n".join(lines) + "\n")
    found = rows_of(opened(tmp_path / "some.tsv", tmp_path / "scratch").train)
    assert found == [tuple(line.split("\t")) for line in lines]


@pytest.mark.parametrize("name", ["some.csv", "some.txt", "some"])
def test_json_under_another_name_is_read_as_json(tmp_path: Path, name: str) -> None:
    for content in (as_json_lines(ROWS), as_json_array(ROWS, indent=None)):
        (tmp_path / name).write_text(content)
        assert rows_of(opened(tmp_path / name, tmp_path / "scratch" / str(len(content))).train) == ROWS


def test_what_follows_a_json_array_is_not_dropped(tmp_path: Path) -> None:
    path = tmp_path / "some.json"
    path.write_text(as_json_array(ROWS, indent=None) + '\n{"label": "bad", "text": "more"}\n')
    with pytest.raises(CorpusFormatError, match="something follows the JSON array"):
        opened(path, tmp_path / "scratch")


@pytest.mark.parametrize("first", [5, 20_000])
@pytest.mark.parametrize("names", [("train", "validation", "test"), ("meta", "data")])
def test_of_several_arrays_of_records_none_is_left_out(tmp_path: Path, names: Sequence[str], first: int) -> None:
    """Also where the first one is longer than what is looked at before it is read."""
    path = tmp_path / "some.json"
    record = {"label": "bad", "text": "it is [{so}]"}
    path.write_text(
        json.dumps({"version": 2, **{name: [record] * (first if name == names[0] else 3) for name in names}})
    )
    with pytest.raises(CorpusFormatError, match=r"holds several arrays of records .*write each to a file of its own"):
        opened(path, tmp_path / "scratch")
    path.write_text(json.dumps({"version": [1], "data": [record] * first, "counts": {"pages": [{"label": 3}]}}))
    assert rows_of(opened(path, tmp_path / "one").train) == [(record["label"], record["text"])] * first


@pytest.mark.parametrize("kind", ["some.csv.gz", "some.parquet", "some.arrow"])
def test_a_copy_that_has_changed_is_made_again(tmp_path: Path, kind: str) -> None:
    rows = [{"label": label, "text": text} for label, text in ROWS]
    path, scratch = tmp_path / kind, tmp_path / "scratch"
    if kind.endswith(".gz"):
        path.write_bytes(gzip.compress(as_separated(ROWS, header=True).encode()))
    else:
        pa = pytest.importorskip("pyarrow")
        table = pa.Table.from_pylist(rows)
        if kind.endswith(".parquet"):
            pytest.importorskip("pyarrow.parquet").write_table(table, path)
        else:
            with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
                writer.write_table(table)
    source = opened(path, scratch).train
    expected, copy = rows_of(source), Path(source.files[0].path)
    assert copy.parent == scratch
    content = copy.read_bytes()
    for damaged in (content.replace(b"o", b"0"), content[:-20], b""):
        copy.write_bytes(damaged)
        assert rows_of(opened(path, scratch).train) == expected
        assert copy.read_bytes() == content


def test_empty_parts_are_omitted_and_one_file_counts_once(tmp_path: Path) -> None:
    (tmp_path / "part-0.csv").write_text("")
    (tmp_path / "part-1.csv").write_text("label,text\n")
    (tmp_path / "part-2.csv").write_text("label,text\nx,a\ny,b\n")
    (tmp_path / "_SUCCESS").write_text("")
    corpus = opened(Path(f"{tmp_path}/*"), tmp_path.parent / "scratch")
    assert rows_of(corpus.train) == [("x", "a"), ("y", "b")]
    assert {"part-0.csv has no records and is omitted", "part-1.csv has no records and is omitted"} <= set(corpus.notes)
    with pytest.raises(CorpusFormatError, match=r"part-2.csv' is given twice"):
        opened([tmp_path / "part-2.csv", tmp_path / "." / "part-2.csv"], tmp_path / "scratch")


def test_newlines_in_quotes_do_not_end_the_lines_of_a_file_that_ends_them_with_cr(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_bytes(b'label,text\rbad,"a\nb"\rgood,c\r')
    assert rows_of(opened(path, tmp_path / "scratch").train) == [("bad", "a\nb"), ("good", "c")]


def test_a_split_without_labels_names_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,label,text\n1,a,x\n2,b,y\n")
    (tmp_path / "test.csv").write_text("id,text\n3,z\n")
    with pytest.raises(CorpusFormatError, match=r"has no column 'label'.*build from '.*train.csv' alone"):
        opened(tmp_path, tmp_path / "scratch")


@pytest.mark.parametrize("name", ["idna", "punycode", "unicode_escape", "rot13", "nonsense"])
def test_what_is_no_encoding_of_files_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="encoding"):
        CorpusOptions(encoding=name)


def test_columns_of_parquet_with_one_name_are_refused(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["x"]), pa.array(["y"])], ["label", "text", "text"])
    pq.write_table(table, tmp_path / "some.parquet")
    with pytest.raises(CorpusFormatError, match="several columns named 'text'"):
        opened(tmp_path / "some.parquet", tmp_path / "scratch")


@pytest.mark.parametrize("content", ["ham\tsee you\nspam\twin now\n", '"ham","see, you"\n"spam","win now"\n'])
@pytest.mark.parametrize("header", [True, False])
def test_a_file_without_an_extension_that_is_like_the_training_corpus_is_read_like_it(
    tmp_path: Path, content: str, header: bool
) -> None:
    first = ("label\ttext\n" if "\t" in content else '"label","text"\n') if header else ""
    train, later = tmp_path / "train", tmp_path / "later"
    train.write_text(first + content * 20)
    later.write_text(first + content)
    expected = opened(train, tmp_path / "scratch").train
    how = {"labels": ("ham", "spam"), "class_names": (), "scratch": tmp_path / "scratch"}
    remembered = Reading.of_record(expected.describe())
    texts, _ = open_texts(later, CorpusOptions(), remembered=remembered, **how)
    assert [text for _, text in rows_of(texts)] == [text for _, text in rows_of(expected)][:2]
    later.write_text("see you\nham, she said\nwin now\n")  # plain lines
    texts, _ = open_texts(later, CorpusOptions(), remembered=remembered, **how)
    assert [text for _, text in rows_of(texts)] == ["see you", "ham, she said", "win now"]


def test_a_name_of_the_training_corpus_is_a_header_also_where_its_other_texts_are_missing(tmp_path: Path) -> None:
    train, later = tmp_path / "train.csv", tmp_path / "later.csv"
    train.write_text("desk,headline,story\n" + "World,one two,three four\nSports,five,six\n" * 20)
    later.write_text("story\n" + "a story of many words, it is\n".replace(",", "") * 30)
    remembered = Reading.of_record(
        opened(train, tmp_path / "scratch", label_column="desk", text_columns=("headline", "story")).train.describe()
    )
    texts, notes = open_texts(
        later,
        CorpusOptions(),
        labels=("World", "Sports"),
        class_names=(),
        scratch=tmp_path / "scratch",
        remembered=remembered,
    )
    assert len(rows_of(texts)) == 30
    assert any("does not have the columns of the training corpus (text 'headline', 'story')" in note for note in notes)


def test_the_copy_of_a_compressed_file_is_used_again_unless_it_has_changed(tmp_path: Path) -> None:
    path, scratch = tmp_path / "train.csv.gz", tmp_path / "scratch"
    path.write_bytes(gzip.compress(b"1,some words\n2,other words\n"))
    first = opened(path, scratch).train
    (copy,) = (file for file in scratch.iterdir() if file.read_bytes().startswith(b"1,some"))
    assert [str(copy)] == [file.path for file in first.files]
    inode, content = copy.stat().st_ino, copy.read_bytes()
    opened(path, scratch)
    assert copy.stat().st_ino == inode
    copy.write_bytes(content.replace(b"some", b"rome"))
    assert rows_of(opened(path, scratch).train) == rows_of(first) == [("1", "some words"), ("2", "other words")]
