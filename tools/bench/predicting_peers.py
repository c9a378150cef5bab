"""Classify a file with Keras, fastText or scikit-learn, for `predicting.py`; print JSON.

A program of its own, so that each way is measured in a process of its own, and in a Python that has it.

    python tools/bench/predicting_peers.py keras RUN TEXT BYTES OUT    # the run's model, loaded by Keras
    python tools/bench/predicting_peers.py fasttext train|first|file MODEL CORPUS|TEXT BYTES SCRATCH
    python tools/bench/predicting_peers.py scikit-learn train|first|file MODEL CORPUS|TEXT BYTES SCRATCH

`train` makes the model from a folder's train.csv, `first` classifies one text, and `file` the first BYTES of a file of
labels and texts, of which it prints bytes, seconds and accuracy: of fastText of its own `test`, which reads a file that
was prepared before; of the others with reading the CSV.
"""

from __future__ import annotations

import csv
import json
import pickle
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from end_to_end_peers import fast_text_line, fast_text_lines

ONE_TEXT = "one text"
BATCH = 4096  # texts per call


def rows_of(path: Path, most_bytes: int) -> Iterator[tuple[str, str]]:
    """Yield labels and texts until that many bytes of them are read."""
    read = 0
    with open(path, newline="", encoding="utf-8") as file:
        for label, *columns in csv.reader(file):
            text = ", ".join(columns)
            read += len(text.encode()) + len(label) + 1
            yield label, text
            if read >= most_bytes:
                return


def measured(path: Path, most_bytes: int, classify: Any) -> dict[str, Any]:
    """Classify the rows in batches; `classify` returns the labels of texts."""
    began, hits, rows, size = time.perf_counter(), 0, 0, 0
    stream = rows_of(path, most_bytes)
    while batch := list(islice(stream, BATCH)):
        labels, texts = zip(*batch, strict=True)
        hits += sum(found == label for found, label in zip(classify(list(texts)), labels, strict=True))
        rows += len(batch)
        size += sum(len(text.encode()) for text in texts) + 2 * len(batch)
    return {"bytes": size, "seconds": time.perf_counter() - began, "accuracy": hits / rows}


def keras_way(run: Path, text: Path, most_bytes: int, out: Path) -> dict[str, Any]:
    """Classify with the model that Keras loads, and save the probabilities of the first batch."""
    import numpy as np

    from shardtrain.inference.classifier import Classifier
    from shardtrain.inference.keras_model import KerasModel
    from shardtrain.inference.run import load_run

    opened = load_run(run)
    names = opened.description.class_names
    model = KerasModel(opened.load_model(), opened.description, opened.config.get("outputs"))
    classifier = Classifier(model, names, opened.load_vectorizer, run=run)
    codes = {name: str(number) for number, name in enumerate(names, 1)}
    kept: list[Any] = []

    def classify(texts: list[str]) -> list[str]:
        found = classifier(texts)
        if not kept:
            kept.append(found.probabilities)
        return [codes[label] for label in found.labels]

    classify([ONE_TEXT])
    kept.clear()
    result = measured(text, most_bytes, classify)
    np.save(out, kept[0])
    return result


def fast_text(task: str, model: Path, source: Path, most_bytes: int, scratch: Path) -> dict[str, Any]:
    """Train with bigrams for five epochs, classify one text, or test."""
    import fasttext

    if task == "first":
        fasttext.load_model(str(model)).f.predict(ONE_TEXT, 1, 0.0, "strict")
        return {}
    prepared, size = scratch / "fasttext.txt", 0
    if task == "train":
        fast_text_lines(source.parent, scratch, "train").rename(prepared)
        fasttext.train_supervised(str(prepared), lr=0.5, epoch=5, wordNgrams=2, verbose=0).save_model(str(model))
        return {}
    with open(prepared, "w", encoding="utf-8") as out:
        for label, text in rows_of(source, most_bytes):
            out.write(fast_text_line(label, text))
            size += len(text.encode()) + len(label) + 1
    loaded = fasttext.load_model(str(model))
    began = time.perf_counter()
    accuracy = loaded.test(str(prepared))[1]
    return {"bytes": size, "seconds": time.perf_counter() - began, "accuracy": accuracy}


def scikit_learn(task: str, model: Path, source: Path, most_bytes: int) -> dict[str, Any]:
    """Train a pipeline of tf-idf of 1- and 2-grams and LinearSVC, classify one text, or a file."""
    if task == "train":
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.pipeline import make_pipeline
        from sklearn.svm import LinearSVC

        labels, texts = zip(*rows_of(source, most_bytes), strict=True)
        pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LinearSVC(random_state=1)).fit(texts, labels)
        model.write_bytes(pickle.dumps(pipeline))
        return {}
    loaded = pickle.loads(model.read_bytes())
    if task == "first":
        loaded.predict([ONE_TEXT])
        return {}
    return measured(source, most_bytes, loaded.predict)


def main() -> int:
    """Run one way."""
    csv.field_size_limit(1 << 30)
    way, *rest = sys.argv[1:]
    if way == "keras":
        run, text, most, out = rest
        result = keras_way(Path(run), Path(text), int(most), Path(out))
    else:
        task, model, source, most, scratch = rest
        if way == "fasttext":
            result = fast_text(task, Path(model), Path(source), int(most), Path(scratch))
        else:
            result = scikit_learn(task, Path(model), Path(source), int(most))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
