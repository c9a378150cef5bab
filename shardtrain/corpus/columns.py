"""Choose the label column and the text columns, and detect a header.

Without a header the first column is the label and all others are text, as in the datasets of Zhang et al. With one, and
in JSON Lines, columns are recognised by usual names, ignoring case. A wrong guess would train on the wrong data, so two
columns that could both be the label are an error that lists them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence, Set

from shardtrain.corpus.label_spelling import canonical_label
from shardtrain.corpus.options import Column, TextOptions
from shardtrain.corpus.words import has_words
from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.quantities import QUOTED, enumerated

LABEL_NAMES = frozenset({
    "label", "labels", "class", "classes", "classindex", "classid", "classname", "classlabel", "category", "categories",
    "target", "sentiment", "stars", "star", "rating", "ratings", "score", "overall", "polarity", "topic",
})  # fmt: skip  # many names per line
TEXT_NAMES = frozenset({
    "text", "title", "review", "reviewtext", "reviewtitle", "reviewbody", "body", "content", "description", "sentence",
    "phrase", "summary", "headline", "subject", "document", "message", "comment", "commenttext", "tweet", "tweettext",
    "abstract", "article", "question", "questiontitle", "questioncontent", "answer", "bestanswer",
})  # fmt: skip  # many names per line

_LONGEST = 1000  # characters of a cell that may be a name, to spare work on texts
_MAX_NAME_LENGTH = 64  # characters of a cell in a header
_MIN_RECORDS = 2  # to compare with, where a header is recognised only by differing from them
_FEW_RECORDS = 4  # below it, cells that are all distinct can be labels
_MIN_WORDS = 2  # of a sentence
_ONE_COLUMN = (
    "columns are separated by commas, tabs, semicolons or bars, or by what --delimiter names; for a file of lines that "
    "begin with __label__ choose --format fasttext"
)


def has_header(rows: Sequence[Sequence[str]], options: TextOptions, *, labelled: bool) -> bool:
    """Decide whether the first record is a header.

    It is one if it contains a column name given as an option. Otherwise its cells must be usable as names, and either
    include usual names of both a label and a text (of a text only, unless `labelled`), or hold words in a column of
    numbers, or hold a usual name that no other record repeats in its column, or be single words where all others have
    sentences and repeated labels. So `ham<TAB>Go until…` is data: "ham" occurs again.
    """
    first, others = rows[0], [row for row in rows[1:] if len(_without_trailing(row)) <= len(rows[0])]
    wanted = {column for column in (options.label_column, *(options.text_columns or ())) if isinstance(column, str)}
    if wanted & {cell.strip() for cell in first if not cell.strip().isdigit()}:
        return True
    names = [normalize(cell) for cell in _without_trailing(first)]
    is_label, is_text = [name in LABEL_NAMES for name in names], [name in TEXT_NAMES for name in names]
    if any(is_label) and any(is_text) and not _recur(first, others, _usual(names)):
        return True
    numbered = [str(i) for i in range(len(first))]  # as pandas names columns that have no names
    if len(first) > 1 and [cell.strip() for cell in first] == numbered:
        return any(has_words(cell, _MIN_WORDS) for row in others for cell in row)
    if not can_be_names(first):
        return False
    if any(is_text) and (any(is_label) or not labelled):
        return True
    if len(others) < _MIN_RECORDS:
        return False
    found = [[row[i] if i < len(row) else "" for row in others] for i in range(len(names))]
    if any(all(map(_is_number, column)) for column in found):
        return True
    return any(
        (label or text) and cell not in column
        for cell, column, label, text in zip(first, found, is_label, is_text, strict=False)
    ) or _is_unlike(first, found)


def _usual(names: Sequence[str]) -> list[int]:
    """Return the places of usual names of a label or a text."""
    return [i for i, name in enumerate(names) if name in LABEL_NAMES or name in TEXT_NAMES]


def _recur(first: Sequence[str], others: Sequence[Sequence[str]], places: Sequence[int]) -> bool:
    """Return whether a cell of the first record occurs again in its column."""
    return any(first[i] == row[i] for row in others for i in places if i < len(row))


def may_be_header(cells: Sequence[str]) -> bool:
    """Return whether a record could be a header: all cells can be names, or one is a usual name."""
    return can_be_names(cells) or bool(_usual([normalize(cell) for cell in cells]))


def _is_unlike(first: Sequence[str], found: Sequence[Sequence[str]]) -> bool:
    """Return whether the first record has single words that name columns of repeated labels and of sentences."""
    labels = [i for i, column in enumerate(found) if is_label_like(column) and first[i] not in column]
    sentences = [i for i, column in enumerate(found) if all(has_words(cell, _MIN_WORDS) for cell in column)]
    return bool(labels and sentences) and not any(has_words(cell, 2) for cell in first)


def is_label_name(name: str) -> bool:
    """Return whether a column's name is a usual one of labels."""
    return normalize(name) in LABEL_NAMES


