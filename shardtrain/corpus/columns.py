"""Which column is the label and which are text, and whether the first record is a header.

Without a header the first column is the label and all others are text, as in Zhang's published sets. With one, and
in JSON Lines, usual names are recognised whatever their case. A wrong guess here would train on rubbish, so two
columns that could both be the label are an error that lists them, never a choice.
"""

from __future__ import annotations

import re
from collections.abc import Sequence, Set

from shardtrain.corpus.options import Column, TextOptions
from shardtrain.errors import CorpusFormatError

LABEL_NAMES = frozenset(
    {
        "label",
        "labels",
        "class",
        "classes",
        "classindex",
        "classid",
        "classname",
        "classlabel",
        "category",
        "categories",
        "target",
        "sentiment",
        "stars",
        "star",
        "rating",
        "ratings",
        "score",
        "overall",
        "polarity",
        "topic",
    }
)  # fmt: skip - a word list, filled line by line
TEXT_NAMES = frozenset(
    {
        "text",
        "title",
        "review",
        "reviewtext",
        "reviewtitle",
        "reviewbody",
        "body",
        "content",
        "description",
        "sentence",
        "phrase",
        "summary",
        "headline",
        "subject",
        "document",
        "message",
        "comment",
        "commenttext",
        "tweet",
        "tweettext",
        "abstract",
        "article",
        "question",
        "questiontitle",
        "questioncontent",
        "answer",
        "bestanswer",
    }
)  # fmt: skip - a word list, filled line by line

_LONGEST_NAME = 64  # characters of a header's cell
_FEWEST_ROWS = 2  # behind a header that is recognised only by being unlike them


def has_header(rows: Sequence[Sequence[str]], options: TextOptions, *, labelled: bool) -> bool:
    """Decide whether the first of some records names the columns.

    It does if its cells can be names and either a label's and a text's usual name are among them, or a name given as
    an option is, or it has words where every other record has a number, or a usual name that no other record repeats
    in that column. So `ham<TAB>Go until…` is data, since ham comes again. Where no label is needed (`labelled` is
    false), a text's usual name is enough.
    """
    first, others = rows[0], [row for row in rows[1:] if len(row) == len(rows[0])]
    wanted = {column for column in (options.label_column, *(options.text_columns or ())) if isinstance(column, str)}
    if wanted & {cell.strip() for cell in first if not cell.strip().isdigit()}:
        return True
    if not _can_be_names(first):
        return False
    names = [_plain(cell) for cell in first]
    is_label, is_text = [name in LABEL_NAMES for name in names], [name in TEXT_NAMES for name in names]
    if any(is_text) and (any(is_label) or not labelled):
        return True
    if len(others) < _FEWEST_ROWS:
        return False
    columns = list(zip(*others, strict=True))
    if any(all(map(_is_number, column)) for column in columns):
        return True
    return any(
        (label or text) and cell not in column
        for cell, column, label, text in zip(first, columns, is_label, is_text, strict=True)
    )


def _separator_tip(record: str) -> str:
    """Return what to do about columns with an unexpected separator."""
    for mark, name in ((";", "semicolons"), ("|", "bars")):
        if mark in record:
            turn = f"import csv, sys; csv.writer(sys.stdout).writerows(csv.reader(sys.stdin, delimiter='{mark}'))"
            return f'it has {name} where CSV has commas; python -c "{turn}" < OLD > NEW writes it with commas'
    return "columns are parted by commas in CSV and by tabs in TSV: --format says which it is"


def choose_columns(
    names: Sequence[str] | None, first: Sequence[str], options: TextOptions, origin: str
) -> tuple[int, tuple[int, ...]]:
    """Choose the label's column and the text's columns of a CSV or TSV file with that first record, as indices.

    Raises:
        CorpusFormatError: a column does not exist, is not recognised, or cannot be distinguished from another.
    """
    num_columns = len(first)
    if num_columns < 2:
        raise CorpusFormatError(
            f"'{origin}' has one column; a label and a text are needed ({_separator_tip(first[0])})"
        )
    label = None if options.label_column is None else _find(options.label_column, names, num_columns, origin)
    texts = None
    if options.text_columns is not None:
        texts = tuple(_find(column, names, num_columns, origin) for column in options.text_columns)
    if names is None:
        label = (0 if texts is None or 0 not in texts else None) if label is None else label
        if label is None:
            raise CorpusFormatError(
                f"'{origin}': column 0, the label where there is no header, is named as text; name the label's column "
                "with --label-column"
            )
        return label, texts or tuple(column for column in range(num_columns) if column != label)
    return _choose_by_name(names, label, texts, origin)


def choose_texts(
    names: Sequence[str] | None, rows: Sequence[Sequence[str]], options: TextOptions, origin: str, labels: Set[str]
) -> tuple[int, ...]:
    """Choose the text's columns of a CSV or TSV file whose labels, if it has any, are not needed.

    A column that is named as the label's is no text. Without names, the first column is none either where it holds
    nothing but `labels` in all `rows`, so that published sets are read as they are for training.

    Raises:
        CorpusFormatError: a column does not exist or is not recognised.
    """
    num_columns = len(rows[0])
    label = None if options.label_column is None else _find(options.label_column, names, num_columns, origin)
    if options.text_columns is not None:
        texts = tuple(_find(column, names, num_columns, origin) for column in options.text_columns)
    elif names is not None:
        texts = _texts_by_name(names, label, origin)
    else:
        if label is None and num_columns > 1 and all(row and row[0].strip() in labels for row in rows):
            label = 0
        texts = tuple(column for column in range(num_columns) if column != label)
    if not texts or label in texts:
        raise CorpusFormatError(f"'{origin}' has no text besides the label; name the text's column with --text-columns")
    return texts


