"""Laws of places: each term of a row is found, where it stands in the text, as scikit-learn and Keras split texts."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.texts import Texts
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.vectorize.fitted import Vectorizer, load_vectorizer, save_vectorizer
from shardtrain.vectorize.places import find_places
from shardtrain.vectorize.settings import MAX_COLUMNS, HashedSettings

PIECES = [
    *"abcXYZ  \t\n,.'\x00\u3000\u2028日本ßéÅ",
    *("e\u0301", "\u0301", "\u200d", "ﬁ", "\ufb05", "½", "㎏", "ﷺ", "¨", "İ", "ǅ", "ẞ", "\U0001f600"),
    *("Σ", "ΑΣ", "ς", "\ud800", "\udc00", "the ", "of "),
]
HOSTILE = st.lists(st.one_of(st.sampled_from(PIECES), st.characters()), max_size=30).map("".join)
WAYS: dict[str, dict[str, Any]] = {
    "words": {"ngram_range": (1, 2)},
    "words, accents kept, stop words": {"ngram_range": (1, 3), "strip_accents": "none", "stop_words": ("the", "of")},
    "characters": {"analyzer": "char", "ngram_range": (1, 3)},
    "characters within words": {"analyzer": "char_wb", "ngram_range": (2, 4)},
    "characters within words, accents kept": {"analyzer": "char_wb", "ngram_range": (3, 5), "strip_accents": "none"},
}
THE_SIGMAS = str.maketrans("ς", "σ")  # in a part of a text another sigma may be the last letter


def hashing(folder: Path, way: dict[str, Any], columns: int = MAX_COLUMNS) -> Vectorizer:
    return save_vectorizer(folder, HashedSettings(max_features=columns, **way), {}, [], {})


def analyzer(way: dict[str, Any]) -> Callable[[str], list[str]]:
    """How scikit-learn splits a text."""
    given = {**way, "strip_accents": None if way.get("strip_accents") == "none" else "unicode"}
    given["stop_words"] = list(given["stop_words"]) if "stop_words" in given else None
    split: Callable[[str], list[str]] = TfidfVectorizer(**given).build_analyzer()
    return split


def found(vectorizer: Vectorizer, text: str) -> list[tuple[tuple[str, ...], tuple[tuple[int, int], ...]]]:
    """The terms of a text with their places."""
    (terms,) = find_places(vectorizer, Texts.from_strings([text]))
    return terms.of([key for key in dict.fromkeys(terms.keys.tolist()) if key >= 0])


@pytest.fixture(scope="module", params=WAYS)
def way(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Vectorizer]:
    chosen = WAYS[request.param]
    return chosen, hashing(tmp_path_factory.mktemp("vectorizer"), chosen)


@given(text=HOSTILE)
@settings(max_examples=60, deadline=None)
def test_terms_are_those_of_scikit_learn_and_each_place_folds_to_its_term(way, text):
    chosen, vectorizer = way
    split = analyzer(chosen)
    terms = found(vectorizer, text)
    assert {string for strings, _ in terms for string in strings} == set(split(text))
    for (string,), places in terms:
        assert list(places) == sorted(set(places))
        for start, stop in places:
            assert 0 <= start < stop <= len(text)
            there = text[start:stop]
            if chosen.get("analyzer", "word") == "word":
                assert string.translate(THE_SIGMAS) in [each.translate(THE_SIGMAS) for each in split(there)]
            else:
                assert string.strip().translate(THE_SIGMAS) in folded(there, chosen).translate(THE_SIGMAS)


def folded(text: str, way: dict[str, Any]) -> str:
    """A text in lower case and with single spaces, as scikit-learn prepares it."""
    text = text.lower()
    if way.get("strip_accents") != "none":
        text = "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))
    return re.sub(r"\s\s+", " ", text)


@given(text=st.text("ab ,\t", max_size=30))
@settings(max_examples=50, deadline=None)
def test_an_ascii_text_has_as_many_places_as_terms_none_wider_than_the_term(way, text):
    chosen, vectorizer = way
    counts = Counter(analyzer(chosen)(text))
    for (string,), places in found(vectorizer, text):
        if len(string.strip()) > 0 and not string.startswith(" ") and not string.endswith(" "):
            assert len(places) == counts[string]
        for start, stop in places:
            if chosen.get("analyzer", "word") == "word":
                assert re.sub(r"\W+(\w\W+)*", " ", text[start:stop]) == string
            elif not re.search(r"\s\s", text[start:stop]):
                assert text[start:stop].replace("\t", " ").strip() == string.replace("\t", " ").strip()


@pytest.mark.parametrize(
    ("text", "term", "place"),
    [
        ("x cafe\u0301, y", "cafe", (2, 7)),  # the accent belongs to its letter
        ("the ﬁnal", "final", (4, 8)),
        ("10㎏", "10kg", (0, 3)),
        ("\ud800\udc00 ΟΔΟΣ", "οδος", (3, 7)),
        ("İstanbul", "istanbul", (0, 8)),
    ],
)
def test_places_are_in_characters_of_the_given_string(tmp_path, text, term, place):
    assert ((term,), (place,)) in found(hashing(tmp_path, {"ngram_range": (1, 1)}), text)


def test_white_space_that_becomes_one_space_is_a_place_as_a_whole(tmp_path):
    vectorizer = hashing(tmp_path, {"analyzer": "char", "ngram_range": (3, 3)})
    assert ((("a b",), ((0, 5),))) in found(vectorizer, "a \t b")


def test_n_grams_that_share_a_column_are_all_named(tmp_path):
    vectorizer = hashing(tmp_path, {"ngram_range": (1, 1)}, columns=3)
    text = "one two three four five one"
    terms = found(vectorizer, text)
    assert len(terms) <= 3
    assert sorted(string for strings, _ in terms for string in strings) == sorted(set(text.split()))
    for strings, places in terms:
        assert {text[start:stop] for start, stop in places} == set(strings)


@pytest.mark.parametrize("way", ["words", "characters"])
def test_the_columns_of_places_are_those_of_the_row_also_in_a_block_of_many_texts(way, tmp_path, write_csv):
    texts = [f"Éa bc{number % 7} the {number % 3} de  fgh" for number in range(60)]
    corpus = write_csv("corpus/train.csv", [[str(number % 2 + 1), text] for number, text in enumerate(texts)])
    build(corpus.parent, tmp_path / "s", BuildOptions(workers=1, max_features=20, **WAYS[way]))
    vectorizer = load_vectorizer(tmp_path / "s" / "vectorizer")
    rows = vectorizer.transform(texts)
    assert isinstance(rows, Csr)
    for row, terms in enumerate(find_places(vectorizer, Texts.from_strings(texts))):
        columns = rows.indices[rows.indptr[row] : rows.indptr[row + 1]].tolist()
        assert sorted({key for key in terms.keys.tolist() if key >= 0}) == columns
        for column, (strings, places) in zip(columns, terms.of(columns), strict=True):
            assert strings == (vectorizer.terms[column],)
            assert places


def test_words_before_the_last_ids_of_a_sequence_have_no_place(tmp_path, write_csv):
    corpus = write_csv("corpus/train.csv", [[str(number % 2 + 1), "aa bb cc dd"] for number in range(20)])
    options = BuildOptions(workers=1, vectorizer="sequence", max_length=3)
    build(corpus.parent, tmp_path / "s", options)
    vectorizer = load_vectorizer(tmp_path / "s" / "vectorizer")
    text = "aa bb unknown AA (cc)"
    (row,) = np.asarray(vectorizer.transform([text])).tolist()
    (terms,) = find_places(vectorizer, Texts.from_strings([text]))
    assert [key for key in terms.keys.tolist() if key >= 0] == row
    assert sorted(terms.of(row)) == [(("aa",), ((14, 16),)), (("bb",), ((3, 5),)), (("cc",), ((18, 20),))]
