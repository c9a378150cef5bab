"""Laws of reading word vectors: rows are those of the file, whatever its dialect, and nothing else is kept."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import numpy as np
import pytest

from shardtrain.embeddings import read_vectors
from shardtrain.errors import ModelError

WORDS = ["the", "über", "absent", ". . ."]
LINES = ["the 1 2 3.5", "other 9 9 9", "über -1e-3 0 2", ". . . 4 5 6", "the 7 7 7"]
EXPECTED = [[0, 0, 0], [1, 2, 3.5], [-0.001, 0, 2], [0, 0, 0], [4, 5, 6], [0, 0, 0]]


@pytest.mark.parametrize("header", ["", "5 3\n"], ids=["GloVe", "fastText"])
@pytest.mark.parametrize("name", ["vectors.txt", "vectors.vec.gz"])
@pytest.mark.parametrize("ending", ["\n", " \r\n"], ids=["plain ends", "spaces before line ends"])
def test_ids_get_the_vectors_of_their_words_and_absent_words_zeros(
    tmp_path: Path, header: str, name: str, ending: str
) -> None:
    content = (header + "".join(line + ending for line in LINES)).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    vectors = read_vectors(tmp_path / name, WORDS, 6)
    np.testing.assert_array_equal(vectors.table, np.array(EXPECTED, np.float32))
    assert vectors.found == 3


def test_lines_of_other_words_are_not_even_parsed(tmp_path: Path) -> None:
    (tmp_path / "v").write_text("the 1 2\nother x y\n")
    assert read_vectors(tmp_path / "v", ["the"], 2).table.tolist() == [[0, 0], [1, 2]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("the 1 2 3\nabsent 1 x 3\n", "line 2: expected a word and 3 finite numbers"),
        ("the 1 2 3\nabsent 1 2\n", "line 2: expected a word and 3 finite numbers"),
        ("the 1 nan 3\n", "line 1: expected a word and 3 finite numbers"),
        ("the\n", "line 1: expected a word and 0 finite numbers"),
        ("other 1 2\n", "has none of the 4 words of the vocabulary"),
        ("", "has none of the 4 words of the vocabulary"),
    ],
    ids=["not a number", "too few", "not finite", "no numbers", "another language", "empty"],
)
def test_files_that_cannot_be_used_are_named_with_the_line(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "v.txt"
    path.write_text(content)
    with pytest.raises(ModelError, match=re.escape(str(path)) + ".*" + said):
        read_vectors(path, WORDS, 6)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no file of word vectors"):
        read_vectors(tmp_path / "absent.txt", WORDS, 6)
