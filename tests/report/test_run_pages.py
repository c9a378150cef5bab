"""Test what the pages of a run say: which epoch, which order, which totals, and what a reader is warned of."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardtrain.metrics.classification import Metrics, MetricSums
from shardtrain.report.classes_page import classes_section
from shardtrain.report.confusions_page import MAX_CLASSES, choose, confusions_section
from shardtrain.report.dots import Scale
from shardtrain.report.duplicates import DuplicateCounts
from shardtrain.report.formatting import format_share
from shardtrain.report.ranking_page import ranking_section
from shardtrain.report.result_page import result_tiles, warnings
from shardtrain.report.run_analysis import MAX_IN_ORDER, RunEvaluation, order_of
from shardtrain.report.run_reasons import Terms
from shardtrain.report.training_page import Series, axis_range, training_section


def sums_of(rows: int, classes: int, *, better: float = 1.5, seed: int = 0) -> MetricSums:
    """Sums of random predictions, which are right the more often the higher `better`."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, rows)
    scores = rng.normal(size=(rows, classes))
    scores[np.arange(rows), y] += better
    sums = MetricSums(classes)
    sums.add(y, (np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)).astype(np.float32))
    return sums


def evaluation(metrics: Metrics, duplicates: DuplicateCounts | None = None, *, changed: bool = False) -> RunEvaluation:
    return RunEvaluation(
        shards=Path("shards"),
        changed=changed,
        metrics=metrics,
        curves=(),
        mistakes=(),
        reasons=(),
        no_explanations="",
        terms=Terms(classes={}, reason="none"),
        duplicates=duplicates or DuplicateCounts(),
        split_rows={"train": 1000, "validation": metrics.rows, "test": 500},
    )


def names(classes: int) -> list[str]:
    return [f"class {i}" for i in range(classes)]


def epochs(*losses: float) -> list[dict[str, float]]:
    return [{"epoch": i, "loss": 2 * loss, "val_loss": loss} for i, loss in enumerate(losses, start=1)]


def test_chart_and_tile_name_the_epoch_whose_weights_were_kept():
    page = training_section(epochs(0.9, 0.5, 0.4, 0.45), 3)
    assert "Validation loss 0.4000 at epoch 3, whose weights were kept; 0.4500 at the last epoch, 4." in page
    assert "epoch 3 kept" in page
    recorded = {"val_accuracy": 0.8, "val_loss": 0.4, "epochs": 4, "best_epoch": 3}
    tiles = result_tiles(recorded, None, names(2), 100)
    assert "0.4000<small>kept: epoch 3 of 4</small>" in tiles
    assert "Validation loss 0.4500 at epoch 4, whose weights were kept." in training_section(
        epochs(0.9, 0.5, 0.4, 0.45), None
    )


def test_the_axis_of_a_loss_leaves_out_a_first_fall_that_would_flatten_the_rest_and_the_note_says_so():
    steep = Series(name="validation", points=((1, 4.0), (2, 0.82), (3, 0.80), (4, 0.79)))
    low, high = axis_range([steep])
    assert low < 0.79 < 0.82 < high < 1
    page = training_section(epochs(4.0, 0.82, 0.80, 0.79), 4)
    assert "Beyond the axis: training 8 at epoch 1, validation 4 at epoch 1." in page
    even = Series(name="validation", points=((1, 0.9), (2, 0.7), (3, 0.5), (4, 0.3)))
    low, high = axis_range([even])
    assert low <= 0.3
    assert high >= 0.9
    assert "Beyond the axis" not in training_section(epochs(0.9, 0.7, 0.5, 0.3), 4)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=60), st.integers(0, 59))
def test_lines_stay_within_the_chart_whatever_the_losses(losses, best):
    page = training_section(epochs(*losses), 1 + best % len(losses))
    for path in re.findall(r'<path d="([^"]*)" class="curve', page):
        for place in re.findall(r"[ML]([\d.]+) ([\d.]+)", path):
            assert 48 <= float(place[0]) <= 360 or path == "M0 0"
            assert 26 - 0.1 <= float(place[1]) <= 26 + 180 + 0.1 or path == "M0 0"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_the_axis_of_the_dots_holds_all_values_in_few_round_steps(values):
    scale = Scale.of(values)
    assert scale.low <= min(values) + 1e-9
    assert scale.high >= max(values) - 1e-9
    assert 0 <= scale.low < scale.high <= 1 + 1e-9
    assert 2 <= len(scale.ticks) <= 6
    assert all(0 <= scale.x(value) <= 176 for value in values)


@pytest.mark.parametrize("classes", [2, MAX_IN_ORDER, MAX_IN_ORDER + 1])
def test_each_class_has_its_dots_in_its_row_and_many_are_sorted_by_f1(classes):
    metrics = sums_of(3000, classes).metrics()
    body = classes_section(metrics, names(classes)).partition("<tbody>")[2]
    rows = re.findall(r"<tr>(.*?)</tr>", body)
    assert len(rows) == classes + 1  # and the mean
    order = order_of(metrics)
    f1 = metrics.f1[order]
    assert order == list(range(classes)) if classes <= MAX_IN_ORDER else (np.diff(f1) >= 0).all()
    for index, row in zip(order, rows, strict=False):
        assert f">class {index}</span>" in row
        assert row.count("<svg") == 1
        assert f"{metrics.f1[index]:.3f}" in row


