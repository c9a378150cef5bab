"""Inputs: `build` from one corpus as plain CSV, compressed CSV, JSON Lines and Parquet, all in one run.

The synthetic corpus is written in each form; `build` runs in a process of its own from each, one after the other,
`--repeat` times, under the same memory limit. The shards must be equal, all checksums: a fast wrong result fails.
Printed are medians: seconds, MB of text per second and the peak of anonymous memory over all processes.

    python tools/bench/inputs.py --synthetic-bytes 1GB
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from features import DOCUMENT_BYTES, print_machine
from synthetic import write_synthetic

from shardtrain.options import parse_size

ROWS = 10_000  # written at a time
COLUMNS = ("label", "text")
FORMS = ("train.csv", "train.csv.zst", "train.jsonl", "train.parquet")


def main() -> int:
    """Run the comparison and print it; exit code 1 if shards differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic-bytes", default="64MB", metavar="SIZE", help="of the generated corpus (64MB)")
    parser.add_argument("--form", choices=FORMS, action="append", help="which forms (all)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="times each is built (3)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="of build (one per core)")
    parser.add_argument("--memory-limit", default="256MiB", metavar="SIZE", help="of build (256MiB)")
    args = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folder = Path(scratch)
        size = write_forms(folder, parse_size(args.synthetic_bytes) // DOCUMENT_BYTES)
        print(f"\n{size / 1e6:,.1f} MB of text and labels, --memory-limit {args.memory_limit}, {args.workers} workers")
        print(f"{'':14} {'MB on disk':>10} {'seconds':>9} {'MB/s':>7} {'peak MiB':>9}")
        fingerprints = set()
        for form in args.form or FORMS:
            runs = [build(folder / form, folder / "shards", args) for _ in range(args.repeat)]
            fingerprints |= {run["fingerprint"] for run in runs}
            seconds = statistics.median(run["seconds"] for run in runs)
            peak = statistics.median(run["peak_memory_bytes"] for run in runs) / (1 << 20)
            stored = (folder / form).stat().st_size / 1e6
            print(f"{form:14} {stored:>10,.1f} {seconds:>9.1f} {size / 1e6 / seconds:>7.1f} {peak:>9,.0f}")
    print("all shards are equal" if len(fingerprints) == 1 else "SHARDS DIFFER")
    return 0 if len(fingerprints) == 1 else 1


def write_forms(folder: Path, documents: int) -> int:
    """Write the corpus in every form, with one text column, and return the bytes of the CSV."""
    write_synthetic(folder / "synthetic", documents=documents)
    with (
        open(folder / "train.csv", "w", newline="", encoding="utf-8") as plain,
        open(folder / "train.jsonl", "w", encoding="utf-8") as lines,
        pq.ParquetWriter(folder / "train.parquet", pa.schema({name: pa.string() for name in COLUMNS})) as table,
    ):
        writer = csv.writer(plain, lineterminator="\n")
        writer.writerow(COLUMNS)
        for labels, texts in batches(folder / "synthetic" / "train.csv"):
            writer.writerows(zip(labels, texts, strict=True))
            lines.writelines(
                json.dumps({"label": label, "text": text}) + "\n" for label, text in zip(labels, texts, strict=True)
            )
            table.write_table(pa.table({"label": labels, "text": texts}))
    with open(folder / "train.csv", "rb") as source, open(folder / "train.csv.zst", "wb") as packed:
        zstandard.ZstdCompressor().copy_stream(source, packed)
    shutil.rmtree(folder / "synthetic")
    return (folder / "train.csv").stat().st_size


def batches(path: Path) -> Iterator[tuple[list[str], list[str]]]:
    """Yield labels and texts of a CSV without header, whose text columns are joined as `build` joins them."""
    labels: list[str] = []
    texts: list[str] = []
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.reader(file):
            labels.append(row[0])
            texts.append(", ".join(row[1:]))
            if len(labels) == ROWS:
                yield labels, texts
                labels, texts = [], []
    yield labels, texts


def build(corpus: Path, out: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build shards in a process and return what build.json says of it, and the fingerprint of the shards."""
    command = [sys.executable, "-m", "shardtrain", "build", str(corpus), "--out", str(out), "--overwrite", "--quiet"]
    limits = ["--workers", str(args.workers), "--memory-limit", args.memory_limit]
    subprocess.run([*command, *limits], check=True, stdout=subprocess.DEVNULL)
    measured = json.loads((out / "build.json").read_text())
    return {**measured, "fingerprint": json.loads((out / "manifest.json").read_text())["fingerprint"]}


if __name__ == "__main__":
    raise SystemExit(main())
