"""Equal numbers are one class however they are spelled, and a label is missing where pandas says so."""

from __future__ import annotations

import io
from decimal import Decimal
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtrain.corpus.label_spelling import MISSING, canonical_label, is_number, must_be_literal
from shardtrain.corpus.labels import known_classes, resolve_classes
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.source import Documents
from shardtrain.errors import CorpusFormatError, LabelError

NUMBERS = st.from_regex(
    r"[+-]?(0{0,2}[0-9]{1,9}\.?0{0,2}|[0-9]{0,4}\.[0-9]{1,4})([eE][+-]?[0-9]{1,2})?", fullmatch=True
)


def read(path: Path, content: str, **options: object) -> Documents:
    path.write_text(content)
    source = open_corpus(path, CorpusOptions(**options), scratch=path.parent).train  # type: ignore[arg-type]
    (unit,) = plan_units(source, unit_bytes=1 << 30, advance=lambda num_bytes: None)
    return read_unit(source, unit)


@given(NUMBERS, NUMBERS)
def test_the_spelling_is_the_same_exactly_where_the_numbers_are_equal(first: str, second: str) -> None:
    assert Decimal(canonical_label(first)) == Decimal(first)
    assert (canonical_label(first) == canonical_label(second)) == (Decimal(first) == Decimal(second))
    assert canonical_label(canonical_label(first)) == canonical_label(first)


@given(st.lists(st.integers(-99, 99), min_size=1, max_size=8), st.data())
def test_labels_are_equal_where_pandas_reads_equal_numbers(numbers: list[int], data: st.DataObject) -> None:
    forms = st.sampled_from(["{}", "{}.0", "{}.", "{}e0", "{}0e-1", "{}.50", "{}.5", "{}E+1", "{}0"])
    spelled = [data.draw(forms).format(number) for number in numbers]
    theirs = pd.read_csv(io.StringIO("\n".join(["label", *spelled])), dtype={"label": "float64"})["label"]
    assert pd.factorize(theirs)[0].tolist() == pd.factorize(pd.Series(list(map(canonical_label, spelled))))[0].tolist()


@pytest.mark.parametrize("word", ["1a", "0x10", "1_000", "1,5", "1 000", "١", "½", "inf", "-", ".", "e5", "1e", "--1"])
def test_what_is_no_decimal_number_stays_as_it_is(word: str) -> None:
    assert canonical_label(word) == word
    assert not is_number(word)


@pytest.mark.parametrize(
    ("label", "spelled"),
    [("-0", "0"), ("1e400", "1e400"), ("10E399", "1e400"), ("1" * 5000, "1." + "1" * 4999 + "e4999")],
)
def test_numbers_of_any_size_are_spelled_in_bounded_space(label: str, spelled: str) -> None:
    assert canonical_label(label) == spelled


@pytest.mark.parametrize("word", [*sorted(MISSING - {""}), "none", "Null", "NAN", "Nan", "na", "-", "?", "missing"])
def test_missing_are_the_labels_that_pandas_reads_as_missing(word: str, tmp_path: Path) -> None:
    content = f"label,text\na,x\n{word},y\nb,z\n"
    theirs = pd.read_csv(io.StringIO(content)).dropna(subset="label")["label"].tolist()
    found = read(tmp_path / "a.csv", content, on_bad_row="skip")
    assert found.labels == theirs
    assert [(row.line, f"missing: '{word}'" in row.reason) for row in found.bad_rows] == [(3, True)] * (3 - len(theirs))
    assert read(tmp_path / "a.csv", content, labels="names").labels == ["a", word, "b"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl"])
def test_numbers_are_one_class_in_every_format_and_literal_on_request(name: str, tmp_path: Path) -> None:
    spelled = ["1", "1.0", "01", "1e0", "+1", " 1 ", "2", "2.50", "2.5", "x", "007"]
    separator = "\t" if name == "a.tsv" else ","
    content = f"label{separator}text\n" + "".join(f"{label}{separator}t\n" for label in spelled)
    if name == "a.jsonl":
        content = "".join(f'{{"label": "{label}", "text": "t"}}\n' for label in spelled)
    found = read(tmp_path / name, content)
    assert found.labels == ["1"] * 6 + ["2", "2.5", "2.5", "x", "7"]
    literal = read(tmp_path / name, content, labels="names")
    assert literal.labels == [label.strip() for label in spelled]


def test_numbers_in_json_equal_their_spelling_in_strings(tmp_path: Path) -> None:
    values = ["1", "1.0", '"1"', '"1.00"', "1e0", "true", '"true"', "0.5", '"0.50"', "null", "1e999", "[1, 2]"]
    content = "".join(f'{{"label": {value}, "text": "t"}}\n' for value in values)
    found = read(tmp_path / "a.jsonl", content, on_bad_row="skip")
    assert found.labels == ["1"] * 5 + ["true"] * 2 + ["0.5"] * 2
    missing, large, several = (row.reason for row in found.bad_rows)
    assert "is missing: null" in missing
    assert "beyond the range" in large
    assert "several labels per document are not supported yet" in several
    literal = read(tmp_path / "a.jsonl", content, on_bad_row="skip", labels="names").labels
    assert literal == ["1", "1.0", "1", "1.00", "1.0", "true", "true", "0.5", "0.50", "1|2"]


def test_a_missing_label_stops_with_its_column_line_and_both_remedies(tmp_path: Path) -> None:
    message = (
        r"a.csv, line 3: the label \(column stars\) is missing: 'nan' \(build labels names makes .*on_bad_row skip"
    )
    with pytest.raises(CorpusFormatError, match=message):
        read(tmp_path / "a.csv", "stars,text\n1,a\nnan,b\n2,c\n")


def test_numbers_with_fractions_are_names_in_the_order_of_their_values() -> None:
    counts = dict.fromkeys(["10", "0.5", "2", "-1.5", "1.5"], 1)
    assert resolve_classes(counts, class_names=None).names == ("-1.5", "0.5", "1.5", "2", "10")
    assert resolve_classes(counts, class_names=None, labels="names").names == ("-1.5", "0.5", "1.5", "10", "2")
    with pytest.raises(LabelError, match="labels integers, but these labels are not integers"):
        resolve_classes(counts, class_names=None, labels="integers")


def test_labels_recorded_in_another_spelling_are_found_by_both() -> None:
    classes = known_classes(("1.0", "2.0"), {"1.0": 0, "2.0": 1})
    assert classes.codes == {"1.0": 0, "2.0": 1, "1": 0, "2": 1}
    assert classes.names == ("1.0", "2.0")
    assert not must_be_literal({"1.0": 0, "2.0": 1, "2": 1, "x": 2})
    assert must_be_literal({"7": 0, "007": 1})
    assert must_be_literal({"a": 0, "nan": 1})


def test_class_names_that_are_numbers_are_found_in_any_spelling() -> None:
    classes = resolve_classes(dict.fromkeys(["1", "0.5", "7"], 1), class_names=["0.50", "1.0", "007"])
    assert (classes.names, classes.codes) == (("0.50", "1.0", "007"), {"0.5": 0, "1": 1, "7": 2})
    with pytest.raises(LabelError, match=r"a class without examples in the training data: '007'"):
        resolve_classes(dict.fromkeys(["1", "0.5"], 1), class_names=["0.50", "1.0", "007"])
    with pytest.raises(LabelError, match=r"labels that are not in classes.txt: '0.5', '1'"):
        resolve_classes(dict.fromkeys(["1", "0.5"], 1), class_names=["0.50", "1.0"], labels="names")
