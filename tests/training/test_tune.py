"""Laws of `tune`: every combination once, the best run kept, and a study that was killed ends as one that was not."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from support.forked import COMMAND, Forking
from support.learnable import write_shards

from shardtrain.cli.main import main
from shardtrain.errors import DivergedError, MissingExtraError, RunError, RunExistsError, UsageError
from shardtrain.inference.run import load_run
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.training.options import FitOptions
from shardtrain.training.tune import BEST, STORAGE, TRIALS, StudyResult, best_of, tune
from shardtrain.training.tune_options import Range, TuneOptions, check_space, grid

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 64, "mlp": MlpOptions(units=4)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shards(tmp_path_factory.mktemp("shards") / "ngram", noise=0.3)


@pytest.fixture(scope="module")
def shards(folder: Path) -> Shards:
    return open_shards(folder)


def results(trials: Any) -> list[dict[str, Any]]:
    """What has to be equal of the trials of equal studies: all but the time."""
    each = (trial if isinstance(trial, dict) else vars(trial) for trial in trials)
    return [{name: value for name, value in trial.items() if name != "seconds"} for trial in each]


@pytest.mark.slow
def test_a_killed_study_ends_as_one_that_was_not_killed(
    forked: Forking, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["tune", str(folder), "--units", "4", "8", "12", "--batch-size", "64", "--epochs", "4"]
    command += ["--checkpoint-every", "1epochs", "--json"]
    os.mkfifo(tmp_path / "said")
    process = forked.start(COMMAND, *command, "--out", tmp_path / "killed", stderr=tmp_path / "said", cwd=tmp_path)
    with open(tmp_path / "said") as lines:
        assert any(line.startswith("trial 2:") for line in lines)
        assert any(line.startswith("epoch 3:") for line in lines)
        os.kill(process, signal.SIGKILL)
        assert forked.wait() == -signal.SIGKILL
    assert main([*command, "--out", str(tmp_path / "killed")]) == 0
    resumed = capsys.readouterr()
    assert "trial 1:" not in resumed.err
    assert f"resuming the interrupted training in '{tmp_path / 'killed' / TRIALS / '001'}'" in resumed.err
    assert main([*command, "--out", str(tmp_path / "whole")]) == 0
    ours, theirs = json.loads(resumed.out), json.loads(capsys.readouterr().out)
    assert results(ours["trials"]) == results(theirs["trials"])
    assert [trial["values"] for trial in ours["trials"]] == [{"units": n, "batch_size": 64} for n in (4, 8, 12)]
    one, other = (load_run(tmp_path / name / BEST) for name in ("killed", "whole"))
    assert one.metrics["val_loss"] == other.metrics["val_loss"] == ours["best"]["loss"]


def test_the_best_run_is_an_ordinary_one_and_the_only_one_kept(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a%b?c d"  # no character of a path may mean something to the storage
    command = ["tune", str(folder), "--layers", "1", "2", "--units", "4", "16", "--epochs", "3", "--out", str(out)]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert [line.split()[:3] for line in said.splitlines()[1:4]] == [["1", "1", "-"], ["2", "2", "4"], ["3", "2", "16"]]
    assert "validation accuracy by layers (down) and units (across)" in said
    assert main([*command, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    best = max(facts["trials"], key=lambda trial: (trial["accuracy"], -trial["loss"]))
    assert best == facts["best"]
    assert [path.name for path in (out / TRIALS).iterdir()] == [f"{best['number']:03}"]
    assert main(["evaluate", facts["run"], str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["accuracy"] == pytest.approx(best["accuracy"], rel=1e-6)


@pytest.mark.slow
def test_a_study_with_more_trials_is_the_one_that_had_them_from_the_start(shards: Shards, tmp_path: Path) -> None:
    space = {"units": Range(2, 32), "learning_rate": Range(1e-3, 1e-1), "dropout": (0.0, 0.2)}

    def tuned(name: str, trials: int) -> StudyResult:
        options = TuneOptions(space=space, sampler="tpe", trials=trials, metric="loss", keep_all=True)
        return tune(shards, FitOptions(**QUICK), options, out=tmp_path / name)

    tuned("in two", 1)
    one, other = tuned("in two", 3), tuned("at once", 3)
    assert results(one.trials) == results(other.trials)
    assert one.best == best_of(one.trials, "loss")
    assert one.best.loss == min(trial.loss for trial in one.trials if trial.loss is not None)
    assert sorted(path.name for path in (tmp_path / "at once" / TRIALS).iterdir()) == ["000", "001", "002"]
    for trial in one.trials:
        assert 2 <= trial.values["units"] <= 32
        assert 1e-3 <= trial.values["learning_rate"] <= 1e-1


@pytest.mark.slow
def test_a_training_worse_than_the_others_is_ended_and_one_that_diverges_ends_nothing(
    shards: Shards, tmp_path: Path
) -> None:
    options = TuneOptions(space={"learning_rate": (1e38, 0.02, 0.03, 0.04, 0.05, 0.06, 1e-7)})
    base = FitOptions(**{**QUICK, "epochs": 5, "patience": 9})
    tuned = tune(shards, base, options, out=tmp_path / "study")
    states = [trial.state for trial in tuned.trials]
    assert (states[0], tuned.trials[0].loss) == ("diverged", None)
    assert (states[-1], tuned.trials[-1].epochs) == ("pruned", 3)
    assert [trial.epochs for trial in tuned.trials if trial.state == "complete"] == [5] * states.count("complete")
    assert tuned.best.state == "complete"
    with pytest.raises(DivergedError, match="all 1 trainings diverged"):
        tune(shards, base, TuneOptions(space={"learning_rate": (1e38,)}), out=tmp_path / "none")


def test_a_grid_has_every_combination_once_and_an_output_layer_alone_has_no_units() -> None:
    space = {"layers": (1, 2), "units": (8, 16), "dropout": (0.1, 0.3)}
    assert grid(space, "mlp") == [
        {"layers": 1, "dropout": 0.1},
        {"layers": 1, "dropout": 0.3},
        *({"layers": 2, "units": units, "dropout": dropout} for units in (8, 16) for dropout in (0.1, 0.3)),
    ]


def test_other_studies_and_folders_are_refused_and_overwrite_replaces(shards: Shards, tmp_path: Path) -> None:
    out, base = tmp_path / "study", FitOptions(**{**QUICK, "epochs": 1})
    tune(shards, base, TuneOptions(space={"units": (4,)}), out=out)
    other = TuneOptions(space={"units": (8,)})
    with pytest.raises(
        RunExistsError, match=r"holds a study that was started differently: units was 4, it is 8 now; .* overwrite=True"
    ):
        tune(shards, base, other, out=out)
    with pytest.raises(RunExistsError, match="is not the folder of a study"):
        tune(shards, base, other, out=out / BEST)
    assert [trial.values for trial in tune(shards, base, other, out=out, overwrite=True).trials] == [{"units": 8}]
    (out / STORAGE).write_bytes(b"no database" * 100)
    with pytest.raises(RunError, match=r"study\.db' is damaged"):
        tune(shards, base, other, out=out)


WRONG = {
    "a range in a grid": (["--units", "8:64"], "a grid needs a list of values"),
    "an empty range": (["--units", "64:8", "--sampler", "tpe"], "is empty"),
    "a range among values": (["--units", "8:64", "3", "--sampler", "tpe"], "mixes values and a range"),
    "a value twice": (["--units", "8", "8"], "--units names a value twice"),
    "a value out of its range": (["--dropout", "0.1", "1.5"], "dropout is 1.5"),
    "a size of another model": (["--filters", "8"], "--filters is not a size of the model 'mlp'"),
    "nothing to try": (["--model", "linear"], "nothing to try for the model linear"),
}


@pytest.mark.parametrize(("given", "said"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_tried_is_refused_before_anything_is_made(
    given: list[str], said: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["tune", str(folder), "--out", str(tmp_path / "study"), *given]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


def test_without_optuna_it_says_what_to_install(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)  # as Python finds no such package
    with pytest.raises(MissingExtraError, match=r"pip install 'shardtrain\[tune\]'"):
        tune(shards, FitOptions(**QUICK), TuneOptions(space={"units": (4,)}), out=tmp_path / "study")


def test_sizes_and_numbers_that_would_decide_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match="trials is 0"):
        TuneOptions(space={}, trials=0)
    with pytest.raises(UsageError, match="embedding_dim is that of the vectors"):
        check_space(FitOptions(embeddings=Path("x.vec")), TuneOptions(space={"embedding_dim": (8,)}), "sepcnn")
