"""End to end: from a raw CSV to an evaluated model, shardtrain against fastText and scikit-learn on one machine.

Ours is `build --test test.csv`, `fit` and `evaluate --split test`, everything else at its default, one process after
the other; and `train --test test.csv`, which does the same in one process and must reach the same accuracy. fastText is
one process that makes its input file (words in lower case), shuffles it in memory, trains (bigrams, five epochs, as
many threads as cores) and tests, once with each of four learning rates, of which the one best on the test file counts,
with the time of one. scikit-learn is one process: LinearSVC on TfidfVectorizer's 1- and 2-grams. Before, every way runs
once on a small corpus, so that kernels are compiled and files are in the page cache.

Printed are medians of wall and processor seconds (of all processes), peak anonymous memory, and accuracy on the test
file. Whether ours is less accurate is decided document by document: the program fails if, on any corpus, the 95 %
interval of the mean difference of hits lies below 0. Our classes of the documents come from `predict`, outside the
time.

    python tools/bench/end_to_end.py --corpus data/ag_news --corpus data/mr/all.csv --synthetic-bytes 600MB
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean, median, stdev

from synthetic import write_synthetic

from shardtrain.options import parse_size
from shardtrain.runtime.memory import anonymous_bytes

DOCUMENT_BYTES = 340  # of a synthetic document, about
RATES = ("0.1", "0.25", "0.5", "1.0")  # of fastText
LARGE = 300_000_000  # bytes of a corpus that is measured once
SEED = 1
A_ROW = 1.5  # rows by which predict and evaluate may differ: probabilities can be equal but for rounding
TEST_SHARE = 5  # one in five documents of a single file is for testing
WARM_UP_DOCUMENTS = 2_000
PEERS = Path(__file__).with_name("end_to_end_peers.py")
FASTTEXT, LINEAR_SVC, OURS, TRAIN = "fastText", "LinearSVC", "shardtrain", "its train"


@dataclass(frozen=True)
class Outcome:
    """What a way took and gave.

    Attributes:
        wall: seconds.
        cpu: processor seconds of all its processes.
        peak: anonymous bytes at most.
        accuracy: on the test file.
        remark: for the table.
        hits: whether each document of the test file got its class; empty in repetitions.
    """

    wall: float
    cpu: float
    peak: int
    accuracy: float
    remark: str = ""
    hits: Sequence[bool] = ()


@dataclass(frozen=True)
class Usage:
    """What a process and its children took, and what it printed."""

    wall: float
    cpu: float
    peak: int
    said: str


def main() -> int:
    """Run the comparison and print it; exit code 1 if we are less accurate than fastText on some corpus."""
    csv.field_size_limit(1 << 30)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--corpus",
        action="append",
        default=[],
        type=Path,
        metavar="PATH",
        help="folder with train.csv and test.csv, or a file of labels and texts (CSV or tabs), which is split 80 to 20",
    )
    parser.add_argument(
        "--synthetic-bytes", action="append", metavar="SIZE", help="of a generated corpus; 0: none (60MB)"
    )
    parser.add_argument("--fit", default="", metavar="OPTIONS", help="of our training (none)")
    parser.add_argument("--repetitions", type=int, default=3, metavar="N", help="1 from 300 MB on (3)")
    parser.add_argument(
        "--linearsvc-bytes", default="200MB", metavar="SIZE", help="largest corpus for LinearSVC (200MB)"
    )
    parser.add_argument("--peers", default=sys.executable, metavar="PYTHON", help="that has fastText (this one)")
    args = parser.parse_args()
    if subprocess.run([args.peers, "-c", "import fasttext"], capture_output=True).returncode:
        sys.exit("fastText is not installed; install it with `pip install --group bench-end-to-end`")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        scratch = Path(name)
        bench = Bench(scratch, args.fit.split(), args.peers)
        bench.warm_up()
        corpora = [split(path, scratch) for path in args.corpus]
        for size in map(parse_size, args.synthetic_bytes or ["60MB"]):
            if size:
                corpora.append(scratch / f"synthetic-{size // 1_000_000}MB")
                write_synthetic(corpora[-1], documents=size // DOCUMENT_BYTES)
        limit = parse_size(args.linearsvc_bytes)
        found = {corpus.name: compare(corpus, bench, args.repetitions, limit) for corpus in corpora}
    return 0 if conclude(found) else 1


def split(path: Path, scratch: Path) -> Path:
    """Return a folder with train.csv and test.csv: the path itself, or made from the rows of a file, shuffled."""
    if path.is_dir():
        return path
    with open(path, newline="", encoding="utf-8") as file:
        if path.suffix == ".csv":
            rows = list(csv.reader(file))
        else:
            rows = [line.rstrip("\r\n").split("\t", 1) for line in file]
    random.Random(SEED).shuffle(rows)
    folder = scratch / (path.stem if path.suffix and path.stem != "all" else path.parent.name)
    folder.mkdir()
    num_test = len(rows) // TEST_SHARE
    for name, part in (("test", rows[:num_test]), ("train", rows[num_test:])):
        with open(folder / f"{name}.csv", "w", newline="", encoding="utf-8") as out:
            csv.writer(out, quoting=csv.QUOTE_ALL).writerows(part)
    return folder


def measure(command: list[str]) -> Usage:
    """Run a command.

    Raises:
        SystemExit: it failed, with what it said.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.02)
        wall = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        out.seek(0)
        err.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{err.read()}")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Usage(wall, cpu, peak, out.read())


