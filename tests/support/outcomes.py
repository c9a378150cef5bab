"""Use files that were changed and sealed again, and report whatever comes of it that is no error of ours."""

from __future__ import annotations

import json
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.mutations import mutations

from shardtrain.errors import ShardtrainError

SECONDS = 30  # for one use of one changed file: more is a hang

Use = Callable[[Path], None]


@dataclass(frozen=True)
class Changed:
    """A way to change a file: its path in the folder, what there is to write, and the function that writes it.

    `can_be_written` says of a value whether it can: it is asked of those alone that are tried.
    """

    file: str
    values: Callable[[Path], Iterator[tuple[str, Any]]]
    write: Callable[[Path, Any], None]
    can_be_written: Callable[[Any], bool] = lambda value: True


def of_json(file: str, write: Callable[[Path, Any], None]) -> Changed:
    return Changed(file, lambda path: mutations(json.loads(path.read_bytes())), write)


def unforeseen(
    folder: Path, changes: Sequence[Changed], uses: Sequence[Use], scratch: Path, *, every: int
) -> list[str]:
    """Return what else than an error of ours came of the uses, by change."""
    found, count, due = [], 0, False
    for change in changes:
        for name, value in change.values(folder / change.file):
            count += 1
            due = due or count % every == 0
            if not due or not change.can_be_written(value):
                continue
            due = False
            copy = scratch / "copy"
            shutil.copytree(folder, copy)
            change.write(copy / change.file, value)
            for use in uses:
                if said := outcome(use, copy):
                    found.append(f"{change.file}: {name}: {said}")
            shutil.rmtree(copy, ignore_errors=True)  # of a build that failed nothing is left
    assert count > every
    return found


def outcome(use: Use, folder: Path) -> str:
    """Return the exception that is no error of ours, or the message that is not one line; empty: all is well."""
    signal.signal(signal.SIGALRM, hung)
    signal.alarm(SECONDS)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of numpy, as users see them: values that make no sense make no sense
            use(folder)
    except ShardtrainError as error:
        said = error.on_command_line
        return f"a message of several lines: {said!r}" if "\n" in said or len(said) > 1000 else ""
    except Exception as error:
        return f"{use.__name__}: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    return ""


def hung(number: int, frame: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")
