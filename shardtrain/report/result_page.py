"""Render what a run is worth: the tiles and notices at the top of its report, and the metrics over all classes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shardtrain.metrics.intervals import wilson_interval
from shardtrain.report.axes import WIDTH, label, percent, text_width
from shardtrain.report.formatting import quoted
from shardtrain.report.markup import Markup, element, joined
from shardtrain.report.page import beside, figure, notice, table, tiles
from shardtrain.report.run_analysis import RunEvaluation
from shardtrain.report.svg import drawing
from shardtrain.runtime.progress import short
from shardtrain.runtime.quantities import enumerated

_NOTABLE = 0.01  # share of rows that are also training rows, from which on a notice says so
_LOW_RECALL = 0.1  # of a class, below which a notice names it
_STEPS = (0.01, 0.02, 0.05, 0.1, 0.25, 0.5)  # between ticks
_NAMED = 5  # classes in a notice
_LEFT, _RIGHT, _ROW = 146, 16, 30  # of the chart of accuracies

Recorded = Mapping[str, Any]  # metrics.json


def result_tiles(recorded: Recorded, found: RunEvaluation | None, names: Sequence[str], rows: int) -> Markup:
    """Render the key figures, all of the weights that were kept.

    Args:
        recorded: the metrics of the run.
        found: evaluation on validation rows, if the shards are there.
        names: class names.
        rows: number of validation rows that the run recorded.
    """
    epochs = f"kept: epoch {recorded.get('best_epoch', recorded['epochs']):,} of {recorded['epochs']:,}"
    if found is None:
        low, high = wilson_interval(recorded["val_accuracy"], rows)
        each = [
            ("validation accuracy", f"{recorded['val_accuracy']:.2%}", f"95% interval {low:.1%} to {high:.1%}"),
            *_recorded_tiles(recorded),
            ("validation loss", short(recorded["val_loss"]), epochs),
            *_test_tiles(recorded),
            ("validation rows", f"{rows:,}", ""),
        ]
        return tiles(*each)
    metrics = found.metrics
    low, high = metrics.accuracy_interval
    loss = (
        ("log loss", f"{metrics.log_loss:.4f}", "on these shards")
        if found.changed
        else ("validation loss", short(recorded["val_loss"]), epochs)
    )
    return tiles(
        ("validation accuracy", f"{metrics.accuracy:.2%}", f"95% interval {low:.1%} to {high:.1%}"),
        (
            "majority baseline",
            f"{metrics.majority_accuracy:.2%}",
            f"always {quoted(names[metrics.majority_class])}",
        ),
        ("macro F1", f"{metrics.macro_f1:.4f}", f"mean of {len(metrics.occurring):,} classes"),
        loss,
        *_test_tiles(recorded),
        ("validation rows", f"{metrics.rows:,}", f"{found.split_rows['train']:,} training rows"),
    )


def _recorded_tiles(recorded: Recorded) -> list[tuple[str, str, str]]:
    """Return what newer runs record of the validation split beside accuracy and loss."""
    known = recorded.get("validation")
    if not known:
        return []
    majority = f"always {quoted(known['majority_class'])}"
    return [
        ("majority baseline", f"{known['majority_accuracy']:.2%}", majority),
        ("macro F1", f"{known['macro_f1']:.4f}", ""),
    ]


def recorded_warning(recorded: Recorded) -> Markup | None:
    """Render the verdict that a run has recorded of itself, if it is not better than the majority baseline."""
    known = recorded.get("validation")
    if not known or known["beats_majority"]:
        return None
    low, high = known["accuracy_interval"]
    return notice(_verdict(known["majority_class"], known["majority_accuracy"], known["accuracy"], low, high))


def _verdict(majority: str, baseline: float, accuracy: float, low: float, high: float) -> str:
    """Say that a model is not better than always answering the majority class."""
    verdict = "is worse than" if high < baseline else "is not shown to be better than"
    return (
        f"This model {verdict} always answering {quoted(majority)}: that is right for {baseline:.1%} "
        f"of the rows, the model for {accuracy:.1%}, with a 95% interval of {low:.1%} to {high:.1%}."
    )


def _test_tiles(recorded: Recorded) -> list[tuple[str, str, str]]:
    """Return the tile of the test split, which no decision of the training used; none if there is none."""
    if "test_examples" not in recorded:
        return []
    accuracy, loss = recorded.get("test_accuracy"), recorded.get("test_loss")
    if accuracy is None:
        return [("test accuracy", "not finite", "")]
    low, high = wilson_interval(accuracy, recorded["test_examples"])
    more = "not finite" if loss is None else f"{loss:.4f}"
    return [("test accuracy", f"{accuracy:.2%}", f"95% interval {low:.1%} to {high:.1%}; loss {more}")]


def warnings(found: RunEvaluation, names: Sequence[str], *, tested: bool) -> Markup | None:
    """Render what to know before the figures: a useless model, classes never recognized, rows seen in training."""
    said = [element("span", text) for text in _warnings(found, names, tested=tested)]
    return notice(*said) if said else None


def _warnings(found: RunEvaluation, names: Sequence[str], *, tested: bool) -> Iterator[str]:
    metrics = found.metrics
    if not metrics.beats_majority:
        majority = names[metrics.majority_class]
        yield _verdict(majority, metrics.majority_accuracy, metrics.accuracy, *metrics.accuracy_interval)
    missed = [i for i in metrics.occurring.tolist() if metrics.support[i] and metrics.recall[i] < _LOW_RECALL]
    if missed:
        missed.sort(key=lambda i: float(metrics.recall[i]))
        shown = [f"{quoted(names[i])} (recall {metrics.recall[i]:.1%})" for i in missed[:_NAMED]]
        named = enumerated(shown, _NAMED, number=len(missed))
        what = "class is" if len(missed) == 1 else "classes are"
        yield f"{len(missed):,} {what} hardly ever recognized: {named}."
    shared = {"validation": found.duplicates.shared, "test": found.duplicates.test_shared if tested else 0}
    for name, count in shared.items():
        total = found.split_rows.get(name, 0)
        if total and count / total >= _NOTABLE:
            yield (
                f"{count:,} of {total:,} {name} rows ({count / total:.1%}) are also training rows, so the {name} "
                "accuracy is higher than it will be on new texts."
            )
    if found.changed:
        yield "These are not the shards that the run was trained on; they were built with the same vectorizer."


def result_section(recorded: Recorded, found: RunEvaluation, names: Sequence[str]) -> Markup:
    """Render the accuracies beside the baseline, and the table of all metrics."""
    metrics = found.metrics
    low, high = metrics.accuracy_interval
    where = f"on {metrics.rows:,} validation rows of {found.shards}, classified for this report"
    stated = element("p", f"Accuracy {metrics.accuracy:.2%} {where}.", class_="soft")
    measured = [Measured(name="validation", value=metrics.accuracy, low=low, high=high)]
    if recorded.get("test_accuracy") is not None:
        bounds = wilson_interval(recorded["test_accuracy"], recorded["test_examples"])
        measured.append(Measured(name="test", value=recorded["test_accuracy"], low=bounds[0], high=bounds[1]))
    majority = quoted(names[metrics.majority_class])
    note = f"With 95% intervals. Always answering {majority} is right for {metrics.majority_accuracy:.2%} of the rows."
    chart = _draw(measured, metrics.majority_accuracy, note)
    compared = figure("Accuracy and baseline", note, chart)
    return joined(stated, beside(compared, _decisions(found), _probabilities(found)))


def _decisions(found: RunEvaluation) -> Markup:
    """List the metrics that follow from the predicted classes."""
    metrics = found.metrics
    figures = (
        ("accuracy", metrics.accuracy),
        ("macro F1", metrics.macro_f1),
        ("weighted F1", metrics.weighted_f1),
        ("balanced accuracy", metrics.balanced_accuracy),
        ("Matthews correlation", metrics.matthews),
        *((f"top-{k} accuracy", value) for k, value in enumerate(metrics.top_accuracy[1:], 2)),
    )
    return _listed(figures, "Predicted classes")


def _probabilities(found: RunEvaluation) -> Markup:
    """List the metrics of the probabilities, and the rows that are also in training."""
    metrics = found.metrics
    macro = metrics.macro_ranking
    figures = (
        ("log loss", metrics.log_loss),
        ("expected calibration error", metrics.calibration.error),
        ("macro ROC AUC", macro.roc_auc),
        ("macro average precision", macro.average_precision),
    )
    shared, total = found.duplicates.shared, found.split_rows.get("validation", 0)
    return _listed(figures, "Probabilities", ("rows also in training", f"{shared:,} ({shared / (total or 1):.1%})"))


def _listed(figures: Sequence[tuple[str, float | None]], caption: str, *more: tuple[str, str]) -> Markup:
    rows = [(name, "undefined" if value is None else f"{value:.4f}") for name, value in figures]
    return table(("metric", "value"), [*rows, *more], caption=caption, hide_heads=True)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """An accuracy with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float


