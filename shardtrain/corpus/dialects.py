"""Detect how a CSV or TSV file separates and quotes its fields, from its first records.

Each dialect in turn is tried on the sample. The usual one of the format is taken if all its records are well-formed and
have equally many columns, and a column can be the label; else the first other dialect of which that is true. So a comma
in every text of a file with semicolons does not make two columns, and one bad row does not change the dialect.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from shardtrain.corpus import detect
from shardtrain.corpus.options import TextOptions
from shardtrain.corpus.parsing import split_fields
from shardtrain.corpus.records import Syntax

Plausible = Callable[[Sequence[Sequence[str]], bool], bool]

_DELIMITERS = (",", "\t", ";", "|")
_NAMES = {",": "commas", "\t": "tabs", ";": "semicolons", "|": "bars"}
_MARK = b"sep="  # of the first line that Excel writes and reads
_QUOTE_BYTES = 8 << 20  # in which a file with tabs is searched for quotes
_SHARE = 0.9  # of records with equally many columns, where no dialect fits all of them


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file separates and quotes its fields.

    Attributes:
        syntax: of the records.
        sample: its first records, read so.
        notes: what was detected, one line each.
    """

    syntax: Syntax
    sample: detect.Sample
    notes: tuple[str, ...] = ()


def detect_dialect(
    path: Path,
    usual: str,
    options: TextOptions,
    *,
    begin: int,
    origin: Path,
    plausible: Plausible,
    remembered: Syntax | None = None,
) -> Dialect:
    """Detect the dialect of a CSV or TSV file, as far as the options leave it open.

    Args:
        path: the file.
        usual: the delimiter of the format.
        options: delimiter, quotes and escape character that the user chose.
        begin: position after the byte order mark.
        origin: the file, for messages.
        plausible: whether records, as a dialect reads them, can be those of a corpus; also told whether their delimiter
            is the usual one.
        remembered: the syntax of another file that this one is expected to have.
    """
    line = 1
    mark = detect.first_line(path, begin)
    if named := _named_by(mark):
        options = options if options.delimiter else replace(options, delimiter=named)
        begin, line = begin + len(mark), 2
    tried: list[_Trial] = []
    chosen_by_user = (options.delimiter, options.quotes, options.escape) != (None, None, None)
    first = [] if remembered is None or chosen_by_user else [remembered]
    if first and first[0].delimiter == "\t" and first[0].quoting and not _has_quotes(path, begin):
        first = []
    for syntax in chain(first, _candidates(usual, options, path, begin)):
        sample = detect.read_sample(path, syntax, begin=begin, line=line)
        tried.append(_Trial.of(syntax, sample, usual=syntax.delimiter == usual, plausible=plausible))
        if tried[-1].fits:
            break
    chosen = next((each for each in tried if each.fits), None)
    if chosen and chosen.syntax.delimiter == "\t" and chosen.syntax.quoting and options.quotes is None:
        plain = Syntax(delimiter="\t")
        sample = detect.read_sample(path, plain, begin=begin, line=line)
        trial = _Trial.of(plain, sample, usual=True, plausible=plausible)
        # Every line is a record of as many columns: quotes that join some of them are text.
        chosen = trial if trial.fits and trial.records > chosen.records else chosen
    if chosen is None:
        chosen = next((each for each in tried if each.share >= _SHARE and each.columns > 1), tried[0])
    return Dialect(syntax=chosen.syntax, sample=chosen.sample, notes=_notes(chosen.syntax, usual, options, origin))


def _named_by(line: bytes) -> str | None:
    """Return the delimiter that a first line `sep=;` names; None if it is another line."""
    stripped = line.strip(b"\r\n")
    if stripped.lower().startswith(_MARK) and len(stripped) == len(_MARK) + 1 and stripped.isascii():
        return stripped[-1:].decode()
    return None


def _has_quotes(path: Path, begin: int) -> bool:
    """Return whether a field at the head of a file with tabs begins with a quote."""
    with open(path, "rb") as file:
        file.seek(begin)
        head = file.read(_QUOTE_BYTES)
    return head.startswith(b'"') or b'\t"' in head or b'\n"' in head


def _candidates(usual: str, options: TextOptions, path: Path, begin: int) -> Iterator[Syntax]:
    """Yield the dialects to try, the usual one of the format first; the file is only read if it may have tabs."""
    delimiters = (
        (options.delimiter,) if options.delimiter else (usual, *(each for each in _DELIMITERS if each != usual))
    )
    for delimiter in delimiters:
        for quoting in _quotings(delimiter, options, path, begin):
            for escape in (options.escape,) if options.escape or not quoting else (None, "\\"):
                yield Syntax(delimiter=delimiter, quoting=quoting, escape=escape if quoting else None)


def _quotings(delimiter: str, options: TextOptions, path: Path, begin: int) -> Sequence[bool]:
    if options.quotes is not None or options.escape:
        return (options.quotes is not False,)
    if delimiter != "\t":
        return (True,)
    return (True, False) if _has_quotes(path, begin) else (False,)


@dataclass(frozen=True, kw_only=True)
class _Trial:
    """How a dialect reads a sample: whether it fits, the usual number of columns, and the share of records with it."""

    syntax: Syntax
    sample: detect.Sample
    fits: bool
    columns: int
    records: int
    share: float

    @classmethod
    def of(cls, syntax: Syntax, sample: detect.Sample, *, usual: bool, plausible: Plausible) -> _Trial:
        rows = split_fields(syntax, sample.lines)
        if not rows:
            return cls(syntax=syntax, sample=sample, fits=False, columns=0, records=0, share=0.0)
        most, number = Counter(map(len, rows)).most_common(1)[0]
        clean = number == len(rows) and sample.first_bad is None
        share = number / (len(rows) + (sample.first_bad is not None))
        fits = clean and plausible(rows, usual)
        return cls(syntax=syntax, sample=sample, fits=fits, columns=most, records=len(rows), share=share)


def _notes(found: Syntax, usual: str, options: TextOptions, origin: Path) -> tuple[str, ...]:
    notes = []
    if found.delimiter != usual and options.delimiter is None:
        named = _NAMES.get(found.delimiter or "", repr(found.delimiter))
        notes.append(f"{origin.name}: columns are separated by {named}")
    if found.escape and options.escape is None:
        notes.append(f"{origin.name}: a backslash precedes quotes inside quoted fields")
    if found.delimiter == "\t" and found.quoting and options.quotes is None:
        notes.append(f"{origin.name}: fields are in quotes, as in CSV")
    return tuple(notes)
