"""Render slices of a labelled text: what the model is worth for each value of a column, beside all rows together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shardtrain.corpus.options import Column
from shardtrain.inference.evaluate import Evaluated, evaluate_corpus
from shardtrain.inference.run import Run
from shardtrain.metrics.classification import Metrics
from shardtrain.report.dots import HEIGHT, Scale
from shardtrain.report.formatting import quoted
from shardtrain.report.markup import Child, Markup, element, joined
from shardtrain.report.page import notice, table

_MAX_ROWS = 200
_TALL = 24  # rows of a table that does not scroll


def slices_section(run: Run, data: Path, by: Column) -> Markup:
    """Measure a run on labelled raw text and render the rows of each value of a column.

    Args:
        run: the run.
        data: the text.
        by: the column.

    Raises:
        CorpusError: the text cannot be read, or has no such column.
        UsageError: it has no columns, or the column has too many values.
        RunError: a file of the run is damaged.
    """
    evaluated = evaluate_corpus(run, data, by=by)
    whole = evaluated.measured.metrics
    if whole is None:
        return notice(f"There are no slices: {evaluated.measured.reason}.")
    rows = [(each.value, each.metrics) for each in evaluated.slices[:_MAX_ROWS]]
    scale = Scale.of([value for _, metrics in [*rows, ("", whole)] for value in metrics.accuracy_interval])
    heads = (str(by), scale.head("accuracy with its 95% interval"), "accuracy", "95% interval", "macro F1", "rows")
    listed = table(
        heads,
        [_row(scale, value, metrics, whole.accuracy) for value, metrics in rows],
        foot=_row(scale, "all rows", whole, whole.accuracy),
        caption=f"Accuracy for each value of {by}",
        chart=1,
        tall=len(rows) > _TALL,
    )
    return joined(element("p", _note(evaluated, rows, data, by), class_="soft"), listed)


def _note(evaluated: Evaluated, rows: Sequence[tuple[str, Metrics]], data: Path, by: Column) -> str:
    """Say what was measured, and which slice is the worst whose interval lies below the accuracy of all rows."""
    whole = evaluated.measured.metrics
    split = f", {evaluated.split} split" if evaluated.split else ""
    note = (
        f"{evaluated.examples:,} rows of {data}{split}, the largest slices of {by} first. The dashed line is all rows."
    )
    if len(evaluated.slices) > len(rows):
        note += f" The first {len(rows):,} of {len(evaluated.slices):,} are shown."
    weak = [each for each in rows if whole is not None and each[1].accuracy_interval[1] < whole.accuracy]
    if not weak:
        return f"{note} No interval lies below the accuracy of all rows."
    value, metrics = min(weak, key=lambda each: each[1].accuracy)
    return f"{note} The weakest whose interval lies below it is {quoted(value)}, {metrics.accuracy:.1%}."


def _row(scale: Scale, value: str, metrics: Metrics, whole: float) -> tuple[Child, ...]:
    low, high = metrics.accuracy_interval
    middle, at = HEIGHT / 2, scale.x(whole)
    marks = (
        element("line", x1=at, x2=at, y1=0, y2=HEIGHT, class_="level"),
        element("line", x1=scale.x(low), x2=scale.x(high), y1=middle, y2=middle, class_="whisker strong"),
        element("circle", cx=scale.x(metrics.accuracy), cy=middle, r=4.5, class_="s0 halo"),
    )
    interval = f"{100 * low:.0f}–{100 * high:.0f}%"
    shown = (f"{metrics.accuracy:.1%}", interval, f"{metrics.macro_f1:.3f}", f"{metrics.rows:,}")
    return value, scale.row(*marks), *shown
