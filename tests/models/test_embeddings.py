"""Laws of reading word vectors: rows are those of the file, whatever its dialect, and nothing else is kept."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from shardtrain.errors import ModelError
from shardtrain.models.embeddings import read_vectors

WORDS = ["the", "über", "absent", ". . ."]
LINES = ["the 1 2 3.5", "other 9 9 9", "über -1e-3 0 2", "66 8 8 8", "  5 5 5", ". . . 4 5 6"]
EXPECTED = [[0, 0, 0], [1, 2, 3.5], [-0.001, 0, 2], [0, 0, 0], [4, 5, 6], [0, 0, 0]]


@pytest.mark.parametrize("header", ["", "5 3\n"], ids=["GloVe", "fastText"])
@pytest.mark.parametrize("name", ["vectors.txt", "vectors.vec.gz"])
@pytest.mark.parametrize("ending", ["\n", " \r\n"], ids=["plain ends", "spaces before line ends"])
@pytest.mark.parametrize("lines", [LINES, LINES[::-1]], ids=["a word first", "a word with spaces first"])
def test_ids_get_the_vectors_of_their_words_and_absent_words_zeros(
    tmp_path: Path, header: str, name: str, ending: str, lines: list[str]
) -> None:
    content = (header + "".join(line + ending for line in lines)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    vectors = read_vectors(tmp_path / name, WORDS, 6)
    np.testing.assert_array_equal(vectors.table, np.array(EXPECTED, np.float32))
    assert vectors.found == 3


def test_tabs_and_more_spaces_part_values_as_well_and_a_mark_before_the_first_word_is_none_of_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "v").write_text("\ufeffthe\t1  2\t3.5\n. . .  4\t5 6\n", encoding="utf-8")
    assert read_vectors(tmp_path / "v", WORDS, 6).table.tolist() == [
        [0] * 3,
        [1, 2, 3.5],
        *[[0] * 3] * 2,
        [4, 5, 6],
        [0] * 3,
    ]


def test_the_first_vector_of_a_word_counts(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("the 1 2\nthe 7 7\n")
    assert read_vectors(tmp_path / "v", ["the"], 2).table.tolist() == [[0, 0], [1, 2]]


@pytest.mark.parametrize("content", [gzip.compress(b"the 1 2\n" * 99)[:-9], b"the 1 2\n"], ids=["cut", "plain"])
def test_a_gz_file_that_is_none_or_cut_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.gz").write_bytes(content)
    with pytest.raises(ModelError, match=r"v\.gz' cannot be decompressed"):
        read_vectors(tmp_path / "v.gz", WORDS, 6)


def test_lines_of_other_words_are_not_even_parsed(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("the 1 2\nother x y\n")
    assert read_vectors(tmp_path / "v", ["the"], 2).table.tolist() == [[0, 0], [1, 2]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("the 1 2 3\nabsent 1 x 3\n", "line 2: expected a word and 3 finite numbers"),
        ("the 1 2 3\nabsent 1 2\n", "line 2: expected a word and 3 finite numbers"),
        ("the 1 nan 3\n", "line 1: expected a word and 3 finite numbers"),
        ("the 1 1e39 3\n", "line 1: expected a word and 3 finite numbers"),
        ("the\n", "line 1: expected a word and 0 finite numbers"),
        ("9 300\nthe 1 2 3\n", "line 2: expected a word and 300 finite numbers"),
        ("other 1 2\n", "has none of the 4 words of the vocabulary"),
        ("", "has none of the 4 words of the vocabulary"),
    ],
    ids=[
        *("not a number", "too few", "not finite", "too large", "no numbers", "other than its header says"),
        *("another language", "empty"),
    ],
)
def test_files_that_cannot_be_used_are_named_with_the_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "v.txt"
    path.write_text(content)
    with pytest.raises(ModelError, match=re.escape(str(path)) + ".*" + said):
        read_vectors(path, WORDS, 6)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file of word vectors"):
        read_vectors(tmp_path / "absent.txt", WORDS, 6)