def is_label_like(cells: Sequence[str]) -> bool:
    """Return whether the cells of a column repeat, as labels do: at most half are distinct, of few any number."""
    return len(cells) < _FEW_RECORDS or 2 * len(set(cells)) <= len(cells)


def may_have_label(rows: Sequence[Sequence[str]], options: TextOptions) -> bool:
    """Return whether a column of records can be the label: the one that the options name, or a usual or likely one."""
    if has_header(rows, options, labelled=True):
        return True
    column = options.label_column if isinstance(options.label_column, int) else 0
    return column < len(rows[0]) and is_label_like([row[column] for row in rows if column < len(row)])


def width(rows: Sequence[Sequence[str]], *, header: bool) -> int:
    """Return how many columns records have: as the first, but empty names at the end of a header may have no cells."""
    first = len(rows[0])
    if not header or len(rows) < 2:
        return first
    usual = Counter(map(len, rows[1:])).most_common(1)[0][0]
    return usual if len(_without_trailing(rows[0])) <= usual < first else first


def choose_columns(
    names: Sequence[str] | None, rows: Sequence[Sequence[str]], options: TextOptions, origin: str
) -> tuple[int, tuple[int, ...]]:
    """Choose the label column and the text columns of a CSV or TSV file, as indices.

    Args:
        names: the header, or None.
        rows: the first records, without the header.
        options: the columns that the user chose.
        origin: the file, for messages.

    Raises:
        CorpusFormatError: a column does not exist, is not recognised, or is ambiguous.
    """
    num_columns = len(rows[0] if names is None else names)
    if num_columns < 2:
        raise CorpusFormatError(f"'{origin}' has one column; a label and a text are needed ({_ONE_COLUMN})")
    label = None if options.label_column is None else choose_column(options.label_column, names, num_columns, origin)
    texts = None
    if options.text_columns is not None:
        texts = tuple(choose_column(column, names, num_columns, origin) for column in options.text_columns)
    if names is None:
        label = (0 if texts is None or 0 not in texts else None) if label is None else label
        if label is None:
            raise CorpusFormatError(
                f"'{origin}' has no header, so column 0 is the label, but --text-columns names it; name the label "
                "column with --label-column"
            )
        return label, texts or tuple(column for column in range(num_columns) if column != label)
    return _choose_by_name(names, label, texts, origin, rows)


def choose_texts(
    names: Sequence[str] | None, rows: Sequence[Sequence[str]], options: TextOptions, origin: str, labels: Set[str]
) -> tuple[int, ...]:
    """Choose the text columns of a CSV or TSV file whose labels, if it has any, are not needed.

    The column named by `options.label_column` is not a text. Without `names`, neither is a first column that holds one
    of `labels` in each of `rows`, so that a dataset is read with the same text columns as for training.

    Raises:
        CorpusFormatError: a column does not exist or is not recognised.
    """
    num_columns = len(rows[0] if names is None else names)
    label = None if options.label_column is None else choose_column(options.label_column, names, num_columns, origin)
    if options.text_columns is not None:
        texts = tuple(choose_column(column, names, num_columns, origin) for column in options.text_columns)
    elif names is not None:
        texts = _texts_by_name(names, label, origin)
    else:
        known = {*labels, *map(canonical_label, labels)}
        firsts = [row[0].strip() if row else "" for row in rows]
        if (
            label is None
            and num_columns > 1
            and all(not {first, canonical_label(first)}.isdisjoint(known) for first in firsts)
        ):
            label = 0
        texts = tuple(column for column in range(num_columns) if column != label)
    if not texts or label in texts:
        raise CorpusFormatError(f"'{origin}' has no text column besides the label; name one with --text-columns")
    return texts


def choose_text_keys(keys: Sequence[str], options: TextOptions, origin: str) -> tuple[str, ...]:
    """Choose the text keys of JSON objects whose labels, if they have any, are not needed.

    Raises:
        CorpusFormatError: a key does not exist or is not recognised.
    """
    _check_keys(options.text_columns or (), keys, origin)
    if options.text_columns is not None:
        return tuple(str(column) for column in options.text_columns)
    label = None if options.label_column is None or options.label_column not in keys else options.label_column
    return tuple(keys[i] for i in _texts_by_name(keys, None if label is None else keys.index(str(label)), origin))


def _texts_by_name(names: Sequence[str], label: int | None, origin: str) -> tuple[int, ...]:
    """Return the columns with usual names of a text, or the only column without a usual name of a label."""
    plain = [normalize(name) for name in names]
    free = [i for i in range(len(names)) if i != label]
    texts = [i for i in free if plain[i] in TEXT_NAMES] or [i for i in free if plain[i] not in LABEL_NAMES]
    if not texts or (len(texts) > 1 and plain[texts[0]] not in TEXT_NAMES):
        raise CorpusFormatError(
            f"'{origin}': which column is the text? It has the columns {_quote_names(names)}; name one or more with "
            "--text-columns NAME …"
        )
    return tuple(texts)


