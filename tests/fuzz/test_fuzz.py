"""Readers of untrusted bytes end with a result or an error of ours: on the committed corpus, and where fuzzing leads.

The corpus has small valid inputs and the inputs that once were finds. `make test` reads it, and mutations of it that
are the same in every run. `make soak` fuzzes each target for a minute, guided by coverage, in a process of its own that
is watched for exceptions, hangs and signals.
"""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from fuzz.targets import TARGETS, safe

HERE = Path(__file__).resolve().parent
CORPUS = HERE / "corpus"
MUTATIONS = 40  # of each target's inputs, in `make test`
RUNS, SECONDS = 2000, 60  # of each target in `make soak`: at least so many inputs, and as many as fit in the time


def inputs(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def mutated(content: bytes, rng: random.Random) -> bytes:
    """Return an input with a few of its bytes changed, cut, doubled or inserted."""
    out = bytearray(content)
    for _ in range(rng.randint(1, 4)):
        start = rng.randrange(len(out) + 1)
        stop = min(len(out), start + rng.randint(1, 16))
        how = rng.randrange(5)
        if how == 0 and start < len(out):
            out[start] ^= 1 << rng.randrange(8)
        elif how == 1:
            del out[start:stop]
        elif how == 2:
            out[start:start] = out[start:stop]
        elif how == 3:
            out[start:stop] = rng.choice([b"-1", b"\x00", b"\xff\xff\xff\xff", b'"', b"null", b"[", b"1e999", b"\n"])
        else:
            del out[start:]
    return bytes(out)


@pytest.mark.parametrize("name", TARGETS)
def test_the_corpus_and_mutations_of_it_are_read_or_refused(name: str, tmp_path: Path) -> None:
    target, rng, known = safe(TARGETS[name](tmp_path)), random.Random(name), inputs(name)
    assert known
    for content in [*known, *(mutated(rng.choice(known), rng) for _ in range(MUTATIONS))]:
        target(content)


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_fuzzing_guided_by_coverage_finds_nothing(name: str, tmp_path: Path) -> None:
    pytest.importorskip("atheris", reason="atheris is there for Linux only")
    done = 0
    for number, (runs, seconds) in enumerate(((-1, SECONDS), (RUNS, 0))):  # on a slow machine the minute is not enough
        if done < RUNS:
            folder = tmp_path / str(number)
            folder.mkdir()
            done = fuzz(name, folder, runs=runs, seconds=seconds)
    assert done >= RUNS


def fuzz(name: str, folder: Path, *, runs: int, seconds: int) -> int:
    """Fuzz a target in a process of its own; return how many inputs it read. A find fails."""
    arguments = [name, str(runs), str(seconds), str(folder), str(CORPUS / name)]
    path = [str(HERE.parents[1]), str(HERE.parent), os.environ.get("PYTHONPATH", "")]
    done = subprocess.run(
        [sys.executable, "-P", str(HERE / "child.py"), *arguments],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=10 * seconds + 600,
        check=False,
    )
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, f"exit code {done.returncode}, the input is in {folder}: {said[-3000:]}"
    found = re.search(r"stat::number_of_executed_units:\s*(\d+)", said)
    assert found is not None, said[-3000:]
    return int(found[1])
