"""The peers of `features.py`, as their users write them: feature_peers.py ngram|sequence CORPUS OUT.npz."""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

import numpy as np


def read(path: Path) -> tuple[list[int], list[str]]:
    """Labels and texts of a CSV without header, the label first."""
    labels, texts = [], []
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            labels.append(int(row[0]))
            texts.append(", ".join(row[1:]))
    return labels, texts


def ngrams(train: tuple[list[int], list[str]], validation: list[str] | None) -> dict[str, Any]:
    """Tf-idf of 1- and 2-grams and the 20,000 best of them, with scikit-learn."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.feature_selection import SelectKBest, f_classif

    labels, texts = train
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), strip_accents="unicode", decode_error="replace", min_df=2)
    x = vectorizer.fit_transform(texts)
    selector = SelectKBest(f_classif, k=min(20_000, x.shape[1]))
    splits = {"train": selector.fit_transform(x, labels)}
    if validation is not None:
        splits["validation"] = selector.transform(vectorizer.transform(validation))
    found: dict[str, Any] = {}
    for name, rows in splits.items():
        rows = rows.astype(np.float32)
        rows.sort_indices()
        found |= {f"{name}_{part}": getattr(rows, part) for part in ("data", "indices", "indptr")}
    return found


def sequences(train: tuple[list[int], list[str]], validation: list[str] | None) -> dict[str, Any]:
    """Padded ids of the 20,000 most frequent words, with Keras."""
    from tensorflow.keras.preprocessing.sequence import pad_sequences
    from tensorflow.keras.preprocessing.text import Tokenizer

    tokenizer = Tokenizer(num_words=20_000)
    tokenizer.fit_on_texts(train[1])
    rows = tokenizer.texts_to_sequences(train[1])
    length = min(max(map(len, rows)), 500)
    found = {"train_x": pad_sequences(rows, maxlen=length)}
    if validation is not None:
        found["validation_x"] = pad_sequences(tokenizer.texts_to_sequences(validation), maxlen=length)
    return found


def main(kind: str, corpus: Path, out: Path) -> None:
    """Make the features and save them."""
    validation = read(corpus / "test.csv")[1] if (corpus / "test.csv").exists() else None
    np.savez(out, **(ngrams if kind == "ngram" else sequences)(read(corpus / "train.csv"), validation))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
