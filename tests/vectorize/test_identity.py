"""Two terms with one hash are two terms: with hashes of few bits all is still what scikit-learn and Keras make."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.bundled import fitted, network_of, probabilities, strange_texts, write_bundle
from support.hashes import shortened_hashes
from support.oracle import TEXTS, Oracle, check_any_text, check_ngrams
from support.sampled import sampled
from support.sequences import check_sequences
from support.topics import TOPICS, write_corpus

from shardtrain.arrays.scratch import open_spilled, spill
from shardtrain.arrays.texts import Texts
from shardtrain.errors import UsageError, VectorizerError
from shardtrain.exports.bundle_reader import HEAD, load
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline import build as job
from shardtrain.pipeline import selecting, tying
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.vectorize import merging, new_rows
from shardtrain.vectorize.buckets import MERGE_BYTES, Bucket, plan_buckets, tops_of
from shardtrain.vectorize.counts import lookup, places_in, spill_postings
from shardtrain.vectorize.fitted import (
    NgramVectorizer,
    Vectorizer,
    copy_vectorizer,
    load_vectorizer,
    save_vectorizer,
)
from shardtrain.vectorize.groups import Runs
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.indexing import index_texts
from shardtrain.vectorize.inverted import Inverted, ordered
from shardtrain.vectorize.merging import merge_bucket
from shardtrain.vectorize.new_rows import Index
from shardtrain.vectorize.places import find_places
from shardtrain.vectorize.saved import read_vectorizer
from shardtrain.vectorize.settings import NgramSettings, SequenceSettings

BITS = (0, False), (3, False), (8, False), (8, True)
OPTIONS = st.fixed_dictionaries(
    {
        "select": st.sampled_from(["f_classif", "chi2", "none"]),
        "analyzer": st.sampled_from(["word", "char", "char_wb"]),
        "ngram_range": st.sampled_from([(1, 1), (1, 2), (2, 3)]),
        "max_features": st.integers(1, 12),
        "min_df": st.integers(1, 2),
    }
)
FEW = settings(max_examples=6, deadline=None, derandomize=True)


# Features of texts


@pytest.mark.parametrize(("bits", "leading"), sampled(BITS, (0, 3)))
@FEW
@given(texts=TEXTS, seed=st.integers(0, 3), options=OPTIONS)
def test_ngrams_that_share_hashes_have_the_rows_of_scikit_learn(bits, leading, texts, seed, options):
    with shortened_hashes(bits, leading=leading), pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "UNIT_BYTES", 64)
        check_any_text(texts, seed, options)


@FEW
@given(texts=TEXTS, seed=st.integers(0, 3), options=OPTIONS)
def test_ties_of_ngrams_that_share_hashes_are_settled_as_by_scikit_learn(texts, seed, options):
    with shortened_hashes(2), pytest.MonkeyPatch.context() as patch:
        patch.setattr(selecting, "TIE_BYTES", 1 << 60)
        patch.setattr(tying, "_FIRST_ROUND", 1)
        patch.setattr(job, "UNIT_BYTES", 64)
        check_any_text(texts, seed, options)


@pytest.mark.parametrize(("bits", "leading"), sampled(BITS, (1, 2)))
@FEW
@given(texts=TEXTS, max_features=st.integers(2, 12), max_length=st.integers(1, 6))
def test_words_that_share_hashes_have_the_ids_of_keras(bits, leading, texts, max_features, max_length):
    with shortened_hashes(bits, leading=leading), pytest.MonkeyPatch.context() as patch:
        patch.setattr(job, "UNIT_BYTES", 64)
        check_sequences(texts, max_features, max_length)


@pytest.mark.heavy
@pytest.mark.parametrize("bits", [0, 8])
def test_a_real_corpus_of_ngrams_that_share_hashes_has_the_rows_of_scikit_learn(
    bits, data, read_csv, write_csv, tmp_path
):
    labels, texts = (column[::4] for column in read_csv(data / "mr" / "all.csv"))
    corpus = write_csv("all.csv", zip(labels, texts, strict=True))
    with shortened_hashes(bits):
        build(corpus, tmp_path / "out", BuildOptions(validation_fraction=0.0, unescape=False, header=False))
    classes = [int(label) - 1 for label in labels]
    with open_shards(tmp_path / "out") as shards:
        check_ngrams(shards, Oracle(texts, classes), classes, [text[::2] for text in texts[:200]] + texts[:200])


# What a saved vectorizer does

KINDS: dict[str, dict[str, Any]] = {
    "words": {"ngram_range": (1, 3), "stop_words": ("oven", "mast")},
    "characters": {"analyzer": "char_wb", "ngram_range": (2, 4), "select": "none"},
    "counts": {"vectorizer": "count"},
    "sequences": {"vectorizer": "sequence"},
}


@pytest.fixture(scope="module", params=KINDS)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Vectorizer, Vectorizer]:
    """The same vectorizer with whole and with shortened hashes."""
    whole = fitted(tmp_path_factory.mktemp("whole"), **KINDS[request.param])
    with shortened_hashes(5):
        return whole, fitted(tmp_path_factory.mktemp("short"), **KINDS[request.param])


def test_only_vectorizers_that_need_checks_have_them(pair: tuple[Vectorizer, Vectorizer]) -> None:
    whole, short = (each.describe() for each in pair)
    assert (whole["version"], short["version"]) == (1, 2)
    assert set(short["files"]) - set(whole["files"]) == {"checks.npy"}


def test_shortened_hashes_change_no_row_and_no_place(pair: tuple[Vectorizer, Vectorizer]) -> None:
    whole, short = pair
    assert whole.terms == short.terms
    texts = [text.replace("\0", "") for text in strange_texts(200, 7)]
    found, expected = short.transform(texts), whole.transform(texts)
    if isinstance(expected, np.ndarray):
        np.testing.assert_array_equal(found, expected)
    else:
        assert (found.to_scipy() != expected.to_scipy()).nnz == 0
    block = Texts.from_strings(texts)
    for ours, theirs in zip(find_places(short, block), find_places(whole, block), strict=True):
        np.testing.assert_array_equal(ours.keys, theirs.keys)
        keys = sorted({key for key in theirs.keys.tolist() if key >= 0})
        assert ours.of(keys) == theirs.of(keys)


@pytest.mark.parametrize(
    ("name", "bits"),
    sampled([(name, bits) for name in ("words", "characters", "counts") for bits in (0, 5, 30)], (1, 3, 8)),
)
def test_a_bundle_of_shortened_hashes_gives_the_probabilities_of_predict(name: str, bits: int, tmp_path: Path) -> None:
    with shortened_hashes(bits):
        vectorizer = fitted(tmp_path, **KINDS[name])
    network, texts = network_of(vectorizer.num_features), strange_texts(300, 2)
    path = write_bundle(tmp_path / "a.bundle", network, vectorizer)
    assert HEAD.unpack_from(path.read_bytes())[1] == 2
    np.testing.assert_allclose(
        load(path).probabilities(texts), probabilities(network, vectorizer, texts), rtol=0, atol=2e-6
    )


# Files


def arrays_of(hashes: list[int], checks: list[int], counts: list[int]) -> dict[str, list[np.ndarray]]:
    columns = np.full(len(hashes), -1, np.int32)
    columns[0] = 0
    return {
        "hashes": [np.array(hashes, np.uint64)],
        "checks": [np.array(checks, np.uint32)],
        "counts": [np.array(counts, np.int64)],
        "columns": [columns],
        "scores": [np.ones(1)],
    }


def test_counts_beyond_32_bits_are_kept(tmp_path: Path) -> None:
    counts = [1 << 33, (1 << 33) + 1, 3]
    facts = {"num_documents": 1 << 34}
    found = save_vectorizer(tmp_path, NgramSettings(), facts, ["a"], arrays_of([1, 2, 3], [9, 8, 7], counts))
    assert isinstance(found, NgramVectorizer)
    assert found.describe()["version"] == 2
    assert (found.arrays["counts"].dtype, found.arrays["counts"].tolist()) == (np.dtype(np.uint64), counts)
    block = index_texts(NgramSettings(ngram_range=(1, 1)), ["word word other"])
    order = np.argsort(block.first)
    facts = {"num_documents": 1 << 34}
    arrays = arrays_of(block.hashes.tolist(), block.checks.tolist(), [1 << 33, 5])
    arrays["columns"] = [np.arange(2, dtype=np.int32)]
    arrays["scores"] = [np.ones(2)]
    settings_ = NgramSettings(ngram_range=(1, 1))
    found = save_vectorizer(tmp_path / "words", settings_, facts, ["x", "y"], arrays)
    idf = np.log((1 + (1 << 34)) / (1.0 + np.array([1 << 33, 5]))) + 1
    times = np.array([2.0, 1.0])[np.argsort(order)]
    values = idf * times
    row = found.transform(["word word other"])
    np.testing.assert_allclose(row.data, values / np.sqrt((values**2).sum()), rtol=1e-6)


@pytest.mark.parametrize(
    ("hashes", "checks", "said"),
    [
        ([1, 1, 2], [4, 4, 5], r"`checks.npy\[1\]` is 4, expected more than the one before, 4"),
        ([1, 1, 2], [4, 3, 5], r"`checks.npy\[1\]` is 3, expected more than the one before, 4"),
        ([1, 1, 0], [4, 5, 6], r"`hashes.npy\[2\]` is 0, expected more than the one before, 1"),
        ([1, 1, 2], [4, 5], r"`checks.npy` is a list of 2, expected 3 items"),
    ],
)
def test_terms_that_do_not_ascend_by_hash_and_check_are_refused(tmp_path, hashes, checks, said):
    with pytest.raises(VectorizerError, match=said):
        save_vectorizer(tmp_path, NgramSettings(), {"num_documents": 3}, ["a"], arrays_of(hashes, checks, [1, 1, 1]))


def test_a_word_twice_is_refused(tmp_path):
    arrays = {"hashes": [np.array([5, 5], np.uint64)], "checks": [np.array([7, 7], np.uint32)]}
    with pytest.raises(VectorizerError, match="one hash and check twice"):
        save_vectorizer(tmp_path, SequenceSettings(), {"num_words": 2, "length": 3}, ["b", "a"], arrays)


@pytest.mark.parametrize("documents", [(1 << 32) - 1, 1 << 32])
def test_the_oldest_version_that_suffices_is_written(tmp_path, documents):
    arrays = arrays_of([1, 2], [4, 4], [1, 2])
    save_vectorizer(tmp_path, NgramSettings(), {"num_documents": documents}, ["a"], arrays)
    assert read_vectorizer(tmp_path).description["version"] == (1 if documents < 1 << 32 else 2)
    assert (tmp_path / "checks.npy").exists() is (documents >= 1 << 32)


# Vectorizers of version 2 are committed; `python tests/vectorize/test_identity.py` made them.
GOLDEN = Path(__file__).parents[1] / "golden"
GOLDEN_KINDS: dict[str, dict[str, Any]] = {"ngram": {"max_features": 40}, "sequence": {"vectorizer": "sequence"}}
GOLDEN_TEXTS = ["rook pawn mast", "oven flour oven and a pawn", "", "unheard words"]


def make_golden() -> None:
    for kind, options in GOLDEN_KINDS.items():
        with tempfile.TemporaryDirectory() as name, shortened_hashes(4):
            corpus = write_corpus(Path(name, "corpus"), tuple(TOPICS))
            build(corpus, Path(name, "out"), BuildOptions(workers=1, **options))
            folder = GOLDEN / f"vectorizer-v2-{kind}"
            copy_vectorizer(Path(name, "out", "vectorizer"), folder)
        (folder / "rows.json").write_text(json.dumps(golden_rows(folder)) + "\n")


def golden_rows(folder: Path) -> list[list[float]]:
    rows = load_vectorizer(folder).transform(GOLDEN_TEXTS)
    dense = rows if isinstance(rows, np.ndarray) else rows.to_scipy().toarray()
    return [[float(value) for value in row] for row in dense]


@pytest.mark.parametrize("kind", GOLDEN_KINDS)
def test_vectorizers_of_version_2_are_read_for_ever(kind: str) -> None:
    folder = GOLDEN / f"vectorizer-v2-{kind}"
    assert read_vectorizer(folder).description["version"] == 2
    expected = json.loads((folder / "rows.json").read_text())
    np.testing.assert_allclose(golden_rows(folder), expected, rtol=1e-6)
    assert any(any(row) for row in expected)


# Sets of terms

PAIRS = st.sets(
    st.tuples(st.integers(0, 5) | st.integers(0, 2**64 - 1), st.integers(0, 5) | st.integers(0, 2**32 - 1)), max_size=60
)


def ids_of(pairs) -> TermIds:
    return TermIds(np.array([h for h, _ in pairs], np.uint64), np.array([c for _, c in pairs], np.uint32))


@settings(max_examples=80, deadline=None)
@given(present=PAIRS, others=PAIRS, seed=st.integers(0, 9))
def test_terms_are_found_among_others_as_python_finds_them(present, others, seed):
    known = sorted(present)
    wanted = list(present | others)
    np.random.default_rng(seed).shuffle(wanted)
    expected = [known.index(tuple(each)) if tuple(each) in present else -1 for each in wanted]
    assert ids_of(known).find(ids_of(wanted)).tolist() == expected
    assert list(zip(*(each.tolist() for each in ids_of(wanted).sorted().arrays.values()), strict=True)) == sorted(
        map(tuple, wanted)
    )
    distinct, numbers = ids_of(wanted + wanted).distinct()
    assert len(distinct) == len(wanted)
    assert numbers.tolist() == [sorted(map(tuple, wanted)).index(tuple(each)) for each in wanted + wanted]
    for narrow in (0, 1 << 32):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(new_rows, "_NARROW", narrow)
            index = Index.of(ids_of(known))
        assert index.starts[-1] == len(known)
        assert index.starts.dtype == (np.uint32 if narrow else np.uint64)


@settings(max_examples=50, deadline=None)
@given(pairs=PAIRS.filter(bool), seed=st.integers(0, 9), alike=st.integers(0, 200))
def test_places_are_ordered_by_hash_and_check_however_hashes_lie(pairs, seed, alike):
    pairs = list(pairs | {(3, number) for number in range(100, 100 + alike)})
    ids = ids_of(pairs)
    found = np.random.default_rng(seed).permutation(len(pairs)).astype(np.uint32)
    order = ordered(ids.hashes, ids.checks, found, np.uint64(0))
    assert [pairs[found[each]] for each in order] == sorted(pairs)


# Merging


def spilled(path: Path, pairs: dict[tuple[int, int], int], count: int = 1) -> Path:
    """Write postings with the terms, each with its first appearance."""
    ids, terms = ids_of(sorted(pairs)), len(pairs)
    first = np.array([pairs[each] for each in sorted(pairs)], np.uint32)
    once = np.ones(terms, np.uint32)
    spill_postings(
        path, Inverted(ids.hashes, ids.checks, first, np.arange(terms + 1), np.zeros(terms, np.uint32), once), {}, {}
    )
    return path


def contents(path: Path, units: int) -> tuple[Any, ...]:
    merged = open_spilled(path)
    columns = zip(*(merged[name].tolist() for name in ("hashes", "checks", "counts", "first")), strict=True)
    return list(columns), [places_in(merged, unit).tolist() for unit in range(units)]


@settings(max_examples=20, deadline=None)
@given(units=st.lists(PAIRS, min_size=1, max_size=6), least=st.integers(1, 3), room=st.integers(1, 40))
def test_a_bucket_merged_in_halves_is_what_it_is_at_once(tmp_path_factory, units, least, room):
    folder = tmp_path_factory.mktemp("merge")
    paths = [
        spilled(folder / f"run-{number}", {each: at for at, each in enumerate(sorted(unit, key=hash))})
        for number, unit in enumerate(units)
    ]
    whole = merge_bucket(Runs(paths, paths, 0), Bucket(0, 0), folder / "whole", min_count=least, budget=1 << 30)
    terms = sorted(set().union(*units))
    times = {each: sum(each in unit for unit in units) for each in terms}
    assert whole == (len(terms), sum(number >= least for number in times.values()))
    found, places = contents(folder / "whole", len(units))
    assert [(h, c, n) for h, c, n, _ in found] == [(*each, times[each]) for each in terms if times[each] >= least]
    kept = [each for each in terms if times[each] >= least]
    for unit, of_unit in zip(units, places, strict=True):
        assert of_unit == [kept.index(each) if each in kept else -1 for each in sorted(unit)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(merging, "_TABLED_TERMS", room)
        alike = Counter(each[0] for unit in units for each in unit)
        if max(alike.values(), default=0) > room:
            with pytest.raises(UsageError, match="must be merged at once"):
                merge_bucket(Runs(paths, paths, 0), Bucket(0, 0), folder / "halves", min_count=least, budget=1)
            return
        assert merge_bucket(Runs(paths, paths, 0), Bucket(0, 0), folder / "halves", min_count=least, budget=1) == whole
    assert contents(folder / "halves", len(units)) == (found, places)
    assert not list(folder.glob("halves-*"))


def test_counts_of_units_add_up_beyond_32_bits(tmp_path):
    paths = []
    for number in range(3):
        arrays = {
            "hashes": np.array([7, 7], np.uint64),
            "checks": np.array([1, 2], np.uint32),
            "counts": np.array([(1 << 32) - 1, 1], np.uint32),
            "first": np.array([(1 << 32) - 1, 0], np.uint32),
        }
        spill(tmp_path / f"run-{number}", {"tops": tops_of(arrays["hashes"]), **arrays})
        paths.append(tmp_path / f"run-{number}")
    merge_bucket(Runs(paths, paths, 0), Bucket(0, 0), tmp_path / "out", min_count=3, budget=1 << 20)
    found, _ = contents(tmp_path / "out", 3)
    assert found == [(7, 1, 3 * ((1 << 32) - 1), (1 << 32) - 1), (7, 2, 3, 0)]


@pytest.mark.parametrize("num_terms", [0, 10**6, 10**9, 10**12])
def test_as_many_buckets_are_planned_as_the_memory_requires(num_terms):
    budget = 1 << 28
    number = 1 << plan_buckets(num_terms, budget)
    assert num_terms * MERGE_BYTES / number <= budget + MERGE_BYTES
    assert number == 1 or num_terms * MERGE_BYTES / (number // 2) > budget


@given(units=PAIRS, wanted=PAIRS)
@settings(max_examples=30, deadline=None)
def test_terms_of_postings_are_looked_up_by_hash_and_check(tmp_path_factory, units, wanted):
    folder = tmp_path_factory.mktemp("lookup")
    postings = open_spilled(spilled(folder / "run", dict.fromkeys(units, 0)))
    known = sorted(wanted)
    assert lookup(postings, ids_of(known)).tolist() == [
        known.index(each) if each in wanted else -1 for each in sorted(units)
    ]


if __name__ == "__main__":
    make_golden()