def test_labels(corpus: Path) -> list[str]:
    """Return the labels of test.csv."""
    with open(corpus / "test.csv", newline="", encoding="utf-8") as file:
        return [row[0] for row in csv.reader(file)]


@dataclass(frozen=True)
class Bench:
    """Runs the ways.

    Attributes:
        scratch: folder for what they make.
        fit: options of our training.
        peers: the Python that has fastText.
    """

    scratch: Path
    fit: list[str]
    peers: str

    def warm_up(self) -> None:
        """Run every way on a small corpus."""
        corpus = self.scratch / "warm-up"
        write_synthetic(corpus, documents=WARM_UP_DOCUMENTS)
        self.fast_text(corpus, RATES[0])
        self.linear_svc(corpus)
        self.hits(corpus, self.ours(corpus))
        self.train(corpus)

    def ours(self, corpus: Path) -> Outcome:
        """Run `build`, `fit` and `evaluate`."""
        shards, run = self.scratch / f"{corpus.name}-shards", self.scratch / f"{corpus.name}-run"
        parts = {
            "build": shardtrain("build", corpus, "--out", shards, "--test", "test.csv", "--overwrite"),
            "fit": shardtrain("fit", shards, "--out", run, "--overwrite", *self.fit),
            "evaluate": shardtrain("evaluate", run, shards, "--split", "test", "--json"),
        }
        metrics = json.loads((run / "metrics.json").read_text())
        told = ", ".join(f"{name} {usage.wall:.1f}" for name, usage in parts.items())
        return Outcome(
            sum(usage.wall for usage in parts.values()),
            sum(usage.cpu for usage in parts.values()),
            max(usage.peak for usage in parts.values()),
            json.loads(parts["evaluate"].said)["accuracy"],
            f"{told}; {metrics['epochs']} epochs",
        )

    def train(self, corpus: Path) -> Outcome:
        """Run `train`, with nothing left of an earlier run."""
        run = self.scratch / "train-run"
        shutil.rmtree(run, ignore_errors=True)
        usage = shardtrain("train", corpus, "--out", run, "--test", "test.csv", "--json", *self.fit)
        facts = json.loads(usage.said)
        return Outcome(usage.wall, usage.cpu, usage.peak, facts["test_accuracy"], f"{facts['epochs']} epochs")

    def hits(self, corpus: Path, outcome: Outcome) -> Outcome:
        """Add the hits of our latest run, by `predict`."""
        said = self.scratch / "ours.csv"
        run = self.scratch / f"{corpus.name}-run"
        shardtrain("predict", run, "--input", corpus / "test.csv", "--output", said, "--overwrite")
        classes = corpus / "classes.txt"
        names = dict(enumerate(classes.read_text(encoding="utf-8").splitlines(), 1)) if classes.exists() else {}
        labels = test_labels(corpus)
        hits = [False] * len(labels)
        with open(said, newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                label = labels[int(row["row"])]
                hits[int(row["row"])] = row["label"] in (label, names.get(int(label)) if names else label)
        if abs(fmean(hits) - outcome.accuracy) > A_ROW / len(hits):
            sys.exit(
                f"{corpus.name}: predict is right in {fmean(hits):.4f} of the rows, evaluate in {outcome.accuracy:.4f}"
            )
        return replace(outcome, hits=hits)

    def fast_text(self, corpus: Path, rate: str) -> Outcome:
        """Run fastText with a learning rate."""
        return self._peer(self.peers, "fasttext", corpus, [rate, str(os.cpu_count())], f"learning rate {rate}")

    def linear_svc(self, corpus: Path) -> Outcome:
        """Run scikit-learn."""
        return self._peer(sys.executable, "linearsvc", corpus, [], "")

    def _peer(self, python: str, name: str, corpus: Path, settings: list[str], remark: str) -> Outcome:
        said = self.scratch / "peer.txt"
        usage = measure([python, str(PEERS), name, str(corpus), str(self.scratch), str(said), *settings])
        result = json.loads(usage.said)
        answers = said.read_text(encoding="utf-8").splitlines()
        hits = [answer == label for answer, label in zip(answers, test_labels(corpus), strict=True)]
        wall, cpu = usage.wall - result["wall"], usage.cpu - result["cpu"]
        return Outcome(wall, cpu, usage.peak, result["accuracy"], remark, hits)


def shardtrain(*arguments: object) -> Usage:
    """Run a command of shardtrain."""
    return measure([sys.executable, "-m", "shardtrain", *map(str, arguments)])


def compare(corpus: Path, bench: Bench, repetitions: int, linearsvc_bytes: int) -> dict[str, Outcome]:
    """Measure all ways on a corpus, in turn, and print the table."""
    size = sum((corpus / name).stat().st_size for name in ("train.csv", "test.csv"))
    if size >= LARGE:
        repetitions = 1
    rates = {rate: bench.fast_text(corpus, rate) for rate in RATES}
    best = max(rates, key=lambda rate: rates[rate].accuracy)
    ways: dict[str, Callable[[], Outcome]] = {
        FASTTEXT: lambda: bench.fast_text(corpus, best),
        OURS: lambda: bench.ours(corpus),
        TRAIN: lambda: bench.train(corpus),
    }
    if size <= linearsvc_bytes:
        ways[LINEAR_SVC] = lambda: bench.linear_svc(corpus)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in ways}
    outcomes[FASTTEXT].append(rates[best])
    for number in range(repetitions):
        for name, way in ways.items():
            if len(outcomes[name]) == number:
                outcomes[name].append(way())
    outcomes[OURS][-1] = bench.hits(corpus, outcomes[OURS][-1])
    found = {name: middle(each) for name, each in outcomes.items()}
    if found[TRAIN].accuracy != found[OURS].accuracy:
        sys.exit(
            f"{corpus.name}: the test accuracy of train is {found[TRAIN].accuracy}, of evaluate {found[OURS].accuracy}"
        )
    print(f"\n{corpus.name}, {size / 1e6:,.1f} MB, medians of {repetitions}")
    print(f"  {'':<12}{'seconds':>9}{'CPU s':>9}{'peak MB':>9}{'accuracy':>10}{'time':>7}")
    for name, outcome in found.items():
        print(
            f"  {name:<12}{outcome.wall:>9.1f}{outcome.cpu:>9.1f}{outcome.peak / 1e6:>9.0f}{outcome.accuracy:>10.4f}"
            f"{outcome.wall / found[FASTTEXT].wall:>6.2f}x  {outcome.remark}",
            flush=True,
        )
    if LINEAR_SVC not in found:
        print(f"  {LINEAR_SVC} is left out: the corpus is larger than --linearsvc-bytes")
    return found


