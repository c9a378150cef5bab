"""Show the metrics of an evaluation as lines of text, and as the values of `--json`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from shardtrain.runtime.progress import short, warn
from shardtrain.runtime.terminal import aligned, printable

if TYPE_CHECKING:
    from shardtrain.inference.slices import Slice
    from shardtrain.metrics.classification import Metrics
    from shardtrain.metrics.outputs import Measured

_MOST_CLASSES = 20  # in the table; of more, those with the lowest F1
_WORST = 10
_PAIRS = 5  # that are confused most often
_NAME = 40  # characters of a class name
_MOST_SLICES = 30
_MEASURES_OF_SLICE = ("macro_f1", "balanced_accuracy", "log_loss", "calibration_error")
_OF_SLICE = ("accuracy", "accuracy_interval", "majority_class", "majority_accuracy", *_MEASURES_OF_SLICE)


def measured_facts(measured: Measured, names: Sequence[str]) -> dict[str, Any]:
    """Return all metrics as JSON values; `names` are the class names."""
    return {} if measured.metrics is None else measured.metrics.record(names)


def measured_lines(measured: Measured, names: Sequence[str]) -> Iterator[str]:
    """Yield lines with all metrics but those that the model was compiled with."""
    metrics = measured.metrics
    if metrics is None:
        return
    yield from _overall(metrics, names)
    yield ""
    yield from _per_class(metrics, names)
    if pairs := metrics.confused_pairs():
        yield ""
        yield "most confused"
        rows = [(names[true], names[guess], f"{number:,}") for number, true, guess in pairs[:_PAIRS]]
        yield from _columns([("true class", "predicted class", "examples"), *rows], text=2)


def warn_of(measured: Measured, record: Mapping[str, Any]) -> None:
    """Warn if the model is not better than always predicting the most frequent class, or if metrics are missing.

    Args:
        measured: of an evaluation.
        record: of it, from `measured_facts`.
    """
    if measured.metrics is None:
        warn(f"no metrics but those that the model was compiled with: {measured.reason}")
        return
    warn_if_not_better(record)


def warn_if_not_better(record: Mapping[str, Any]) -> None:
    """Warn if a model is not better than always predicting the most frequent class, as far as the rows show.

    Args:
        record: of `Metrics`.
    """
    if record["beats_majority"]:
        return
    low, high = record["accuracy_interval"]
    warn(
        f"the model is not shown to be better than always predicting '{_name(record['majority_class'])}', which "
        f"has accuracy {record['majority_accuracy']:.4f}: the 95 % interval of the model's is {low:.4f} to {high:.4f}"
    )


def headline(record: Mapping[str, Any]) -> str:
    """Return in a line what tells whether an accuracy is a good one; see `warn_if_not_better`."""
    low, high = record["accuracy_interval"]
    return (
        f"  95 % interval {low:.4f} to {high:.4f}, majority baseline {record['majority_accuracy']:.4f}, "
        f"macro F1 {record['macro_f1']:.4f}"
    )


def slice_facts(part: Slice, names: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of a slice as JSON values; all are null where its rows have the weight 0."""
    metrics = part.metrics
    low, high = metrics.accuracy_interval
    if not metrics.effective_rows:
        return {"value": part.value, "examples": metrics.rows, **dict.fromkeys(_OF_SLICE)}
    return {
        "value": part.value,
        "examples": metrics.rows,
        "accuracy": metrics.accuracy,
        "accuracy_interval": [low, high],
        "majority_class": names[metrics.majority_class],
        "majority_accuracy": metrics.majority_accuracy,
        **{name: metrics.measure(name) for name in _MEASURES_OF_SLICE},
    }


def slice_lines(slices: Sequence[Mapping[str, Any]], measured: Measured, column: object) -> Iterator[str]:
    """Yield lines with the slices that a column makes, the largest first, and how they differ from all rows."""
    if not slices or measured.metrics is None:
        return
    yield ""
    overall = measured.metrics.accuracy
    rows = [(f"by {column}", "accuracy", "95 % interval", "macro F1", "examples", "")]
    for each in slices[:_MOST_SLICES]:
        if each["accuracy"] is None:
            rows.append((each["value"], "-", "-", "-", f"{each['examples']:,}", ""))
            continue
        low, high = each["accuracy_interval"]
        verdict = "below all" if high < overall else "above all" if low > overall else ""
        figures = f"{each['accuracy']:.4f}", f"{low:.4f} to {high:.4f}", f"{each['macro_f1']:.4f}"
        rows.append((each["value"], *figures, f"{each['examples']:,}", verdict))
    yield from (line.rstrip() for line in _columns(rows, text=1))
    if (more := len(slices) - _MOST_SLICES) > 0:
        yield f"  {more:,} smaller parts are in --json"


def _overall(metrics: Metrics, names: Sequence[str]) -> Iterator[str]:
    low, high = metrics.accuracy_interval
    macro = metrics.macro_ranking
    yield f"  95 % interval of accuracy   {low:.4f} to {high:.4f}"
    yield (
        f"  majority baseline           {metrics.majority_accuracy:.4f} (always {_name(names[metrics.majority_class])})"
    )
    for name, value, error in (
        ("macro F1", metrics.macro_f1, 0.0),
        ("balanced accuracy", metrics.balanced_accuracy, 0.0),
        ("Matthews correlation", metrics.matthews, 0.0),
        ("log loss", metrics.log_loss, 0.0),
        ("expected calibration error", metrics.calibration.error, 0.0),
        ("macro ROC AUC", macro.roc_auc, macro.roc_auc_error),
        ("macro average precision", macro.average_precision, macro.average_precision_error),
    ):
        yield f"  {name:<26}  {_number(value)}" + (f" (within {short(error)})" if error >= 0.00005 else "")


def _per_class(metrics: Metrics, names: Sequence[str]) -> Iterator[str]:
    """Yield the table of the classes that occur, or of the worst of many."""
    shown = metrics.occurring.tolist()
    if more := max(0, len(shown) - _WORST) if len(shown) > _MOST_CLASSES else 0:
        shown = sorted(shown, key=lambda number: (metrics.f1[number], number))[:_WORST]
    areas = [each.roc_auc for each in metrics.rankings] or [None] * len(names)
    rows = [("class", "precision", "recall", "F1", "AUC", "examples")]
    for number in shown:
        figures = (metrics.precision[number], metrics.recall[number], metrics.f1[number], areas[number])
        rows.append((names[number], *map(_number, figures), f"{metrics.support[number]:,}"))
    yield from _columns(rows, text=1)
    if more:
        yield f"  the {_WORST} classes with the lowest F1; {more:,} more are in --json"


def _columns(rows: Sequence[Sequence[str]], *, text: int) -> Iterator[str]:
    """Yield rows as lines of aligned columns, of which the first `text` are names."""
    for line in aligned([[*map(_name, row[:text]), *row[text:]] for row in rows], text=text):
        yield f"  {line}"


def _name(name: str) -> str:
    shown = printable(name)
    return shown if len(shown) <= _NAME else shown[: _NAME - 1] + "…"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
