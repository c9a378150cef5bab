"""Mixing: training with the default shuffle against training with true permutations of all rows, one run.

Shards are built from corpora sorted by class. Epochs in the orders of `--shuffle window` and `global` are compared with
as many permutations drawn by chance (how far a batch's class mix is from that of all rows; within 5 %), and models are
trained with both, each with the same seeds. Their mean accuracies must agree within half a point.

    python tools/bench/mixing.py                            # 200,000 synthetic documents sorted by class
    python tools/bench/mixing.py --corpus data/dbpedia --documents 0
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from synthetic import write_synthetic

from shardtrain.loader.mixing import measure, measure_chance, visited_rows
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.training.fit import fit
from shardtrain.training.options import FitOptions

HALF_A_POINT = 0.005
CLOSE = 0.05  # of what chance gives
BATCH = 512
EPOCHS = 20  # whose orders are measured; one alone says little of a small corpus
MODES = ("window", "global")


def main() -> int:
    """Run the comparison and print it; exit code 1 if orders or accuracies differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", default=[], metavar="DIR", help="folder with train.csv, test.csv")
    parser.add_argument(
        "--documents", type=int, default=200_000, metavar="N", help="of the synthetic corpus; 0: none (200,000)"
    )
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="that each is trained with (3)")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="of each training (3)")
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        corpora = [Path(folder) for folder in args.corpus]
        if args.documents:
            corpora.append(Path(scratch, "synthetic"))
            write_synthetic(corpora[-1], documents=args.documents)
        same = [compare(corpus, Path(scratch, str(number)), args) for number, corpus in enumerate(corpora)]
    return 0 if all(same) else 1


def shardtrain(*arguments: object) -> None:
    """Run a command of shardtrain."""
    subprocess.run([sys.executable, "-m", "shardtrain", *map(str, arguments)], check=True, capture_output=True)


def compare(corpus: Path, scratch: Path, args: argparse.Namespace) -> bool:
    """Compare orders and accuracies on one corpus, and print both; whether they agree."""
    scratch.mkdir()
    shardtrain("build", corpus, "--out", scratch / "shards", "--vectorizer", "ngram", "--validation", "test.csv")
    with open_shards(scratch / "shards") as shards:
        print(f"\n{corpus.name}: {shards.train.num_examples:,} rows, {shards.description.num_classes} classes")
        close = [mixes_as_chance(shards, mode) for mode in MODES]
        means = {}
        for mode in MODES:
            reached = list(accuracies(shards, mode, scratch, args))
            means[mode] = statistics.mean(reached)
            print(f"  {mode:<8} accuracy {means[mode]:.4f}, mean of " + ", ".join(f"{each:.4f}" for each in reached))
    apart = abs(means["window"] - means["global"])
    print(f"  {apart * 100:.2f} points apart (at most {HALF_A_POINT * 100:g})")
    return all(close) and apart <= HALF_A_POINT


def mixes_as_chance(shards: Shards, mode: str) -> bool:
    """Print how far the class mix of a batch is from that of all rows, and whether that is as chance has it."""
    labels = shards.train.labels()
    epochs = (shards.train.batches(BATCH, seed=1, epoch=epoch, shuffle=mode).plan for epoch in range(EPOCHS))
    ours = statistics.mean(measure(visited_rows(plan), labels, BATCH).class_distance for plan in epochs)
    chance = measure_chance(labels, BATCH, samples=EPOCHS).class_distance
    print(f"  {mode:<8} class mix of a batch {ours:.4f} from that of all rows, by chance {chance:.4f}")
    return abs(ours / chance - 1) <= CLOSE


def accuracies(shards: Shards, mode: str, scratch: Path, args: argparse.Namespace) -> Iterator[float]:
    """Validation accuracies of a model for each seed."""
    for seed in range(1, args.seeds + 1):
        options = FitOptions(shuffle=mode, seed=seed, epochs=args.epochs, batch_size=BATCH)
        yield fit(shards, options, out=scratch / f"{mode}-{seed}").read().metrics["val_accuracy"]


if __name__ == "__main__":
    sys.exit(main())
