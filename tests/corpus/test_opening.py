"""Opening a corpus: which splits are found, what is detected, and what is refused with which message."""

from __future__ import annotations

import datetime as dt
import gzip
import os
import zipfile
from pathlib import Path

import h5py
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.published import DATASETS, recognise
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.source import Corpus
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, UsageError

ZHANG = '"1","a","b"\n"2","c","d"\n'


def opened(path: Path, validation: Path | None = None, **options: object) -> Corpus:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return open_corpus(path, CorpusOptions(**options), validation=validation, scratch=scratch)  # type: ignore[arg-type]


def texts(corpus: Corpus) -> list[str]:
    units = plan_units(corpus.train, unit_bytes=1 << 30, advance=lambda num_bytes: None)
    return [text for unit in units for text in read_unit(corpus.train, unit).texts]


def written(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize(
    ("name", "content", "label", "text"),
    [
        ("a.csv", "label,text\n1,a\n2,b\n", 0, (1,)),
        ("a.csv", "text,label\na,1\nb,2\n", 1, (0,)),
        ("a.tsv", "PhraseId\tSentenceId\tPhrase\tSentiment\n1\t1\ta\t0\n2\t1\tb\t4\n", 3, (2,)),
        ("a.csv", "Class Index,Title,Description\n3,a,b\n", 0, (1, 2)),
        ("a.csv", ",stars,review_body\n0,5,a\n1,1,b\n", 1, (2,)),
        ("a.csv", 'id,"Text",SENTIMENT\nx,a,good\ny,b,bad\n', 2, (1,)),
        ("a.csv", "\ufefflabel,text\n1,a\n2,b\n", 0, (1,)),
        ("a.csv", 'Category,Message\nham,"a\nb"\nspam,c\n', 0, (1,)),
    ],
)
def test_a_header_is_found_and_its_usual_names_are_understood(
    tmp_path: Path, name: str, content: str, label: int, text: tuple[int, ...]
) -> None:
    corpus = opened(written(tmp_path / name, content))
    assert (corpus.train.label_column, corpus.train.text_columns) == (label, text)
    assert corpus.train.header is not None
    assert len(texts(corpus)) == content.count("\n") - 1 - content.count('"a\nb"')
    assert any("with a header" in note for note in corpus.notes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", ZHANG),
        ("a.csv", "World,a,b\nSports,c,d\nWorld,e,f\n"),
        ("a.tsv", "ham\tGo until\nham\tOk lar\nspam\tFree entry\n"),
        ("a.tsv", "ham\tGo until\n"),
        ("a.csv", "question,what is it\nanswer,it is this\nquestion,and that\n"),
        ("a.csv", "a,text\nb,text\na,text\n"),
    ],
)
def test_data_is_not_taken_for_a_header(tmp_path: Path, name: str, content: str) -> None:
    corpus = opened(written(tmp_path / name, content))
    assert corpus.train.header is None
    assert corpus.train.label_column == 0
    assert len(texts(corpus)) == content.count("\n")
    assert any("no header" in note for note in corpus.notes)


