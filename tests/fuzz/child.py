"""Fuzz one target, guided by coverage, in this process: `child.py TARGET RUNS SECONDS FOLDER CORPUS`.

What a target raises ends the process with a traceback; libFuzzer ends it where an input takes 30 s or more, and reports
signals. The input is left in FOLDER.
"""

from __future__ import annotations

import sys
from pathlib import Path

import atheris

import shardtrain

HANG = 30
ROOT = Path(shardtrain.__file__).resolve().parent
COMPILED = [  # by numba, which cannot compile what is instrumented
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts)
    for path in ROOT.rglob("*.py")
    if "@kernel" in path.read_text() or "numba" in path.read_text()
]

with atheris.instrument_imports(include=["shardtrain"], exclude=COMPILED):
    from fuzz.targets import TARGETS, safe


def main(name: str, runs: str, seconds: str, folder: str, corpus: str) -> None:
    work = Path(folder) / "work"
    work.mkdir()
    found = Path(folder) / "found"
    found.mkdir()
    target = safe(TARGETS[name](work))
    limits = [f"-runs={runs}", f"-max_total_time={seconds}", f"-timeout={HANG}", "-max_len=65536", "-rss_limit_mb=0"]
    prefix = f"-artifact_prefix={folder}/"
    atheris.Setup([sys.argv[0], *limits, prefix, "-print_final_stats=1", str(found), corpus], target)
    atheris.Fuzz()


main(*sys.argv[1:])
