"""Declare the options for reading a corpus."""

from __future__ import annotations

from dataclasses import dataclass

from shardtrain.corpus.encodings import is_encoding
from shardtrain.errors import UsageError
from shardtrain.options import checked, flag, option

FORMATS = ("auto", "csv", "tsv", "jsonl", "parquet", "arrow", "fasttext", "folder", "lines")
LABELS = ("auto", "integers", "names")
ON_BAD_ROW = ("fail", "skip")
STANDARD = "-"  # in place of a file: standard input or output
_GROUP = "reading text"

Column = int | str  # index from 0, or name


def _character(name: str) -> str:
    return {"tab": "\t", "\\t": "\t", "\\\\": "\\"}.get(name, name)


def parse_column(name: str) -> Column:
    """Return the index of a column that is written in digits, else its name."""
    return int(name) if name.isdecimal() else name


@checked
@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """How files of text are read; the defaults take what the files themselves say.

    Attributes:
        format: one of `FORMATS`; auto goes by the extension, else by a look at the first lines. Lines are texts without
            labels, one each: nothing can be trained on them.
        encoding: of the files, as Python names it; None takes what a byte order mark says, else UTF-8.
        delimiter: one character between the columns of CSV and TSV; None detects commas, tabs, semicolons and bars.
        quotes: whether the fields of CSV and TSV can be in double quotes; None detects it for tabs.
        escape: one character that precedes quotes inside quoted fields, as Spark and MySQL write the backslash; None
            detects the backslash.
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
    encoding: str | None = option(
        None,
        "such as cp1252, utf-16 or gb18030",
        group=_GROUP,
        metavar="NAME",
        unset="by the byte order mark, else utf-8",
    )
    delimiter: str | None = option(
        None,
        "between columns of CSV and TSV: one character, or 'tab'",
        group=_GROUP,
        metavar="CHAR",
        parse=_character,
        unset="detected",
    )
    quotes: bool | None = option(
        None, "whether fields of CSV and TSV can be in double quotes", group=_GROUP, switch=True, unset="detected"
    )
    escape: str | None = option(
        None,
        "precedes a quote inside quotes, such as '\\\\'",
        group=_GROUP,
        metavar="CHAR",
        parse=_character,
        unset="detected",
    )
    label_column: Column | None = option(
        None,
        "index from 0, or header name",
        group=_GROUP,
        metavar="COLUMN",
        parse=parse_column,
        unset="the first, or a usual name",
    )
    text_columns: tuple[Column, ...] | None = option(
        None,
        "indexes or names, joined with ', '",
        group=_GROUP,
        metavar="COLUMN",
        nargs="+",
        parse=parse_column,
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
        columns = () if self.text_columns is None else self.text_columns
        if self.text_columns is not None and not columns:
            raise UsageError("--text-columns names no column; omit it or name at least one")
        for name, column in (("label_column", self.label_column), *(("text_columns", each) for each in columns)):
            if isinstance(column, int) and column < 0:
                raise UsageError(f"{flag(name)} names column {column}, which does not exist; they are counted from 0")
        if self.label_column is not None and self.label_column in columns:
            raise UsageError(f"column {self.label_column!r} is named as label and as text; name it once")
        for name in ("header", "delimiter", "quotes", "escape"):
            if self.format not in ("auto", "csv", "tsv") and getattr(self, name) is not None:
                raise UsageError(f"{flag(name)} is for CSV and TSV only, not for --format {self.format}")
        for name in ("delimiter", "escape"):
            value = getattr(self, name)
            if value is not None and (len(value) != 1 or not value.isascii() or value in '"\r\n '):
                raise UsageError(
                    f"{flag(name)} is {value!r}; expected one ASCII character, no quote, space or line end"
                )
        if self.escape is not None and (self.quotes is False or self.escape == self.delimiter):
            raise UsageError("--escape needs quoted fields and another character than --delimiter; omit one of them")
        if self.encoding is not None and not is_encoding(self.encoding):
            raise UsageError(
                f"--encoding {self.encoding}: no encoding of text is known by this name; expected a name such as "
                "utf-8, utf-16, cp1252, latin-1 or gb18030"
            )


@checked
@dataclass(frozen=True, kw_only=True)
class CorpusOptions(TextOptions):
    """How a labelled corpus is read.

    Attributes:
        labels: integers (0 or 1 to n), names as they are spelled, or auto: integers where all labels are, else names
            of which equal numbers are one.

    The other attributes are those of the class that it extends.

    Raises:
        UsageError: a value that does not exist, or columns that exclude each other.
    """

    labels: str = option(
        "auto",
        "integers from 0 or 1, or names as they are spelled",
        group=_GROUP,
        choices=LABELS,
        unset="integers where all labels are",
    )