def choose_keys(
    keys: Sequence[str], options: TextOptions, origin: str, rows: Sequence[Sequence[str]] = ()
) -> tuple[str, tuple[str, ...]]:
    """Choose the label key and the text keys among the keys of JSON objects or the names of columns.

    Raises:
        CorpusFormatError: a key does not exist, is not recognised, or is ambiguous.
    """
    _check_keys((options.label_column, *(options.text_columns or ())), keys, origin)
    label = None if options.label_column is None else keys.index(str(options.label_column))
    texts = None
    if options.text_columns is not None:
        texts = tuple(keys.index(str(column)) for column in options.text_columns)
    label, texts = _choose_by_name(keys, label, texts, origin, rows)
    return keys[label], tuple(keys[column] for column in texts)


def _check_keys(wanted: Sequence[Column | None], keys: Sequence[str], origin: str) -> None:
    for column in wanted:
        if column is not None and str(column) not in keys:
            raise CorpusFormatError(
                f"'{origin}' has no key '{column}' in its first objects; found {_quote_names(keys)}"
            )


def _choose_by_name(
    names: Sequence[str],
    label: int | None,
    texts: tuple[int, ...] | None,
    origin: str,
    rows: Sequence[Sequence[str]] = (),
) -> tuple[int, tuple[int, ...]]:
    """Choose the columns that the options do not: those with usual names, or the only one left.

    Of two columns with unusual names, the one whose cells in `rows` repeat is the label.
    """
    named = [i for i, name in enumerate(names) if name]
    plain = [normalize(name) for name in names]
    if label is None:
        free = [i for i in named if i not in (texts or ())]
        labels = [i for i in free if plain[i] in LABEL_NAMES]
        if not labels and (texts is not None or len(named) == 2):
            labels = [i for i in free if plain[i] not in TEXT_NAMES]
            if len(labels) > 1 and len(rows) >= _FEW_RECORDS:
                labels = [i for i in labels if is_label_like([row[i] for row in rows if i < len(row)])]
        if len(labels) != 1:
            found = f"; candidates: {_quote_names([names[i] for i in labels])}" if labels else ""
            raise CorpusFormatError(_ambiguity(origin, "the label", names, found))
        label = labels[0]
    if texts is None:
        texts = tuple(i for i in range(len(names)) if plain[i] in TEXT_NAMES and i != label)
        if not texts and len(named) == 2:
            texts = tuple(i for i in named if i != label)
        if not texts:
            raise CorpusFormatError(_ambiguity(origin, "the text", names, ""))
    if label in texts:
        raise CorpusFormatError(f"'{origin}': column '{names[label]}' is named both as label and as text")
    return label, texts


def choose_column(column: Column, names: Sequence[str] | None, num_columns: int, origin: str) -> int:
    """Return the index of a column that the user named by a name in the header or by an index from 0.

    Raises:
        CorpusFormatError: there is no such column, or several have the name.
    """
    if isinstance(column, str) and names is not None:
        found = places_of(column, names)
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
    if names is None:
        found_names = "no header was found; if the first record is one, add --header"
    else:
        found_names = f"found {_quote_names(names)}"
    raise CorpusFormatError(f"'{origin}' has no column '{column}'; {found_names}")


def places_of(column: str, names: Sequence[str]) -> list[int]:
    """Return the indices of the columns with a name, else of those that differ from it in case and punctuation only."""
    exact, plain = [i for i, name in enumerate(names) if name.strip() == column], normalize(column)
    return exact or [i for i, name in enumerate(names) if plain and normalize(name) == plain]


def _ambiguity(origin: str, what: str, names: Sequence[str], found: str) -> str:
    return (
        f"'{origin}': which column is {what}? It has the columns {_quote_names(names)}{found}; "
        "name them with --label-column NAME and --text-columns NAME …"
    )


def _quote_names(names: Sequence[str]) -> str:
    return enumerated(names, 30, QUOTED)


def _without_trailing(cells: Sequence[str]) -> list[str]:
    """Return cells without the empty ones at the end, which spreadsheets write for columns that were cleared."""
    kept = [cell.strip() for cell in cells]
    while len(kept) > 1 and not kept[-1]:
        kept.pop()
    return kept


def can_be_names(cells: Sequence[str]) -> bool:
    """Return whether cells are short, on one line and not numbers; the first may be empty (pandas' index)."""
    kept = _without_trailing(cells)
    return (
        "" not in kept[1:]
        and (len(kept) == 1 or len(set(kept)) > 1)
        and all(len(cell) <= _MAX_NAME_LENGTH and "\n" not in cell and not _is_number(cell) for cell in kept)
    )


def _is_number(cell: str) -> bool:
    return re.fullmatch(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*", cell) is not None


def normalize(name: str) -> str:
    """Return a name in lower case, without spaces, underscores and punctuation; a text is returned as it is."""
    return name if len(name) > _LONGEST else re.sub(r"[\W_]+", "", name).lower()
