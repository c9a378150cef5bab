"""Features on disk equal scikit-learn's and Keras', row by row, value by value, ties included."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.oracle import SURROGATES, TEXTS, Oracle, check_any_text, check_ngrams, rows_by_document, write_texts
from support.sampled import sampled

from shardtrain.corpus.opening import open_corpus
from shardtrain.corpus.options import CorpusOptions
from shardtrain.corpus.readers import plan_units
from shardtrain.errors import HashCollisionError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.counting import count
from shardtrain.pipeline.options import BuildOptions
from shardtrain.pipeline.units import UnitTask
from shardtrain.runtime.executors import Serial
from shardtrain.runtime.passes import Passes
from shardtrain.vectorize.counts import Bucket, merge_bucket, spill_postings
from shardtrain.vectorize.fitted import load_vectorizer
from shardtrain.vectorize.indexing import index_texts
from shardtrain.vectorize.settings import Hashing, NgramSettings, SequenceSettings

CORPORA = {"ag_news": ("train.csv", "test.csv"), "dbpedia": ("train.csv", "test.csv"), "mr": ("all.csv", None)}


@pytest.mark.heavy
@pytest.mark.parametrize("name", sampled(CORPORA, (1,)))
def test_ngram_rows_of_a_real_corpus_equal_scikit_learn(name, data, read_csv, tmp_path):
    train, test = CORPORA[name]
    labels, texts = read_csv(data / name / train)
    held_out = read_csv(data / name / test)[1] if test else None
    build(data / name, tmp_path / "out", BuildOptions(validation_fraction=0.0, unescape=False))
    classes = [int(label) - 1 for label in labels]
    oracle = Oracle(texts, classes)
    with open_shards(tmp_path / "out") as shards:
        check_ngrams(shards, oracle, classes, texts[:3000], held_out)


@pytest.mark.parametrize("name", sampled(CORPORA, (2,)))
def test_sequences_of_a_real_corpus_equal_keras(name, data, read_csv, tmp_path):
    from tensorflow.keras.preprocessing.sequence import pad_sequences
    from tensorflow.keras.preprocessing.text import Tokenizer

    train, test = CORPORA[name]
    labels, texts = read_csv(data / name / train)
    held_out = read_csv(data / name / test)[1] if test else texts[:500]
    options = BuildOptions(vectorizer="sequence", validation_fraction=0.0, unescape=False)
    build(data / name, tmp_path / "out", options)
    tokenizer = Tokenizer(num_words=20_000)
    tokenizer.fit_on_texts(texts)
    sequences = tokenizer.texts_to_sequences(texts)
    length = min(max(map(len, sequences)), 500)
    with open_shards(tmp_path / "out") as shards:
        vectorizer = load_vectorizer(shards.vectorizer_path)
        x, y = rows_by_document(shards.train)
        np.testing.assert_array_equal(x, pad_sequences(sequences, maxlen=length))
        np.testing.assert_array_equal(y, [int(label) - 1 for label in labels])
        expected = pad_sequences(tokenizer.texts_to_sequences(held_out), maxlen=length)
        np.testing.assert_array_equal(vectorizer.transform(held_out), expected)
        if test:
            np.testing.assert_array_equal(rows_by_document(shards.test)[0], expected)
        assert vectorizer.vocabulary_size == min(len(tokenizer.word_index) + 1, 20_000)
        ids = {word: number for word, number in tokenizer.word_index.items() if number < 20_000}
        assert {word: number + 1 for number, word in enumerate(vectorizer.terms)} == ids


FEW = settings(max_examples=50, deadline=None, derandomize=True)
MANY = settings(max_examples=1000, deadline=None)
NGRAMS = given(
    texts=TEXTS,
    seed=st.integers(0, 3),
    max_features=st.integers(1, 8),
    min_df=st.integers(1, 2),
    ngram_range=st.sampled_from([(1, 1), (1, 2), (2, 2), (1, 3)]),
)
SEQUENCES = given(texts=TEXTS, max_features=st.integers(2, 8), max_length=st.integers(1, 6))


@pytest.mark.heavy
@FEW
@NGRAMS
def test_ngram_rows_of_any_text_equal_scikit_learn(texts, seed, max_features, min_df, ngram_range):
    check_any_text(texts, seed, {"max_features": max_features, "min_df": min_df, "ngram_range": ngram_range})


@pytest.mark.slow
@MANY
@NGRAMS
def test_ngram_rows_of_many_texts_equal_scikit_learn(texts, seed, max_features, min_df, ngram_range):
    check_any_text(texts, seed, {"max_features": max_features, "min_df": min_df, "ngram_range": ngram_range})


@FEW
@SEQUENCES
def test_sequences_of_any_text_equal_keras(texts, max_features, max_length):
    check_sequences(texts, max_features, max_length)


@pytest.mark.slow
@MANY
@SEQUENCES
def test_sequences_of_many_texts_equal_keras(texts, max_features, max_length):
    check_sequences(texts, max_features, max_length)


def check_sequences(texts, max_features, max_length):
    from tensorflow.keras.preprocessing.sequence import pad_sequences
    from tensorflow.keras.preprocessing.text import Tokenizer

    read = [text.translate(SURROGATES) for text in texts]
    tokenizer = Tokenizer(num_words=max_features)
    tokenizer.fit_on_texts(read)
    assume(tokenizer.word_index)
    sequences = tokenizer.texts_to_sequences(read)
    expected = pad_sequences(sequences, maxlen=max(1, min(max(map(len, sequences)), max_length)))
    labels = [f"class {i % 2}" for i in range(len(texts))]
    options = BuildOptions(
        vectorizer="sequence", validation_fraction=0.0, max_features=max_features, max_length=max_length, workers=1
    )
    with tempfile.TemporaryDirectory() as name:
        build(write_texts(Path(name), texts, labels), Path(name, "shards"), options)
        with open_shards(Path(name, "shards")) as shards:
            np.testing.assert_array_equal(rows_by_document(shards.train)[0], expected)
            np.testing.assert_array_equal(load_vectorizer(shards.vectorizer_path).transform(read), expected)


def test_control_characters_at_the_start_of_a_word_make_another_word():
    words = ["word", *(chr(code) * times + "word" for code in range(9) for times in (1, 2))]
    found = index_texts(SequenceSettings(), words)
    assert len(found.hashes) == len(words)
    assert not found.collided


def test_a_new_word_that_differs_by_a_nul_from_one_of_the_vocabulary_has_no_id(write_csv, tmp_path):
    path = write_csv("a.csv", [("1", "word other"), ("2", "other word")])
    build(path, tmp_path / "out", BuildOptions(vectorizer="sequence", validation_fraction=0.0))
    vectorizer = load_vectorizer(tmp_path / "out" / "vectorizer")
    assert vectorizer.transform(["\0word", "word", "word\0"]).tolist() == [[0, 0], [0, 1], [0, 0]]


@pytest.mark.parametrize("analyzer", ["word", "char", "char_wb"])
@pytest.mark.parametrize(("bits", "collides"), [(64, False), (22, True)])
def test_a_collision_of_hashes_in_a_unit_is_noticed(bits, collides, analyzer):
    texts = [f"word{i} word{i * 7 + 1}" for i in range(5000)]
    settings = NgramSettings(analyzer=analyzer, ngram_range=(1, 5), hashing=Hashing(mask=(1 << bits) - 1))
    assert index_texts(settings, texts).collided is collides


def colliding_seed(texts) -> int:
    """A seed under which two of the texts' terms have the same 16-bit hash."""
    return next(
        seed
        for seed in range(2000)
        if index_texts(NgramSettings(hashing=Hashing(seed=seed, mask=0xFFFF)), texts).collided
    )


