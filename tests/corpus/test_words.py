"""Laws of words of long texts: they are those of `str.split`, and looking at them takes no list of all."""

from __future__ import annotations

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtrain.corpus import words
from shardtrain.corpus.words import beginning, count_words, has_words

TEXTS = st.text(
    st.characters(blacklist_categories=()) | st.sampled_from(" \t\n\x0b\x0c\r\x1c\x1f\x85\xa0\u2003\u3000a")
)


@given(TEXTS, st.integers(1, 6))
def test_words_are_those_that_split_finds(text: str, least: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(words, "_LONG", 3)
        assert count_words(text) == len(text.split())
    assert count_words(text) == len(text.split())
    assert has_words(text, least) == (len(text.split()) >= least)


@given(TEXTS, st.integers(2, 30))
def test_a_beginning_is_that_of_the_joined_words(text: str, most: int) -> None:
    joined = " ".join(text.split())
    assert beginning(text, most) == (joined if len(joined) <= most else joined[: most - 1] + "…")


def test_a_long_text_takes_no_list_of_its_words() -> None:
    text = "aa " * 300_000
    tracemalloc.start()
    assert count_words(text) == 300_000
    assert has_words(text, 5)
    assert beginning(text, 80).endswith("…")
    assert tracemalloc.get_traced_memory()[1] < 4 << 20  # a list has 17 MB
    tracemalloc.stop()
