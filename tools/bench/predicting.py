"""Predicting a large file: MB/s and peak anonymous memory of `predict --input --output`, checked against `predict()`.

A run is trained on a small synthetic corpus, then a large one is classified by the command in a process of its own.
Memory is told beyond TensorFlow's own: that of a process that loads the same run and classifies one text. A sample of
the rows, spread over the whole file, has to equal what the simple path in memory says of the same texts; if not, the
exit code is 1. Seconds are of the whole command, what it takes to start included.

    python tools/bench/predicting.py --synthetic-bytes 1GB
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from end_to_end import DOCUMENT_BYTES, measure, shardtrain
from synthetic import write_synthetic

from shardtrain.options import parse_size

START = "import sys; from shardtrain.cli.main import main; sys.exit(main(['predict', sys.argv[1], 'one text']))"
SAMPLE = 2000  # documents
TOLERANCE = 1e-5  # of a probability: the file has six decimals, and batches of another size sum in another order


def main() -> int:
    """Measure and print; exit code 1 if the file is not what it has to be."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic-bytes", default="100MB", metavar="SIZE", help="of the text (100MB)")
    parser.add_argument(
        "--corpus", type=Path, metavar="CSV", help="classify this synthetic file in place of making one"
    )
    parser.add_argument(
        "--run", type=Path, metavar="RUN", help="use this run, trained on a synthetic corpus (default: train one)"
    )
    parser.add_argument("--output", default="csv", choices=("csv", "jsonl", "parquet"), help="format (csv)")
    parser.add_argument("--options", default="", metavar="OPTIONS", help="of predict, such as '--proba --workers 4'")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        scratch = Path(folder)
        run = args.run or trained(scratch)
        text = args.corpus or scratch / "large" / "train.csv"
        if args.corpus is None:
            write_synthetic(text.parent, documents=parse_size(args.synthetic_bytes) // DOCUMENT_BYTES)
        out = scratch / f"out.{args.output}"
        command = [sys.executable, "-m", "shardtrain", "predict", str(run), "--input", str(text), "--label-column", "0"]
        own = measure([sys.executable, "-c", START, str(run)])
        whole = measure([*command, "--output", str(out), *args.options.split()])
        size = text.stat().st_size / 1e6
        print(whole.said.strip().rpartition(":")[0])
        print(f"{size:,.1f} MB in {whole.wall:.1f} s: {size / whole.wall:.1f} MB/s; one text takes {own.wall:.1f} s")
        print(f"peak anonymous memory {whole.peak / 2**20:,.0f} MiB, of a process that classifies one text ", end="")
        print(f"{own.peak / 2**20:,.0f} MiB: {(whole.peak - own.peak) / 2**20:,.0f} MiB beyond it")
        return 0 if same(run, text, out) else 1


def trained(scratch: Path) -> Path:
    """A run trained on a small synthetic corpus."""
    write_synthetic(scratch / "small", documents=60_000)
    shardtrain("build", scratch / "small", "--out", scratch / "shards")
    shardtrain("fit", scratch / "shards", "--out", scratch / "run", "--epochs", 3)
    return scratch / "run"


def same(run: Path, text: Path, out: Path) -> bool:
    """Whether the file has a row for every document, and a sample of them says what `predict` says in memory."""
    from shardtrain.inference.run import load_run

    with open(text, newline="", encoding="utf-8") as file:
        num_documents = sum(1 for _ in csv.reader(file))
    chosen = set(np.linspace(0, num_documents - 1, SAMPLE).astype(int).tolist())
    with open(text, newline="", encoding="utf-8") as file:
        texts = [", ".join(row[1:]) for number, row in enumerate(csv.reader(file)) if number in chosen]
    labels, probabilities, num_rows = rows_of(out, chosen)
    began = time.perf_counter()
    expected = load_run(run).predict(texts)
    print(f"in memory: {len(texts):,} texts in {time.perf_counter() - began:.1f} s")
    close = bool(np.allclose(probabilities, expected.probabilities.max(axis=1), rtol=0, atol=TOLERANCE))
    good = num_rows == num_documents and labels == expected.labels and close
    print("the sample equals it" if good else "NOT EQUAL: the file is wrong")
    return good


def rows_of(out: Path, chosen: set[int]) -> tuple[list[str], list[float], int]:
    """Labels and probabilities of the chosen rows, and how many rows there are; rows have to be in order."""
    if out.suffix == ".parquet":
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(out, columns=["row", "label", "probability"]).to_pylist()
    else:
        with open(out, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file)) if out.suffix == ".csv" else [json.loads(line) for line in file]
    if [int(row["row"]) for row in rows] != list(range(len(rows))):
        return [], [], -1
    picked = [row for number, row in enumerate(rows) if number in chosen]
    return [row["label"] for row in picked], [float(row["probability"]) for row in picked], len(rows)


if __name__ == "__main__":
    sys.exit(main())
