"""Recipes: test accuracy and seconds of `fit` with its defaults and with what was considered instead, on each corpus.

Each variant changes one thing: the recipe, the scaling of features, the optimizer, the model, or the features of the
build. Corpora are folders with train.csv and test.csv; a tenth of the training documents is held out for validation, as
by default, and the test split is evaluated once. Beside them is scikit-learn's TfidfVectorizer and LinearSVC on all
training documents.

    python tools/bench/recipes.py --corpus data/ag_news --corpus data/dbpedia
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from synthetic import write_synthetic

FEATURES = {
    "best 20,000": [],
    "all": ["--max-features", "all"],
    "all, also of one document": ["--max-features", "all", "--min-df", "1"],
    "best 20,000, sublinear tf": ["--sublinear-tf"],
    "2^18 hashed": ["--vectorizer", "hashing", "--max-features", str(1 << 18)],
}
VARIANTS = {  # name: features, options of `fit`
    "fast (default)": ("best 20,000", []),
    "without scaling": ("best 20,000", ["--scaling", "none"]),
    "with dense adam": ("best 20,000", ["--optimizer", "adam"]),
    "with row-adagrad": ("best 20,000", ["--optimizer", "row-adagrad"]),
    "linear": ("best 20,000", ["--model", "linear"]),
    "guide": ("best 20,000", ["--recipe", "guide"]),
    "fast, sublinear tf": ("best 20,000, sublinear tf", []),
    "fast, all n-grams": ("all", []),
    "fast, all, from 1 document": ("all, also of one document", []),
    "fast, 2^18 hashed": ("2^18 hashed", []),
}


def main() -> int:
    """Run every variant on every corpus and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", default=[], metavar="DIR", help="folder with train.csv, test.csv")
    parser.add_argument(
        "--synthetic", type=int, default=20_000, metavar="N", help="generated documents; 0: none (20,000)"
    )
    parser.add_argument("--no-peer", action="store_true", help="without scikit-learn")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folders = [Path(folder) for folder in args.corpus]
        if args.synthetic:
            folders.append(Path(scratch, "synthetic"))
            write_synthetic(folders[-1], documents=args.synthetic)
        table = {folder.name: measure(folder, Path(scratch), peer=not args.no_peer) for folder in folders}
    names = list(next(iter(table.values())))
    print(f"\n{'':<28}{'mean':>9}" + "".join(f"{name[:16]:>18}" for name in table))
    for name in names:
        row = [each[name] for each in table.values()]
        mean = sum(accuracy for accuracy, _ in row) / len(row)
        print(f"{name:<28}{mean:>9.4f}" + "".join(f"{f'{a:.4f} ({s:.1f} s)':>18}" for a, s in row))
    return 0


def measure(corpus: Path, scratch: Path, *, peer: bool) -> dict[str, tuple[float, float]]:
    """Test accuracy, and seconds of `fit`, or of all that the peer does, by variant."""
    found = {}
    for name, options in FEATURES.items():
        command("build", corpus, "--out", scratch / corpus.name / name, "--test", "test.csv", *options)
    for name, (features, options) in VARIANTS.items():
        run = scratch / corpus.name / "runs" / name
        began = time.perf_counter()
        command("fit", scratch / corpus.name / features, "--out", run, *options)
        seconds = time.perf_counter() - began
        found[name] = (json.loads((run / "metrics.json").read_text())["test_accuracy"], seconds)
    if peer:
        found["LinearSVC, all documents"] = linear_svc(corpus)
    return found


def command(*arguments: object) -> None:
    """Run a command of shardtrain."""
    done = subprocess.run([sys.executable, "-m", "shardtrain", *map(str, arguments)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)


def linear_svc(corpus: Path) -> tuple[float, float]:
    """Test accuracy and seconds of scikit-learn's tf-idf of 1- and 2-grams with LinearSVC."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.svm import LinearSVC

    began = time.perf_counter()
    (texts, labels), (test_texts, test_labels) = (read(corpus / f"{name}.csv") for name in ("train", "test"))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2))
    model = LinearSVC().fit(vectorizer.fit_transform(texts), labels)
    return float(model.score(vectorizer.transform(test_texts), test_labels)), time.perf_counter() - began


def read(path: Path) -> tuple[list[str], list[str]]:
    """Texts and labels of a CSV file with the label first."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))
    return [" ".join(row[1:]) for row in rows], [row[0] for row in rows]


if __name__ == "__main__":
    sys.exit(main())
