"""Features on disk equal scikit-learn's and Keras', row by row, value by value, ties included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.oracle import TEXTS, Oracle, check_any_text, check_ngrams, rows_by_document
from support.sampled import sampled
from support.sequences import check_sequences

from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.vectorize.fitted import load_vectorizer
from shardtrain.vectorize.indexing import index_texts
from shardtrain.vectorize.settings import SequenceSettings

CORPORA = {"ag_news": ("train.csv", "test.csv"), "dbpedia": ("train.csv", "test.csv"), "mr": ("all.csv", None)}


@pytest.mark.heavy
@pytest.mark.parametrize(("name", "every"), sampled([("dbpedia", 6), *((name, 1) for name in CORPORA)]))
def test_ngram_rows_of_a_real_corpus_equal_scikit_learn(name, every, data, read_csv, write_csv, tmp_path):
    train, test = CORPORA[name]
    labels, texts = (column[::every] for column in read_csv(data / name / train))
    held_labels, held_out = (column[::every] for column in read_csv(data / name / test)) if test else (None, None)
    write_csv("corpus/train.csv", zip(labels, texts, strict=True))
    if test:
        write_csv("corpus/test.csv", zip(held_labels, held_out, strict=True))
    corpus = tmp_path / "corpus" if every > 1 else data / name
    build(corpus, tmp_path / "out", BuildOptions(validation_fraction=0.0, unescape=False, header=False))
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


FEW = settings(max_examples=20, deadline=None, derandomize=True)
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


def test_control_characters_at_the_start_of_a_word_make_another_word():
    words = ["word", *(chr(code) * times + "word" for code in range(9) for times in (1, 2))]
    found = index_texts(SequenceSettings(), words)
    assert len(found.hashes) == len(np.unique(found.hashes)) == len(words)


def test_a_new_word_that_differs_by_a_nul_from_one_of_the_vocabulary_has_no_id(write_csv, tmp_path):
    path = write_csv("a.csv", [("1", "word other"), ("2", "other word")])
    build(path, tmp_path / "out", BuildOptions(vectorizer="sequence", validation_fraction=0.0))
    vectorizer = load_vectorizer(tmp_path / "out" / "vectorizer")
    assert vectorizer.transform(["\0word", "word", "word\0"]).tolist() == [[0, 0], [0, 1], [0, 0]]