def test_the_header_option_overrules_what_is_detected(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", "label,text\n1,a\n2,b\n")
    assert texts(opened(path, header=False)) == ["text", "a", "b"]
    path = written(tmp_path / "b.csv", "1,x\n2,y\n")
    assert texts(opened(path, header=True, label_column=0, text_columns=(1,))) == ["y"]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"label_column": "grade", "text_columns": ("pros", "cons")}, ["a, b"]),
        ({"label_column": "GRADE", "text_columns": ("cons", "pros")}, ["b, a"]),
        ({"label_column": 0, "text_columns": (2,)}, ["b"]),
        ({"label_column": "0", "text_columns": ("1",), "header": True}, ["a"]),
    ],
    ids=["by name", "by name in any case, in the order given", "by index", "by an index in a string"],
)
def test_columns_are_chosen_by_name_or_index(tmp_path: Path, options: dict[str, object], expected: list[str]) -> None:
    path = written(tmp_path / "a.csv", "grade,pros,cons\n1,a,b\n")
    assert texts(opened(path, **{"header": True, **options})) == expected


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            "id,foo,bar\n1,a,b\n2,c,d\n",
            {},
            r"which column is the label\? .* 'id', 'foo', 'bar'; name them with label_column",
        ),
        ("label,foo,bar\n1,a,b\n2,c,d\n", {}, r"which column is the text\? .*text_columns"),
        ("category,sentiment,text\nx,1,a\ny,2,b\n", {}, "candidates: 'category', 'sentiment'"),
        ("label,text\n1,a\n", {"label_column": "klass"}, "has no column 'klass'; found 'label', 'text'"),
        ("label,text\n1,a\n", {"label_column": 2}, "has no column 2: it has 2 columns, counted from 0 to 1"),
        ("1,a\n2,b\n", {"label_column": "stars"}, "has no column 'stars'; no header was found"),
        (
            "label,text,text\n1,a,b\n",
            {"header": True, "text_columns": ("text",)},
            "has 2 columns 'text'; give an index",
        ),
        ("label,text\n1,a\n", {"text_columns": ("label",), "label_column": 0}, "named both as label and as text"),
        (
            "a 1\nb 2\n",
            {},
            r"has one column; a label and a text are needed \(columns are separated by commas, tabs, semic",
        ),
        ("label,text\n", {}, "has a header and no records after it"),
    ],
)
def test_ambiguous_or_missing_columns_are_refused(
    tmp_path: Path, content: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises((CorpusFormatError, CorpusNotFoundError), match=message) as caught:
        opened(written(tmp_path / "some.csv", content), **options)
    assert "some.csv" in str(caught.value)


def test_keys_of_json_are_chosen_by_usual_names_or_by_option(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jsonl", '{"id": 7, "stars": 5, "text": "a", "note": "b"}\n')
    assert texts(opened(path)) == ["a"]
    assert texts(opened(path, label_column="id", text_columns=("note", "text"))) == ["b, a"]
    with pytest.raises(CorpusFormatError, match="has no key 'klass' in its first objects; found 'id', 'stars'"):
        opened(path, label_column="klass")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "xml"}, "format is 'xml'; choose one of auto, csv"),
        ({"labels": "x"}, "labels is 'x'"),
        ({"on_bad_row": "x"}, "on_bad_row is 'x'; choose one of fail, skip"),
        ({"text_columns": ()}, "names no column"),
        ({"label_column": -1}, "counted from 0"),
        ({"label_column": "a", "text_columns": ("a",)}, "named as label and as text"),
        ({"format": "jsonl", "header": True}, "header is for CSV and TSV only"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        CorpusOptions(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("SMSSpamCollection", "ham\ta, b\nspam\tc\n", "tsv"),
        ("reviews.txt", '1,"a"\n2,"b"\n', "csv"),
        ("dump", '{"label": 1, "text": "a"}\n', "jsonl"),
        ("A.CSV", "1,a\n2,b\n", "csv"),
    ],
)
def test_the_format_is_detected_from_the_extension_or_the_content(
    tmp_path: Path, name: str, content: str, expected: str
) -> None:
    assert opened(written(tmp_path / name, content)).train.format == expected


def test_the_format_option_overrules_the_extension(tmp_path: Path) -> None:
    assert texts(opened(written(tmp_path / "a.csv", "1\ta, b\n2\tc\n"), format="tsv")) == ["a, b", "c"]


def test_a_folder_with_train_test_and_classes_is_understood(tmp_path: Path) -> None:
    for name, content in (("train.csv", ZHANG), ("test.csv", ZHANG), ("classes.txt", "\ufeffgood\r\nbad\r\n\n")):
        written(tmp_path / "set" / name, content)
    written(tmp_path / "set" / "more.csv", ZHANG)
    written(tmp_path / "set" / "readme.txt", "about")
    corpus = opened(tmp_path / "set")
    assert corpus.class_names == ("good", "bad")
    assert {split: Path(source.files[0].path).name for split, source in corpus.sources.items()} == {
        "train": "train.csv",
        "test": "test.csv",
    }
    assert "test.csv is the test split" in corpus.notes
    assert "not used: more.csv (--validation and --test name other files)" in corpus.notes


def test_a_validation_file_without_the_training_header_is_read_by_the_same_columns(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", "text,label\na,1\nb,2\n")
    corpus = opened(tmp_path / "train.csv", validation=written(tmp_path / "other.csv", "c,1\nd,2\n"))
    assert corpus.validation is not None
    assert (corpus.validation.label_column, corpus.validation.text_columns) == (1, (0,))


def test_a_validation_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "set" / "train.csv", ZHANG)
    written(tmp_path / "set" / "test.csv", "1,a\n2,b\n")
    with pytest.raises(CorpusFormatError, match=r"test.csv' has 2 columns, '.*train.csv' has 3"):
        opened(tmp_path / "set")


