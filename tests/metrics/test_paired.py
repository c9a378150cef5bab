"""Test differences of two classifiers against published figures, brute force, the bootstrap and simulated coverage."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, precision_score, recall_score

from shardtrain.metrics.intervals import EXACT_PAIRS, QUANTILE, mcnemar, score_interval
from shardtrain.metrics.paired import LEAST_APART, Paired, PairedSums

Array = np.ndarray[Any, Any]


def rows(number: int, classes: int, *, seed: int, gain: float = 0.4) -> tuple[Array, Array, Array]:
    """Labels, of which lower classes are more frequent, and probabilities of two classifiers that err together."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, classes + 1)
    y = rng.choice(classes, number, p=share / share.sum())
    common = rng.normal(size=(number, classes))
    common[np.arange(number), y] += 1.2
    found = []
    for more in (0.0, gain):
        logits = common + 0.7 * rng.normal(size=common.shape)
        logits[np.arange(number), y] += more
        powers = np.exp(logits)
        found.append((powers / powers.sum(axis=1, keepdims=True)).astype(np.float32))
    return y, found[0], found[1]


def paired(y: Array, first: Array, second: Array, *, size: int = 300) -> Paired:
    sums = PairedSums(first.shape[1])
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        sums.add(y[part], first[part], second[part])
    return sums.paired()


@pytest.mark.parametrize(
    ("only_first", "only_second", "number", "expected", "digits"),
    [
        pytest.param(7, 1, 21, (-0.517, -0.026), 3, id="Fagerland et al. 2014, airway hyper-responsiveness"),
        pytest.param(
            0, 0, 44, (-(QUANTILE**2) / (44 + QUANTILE**2), QUANTILE**2 / (44 + QUANTILE**2)), 9, id="no pair"
        ),
        pytest.param(10, 0, 10, (-1.0, (QUANTILE**2 - 10) / (QUANTILE**2 + 10)), 9, id="all pairs on one side"),
    ],
)
def test_the_score_interval_is_the_published_one(only_first, only_second, number, expected, digits) -> None:
    low, high = score_interval(only_first, only_second, number)
    assert (float(low), float(high)) == pytest.approx(expected, abs=0.5 * 10**-digits)


def test_the_score_interval_excludes_no_difference_where_mcnemars_asymptotic_test_rejects_it() -> None:
    first, second = np.meshgrid(np.arange(40), np.arange(40))
    low, high = score_interval(first, second, 200)
    with np.errstate(invalid="ignore"):
        score = np.abs(second - first) / np.sqrt(first + second)
    rejected = np.nan_to_num(score) > QUANTILE
    np.testing.assert_array_equal((low > 0) | (high < 0), rejected)
    swapped = score_interval(second, first, 200)
    np.testing.assert_allclose(swapped[0], -high, atol=1e-12)


def test_the_score_interval_covers_the_true_difference_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    for number, shares in ((30, (0.1, 0.25)), (100, (0.05, 0.05)), (1000, (0.02, 0.05)), (1000, (0.004, 0.001))):
        first, second, _ = rng.multinomial(number, (*shares, 1 - sum(shares)), size=20_000).T
        low, high = score_interval(first, second, number)
        true = shares[1] - shares[0]
        covered = np.mean((low <= true) & (true <= high))
        assert 0.935 < covered < 0.98, (number, shares, covered)


def test_mcnemars_test_is_the_binomial_one_and_beyond_it_the_normal_one() -> None:
    for first, second in ((12, 2), (0, 0), (5, 5), (0, 9), (7, 1), (480, 520)):
        total = first + second
        expected = binomtest(first, total).pvalue if total else 1.0
        assert mcnemar(first, second) == pytest.approx(expected, rel=1e-9)
    assert mcnemar(12, 2) == pytest.approx(0.0129, abs=5e-5)  # Armitage and Berry, 1994, p. 127
    near, beyond = mcnemar(450, EXACT_PAIRS - 450), mcnemar(450, EXACT_PAIRS - 450 + 1)
    assert near == pytest.approx(beyond, rel=0.12)
    assert 0 < mcnemar(10**9, 10**9 + 10**5) < 1


