"""Run what a page of docs shows on a console, and compare what is printed.

Lines after `$` are run, with the next one where they end with a backslash; what they print, on standard output and
standard error, is compared with what stands below.
There `...` stands for anything, numbers with a point for any such number, and `^C` for an interruption at that moment.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from shardtrain.cli.main import main

PROGRAM = "python -m shardtrain"


def steps(text: str) -> Iterator[tuple[str, str, str]]:
    """Heading, command and what it shows."""
    for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
        for block in re.findall(r"```console\n(.*?)```", section, re.DOTALL):
            for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
                command, _, shown = re.sub(r"\\\n +", "", step).partition("\n")
                yield section.partition("\n")[0], command, shown


class Screen(io.StringIO):
    """What is printed; interrupts this process as soon as a line matches `until`."""

    def __init__(self, until: str | None) -> None:
        super().__init__()
        self._until = until

    def write(self, text: str) -> int:
        written = super().write(text)
        if self._until is not None and re.search(self._until, self.getvalue()):
            self._until = None
            threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGINT)).start()
        return written


@contextmanager
def standard_input(text: str) -> Iterator[None]:
    before, sys.stdin = sys.stdin, io.TextIOWrapper(io.BytesIO(text.encode()))
    try:
        yield
    finally:
        sys.stdin = before


def execute(command: str, until: str | None) -> tuple[str, int]:
    """What a command prints, and its exit code."""
    if PROGRAM not in command:
        done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        return done.stdout, done.returncode
    before, _, ours = command.partition(PROGRAM)
    ours, _, target = ours.partition(" > ")
    given = subprocess.run(["bash", "-c", before.rstrip("| ")], stdout=subprocess.PIPE, text=True, check=True).stdout
    screen = Screen(until)
    out = io.StringIO() if target else screen
    with standard_input(given), redirect_stderr(screen), redirect_stdout(out):
        try:
            code = main(shlex.split(ours))
        except SystemExit as left:
            code = int(left.code or 0)
    if target:
        Path(target.strip()).write_text(out.getvalue())
    return screen.getvalue(), code


def pattern(shown: str) -> str:
    """A regular expression for what is shown."""
    lines = [re.escape(line).replace(re.escape("..."), ".*?") + r"\n" for line in plain(shown).splitlines()]
    return "".join(r"(?:.*\n)*?" if line == r".*?\n" else line for line in lines)


FIGURE = r"[\d,]*\d\.\d+(?:e-\d+)?"


def plain(text: str) -> str:
    """The text without what differs from run to run: numbers with a point, and with it their thousands."""
    return re.sub(FIGURE, "#.#", text)


def check_figures(shown: str, printed: str) -> None:
    """Check that numbers with a point are about those that are shown, which other processors may round otherwise."""
    found = re.fullmatch(pattern(shown).replace(re.escape("#.#"), f"({FIGURE})"), printed)
    assert found, f"{printed}--- is not what is written:\n{shown}"
    for expected, figure in zip(re.findall(FIGURE, shown), found.groups(), strict=True):
        wanted, got = (float(text.replace(",", "")) for text in (expected, figure))
        assert abs(got - wanted) <= 0.01 + 0.01 * abs(wanted), f"{figure} is not {expected} in:\n{printed}"


def check(heading: str, command: str, shown: str, *, figures: bool = False) -> None:
    """Run a command, and check that it prints what is shown and ends with the exit code that belongs to it.

    With `figures`, numbers with a point have to be those that are shown, too.
    """
    before, interrupted, after = shown.partition("^C\n")
    until = re.escape(before.splitlines()[-1].partition(":")[0]) if interrupted else None
    printed, code = execute(command, until)
    assert "Traceback" not in printed, f"{heading}: {command}\n{printed}"
    seen = re.fullmatch(pattern(before + after), plain(printed))
    assert seen, f"{heading}: {command}\n{printed}--- is not what is written:\n{shown}"
    if figures:
        check_figures(before + after, printed)
    codes = {130} if interrupted else {1, 2} if "error: " in shown or command == PROGRAM else {0}
    assert code in codes, f"{heading}: {command} ended with {code}"
