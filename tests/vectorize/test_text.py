"""Preparing text: every character of Unicode becomes what Python's own modules make of it."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shardtrain.vectorize.text import KERAS_FILTERS, keras_characters, lowered, word_characters

EVERY = [chr(code) for code in range(sys.maxunicode + 1)]


def pieces(block):
    content = block.data.tobytes()
    for start, stop in zip(block.bounds[:-1], block.bounds[1:], strict=True):
        yield content[start:stop].decode("utf-8", "surrogatepass")


def strip_accents_unicode(text: str) -> str:
    """As scikit-learn defines it."""
    return "".join(c for c in unicodedata.normalize("NFKD", text) if not unicodedata.combining(c))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(lowered, str.lower), (partial(lowered, strip=True), lambda text: strip_accents_unicode(text.lower()))],
    ids=["lowered", "lowered and stripped"],
)
def test_every_character_becomes_what_python_makes_of_it(ours, theirs):
    """Lines do not touch each other in Python, so all characters are given to it at once."""
    block = ours(EVERY)
    found = np.insert(block.data, block.bounds[1:-1], ord("\n")).tobytes()
    assert found == theirs("\n".join(EVERY)).encode("utf-8", "surrogatepass")


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(st.one_of(st.characters(), st.sampled_from("Σσς aA.\u0301\u0345İ")), max_size=20)))
def test_any_documents_become_what_python_makes_of_them_one_by_one(texts):
    assert list(pieces(lowered(texts))) == [text.lower() for text in texts]
    assert list(pieces(lowered(texts, strip=True))) == [strip_accents_unicode(text.lower()) for text in texts]


SIGMAS = ["A{}\u03a3", "{}\u03a3", "A\u03a3{}", "A\u03a3{}B"]


@pytest.mark.parametrize("pattern", SIGMAS)
def test_a_capital_sigma_is_lowered_as_python_lowers_it_beside_characters_of_every_script(pattern):
    check_sigma(pattern, EVERY[:0x3000] + EVERY[0x3000::13])


@pytest.mark.slow
@pytest.mark.parametrize("pattern", SIGMAS)
def test_a_capital_sigma_is_lowered_as_python_lowers_it_beside_every_character(pattern):
    check_sigma(pattern, EVERY)


def check_sigma(pattern, characters):
    texts = [pattern.format(character) for character in characters]
    assert list(pieces(lowered(texts))) == [text.lower() for text in texts]


def test_word_characters_are_those_of_re():
    assert [c for c, inside in zip(EVERY, word_characters(), strict=True) if inside] == re.findall(
        r"\w", "".join(EVERY)
    )


def test_keras_characters_are_all_but_its_filters_and_the_space():
    assert {EVERY[code] for code in np.flatnonzero(keras_characters() == 0)} == {*KERAS_FILTERS, " "}
