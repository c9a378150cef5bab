"""Features: `build` against scikit-learn (n-grams) and Keras (sequences), same corpus, same machine, one run.

The peer and `build` each run in a process of their own, from the CSV to features (on disk in our case), imports and
start-up included, one after the other, `--repeat` times. Afterwards the features are compared, all rows: a fast wrong
result fails. Printed are medians: seconds, MB of corpus per second, peak anonymous memory, and how our time splits.
A peer that holds the corpus in memory runs on a part of a large one, every n-th row; then `build` runs on that part,
whose features are compared, and on the whole, whose MB per second are.

    python tools/bench/features.py                       # 64 MB of the synthetic corpus
    python tools/bench/features.py --corpus data/dbpedia_csv --synthetic-bytes 0
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import write_synthetic

from shardtrain import open_shards
from shardtrain.options import parse_size
from shardtrain.runtime.machine import memory_bytes
from shardtrain.runtime.memory import anonymous_bytes

DOCUMENT_BYTES = 340  # of a synthetic document, about
PEER_MEMORY = 22  # bytes that the hungrier peer, scikit-learn, takes for a byte of text


def main() -> int:
    """Run the comparison and print it; exit code 1 if features differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", action="append", default=[], metavar="DIR", help="folder with train.csv, no header")
    parser.add_argument(
        "--synthetic-bytes", default="64MB", metavar="SIZE", help="of the generated corpus; 0: none (64MB)"
    )
    parser.add_argument("--kind", choices=("ngram", "sequence"), action="append", help="which features (both)")
    parser.add_argument("--repeat", type=int, default=3, metavar="N", help="times each is run (3)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), metavar="N", help="of build (one per core)")
    parser.add_argument("--memory-limit", default="1GiB", metavar="SIZE", help="of build (1GiB)")
    parser.add_argument(
        "--peer-bytes",
        default="0",
        metavar="SIZE",
        help="most that the peer is given (0: what it can hold in half of the free memory)",
    )
    args = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        folders = [Path(folder) for folder in args.corpus]
        if size := parse_size(args.synthetic_bytes):
            folders.append(Path(scratch, "synthetic"))
            write_synthetic(folders[-1], documents=size // DOCUMENT_BYTES)
        warm_up(Path(scratch))
        same = [
            compare(folder, kind, Path(scratch), args)
            for folder in folders
            for kind in args.kind or ("ngram", "sequence")
        ]
    return 0 if all(same) else 1


def print_machine() -> None:
    """One line about the machine and the versions."""
    from importlib.metadata import version

    packages = ", ".join(f"{name} {version(name)}" for name in ("numpy", "numba", "scikit-learn", "keras", "h5py"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")


def warm_up(scratch: Path) -> None:
    """Compile the kernels, which happens once per machine, and say how long that first build took."""
    write_synthetic(scratch / "tiny", documents=200)
    for kind in ("ngram", "sequence"):
        seconds, _ = measure(our_command(scratch / "tiny", scratch / f"tiny-{kind}", kind, 1, "1GiB"))
        print(f"first build of 200 documents ({kind}), compiling included if this machine had not: {seconds:.1f} s")


def our_command(corpus: Path, out: Path, kind: str, workers: int, memory_limit: str) -> list[str]:
    """The command line of `build`."""
    return [
        sys.executable,
        "-m",
        "shardtrain",
        "build",
        str(corpus),
        "--out",
        str(out),
        "--vectorizer",
        kind,
        "--workers",
        str(workers),
        "--memory-limit",
        memory_limit,
        "--no-unescape",
        "--overwrite",
        *(["--validation", "test.csv"] if (corpus / "test.csv").exists() else ["--validation-fraction", "0"]),
    ]


def measure(command: list[str]) -> tuple[float, int]:
    """Run a command; seconds and peak anonymous bytes of all its processes."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous_bytes(process.pid))
        time.sleep(0.02)
    seconds = time.perf_counter() - started
    if process.returncode:
        assert process.stderr is not None
        sys.exit(f"{' '.join(command)} failed:\n{process.stderr.read().decode()}")
    return seconds, peak


def corpus_bytes(corpus: Path) -> int:
    """Size of the files that are read."""
    return sum((corpus / name).stat().st_size for name in ("train.csv", "test.csv") if (corpus / name).exists())


def part_of(corpus: Path, most: int, scratch: Path) -> Path:
    """A corpus of every n-th training row, of at most about `most` bytes; the corpus itself if it is no larger."""
    size = corpus_bytes(corpus)
    if size <= most:
        return corpus
    part = scratch / f"part-of-{corpus.name}"
    part.mkdir(exist_ok=True)
    step = -(-size // most)
    with (
        open(corpus / "train.csv", newline="", encoding="utf-8") as whole,
        open(part / "train.csv", "w", newline="", encoding="utf-8") as file,
    ):
        csv.writer(file, quoting=csv.QUOTE_ALL).writerows(islice(csv.reader(whole), 0, None, step))
    for name in ("test.csv", "classes.txt"):
        if (corpus / name).exists():
            shutil.copy(corpus / name, part / name)
    return part


def peer_bytes(args: argparse.Namespace) -> int:
    """Most bytes of text that a peer is given."""
    if size := parse_size(args.peer_bytes):
        return size
    listed = Path("/proc/meminfo")
    if not listed.exists():  # macOS does not say how much is available
        return memory_bytes() // 4 // PEER_MEMORY
    lines = listed.read_text().splitlines()
    available = next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
    return available // 2 // PEER_MEMORY


def compare(corpus: Path, kind: str, scratch: Path, args: argparse.Namespace) -> bool:
    """Measure both on one corpus, print the table, and compare all rows."""
    part = part_of(corpus, peer_bytes(args), scratch)
    out, peer_out = scratch / f"ours-{kind}", scratch / f"peer-{kind}.npz"
    peer_command = [sys.executable, str(Path(__file__).with_name("feature_peers.py")), kind, str(part), str(peer_out)]
    ours, peers = [], []
    for _ in range(args.repeat):
        peers.append(measure(peer_command))
        ours.append(measure(our_command(corpus, out, kind, args.workers, args.memory_limit)))
    measured = json.loads((out / "build.json").read_text())
    rates = []
    print(f"\n{corpus.name}, {corpus_bytes(corpus) / 1e6:,.1f} MB, {kind}, medians of {args.repeat}")
    print(f"  {'':<16}{'MB':>9}{'seconds':>9}{'MB/s':>8}{'peak MB':>9}")
    for name, read, runs in (
        ("scikit-learn" if kind == "ngram" else "Keras Tokenizer", part, peers),
        ("shardtrain", corpus, ours),
    ):
        seconds, peak = (statistics.median(run[i] for run in runs) for i in (0, 1))
        rates.append(corpus_bytes(read) / 1e6 / seconds)
        print(f"  {name:<16}{corpus_bytes(read) / 1e6:>9,.0f}{seconds:>9.2f}{rates[-1]:>8.1f}{peak / 1e6:>9,.0f}")
    print(f"  ratio: {rates[1] / rates[0]:.1f} times as fast")
    parts = ", ".join(f"{title} {seconds:.2f}" for title, seconds in measured["pass_seconds"].items())
    print(f"  seconds of our passes with {measured['workers']} workers: {parts}")
    if part != corpus:
        measure(our_command(part, out, kind, args.workers, args.memory_limit))
    differences = differing(out, peer_out)
    compared = "all rows of all splits" if part == corpus else "all rows of the part and of the validation split"
    print(f"  features: {'equal, ' + compared if not differences else 'DIFFERENT: ' + differences}", flush=True)
    return not differences


def differing(ours: Path, peers: Path) -> str:
    """What differs between our shards and the peer's arrays; an empty string for equal features."""
    expected: dict[str, Any] = dict(np.load(peers))
    with open_shards(ours) as shards:
        for name, split in shards.splits.items():
            x, _ = split.rows(0, split.num_examples)
            order = np.argsort(split.documents(0, split.num_examples))
            if f"{name}_x" in expected:
                if not np.array_equal(np.asarray(x)[order], expected[f"{name}_x"]):
                    return f"token ids of {name}"
                continue
            rows = x.to_scipy()[order]  # type: ignore[union-attr]
            for part in ("indptr", "indices"):
                if not np.array_equal(getattr(rows, part), expected[f"{name}_{part}"]):
                    return f"{part} of {name}"
            if not np.allclose(rows.data, expected[f"{name}_data"], rtol=1e-6, atol=0):
                return f"values of {name}"
    return ""


if __name__ == "__main__":
    sys.exit(main())
