"""Fail the calls of commands one by one and print a table of calls, faults and bad outcomes: `make faults`.

    python tests/faults/table.py [--every N] [--kinds KIND ...] [--power] [COMMAND ...]

`--every 10` injects every tenth fault. Exit code 1 if the law of `support.faulted` was broken.
"""

from __future__ import annotations

import argparse
import collections
import re
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TESTS))

from support.faulted import COMMANDS, Outcome, calls_of, faults_of, home_of, inject  # noqa: E402 - found there


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("commands", nargs="*", default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="inject every n-th fault")
    parser.add_argument("--kinds", nargs="*", help="kinds of calls; all by default")
    args = parser.parse_args()
    rows, broken = [], 0
    with tempfile.TemporaryDirectory(prefix="faults-") as name, home_of(Path(name) / "home") as home:
        for command in args.commands:
            start = time.monotonic()
            calls = calls_of(home, command)
            chosen = [fault for fault in faults_of(calls) if not args.kinds or fault.kind in args.kinds][:: args.every]
            outcomes = [inject(home, command, fault) for fault in chosen]
            bad = [outcome for outcome in outcomes if outcome.wrong]
            rows.append((command, len(calls), len(outcomes), len(bad), time.monotonic() - start))
            broken += len(bad)
            show(command, bad, home.folder)
    print(f"{'command':<14}{'calls':>8}{'faults':>8}{'bad outcomes':>14}{'seconds':>9}")
    for command, *numbers, seconds in rows:
        print(f"{command:<14}{numbers[0]:>8}{numbers[1]:>8}{numbers[2]:>14}{seconds:>9.0f}")
    return int(broken > 0)


def show(command: str, bad: list[Outcome], home: Path) -> None:
    """Print how the law was broken, equal cases together."""
    cases = collections.defaultdict(list)
    for outcome in bad:
        cases[re.sub(r"\d+", "_", outcome.wrong.replace(str(home), ""))].append(outcome)
    for _, same in sorted(cases.items(), key=lambda case: -len(case[1])):
        first = same[0]
        where = (first.call.path if first.call else "no call").replace(str(home), "")
        print(f"{command}: {len(same)} times, such as: {first.fault}, {where}", flush=True)
        print(f"    {first.wrong.replace(str(home), '')}")
        print(f"    said (exit {first.code}): {first.said[-300:].replace(str(home), '')}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
