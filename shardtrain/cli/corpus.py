"""How raw text is read, as options of the commands that read it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from shardtrain.corpus.source import ReadOptions


def add_corpus(group: argparse._ArgumentGroup, formats: tuple[str, ...], *, labels: bool) -> None:
    """Add the options of `corpus_options`; `labels` where what labels are can be said."""
    group.add_argument(
        "--format",
        default="auto",
        choices=formats,
        help="of the files (default: by extension)",
    )
    group.add_argument(
        "--label-column",
        type=_column,
        metavar="COLUMN",
        help="index from 0, or header name (default: the first, or a usual name)",
    )
    group.add_argument(
        "--text-columns",
        nargs="+",
        type=_column,
        metavar="COLUMN",
        help="indexes or names, joined with ', ' (default: all others)",
    )
    group.add_argument(
        "--header", action=argparse.BooleanOptionalAction, help="the first row names columns (default: detected)"
    )
    group.add_argument(
        "--unescape",
        action=argparse.BooleanOptionalAction,
        help="turn backslash-n and backslash-quote into newline and quote (default: for published sets that need it)",
    )
    if labels:
        group.add_argument(
        "--labels", default="auto", choices=("auto", "integers", "names"),
        help="integers from 0 or 1, or names (default: integers where all labels are)",
    )  # fmt: skip
    group.add_argument(
        "--on-bad-row",
        default="fail",
        choices=("fail", "skip"),
        help="stop at a row that cannot be used, or list it and go on (default fail)",
    )


def corpus_options(args: argparse.Namespace) -> ReadOptions:
    """What was given of `add_corpus`."""
    from shardtrain.corpus.source import ReadOptions

    return ReadOptions(
        format=args.format,
        label_column=args.label_column,
        text_columns=tuple(args.text_columns) if args.text_columns else None,
        header=args.header,
        unescape=args.unescape,
        labels=getattr(args, "labels", "auto"),
        on_bad_row=args.on_bad_row,
    )


def _column(name: str) -> int | str:
    return int(name) if name.isdecimal() else name
