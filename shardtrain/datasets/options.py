"""Declare the options for fetching a published set and for writing a demo corpus."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardtrain.options import REQUIRED, option

_OUTPUT, _ORIGIN, _CORPUS = "output", "origin", "corpus"


@dataclass(frozen=True, kw_only=True)
class FetchOptions:
    """Where a published set comes from and goes.

    Attributes:
        out: its folder; None: `data/NAME`.
        overwrite: replace a published set that was fetched to `out` before.
        file: an archive that was downloaded by other means.
        mirror: address of another server's folder with the archive, or of the archive.
        list: show all sets and fetch none.
    """

    list: bool = option(False, "show the sets with their sizes and licences, and exit", group=_ORIGIN, identity=False)
    out: Path | None = option(
        None, "folder of the set", group=_OUTPUT, metavar="DIR", parse=Path, unset="data/NAME", identity=False
    )
    overwrite: bool = option(False, "replace a published set that was fetched to --out", group=_OUTPUT, identity=False)
    file: Path | None = option(
        None,
        "use this archive, downloaded by other means",
        group=_ORIGIN,
        metavar="FILE",
        parse=Path,
        spelled="from",
        unset="download it",
    )
    mirror: str | None = option(
        None,
        "folder on another server that has the archive, or its address",
        group=_ORIGIN,
        metavar="URL",
        unset="where it is published",
    )


@dataclass(frozen=True, kw_only=True)
class DemoOptions:
    """The generated corpus.

    Attributes:
        documents: training documents; test.csv gets a tenth of that, at most 70,000.
        classes: 2 to 1,000.
        seed: from 0; the same seed gives the same files everywhere.
        overwrite: replace a corpus in the folder.
    """

    documents: int = option(
        20_000,
        "training documents, 20,000 make about 7 MB; test.csv gets a tenth of that, at most 70,000",
        group=_CORPUS,
        metavar="N",
        parse=int,
    )
    classes: int = option(8, "classes, 2 to 1,000", group=_CORPUS, metavar="K", parse=int)
    seed: int = option(
        0, "from 0; the same seed gives the same files everywhere", group=_CORPUS, metavar="S", parse=int
    )
    overwrite: bool = option(False, "replace a corpus that exists", group=_OUTPUT, identity=False)


@dataclass(frozen=True)
class DemoOutput:
    """Where the generated corpus goes."""

    out: Path = option(
        REQUIRED,
        "folder to write to, made if missing",
        group=_OUTPUT,
        metavar="DIR",
        parse=Path,
        identity=False,
    )
