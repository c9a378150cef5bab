"""Laws of lists of runs: what the files say, whatever their state, in any order, from JSON alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.learnable import write_shards
from support.topics import write_corpus
from support.training import fit

from shardtrain.cli.main import main
from shardtrain.errors import RunNotFoundError
from shardtrain.inference.options import RUN_ORDERS
from shardtrain.inference.run_list import list_runs
from shardtrain.loader.shards import open_shards
from shardtrain.runtime.schema import canonical_checksum
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import METRICS, RunFolder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("listed")
    with open_shards(write_shards(root / "shards", test_rows=50, noise=0.3)) as shards:
        for number, epochs in ((2, 1), (10, 3), (1, 2)):
            fit(shards, FitOptions(model="linear", epochs=epochs), out=root / "runs" / f"linear-{number}")
    return root


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """Three finished runs, an unfinished and a damaged one, and folders that are no runs."""
    folder = tmp_path / "runs"
    shutil.copytree(made / "runs", folder)
    for name in ("stopped", "damaged"):
        shutil.copytree(folder / "linear-1", folder / name)
    (folder / "stopped" / METRICS).unlink()
    (folder / "damaged" / METRICS).write_text((folder / "damaged" / METRICS).read_text().replace("0.", "1."))
    (folder / "empty").mkdir()
    (folder / "model of others").mkdir()
    (folder / "model of others" / "config.json").write_text('{"architectures": ["Bert"]}')
    (folder / "notes.txt").write_text("notes")
    return folder


def test_every_run_is_listed_with_its_state_and_nothing_else(runs: Path) -> None:
    found = {run.path.name: run for run in list_runs(runs).runs}
    assert list(found) == ["damaged", "linear-1", "linear-2", "linear-10", "stopped"]
    assert [found[name].state for name in ("damaged", "linear-1", "stopped")] == ["damaged", "finished", "unfinished"]
    assert "its checksum differs" in found["damaged"].note
    assert "--resume" in found["stopped"].note
    record = RunFolder(runs / "linear-10").read()
    ours = found["linear-10"]
    assert (ours.accuracy, ours.loss) == (record.metrics["val_accuracy"], record.metrics["val_loss"])
    assert (ours.test_accuracy, ours.epochs) == (record.metrics["test_accuracy"], 3)
    assert (ours.examples, ours.features, ours.classes) == (300, 40, 3)
    assert (ours.model, ours.engine) == ("linear", "fused")
    assert ours.measures["macro_f1"] == record.metrics["validation"]["macro_f1"]
    assert ours.measures["top_2_accuracy"] == record.metrics["validation"]["top_accuracy"]["2"]
    assert found["stopped"].accuracy is None


@pytest.mark.parametrize("order", RUN_ORDERS)
def test_the_best_comes_first_and_what_has_no_such_figure_last(order: str, runs: Path) -> None:
    values = [run.value(order) for run in list_runs(runs, sort=order).runs]
    known = [value for value in values if value is not None]
    assert values == [*known, *[None] * (len(values) - len(known))]
    lowest_first = order in ("loss", "log_loss", "calibration_error", "test_loss", "epochs", "time")
    assert known == sorted(known, reverse=not lowest_first)
    assert len(known) >= (0 if order in ("top_3_accuracy", "top_4_accuracy", "top_5_accuracy") else 3)


def test_a_run_of_an_older_version_has_accuracy_and_loss(runs: Path) -> None:
    path = runs / "linear-1" / METRICS
    record = {
        name: value for name, value in json.loads(path.read_text()).items() if name not in ("checksum", "validation")
    }
    path.write_text(json.dumps({**record, "checksum": canonical_checksum(record)}))
    found = list_runs(runs, sort="macro_f1").runs
    assert {run.path.name for run in found[:2]} == {"linear-2", "linear-10"}
    (older,) = [run for run in found if run.path.name == "linear-1"]
    assert older.measures == {"accuracy": older.accuracy, "loss": older.loss}


def test_of_a_study_the_trials_are_listed_and_a_study_among_runs_is_named(runs: Path, capsys) -> None:
    study = runs / "tune"
    (study / "trials").mkdir(parents=True)
    (study / "study.json").write_text("{}")
    shutil.copytree(runs / "linear-1", study / "trials" / "000")
    (study / "best").symlink_to("trials/000")
    assert [run.path for run in list_runs(study).runs] == [study / "trials" / "000"]
    assert list_runs(runs).studies == (study,)
    assert main(["runs", str(runs)]) == 0
    assert f"'{study}' is a study; `python -m shardtrain runs {study}` lists its trials" in capsys.readouterr().out


def test_a_run_itself_and_a_folder_without_runs(runs: Path, tmp_path: Path, capsys) -> None:
    assert [run.path for run in list_runs(runs / "linear-2").runs] == [runs / "linear-2"]
    (tmp_path / "none").mkdir()
    assert main(["runs", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out.startswith(f"no runs in '{tmp_path / 'none'}'")
    for missing in (tmp_path / "nowhere", runs / "notes.txt"):
        with pytest.raises(RunNotFoundError, match="name the folder of your runs"):
            list_runs(missing)
    with pytest.raises(ValueError, match="choose one of accuracy, loss"):
        list_runs(runs, sort="f1")


def test_the_command_shows_what_json_has(runs: Path, capsys) -> None:
    assert main(["runs", str(runs), "--sort", "loss", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(["runs", str(runs), "--sort", "loss"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split()[:4] == ["run", "model", "engine", "data"]
    assert "macro F1" in head
    shown = [run for run in facts["runs"] if run["state"] != "damaged"]
    for line, run in zip(lines, shown, strict=False):
        assert line.startswith(Path(run["path"]).name)
        assert run["accuracy"] is None or f"{run['accuracy']:.4f}" in line
    assert lines[5].startswith("stopped is unfinished; resume it with")
    assert lines[4].startswith("damaged cannot be read: ")
    with pytest.raises(SystemExit, match="2"):
        main(["runs", str(runs), "--sort", "f1"])
    assert "choose one of accuracy, loss, " in capsys.readouterr().err
    assert main(["runs", str(runs), "--sort", "matthews"]) == 0
    head, first, *_ = capsys.readouterr().out.splitlines()
    assert "  matthews  " in head
    assert f"{max(run['measures'].get('matthews', 0) for run in facts['runs']):.4f}" in first


def test_the_data_are_the_shards_or_where_these_are_in_the_run_their_corpus(made: Path, runs: Path, capsys) -> None:
    def shown() -> dict[str, str]:
        assert main(["runs", str(runs)]) == 0
        return {line.split()[0]: line.split()[3] for line in capsys.readouterr().out.splitlines()[1:4]}

    assert shown()["linear-2"] == "shards"
    corpus = (write_corpus(made / "topics", ("cooking", "chess")) / "train.csv").rename(made / "reviews.csv")
    assert main(["train", str(corpus), "--out", str(runs / "a"), "--epochs", "1"]) == 0
    capsys.readouterr()
    assert shown() == {"a": "reviews.csv", "linear-1": "shards", "linear-2": "shards"}


def test_a_run_that_is_named_without_its_folder_is_shown_with_it(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs.parent)
    assert main(["predict", "linear-2", "a text"]) == 1
    assert "'linear-2' does not exist; did you mean 'runs/linear-2'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("named", "meant"),
    [
        ("linear-22", "runs/linear-2"),
        ("runs/liner-2", "runs/linear-2"),
        ("runs/linear", "runs/linear-"),
        ("else/linear-2", "runs/linear-2"),
        ("damagd", "runs/damaged"),
    ],
)
@pytest.mark.parametrize("there", [False, True], ids=["missing", "another folder"])
def test_a_run_is_suggested_for_a_name_like_its_own(
    named: str, meant: str, there: bool, runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs.parent)
    if there:
        Path(named).mkdir(parents=True)
    for words in (["predict", named, "a text"], ["evaluate", named, "data"], ["export", named]):
        assert main(words) == 1
        assert f"; did you mean '{meant}" in capsys.readouterr().err


def test_what_is_no_run_is_never_suggested(
    runs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(runs.parent)
    for named in ("runs/stoped", "runs/emty", "runs/model of other", "runs/notes"):
        assert main(["predict", named, "a text"]) == 1
        assert "did you mean" not in capsys.readouterr().err


def test_shards_are_suggested_for_a_name_like_their_own(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(made)
    for words in (["fit", "shard"], ["inspect", "shrads"], ["verify", "my-shards"]):
        assert main(words) == 1
        assert f"'{words[1]}' does not exist; did you mean 'shards'?" in capsys.readouterr().err


def test_a_list_loads_neither_numpy_nor_anything_heavier(runs: Path) -> None:
    script = (
        f"import sys\nfrom shardtrain.cli.main import main\nassert main(['runs', {str(runs)!r}]) == 0\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not loaded & {"tensorflow", "keras", "h5py", "numba", "scipy", "numpy"}
