"""Laws of the rows of new texts: they depend on the text alone, and lookups find what a search finds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.topics import TOPICS, write_corpus

from shardtrain.arrays.csr import Csr
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime.progress import QUIET, verbosity
from shardtrain.vectorize import fitted, new_rows
from shardtrain.vectorize.fitted import Vectorizer, load_vectorizer
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.new_rows import Index, TermWeights, count_keys
from shardtrain.vectorize.settings import NgramSettings
from shardtrain.vectorize.weights import weights_of

WORDS = sorted({word for words in TOPICS.values() for word in words} | {"unheard", "of", "x"})
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=80).map(" ".join), max_size=12)
KINDS = {
    "words": {},
    "counts of characters": {"analyzer": "char_wb", "ngram_range": (2, 4), "select": "none", "sublinear_tf": True},
    "hashed": {"vectorizer": "hashing", "max_features": 64},
}


@pytest.fixture(scope="module", params=KINDS)
def vectorizer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Vectorizer:
    folder: Path = tmp_path_factory.mktemp("shards")
    with verbosity(QUIET):
        build(write_corpus(folder / "corpus", tuple(TOPICS)), folder / "out", BuildOptions(**KINDS[request.param]))
    return load_vectorizer(folder / "out" / "vectorizer")


def assert_same_rows(found: Csr, expected: Csr) -> None:
    assert found.shape == expected.shape
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@settings(max_examples=40)
@given(TEXTS, st.integers(1, 400))
def test_a_row_does_not_depend_on_the_texts_around_it(vectorizer: Vectorizer, texts: list[str], size: int) -> None:
    whole = vectorizer.transform(texts)
    assert isinstance(whole, Csr)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitted, "BLOCK_BYTES", size)
        found = vectorizer.transform(texts)
        assert isinstance(found, Csr)
        assert_same_rows(found, whole)
    for number, text in enumerate(texts):
        alone = vectorizer.transform([text])
        assert isinstance(alone, Csr)
        assert_same_rows(alone, whole.rows(number, number + 1))
        assert (np.diff(alone.indices) > 0).all()


@settings(max_examples=50)
@given(st.lists(st.text(max_size=5), max_size=30), st.integers(1, 20))
def test_blocks_are_the_texts_in_order(texts: list[str], size: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fitted, "BLOCK_BYTES", size)
        blocks = list(fitted.blocks_of(texts, 1))
    assert [text for block in blocks for text in block] == texts
    assert len(blocks) == 1 or all(len(block) for block in blocks)
    longest = max((len(text.encode("utf-8", "surrogatepass")) for text in texts), default=0)
    assert all(len(block.data) <= size + longest for block in blocks)


@settings(deadline=None)  # the first one loads kernels
@given(
    st.sets(st.integers(0, 2**64 - 1) | st.integers(0, 40) | st.integers(2**64 - 9, 2**64 - 1), min_size=1),
    st.lists(st.integers(0, 2**64 - 1) | st.integers(0, 40)),
)
def test_a_hash_is_found_where_it_is_however_hashes_lie(present: set[int], others: list[int]) -> None:
    hashes = np.array(sorted(present), np.uint64)
    index = Index.of(TermIds(hashes, np.empty(0, np.uint32)))
    for wanted in [*sorted(present), *others]:
        place = new_rows._place(np.uint64(wanted), hashes, index.starts, index.shift)
        assert place == (hashes.tolist().index(wanted) if wanted in present else -1)


@given(st.lists(st.integers(1, 300), min_size=1), st.integers(1, 20))
def test_weights_of_rare_frequencies_are_those_of_a_table(counts: list[int], tabled: int) -> None:
    weights, frequencies = weights_of(NgramSettings()), np.array(counts, np.uint32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(new_rows, "_TABLED", tabled)
        found = TermWeights.of(frequencies, weights, 400)
    expected = weights.of_terms(frequencies.astype(np.int64), 400)
    for count, weight in zip(counts, expected, strict=True):
        known = count < len(found.by_count)
        assert weight == (found.by_count[count] if known else found.by_rare[np.searchsorted(found.rare, count)])


@given(st.lists(st.lists(st.tuples(st.integers(0, 9), st.sampled_from([1, -1])), max_size=40), max_size=6))
def test_keys_are_counted_as_python_counts_them(documents: list[list[tuple[int, int]]]) -> None:
    keys = np.array([key for document in documents for key, _ in document], np.int64)
    signs = np.array([sign for document in documents for _, sign in document], np.int8)
    indptr = np.cumsum([0, *map(len, documents)])
    found = count_keys(keys, signs, indptr)
    for number, document in enumerate(documents):
        expected: dict[int, int] = {}
        for key, sign in document:
            expected[key] = expected.get(key, 0) + sign
        entries = slice(found.indptr[number], found.indptr[number + 1])
        assert dict(zip(found.keys[entries].tolist(), found.times[entries].tolist(), strict=True)) == expected
        assert found.keys[entries].tolist() == list(expected)
