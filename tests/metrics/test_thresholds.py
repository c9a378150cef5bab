"""Laws of thresholds: each is the best of all by its rule, and what is said of it is what it does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtrain.errors import ModelError, UsageError
from shardtrain.metrics import thresholds
from shardtrain.metrics.classification import MAX_MATRIX
from shardtrain.metrics.thresholds import Confidences, Rule, Thresholds


def drawn(seed: int, rows: int, classes: int, digits: int = 3) -> tuple[Any, Any]:
    """Classes and probabilities with ties, which are right more often where they are high."""
    rng = np.random.default_rng(seed)
    probabilities = np.round(rng.dirichlet(np.full(classes, 0.4), rows), digits).astype(np.float32)
    sure = probabilities.max(axis=1)
    y = np.where(rng.random(rows) < sure, probabilities.argmax(axis=1), rng.integers(0, classes, rows))
    return y, probabilities


def summed(y: Any, probabilities: Any, parts: int = 3) -> Confidences:
    found = Confidences(probabilities.shape[1])
    for part in np.array_split(np.arange(len(y)), parts):
        found.add(y[part], probabilities[part])
    return found


def value(rule: Rule, y: Any, probabilities: Any, threshold: float, only: int | None = None) -> tuple[float, int]:
    """The measure of a rule at a threshold, row by row, and the number of decided rows."""
    guess, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    mine = np.ones(len(y), bool) if only is None else guess == only
    decided = mine & (sure >= np.float32(threshold))
    right, number = int((decided & (guess == y)).sum()), int(decided.sum())
    support = len(y) if only is None else int((y == only).sum())
    if rule.measure == "precision":
        return (right / number if number else 0.0), number
    if rule.measure == "coverage":
        return number / max(int(mine.sum()), 1), number
    return (right / max(support, 1) if rule.measure == "recall" else 2 * right / (number + support)), number


def check_best(rule: Rule, y: Any, probabilities: Any, chosen: float, only: int | None) -> None:
    """Compare a threshold with all that could have been chosen."""
    guess, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    candidates = np.unique(sure if only is None else sure[guess == only]).tolist()
    values = {each: value(rule, y, probabilities, each, only)[0] for each in candidates}
    if not candidates:
        assert chosen > 1
    elif rule.least is None:
        assert chosen == min(each for each in candidates if values[each] == max(values.values()))
    elif fits := [each for each in candidates if values[each] >= rule.least]:
        assert chosen == (min(fits) if rule.measure == "precision" else max(fits))
    else:
        assert chosen > 1


EXTREME = ["precision>=0.00000001", "precision>=0.9999999", "coverage>=0.30000000000000004", f"recall>=0.{'0' * 330}1"]
RULES = st.sampled_from(["precision>=0.8", "precision>=.95", "recall>=0.4", "coverage>=0.7", "coverage>=1", "max f1"])


@given(st.integers(0, 10_000), st.integers(1, 200), st.integers(2, 5), RULES, st.booleans())
def test_no_other_threshold_is_better(seed: int, rows: int, classes: int, text: str, per_class: bool) -> None:
    rule = Rule.parse(text + (" per class" if per_class else ""))
    y, probabilities = drawn(seed, rows, classes)
    try:
        chosen = summed(y, probabilities).choose(rule)
    except ModelError:
        for only in range(classes) if per_class else (None,):
            check_best(rule, y, probabilities, 2.0, only)
        return
    for only in range(classes) if per_class else (None,):
        check_best(rule, y, probabilities, chosen.values[only or 0], only)
    decided = chosen.decided(probabilities)
    assert chosen.rows == rows
    assert chosen.coverage == pytest.approx(decided.mean())
    if decided.any():
        assert chosen.precision == pytest.approx((probabilities.argmax(axis=1) == y)[decided].mean())


@pytest.mark.parametrize("text", ["precision>=0.9", "recall>=0.5", "coverage>=0.75", "max f1", "max f1 per class"])
def test_what_is_said_of_many_rows_is_exact_too(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    y, probabilities = drawn(1, 30_000, 4, digits=7)
    exact = summed(y, probabilities).choose(Rule.parse(text))
    monkeypatch.setattr(thresholds, "EXACT_ROWS", 5000)
    binned = summed(y, probabilities, parts=13)
    chosen = binned.choose(Rule.parse(text))
    decided = chosen.decided(probabilities)
    assert chosen.coverage == pytest.approx(decided.mean(), abs=1e-12)
    assert chosen.precision == pytest.approx((probabilities.argmax(axis=1) == y)[decided].mean(), abs=1e-12)
    assert chosen.coverage == pytest.approx(exact.coverage, abs=0.002)  # of fewer thresholds, nearly the best
    assert sum(array.nbytes for array in (binned._bins, binned._lowest) if array is not None) < 16_000_000


@pytest.mark.parametrize("exact_rows", [1 << 20, 50])
@pytest.mark.parametrize("text", ["precision>=0.8", "recall>=0.3", "coverage>=0.7", "max f1", "max f1 per class"])
def test_a_weight_counts_as_so_many_rows(monkeypatch: pytest.MonkeyPatch, text: str, exact_rows: int) -> None:
    y, probabilities = drawn(4, 400, 3)
    times = np.random.default_rng(4).integers(0, 4, len(y))
    rule, found = Rule.parse(text), Confidences(3)
    repeated = summed(np.repeat(y, times), np.repeat(probabilities, times, axis=0)).choose(rule)
    monkeypatch.setattr(thresholds, "EXACT_ROWS", exact_rows)
    for part in np.array_split(np.arange(len(y)), 4):
        found.add(y[part], probabilities[part], times[part].astype(np.float64))
    chosen = found.choose(rule)
    assert chosen.rows == len(y)
    decided = chosen.decided(probabilities) * times
    assert chosen.coverage == pytest.approx(decided.sum() / times.sum())
    right = probabilities.argmax(axis=1) == y
    assert chosen.precision == pytest.approx((decided * right).sum() / decided.sum())
    assert found.effective_rows(chosen) == pytest.approx(decided.sum() ** 2 / (decided**2).sum())
    assert found.outcomes()[0].rows == pytest.approx(times.sum())
    if exact_rows > len(y):
        assert chosen.values == repeated.values


def test_rows_without_weight_decide_nothing() -> None:
    y, probabilities = drawn(5, 20, 2)
    found = Confidences(2)
    found.add(y, probabilities, np.zeros(len(y)))
    assert found.outcomes() == []
    with pytest.raises(ModelError, match="there are none"):
        found.choose(Rule.parse("max f1 per class"))


def test_the_outcomes_are_what_thresholds_do() -> None:
    y, probabilities = drawn(2, 5000, 3)
    outcomes = summed(y, probabilities).outcomes()
    assert outcomes[0].coverage == 1
    assert outcomes[0].precision == (probabilities.argmax(axis=1) == y).mean()
    for outcome in outcomes:
        decided = probabilities.max(axis=1) >= np.float32(outcome.threshold)
        assert outcome.rows == decided.sum()
        assert outcome.precision == pytest.approx((probabilities.argmax(axis=1) == y)[decided].mean())
    shares = [outcome.coverage for outcome in outcomes]
    assert shares == sorted(shares, reverse=True)
    assert Confidences(3).outcomes() == []


def test_of_very_many_classes_there_is_one_threshold() -> None:
    classes = MAX_MATRIX + 1
    y, probabilities = drawn(3, 50, classes)
    found = summed(y, probabilities)
    assert len(set(found.choose(Rule.parse("coverage>=0.5")).values)) == 1
    with pytest.raises(UsageError, match="at most 1,000 classes"):
        found.choose(Rule.parse("max f1 per class"))


@pytest.mark.parametrize(
    "text", ["", "precision", "precision>0.9", "precision>=2", "f1", "max recall", "accuracy>=0.9"]
)
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"write precision>=0\.95"):
        Rule.parse(text)


def test_a_rule_that_nothing_fulfils_says_what_can_be_reached() -> None:
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], np.float32)
    found = summed(np.array([1, 0, 0]), probabilities, parts=1)
    with pytest.raises(
        ModelError, match=r"no threshold gives precision>=0\.99 on 3 rows: the highest precision is 0\.5"
    ):
        found.choose(Rule.parse("precision >= 0.99"))
    with pytest.raises(ModelError, match="there are none"):
        Confidences(2).choose(Rule.parse("max f1"))


@given(RULES | st.sampled_from(EXTREME), st.booleans())
def test_rules_are_written_as_they_are_read(text: str, per_class: bool) -> None:
    rule = Rule.parse(f"  {text}{' per class' * per_class} ")
    assert Rule.parse(str(rule)) == rule
    assert isinstance(Thresholds(rule=rule, values=(0.5,), rows=1, coverage=1.0, precision=1.0).rule, Rule)
