"""End to end: from a raw CSV to an evaluated model, shardtrain against fastText, same machine, one run.

Ours is `build`, `fit` and `evaluate`, one process after the other; fastText is one process that makes its input
file, shuffled in memory, trains (bigrams, two threads, five epochs) and tests, once with each of two learning rates,
of which the better one counts and the time of one. Printed are total seconds, accuracy on the test file, and peak
anonymous memory. fastText holds neither corpus nor features on disk in a form that can be used again; we do.

    python tools/bench/end_to_end.py --corpus ../shared/data/ag_news --synthetic-bytes 600MB
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from synthetic import write_synthetic

from shardtrain.options import parse_size
from shardtrain.runtime.memory import anonymous_bytes

DOCUMENT_BYTES = 340  # of a synthetic document, about
RATES = (0.25, 0.5)  # of fastText

# makes fastText's input from the CSV files of a folder, trains, tests and prints the accuracy; rows are shuffled in
# memory, since fastText takes them as they lie and learns little from a file that is sorted by class
FASTTEXT = """
import csv, random, re, sys
import fasttext

corpus, scratch, rate, threads = sys.argv[1:]
for name in ("train", "test"):
    with open(f"{corpus}/{name}.csv", newline="", encoding="utf-8") as rows:
        lines = []
        for label, *texts in csv.reader(rows):
            words = re.findall(r"\\w+", " ".join(texts).lower())
            lines.append(f"__label__{label} {' '.join(words)}\\n")
    random.Random(1).shuffle(lines)
    with open(f"{scratch}/{name}.txt", "w") as out:
        out.writelines(lines)
    del lines
model = fasttext.train_supervised(
    f"{scratch}/train.txt", lr=float(rate), epoch=5, wordNgrams=2, thread=int(threads), verbose=0
)
print(model.test(f"{scratch}/test.txt")[1])
"""


@dataclass(frozen=True)
class Outcome:
    """Seconds of all, peak anonymous bytes, accuracy, and the seconds of each part."""

    seconds: float
    peak: int
    accuracy: float
    parts: str = ""


def main() -> int:
    """Run the comparison and print it; exit code 1 if our accuracy is the lower one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", default=[], metavar="DIR", help="folder with train.csv, test.csv")
    parser.add_argument(
        "--synthetic-bytes", default="64MB", metavar="SIZE", help="of the generated corpus; 0: none (64MB)"
    )
    parser.add_argument("--fit", default="--batch-size 512", metavar="OPTIONS", help="of our training (batch size 512)")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="of fastText (2)")
    args = parser.parse_args()
    try:
        import fasttext  # noqa: F401
    except ImportError:
        sys.exit("fastText is not installed; install it with `pip install --group bench-end-to-end`")
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folders = [Path(folder) for folder in args.corpus]
        if size := parse_size(args.synthetic_bytes):
            folders.append(Path(scratch, "synthetic"))
            write_synthetic(folders[-1], documents=size // DOCUMENT_BYTES)
        good = [compare(folder, Path(scratch), args) for folder in folders]
    return 0 if all(good) else 1


def shardtrain(*arguments: object) -> tuple[float, int]:
    """Run a command of shardtrain; seconds and peak anonymous bytes."""
    seconds, peak, _ = measure([sys.executable, "-m", "shardtrain", *map(str, arguments)])
    return seconds, peak


def measure(command: list[str]) -> tuple[float, int, str]:
    """Run a command; seconds, peak anonymous bytes of all its processes, and what it printed."""
    began = time.perf_counter()
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.02)
        seconds = time.perf_counter() - began
        out.seek(0)
        err.seek(0)
        if process.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{err.read()}")
        return seconds, peak, out.read()


def ours(corpus: Path, scratch: Path, options: list[str]) -> Outcome:
    """`build`, `fit` and `evaluate`."""
    shards, run = scratch / f"{corpus.name}-shards", scratch / f"{corpus.name}-run"
    parts = {
        "build": shardtrain("build", corpus, "--out", shards, "--validation", "test.csv"),  # the peer is measured on it
        "fit": shardtrain("fit", shards, "--out", run, *options),
        "evaluate": shardtrain("evaluate", run, shards),
    }
    metrics = json.loads((run / "metrics.json").read_text())
    told = ", ".join(f"{name} {seconds:.1f}" for name, (seconds, _) in parts.items())
    return Outcome(
        sum(seconds for seconds, _ in parts.values()),
        max(peak for _, peak in parts.values()),
        metrics["val_accuracy"],
        f"{told}; {metrics['epochs']} epochs",
    )


def fasttext_at_its_best(corpus: Path, scratch: Path, threads: int) -> Outcome:
    """The better of the learning rates."""
    outcomes = []
    for rate in RATES:
        seconds, peak, said = measure(
            [sys.executable, "-c", FASTTEXT, str(corpus), str(scratch), str(rate), str(threads)]
        )
        outcomes.append(Outcome(seconds, peak, float(said.split()[-1]), f"learning rate {rate}"))
    return max(outcomes, key=lambda outcome: outcome.accuracy)


def compare(corpus: Path, scratch: Path, args: argparse.Namespace) -> bool:
    """Measure both on one corpus and print the table; whether our accuracy is not the lower one."""
    size = sum((corpus / name).stat().st_size for name in ("train.csv", "test.csv"))
    theirs = fasttext_at_its_best(corpus, scratch, args.threads)
    mine = ours(corpus, scratch, args.fit.split())
    print(f"\n{corpus.name}, {size / 1e6:,.1f} MB")
    print(f"  {'':<12}{'seconds':>9}{'peak MB':>9}{'accuracy':>10}")
    for name, outcome in (("fastText", theirs), ("shardtrain", mine)):
        print(
            f"  {name:<12}{outcome.seconds:>9.1f}{outcome.peak / 1e6:>9.0f}{outcome.accuracy:>10.4f}  ({outcome.parts})"
        )
    print(f"  time: {mine.seconds / theirs.seconds:.2f} of fastText's")
    return mine.accuracy >= theirs.accuracy


if __name__ == "__main__":
    sys.exit(main())