def test_packed_files_of_one_name_do_not_overwrite_each_other(tmp_path: Path) -> None:
    train = written(tmp_path / "a" / "x.csv.gz", gzip.compress(b"1,a\n2,b\n"))
    corpus = opened(train, validation=written(tmp_path / "b" / "x.csv.gz", gzip.compress(b"1,c\n2,d\n")))
    assert corpus.validation is not None
    assert Path(corpus.train.files[0].path).read_bytes() != Path(corpus.validation.files[0].path).read_bytes()


@pytest.mark.parametrize("beside", ["readme.txt", "LICENSE", ".hidden.csv", "notes.txt", "classes.txt", "image.png"])
def test_a_folder_with_one_readable_file_works_as_that_file(tmp_path: Path, beside: str) -> None:
    written(tmp_path / "set" / "all.csv", "1,a\n2,b\n")
    written(tmp_path / "set" / beside, "x")
    assert texts(opened(tmp_path / "set")) == ["a", "b"]


def test_a_folder_per_class_without_splits_is_understood(tmp_path: Path) -> None:
    written(tmp_path / "set" / "ham" / "1.txt", "a")
    written(tmp_path / "set" / "spam" / "1.txt", "b")
    (tmp_path / "set" / "empty").mkdir()
    corpus = opened(tmp_path / "set")
    assert (texts(corpus), corpus.validation) == (["a", "b"], None)
    assert [folder.name for folder in corpus.train.folders] == ["ham", "spam"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no corpus in the folder .*: it is empty; expected train.csv"),
        (["a.csv", "b.csv"], "found a.csv, b.csv; expected train.csv .* or a folder per class"),
        (["image.png"], "found image.png; expected"),
        (["train.csv", "train.tsv"], "more than one train file: train.csv, train.tsv"),
        (["train.csv", "test.csv", "test.csv.gz"], "more than one test file: test.csv, test.csv.gz"),
    ],
)
def test_a_folder_that_fits_no_layout_is_refused_with_what_was_found(
    tmp_path: Path, files: list[str], message: str
) -> None:
    (tmp_path / "set").mkdir()
    for name in files:
        written(tmp_path / "set" / name, ZHANG)
    with pytest.raises((CorpusNotFoundError, CorpusFormatError), match=message):
        opened(tmp_path / "set")


@pytest.mark.parametrize("path", ["nowhere", "nowhere/train.csv", "x" * 300])
def test_a_missing_path_is_refused_with_a_next_step(tmp_path: Path, path: str) -> None:
    with pytest.raises(CorpusNotFoundError, match=r"no corpus at .*; give a file or a folder, or make an example"):
        open_corpus(tmp_path / path, CorpusOptions(), scratch=tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is unreadable to root")
def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "set" / "train.csv", ZHANG)
    path.chmod(0)
    with pytest.raises(CorpusNotFoundError, match=r"train.csv' cannot be read: Permission denied"):
        opened(tmp_path / "set")
    path.parent.chmod(0)
    with pytest.raises(CorpusNotFoundError, match="cannot be read: Permission denied"):
        opened(tmp_path / "set")
    path.parent.chmod(0o700)


