"""Map raw labels to class indices, and refuse labels that cannot be trained on.

Labels that are all integers must run from 0 or 1 without gaps, as in published datasets; others are names, indexed in
the order of classes.txt or sorted: by value if all are numbers. A gap is an error: it is a class without examples, or
the wrong column. The mapping needs the counts of all training labels, so it is made after one pass over the corpus.
`label_spelling` says which labels are equal.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from shardtrain.corpus.columns import is_label_name
from shardtrain.corpus.label_spelling import canonical_label, is_number, value_of
from shardtrain.corpus.source import Source
from shardtrain.errors import LabelError
from shardtrain.runtime.quantities import enumerated

MAX_CLASSES = 65_536  # values of a label stored in 16 bits

_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,39}")  # canonical, so that equal numbers are equal strings
_MIN_OTHERS = 4  # documents; with fewer a label that occurs once says nothing
_MAX_LISTED = 10  # labels in a message
_LONGEST = 60  # characters of a label in a message
_MARK = "\ufeff"  # a byte order mark
_SEPARATORS = "|;,"  # of several labels in one cell
_COMBINED = 1 / 3  # share of the distinct labels from which on they are taken for several labels
_RECURRING = 2 / 3  # share of the combinations whose every part must recur


@dataclass(frozen=True)
class Classes:
    """The classes of a corpus.

    Attributes:
        names: one per class, in the order of the class indices.
        codes: raw label -> class index, from 0.
    """

    names: tuple[str, ...]
    codes: dict[str, int]


def resolve_classes(
    train_counts: Mapping[str, int],
    *,
    class_names: Sequence[str] | None,
    labels: str = "auto",
    option: str = "--label-column",
) -> Classes:
    """Assign class indices to the labels of the training split.

    Args:
        train_counts: number of examples per raw label.
        class_names: lines of classes.txt, or None.
        labels: "integers", "names", or "auto": integers if all labels are integers.
        option: the flag that names the labels, for messages.

    Raises:
        LabelError: fewer than two classes, more than `MAX_CLASSES`, a class without examples, a label that is not in
            classes.txt, or a label that is not an integer although `labels` is "integers".
    """
    found = sorted(label for label, count in train_counts.items() if count)
    check_number_of_labels(found, option=option)
    if len(found) < 2:
        only = f"only '{found[0]}' was found" if found else "none was found"
        raise LabelError(f"at least two classes are needed to train a classifier, {only}; see {option}")
    non_integers = [label for label in found if not _INTEGER.fullmatch(label)]
    if labels == "integers" and non_integers:
        raise LabelError(
            f"--labels integers, but these labels are not integers: {_quote_labels(non_integers)}; try --labels names"
        )
    if labels == "auto" and class_names is None and (separator := combining_separator(found)):
        combined = next(label for label in found if separator in label)
        raise LabelError(
            f"several labels per document are not supported yet, and labels such as '{combined[:60]}' combine others; "
            "--labels names makes each combination a class"
        )
    if labels == "auto" and non_integers and all(map(is_number, found)):
        found.sort(key=value_of)
    if labels == "names" or non_integers:
        return _by_name(found, class_names, literal=labels == "names")
    return _by_number(sorted(map(int, found)), class_names)


def check_number_of_labels(labels: Collection[str], *, option: str = "--label-column") -> None:
    """Check that there are not more different labels than classes are supported.

    Raises:
        LabelError: there are more.
    """
    if len(labels) > MAX_CLASSES:
        raise LabelError(
            f"more than {MAX_CLASSES:,} different labels were found, which is the most that are supported; this is "
            f"probably not the label column (it holds {_quote_labels(sorted(labels))}); name it with {option}"
        )


def known_classes(names: Sequence[str], recorded: Mapping[str, int]) -> Classes:
    """Return the classes of older shards or of a run, whose labels may be recorded in another than canonical spelling.

    Args:
        names: one per class.
        recorded: raw label -> class index.
    """
    canonical = {canonical_label(label): code for label, code in recorded.items()}
    return Classes(tuple(names), {**recorded, **{each: canonical[each] for each in canonical if each not in recorded}})


def combining_separator(labels: Collection[str]) -> str | None:
    """Return the character that joins several labels in one, as in `drama|comedy`; None if the labels do not look so.

    At least a third of the distinct labels must be joined, and in most of them every part recurs, as a label or in
    another one; if one label alone is joined, every part must be a label itself. Some part must do so alone or at
    another place: otherwise the parts are levels, as in `food, frozen`.
    """
    for separator in _SEPARATORS:
        joined = [label for label in labels if separator in label]
        if not joined or len(joined) < _COMBINED * len(labels):
            continue
        parts = [[part.strip() for part in label.split(separator)] for label in labels]
        uses = Counter(part for each in parts for part in set(each))
        combined = [each for each in parts if len(each) > 1]
        recurring = sum(all(part and uses[part] > 1 for part in each) for each in combined)
        if not combined or recurring < _RECURRING * len(combined):
            continue
        places = {(part, place) for each in parts for place, part in enumerate(each)}
        if len(places) > len(uses) or any(len(each) == 1 and uses[each[0]] > 1 for each in parts):
            return separator
    return None


def check_first_label(counts: Mapping[str, int], source: Source) -> None:
    """Check that the first record of a file that seems to have no header is not one: its label must occur again.

    Args:
        counts: number of documents per label, held-out ones included.
        source: of the training split.

    Raises:
        LabelError: the label occurs once, and the file has enough others.
    """
    label, others = source.first_label, sum(counts.values()) - 1
    if label is not None and counts.get(label) == 1 and others >= _MIN_OTHERS:
        raise LabelError(
            f"'{source.origin}': the label of its first record, '{label[:60]}', occurs nowhere else, so it may "
            "be a header; add --header if it is one, or --no-header if it is a document"
        )


def check_put_together(counts: Mapping[str, int], source: Source) -> None:
    """Check that neither the header of a file nor a byte order mark is inside it, as in files that were put together.

    Raises:
        LabelError: the name of the label column, if it is a usual one, is a label; or a label begins with such a mark.
    """
    name = source.column_name(source.label_column)
    if marked := sorted(label for label in counts if label.startswith(_MARK)):
        raise LabelError(
            f"'{source.origin}': the label '{marked[0].lstrip(_MARK)}' has a byte order mark before it, as where files "
            "were put together: give the single files, or remove all marks but the first, and all headers but the first"
        )
    if source.header is not None and isinstance(name, str) and counts.get(name) and is_label_name(name):
        records_have = "1 record has" if counts[name] == 1 else f"{counts[name]:,} records have"
        raise LabelError(
            f"'{source.origin}': {records_have} the label '{name}', the name of that column: the header "
            "probably occurs again inside the file; remove these lines, or give the single files"
        )


def differing_in_case(labels: Collection[str]) -> list[str]:
    """Return the labels that equal another one but for capitals, sorted."""
    folded = Counter(label.casefold() for label in labels)
    alike = (label for label in labels if folded[label.casefold()] > 1)
    return sorted(alike, key=lambda label: (label.casefold(), label))


def check_validation_labels(validation_counts: Mapping[str, int], classes: Classes, file: str) -> None:
    """Check that every label of the validation file, `file` in messages, occurs in the training split.

    Raises:
        LabelError: some do not; the message lists them with their numbers of examples.
    """
    unseen = _unknown_labels(validation_counts, classes)
    if unseen:
        raise LabelError(
            f"'{file}' has validation labels that do not occur in the training split: {unseen}; training labels are "
            f"{_quote_classes(classes)}; check that both files belong together"
        )


def check_test_labels(test_counts: Mapping[str, int], classes: Classes, file: str) -> None:
    """Check that every label of the test split, which is in `file`, occurs in the training split.

    Raises:
        LabelError: some do not; the message lists them with their numbers of examples.
    """
    unseen = _unknown_labels(test_counts, classes)
    if unseen:
        raise LabelError(
            f"labels of the test split '{file}' that do not occur in the training split: {unseen}; training labels are "
            f"{_quote_classes(classes)}; correct them, or name another test split with --test"
        )


def check_added_labels(counts: Mapping[str, int], classes: Classes) -> None:
    """Check that every label of a corpus to be added to shards is a class of the shards.

    Raises:
        LabelError: some are not; the message lists them with their numbers of examples.
    """
    unseen = _unknown_labels(counts, classes)
    if unseen:
        raise LabelError(
            f"labels that the shards do not have: {unseen}; they were built with "
            f"{_quote_classes(classes)}; correct the labels, or build shards of both corpora together"
        )


def check_known_labels(counts: Mapping[str, int], classes: Classes) -> None:
    """Check that every label of a corpus is a class that the model was trained with.

    Raises:
        LabelError: some are not; the message lists them with their numbers of examples.
    """
    unseen = _unknown_labels(counts, classes)
    if unseen:
        raise LabelError(
            f"labels that the model was not trained with: {unseen}; its classes are "
            f"{_quote_classes(classes)}; name the label column with --label-column, or evaluate on a corpus "
            "of the same classes"
        )


def _unknown_labels(counts: Mapping[str, int], classes: Classes) -> str:
    """Return the labels that have no class, with their numbers of examples, for a message; empty if all have one."""
    unseen = sorted(label for label, count in counts.items() if count and label not in classes.codes)
    return _quote_labels(unseen, [f" ({counts[label]:,} example{'s' * (counts[label] != 1)})" for label in unseen])


def _quote_classes(classes: Classes) -> str:
    """Return the labels of classes for a message, each with the name of its class where that is another word."""
    names = [classes.names[code] for code in classes.codes.values()]
    notes = ["" if name == label else f" ({name[:_LONGEST]})" for label, name in zip(classes.codes, names, strict=True)]
    return _quote_labels(list(classes.codes), notes)


def _by_name(found: list[str], class_names: Sequence[str] | None, *, literal: bool) -> Classes:
    if class_names is None:
        return Classes(tuple(found), {label: code for code, label in enumerate(found)})
    codes = {name: code for code, name in enumerate(class_names)}
    codes = codes if literal else known_classes(class_names, codes).codes
    unknown = [label for label in found if label not in codes]
    if unknown:
        raise LabelError(
            f"labels that are not in classes.txt: {_quote_labels(unknown)}; it lists "
            f"{_quote_labels(list(class_names))}; correct or remove it"
        )
    seen = {codes[label]: label for label in found}
    missing = [f"'{name}'" for code, name in enumerate(class_names) if code not in seen]
    _check_no_empty_class(missing, "correct or remove classes.txt")
    return Classes(tuple(class_names), {label: codes[label] for label in sorted(found, key=codes.__getitem__)})


def _by_number(found: list[int], class_names: Sequence[str] | None) -> Classes:
    lowest, highest = found[0], found[-1]
    if lowest < 0 or (lowest > 1 and class_names is None):
        raise LabelError(
            f"integer labels must run from 0 or 1 without gaps, found {lowest} to {highest}; "
            "--labels names treats them as names"
        )
    if class_names is None:
        base, names = min(lowest, 1), None
        num_classes = highest - base + 1
    else:
        base, names = (0 if lowest == 0 else 1), tuple(class_names)
        num_classes = len(names)
        if highest - base >= num_classes:
            raise LabelError(
                f"classes.txt lists {num_classes:,} classes, so labels must run from {base} to "
                f"{base + num_classes - 1}, found {highest}; correct or remove classes.txt, or add --labels names"
            )
    if num_classes != len(found):
        seen = set(found)
        gaps = (number for number in range(base, base + num_classes) if number not in seen)
        shown = [f"{gap}" if names is None else f"{gap} ('{names[gap - base]}')" for gap in islice(gaps, _MAX_LISTED)]
        advice = "--labels names treats the labels as names" if names is None else "correct or remove classes.txt"
        _check_no_empty_class(shown, advice, num_classes - len(found))
    codes = {str(number): number - base for number in found}
    return Classes(names or tuple(codes), codes)


def _check_no_empty_class(missing: list[str], advice: str, number: int | None = None) -> None:
    if missing:
        number = len(missing) if number is None else number
        shown = enumerated(missing, _MAX_LISTED, number=number)
        what = "a class without examples" if number == 1 else f"{number:,} classes without examples"
        raise LabelError(f"{what} in the training data: {shown}; {advice}")


def _quote_labels(labels: Sequence[str], notes: Sequence[str] = ()) -> str:
    """Return labels for a message, each with its note, if there are notes."""
    noted = zip(labels, notes or [""] * len(labels), strict=True)
    shown = [f"'{label[:_LONGEST]}'{note}" for label, note in islice(noted, _MAX_LISTED)]
    return enumerated(shown, _MAX_LISTED, number=len(labels))