def middle(outcomes: Sequence[Outcome]) -> Outcome:
    """Return the last outcome with the medians of what they took."""
    return replace(
        outcomes[-1],
        wall=median(each.wall for each in outcomes),
        cpu=median(each.cpu for each in outcomes),
        peak=int(median(each.peak for each in outcomes)),
    )


def conclude(found: dict[str, dict[str, Outcome]]) -> bool:
    """Print how the accuracies compare; whether we are nowhere less accurate than fastText beyond the interval."""
    print(f"\naccuracy against {FASTTEXT}, 95 % intervals of paired differences")
    good = True
    for corpus, outcomes in found.items():
        low, mean, high = interval(outcomes[OURS].hits, outcomes[FASTTEXT].hits)
        less = high < 0
        good &= not less
        said = "LESS ACCURATE" if less else "more accurate" if low > 0 else "no difference beyond the interval"
        print(f"  {corpus:<16}{mean:>+8.4f}  [{low:+.4f}, {high:+.4f}]  {said}")
    with_all = [outcomes for outcomes in found.values() if LINEAR_SVC in outcomes]
    if with_all:
        means = {name: fmean(outcomes[name].accuracy for outcomes in with_all) for name in (OURS, FASTTEXT, LINEAR_SVC)}
        told = ", ".join(f"{name} {mean:.4f}" for name, mean in means.items())
        print(f"mean accuracy over {len(with_all)} corpora: {told}")
    return good


def interval(ours: Sequence[bool], theirs: Sequence[bool]) -> tuple[float, float, float]:
    """Return the mean of the differences of hits with the ends of its 95 % interval, as (low, mean, high)."""
    differences = [int(mine) - int(other) for mine, other in zip(ours, theirs, strict=True)]
    mean = fmean(differences)
    reach = 1.96 * stdev(differences) / math.sqrt(len(differences))
    return mean - reach, mean, mean + reach


if __name__ == "__main__":
    sys.exit(main())
