"""Declare the options of `report` and `inspect`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardtrain.options import option

_OUTPUT, _SHOWN = "output", "what is shown"


def _count(text: str) -> int:
    if not text.isdecimal():
        raise ValueError(f"{text!r} is not a number of rows; write 0 or more")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Where a report goes.

    Attributes:
        out: the HTML file.
        open: show it in the browser.
        shards: for a run: its shards; None: where they were when it was trained.
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