def test_after_a_collision_counting_begins_again_with_another_seed_and_is_exact(tmp_path):
    texts = [f"word{i} word{i + 1}" for i in range(12)] * 2
    seed = colliding_seed(texts)
    source = open_corpus(write_texts(tmp_path, texts, ["a", "b"] * 12), CorpusOptions(), scratch=tmp_path).train
    units = plan_units(source, unit_bytes=1 << 20, advance=lambda _: None)
    tasks = [UnitTask(source=source, unit=unit, seed=1, threshold=0) for unit in units]
    hashing = Hashing(seed=seed, mask=0xFFFF)
    counted = count(
        Passes(Serial(), tmp_path, 1 << 20),
        tasks,
        [1] * len(tasks),
        NgramSettings(hashing=hashing, min_df=1),
        check=lambda facts: None,
    )
    assert counted.settings.hashing.seed > seed
    assert counted.num_distinct == len({term for text in texts for term in (*text.split(), text)})


def test_terms_of_different_units_with_one_hash_are_noticed_when_runs_meet(tmp_path):
    texts = [f"word{i}" for i in range(300)]
    hashing = Hashing(seed=colliding_seed(texts), mask=0xFFFF)
    runs = []
    for number, text in enumerate(texts):  # one term a unit: no unit sees the collision
        runs.append(tmp_path / f"run-{number}")
        spill_postings(runs[-1], index_texts(NgramSettings(hashing=hashing), [text]), {}, {})
    with pytest.raises(HashCollisionError):
        merge_bucket(runs, Bucket(0, 0), tmp_path / "bucket", min_count=1)
