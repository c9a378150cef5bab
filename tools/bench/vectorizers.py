"""Vectorizers: `shardtrain.sklearn` against scikit-learn's classes on one file of texts, with equal matrices.

Each class and each side runs in a process of its own, which reads the texts (a text per line) from the file, ours as a
path within a memory limit, scikit-learn's as an iterator of lines. Checksums of matrices and vocabularies must agree.

    python tools/bench/vectorizers.py --bytes 500MB
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from end_to_end import DOCUMENT_BYTES
from memory import run
from synthetic import write_synthetic

from shardtrain.options import parse_size
from shardtrain.runtime.quantities import size

WAYS: dict[str, tuple[str, dict[str, Any]]] = {
    "tf-idf of words and pairs": ("TfidfVectorizer", {"ngram_range": [1, 2], "min_df": 20}),
    "counts of words": ("CountVectorizer", {}),
    "tf-idf of letters": ("TfidfVectorizer", {"analyzer": "char_wb", "ngram_range": [3, 3]}),
    "hashed words and pairs": ("HashingVectorizer", {"ngram_range": [1, 2]}),
}


def main() -> int:
    """Run the comparison and print it; exit code 1 if matrices differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bytes", type=parse_size, default=50_000_000, metavar="SIZE", help="of the texts (50MB)")
    parser.add_argument("--memory-limit", default="1GiB", metavar="SIZE", help="of ours (1GiB)")
    parser.add_argument("--only", metavar="WAY", help="of " + ", ".join(WAYS))
    parser.add_argument("--side", nargs=3, help=argparse.SUPPRESS)  # ours or theirs, a way and the file
    args = parser.parse_args()
    if args.side:
        side, way, path = args.side
        print(json.dumps(measure(side, way, path, args.memory_limit)))
        return 0
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    same = True
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        texts = Path(scratch, "texts.txt")
        number = write_texts(texts, args.bytes)
        print(f"{number:,} texts, {size(texts.stat().st_size)}; memory limit {args.memory_limit}\n")
        for way in [args.only] if args.only else WAYS:
            found = {}
            for side in ("ours", "theirs"):
                command = [
                    sys.executable,
                    __file__,
                    "--memory-limit",
                    args.memory_limit,
                    "--side",
                    side,
                    way,
                    str(texts),
                ]
                outcome = run(command)
                if outcome.status:
                    print(f"{way}, {side}: failed: {outcome.last_line}")
                    return 1
                found[side] = {**json.loads(outcome.last_line), "peak": outcome.peak}
            one, other = found["ours"], found["theirs"]
            equal = one["digest"] == other["digest"]
            same &= equal
            print(f"{way}: {one['shape'][1]:,} columns, {one['nnz']:,} values, {'equal' if equal else 'DIFFERENT'}")
            for step in ("fit_transform", "transform"):
                times = other[step] / one[step]
                print(f"  {step} {one[step]:.1f} s against {other[step]:.1f} s ({times:.1f} times)")
            print(f"  peak of anonymous memory {size(one['peak'])} against {size(other['peak'])}")
    return 0 if same else 1


def write_texts(path: Path, least: int) -> int:
    """Write synthetic texts, one per line; return their number."""
    documents = least // DOCUMENT_BYTES
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch, open(path, "w", encoding="utf-8") as file:
        write_synthetic(Path(scratch, "corpus"), documents=documents)
        with open(Path(scratch, "corpus", "train.csv"), newline="", encoding="utf-8") as rows:
            file.writelines(" ".join(columns) + "\n" for _, *columns in csv.reader(rows))
    return documents


def lines(path: str) -> Iterator[str]:
    """Yield the lines of a file."""
    with open(path, encoding="utf-8") as file:
        yield from file


def measure(side: str, way: str, path: str, memory_limit: str) -> dict[str, Any]:
    """Vectorize the texts in this process; return seconds and checksums."""
    name, options = WAYS[way]
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    module = "shardtrain.sklearn" if side == "ours" else "sklearn.feature_extraction.text"
    more = {"memory_limit": memory_limit} if side == "ours" else {}
    vectorizer = getattr(importlib.import_module(module), name)(**options, **more)
    start = time.perf_counter()
    x = vectorizer.fit_transform(Path(path) if side == "ours" else lines(path))
    fitted = time.perf_counter()
    y = vectorizer.transform(Path(path) if side == "ours" else lines(path))
    transformed = time.perf_counter()
    digest = hashlib.blake2b()
    for matrix in (x, y):
        for part, kind in (("indptr", "int64"), ("indices", "int64"), ("data", "float64")):
            array = getattr(matrix, part)
            for first in range(0, len(array), 1 << 20):
                digest.update(array[first : first + (1 << 20)].astype(kind).tobytes())
    if hasattr(vectorizer, "get_feature_names_out") and name != "HashingVectorizer":
        for term in vectorizer.get_feature_names_out():
            digest.update(str(term).encode() + b"\n")
    return {
        "fit_transform": fitted - start,
        "transform": transformed - fitted,
        "shape": list(x.shape),
        "nnz": int(x.nnz),
        "digest": digest.hexdigest(),
    }


if __name__ == "__main__":
    sys.exit(main())
