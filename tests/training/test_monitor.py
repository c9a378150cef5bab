"""Laws of the metrics of a training: they are those of an evaluation, and any can decide which epoch is kept."""

from __future__ import annotations

import csv
import json
import os
import signal
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from support.forked import COMMAND, Forking
from support.learnable import write_shards
from support.sampled import sampled
from support.training import fit

from shardtrain.cli.main import main
from shardtrain.errors import UsageError
from shardtrain.inference.evaluate import measure
from shardtrain.inference.run import Run, load_run
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.metrics.names import COMPILED, HIGHER_IS_BETTER, MEASURES
from shardtrain.models.options import MlpOptions
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import HISTORY
from shardtrain.training.tune import tune
from shardtrain.training.tune_options import TuneOptions

QUICK: dict[str, Any] = {
    "epochs": 6,
    "patience": 6,
    "batch_size": 32,
    "learning_rate": 0.03,
    "mlp": MlpOptions(units=8),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of seven classes whose labels are partly noise, so that metrics are best in different epochs."""
    folder = tmp_path_factory.mktemp("shards") / "s"
    return write_shards(folder, num_classes=7, noise=0.4, test_rows=300, rows=500, validation_rows=200)


@pytest.fixture(scope="module")
def shards(folder: Path) -> Shards:
    return open_shards(folder)


def history(run: Run) -> list[dict[str, float]]:
    with open(run.path / HISTORY, newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


class Monitored:
    """Runs by what is monitored and the engine, each trained when it is first asked for."""

    def __init__(self, shards: Shards, root: Path) -> None:
        self._shards, self._root = shards, root

    def __call__(self, monitor: str, engine: str) -> Run:
        out = self._root / f"{monitor} by {engine}"
        if not out.exists():
            fit(self._shards, FitOptions(engine=engine, monitor=monitor, **QUICK), out=out)
        return load_run(out)


@pytest.fixture(scope="module")
def monitored(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Monitored:
    return Monitored(shards, tmp_path_factory.mktemp("monitored"))


@pytest.mark.parametrize("engine", ["fused", "keras"])
def test_a_run_records_the_metrics_that_an_evaluation_gives(shards: Shards, monitored: Monitored, engine: str) -> None:
    run = monitored("calibration_error", engine)
    for split in ("validation", "test"):
        found = measure(run, shards, split=split)
        assert found.metrics is not None
        expected = json.loads(json.dumps(found.metrics.record(run.description.class_names)))
        recorded = run.metrics[split]
        assert recorded["confusions"] == expected["confusions"]
        for name in MEASURES:
            if name in recorded:
                assert recorded[name] == pytest.approx(expected[name], rel=1e-6), name
    assert run.metrics["validation"]["accuracy"] == pytest.approx(run.metrics["val_accuracy"])


@pytest.mark.parametrize(
    ("monitor", "engine"),
    sampled(
        product(["macro_f1", "accuracy", "calibration_error", "macro_roc_auc"], ["fused", "keras"]), (0, 2, 4, 5, 6)
    ),
)
def test_the_epoch_with_the_best_value_is_kept(monitored: Monitored, engine: str, monitor: str) -> None:
    run = monitored(monitor, engine)
    values = [epoch[f"val_{monitor}"] for epoch in history(run)]
    best = max(values) if HIGHER_IS_BETTER[monitor] else min(values)
    assert len(set(values)) > 1
    assert run.metrics["best_epoch"] == values.index(best) + 1
    assert run.metrics[f"val_{monitor}"] == best
    assert run.metrics["validation"][monitor] == pytest.approx(best, rel=1e-6)


@pytest.mark.parametrize("engine", sampled(["fused", "keras"]))
def test_training_stops_where_the_monitor_is_no_longer_better(shards: Shards, tmp_path: Path, engine: str) -> None:
    options = FitOptions(**{**QUICK, "engine": engine, "monitor": "macro_f1", "patience": 1, "epochs": 50})
    run = fit(shards, options, out=tmp_path / engine)
    values = [epoch["val_macro_f1"] for epoch in history(run)]
    assert values[-1] <= max(values[:-1])
    assert all(now > max(values[: number + 1]) for number, now in enumerate(values[1:-1]))


def test_every_name_is_a_metric_of_each_epoch(shards: Shards, tmp_path: Path) -> None:
    names = [name for name in MEASURES if name not in COMPILED]
    run = fit(shards, FitOptions(engine="fused", **{**QUICK, "epochs": 1}), out=tmp_path / "run", measures=names)
    (epoch,) = history(run)
    recorded = run.metrics["validation"]
    for name in names:
        known = recorded["top_accuracy"][name.split("_")[1]] if name.startswith("top_") else recorded[name]
        assert epoch[f"val_{name}"] == pytest.approx(known, rel=1e-6)


@pytest.mark.heavy
def test_a_killed_training_keeps_the_epoch_that_an_uninterrupted_one_keeps(
    forked: Forking, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["fit", str(folder), "--monitor", "macro_f1", "--epochs", "9", "--patience", "9", "--batch-size", "32"]
    command += ["--units", "8", "--checkpoint-every", "1epochs"]
    os.mkfifo(tmp_path / "said")
    process = forked.start(COMMAND, *command, "--out", tmp_path / "killed", stderr=tmp_path / "said", cwd=tmp_path)
    with open(tmp_path / "said") as lines:
        assert any(line.startswith("epoch 6:") for line in lines)
        os.kill(process, signal.SIGKILL)
        assert forked.wait() == -signal.SIGKILL
    for name in ("killed", "whole"):
        assert main([*command, "--out", str(tmp_path / name)]) == 0
    capsys.readouterr()
    one, other = (load_run(tmp_path / name) for name in ("killed", "whole"))
    for what in ("best_epoch", "val_macro_f1", "validation", "test"):
        assert one.metrics[what] == other.metrics[what]


def test_a_study_compares_by_any_metric(shards: Shards, tmp_path: Path) -> None:
    options = TuneOptions(space={"units": (1, 4, 16)}, metric="macro_f1", prune=False)
    study = tune(shards, FitOptions(**{**QUICK, "mlp": MlpOptions(), "epochs": 2}), options, out=tmp_path / "study")
    values = [trial.value for trial in study.trials]
    assert None not in values
    assert study.best.value == max(value for value in values if value is not None)
    assert load_run(study.run.path).metrics["validation"]["macro_f1"] == pytest.approx(study.best.value)


def test_what_cannot_be_monitored_is_refused(shards: Shards, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="monitor"):
        FitOptions(monitor="f2")
    two = open_shards(write_shards(tmp_path / "two", num_classes=2))
    with pytest.raises(UsageError, match="top_3_accuracy is for at least 4 classes, and the shards have 2"):
        fit(two, FitOptions(monitor="top_3_accuracy", **QUICK), out=tmp_path / "run")
    many = open_shards(write_shards(tmp_path / "many", num_classes=1001))
    with pytest.raises(UsageError, match="macro_roc_auc is for at most 1,000 classes, and the shards have 1,001"):
        fit(many, FitOptions(monitor="macro_roc_auc", **QUICK), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
