"""Files of runs whose content was changed and whose seals fit again: an error of ours, or a right result.

Each file is changed at every place, in every way of `support.mutations`. Then it is read and, where it is not refused,
used: a run classifies texts and is reported, a checkpoint is trained on from. `make soak` tries all changes.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from support import resealing
from support.mutations import mutations
from support.outcomes import Changed, Use, of_json, unforeseen
from support.topics import TEXTS, TOPICS, write_corpus

from shardtrain.cli.main import main
from shardtrain.inference.run import load_run
from shardtrain.inference.run_differences import data_differences, option_differences
from shardtrain.inference.run_list import list_runs
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.report.run_page import run_page
from shardtrain.runtime.progress import QUIET, verbosity
from shardtrain.training.checkpoint import packed, read_checkpoint, write_checkpoint
from shardtrain.training.fit import fit
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import CHECKPOINTS, CONFIG, METRICS

pytestmark = pytest.mark.usefixtures("quiet")
OPTIONS = FitOptions(
    engine="keras", model="mlp", mlp=MlpOptions(units=4, layers=1), epochs=2, batch_size=32, learning_rate=0.02
)
SPREAD = 1999  # of so many changes one is tried in `make test`


@pytest.fixture
def quiet() -> Iterator[None]:
    with verbosity(QUIET):
        yield


class Stop(keras.callbacks.Callback):
    """Presses Ctrl-C in the second epoch, if it is armed."""

    armed = False

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.armed and self.model.optimizer.iterations > 9:
            os.kill(os.getpid(), signal.SIGINT)


def train(shards: Path, out: Path, *, resume: bool) -> None:
    with open_shards(shards) as opened:
        fit(opened, OPTIONS, out=out, resume=resume, callbacks=[Stop()])


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    build(write_corpus(folder / "corpus", tuple(TOPICS)), folder / "out", BuildOptions(workers=1, max_features=30))
    return folder / "out"


@pytest.fixture(scope="module")
def finished(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(shards, folder, resume=False)
    return folder


@pytest.fixture(scope="module")
def interrupted(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Stop, "armed", True)
        with pytest.raises(KeyboardInterrupt):
            train(shards, folder, resume=False)
    *older, newest = sorted((folder / CHECKPOINTS).iterdir())
    for path in older:  # or they would be used in place of one that is refused
        path.unlink()
    newest.rename(folder / CHECKPOINT)
    return folder


CHECKPOINT = f"{CHECKPOINTS}/checkpoint-00000001"


def shows(scratch: Path) -> Use:
    def show(folder: Path) -> None:
        run = load_run(folder)
        assert run._repr_html_()
        assert run.labels
        run_page(run, None, scratch=scratch)

    return show


def classifies(folder: Path) -> None:
    run = load_run(folder)
    assert run.predict(TEXTS).probabilities.shape == (len(TEXTS), run.description.num_classes)
    _ = run.reading


def lists(folder: Path) -> None:
    assert main(["runs", str(folder), "--sort", "macro_f1"]) == 0
    for run in list_runs(folder).runs:
        assert run.state in ("finished", "damaged")
    assert option_differences([load_run(folder)] * 2) == {}
    assert data_differences([load_run(folder)] * 2) == {}


def resumes(shards: Path) -> Use:
    def resume(folder: Path) -> None:
        train(shards, folder, resume=True)
        load_run(folder)

    return resume


def of_state(folder: str) -> Changed:
    return Changed(folder, lambda path: mutations(read_checkpoint(path)), write_state, can_be_kept)


def can_be_kept(state: Any) -> bool:
    try:
        packed(state)
    except TypeError:  # an array of texts
        return False
    return True


def write_state(path: Path, state: Any) -> None:
    write_checkpoint(path, packed(state))


def unforeseen_in(
    name: str, shards: Path, finished: Path, interrupted: Path, scratch: Path, *, every: int
) -> list[str]:
    if name == "a run":
        changes = [of_json(CONFIG, resealing.write_config), of_json(METRICS, resealing.write_metrics)]
        return unforeseen(finished, changes, [shows(scratch), classifies, lists, resumes(shards)], scratch, every=every)
    header = Changed(CHECKPOINT, lambda path: mutations(resealing.read_header(path)), resealing.write_header)
    changes = [header, of_state(CHECKPOINT), of_json(CONFIG, resealing.write_plain)]
    return unforeseen(interrupted, changes, [resumes(shards)], scratch, every=every)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["a run", "an interrupted training"])
def test_a_resealed_file_of_a_run_is_refused_or_works(
    name: str, shards: Path, finished: Path, interrupted: Path, tmp_path: Path
) -> None:
    assert unforeseen_in(name, shards, finished, interrupted, tmp_path, every=SPREAD) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a run", "an interrupted training"])
def test_every_resealed_file_of_a_run_is_refused_or_works(
    name: str, shards: Path, finished: Path, interrupted: Path, tmp_path: Path
) -> None:
    assert unforeseen_in(name, shards, finished, interrupted, tmp_path, every=1) == []
