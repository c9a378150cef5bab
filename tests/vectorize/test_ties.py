"""Which of the features with equal scores are chosen is scikit-learn's choice, however few strings memory can hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_selection import SelectKBest
from support.oracle import TEXTS, check_any_text

from shardtrain.arrays.texts import Texts
from shardtrain.pipeline import build as job
from shardtrain.pipeline import selecting, tying
from shardtrain.vectorize import selection, ties

STRINGS = st.lists(
    st.one_of(
        st.text(max_size=12),
        st.text(st.sampled_from("ab\0é\uffff\ud800\U0001f642"), max_size=20),
        st.integers(0, 30).map(lambda number: "a common beginning " * (number % 3) + "\0" * number),
    ),
    unique=True,
    max_size=40,
)


@settings(max_examples=120, deadline=None)
@given(strings=STRINGS, room=st.integers(0, 45), later=st.booleans())
def test_the_best_strings_are_the_last_or_the_first_in_the_order_of_python(strings, room, later):
    found = [strings[i] for i in ties.best_strings(Texts.from_strings(strings), room, later_wins=later)]
    ordered = sorted(strings, reverse=later)
    assert sorted(found, reverse=later) == ordered[:room]


@settings(max_examples=80, deadline=None)
@given(strings=STRINGS.filter(bool), number=st.integers(0, 100), later=st.booleans())
def test_what_wins_against_a_string_is_what_comes_after_it_or_before(strings, number, later):
    texts, rival = Texts.from_strings(strings), strings[number % len(strings)]
    encoded = rival.encode("utf-8", "surrogatepass")
    found = [strings[i] for i in ties.beating(texts, encoded, later_wins=later)]
    assert found == [each for each in strings if (each > rival if later else each < rival)]
    worst = (min if later else max)(strings)
    assert ties.worst_string(texts, later_wins=later) == worst.encode("utf-8", "surrogatepass")


SCORES = st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.5, np.inf, -np.inf, np.nan, np.finfo(float).min]), min_size=1)


@settings(max_examples=120, deadline=None)
@given(scores=SCORES, keep=st.integers(1, 12), size=st.integers(1, 9), seed=st.integers(0, 5))
def test_the_boundary_found_in_pieces_gives_the_choice_of_select_k_best(scores, keep, size, seed):
    values = np.array(scores)
    keep = min(keep, len(values))
    terms = [f"term {number:05}" for number in np.random.default_rng(seed).permutation(len(values))]
    boundary = selection.find_boundary((values[i : i + size] for i in range(0, len(values), size)), keep)
    certain = np.flatnonzero(selection.ranked(values) > boundary.score)
    tied = np.flatnonzero(selection.ranked(values) == boundary.score)
    kept = tied[ties.best_strings(Texts.from_strings([terms[i] for i in tied]), boundary.room, later_wins=True)]

    columns = np.argsort(terms)
    selector = SelectKBest(lambda x, y: values[columns], k=keep).fit(np.zeros((2, len(values))), [0, 1])
    expected = columns[selector.get_support()]
    assert sorted([*certain, *kept]) == sorted(expected)
    np.testing.assert_array_equal(selection.choose(values, terms, keep), expected)


OPTIONS = st.fixed_dictionaries(
    {
        "select": st.sampled_from(["f_classif", "chi2", "none"]),
        "analyzer": st.sampled_from(["word", "char", "char_wb"]),
        "ngram_range": st.sampled_from([(1, 1), (1, 2), (2, 3)]),
        "max_features": st.integers(1, 8),
        "min_df": st.integers(1, 2),
    }
)


@pytest.fixture
def settled(monkeypatch) -> list[int]:
    """All ties are settled before any is named, in units of a few documents; the result counts the settled ties."""
    found, settle = [], selecting.settle

    def counted(*arguments, **options):
        found.append(1)
        return settle(*arguments, **options)

    monkeypatch.setattr(selecting, "TIE_BYTES", 1 << 60)
    monkeypatch.setattr(tying, "_FIRST_ROUND", 1)
    monkeypatch.setattr(selecting, "settle", counted)
    monkeypatch.setattr(job, "UNIT_BYTES", 64)
    return found


@pytest.mark.parametrize(
    ("examples", "least"),
    [
        pytest.param(18, 5, id="some texts", marks=pytest.mark.heavy),
        pytest.param(1000, 100, id="many texts", marks=pytest.mark.slow),
    ],
)
def test_ties_settled_unit_by_unit_are_those_of_scikit_learn(examples, least, settled):
    @settings(max_examples=examples, deadline=None)
    @given(texts=TEXTS, seed=st.integers(0, 3), options=OPTIONS)
    def check(texts, seed, options):
        check_any_text(texts, seed, options)

    check()
    assert len(settled) > least
