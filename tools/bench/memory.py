"""Peak memory of builds from hostile texts, beside natural text: anonymous memory of all processes against the limit.

Each text is built under each limit by the command in a process of its own. Exit code 1 if a build exceeds its limit or
fails. Memory does not depend on how busy the machine is.

    python tools/bench/memory.py --synthetic-bytes 44MB --limits 256MiB 1GiB
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from end_to_end import DOCUMENT_BYTES
from hostile_texts import Shape, write
from synthetic import write_synthetic

from shardtrain.options import parse_size
from shardtrain.runtime.memory import anonymous_bytes

ONCE, TWICE = Shape(), Shape(tokens="twice")
TEXTS: dict[str, tuple[Shape | None, str]] = {
    "natural text": (None, ""),
    "every token once": (ONCE, "--min-df 1"),
    "every token once, by frequency": (ONCE, "--min-df 1 --select none"),
    "every token once, characters": (ONCE, "--min-df 1 --analyzer char"),
    "every token once, sequences": (ONCE, "--vectorizer sequence"),
    "every token in two documents, chi2": (TWICE, "--select chi2"),
    "one token, repeated": (Shape(tokens="one", words=2000), "--min-df 1"),
    "two letters, repeated": (Shape(tokens="short", words=2000), ""),
    "a document of 8 MB of two letters": (Shape(tokens="short", words=2000, first_words=2_700_000), ""),
    "documents of 220 kB": (Shape(tokens="growing", words=20_000), ""),
    "nine of ten documents are blank": (Shape(tokens="growing", blank=9), ""),
    "documents of one token": (Shape(tokens="growing", words=1), ""),
    "10,000 labels": (Shape(tokens="growing", words=10, labels=10_000), "--labels names"),
}
_INTERVAL_SECONDS = 0.02


@dataclass(frozen=True)
class Outcome:
    """Exit status of a command, the peak of the anonymous memory of all its processes in bytes, and its last line."""

    status: int
    peak: int
    last_line: str


def run(command: list[str]) -> Outcome:
    """Run a command and sample its memory."""
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(command, stdout=said, stderr=said)
        peak = 0
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(_INTERVAL_SECONDS)
        said.seek(0)
        return Outcome(process.returncode, peak, (said.read().strip().splitlines() or [""])[-1])


def main() -> int:
    """Measure and print a table; exit code 1 if a build exceeds its limit or fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthetic-bytes", default="44MB", metavar="SIZE", help="of each text (44MB)")
    parser.add_argument("--limits", nargs="+", default=["256MiB", "1GiB"], metavar="SIZE", help="(256MiB 1GiB)")
    args = parser.parse_args()
    size, good = parse_size(args.synthetic_bytes), True
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {size / 1e6:.0f} MB each")
    print(f"| text | options | {' | '.join(f'peak under {limit}' for limit in args.limits)} |")
    print("|---|---|" + "---|" * len(args.limits))
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        for name, (shape, options) in TEXTS.items():
            corpus = Path(folder, name.replace(" ", "-"))
            if shape is None:
                write_synthetic(corpus, documents=size // DOCUMENT_BYTES)
            else:
                corpus = write(shape, corpus, size)
            found = [_built(corpus, Path(folder, "shards"), limit, options.split()) for limit in args.limits]
            cells = [
                f"{each.peak / 2**20:,.0f} MiB"
                + ("" if each.status == 0 else f", exit status {each.status}: {each.last_line}")
                for each in found
            ]
            print(f"| {name} | {f'`{options}`' if options else ''} | {' | '.join(cells)} |", flush=True)
            within = [each.peak <= parse_size(limit) for each, limit in zip(found, args.limits, strict=True)]
            good = good and all(within) and not any(each.status for each in found)
    print("all within their limits" if good else "NOT ALL within their limits and with exit status 0")
    return 0 if good else 1


def _built(corpus: Path, out: Path, limit: str, options: list[str]) -> Outcome:
    command = [sys.executable, "-m", "shardtrain", "build", str(corpus), "--out", str(out), "--overwrite"]
    return run([*command, "--memory-limit", limit, *options])


if __name__ == "__main__":
    sys.exit(main())
