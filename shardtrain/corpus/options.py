"""Declare the options for reading a corpus."""

from __future__ import annotations

from dataclasses import dataclass

from shardtrain.errors import UsageError
from shardtrain.options import flag, option

FORMATS = ("auto", "csv", "tsv", "jsonl", "folder", "lines")
LABELS = ("auto", "integers", "names")
ON_BAD_ROW = ("fail", "skip")
_GROUP = "reading text"

Column = int | str  # index from 0, or name


def _column(name: str) -> Column:
    return int(name) if name.isdecimal() else name


@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How files of text are read; the defaults take what the files themselves say.

    Attributes:
        format: one of `FORMATS`; auto goes by the extension, else by a look at the first lines. Lines are texts without
            labels, one each: nothing can be trained on them.
        label_column: index from 0, header name or JSON key; None takes the first column or a usual name.
        text_columns: as the label's; several are joined with a comma and a space. None takes all other columns, or
            those with usual names.
        header: whether the first record names the columns; None detects it.
        unescape: turn backslash-n and backslash-quote into newline and quote; None does so for the published sets
            whose text is written like that.
        on_bad_row: fail at the first row that cannot be used, or skip and list such rows.

    Raises:
        UsageError: a value that does not exist, or columns that exclude each other.
    """

    format: str = option("auto", "format of the files", group=_GROUP, choices=FORMATS, unset="by extension")
    label_column: Column | None = option(
        None,
        "index from 0, or header name",
        group=_GROUP,
        metavar="COLUMN",
        parse=_column,
        unset="the first, or a usual name",
    )
    text_columns: tuple[Column, ...] | None = option(
        None,
        "indexes or names, joined with ', '",
        group=_GROUP,
        metavar="COLUMN",
        nargs="+",
        parse=_column,
        unset="all others",
    )
    header: bool | None = option(
        None, "whether the first row names columns", group=_GROUP, switch=True, unset="detected"
    )
    unescape: bool | None = option(
        None,
        "turn backslash-n and backslash-quote into newline and quote",
        group=_GROUP,
        switch=True,
        unset="for published sets that need it",
    )
    on_bad_row: str = option(
        "fail", "stop at a row that cannot be used, or list and skip it", group=_GROUP, choices=ON_BAD_ROW
    )

    def __post_init__(self) -> None:
        for name, allowed in (("format", FORMATS), ("on_bad_row", ON_BAD_ROW)):
            value = getattr(self, name)
            if value not in allowed:
                raise UsageError(f"{flag(name)} is {value!r}; expected one of {', '.join(allowed)}")
        columns = () if self.text_columns is None else self.text_columns
        if self.text_columns is not None and not columns:
            raise UsageError("--text-columns names no column; omit it or name at least one")
        for column in (self.label_column, *columns):
            if isinstance(column, int) and column < 0:
                raise UsageError(f"column {column} does not exist; columns are counted from 0")
        if self.label_column is not None and self.label_column in columns:
            raise UsageError(f"column {self.label_column!r} is named as label and as text; name it once")
        if self.format in ("jsonl", "folder", "lines") and self.header is not None:
            raise UsageError(f"--header is for CSV and TSV only, not for --format {self.format}")


@dataclass(frozen=True, kw_only=True)
class CorpusOptions(TextOptions):
    """How a labelled corpus is read.

    Attributes:
        labels: integers (0 or 1 to n), names, or auto: integers where all labels are.

    The other attributes are those of the class that it extends.

    Raises:
        UsageError: a value that does not exist, or columns that exclude each other.
    """

    labels: str = option(
        "auto", "integers from 0 or 1, or names", group=_GROUP, choices=LABELS, unset="integers where all labels are"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.labels not in LABELS:
            raise UsageError(f"--labels is {self.labels!r}; expected one of {', '.join(LABELS)}")
