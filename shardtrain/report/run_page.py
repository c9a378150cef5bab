"""The report of a run as an HTML page: its history from its own files, and what its model makes of the validation rows.

Where the shards are gone the rest is shown, and why that is missing.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardtrain.errors import RunError, ShardsNotFoundError
from shardtrain.report import evaluation_page, svg
from shardtrain.report.formatting import format_value
from shardtrain.report.markup import Markup
from shardtrain.report.page import Section, charts, facts, figure, group, legend, notice, page, settings, table
from shardtrain.training.run_folder import HISTORY, Run


def run_page(run: Run, shards: Path | None, *, scratch: Path) -> str:
    """The report of a finished run.

    Args:
        run: the run.
        shards: the folder of shards whose validation rows are classified; None: where the run found them.
        scratch: a folder of a disk, for files that are gone afterwards.

    Raises:
        ShardsError: shards that were named are not there, or they are damaged.
        ModelError: they were made by another vectorizer, or have other classes.
        RunError: the run's files are damaged.
    """
    epochs = read_history(run)
    recorded = run.config.get("shards")
    found, missing = None, "the run does not say where its shards are; name them with --shards"
    if shards is not None:
        found = evaluation_page.evaluate_run(run, shards, scratch=scratch)
    elif isinstance(recorded, str):
        try:
            found = evaluation_page.evaluate_run(run, Path(recorded), scratch=scratch)
        except ShardsNotFoundError as error:
            missing = f"{error}; if the shards were moved, name them with --shards"
    return page(
        "Run", run.path.name or run.path.resolve().name, _lead(run), _facts(run), _sections(run, epochs, found, missing)
    )


def read_history(run: Run) -> list[dict[str, float]]:
    """The metrics of each epoch, in order.

    Raises:
        RunError: the file is missing or damaged.
    """
    path = run.path / HISTORY
    try:
        with open(path, newline="", encoding="utf-8") as file:
            epochs = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
        if not epochs or not all(math.isfinite(value) for epoch in epochs for value in epoch.values()):
            raise ValueError("no epoch, or numbers that are not finite")
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"'{path}' cannot be read ({error}); restore it from a copy or train again") from error
    return epochs


def _lead(run: Run) -> str:
    about = run.description
    made = {"ngram": "n-gram", "sequence": "sequence", "dense": "dense"}[about.kind]
    return (
        f"The model {run.config.get('model', '')} on {about.num_train:,} {made} rows of {about.num_classes:,} classes, "
        f"measured on {about.num_validation:,} validation rows."
    )


def _facts(run: Run) -> Markup:
    metrics = run.metrics
    each = [
        ("validation accuracy", f"{metrics['val_accuracy']:.2%}", ""),
        ("validation loss", f"{metrics['val_loss']:.4f}", ""),
        (
            "epochs",
            f"{metrics['epochs']:,}",
            f"the best was {metrics['best_epoch']:,}" if "best_epoch" in metrics else "",
        ),
    ]
    if "examples_per_second" in metrics:
        each.append(("throughput", f"{metrics['examples_per_second']:,.0f}", "training examples a second"))
    if "input_wait_fraction" in metrics:
        each.append(("input wait", f"{metrics['input_wait_fraction']:.1%}", "of the time of training steps"))
    if "peak_memory_bytes" in metrics:
        each.append(("peak memory", f"{metrics['peak_memory_bytes'] / 1e6:,.0f} MB", "resident, TensorFlow included"))
    return facts(*each)


def _sections(
    run: Run, epochs: Sequence[dict[str, float]], found: evaluation_page.RunEvaluation | None, missing: str
) -> list[Section]:
    sections = [Section(name="training", title="Training", body=_training(run, epochs))]
    if found is None:
        told = notice(f"What the model makes of the validation rows is not shown: {missing}.")
        sections.append(Section(name="classes", title="Classes", body=told))
    else:
        sections += evaluation_page.sections(found, run.description.class_names)
    return [*sections, Section(name="settings", title="Configuration", body=_configuration(run))]


def _training(run: Run, epochs: Sequence[dict[str, float]]) -> Markup:
    best = run.metrics.get("best_epoch")
    names = list(dict.fromkeys(name for epoch in epochs for name in epoch))
    rows = [tuple(_number(epoch[name]) if name in epoch else "" for name in names) for epoch in epochs]
    heads = [name.replace("_", " ") for name in names]
    every = table(heads, rows, caption="Every epoch", text=0, tall=len(rows) > 9)
    drawn: list[Markup | None] = [
        _curve(epochs, name, title, best) for name, title in (("loss", "Loss"), ("accuracy", "Accuracy"))
    ]
    return charts(*drawn, every)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:.4f}" if abs(value) >= 1e-3 else f"{value:.2e}"


def _curve(epochs: Sequence[dict[str, float]], name: str, title: str, best: object) -> Markup | None:
    """A metric over the epochs, in training and on validation rows."""
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
    told = f"From {_number(last[0][1])} to {_number(last[-1][1])} on {curves[-1].name} rows in {len(last):,} epochs"
    if marked:
        told += f"; the weights of epoch {best} are kept (dotted)"
    chart = svg.lines(
        curves,
        alt=f"{title} over epochs. {told}.",
        x_label="epoch",
        y_label=name,
        y_range=bounds,
        marked=marked,
        y_share=name == "accuracy",
    )
    return figure(title, f"{told}.", chart, legend=legend(*(curve.name for curve in curves)))


def _configuration(run: Run) -> Markup:
    about = {name: value for name, value in vars(run.description).items() if name != "class_names"}
    where = {"folder": run.config.get("shards", "not recorded")}
    return charts(
        settings("Options", _rows(run.config.get("options", {}))),
        group(settings("Shards", _rows(where | about)), settings("Versions", _rows(run.config.get("versions", {})))),
        settings("Results", _rows(run.metrics)),
    )


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name).replace("_", " "), format_value(value)) for name, value in values.items()]
