"""Compare the labels of a corpus with the classes of a model: which class each is, and what is suspicious about them.

A label that no class has is an error. Labels that differ from a class in capitals or white space only, and the names
of classes that were numbers in training, are read as that class. Both this and a corpus with few of the classes are
reported, because a wrong column or file looks like that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from shardtrain.corpus.labels import Classes, check_known_labels
from shardtrain.runtime.quantities import enumerated

_LISTED = 5  # labels or classes in a message


class KnownLabels:
    """The labels seen so far and the classes that they are.

    Attributes:
        classes: of the model.
        examples: number of examples of each class, (num_classes,).
        respelled: number of examples of each label that is spelled unlike its class and unlike the class' name.
    """

    def __init__(self, classes: Classes) -> None:
        self.classes = classes
        self.examples = np.zeros(len(classes.names), np.int64)
        self.respelled: Counter[str] = Counter()
        self._by_spelling = _by_spelling(classes)

    def codes_of(self, labels: Sequence[str]) -> npt.NDArray[np.uint32]:
        """Return the class indices of labels, (labels,), and count them.

        Raises:
            LabelError: a label is no class of the model.
        """
        codes: dict[str, int] = {}
        unknown: Counter[str] = Counter()
        for label, count in Counter(labels).items():
            code = self.classes.codes.get(label)
            if code is None:
                code = self._by_spelling.get(_spelling(label))
                if code is None:
                    unknown[label] = count
                    continue
                if label != self.classes.names[code]:
                    self.respelled[label] += count
            codes[label] = code
        check_known_labels(unknown, self.classes)
        found = np.array([codes[label] for label in labels], np.uint32)
        self.examples += np.bincount(found, minlength=len(self.examples))
        return found

    @property
    def num_found(self) -> int:
        """Number of classes that occur."""
        return int(np.count_nonzero(self.examples))

    @property
    def class_of(self) -> dict[str, str]:
        """Return the name of the class of each label that is spelled unlike it."""
        return {label: self._name(label) for label in sorted(self.respelled)}

    def warnings(self, class_names: Sequence[str] | None) -> Iterator[str]:
        """Yield a line for everything suspicious; `class_names` are those of the corpus' classes.txt, if it has one."""
        if self.respelled:
            shown = [f"'{label}' ({_examples(self.respelled[label])}) as '{of}'" for label, of in self.class_of.items()]
            yield f"labels that are spelled unlike the model's classes were read as these: {enumerated(shown, _LISTED)}"
        if 2 * self.num_found <= len(self.examples):
            yield self._few()
        if class_names is not None and (different := self._differently_named(class_names)):
            yield different

    def _few(self) -> str:
        names, found = self.classes.names, self.num_found
        seen = [f"'{names[code]}' ({_examples(self.examples[code])})" for code in np.flatnonzero(self.examples)]
        absent = [f"'{names[code]}'" for code in np.flatnonzero(self.examples == 0)]
        return (
            f"the corpus has only {found:,} of the model's {len(names):,} classes: {enumerated(seen, _LISTED)}, not "
            f"{enumerated(absent, _LISTED)}; if others are expected, check the file and --label-column"
        )

    def _differently_named(self, class_names: Sequence[str]) -> str:
        """Return the first class whose number has another name in the corpus; empty if there is none."""
        for label, code in self.classes.codes.items():
            name = self.classes.names[code]
            if name != label and code < len(class_names) and class_names[code] != name:
                return (
                    f"class {label} is '{class_names[code]}' in the corpus' classes.txt, '{name}' in the model; labels "
                    "were compared by number: check that both list the same classes in the same order"
                )
        return ""

    def _name(self, label: str) -> str:
        return self.classes.names[self._by_spelling[_spelling(label)]]


def _by_spelling(classes: Classes) -> dict[str, int]:
    """Return the class of each label and name without capitals and surplus white space, where it is a single one."""
    found: dict[str, set[int]] = {}
    for label, code in (*classes.codes.items(), *((name, code) for code, name in enumerate(classes.names))):
        found.setdefault(_spelling(label), set()).add(code)
    return {spelling: codes.pop() for spelling, codes in found.items() if len(codes) == 1}


def _spelling(label: str) -> str:
    return " ".join(label.split()).casefold()


def _examples(number: int) -> str:
    return f"{number:,} example" + ("" if number == 1 else "s")
