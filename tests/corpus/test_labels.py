"""Raw labels map to class indices, or are refused if they cannot be trained on."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtrain.corpus.labels import Classes, check_known_labels, check_validation_labels, resolve_classes
from shardtrain.errors import LabelError


def counted(*labels: str) -> dict[str, int]:
    return dict.fromkeys(labels, 3)


@given(st.integers(2, 50), st.integers(0, 1), st.randoms())
def test_integers_from_zero_or_one_keep_their_order(number: int, base: int, order: random.Random) -> None:
    labels = [str(base + code) for code in range(number)]
    shuffled = order.sample(labels, number)
    assert resolve_classes(counted(*shuffled), class_names=None) == Classes(
        tuple(labels), {label: code for code, label in enumerate(labels)}
    )


@given(st.sets(st.text(min_size=1, max_size=5), min_size=2, max_size=20), st.randoms())
def test_names_are_sorted_or_in_the_order_of_the_class_names(names: set[str], order: random.Random) -> None:
    labels = order.sample(sorted(names), len(names))
    assert resolve_classes(counted(*labels), class_names=None, labels="names").names == tuple(sorted(names))
    given_order = resolve_classes(counted(*labels), class_names=labels, labels="names")
    assert given_order == Classes(tuple(labels), {name: code for code, name in enumerate(labels)})


@pytest.mark.parametrize("base", [0, 1])
def test_class_names_name_the_integers(base: int) -> None:
    classes = resolve_classes(counted(str(base), str(base + 1)), class_names=["ham", "spam"])
    assert classes == Classes(("ham", "spam"), {str(base): 0, str(base + 1): 1})


@pytest.mark.parametrize("labels", [("01", "2"), ("1.0", "2.0"), ("+1", "2"), ("1", "many"), ("١", "٢")])
def test_labels_that_are_not_canonical_integers_are_names(labels: tuple[str, ...]) -> None:
    assert resolve_classes(counted(*labels), class_names=None).names == tuple(sorted(labels))


@pytest.mark.parametrize(
    ("labels", "class_names", "option", "message"),
    [
        ((), None, "auto", "at least two classes are needed .*, none was found"),
        (("1",), None, "auto", "at least two classes are needed .*, only '1' was found"),
        (("1",), ("a", "b"), "auto", "at least two classes are needed"),
        (("1", "2", "4"), None, "auto", "a class without examples in the training data: 3; labels names"),
        (("0", "4"), None, "auto", "3 classes without examples in the training data: 1, 2, 3; labels names"),
        (("1", "1000000000"), None, "auto", "999,999,998 classes without .*: 2, 3, .*, 11 and 999,999,988 more"),
        (("5", "6"), None, "auto", "must run from 0 or 1 without gaps, found 5 to 6; labels names"),
        (("-1", "1"), None, "auto", "must run from 0 or 1 without gaps, found -1 to 1; labels names"),
        (("1", "3"), ("a", "b", "c"), "auto", r"a class without examples .*: 2 \('b'\); correct or remove classes.txt"),
        (("1", "2"), ("a", "b", "c"), "auto", r"a class without examples .*: 3 \('c'\)"),
        (("1", "2", "3"), ("a", "b"), "auto", "lists 2 classes, so labels must run from 1 to 2, found 3"),
        (("0", "1", "2"), ("a", "b"), "auto", "lists 2 classes, so labels must run from 0 to 1, found 2"),
        (("a", "b"), ("a", "b", "c"), "auto", "a class without examples .*: 'c'; correct or remove classes.txt"),
        (("a", "x"), ("a", "b"), "auto", "labels that are not in classes.txt: 'x'; it lists 'a', 'b'"),
        (("1", "b"), None, "integers", "labels integers, but these labels are not integers: 'b'; try labels names"),
    ],
)
def test_labels_that_cannot_be_trained_on_are_refused(
    labels: tuple[str, ...], class_names: tuple[str, ...] | None, option: str, message: str
) -> None:
    with pytest.raises(LabelError, match=message):
        resolve_classes(counted(*labels), class_names=class_names, labels=option)


def test_integers_with_gaps_can_be_names() -> None:
    assert resolve_classes(counted("0", "4"), class_names=None, labels="names").codes == {"0": 0, "4": 1}


def test_a_label_counted_zero_times_has_no_examples() -> None:
    with pytest.raises(LabelError, match="a class without examples in the training data: 2"):
        resolve_classes({"1": 5, "2": 0, "3": 5}, class_names=None)


def test_too_many_distinct_labels_are_taken_for_the_wrong_column() -> None:
    labels = [f"text {number}" for number in range(65_537)]
    with pytest.raises(LabelError, match=r"more than 65,536 different labels were found, .* name it with label_column"):
        resolve_classes(counted(*labels), class_names=None)
    assert len(resolve_classes(counted(*labels[1:]), class_names=None).names) == 65_536


def test_a_validation_label_never_seen_in_training_is_named_with_its_count() -> None:
    classes = resolve_classes(counted("1", "2"), class_names=None)
    check_validation_labels({"1": 4}, classes, "dev.csv")
    message = r"'dev.csv' has .* do not occur in the training split: '3' \(7 examples\); training labels are '1', '2'"
    with pytest.raises(LabelError, match=message):
        check_validation_labels({"1": 4, "3": 7}, classes, "dev.csv")


def test_a_label_that_no_class_has_is_named_whole_with_the_classes_and_their_names() -> None:
    classes = Classes(("World", "b" * 99, "3"), {"1": 0, "2": 1, "3": 2})
    with pytest.raises(LabelError) as raised:
        check_known_labels({"1": 4, "no": 1, "n" * 99: 1200}, classes)
    said = str(raised.value)
    assert f"trained with: '{'n' * 60}' (1,200 examples), 'no' (1 example); " in said
    assert f"its classes are '1' (World), '2' ({'b' * 60}), '3'; " in said