@pytest.mark.parametrize("classes", [2, 5])
def test_both_values_equal_scikit_learns(classes: int) -> None:
    y, first, second = rows(2000, classes, seed=1)
    found = paired(y, first, second)
    for number, probabilities in enumerate((first, second)):
        guess, side = probabilities.argmax(axis=1), ("first", "second")[number]
        every = {"labels": range(classes), "average": None, "zero_division": 0}
        for name, function in (("precision", precision_score), ("recall", recall_score), ("f1", f1_score)):
            ours = [getattr(each[name], side) for each in found.classes]
            np.testing.assert_allclose(ours, function(y, guess, **every), rtol=1e-12)
        expected = {
            "accuracy": np.mean(y == guess),
            "macro_f1": f1_score(y, guess, average="macro"),
            "balanced_accuracy": balanced_accuracy_score(y, guess),
            "log_loss": log_loss(y, probabilities, labels=range(classes)),
        }
        for name, value in expected.items():
            assert getattr(found.metrics[name], side) == pytest.approx(value, rel=1e-5), name
    a, b = first.argmax(axis=1), second.argmax(axis=1)
    counts = [np.sum((a == y) & (b == y)), np.sum((a == y) & (b != y)), np.sum((a != y) & (b == y))]
    assert [found.both, found.only_first, found.only_second] == counts
    assert found.neither == len(y) - sum(counts)
    assert found.same == np.sum(a == b)


def _metrics(matrix: Array) -> Array:
    """Macro F1, balanced accuracy, then precision and F1 of each class, of a confusion matrix."""
    right, support, predicted = np.diag(matrix), matrix.sum(axis=1), matrix.sum(axis=0)
    f1 = 2 * right / np.maximum(support + predicted, 1)
    recall, precision = right / np.maximum(support, 1), right / np.maximum(predicted, 1)
    return np.array([f1[support + predicted > 0].mean(), recall[support > 0].mean(), *precision, *f1])


def _apart(y: Array, a: Array, b: Array, classes: int) -> Array:
    matrices = [np.bincount(y * classes + guess, minlength=classes**2).reshape(classes, classes) for guess in (a, b)]
    return _metrics(matrices[1]) - _metrics(matrices[0])


def test_the_intervals_are_as_wide_as_the_bootstraps() -> None:
    classes = 4
    y, first, second = rows(3000, classes, seed=2)
    a, b = first.argmax(axis=1), second.argmax(axis=1)
    rng = np.random.default_rng(3)
    drawn = (rng.integers(0, len(y), len(y)) for _ in range(3000))
    deviation = np.std([_apart(y[each], a[each], b[each], classes) for each in drawn], axis=0)
    found = paired(y, first, second)
    differences = [found.metrics["macro_f1"], found.metrics["balanced_accuracy"]]
    differences += [each[name] for name in ("precision", "f1") for each in found.classes]
    np.testing.assert_allclose([each.value for each in differences], _apart(y, a, b, classes), rtol=1e-9)
    halves = [(each.interval[1] - each.interval[0]) / 2 for each in differences if each.interval]
    np.testing.assert_allclose(halves, QUANTILE * deviation, rtol=0.06)
    losses = [-np.log(each[np.arange(len(y)), y].astype(float)) for each in (first, second)]
    loss, apart = found.metrics["log_loss"], losses[1] - losses[0]
    assert loss.interval is not None
    assert loss.interval[1] - loss.value == pytest.approx(QUANTILE * apart.std(ddof=1) / math.sqrt(len(y)), rel=1e-5)


def test_the_variance_of_macro_f1_is_that_of_its_linearisation_row_by_row() -> None:
    """The sums over matrices equal the sum over rows, where a class has no row, or is never predicted, too."""
    classes = 6
    y, first, second = rows(400, classes, seed=4)
    y, first = np.minimum(y, 4), first.copy()
    first[:, 3] = 0
    found = paired(y, first, second).metrics["macro_f1"]
    errors = np.zeros(len(y))
    for sign, shares in ((-1, first), (1, second)):
        guess = shares.argmax(axis=1)
        occurring = [each for each in range(classes) if np.any(y == each) or np.any(guess == each)]
        for each in occurring:
            size = np.sum(y == each) + np.sum(guess == each)
            f1 = 2 * np.sum((y == each) & (guess == each)) / size
            row = 2.0 * ((y == each) & (guess == each)) - f1 * ((y == each).astype(float) + (guess == each))
            errors += sign * row / size / len(occurring)
    assert abs(errors.sum()) < 1e-9
    assert found.interval is not None
    assert found.interval[1] - found.value == pytest.approx(QUANTILE * math.sqrt(errors @ errors), rel=1e-9)