@pytest.mark.parametrize("content", ["", "\ufeff", "\n\r\n  \n"], ids=["nothing", "a byte order mark", "blank lines"])
@pytest.mark.parametrize("name", ["some.csv", "some.jsonl", "some"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(CorpusNotFoundError, match=f"{name}' is empty; expected records"):
        opened(written(tmp_path / name, content))


def test_an_empty_packed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFoundError, match=r"some.csv.gz' is empty"):
        opened(written(tmp_path / "some.csv.gz", gzip.compress(b"")))


def test_a_file_whose_every_record_is_bad_is_refused_with_the_first_reason(tmp_path: Path) -> None:
    with pytest.raises(CorpusFormatError, match=r"some.csv, line 1: unclosed quote"):
        opened(written(tmp_path / "some.csv", '1,"a\n2,"b\n'), on_bad_row="skip")
    with pytest.raises(CorpusFormatError, match=r"some.jsonl, line 1: not JSON"):
        opened(written(tmp_path / "some.jsonl", "1,a\n"))


@pytest.mark.parametrize("damage", ["cut", "flipped"])
def test_a_damaged_packed_file_is_refused_and_leaves_nothing_behind(tmp_path: Path, damage: str) -> None:
    packed = bytearray(gzip.compress(os.urandom(10_000).hex().encode()))
    if damage == "flipped":
        packed[len(packed) // 2] ^= 1
    content = {"cut": packed[:-100], "flipped": packed}[damage]
    with pytest.raises(
        CorpusFormatError, match=r"some.csv.gz' is (cut: its gzip data ends too early|damaged gzip data)"
    ):
        opened(written(tmp_path / "some.csv.gz", bytes(content)))
    assert list((tmp_path / "scratch").iterdir()) == []


def test_binary_files_are_refused_with_their_kind(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "features.csv", "w") as file:
        file["x"] = [1.0]
    with zipfile.ZipFile(tmp_path / "zipped.csv", "w") as archive:
        archive.writestr("train.csv", ZHANG)
        archive.writestr("test.csv", ZHANG)
    with zipfile.ZipFile(tmp_path / "workbook.csv", "w") as archive:
        archive.writestr("[Content_Types].xml", "")
    written(tmp_path / "numbers.csv", bytes(range(256)) * 100)
    written(tmp_path / "set.tgz", b"")
    os.mkfifo(tmp_path / "pipe.csv")
    for name, message in {
        "features.csv": "is an HDF5 file, not text",
        "zipped.csv": r"is a zip archive of 2 files \(train.csv, test.csv\), one is expected; unpack it",
        "workbook.csv": "is a workbook or a document, not text; save it as CSV",
        "numbers.csv": "looks binary",
        "set.tgz": "is an archive; unpack it",
        "pipe.csv": "is not a regular file",
    }.items():
        with pytest.raises(CorpusFormatError, match=message):
            opened(tmp_path / name)


def test_text_of_no_known_format_asks_for_the_format(tmp_path: Path) -> None:
    with pytest.raises(CorpusFormatError, match="are not CSV, TSV, JSON Lines or fastText; choose one with format"):
        opened(written(tmp_path / "some.txt", "just\nwords\n"))


def test_invalid_class_names_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "set" / "train.csv", ZHANG)
    classes = written(tmp_path / "set" / "classes.txt", "a\nb\na\n")
    with pytest.raises(CorpusFormatError, match=r"classes.txt, line 3: class 'a' is already on line 1"):
        opened(tmp_path / "set")
    classes.write_text("\n")
    with pytest.raises(CorpusFormatError, match="has no class names"):
        opened(tmp_path / "set")


@pytest.mark.parametrize("name", ["ag_news", "AG_NEWS_csv", "yelp_review_full_csv", "amazon-review-polarity", "agnews"])
def test_a_published_set_that_needs_it_is_unescaped_and_others_are_not(tmp_path: Path, name: str) -> None:
    for folder in (name, "mine"):
        written(tmp_path / folder / "train.csv", '1,"a\\nb"\n2,x\n')
    corpus = opened(tmp_path / name)
    assert texts(corpus)[0] == "a\nb"
    assert any("recognised" in note for note in corpus.notes)
    assert texts(opened(tmp_path / name, unescape=False))[0] == "a\\nb"
    assert texts(opened(tmp_path / "mine"))[0] == "a\\nb"


def test_a_published_set_is_recognised_by_its_class_names_too() -> None:
    for dataset in DATASETS:
        assert recognise(f"{dataset.name}_csv", None) is dataset
        if dataset.class_names:
            assert len(dataset.class_names) == dataset.num_classes
            assert recognise("elsewhere", dataset.class_names) is dataset
    assert recognise("ag_news", ("a", "b")) is None
    assert recognise("elsewhere", ("a", "b")) is None


def test_the_description_for_the_manifest_has_names_and_sizes_but_no_local_folder(tmp_path: Path) -> None:
    source = opened(written(tmp_path / "a.csv", "id,label,text\n7,1,a\n8,2,b\n")).train
    assert source.describe() == {
        "name": "a.csv",
        "bytes": 26,
        "format": "csv",
        "unescape": False,
        "encoding": "utf-8",
        "delimiter": ",",
        "quotes": True,
        "escape": None,
        "header": True,
        "label_column": "label",
        "text_columns": ["text"],
    }


@pytest.mark.parametrize("column", ["day", "raw"])
def test_columns_of_types_that_are_no_label_are_named_with_their_type(tmp_path: Path, column: str) -> None:
    path = tmp_path / "rows.parquet"
    values = {"day": [dt.date(2020, 1, 1)] * 4, "raw": [b"x"] * 4}
    pq.write_table(pa.table({"label": ["a", "b"] * 2, "text": ["some text"] * 4, **values}), path)
    with pytest.raises(CorpusFormatError, match=rf"column '{column}' holds values of type (date|binary).*another"):
        open_corpus(path, CorpusOptions(label_column=column), scratch=tmp_path)
