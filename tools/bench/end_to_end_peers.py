"""Train and test fastText or scikit-learn on the CSV files of a folder, for `end_to_end.py`; print JSON.

A program of its own, which needs the peer alone, so that any Python that has it can run it. It writes the class that
it gives each row of test.csv to a file, a line each. What only that takes is printed, to be subtracted: fastText's own
test is what counts.

    python tools/bench/end_to_end_peers.py fasttext CORPUS SCRATCH PREDICTIONS RATE THREADS
    python tools/bench/end_to_end_peers.py linearsvc CORPUS SCRATCH PREDICTIONS
"""

from __future__ import annotations

import csv
import json
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

SEED = 1
_WORDS = re.compile(r"\w+")


def read(corpus: Path, name: str) -> tuple[list[str], list[str]]:
    """Read labels and texts."""
    csv.field_size_limit(1 << 30)
    labels, texts = [], []
    with open(corpus / f"{name}.csv", newline="", encoding="utf-8") as file:
        for label, *columns in csv.reader(file):
            labels.append(label)
            texts.append(" ".join(columns))
    return labels, texts


def fast_text_lines(corpus: Path, scratch: Path, name: str) -> Path:
    """Write fastText's input file, words in lower case, and return it; that of training is shuffled."""
    lines = [fast_text_line(label, text) for label, text in zip(*read(corpus, name), strict=True)]
    if name == "train":
        random.Random(SEED).shuffle(lines)
    path = scratch / f"{name}.txt"
    with open(path, "w", encoding="utf-8") as out:
        out.writelines(lines)
    return path


def fast_text_line(label: str, text: str) -> str:
    """Return a line of fastText's input: the label, and the words in lower case."""
    return f"__label__{label} {' '.join(_WORDS.findall(text.lower()))}\n"


def fast_text(corpus: Path, scratch: Path, predictions: Path, rate: float, threads: int) -> dict[str, Any]:
    """Train with bigrams for five epochs on words in lower case, shuffled: fastText takes rows as they lie."""
    import fasttext

    for name in ("train", "test"):
        fast_text_lines(corpus, scratch, name)
    model = fasttext.train_supervised(
        str(scratch / "train.txt"), lr=rate, epoch=5, wordNgrams=2, thread=threads, verbose=0
    )
    accuracy = model.test(str(scratch / "test.txt"))[1]
    wall, cpu = time.perf_counter(), time.process_time()
    with open(scratch / "test.txt", encoding="utf-8") as file, open(predictions, "w", encoding="utf-8") as out:
        for line in file:
            found = model.f.predict(line.split(" ", 1)[1], 1, 0.0, "strict")  # model.predict fails with numpy 2
            out.write((found[0][1].removeprefix("__label__") if found else "") + "\n")
    return {"accuracy": accuracy, "wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def linear_svc(corpus: Path, predictions: Path) -> dict[str, Any]:
    """Train LinearSVC on TfidfVectorizer's 1- and 2-grams, both with their defaults otherwise."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    labels, texts = read(corpus, "train")
    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    model = LinearSVC(random_state=SEED).fit(vectorizer.fit_transform(texts), labels)
    labels, texts = read(corpus, "test")
    found = model.predict(vectorizer.transform(texts))
    predictions.write_text("".join(f"{each}\n" for each in found), encoding="utf-8")
    return {"accuracy": float((found == labels).mean()), "wall": 0.0, "cpu": 0.0}


def main() -> int:
    """Run one peer."""
    name, corpus, scratch, predictions, *rest = sys.argv[1:]
    if name == "fasttext":
        rate, threads = rest
        result = fast_text(Path(corpus), Path(scratch), Path(predictions), float(rate), int(threads))
    else:
        result = linear_svc(Path(corpus), Path(predictions))
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
