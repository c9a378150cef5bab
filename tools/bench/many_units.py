"""Memory and open files of the process that drives a build, as one corpus is cut into more and more units.

A corpus of a terabyte has 250,000 units of 4 MiB. Here a small one is cut into units of a few kilobytes and merged in
many buckets, so that as many tasks, files and records pass through the driver. Workers are two processes. All builds
must have equal bytes, or the exit code is 1.

    python tools/bench/many_units.py --synthetic-bytes 200MB --units 1250 5000 20000
"""

from __future__ import annotations

import argparse
import filecmp
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from end_to_end import DOCUMENT_BYTES
from synthetic import write_synthetic

from shardtrain.options import parse_size
from shardtrain.pipeline import build as building
from shardtrain.pipeline import counting
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.shards.layout import MEASURED
from shardtrain.vectorize.groups import GROUP_UNITS, MOST_FILES

_INTERVAL_SECONDS = 0.01
_ROWS_PER_SHARD = 20_000


class Watch(threading.Thread):
    """Sample this process alone: its anonymous memory in bytes, and its open files."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = self.open_files = 0
        self.ended = threading.Event()

    def run(self) -> None:
        """Sample until the event is set."""
        while not self.ended.wait(_INTERVAL_SECONDS):
            status = Path("/proc/self/status").read_text()
            held = next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:"))
            self.peak_bytes = max(self.peak_bytes, held)
            self.open_files = max(self.open_files, len(os.listdir("/proc/self/fd")))


def drive(corpus: str, out: str, unit_bytes: str, bits: str) -> None:
    """Build in this process with shrunk units, and print what was measured as JSON."""
    for module, name, value in (
        (building, "UNIT_BYTES", int(unit_bytes)),
        (building, "PARALLEL_BYTES", 0),
        (counting, "plan_buckets", lambda num_terms, budget: int(bits)),
    ):
        setattr(module, name, value)
    watch, started = Watch(), time.perf_counter()
    watch.start()
    build(corpus, out, BuildOptions(vectorizer="ngram", workers=2, rows_per_shard=_ROWS_PER_SHARD, overwrite=True))
    watch.ended.set()
    seconds = time.perf_counter() - started
    print(json.dumps({"peak": watch.peak_bytes, "files": watch.open_files, "seconds": seconds}))


def main() -> int:
    """Measure and print a table; exit code 1 if a build fails or has other bytes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic-bytes", default="200MB", metavar="SIZE", help="of the corpus (200MB)")
    parser.add_argument("--units", nargs="+", type=int, default=[1250, 5000, 20_000], help="(1250 5000 20000)")
    parser.add_argument("--bucket-bits", type=int, default=8, help="2 to this power is the number of buckets (8)")
    args = parser.parse_args()
    size, good = parse_size(args.synthetic_bytes), True
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {size / 1e6:.0f} MB")
    print("| units | groups | buckets | seconds | driver's memory | its open files | bytes |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        write_synthetic(corpus := Path(folder, "corpus"), documents=size // DOCUMENT_BYTES)
        for number, units in enumerate(args.units):
            out = Path(folder, f"shards-{number}")
            command = [sys.executable, __file__, "--drive", str(corpus), str(out), str(size // units)]
            done = subprocess.run([*command, str(args.bucket_bits)], capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr[-2000:])
                return 1
            found, same = json.loads(done.stdout.splitlines()[-1]), equal(out, Path(folder, "shards-0"))
            groups = -(-units // GROUP_UNITS) if units > MOST_FILES else "none"
            print(
                f"| {units:,} | {groups} | {1 << args.bucket_bits:,} | {found['seconds']:.0f} | "
                f"{found['peak'] / 2**20:.0f} MiB | {found['files']} | {'equal' if same else 'DIFFERENT'} |",
                flush=True,
            )
            good = good and same
    return 0 if good else 1


def equal(ours: Path, theirs: Path) -> bool:
    """Return whether two folders hold the same files with the same bytes, but for times and memory."""
    names, expected = ({str(path.relative_to(root)) for path in root.rglob("*.*")} for root in (ours, theirs))
    compared = sorted(name for name in names - {MEASURED} if (ours / name).is_file())
    return names == expected and filecmp.cmpfiles(ours, theirs, compared, shallow=False)[1:] == ([], [])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--drive"]:
        drive(*sys.argv[2:])
    else:
        sys.exit(main())