@given(st.integers(2, 40), st.integers(0, 1000))
def test_a_matrix_of_many_classes_keeps_all_totals(classes, seed):
    metrics = sums_of(400, classes, seed=seed).metrics()
    matrix = choose(metrics, names(classes))
    assert len(matrix.names) <= MAX_CLASSES
    assert matrix.counts.sum() == metrics.rows
    assert matrix.counts.shape == (len(matrix.names),) * 2
    for place, name in enumerate(matrix.names):
        if name != "all other classes":
            index = int(name.split()[1])
            assert matrix.counts[place].sum() == metrics.support[index]
            assert matrix.counts[:, place].sum() == metrics.predicted[index]
            assert matrix.counts[place, place] == metrics.correct[index]


def test_cells_have_shares_of_their_true_class_counts_names_and_totals():
    sums = MetricSums(2)
    sums.add(np.array([0, 0, 0, 0, 1]), np.array([[0.9, 0.1]] * 3 + [[0.2, 0.8]] * 2, np.float32))
    page = confusions_section(sums.metrics(), ["Sci/Tech", "Business"])
    assert "75.0%<small>3</small>" in page
    assert "25.0%<small>1</small>" in page
    assert re.findall(r'<td class="total">([\d,]+)</td>', page) == ["4", "1", "5"]
    assert page.count(">Sci/Tech<") == 3  # a row, a column, a pair
    assert "Most often “Sci/Tech” is taken for “Business”: 1 of 1 mistakes." in page


def test_without_mistakes_there_are_no_pairs():
    sums = MetricSums(2)
    sums.add(np.array([0, 1]), np.array([[0.9, 0.1], [0.2, 0.8]], np.float32))
    assert "No row is misclassified." in confusions_section(sums.metrics(), names(2))


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.0004, 0.0006, 0.5, 0.9994, 0.9996, 1 - 1e-9, 1.0])
def test_only_what_is_0_or_1_is_shown_as_0_or_100_percent(share):
    shown = format_share(share)
    assert (shown == "0.0%") == (share == 0)
    assert (shown == "100.0%") == (share == 1)


def test_a_model_that_is_not_better_than_the_majority_is_said_to_be_so_first():
    useless = sums_of(60, 3, better=0.0).metrics()
    said = warnings(evaluation(useless), names(3), tested=False)
    assert said.startswith(
        '<p class="notice" role="note"><span>This model is not shown to be better than always answering “class'
    )
    low = MetricSums(2)
    low.add(np.array([0] * 90 + [1] * 10), np.array([[0.2, 0.8]] * 100, np.float32))
    assert "This model is worse than always answering “class 0”" in warnings(
        evaluation(low.metrics()), names(2), tested=False
    )
    assert warnings(evaluation(sums_of(500, 3, better=3).metrics()), names(3), tested=False) is None


def test_classes_that_are_hardly_recognized_are_named():
    sums = MetricSums(3)
    y = np.array([0] * 60 + [1] * 30 + [2] * 10)
    sums.add(y, np.eye(3, dtype=np.float32)[np.where(y == 2, 0, y)] * 0.9 + np.float32(0.1 / 3))
    said = warnings(evaluation(sums.metrics()), names(3), tested=False)
    assert "1 class is hardly ever recognized: “class 2” (recall 0.0%)." in said


def test_rows_that_are_also_training_rows_are_noted_where_they_are_not_few():
    metrics = sums_of(1000, 3, better=4).metrics()
    assert warnings(evaluation(metrics, DuplicateCounts(shared=9, test_shared=4)), names(3), tested=True) is None
    said = warnings(evaluation(metrics, DuplicateCounts(shared=125, test_shared=50)), names(3), tested=True)
    assert "125 of 1,000 validation rows (12.5%) are also training rows" in said
    assert "50 of 500 test rows (10.0%) are also training rows" in said
    untested = warnings(evaluation(metrics, DuplicateCounts(test_shared=50)), names(3), tested=False)
    assert untested is None


@pytest.mark.parametrize("classes", [2, 4, 30])
def test_curves_are_drawn_for_the_mean_and_the_weakest_classes(classes):
    sums = sums_of(900, classes)
    metrics = sums.metrics()
    page = ranking_section(metrics, sums.curves(), names(classes))
    assert page.count("<figure>") == 2
    assert page.count('class="curve mean"') == 4  # two lines and two samples
    weakest = sorted(range(classes), key=lambda index: metrics.rankings[index].average_precision)[:3]
    for place, index in enumerate(weakest):
        assert page.count(f"<title>class {index}</title><path") == 2
        assert (
            len(re.findall(rf'class="curve w{place}"/></svg><span class="name" dir="auto">class {index}<', page)) == 2
        )
    assert f"<b>{metrics.macro_ranking.roc_auc:.3f}</b>" in page
    assert f"<b>{metrics.macro_ranking.average_precision:.3f}</b>" in page
    assert len(page) < 40_000


def test_no_curves_are_said_to_be_missing():
    sums = MetricSums(2)
    sums.add(np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]], np.float32))
    assert "There are no curves where all rows have one class." in ranking_section(
        sums.metrics(), sums.curves(), names(2)
    )
