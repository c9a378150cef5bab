"""The first records raise a doubt about a column that holds no classes, and none about a corpus of many classes."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from shardtrain.corpus.labels import combining_separator, resolve_classes
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.errors import CorpusFormatError, LabelError
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.plan import plan_build

RANDOM = random.Random(5)
WORDS = ["late", "quick", "noisy", "warm", "tidy", "solid", "cold", "bright", "useful", "dull", "soup", "lamp", "chair"]
GENRES = ["drama", "comedy", "action", "crime"]


def text(number: int = 8) -> str:
    return " ".join(RANDOM.choices(WORDS, k=number))


def shuffled(labels: Sequence[object]) -> list[object]:
    return RANDOM.sample(labels, len(labels))


def written(folder: Path, labels: Sequence[object], name: str = "some.csv") -> Path:
    path = folder / name
    rows = [{"label": label, "text": text(), "note": "n"} for label in labels]
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        path.write_text("label,text,note\n" + "".join(f'"{row["label"]}",{row["text"]},n\n' for row in rows))
    return path


def doubt(path: Path, **options: object) -> str:
    return open_corpus(path, CorpusOptions(**options), scratch=path.parent).train.label_doubt  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "labels",
    [
        shuffled([f"c{i % 100}" for i in range(120)]),
        sorted(f"c{i % 100}" for i in range(120)),
        shuffled([f"c{i % 40}" for i in range(60)]),
        [str(1 + i % 30) for i in range(31)],
        [RANDOM.randrange(5000) for _ in range(2000)],
        [i % 400 for i in range(500)],
        [f"u{i}" for i in range(19)],
        [RANDOM.choice([0.5, 1, 1.5, 2, 2.5]) for _ in range(60)],
        ["a long name of a class with words"] * 30 + ["another long name of a class"] * 30,
    ],
    ids=[
        "100 classes in 120 rows", "sorted", "one or two rows each", "30 classes, one twice", "5,000 classes",
        "classes in turn", "too few to judge", "ratings with halves", "long names",
    ],
)  # fmt: skip  # as the list above
@pytest.mark.parametrize("name", ["some.csv", "some.jsonl"])
def test_many_classes_of_few_rows_are_no_reason_for_doubt(labels: list[object], name: str, tmp_path: Path) -> None:
    assert doubt(written(tmp_path, labels, name)) == ""


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            list(range(60)),
            "this is probably not the label column: 60 of its first 60 labels are distinct ('0', '1', '2')",
        ),
        ([f"u{i}" for i in range(900)], "this is probably not the label column: "),
        ([text(12) for _ in range(55)] + [text(12)] * 5, "this is probably not the label column"),
        ([RANDOM.random() for _ in range(60)], "numeric targets are not supported, and column 'label' holds numbers"),
        ([round(RANDOM.uniform(0, 9), 1) for _ in range(30)], "numeric targets are not supported"),
    ],
    ids=["ids", "names of users", "texts, some of them equal", "numbers", "rounded numbers"],
)
@pytest.mark.parametrize("name", ["some.csv", "some.jsonl"])
def test_labels_that_are_nearly_all_distinct_are_doubted(
    labels: list[object], message: str, name: str, tmp_path: Path
) -> None:
    path = written(tmp_path, labels, name)
    found = doubt(path)
    assert message in found
    assert f"{name}': " in found
    assert "the columns are 'label', 'text', 'note'; the first rows are [" in found
    assert "--label-column" in found
    assert doubt(path, labels="names") == doubt(path, labels="integers") == ""


def test_a_column_without_a_name_is_doubted_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text("".join(f"{i},{text()}\n" for i in range(60)))
    assert "column 0: this is probably not" in doubt(path)
    assert "the file has 2 columns, counted from 0, and no header" in doubt(path)
    assert "add --labels integers if each of them is a class" in doubt(path)


def test_a_doubt_stops_build_and_its_plan_before_any_pass_but_not_an_addition(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = [str(i % 30) for i in range(90)]
    build(written(tmp_path, known), tmp_path / "out", BuildOptions(min_df=1))
    capsys.readouterr()
    each_once = written(tmp_path, list(range(30)), "more.csv")
    for make in (build, plan_build):
        with pytest.raises(LabelError, match="this is probably not the label column"):
            make(each_once, tmp_path / "other", BuildOptions(min_df=1))
    assert "scanning" not in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    more = build(each_once, tmp_path / "out", BuildOptions(append=True, validation_fraction=0.0))
    assert [part["documents"] for part in more.build["parts"]] == [90, 30]


@pytest.mark.parametrize("separator", ["|", ";", ", "])
def test_cells_that_combine_labels_are_named_with_their_line(separator: str, tmp_path: Path) -> None:
    labels = [*GENRES, *(separator.join(RANDOM.sample(GENRES, 2)) for _ in range(80))]
    path = written(tmp_path, labels)
    assert doubt(path).startswith(f"{path}, line 6: the label '{labels[4]}' combines labels that occur elsewhere too")
    assert "several labels per document are not supported yet (build --labels names" in doubt(path)
    assert doubt(path, labels="names") == ""
    counts = dict.fromkeys(map(str, labels), 2)
    with pytest.raises(LabelError, match="several labels per document are not supported yet"):
        resolve_classes(counts, class_names=None)  # also where the first records show none
    assert len(resolve_classes(counts, class_names=None, labels="names").names) == len(counts)


@pytest.mark.parametrize("combined", ["drama|comedy", "comedy; drama", "drama, comedy"])
def test_one_cell_that_combines_two_labels_of_a_corpus_is_reported(combined: str, tmp_path: Path) -> None:
    labels = ["drama", "comedy", combined] * 20
    assert "combines labels that occur elsewhere too" in doubt(written(tmp_path, labels))
    with pytest.raises(LabelError, match="several labels per document are not supported yet"):
        resolve_classes(dict.fromkeys(labels, 20), class_names=None)
    assert len(resolve_classes(dict.fromkeys(labels, 20), class_names=None, labels="names").names) == 3


@pytest.mark.parametrize(
    "labels",
    [
        ["Sci/Tech", "U.S., politics", "U.K., politics", "World"],
        ["food, frozen", "food, fresh", "drinks, frozen", "drinks, fresh"],
        ["a|b", "c|d", "e"],
        ["drama|comedy", "drama", "comedy", *(f"class {i}" for i in range(9))],
        ["U.S., politics", "politics", "World"],
        ["1", "2", "3"],
    ],
    ids=["names with commas", "levels", "parts that do not recur", "one among many", "one part is no label", "numbers"],
)
def test_names_with_separators_are_names(labels: list[str]) -> None:
    assert combining_separator(labels) is None


@pytest.mark.parametrize("form", ["['{}', '{}']", '[""{}"", ""{}""]', "{{{},{}}}", "['{}']", "[]"])
def test_labels_that_are_written_as_lists_are_several_labels_or_names_on_request(form: str, tmp_path: Path) -> None:
    path = written(tmp_path, [form.format("ab"[i % 2], "abc"[i % 3]) for i in range(12)])
    first = form.format("a", "a").replace('""', '"')
    assert doubt(path).startswith(f"{path}, line 2: the label '{first}' is written as a list: several labels")
    assert doubt(path, labels="names") == ""


def test_names_in_brackets_are_names(tmp_path: Path) -> None:
    assert doubt(written(tmp_path, ["[POS]", "[NEG]", "{x}"] * 9)) == ""


def test_arrays_of_labels_are_several_labels_or_names_on_request(tmp_path: Path) -> None:
    path = written(tmp_path, [["c"], ["a", "b"]] * 10, "some.jsonl")
    assert doubt(path).startswith(f'{path}, line 2: the label \'label\' is an array, ["a", "b"]: several labels')
    manifest = build(path, tmp_path / "out", BuildOptions(labels="names", min_df=1))
    assert manifest.class_names == ("a|b", "c")


def test_columns_of_zeros_and_ones_are_several_labels(tmp_path: Path) -> None:
    path = tmp_path / "some.csv"
    path.write_text(
        "id,comment_text,toxic,obscene,threat\n" + "".join(f"i{i},{text()},{i % 2},1,0\n" for i in range(9))
    )
    with pytest.raises(CorpusFormatError, match=r"'toxic', 'obscene', 'threat' hold 0 and 1, and several labels"):
        doubt(path)
    assert doubt(path, label_column="toxic") == ""