def _draw(measured: Sequence[Measured], baseline: float, note: str) -> Markup:
    """Draw accuracies as dots with their intervals, and the baseline as a line."""
    least, most = min(baseline, *(each.low for each in measured)), max(baseline, *(each.high for each in measured))
    step = next(each for each in _STEPS if most - least <= 3 * each or each == _STEPS[-1])
    low, high = max(0.0, math.floor(least / step) * step), min(1.0, math.ceil(most / step) * step)
    if low == high:
        low, high = max(0.0, low - step), min(1.0, high + step)

    def across(value: float) -> float:
        return _LEFT + (value - low) / (high - low) * (WIDTH - _LEFT - _RIGHT)

    top, base = 26, 26 + _ROW * len(measured)
    drawn = []
    for tick in (low + i * step for i in range(round((high - low) / step) + 1)):
        drawn.append(element("line", x1=across(tick), x2=across(tick), y1=top, y2=base, class_="grid"))
        shown = percent(round(tick, 4))
        drawn.append(label(shown, min(across(tick), WIDTH - text_width(shown) / 2), base + 18, "soft", "middle"))
    drawn.append(element("line", x1=_LEFT, x2=WIDTH - _RIGHT, y1=base, y2=base, class_="axis"))
    drawn.append(element("line", x1=across(baseline), x2=across(baseline), y1=top - 6, y2=base, class_="level"))
    shown = "majority baseline"
    half = text_width(shown) / 2
    drawn.append(label(shown, min(max(across(baseline), half), WIDTH - half), 13, "soft", "middle"))
    for number, each in enumerate(measured):
        y, x = top + (number + 0.5) * _ROW, across(each.value)
        hint = element(
            "title", f"{each.name} accuracy {each.value:.2%}, 95% interval {each.low:.2%} to {each.high:.2%}"
        )
        line = element("line", x1=across(each.low), x2=across(each.high), y1=y, y2=y, class_="whisker strong")
        hit = element("rect", x=_LEFT, y=y - _ROW / 2, width=WIDTH - _LEFT - _RIGHT, height=_ROW, class_="hit")
        dot = element("circle", cx=x, cy=y, r=5.5, class_="s0 halo")
        named = label(f"{each.name} {each.value:.2%}", 0, y + 4)
        drawn.append(element("g", hint, named, line, dot, hit))
    alt = f"Accuracy: {', '.join(f'{each.name} {each.value:.2%}' for each in measured)}. {note}"
    return drawing(base + 24, alt, *drawn)
