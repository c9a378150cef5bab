"""Fail the calls of commands one by one, lose power at every point, and print a table: `make faults`.

    python tests/faults/table.py [--every N] [--only faults|power] [COMMAND ...]

`--every 20` takes every 20th fault and state. Exit code 1 if a law was broken.
"""

from __future__ import annotations

import argparse
import collections
import re
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from support.faulted import COMMANDS, Home, calls_of, faults_of, home_of, inject  # noqa: E402 - found there
from support.powerless import LOSSES, followed, judged  # noqa: E402

Row = tuple[str, int, int, int, float]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), metavar="COMMAND", help="all by default")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="take every n-th fault and state")
    parser.add_argument("--only", choices=["faults", "power"], help="one of the two tables")
    args = parser.parse_args()
    faults, losses = [], []
    with tempfile.TemporaryDirectory(prefix="faults-") as name, home_of(Path(name) / "home") as home:
        if args.only != "power":
            faults = [faulted(home, command, args.every) for command in args.commands]
        if args.only != "faults":
            losses = [powerless(home, command, args.every) for command in args.commands if command in LOSSES]
    for title, tried, rows in (("calls", "faults", faults), ("states", "tried", losses)):
        if rows:
            print(f"\n{'command':<14}{title:>8}{tried:>8}{'bad outcomes':>14}{'seconds':>9}")
        for command, *numbers, seconds in rows:
            print(f"{command:<14}{numbers[0]:>8,}{numbers[1]:>8,}{numbers[2]:>14,}{seconds:>9,.0f}")
    return int(any(row[3] for row in faults + losses))


def faulted(home: Home, command: str, every: int) -> Row:
    """Inject faults into a command and show how the law was broken."""
    start = time.monotonic()
    calls = calls_of(home, command)
    outcomes = [inject(home, command, fault) for fault in faults_of(calls)[:: every * COMMANDS[command].every]]
    bad = [
        (each.wrong, f"{each.fault}, {each.call.path if each.call else 'no call'}\n    said: {each.said[-400:]}")
        for each in outcomes
        if each.wrong
    ]
    show(command, bad, home)
    return command, len(calls), len(outcomes), len(bad), time.monotonic() - start


def powerless(home: Home, command: str, every: int) -> Row:
    """Lose power in a command and show how the law was broken."""
    start = time.monotonic()
    disk = followed(home, command)
    tried = list(disk.states.items())[::every]
    bad = [(wrong, f"power lost {when}") for state, when in tried if (wrong := judged(home, command, disk, state))]
    show(command, bad, home)
    return command, len(disk.states), len(tried), len(bad), time.monotonic() - start


def show(command: str, bad: Iterable[tuple[str, str]], home: Home) -> None:
    """Print what was wrong, with one example of those that are equal but for numbers."""
    cases = collections.defaultdict(list)
    for wrong, example in bad:
        cases[re.sub(r"\d+", "_", wrong)].append((wrong, example))
    for same in sorted(cases.values(), key=len, reverse=True):
        wrong, example = same[0]
        lines = f"{command}: {len(same)} times: {wrong}\n    such as {example}"
        print(lines.replace(str(home.folder), ""), flush=True)


if __name__ == "__main__":
    sys.exit(main())
