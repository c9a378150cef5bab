"""Which file is which split: by its name or as it was named, and never two of them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from shardtrain.corpus.folders import find_beside
from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.source import Corpus, Source
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, UsageError

ROWS = "1,a,b\n2,c,d\n"


def written(path: Path, content: str | bytes = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def opened(path: Path, **named: Path) -> Corpus:
    scratch = path.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    return open_corpus(path, CorpusOptions(), scratch=scratch, **named)


def texts(source: Source) -> list[str]:
    units = plan_units(source, unit_bytes=1 << 30, advance=lambda num_bytes: None)
    return [text for unit in units for text in read_unit(source, unit).texts]


def named(corpus: Corpus) -> dict[str, str]:
    """The name of each split's file or folder."""
    return {split: Path(source.origin).name for split, source in corpus.sources.items()}


@pytest.mark.parametrize("name", ["valid.csv", "validation.tsv", "dev.jsonl", "val.csv.gz", "Valid.CSV"])
def test_a_validation_file_has_one_of_several_names_and_is_not_the_test_file(tmp_path: Path, name: str) -> None:
    content = {"tsv": "1\ta\n2\tb\n", "jsonl": '{"label": 1, "text": "a"}\n'}.get(name.split(".")[1], "1,a\n2,b\n")
    written(tmp_path / "set" / name, gzip.compress(content.encode()) if name.endswith(".gz") else content)
    for other in ("train.csv", "test.csv"):
        written(tmp_path / "set" / other, "1,a\n2,b\n")
    corpus = opened(tmp_path / "set")
    assert named(corpus) == {"train": "train.csv", "validation": name, "test": "test.csv"}
    assert {f"{name} is the validation split", "test.csv is the test split"} < set(corpus.notes)


def test_folders_per_class_have_three_splits_too(tmp_path: Path) -> None:
    for split in ("train", "dev", "test"):
        for label in ("ham", "spam"):
            written(tmp_path / "set" / split / label / "1.txt", f"{split} {label}")
    corpus = opened(tmp_path / "set")
    assert named(corpus) == {"train": "train", "validation": "dev", "test": "test"}
    assert [texts(source) for source in corpus.sources.values()] == [
        [f"{split} ham", f"{split} spam"] for split in ("train", "dev", "test")
    ]


# What was named, and what the splits of a folder with train.csv, valid.csv, test.csv and other.csv then are.
NAMED = {
    "nothing": ({}, {"validation": "valid.csv", "test": "test.csv"}, ""),
    "the test file for validation": (
        {"validation": "test.csv"},
        {"validation": "test.csv"},
        "valid.csv is not used: test.csv is the validation split",
    ),
    "another file for validation": (
        {"validation": "other.csv"},
        {"validation": "other.csv", "test": "test.csv"},
        "valid.csv is not used: other.csv is the validation split",
    ),
    "another file for the test": (
        {"test": "other.csv"},
        {"validation": "valid.csv", "test": "other.csv"},
        "test.csv is not used: other.csv is the test split",
    ),
    "the validation file for the test": (
        {"test": "valid.csv"},
        {"test": "valid.csv"},
        "test.csv is not used: valid.csv is the test split",
    ),
    "both, exchanged": (
        {"validation": "test.csv", "test": "valid.csv"},
        {"validation": "test.csv", "test": "valid.csv"},
        "",
    ),
}


@pytest.mark.parametrize("case", NAMED)
def test_what_is_named_comes_before_what_is_found_and_no_file_has_two_uses(tmp_path: Path, case: str) -> None:
    chosen, expected, note = NAMED[case]
    for name in ("train.csv", "valid.csv", "test.csv", "other.csv"):
        written(tmp_path / "set" / name)
    corpus = opened(tmp_path / "set", **{split: tmp_path / "set" / name for split, name in chosen.items()})
    assert named(corpus) == {"train": "train.csv", **expected}
    assert [each for each in corpus.notes if "is not used:" in each] == ([note] if note else [])


def test_one_file_for_two_splits_is_refused(tmp_path: Path) -> None:
    train, other = (written(tmp_path / "set" / name) for name in ("train.csv", "other.csv"))
    with pytest.raises(UsageError, match=r"validation and test both name '.*other\.csv'"):
        opened(train, validation=other, test=other)
    with pytest.raises(UsageError, match=r"test '.*train\.csv' is the file to train on"):
        opened(tmp_path / "set", test=train)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_folder_that_is_named_gives_its_own_file_of_that_split(tmp_path: Path, split: str) -> None:
    train = written(tmp_path / "alone.csv")
    for name in ("train.csv", "dev.csv", "test.csv"):
        written(tmp_path / "set" / name)
    corpus = opened(train, **{split: tmp_path / "set"})
    assert named(corpus) == {"train": "alone.csv", split: {"validation": "dev.csv", "test": "test.csv"}[split]}


def test_a_name_without_a_folder_is_found_here_or_beside_the_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    train, beside = (written(tmp_path / "set" / name) for name in ("train.csv", "test.csv"))
    for corpus in (train, tmp_path / "set"):
        assert find_beside(corpus, Path("test.csv"), "--validation") == beside
        for missing in ("tset.csv", "set/test.csv"):
            with pytest.raises(CorpusNotFoundError, match=f"validation '{missing}' does not exist"):
                find_beside(corpus, Path(missing), "--validation")
    own = written(tmp_path / "here" / "test.csv")
    assert find_beside(train, Path("test.csv"), "--validation").resolve() == own


def test_two_files_of_one_split_are_refused(tmp_path: Path) -> None:
    for name in ("train.csv", "dev.csv", "valid.csv"):
        written(tmp_path / "set" / name)
    with pytest.raises(CorpusFormatError, match=r"more than one validation file: dev\.csv, valid\.csv"):
        opened(tmp_path / "set")
    assert named(opened(tmp_path / "set" / "train.csv")) == {"train": "train.csv"}
