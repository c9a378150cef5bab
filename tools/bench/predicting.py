"""Predicting: a large file and a single text, by `predict` and by other ways on one machine, in one run.

A linear model and an mlp are trained on a small synthetic corpus, fastText (bigrams) and scikit-learn (LinearSVC on
tf-idf of 1- and 2-grams) on the same. Then a large file is classified: by the command `predict --input --output`, by
the same model in Keras on the same rows (how `predict` once worked), by fastText's own `test` and by the pipeline of
scikit-learn; the others classify the beginning of the file (`--peer-bytes`), because they are slow. Printed are MB/s,
processor seconds and peak anonymous memory of the process, the processor seconds that a process takes to classify a
single text, and accuracy. Seconds of the commands are of the whole process; of the others, of classifying alone.

It fails if the file has not a row for every document; if a sample of the rows, spread over the whole file, is not what
`predict` says of the same texts in memory; if the probabilities of that are not those of Keras within 1e-6; or if a
model is more than a point less accurate than fastText.

    python tools/bench/predicting.py --synthetic-bytes 1GB --peers PYTHON
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
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import numpy as np
from end_to_end import DOCUMENT_BYTES, Usage, measure, shardtrain
from predicting_peers import BATCH, ONE_TEXT, rows_of
from synthetic import write_synthetic

from shardtrain.options import parse_size

FIRST_TIMES = 5  # how often a single text is classified
SAMPLE = 2000  # documents
IN_A_FILE = 1e-6  # a probability has six decimals there, and batches of another size sum in another order
OF_KERAS = 1e-6
A_POINT = 0.01
PEERS = Path(__file__).with_name("predicting_peers.py")


@dataclass(frozen=True)
class Found:
    """What a way took and gave; `first` is processor seconds for a single text."""

    speed: float
    cpu: float
    peak: int
    first: float
    accuracy: float


def main() -> int:
    """Measure and print; exit code 1 if the answers are not what they have to be."""
    csv.field_size_limit(1 << 30)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic-bytes", default="100MB", metavar="SIZE", help="of the text (100MB)")
    parser.add_argument("--peer-bytes", default="50MB", metavar="SIZE", help="that the other ways classify (50MB)")
    parser.add_argument("--documents", type=int, default=60_000, metavar="N", help="to train on (60,000)")
    parser.add_argument("--options", default="", metavar="OPTIONS", help="of predict, such as '--proba --workers 4'")
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="that has fastText (this one)")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        bench = Bench(Path(folder), parse_size(args.peer_bytes), args.peers, args.options.split())
        write_synthetic(bench.small, documents=args.documents)
        write_synthetic(bench.text.parent, documents=parse_size(args.synthetic_bytes) // DOCUMENT_BYTES)
        shardtrain("build", bench.small, "--out", bench.scratch / "shards")
        found: dict[str, Found] = {}
        good = True
        for model in ("linear", "mlp"):
            run = bench.scratch / model
            shardtrain("fit", bench.scratch / "shards", "--out", run, "--model", model, "--epochs", 3)
            out = bench.scratch / f"{model}.csv"
            found[f"predict, {model}"] = bench.ours(run, out)
            found[f"Keras, {model}"] = bench.keras(run)
            good &= bench.same(run, out)
        found["fastText test"] = bench.peer("fasttext", args.peers)
        found["scikit-learn"] = bench.peer("scikit-learn", sys.executable)
        print(f"\n  {'':<18}{'MB/s':>8}{'CPU s':>8}{'peak MiB':>10}{'one text, CPU s':>17}{'accuracy':>10}")
        for name, each in found.items():
            print(
                f"  {name:<18}{each.speed:>8.1f}{each.cpu:>8.1f}{each.peak / 2**20:>10,.0f}{each.first:>17.2f}"
                f"{each.accuracy:>10.4f}"
            )
        for model in ("linear", "mlp"):
            if found[f"predict, {model}"].accuracy < found["fastText test"].accuracy - A_POINT:
                good = False
                print(f"LESS ACCURATE THAN FASTTEXT: {model}")
        return 0 if good else 1


@dataclass(frozen=True)
class Bench:
    """Runs the ways.

    Attributes:
        scratch: folder for what they make.
        peer_bytes: that the others classify.
        peers: the Python that has fastText.
        options: of `predict`.
    """

    scratch: Path
    peer_bytes: int
    peers: str
    options: Sequence[str]

    @property
    def small(self) -> Path:
        """The corpus to train on."""
        return self.scratch / "small"

    @property
    def text(self) -> Path:
        """The file to classify."""
        return self.scratch / "large" / "train.csv"

    def ours(self, run: Path, out: Path) -> Found:
        """Run `predict` on a text, and on the file."""
        arguments = ("--input", self.text, "--label-column", "0", "--output", out, *self.options)
        first = median(shardtrain("predict", run, ONE_TEXT).cpu for _ in range(FIRST_TIMES))
        whole = shardtrain("predict", run, *arguments)
        size = self.text.stat().st_size / 1e6
        labels = (label for label, _ in rows_of(self.text, 1 << 60))
        names = (self.small / "classes.txt").read_text(encoding="utf-8").splitlines()
        with open(out, newline="", encoding="utf-8") as file:
            hits = [
                row["label"] == names[int(label) - 1] for row, label in zip(csv.DictReader(file), labels, strict=True)
            ]
        return Found(size / whole.wall, whole.cpu, whole.peak, first, sum(hits) / len(hits))

    def keras(self, run: Path) -> Found:
        """Classify with the run's model in Keras."""
        arguments = (str(run), str(self.text), str(self.peer_bytes), str(self.scratch / "keras.npy"))
        usage = measure([sys.executable, str(PEERS), "keras", *arguments])
        first = measure([sys.executable, str(PEERS), "keras", str(run), str(self.text), "1", str(self.scratch / "one")])
        return outcome(usage, first.cpu)

    def peer(self, name: str, python: str) -> Found:
        """Train another way, and classify a text and the beginning of the file."""
        if name == "fasttext" and subprocess.run([python, "-c", "import fasttext"], capture_output=True).returncode:
            sys.exit(
                "fastText is not installed; install it with `pip install --group bench-end-to-end`, or give --peers"
            )

        def run(task: str, source: Path, most: int) -> Usage:
            model = str(self.scratch / f"{name}.model")
            return measure([python, str(PEERS), name, task, model, str(source), str(most), str(self.scratch)])

        run("train", self.small / "train.csv", 1 << 60)
        first = median(run("first", self.text, 0).cpu for _ in range(FIRST_TIMES))
        return outcome(run("file", self.text, self.peer_bytes), first)

    def same(self, run: Path, out: Path) -> bool:
        """Whether the file says of a sample what `predict` says in memory, and that what Keras says."""
        from shardtrain.inference.run import load_run

        opened = load_run(run)
        with open(out, newline="", encoding="utf-8") as file:
            said = list(csv.DictReader(file))
        chosen = set(np.linspace(0, len(said) - 1, SAMPLE).astype(int).tolist())
        texts = [text for number, (_, text) in enumerate(rows_of(self.text, 1 << 60)) if number in chosen]
        expected = opened.predict(texts)
        rows = [row for number, row in enumerate(said) if number in chosen]
        near = np.abs(np.array([float(row["probability"]) for row in rows]) - expected.probabilities.max(axis=1)).max()
        in_order = [int(row["row"]) for row in said] == list(range(len(said)))
        good = in_order and [row["label"] for row in rows] == expected.labels and near <= IN_A_FILE
        begin = [text for _, text in islice(rows_of(self.text, self.peer_bytes), BATCH)]
        far = np.abs(opened.predict(begin).probabilities - np.load(self.scratch / "keras.npy")).max()
        print(f"{run.name}: the file is within {near:.1e} of predict in memory, that within {far:.1e} of Keras")
        if not good or far > OF_KERAS:
            print("NOT EQUAL")
        return bool(good and far <= OF_KERAS)


def outcome(usage: Usage, first: float) -> Found:
    """Return what a program of `predicting_peers` measured."""
    told = json.loads(usage.said)
    return Found(told["bytes"] / 1e6 / told["seconds"], usage.cpu, usage.peak, first, told["accuracy"])


if __name__ == "__main__":
    sys.exit(main())
