"""Compare the token ids of a build with Keras' Tokenizer and pad_sequences."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import assume
from support.oracle import SURROGATES, rows_by_document, write_texts

from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.vectorize.fitted import load_vectorizer


def check_sequences(texts, max_features, max_length):
    """Build shards of the texts and compare them; examples without any word are rejected."""
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
