"""Render the report of a run as an HTML page: its history, and an evaluation of its model on the validation rows.

If the shards are missing, the evaluation is replaced by a notice that says why.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from shardtrain.corpus.options import Column
from shardtrain.errors import RunError, ShardsNotFoundError
from shardtrain.inference.run import Run
from shardtrain.report.calibration_page import calibration_section
from shardtrain.report.classes_page import classes_section
from shardtrain.report.confusions_page import confusions_section
from shardtrain.report.formatting import format_value
from shardtrain.report.markup import Markup, joined
from shardtrain.report.mistakes_page import mistakes_section
from shardtrain.report.page import Section, grid, key_value_table, notice, render_page, stack
from shardtrain.report.ranking_page import ranking_section
from shardtrain.report.result_page import recorded_warning, result_section, result_tiles, warnings
from shardtrain.report.run_analysis import RunEvaluation, evaluate_run
from shardtrain.report.slices_page import slices_section
from shardtrain.report.terms_page import terms_section
from shardtrain.report.training_page import engine_table, training_section
from shardtrain.runtime.quantities import size
from shardtrain.training.run_folder import HISTORY


def run_page(run: Run, shards: Path | None, *, scratch: Path, by: tuple[Path, Column] | None = None) -> str:
    """Render the report of a finished run.

    Args:
        run: the run.
        shards: folder of the shards whose validation rows are classified; None: the folder the run was trained on.
        scratch: folder for temporary files.
        by: labelled raw text and a column of it, for each of whose values its rows are measured.

    Raises:
        CorpusError: the raw text cannot be read, or has no such column.
        ShardsError: `shards` is missing, or the shards are damaged.
        ModelError: the shards were built with another vectorizer or have other classes.
        RunError: a file of the run is damaged.
    """
    epochs = read_history(run)
    recorded = run.config.get("shards")
    found, missing = None, "the run does not record where its shards are; name them with --shards"
    if shards is not None:
        found = evaluate_run(run, shards, scratch=scratch)
    elif isinstance(recorded, str):
        try:
            found = evaluate_run(run, Path(recorded), scratch=scratch)
        except ShardsNotFoundError as error:
            missing = f"{error.on_command_line}; if the shards were moved, name them with --shards"
    slices = None if by is None else slices_section(run, *by)
    names, about = run.description.class_names, run.description
    top = result_tiles(run.metrics, found, names, about.num_validation)
    if found is not None:
        top = joined(warnings(found, names, tested="test_examples" in run.metrics), top)
    else:
        top = joined(recorded_warning(run.metrics), top)
    sections = _sections(run, epochs, found, missing)
    if slices is not None:
        sections.insert(1 if found is None else 2, Section(name="slices", title="Slices", body=slices))
    return render_page("Run", run.path.name or run.path.resolve().name, _lead(run), top, sections)


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


def _sections(run: Run, epochs: Sequence[dict[str, float]], found: RunEvaluation | None, missing: str) -> list[Section]:
    names, best = run.description.class_names, run.metrics.get("best_epoch")
    training = Section(name="training", title="Training", body=training_section(epochs, best))
    settings = Section(name="settings", title="Configuration", body=_configuration(run, epochs))
    if found is None:
        note = notice(f"The evaluation on the validation rows is missing: {missing}.")
        return [Section(name="classes", title="Classes", body=note), training, settings]
    return [
        Section(name="result", title="Result", body=result_section(run.metrics, found, names)),
        Section(name="classes", title="Classes", body=classes_section(found.metrics, names)),
        Section(name="confusions", title="Confusions", body=confusions_section(found.metrics, names)),
        Section(name="mistakes", title="Most confident mistakes", body=mistakes_section(found, names)),
        Section(name="terms", title="Terms of the classes", body=terms_section(found.terms, names)),
        Section(name="curves", title="Ranking", body=ranking_section(found.metrics, found.curves, names)),
        Section(name="calibration", title="Calibration", body=calibration_section(found.metrics)),
        training,
        settings,
    ]


def _configuration(run: Run, epochs: Sequence[dict[str, float]]) -> Markup:
    about = {name: value for name, value in vars(run.description).items() if name != "class_names"}
    where = {"folder": run.config.get("shards", "not recorded")}
    versions = run.config.get("versions", {})
    return grid(
        stack(
            key_value_table("Options", _rows(run.config.get("options", {}))),
            key_value_table("Recorded results", _rows(_plain(run.metrics))),
        ),
        stack(
            key_value_table("Speed and memory", _engine(run.metrics)),
            key_value_table("Shards", _rows(where | about)),
            key_value_table("Versions", _rows(versions)),
            engine_table(epochs),
        ),
    )


def _engine(metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is known of the speed and the memory of the training."""
    known = [("epochs", f"{metrics['epochs']:,}")]
    if "fit_seconds" in metrics:
        known.append(("time", f"{metrics['fit_seconds']:,.1f} s"))
    if "examples_per_second" in metrics:
        known.append(("training examples per second", f"{metrics['examples_per_second']:,.0f}"))
    if "input_wait_fraction" in metrics:
        known.append(("wait for input", f"{metrics['input_wait_fraction']:.1%} of training step time"))
    if "peak_memory_bytes" in metrics:
        known.append(("peak memory", f"{size(metrics['peak_memory_bytes'])}, resident, with all libraries"))
    return known


def _plain(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out the metrics of whole splits, which the other sections show."""
    return {name: value for name, value in metrics.items() if not isinstance(value, dict)}


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(str(name).replace("_", " "), format_value(value) or "none") for name, value in values.items()]
