"""Remember how a corpus was read, so that later files of the same columns are read likewise.

The manifest of shards and the configuration of a run hold the description of the training corpus (`Source.describe`).
What it says is the default for files that are evaluated, classified or appended; options that the user gives come
first, and where a file has other columns that is said in one line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from shardtrain.corpus.columns import normalize, places_of
from shardtrain.corpus.encodings import is_encoding
from shardtrain.corpus.options import Column, TextOptions
from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.schema import ANYTHING, Either, Fields, Flag, Integer, Items, Keyed, Text, optional

if TYPE_CHECKING:
    from shardtrain.corpus.records import Syntax

_COLUMN = Either((Text(), Integer()))
_CHARACTER = optional(Text("[\\x00-\\x7f]", "one ASCII character"))
SOURCE = Fields(
    optional={
        "format": Text(),
        "header": Flag(),
        "label_column": optional(_COLUMN),
        "text_columns": Items(_COLUMN),
        "encoding": Text(),
        "delimiter": _CHARACTER,
        "quotes": Flag(),
        "escape": _CHARACTER,
        "unescape": Flag(),
        "files": Either((Items(Text()), Keyed(ANYTHING))),
    },
    others=True,
)  # what `Source.describe` returns, as it is read from JSON


def recorded_source(build: Mapping[str, Any]) -> Any:
    """Return the description of the first training corpus that the manifest of shards has in `build`; None: none."""
    parts = build.get("parts")
    return parts[0].get("train") if parts else None


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How a corpus was read.

    Attributes:
        label: name or index of the label column; None where there are no columns.
        texts: likewise of the text columns.
        header: whether its columns had names.
        encoding: of its files.
        syntax: how its records were divided into fields; None: in the usual way of the format.
        unescape: see `TextOptions`.
    """

    label: Column | None
    texts: tuple[Column, ...]
    header: bool
    encoding: str
    syntax: Syntax | None
    unescape: bool

    @classmethod
    def of_record(cls, record: Any) -> Reading | None:
        """Parse the description of a source; None if there is none.

        Raises:
            CorpusFormatError: it makes no sense.
        """
        if record is None or "format" not in record:
            return None
        if (mismatch := SOURCE.mismatch(record)) is not None:
            raise CorpusFormatError(
                f"the shards record how their corpus was read, but it makes no sense: {mismatch}; rebuild the shards"
            )
        from shardtrain.corpus.records import Syntax  # loads kernels; that a run is listed takes its schema alone

        has_columns, encoding = record["format"] != "fasttext", record.get("encoding", "utf-8")
        delimiter, quoting, escape = (record.get(name) for name in ("delimiter", "quotes", "escape"))
        return cls(
            label=record.get("label_column") if has_columns else None,
            texts=tuple(record.get("text_columns", ())) if has_columns else (),
            header=record.get("header", False) or record["format"] in ("jsonl", "parquet", "arrow", "rows"),
            encoding=encoding if is_encoding(encoding) else "utf-8",
            syntax=None if delimiter is None else Syntax(delimiter=delimiter, quoting=bool(quoting), escape=escape),
            unescape=record.get("unescape", False),
        )

    @property
    def columns(self) -> tuple[Column | None, ...]:
        """The label column and the text columns."""
        return (self.label, *self.texts)

    def names_some(self, cells: Sequence[str]) -> bool:
        """Return whether a cell is the name of a label or text column, in any case; without a header there are none."""
        names = {normalize(each) for each in self.columns if self.header and isinstance(each, str)}
        return any(cell in names for cell in map(normalize, cells) if cell)

    def columns_for(
        self, options: TextOptions, names: Sequence[str] | None, num_columns: int, *, by_index: bool
    ) -> TextOptions | None:
        """Return options with the columns that are remembered, where they choose none; None: a file does not have them.

        Args:
            options: that the user chose.
            names: of the file's columns; None: it has no header.
            num_columns: how many it has.
            by_index: whether columns of the file go by their index, and not by their name.
        """
        if not self.texts or (options.text_columns and options.label_column is not None):
            return options
        label: Column | None = None
        texts: tuple[Column, ...] | None = None
        if names is not None and (found := self.texts_in(names)) is not None:
            place = self.label_in(names)
            label, texts = place, found
            if not by_index:
                label, texts = None if place is None else names[place], tuple(names[each] for each in found)
        elif names is None and not self.header and all(_is_below(each, num_columns) for each in self.columns):
            label, texts = self.label, self.texts
        label = label if options.label_column is None else options.label_column
        chosen = texts if options.text_columns is None else options.text_columns
        if texts is None or label in (chosen or ()):
            return None
        return replace(options, label_column=label, text_columns=chosen)

    def label_in(self, names: Sequence[str]) -> int | None:
        """Return the index of the label column among names; None if it is not there."""
        return self._place(self.label, names) if self.header else None

    def texts_in(self, names: Sequence[str]) -> tuple[int, ...] | None:
        """Return the indices of the text columns among names; None unless all are there."""
        found = tuple(place for each in self.texts if (place := self._place(each, names)) is not None)
        return found if self.header and self.texts and len({*found}) == len(self.texts) else None

    @staticmethod
    def _place(column: Column | None, names: Sequence[str]) -> int | None:
        """Return the index of the first column with a name, or of the only one that has it in another case."""
        if column in names:
            return names.index(str(column))
        found = places_of(column, names) if isinstance(column, str) else []
        return found[0] if len(found) == 1 else None


def _is_below(column: Column | None, number: int) -> bool:
    return isinstance(column, int) and column < number
