"""Test the metrics of evaluations against scikit-learn's, their bounds, and that sums do not depend on batches."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import (
    auc,
    average_precision_score,
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
    roc_curve,
    top_k_accuracy_score,
)

from shardtrain.errors import ModelError, ShardsError
from shardtrain.metrics import ranking
from shardtrain.metrics.classification import BINS, MAX_MATRIX, Metrics, MetricSums
from shardtrain.metrics.outputs import OutputSums

Rows = tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any] | None]


def rows(
    number: int, classes: int, *, seed: int = 0, better: float = 1.5, sharpness: float = 1.0, present: int = 0
) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Labels, of which lower classes are more frequent, and float32 probabilities; `present`: classes with rows."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, (present or classes) + 1)
    y = rng.choice(len(share), number, p=share / share.sum())
    logits = rng.normal(size=(number, classes)) * sharpness
    logits[np.arange(number), y] += better * sharpness
    logits -= logits.max(axis=1, keepdims=True)
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    return y, probabilities


def measured(y: Any, probabilities: Any, weights: Any = None, *, size: int = 512) -> Metrics:
    sums = MetricSums(probabilities.shape[1])
    for start in range(0, len(y), size):
        part = slice(start, start + size)
        sums.add(y[part], probabilities[part], None if weights is None else weights[part])
    return sums.metrics()


def assert_equals_scikit_learn(found: Metrics, y: Any, probabilities: Any, weights: Any = None) -> None:
    classes, guess = probabilities.shape[1], probabilities.argmax(axis=1)
    every, weighing = range(classes), {"sample_weight": weights}
    close = {"rel": 1e-6, "abs": 1e-9}
    matrix = confusion_matrix(y, guess, labels=every, **weighing)
    np.testing.assert_allclose(found.confusions, matrix, rtol=1e-9)
    expected = precision_recall_fscore_support(y, guess, labels=every, zero_division=0, **weighing)
    for ours, theirs in zip((found.precision, found.recall, found.f1, found.support), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)
    for name, ours in (("macro", found.macro_f1), ("weighted", found.weighted_f1), ("micro", found.micro_f1)):
        assert ours == pytest.approx(f1_score(y, guess, average=name, zero_division=0, **weighing), **close)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # classes that are predicted and have no rows
        balanced = balanced_accuracy_score(y, guess, **weighing)
    assert found.balanced_accuracy == pytest.approx(balanced, **close)
    assert found.matthews == pytest.approx(matthews_corrcoef(y, guess, **weighing), **close)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # rows whose float32 probabilities sum to 1 less a rounding error
        loss = log_loss(y, probabilities, labels=every, **weighing)
    assert found.log_loss == pytest.approx(loss, rel=1e-6, abs=1e-6)
    if classes > 2:
        for k, ours in enumerate(found.top_accuracy, 1):
            theirs = top_k_accuracy_score(y, probabilities, k=k, labels=every, **weighing)
            assert ours == pytest.approx(theirs, **close)
    assert found.top_accuracy[0] == pytest.approx(found.accuracy, **close)


def assert_ranks_within_bounds(found: Metrics, y: Any, probabilities: Any, weights: Any = None) -> None:
    areas, precisions = [], []
    for number, each in enumerate(found.rankings):
        own, scores = y == number, probabilities[:, number]
        if own.any() and not own.all():
            area = roc_auc_score(own, scores, sample_weight=weights)
            areas.append(area)
            assert abs(each.roc_auc - area) <= each.roc_auc_error + 1e-9
        else:
            assert each.roc_auc is None
        if own.any():
            precision = average_precision_score(own, scores, sample_weight=weights)
            precisions.append(precision)
            assert abs(each.average_precision - precision) <= each.average_precision_error + 1e-9
        else:
            assert each.average_precision is None
    macro = found.macro_ranking
    if areas:
        assert abs(macro.roc_auc - np.mean(areas)) <= macro.roc_auc_error + 1e-9
    if precisions:
        assert abs(macro.average_precision - np.mean(precisions)) <= macro.average_precision_error + 1e-9


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize(
    ("number", "classes", "options"),
    [
        (2000, 4, {}),
        (2000, 2, {}),
        (1500, 40, {}),
        (1500, 6, {"present": 3}),
        (1500, 5, {"better": 0.0}),
        (1500, 5, {"sharpness": 30.0}),
        (1, 3, {}),
    ],
    ids=["four classes", "two classes", "40 classes", "absent classes", "chance", "probabilities of 0 and 1", "a row"],
)
def test_metrics_are_those_of_scikit_learn(
    number: int, classes: int, options: dict[str, Any], weighted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, p = rows(number, classes, **options)
    p = (
        p if "sharpness" not in options else np.maximum(p, np.linspace(1e-7, 5e-7, classes, dtype=np.float32))
    )  # no ties
    weights = np.random.default_rng(1).uniform(0.1, 3, number) if weighted else None
    found = measured(y, p, weights)
    assert_equals_scikit_learn(found, y, p, weights) if number > 1 else None
    assert_ranks_within_bounds(found, y, p, weights)
    assert all(each.roc_auc_error == each.average_precision_error == 0 for each in found.rankings)
    monkeypatch.setattr(ranking, "EXACT_VALUES", 0)
    binned = measured(y, p, weights)
    assert_ranks_within_bounds(binned, y, p, weights)
    if number > 1:
        assert binned.macro_ranking.roc_auc_error < 1e-3


@pytest.mark.parametrize("levels", [1, 2, 7])
def test_ties_count_half_and_the_first_class_wins(levels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(levels)
    y = rng.integers(0, 3, 900)
    p = rng.integers(1, levels + 1, (900, 3)).astype(np.float32)
    p /= p.sum(axis=1, keepdims=True)
    found = measured(y, p)
    assert_ranks_within_bounds(found, y, p)
    assert found.accuracy == pytest.approx((p.argmax(axis=1) == y).mean())
    assert found.top_accuracy[0] == pytest.approx(found.accuracy)
    order = np.argsort(-p, axis=1, kind="stable")
    assert found.top_accuracy[1] == pytest.approx((order[:, :2] == y[:, None]).any(axis=1).mean())
    monkeypatch.setattr(ranking, "EXACT_VALUES", 0)
    assert_ranks_within_bounds(measured(y, p), y, p)


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_binned_rankings_keep_their_bounds_on_few_scores_that_lie_together(data: st.DataObject) -> None:
    classes = data.draw(st.integers(2, 4))
    number = data.draw(st.integers(1, 25))
    y = np.array(data.draw(st.lists(st.integers(0, classes - 1), min_size=number, max_size=number)))
    score = st.one_of(
        st.floats(0.5 - 2.0**-16, 0.5 + 2.0**-16, width=32), st.floats(0, 1, width=32), st.sampled_from([0, 1, 1e-30])
    )
    values = data.draw(st.lists(score, min_size=number * classes, max_size=number * classes))
    p = np.array(values, np.float32).reshape(number, classes)
    weights = data.draw(
        st.none() | st.lists(st.integers(1, 4), min_size=number, max_size=number).map(lambda w: np.array(w, float))
    )
    scores = ranking.Scores(classes)
    scores._most_rows, scores._bits = 0, 1  # bins of many scores
    scores.add(p, y.astype(np.int64), np.ones(number) if weights is None else weights)
    for column, each in enumerate(scores.rankings()):
        own = y == column
        if own.any():
            theirs = average_precision_score(own, p[:, column], sample_weight=weights)
            assert abs(each.average_precision - theirs) <= each.average_precision_error + 1e-9
        if own.any() and not own.all():
            theirs = roc_auc_score(own, p[:, column], sample_weight=weights)
            assert abs(each.roc_auc - theirs) <= each.roc_auc_error + 1e-9


@pytest.mark.parametrize("bits", [0, 1, 7, 12])
def test_bins_ascend_with_the_probability_and_are_narrow_near_0_and_1(bits: int) -> None:
    near = np.float32(2.0) ** -np.arange(1, 40, dtype=np.float32)
    p = np.unique(np.concatenate([near, 1 - near, [0, 1], np.random.default_rng(0).random(5000)]).astype(np.float32))
    places = ranking.bin_of(p[:, None], bits)[:, 0]
    assert (np.diff(places) >= 0).all()
    assert (places.min(), places.max()) == (0, ranking.num_bins(bits) - 1)
    small = p[(p >= 2.0**-32) & (p <= 0.5)]
    _, start, count = np.unique(ranking.bin_of(small[:, None], bits)[:, 0], return_index=True, return_counts=True)
    assert (small[start + count - 1] <= small[start] * (1 + 2.0**-bits)).all()


@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
@pytest.mark.parametrize("exact", [1 << 20, 2000, 4500, 0])
def test_merged_sums_are_the_sums_of_all(exact: int, weighted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "EXACT_VALUES", exact)  # of 4,000 probabilities
    y, p = rows(1000, 4)
    weights = np.random.default_rng(1).uniform(0.1, 3, 1000) if weighted else np.ones(1000)
    whole, parts = MetricSums(4), [MetricSums(4), MetricSums(4), MetricSums(4)]
    whole.add(y, p, weights if weighted else None)
    for sums, part in zip(parts, (slice(0, 100), slice(100, 800), slice(800, None)), strict=True):
        sums.add(y[part], p[part], weights[part] if weighted else None)
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    one, other = (each.metrics().record(["a", "b", "c", "d"]) for each in (whole, parts[0]))
    for name in ("confusions", "classes", "calibration", "top_accuracy"):
        assert np.array_equal(str(one[name]), str(other[name])) or weighted
    for name in (name for name, value in one.items() if isinstance(value, float)):
        assert one[name] == pytest.approx(other[name], rel=1e-12, abs=1e-12)


@pytest.mark.parametrize("classes", [2, 100, MAX_MATRIX, MAX_MATRIX + 1])
def test_memory_does_not_grow_with_the_rows(classes: int) -> None:
    sums, number = MetricSums(classes), 2 * ranking.EXACT_VALUES // classes
    y, p = rows(512, classes)
    for _ in range(-(-number // 512)):
        sums.add(y, p)
    before = sums.num_bytes
    for _ in range(5):
        sums.add(y, p)
    assert sums.num_bytes == before < 24 << 20
    assert sums.metrics().rows == (-(-number // 512) + 5) * 512


def test_the_interval_is_that_of_wilson_and_says_whether_the_majority_is_beaten() -> None:
    y = np.array([0] * 60 + [1] * 40)
    p = np.zeros((100, 2), np.float32)
    guess = np.concatenate([np.zeros(50), np.ones(50)]).astype(int)  # 90 are right
    p[np.arange(100), guess] = 1
    found = measured(y, p)
    assert found.accuracy_interval == pytest.approx((0.8256343, 0.9447708), abs=1e-6)  # scipy.stats.binomtest
    assert (found.majority_class, found.majority_accuracy, found.beats_majority) == (0, 0.6, True)
    always = measured(y, np.array([[1, 0]] * 100, np.float32))
    assert (always.accuracy, always.matthews, always.beats_majority) == (0.6, 0, False)
    twice = measured(y, p, np.full(100, 2.0))
    assert twice.accuracy_interval == pytest.approx(found.accuracy_interval)  # weights are no rows


def test_the_calibration_error_is_the_mean_gap_over_bins_of_confidence() -> None:
    y, p = rows(500, 3)
    p[0] = [1, 0, 0]  # the highest confidence belongs to the last bin
    found = measured(y, p).calibration
    confidence, right = p.max(axis=1).astype(np.float64), p.argmax(axis=1) == y
    error = 0.0
    for number in range(BINS):
        inside = np.minimum((confidence * BINS).astype(int), BINS - 1) == number
        assert found.counts[number] == inside.sum()
        if inside.any():
            error += inside.sum() * abs(confidence[inside].mean() - right[inside].mean()) / 500
    assert found.error == pytest.approx(error)


def test_of_too_many_classes_neither_confusions_nor_rankings_are_kept() -> None:
    y = np.array([0, MAX_MATRIX])
    found = measured(y, np.eye(MAX_MATRIX + 1)[y])
    assert (found.confusions, found.rankings, found.macro_ranking.roc_auc) == (None, (), None)
    assert (found.accuracy, found.macro_f1, found.matthews) == (1, 1, 1)
    assert len(found.record([str(number) for number in range(MAX_MATRIX + 1)])["classes"]) == MAX_MATRIX + 1


def test_no_rows_have_metrics_that_say_nothing_and_labels_outside_are_refused() -> None:
    found = MetricSums(3).metrics()
    assert (found.rows, found.accuracy, found.accuracy_interval) == (0, 0, (0, 1))
    assert found.record(["a", "b", "c"])["macro_roc_auc"] is None
    for label in (-1, 3):
        with pytest.raises(ShardsError, match=r"labels outside \[0, 3\)"):
            MetricSums(3).add(np.array([0, label]), np.ones((2, 3)) / 3)


@pytest.mark.parametrize("exact", [1 << 20, 0], ids=["exact", "in bins"])
@pytest.mark.parametrize(("number", "classes"), [(3, 2), (400, 2), (5000, 3), (600, 10)])
def test_points_of_curves_are_scikit_learns(
    number: int, classes: int, exact: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "EXACT_VALUES", exact)
    y, p = rows(number, classes)
    sums = MetricSums(classes)
    sums.add(y, p)
    for index, curve in enumerate(sums.curves()):
        own = y == index
        if curve is None:
            assert own.all() or not own.any()
            continue
        score, close = p[:, index], {"abs": 2 / ranking.MAX_POINTS}
        roc = (curve.false_positives, curve.true_positives)
        assert pairs(*roc) <= pairs(*roc_curve(own, score, drop_intermediate=False)[:2])
        assert [(each[0], each[-1]) for each in roc] == [(0, 1), (0, 1)]
        assert auc(*roc) == pytest.approx(roc_auc_score(own, score), **close)
        assert pairs(curve.precision, curve.recall) <= pairs(*precision_recall_curve(own, score)[:2])
        mean = float(np.diff(curve.recall, prepend=0) @ curve.precision)
        assert mean == pytest.approx(average_precision_score(own, score), **close)
        grid = np.linspace(0, 1, 101)[1:]
        reached = precision_recall_curve(own, score)
        for recall, precision in zip(grid, curve.precision_at(grid), strict=True):
            best = reached[0][:-1][reached[1][:-1] >= recall - 1e-12][-1] if len(reached[1]) > 1 else 1.0
            assert precision == pytest.approx(best, abs=0.1)
        assert len(curve.recall) <= ranking.MAX_POINTS >= len(curve.false_positives) - 1


def pairs(first: Any, second: Any) -> set[tuple[float, float]]:
    return set(zip(np.round(first, 9).tolist(), np.round(second, 9).tolist(), strict=True))


def test_there_are_no_curves_without_rows_or_of_too_many_classes() -> None:
    assert MetricSums(3).curves() == [None] * 3
    assert MetricSums(MAX_MATRIX + 1).curves() == []


def test_outputs_that_are_no_probabilities_have_no_metrics_and_a_reason() -> None:
    sums = OutputSums(3)
    sums.add(np.array([0, 1]), np.full((2, 3), 1 / 3, np.float32))
    sums.add(np.array([0, 1]), np.array([[0.5, 0.5, 0.0], [-1.0, 2.0, 0.0]], np.float32))
    measured = sums.measured({"loss": 1.0})
    assert measured.metrics is None
    assert "lie between -1 and 2" in measured.reason
    with pytest.raises(ModelError, match="macro_f1, log_loss cannot be computed: the model's outputs lie between"):
        measured.named(["macro_f1", "log_loss"])