def test_the_intervals_cover_the_true_differences_as_often_as_they_say() -> None:
    classes, number, times = 3, 400, 250
    y, first, second = rows(200_000, classes, seed=6)
    truth = paired(y, first, second, size=200_000)
    rng, covered = np.random.default_rng(7), np.zeros(10)
    for _ in range(times):
        part = rng.integers(0, len(y), number)
        found = paired(y[part], first[part], second[part], size=number)
        pairs = [(found.metrics[name], truth.metrics[name]) for name in found.metrics]
        pairs += [(f[n], t[n]) for f, t in zip(found.classes, truth.classes, strict=True) for n in ("precision", "f1")]
        covered += [
            each.interval is not None and each.interval[0] <= true.value <= each.interval[1] for each, true in pairs
        ]
    assert ((covered / times > 0.92) & (covered / times < 0.98)).all(), covered / times


def test_where_few_rows_are_classified_differently_the_delta_method_gives_no_interval() -> None:
    y = np.arange(400) % 2
    first = np.where((y == 0)[:, None], np.float32([0.9, 0.1]), np.float32([0.1, 0.9]))
    for wrong, known in ((LEAST_APART - 1, False), (LEAST_APART, True)):
        second = first.copy()
        second[:wrong] = first[:wrong, ::-1]
        found = paired(y, first, second)
        differences = [found.metrics["macro_f1"], found.metrics["balanced_accuracy"]]
        differences += [each[name] for each in found.classes for name in ("precision", "f1")]
        assert {each.interval is not None for each in differences} == {known}
        assert found.metrics["accuracy"].interval is not None
        assert found.metrics["log_loss"].interval is not None


def test_merged_sums_equal_those_of_all_rows() -> None:
    y, first, second = rows(500, 4, seed=8)
    parts = PairedSums(4), PairedSums(4)
    for sums, part in zip(parts, (slice(0, 200), slice(200, None)), strict=True):
        sums.add(y[part], first[part], second[part])
    parts[0].merge(parts[1])
    names = ["a", "b", "c", "d"]
    merged, whole = parts[0].paired().record(names), paired(y, first, second, size=500).record(names)
    assert merged.pop("log_loss")["interval"] == pytest.approx(whole.pop("log_loss")["interval"], rel=1e-9)
    assert merged == whole


def test_a_classifier_compared_with_itself_shows_nothing() -> None:
    y, first, _ = rows(300, 3, seed=9)
    found = paired(y, first, first)
    assert (found.better, found.p_value, found.same, found.only_first) == (0, 1.0, 300, 0)
    assert found.metrics["accuracy"].interval is not None
    assert found.metrics["accuracy"].interval[0] < 0 < found.metrics["accuracy"].interval[1]
    for name in ("macro_f1", "balanced_accuracy", "log_loss"):
        assert found.metrics[name].interval is None
    assert all(each["f1"].interval is None and each["recall"].interval for each in found.classes)


def test_an_exact_test_that_does_not_reject_keeps_few_rows_from_showing_a_difference() -> None:
    y, right = np.zeros(21, int), np.tile(np.float32([1, 0]), (21, 1))
    first, second = right.copy(), right.copy()
    first[:1], second[1:8] = first[:1, ::-1], second[1:8, ::-1]
    found = paired(y, first, second)
    assert (found.only_first, found.only_second) == (7, 1)
    assert found.metrics["accuracy"].shown
    assert found.p_value == pytest.approx(0.0703, abs=5e-5)
    assert found.better == 0
    more = paired(np.tile(y, 4), np.tile(first, (4, 1)), np.tile(second, (4, 1)))
    assert more.better == -1


def test_of_many_classes_macro_f1_has_no_interval_and_no_matrix_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    from shardtrain.metrics import paired as module

    y, first, second = rows(500, 4, seed=10)
    expected = paired(y, first, second)
    monkeypatch.setattr(module, "MAX_MATRIX", 3)
    found = paired(y, first, second)
    assert found.metrics["macro_f1"].interval is None
    assert found.metrics["macro_f1"].value == expected.metrics["macro_f1"].value
    assert found.classes == expected.classes
