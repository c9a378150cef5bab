"""Note the texts of which a prediction says little: blank ones, those without known features, undecodable ones.

A text gets a class whatever it is. The marks of a text say that nothing in it led to its class, or that something of
it was lost. Marks are bits, so a text can have several; they are found in the units in which texts are classified, and
counts add up, so neither depends on workers or interruptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Features
from shardtrain.arrays.texts import Texts
from shardtrain.corpus.blank import blank_texts
from shardtrain.inference.options import PredictOptions
from shardtrain.pipeline.text_warnings import warn_of_replaced_bytes
from shardtrain.runtime.progress import warn

Marks = npt.NDArray[np.uint8]  # (texts,)

UNDECODABLE, BLANK, UNKNOWN = 1, 2, 4
_NAMES = {UNDECODABLE: "undecodable", BLANK: "blank", UNKNOWN: "no known feature"}
NOTES = tuple("; ".join(name for bit, name in _NAMES.items() if marks & bit) for marks in range(8))  # by marks
_REPLACEMENT = "\ufffd".encode()


@dataclass(frozen=True, kw_only=True)
class TextCounts:
    """How many of some texts have marks.

    Attributes:
        replaced_bytes: number of bytes that are not UTF-8, in the texts or elsewhere in their records.
        undecodable_texts: texts with such bytes, which were read as U+FFFD.
        blank_texts: texts that are empty or white space.
        unknown_texts: other texts without any feature that the model knows.
    """

    replaced_bytes: int = 0
    undecodable_texts: int = 0
    blank_texts: int = 0
    unknown_texts: int = 0

    @classmethod
    def of(cls, marks: Marks, replaced_bytes: int) -> TextCounts:
        """Count marks."""
        return cls(
            replaced_bytes=replaced_bytes,
            undecodable_texts=int(np.count_nonzero(marks & UNDECODABLE)),
            blank_texts=int(np.count_nonzero(marks & BLANK)),
            unknown_texts=int(np.count_nonzero(marks & UNKNOWN)),
        )

    def __add__(self, other: TextCounts) -> TextCounts:
        return TextCounts(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})

    def warn(self, command: str, *, advice: str, encoding: str | None) -> None:
        """Warn of what was counted, a line for each kind.

        Args:
            command: that read the texts.
            advice: what to know about such texts.
            encoding: that was asked for, if any.
        """
        warn_of_replaced_bytes(self.replaced_bytes, again=f"{command} again", encoding=encoding)
        for line in self._lines():
            warn(f"{line}; {advice}")

    def _lines(self) -> Iterator[str]:
        if self.blank_texts:
            yield f"{_count(self.blank_texts)} blank, so the class says nothing"
        if self.unknown_texts:
            has = f"{_count(self.unknown_texts, 'has', 'have')} no feature that the model knows"
            yield f"{has}, so the class says nothing"


def warn_of_texts(counts: TextCounts, options: PredictOptions) -> None:
    """Warn of texts of which the predictions say little, and name the option that marks them."""
    advice = "see the column `note`" if options.notes else "--notes marks such texts in the output"
    counts.warn("predict", advice=advice, encoding=options.encoding)


def marks_of(texts: Texts, x: Features, *, replaced: bool | npt.NDArray[np.bool_], columns: int = 1) -> Marks:
    """Mark texts.

    Args:
        texts: the texts.
        x: their rows, as the model's vectorizer made them.
        replaced: whether U+FFFD in the texts, or in each of them, stands for bytes that could not be decoded.
        columns: number of columns that were joined, with a comma and a space, to make a text.
    """
    blank = blank_texts(texts, columns=columns)
    marks = np.where(blank, BLANK, np.where(empty_rows(x), UNKNOWN, 0)).astype(np.uint8)
    if np.any(replaced):
        marks[_with_replacement(texts) & replaced] |= UNDECODABLE
    return marks


def empty_rows(x: Features) -> npt.NDArray[np.bool_]:
    """Select the rows without features: no n-gram, or no token id beside the padding."""
    empty: npt.NDArray[np.bool_] = np.diff(x.indptr) == 0 if isinstance(x, Csr) else np.logical_not(x.any(axis=1))
    return empty


def replace_escaped(text: str) -> tuple[str, int]:
    """Return a text of the command line with U+FFFD for undecodable bytes, as files are read, and their number.

    Python decodes arguments with the error handler "surrogateescape", which gives a lone surrogate for each such byte.
    """
    try:
        text.encode()  # fast, and nearly always succeeds
    except UnicodeEncodeError:
        number = sum("\udc80" <= character <= "\udcff" for character in text)
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace"), number
    return text, 0


def _with_replacement(texts: Texts) -> npt.NDArray[np.bool_]:
    first, second, third = _REPLACEMENT
    data = texts.data
    found = np.flatnonzero((data[:-2] == first) & (data[1:-1] == second) & (data[2:] == third))
    holds = np.zeros(len(texts), np.bool_)
    holds[np.searchsorted(texts.offsets, found, side="right") - 1] = True
    return holds


def _count(number: int, one: str = "is", more: str = "are") -> str:
    return f"{number:,} text {one}" if number == 1 else f"{number:,} texts {more}"