def choose_text_keys(keys: Sequence[str], options: TextOptions, origin: str) -> tuple[str, ...]:
    """Choose the text's keys of JSON objects whose labels, if they have any, are not needed.

    Raises:
        CorpusFormatError: a key does not exist or is not recognised.
    """
    _check_keys(options.text_columns or (), keys, origin)
    if options.text_columns is not None:
        return tuple(str(column) for column in options.text_columns)
    label = None if options.label_column is None or options.label_column not in keys else options.label_column
    return tuple(keys[i] for i in _texts_by_name(keys, None if label is None else keys.index(str(label)), origin))


def _texts_by_name(names: Sequence[str], label: int | None, origin: str) -> tuple[int, ...]:
    """Columns with usual names of a text, or the only one that has not a label's."""
    plain = [_plain(name) for name in names]
    free = [i for i in range(len(names)) if i != label]
    texts = [i for i in free if plain[i] in TEXT_NAMES] or [i for i in free if plain[i] not in LABEL_NAMES]
    if not texts or (len(texts) > 1 and plain[texts[0]] not in TEXT_NAMES):
        raise CorpusFormatError(
            f"'{origin}': which column is the text? Its columns are {_listed(names)}; say --text-columns NAME …"
        )
    return tuple(texts)


def choose_keys(keys: Sequence[str], options: TextOptions, origin: str) -> tuple[str, tuple[str, ...]]:
    """Choose the label's key and the text's keys of JSON objects that have these keys.

    Raises:
        CorpusFormatError: a key does not exist, is not recognised, or cannot be distinguished from another.
    """
    _check_keys((options.label_column, *(options.text_columns or ())), keys, origin)
    label = None if options.label_column is None else keys.index(str(options.label_column))
    texts = None
    if options.text_columns is not None:
        texts = tuple(keys.index(str(column)) for column in options.text_columns)
    label, texts = _choose_by_name(keys, label, texts, origin)
    return keys[label], tuple(keys[column] for column in texts)


def _check_keys(wanted: Sequence[Column | None], keys: Sequence[str], origin: str) -> None:
    for column in wanted:
        if column is not None and str(column) not in keys:
            raise CorpusFormatError(f"'{origin}' has no key '{column}' in its first objects; found {_listed(keys)}")


def _choose_by_name(
    names: Sequence[str], label: int | None, texts: tuple[int, ...] | None, origin: str
) -> tuple[int, tuple[int, ...]]:
    """Choose what the options left open: columns with usual names, or the only one that is left."""
    plain = [_plain(name) for name in names]
    if label is None:
        free = [i for i in range(len(names)) if i not in (texts or ())]
        labels = [i for i in free if plain[i] in LABEL_NAMES]
        if not labels and (texts is not None or len(names) == 2):
            labels = [i for i in free if plain[i] not in TEXT_NAMES]
        if len(labels) != 1:
            found = f"; these could be it: {_listed([names[i] for i in labels])}" if labels else ""
            raise CorpusFormatError(_unclear(origin, "the label", names, found))
        label = labels[0]
    if texts is None:
        texts = tuple(i for i in range(len(names)) if plain[i] in TEXT_NAMES and i != label)
        if not texts and len(names) == 2:
            texts = (1 - label,)
        if not texts:
            raise CorpusFormatError(_unclear(origin, "the text", names, ""))
    if label in texts:
        raise CorpusFormatError(f"'{origin}': column '{names[label]}' is named both as label and as text")
    return label, texts


def _find(column: Column, names: Sequence[str] | None, num_columns: int, origin: str) -> int:
    """Give the index of a column named by the user: a header's name, else an index from 0."""
    if isinstance(column, str) and names is not None:
        for same in (lambda name: name.strip() == column, lambda name: _plain(name) == _plain(column)):
            found = [i for i, name in enumerate(names) if same(name)]
            if len(found) > 1:
                raise CorpusFormatError(f"'{origin}' has {len(found)} columns '{column}'; give an index from 0 instead")
            if found:
                return found[0]
    if isinstance(column, int) or column.isdecimal():
        if int(column) < num_columns:
            return int(column)
        raise CorpusFormatError(
            f"'{origin}' has no column {column}: it has {num_columns} columns, counted from 0 to {num_columns - 1}"
        )
    found_names = "no header was found (--header says there is one)" if names is None else f"found {_listed(names)}"
    raise CorpusFormatError(f"'{origin}' has no column '{column}'; {found_names}")


def _unclear(origin: str, what: str, names: Sequence[str], found: str) -> str:
    return (
        f"'{origin}': which column is {what}? Its columns are {_listed(names)}{found}; "
        "say --label-column NAME and --text-columns NAME …"
    )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:30])
    return shown + (f" and {len(names) - 30} more" if len(names) > 30 else "")


def _can_be_names(cells: Sequence[str]) -> bool:
    """Whether cells are short, distinct, without newlines and no numbers; the first may be empty, as pandas has it."""
    stripped = [cell.strip() for cell in cells]
    return (
        len(set(stripped)) == len(stripped)
        and "" not in stripped[1:]
        and all(len(cell) <= _LONGEST_NAME and "\n" not in cell and not _is_number(cell) for cell in stripped)
    )


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", cell) is not None


def _plain(name: str) -> str:
    """Give a name without case, spaces, underscores and hyphens."""
    return re.sub(r"[\W_]+", "", name).lower()
