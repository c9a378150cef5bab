"""Metrics: streaming sums against scikit-learn's functions on whole arrays, and memory for ten million rows.

Runs are trained on corpora, and on one whose classes are thinned out to shares of 43 to 6 % with noisy labels. Every
metric of `evaluate` is compared with scikit-learn's function of all rows at once, unweighted and with weights that
balance the classes; those that stream in bins must be within the bound that they state. Then probabilities are drawn
and summed, a tenth of the rows and all of them, each in a process of its own.

    python tools/bench/metrics.py --corpus data/ag_news --corpus data/dbpedia
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from sklearn import metrics as theirs
from synthetic import write_synthetic

from shardtrain.inference.rows import predict_rows
from shardtrain.inference.run import load_run
from shardtrain.loader.shards import open_shards
from shardtrain.metrics import ranking
from shardtrain.metrics.classification import Metrics, MetricSums
from shardtrain.runtime.machine import peak_memory_bytes

SHARES = (0.43, 0.25, 0.16, 0.10, 0.06)  # of the classes of the unbalanced corpus
NOISE = 0.3
RELATIVE = 1e-6
BATCH = 4096


def main() -> int:
    """Run the comparison and print it; exit code 1 if a figure differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", default=[], metavar="DIR", help="folder with train.csv, test.csv")
    parser.add_argument("--rows", type=int, default=10_000_000, metavar="N", help="that are drawn (10,000,000)")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    same = []
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        corpora = {Path(folder).name: Path(folder) for folder in args.corpus}
        corpora["unbalanced"] = unbalanced(Path(scratch))
        for name, corpus in corpora.items():
            same.append(compare(name, *answers(corpus, Path(scratch, f"run of {name}"))))
    for classes in (4, 100):
        summed = [in_process(rows, classes) for rows in (args.rows // 10, args.rows)]
        for rows, (seconds, peak, bound) in zip((args.rows // 10, args.rows), summed, strict=True):
            print(
                f"{rows:,} rows of {classes} classes: {rows / seconds:,.0f} rows/s, peak {peak / 2**20:.0f} MiB, "
                f"AUC within {bound:.1e}"
            )
    return 0 if all(same) else 1


def unbalanced(scratch: Path) -> Path:
    """Write a corpus of five classes with unequal shares and noisy labels."""
    write_synthetic(scratch / "even", documents=60_000)
    out, rng = scratch / "unbalanced", np.random.default_rng(0)
    out.mkdir()
    for name in ("train.csv", "test.csv"):
        with open(scratch / "even" / name, newline="") as file:
            rows = list(csv.reader(file))
        labels = sorted({row[0] for row in rows})[: len(SHARES)]
        kept = {label: share / max(SHARES) for label, share in zip(labels, SHARES, strict=True)}
        thinned = [row for row in rows if rng.random() < kept.get(row[0], 0)]
        with open(out / name, "w", newline="") as file:
            csv.writer(file).writerows(
                [str(rng.choice(labels)) if rng.random() < NOISE else label, *rest] for label, *rest in thinned
            )
    return out


def answers(corpus: Path, out: Path) -> tuple[Any, Any]:
    """Train on a corpus; return the classes of its test rows and the probabilities of all."""
    command = [sys.executable, "-m", "shardtrain", "train", str(corpus), "--out", str(out), "--quiet"]
    subprocess.run(command, check=True, capture_output=True)
    with open_shards(out / "shards") as shards:
        found = list(predict_rows(load_run(out), shards, split="test"))
    y = np.concatenate([labels for labels, _ in found]).astype(np.int64)
    return y, np.concatenate([predictions.probabilities for _, predictions in found])


def compare(name: str, y: Any, probabilities: Any) -> bool:
    """Compare all metrics with scikit-learn's, and print the largest difference."""
    counts = np.bincount(y, minlength=probabilities.shape[1])
    balanced = (len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[y]
    same = True
    for words, weights in (("", None), (" with weights", balanced)):
        exact, binned = summed(y, probabilities, weights), summed(y, probabilities, weights, kept=len(y) // 10)
        expected = sklearn_metrics(y, probabilities, weights)
        off = {key: apart(ours(exact, key), value) for key, value in expected.items()}
        worst = max(off, key=lambda key: off[key])
        outside = [
            key
            for key, value in expected.items()
            if "roc" in key or "average_precision" in key
            if not abs(ours(binned, key) - value) <= bound(binned, key) + RELATIVE
        ]
        same &= off[worst] <= RELATIVE and not outside
        print(
            f"{name}{words}: {len(y):,} rows, {probabilities.shape[1]} classes, accuracy {exact.accuracy:.4f}; "
            f"{len(off)} metrics within {off[worst]:.1e} ({worst}); in bins "
            + (
                f"outside the stated bound: {', '.join(outside)}"
                if outside
                else "within the stated bounds, at most "
                f"{max(bound(binned, 'macro_roc_auc'), bound(binned, 'macro_average_precision')):.1e}"
            )
        )
    return same


def summed(y: Any, probabilities: Any, weights: Any, kept: int | None = None) -> Metrics:
    """Sum up rows batch by batch; with `kept`, only so many are kept for ranking before they are binned."""
    before, ranking.EXACT_VALUES = ranking.EXACT_VALUES, ranking.EXACT_VALUES if kept is None else kept
    sums = MetricSums(probabilities.shape[1])
    for start in range(0, len(y), BATCH):
        part = slice(start, start + BATCH)
        sums.add(y[part], probabilities[part], None if weights is None else weights[part])
    ranking.EXACT_VALUES = before
    return sums.metrics()


def sklearn_metrics(y: Any, probabilities: Any, weights: Any) -> dict[str, float]:
    """Compute each metric by scikit-learn's function."""
    guess, classes = probabilities.argmax(axis=1), range(probabilities.shape[1])
    how = {"sample_weight": weights}
    shares = probabilities.astype(np.float64)
    found = {
        "accuracy": theirs.accuracy_score(y, guess, **how),
        "macro_f1": theirs.f1_score(y, guess, average="macro", **how),
        "weighted_f1": theirs.f1_score(y, guess, average="weighted", **how),
        "micro_f1": theirs.f1_score(y, guess, average="micro", **how),
        "macro_precision": theirs.precision_score(y, guess, average="macro", **how),
        "macro_recall": theirs.recall_score(y, guess, average="macro", **how),
        "balanced_accuracy": theirs.balanced_accuracy_score(y, guess, **how),
        "matthews": theirs.matthews_corrcoef(y, guess, **how),
        "log_loss": theirs.log_loss(y, shares / shares.sum(axis=1, keepdims=True), labels=list(classes), **how),
        "top_2_accuracy": theirs.top_k_accuracy_score(y, shares, k=2, labels=list(classes), **how),
        "macro_roc_auc": np.mean([theirs.roc_auc_score(y == each, shares[:, each], **how) for each in classes]),
        "macro_average_precision": np.mean(
            [theirs.average_precision_score(y == each, shares[:, each], **how) for each in classes]
        ),
    }
    return {name: float(value) for name, value in found.items()}


def ours(metrics: Metrics, name: str) -> float:
    """Return a metric of ours."""
    value = metrics.measure(name)
    assert value is not None
    return value


def bound(metrics: Metrics, name: str) -> float:
    """Return the bound of the error that a metric states."""
    return float(getattr(metrics.macro_ranking, f"{name.removeprefix('macro_')}_error"))


def apart(one: float, other: float) -> float:
    """Return the relative difference."""
    return abs(one - other) / max(abs(other), 1e-12)


def in_process(rows: int, classes: int) -> tuple[float, int, float]:
    """Draw and sum rows in a new process; return seconds of summing, peak memory and the bound of the mean AUC."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        found: tuple[float, int, float] = pool.apply(sum_drawn, (rows, classes))
    return found


def sum_drawn(rows: int, classes: int) -> tuple[float, int, float]:
    """Draw and sum rows; see `in_process`."""
    sums, seconds = MetricSums(classes), 0.0
    for y, probabilities in drawn(rows, classes):
        start = time.perf_counter()
        sums.add(y, probabilities)
        seconds += time.perf_counter() - start
    metrics = sums.metrics()
    json.dumps(metrics.record([str(number) for number in range(classes)]))
    return seconds, peak_memory_bytes(), bound(metrics, "macro_roc_auc")


def drawn(rows: int, classes: int) -> Iterator[tuple[Any, Any]]:
    """Draw batches of classes and probabilities that favour them."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, BATCH):
        y = rng.integers(0, classes, min(BATCH, rows - start))
        scores = rng.standard_normal((len(y), classes), np.float32) * 2
        scores[np.arange(len(y)), y] += 3
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        yield y, shares / shares.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    sys.exit(main())
