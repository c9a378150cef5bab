"""Raw labels to class indices, and what makes labels untrainable.

Labels that are all integers count from 0 or 1 without gaps, as published sets have them; anything else is a name, in
the order of classes.txt or sorted. A gap is an error and not closed silently: it is a class without examples, or the
wrong column. The whole label count of the training split is needed first, so labels are resolved after one pass.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from shardtrain.errors import LabelError

MAX_CLASSES = 65_536  # what a label stored in 16 bits can tell apart; far more than a classifier's classes

_INTEGER = re.compile(r"0|-?[1-9][0-9]*")  # canonical, so that equal numbers are equal strings
_SHOWN = 10


@dataclass(frozen=True)
class Classes:
    """The classes of a corpus.

    Attributes:
        names: one a class, in the order of the class indices.
        codes: raw label -> class index from 0.
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
    """Number the classes of the training split.

    Args:
        train_counts: examples of each raw label.
        class_names: lines of classes.txt, or None.
        labels: "integers", "names", or "auto" for integers where all labels are.
        option: of the command line that says where the labels are, for messages.

    Raises:
        LabelError: fewer than two classes, more than `MAX_CLASSES`, a class without examples, a label that
            classes.txt does not name, or a label that is not an integer where integers are asked for.
    """
    found = sorted(label for label, count in train_counts.items() if count)
    if len(found) > MAX_CLASSES:
        raise LabelError(
            f"{len(found):,} different labels, at most {MAX_CLASSES:,} are possible; this is probably not the label's "
            f"column (it holds {_listed(found)}): name it with {option}"
        )
    if len(found) < 2:
        only = f"only '{found[0]}' was found" if found else "none was found"
        raise LabelError(f"at least two classes are needed to train a classifier, {only}; see {option}")
    strangers = [label for label in found if not _INTEGER.fullmatch(label)]
    if labels == "integers" and strangers:
        raise LabelError(f"--labels integers, but these labels are none: {_listed(strangers)}; try --labels names")
    if labels == "names" or strangers:
        return _by_name(found, class_names)
    return _by_number(sorted(map(int, found)), class_names)


def check_validation_labels(validation_counts: Mapping[str, int], classes: Classes) -> None:
    """Check that every label of the validation split is one of the training split's.

    Raises:
        LabelError: one is not; the message gives it and its number of examples.
    """
    unseen = _unseen(validation_counts, classes)
    if unseen:
        raise LabelError(
            f"validation labels never seen in training: {unseen}; training has "
            f"{_listed(list(classes.codes))}: check that both files belong together"
        )


def check_added_labels(counts: Mapping[str, int], classes: Classes) -> None:
    """Check that every label of a corpus that is added to shards is one that they have.

    Raises:
        LabelError: one is not; the message gives it and its number of examples.
    """
    unseen = _unseen(counts, classes)
    if unseen:
        raise LabelError(
            f"labels that the shards do not have: {unseen}; they were built with {_listed(list(classes.codes))}: "
            "correct the labels, or build shards of both corpora together"
        )


def check_known_labels(counts: Mapping[str, int], classes: Classes) -> None:
    """Check that every label of a corpus is one that a model was trained with.

    Raises:
        LabelError: one is not; the message gives it and its number of examples.
    """
    unseen = _unseen(counts, classes)
    if unseen:
        raise LabelError(
            f"labels that the model was not trained with: {unseen}; it knows {_listed(list(classes.codes))}: name the "
            "label's column with --label-column, or evaluate on a corpus of the same classes"
        )


def _unseen(counts: Mapping[str, int], classes: Classes) -> str:
    """The labels that are none of the classes', with their examples, as a message lists them."""
    unseen = sorted(label for label, count in counts.items() if count and label not in classes.codes)
    return _listed([f"{label}' ({counts[label]:,} examples)" for label in unseen], close="")


def _by_name(found: list[str], class_names: Sequence[str] | None) -> Classes:
    if class_names is None:
        return Classes(tuple(found), {label: code for code, label in enumerate(found)})
    codes = {name: code for code, name in enumerate(class_names)}
    unknown = [label for label in found if label not in codes]
    if unknown:
        raise LabelError(
            f"labels that classes.txt does not name: {_listed(unknown)}; it names {_listed(list(class_names))}: "
            "correct it or take it away"
        )
    seen = set(found)
    _refuse_empty([f"'{name}'" for name in class_names if name not in seen], "correct classes.txt or take it away")
    return Classes(tuple(class_names), codes)


def _by_number(found: list[int], class_names: Sequence[str] | None) -> Classes:
    lowest, highest = found[0], found[-1]
    if lowest < 0 or (lowest > 1 and class_names is None):
        raise LabelError(
            f"integer labels have to run from 0 or 1 without gaps, found {lowest} to {highest}; "
            "--labels names takes them as names"
        )
    if class_names is None:
        base, names = min(lowest, 1), None
        num_classes = highest - base + 1
    else:
        base, names = (0 if lowest == 0 else 1), tuple(class_names)
        num_classes = len(names)
        if highest - base >= num_classes:
            raise LabelError(
                f"classes.txt names {num_classes:,} classes, so labels run from {base} to {base + num_classes - 1}; "
                f"found {highest}: correct classes.txt, or take it away, or say --labels names"
            )
    if num_classes != len(found):
        seen = set(found)
        gaps = (number for number in range(base, base + num_classes) if number not in seen)
        shown = [f"{gap}" if names is None else f"{gap} ('{names[gap - base]}')" for gap in islice(gaps, _SHOWN)]
        advice = "--labels names takes the labels as names" if names is None else "correct classes.txt or take it away"
        _refuse_empty(shown, advice, num_classes - len(found))
    codes = {str(number): number - base for number in found}
    return Classes(names or tuple(codes), codes)


def _refuse_empty(missing: list[str], advice: str, number: int | None = None) -> None:
    if missing:
        number = len(missing) if number is None else number
        more = f" and {number - _SHOWN:,} more" if number > _SHOWN else ""
        what = "a class without examples" if number == 1 else f"{number:,} classes without examples"
        raise LabelError(f"{what} in the training data: {', '.join(missing[:_SHOWN])}{more}; {advice}")


def _listed(labels: Sequence[str], close: str = "'") -> str:
    shown = ", ".join(f"'{label[:60]}{close}" for label in labels[:_SHOWN])
    return shown + (f" and {len(labels) - _SHOWN:,} more" if len(labels) > _SHOWN else "")
