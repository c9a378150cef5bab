"""Declare the options of `report` and `inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardtrain.corpus.options import Column, parse_column
from shardtrain.errors import UsageError
from shardtrain.options import checked, option

_OUTPUT, _SHOWN = "output", "what is shown"


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a number of rows; write 0 or more")
    return int(text)


@checked
@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Where a report goes.

    Attributes:
        out: the HTML file.
        open: show it in the browser.
        shards: for a run: its shards; None: where they were when it was trained.
        data: for a run: labelled raw text whose rows are measured by the values of the column `by`.
        by: the column.

    Raises:
        UsageError: one of `data` and `by` is given without the other.
    """

    out: Path = option(
        Path("report.html"),
        "the file; an older report is replaced",
        group=_OUTPUT,
        metavar="FILE",
        parse=Path,
        identity=False,
    )
    open: bool = option(False, "show it in the browser", group=_OUTPUT, identity=False)
    shards: Path | None = option(
        None,
        "for a run: its shards",
        group=_SHOWN,
        metavar="DIR",
        parse=Path,
        unset="where they were when it was trained",
        identity=False,
    )
    by: Column | None = option(
        None,
        "for a run: measure the rows of --data for each value of this column, named or counted from 0",
        group=_SHOWN,
        metavar="COLUMN",
        parse=parse_column,
        unset="none",
        identity=False,
    )
    data: Path | None = option(
        None,
        "with --by: labelled raw text, as `evaluate` takes it",
        group=_SHOWN,
        metavar="DATA",
        parse=Path,
        unset="none",
        identity=False,
    )

    def __post_init__(self) -> None:
        if (self.by is None) != (self.data is None):
            given, missing = ("--by", "--data") if self.data is None else ("--data", "--by")
            raise UsageError(f"{given} is given without {missing}: a file and a column of it make slices")


@checked
@dataclass(frozen=True, kw_only=True)
class InspectOptions:
    """What of some shards is shown.

    Attributes:
        rows: rows of each split to decode.
        verify: compare all checksums first.
        shuffle_quality: show how well each shuffle mixes the classes instead.
        batch_size: rows per batch, for `shuffle_quality`.
    """

    rows: int = option(3, "rows of each split to decode", group=_SHOWN, metavar="N", parse=_count, identity=False)
    verify: bool = option(
        False, "compare all checksums first; a fault ends with exit code 1", group=_SHOWN, identity=False
    )
    shuffle_quality: bool = option(
        False, "show instead how well each --shuffle of `fit` mixes the classes", group=_SHOWN, identity=False
    )
    batch_size: int = option(
        512, "rows per batch, for --shuffle-quality", group=_SHOWN, metavar="N", parse=_count, identity=False
    )
