"""Render the report of a run as an HTML page: its history, and an evaluation of its model on the validation rows.

If the shards are missing, the evaluation is replaced by a notice that says why.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardtrain.errors import RunError, ShardsNotFoundError
from shardtrain.inference.run import Run
from shardtrain.report import evaluation_page, svg
from shardtrain.report.formatting import format_value
from shardtrain.report.markup import Markup
from shardtrain.report.page import (
    Section,
    figure,
    grid,
    key_value_table,
    legend,
    notice,
    render_page,
    stack,
    table,
    tiles,
)
from shardtrain.runtime.progress import short
from shardtrain.runtime.quantities import size
from shardtrain.training.run_folder import HISTORY


def run_page(run: Run, shards: Path | None, *, scratch: Path) -> str:
    """Render the report of a finished run.

    Args:
        run: the run.
        shards: folder of the shards whose validation rows are classified; None: the folder the run was trained on.
        scratch: folder for temporary files.

    Raises:
        ShardsError: `shards` is missing, or the shards are damaged.
        ModelError: the shards were built with another vectorizer or have other classes.
        RunError: a file of the run is damaged.
    """
    epochs = read_history(run)
    recorded = run.config.get("shards")
    found, missing = None, "the run does not record where its shards are; name them with --shards"
    if shards is not None:
        found = evaluation_page.evaluate_run(run, shards, scratch=scratch)
    elif isinstance(recorded, str):
        try:
            found = evaluation_page.evaluate_run(run, Path(recorded), scratch=scratch)
        except ShardsNotFoundError as error:
            missing = f"{error.on_command_line}; if the shards were moved, name them with --shards"
    return render_page(
        "Run", run.path.name or run.path.resolve().name, _lead(run), _tiles(run), _sections(run, epochs, found, missing)
    )


def read_history(run: Run) -> list[dict[str, float]]:
    """Read the metrics of each epoch, in order.

    Raises:
        RunError: the file is missing or damaged.
    """
    path = run.path / HISTORY
    try:
        with open(path, newline="", encoding="utf-8") as file:
            epochs = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        if not epochs or not all(math.isfinite(value) for epoch in epochs for value in epoch.values()):
            raise ValueError("it has no epochs, or values that are not finite")
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"'{path}' cannot be read ({error}); restore it from a copy or train again") from error
    return epochs


def _lead(run: Run) -> str:
    about, tested = run.description, run.metrics.get("test_examples")
    kind = {"ngram": "n-gram", "sequence": "sequence", "dense": "dense"}[about.kind]
    return (
        f"Model {run.config.get('model', '')}, trained on {about.num_train:,} {kind} rows of {about.num_classes:,} "
        f"classes, validated on {about.num_validation:,} rows"
        + (f"; the kept weights were tested once, on {tested:,} rows." if tested else ".")
    )


def _tiles(run: Run) -> Markup:
    metrics = run.metrics
    each = [
        ("validation accuracy", f"{metrics['val_accuracy']:.2%}", ""),
        ("validation loss", short(metrics["val_loss"]), ""),
        *_test_tiles(metrics),
        (
            "epochs",
            f"{metrics['epochs']:,}",
            f"best epoch: {metrics['best_epoch']:,}" if "best_epoch" in metrics else "",
        ),
    ]
    if "examples_per_second" in metrics:
        each.append(("throughput", f"{metrics['examples_per_second']:,.0f}", "training examples per second"))
    if "input_wait_fraction" in metrics:
        each.append(("input wait", f"{metrics['input_wait_fraction']:.1%}", "of training step time"))
    if "peak_memory_bytes" in metrics:
        each.append(("peak memory", size(metrics["peak_memory_bytes"]), "resident, with all libraries"))
    return tiles(*each)


def _test_tiles(metrics: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Return the tiles of the test split, which no decision of the training used; none if there is none."""
    if "test_examples" not in metrics:
        return []
    accuracy, loss = metrics.get("test_accuracy"), metrics.get("test_loss")
    return [
        ("test accuracy", "not finite" if accuracy is None else f"{accuracy:.2%}", "on rows that chose nothing"),
        ("test loss", "not finite" if loss is None else f"{loss:.4f}", ""),
    ]


def _sections(
    run: Run, epochs: Sequence[dict[str, float]], found: evaluation_page.RunEvaluation | None, missing: str
) -> list[Section]:
    sections = [Section(name="training", title="Training", body=_training(run, epochs))]
    if found is None:
        note = notice(f"The evaluation on the validation rows is missing: {missing}.")
        sections.append(Section(name="classes", title="Classes", body=note))
    else:
        sections += evaluation_page.sections(found, run.description.class_names)
    return [*sections, Section(name="settings", title="Configuration", body=_configuration(run))]


def _training(run: Run, epochs: Sequence[dict[str, float]]) -> Markup:
    best = run.metrics.get("best_epoch")
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch))
    rows = [tuple(_number(epoch[name]) if name in epoch else "" for name in names) for epoch in epochs]
    heads = [name.replace("_", " ") for name in names]
    per_epoch = table(heads, rows, caption="Metrics per epoch", text=0, tall=len(rows) > 9)
    drawn: list[Markup | None] = [
        _curve(epochs, name, title, best) for name, title in (("loss", "Loss"), ("accuracy", "Accuracy"))
    ]
    return grid(*drawn, per_epoch)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.2e}"


def _curve(epochs: Sequence[dict[str, float]], name: str, title: str, best: object) -> Markup | None:
    """Draw a metric over the epochs for training and validation rows; None if it was not recorded."""
    curves = []
    for key, series in ((name, "training"), (f"val_{name}", "validation")):
        points = tuple((epoch["epoch"], epoch[key]) for epoch in epochs if key in epoch and "epoch" in epoch)
        hints = tuple(f"epoch {x:g}, {series}: {_number(y)}" for x, y in points)
        if points:
            curves.append(svg.Line(name=series, points=points, hints=hints))
    if not curves:
        return None
    values = [y for curve in curves for _, y in curve.points]
    low, high = min(values), max(values)
    pad = 0.08 * (high - low) or max(abs(high), 1.0) * 0.05
    bounds = (max(0.0, low - pad), high + pad) if name == "loss" else (max(0.0, low - pad), min(1.0, high + pad))
    last = curves[-1].points
    marked = (float(best), f"best epoch: {best}") if isinstance(best, int) else None
    note = f"From {_number(last[0][1])} to {_number(last[-1][1])} on {curves[-1].name} rows over {len(last):,} epochs"
    if marked:
        note += f"; the weights of epoch {best} were kept (dotted line)"
    chart = svg.lines(
        curves,
        alt=f"{title} over epochs. {note}.",
        x_label="epoch",
        y_label=name,
        y_range=bounds,
        marked=marked,
        y_share=name == "accuracy",
    )
    return figure(title, f"{note}.", chart, legend=legend(*(curve.name for curve in curves)))


def _configuration(run: Run) -> Markup:
    about = {name: value for name, value in vars(run.description).items() if name != "class_names"}
    where = {"folder": run.config.get("shards", "not recorded")}
    versions = run.config.get("versions", {})
    return grid(
        key_value_table("Options", _rows(run.config.get("options", {}))),
        stack(
            key_value_table("Shards", _rows(where | about)),
            key_value_table("Versions", _rows(versions)),
        ),
        key_value_table("Results", _rows(run.metrics)),
    )


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name).replace("_", " "), format_value(value)) for name, value in values.items()]
