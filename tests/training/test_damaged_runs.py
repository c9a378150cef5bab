"""An interrupted run of which a file was lost or damaged ends as a whole one does, or the file is named."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.topics import TEXTS, TOPICS, write_corpus

from shardtrain.cli.main import main
from shardtrain.errors import RunError, RunExistsError, VectorizerError
from shardtrain.inference.run import load_run
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.engine import Logs
from shardtrain.training.fit import fit
from shardtrain.training.options import CheckpointInterval, FitOptions
from shardtrain.training.run_folder import CHECKPOINTS, CONFIG, METRICS, RunFolder

OPTIONS = FitOptions(epochs=3, batch_size=32, mlp=MlpOptions(units=4), checkpoint_every=CheckpointInterval(1, "epochs"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    folder = tmp_path_factory.mktemp("shards")
    build(write_corpus(folder / "corpus", tuple(TOPICS)), folder / "out", BuildOptions(workers=1, max_features=30))
    return open_shards(folder / "out")


@pytest.fixture(scope="module")
def whole(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit(shards, OPTIONS, out=tmp_path_factory.mktemp("whole") / "run").path


@pytest.fixture(scope="module")
def stopped(shards: Shards, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interrupted run that a test must not change."""

    def stop(epoch: int, logs: Logs) -> bool:
        signal.raise_signal(signal.SIGINT)
        return False

    out = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.raises(KeyboardInterrupt):
        fit(shards, OPTIONS, out=out, watch=stop)
    return out


@pytest.fixture
def run(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the interrupted run."""
    return Path(shutil.copytree(stopped, tmp_path / "run"))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_name(path: Path) -> None:
    """Change a letter in the name of a class, which leaves a sound file."""
    name = next(iter(TOPICS))
    path.write_text(path.read_text().replace(f'"{name}"', f'"{name[:-1]}X"'))


DAMAGES: dict[str, tuple[str, Callable[[Path], None]]] = {
    "an array is missing": ("vectorizer/hashes.npy", Path.unlink),
    "an array has another bit": ("vectorizer/hashes.npy", flip),
    "an array is empty": ("vectorizer/columns.npy", lambda path: path.write_bytes(b"") and None),
    "the description has another bit": ("vectorizer/vectorizer.json", flip),
    "there is no vectorizer": ("vectorizer", shutil.rmtree),
    "a class has another name": (CONFIG, other_name),
    "the configuration is missing": (CONFIG, Path.unlink),
    "the history is missing": ("history.csv", Path.unlink),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_resumed_run_lacks_is_written_again(shards: Shards, whole: Path, run: Path, damage: str) -> None:
    name, harm = DAMAGES[damage]
    harm(run / name)
    assert fit(shards, OPTIONS, out=run).path == run
    files = [path.relative_to(whole) for path in sorted(whole.rglob("*")) if path.is_file() and path.name != METRICS]
    assert files == [
        path.relative_to(run) for path in sorted(run.rglob("*")) if path.is_file() and path.name != METRICS
    ]
    for name in files:
        assert (run / name).read_bytes() == (whole / name).read_bytes(), name
    assert load_run(run).predict(TEXTS).labels == load_run(whole).predict(TEXTS).labels


def test_a_copy_that_is_whole_stays_and_one_that_is_not_is_reported(
    shards: Shards, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, lost = run / "vectorizer" / "terms.json", run / "vectorizer" / "hashes.npy"
    before = kept.stat().st_ino
    lost.unlink()
    fit(shards, OPTIONS, out=run)
    assert kept.stat().st_ino == before
    said = [line for line in capsys.readouterr().err.splitlines() if "copied again" in line]
    assert len(said) == 1
    assert f"'{lost}' was missing or damaged" in said[0]


def test_a_damaged_vectorizer_of_the_shards_is_copied_to_no_run(shards: Shards, run: Path, tmp_path: Path) -> None:
    shutil.copytree(shards.path, tmp_path / "shards")
    flip(tmp_path / "shards" / "vectorizer" / "hashes.npy")
    before = (run / "vectorizer" / "hashes.npy").read_bytes()
    with open_shards(tmp_path / "shards") as damaged:
        for out in (run, tmp_path / "new"):
            with pytest.raises(VectorizerError, match=r"hashes\.npy' is damaged"):
                fit(damaged, OPTIONS, out=out)
    assert (run / "vectorizer" / "hashes.npy").read_bytes() == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "shardtrain-ruo"}'])
def test_a_damaged_configuration_of_an_interrupted_run_is_named_and_overwrite_helps(
    shards: Shards, whole: Path, run: Path, content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / CONFIG).write_text(content)
    for command in (["fit", shards.path, "--out", run], ["predict", run, TEXTS[0]]):
        assert main([*map(str, command)]) == 1
        said = capsys.readouterr().err
        assert re.search(rf"'{run / CONFIG}'.*; restore it from a copy, or delete it: .* with --overwrite", said), said
    assert list((run / CHECKPOINTS).iterdir())
    fit(shards, OPTIONS, out=run, overwrite=True)
    assert (run / "model.keras").read_bytes() == (whole / "model.keras").read_bytes()


def test_a_finished_run_with_a_damaged_configuration_can_be_replaced(
    shards: Shards, whole: Path, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(whole, tmp_path / "run"))
    (run / CONFIG).write_text("")
    with pytest.raises(RunError, match=r"config\.json' is not valid JSON"):
        load_run(run)
    with pytest.raises(RunExistsError, match="holds a finished run"):
        fit(shards, OPTIONS, out=run)
    assert load_run(fit(shards, OPTIONS, out=run, overwrite=True).path).metrics["epochs"] == 3


def test_a_folder_of_another_program_is_no_run(shards: Shards, tmp_path: Path) -> None:
    (tmp_path / CHECKPOINTS).mkdir()
    (tmp_path / CHECKPOINTS / "checkpoint-00000001").write_bytes(b"weights of others")
    (tmp_path / CONFIG).write_text('{"model_type": "bert"}')
    (tmp_path / METRICS).write_text('{"accuracy": 0.5}')
    with pytest.raises(RunExistsError, match="is not a run folder"):
        RunFolder(tmp_path).check_free(overwrite=True)
    with pytest.raises(RunExistsError, match="is not a run folder"):
        RunFolder(shards.path).check_free(overwrite=True)
