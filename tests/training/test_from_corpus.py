"""Laws of `train`: it is build and fit, one after the other, and goes on after a kill wherever it was."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import signal
from functools import partial
from pathlib import Path

import pytest
from support.comparing import assert_same_folder
from support.forked import Forking
from support.topics import TOPICS, write_corpus

import shardtrain
from shardtrain.cli.main import main
from shardtrain.errors import RunExistsError, ShardsExistError, UsageError
from shardtrain.inference.run import load_run
from shardtrain.models.options import MlpOptions
from shardtrain.runtime.progress import QUIET, verbosity
from shardtrain.training.fit import fit
from shardtrain.training.run_folder import CHECKPOINTS, HISTORY, MODEL, SHARDS

MEASURED = {"fit_seconds", "examples_per_second", "input_wait_fraction", "peak_memory_bytes", "config_sha256"}
OPTIONS = {"max_features": 60, "mlp": MlpOptions(units=4), "epochs": 3, "seed": 2}
FLAGS = ("--max-features", "60", "--units", "4", "--epochs", "3", "--seed", "2")


# Runs a command, and kills itself a random moment after so many files got their names.
KILLED = """
import os, random, signal, sys, threading, time
from shardtrain.cli.main import main

real, left = os.replace, int(sys.argv[1])

def kill():
    time.sleep(random.Random(sys.argv[1]).uniform(0, 0.02))
    os.kill(os.getpid(), signal.SIGKILL)

def replace(*names, **how):
    global left
    left -= 1
    if left == 0:
        threading.Thread(target=kill, daemon=True).start()
    real(*names, **how)

os.replace = replace
sys.exit(main(sys.argv[2:]))
"""


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpora") / "topics", tuple(TOPICS), documents=240)


@pytest.fixture(scope="module")
def apart(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What build and fit make of the corpus."""
    folder = tmp_path_factory.mktemp("apart")
    with contextlib.chdir(folder):
        assert main(["build", str(corpus), "--out", "shards", "--max-features", "60", "--seed", "2", "--quiet"]) == 0
        assert main(["fit", "shards", "--out", "run", "--units", "4", "--epochs", "3", "--seed", "2", "--quiet"]) == 0
    return folder


def assert_same_result(run: Path, apart: Path, shards: Path | None = None) -> None:
    assert_same_folder(shards or run / SHARDS, apart / "shards")
    for name in (MODEL, HISTORY):
        assert (run / name).read_bytes() == (apart / "run" / name).read_bytes(), name
    ours, theirs = load_run(run).metrics, load_run(apart / "run").metrics
    assert {name: ours[name] for name in ours.keys() - MEASURED} == {
        name: theirs[name] for name in theirs.keys() - MEASURED
    }
    assert not (run / CHECKPOINTS).exists()


def test_its_result_is_that_of_build_and_fit(
    corpus: Path, apart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(corpus), *FLAGS]) == 0
    said = capsys.readouterr().out
    assert_same_result(tmp_path / "runs" / "topics-1", apart)
    assert "next: python -m shardtrain predict runs/topics-1" in said
    assert "n-grams: " in said


@pytest.mark.heavy
def test_killed_at_any_moment_the_same_command_goes_on_to_the_same_result(
    corpus: Path, apart: Path, tmp_path: Path, forked: Forking
) -> None:
    rng, kills = random.Random(5), 0
    words = ["train", corpus, *FLAGS, "--checkpoint-every", "1epochs"]
    for _ in range(4):  # some 60 files get their names
        done = forked.run(KILLED, rng.randint(8, 28), *words, cwd=tmp_path)
        assert done.returncode in (0, -signal.SIGKILL), done.stderr
        kills += done.returncode != 0
        if done.returncode == 0:
            break
    else:
        done = forked.command(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert kills
    begun = [run for run in (tmp_path / "runs").iterdir() if any(run.iterdir())]
    for run in begun:  # one, or more if a process was killed when its run was finished
        assert_same_result(run, apart)
    assert begun


def test_from_python_it_is_the_same(corpus: Path, apart: Path, tmp_path: Path) -> None:
    with verbosity(QUIET):
        run = shardtrain.train(corpus, out=tmp_path / "run", shards=tmp_path / "kept", **OPTIONS)
    assert run.path == tmp_path / "run"
    assert_same_result(run.path, apart, tmp_path / "kept")
    rows = [(topic, " ".join(words)) for topic, words in TOPICS.items() for _ in range(20)]
    with verbosity(QUIET):
        other = shardtrain.train(iter(rows), epochs=1)
    assert other.path == Path("runs/corpus-1")
    assert [path.name for path in other.path.iterdir() if path.name.startswith(".")] == []
    with pytest.raises(UsageError, match="resumes by itself"):
        shardtrain.train(corpus, append=True)


@pytest.mark.parametrize(
    "words", [("evaluate", "run"), ("fit",), ("verify",), ("inspect",)], ids=lambda words: words[0]
)
def test_a_run_in_place_of_shards_is_refused_with_the_name_of_its_shards(
    words: tuple[str, ...], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", str(corpus), "--out", "run", "--epochs", "1", "--quiet"]) == 0
    assert main([*words, "run"]) == 1
    assert "'run' is the folder of a run, not of shards; its shards are 'run/shards'" in capsys.readouterr().err


def test_a_finished_run_is_refused_and_shards_that_fit_are_used_again(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(corpus), "--out", "run", *FLAGS]
    assert main(words) == 0
    capsys.readouterr()
    made = (tmp_path / "run" / SHARDS / "manifest.json").stat().st_mtime_ns
    assert main(words) == 1
    assert "holds a finished run; choose another --out, or pass --overwrite" in capsys.readouterr().err
    assert main([*words, "--overwrite", "--epochs", "2"]) == 0
    assert "its shards are used again" in capsys.readouterr().err
    assert (tmp_path / "run" / SHARDS / "manifest.json").stat().st_mtime_ns == made
    assert load_run(tmp_path / "run").metrics["epochs"] == 2
    assert main([*words, "--overwrite", "--max-features", "50"]) == 0
    assert load_run(tmp_path / "run").description.num_features == 50
    with verbosity(QUIET), pytest.raises(RunExistsError):
        shardtrain.train(corpus, out=tmp_path / "run")
    with verbosity(QUIET), pytest.raises(ShardsExistError):  # of other options
        shardtrain.train(corpus, out=tmp_path / "other", shards=tmp_path / "run" / SHARDS)
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("more", [(), ("--shards", "kept")])
def test_a_call_has_its_own_folder_unless_the_same_one_was_interrupted(
    more: tuple[str, ...],
    corpus: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    corpus = Path(shutil.copytree(corpus, tmp_path / "topics"))
    words = ["train", str(corpus), *FLAGS, *more]
    with monkeypatch.context() as patch:
        patch.setattr("shardtrain.training.from_corpus.fit", partial(fit, watch=interrupt))
        assert main(words) == 130
    (corpus / ".other").touch()  # which is none of its files
    assert main(["train", str(corpus), *FLAGS[:-1], "3"]) == 0  # another seed
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["topics-1", "topics-2"]
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["run"] == "runs/topics-1"
    assert facts["shards"] == ("kept" if more else "runs/topics-1/shards")
    assert main(words) == 0
    assert load_run("runs/topics-3").metrics["val_accuracy"] == facts["val_accuracy"]


def test_another_corpus_under_the_same_name_gets_a_run_of_its_own(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> bool:
        raise KeyboardInterrupt

    corpus = Path(shutil.copytree(corpus, tmp_path / "topics"))
    with monkeypatch.context() as patch:
        patch.setattr("shardtrain.training.from_corpus.fit", partial(fit, watch=interrupt))
        assert main(["train", str(corpus), *FLAGS]) == 130
    with open(corpus / "train.csv", "a") as file:
        file.write('"1","oven bread","oven"\n')
    assert main(["train", str(corpus), *FLAGS]) == 0
    assert load_run("runs/topics-2").metrics["epochs"] == 3


def test_damaged_shards_are_built_again_with_overwrite(
    corpus: Path, apart: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", str(corpus), "--out", "run", *FLAGS]
    assert main(words) == 0
    shard = tmp_path / "run" / SHARDS / "train-00000.h5"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert main([*words, "--overwrite"]) == 0
    assert "are damaged (" in capsys.readouterr().err
    assert_same_result(tmp_path / "run", apart)


def test_a_folder_of_the_user_stays_and_shards_are_not_put_among_the_files_of_a_run(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert main(["train", "nothing.csv", "--out", "empty"]) == 1
    assert (tmp_path / "empty").is_dir()
    (tmp_path / "link").symlink_to("run")
    for shards in ("run", "run/vectorizer", "run/shards/more", "empty/../run/x", "link/x"):
        assert main(["train", str(corpus), "--out", "run", "--shards", shards]) == 2
        assert "is inside of the run folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "words",
    [
        "--model sepcnn",
        "--model linear --vectorizer sequence",
        "--model nothing",
        "--model nothing:function",
        "--model nothing.keras",
        "--model linear --units 64",
        "--vectorizer sequence --units 64",
        "--vectorizer sequence --embeddings nothing",
        "--embeddings nothing",
        "--optimizer row-adagrad --mixed-precision",
        "--engine fused --mixed-precision",
    ],
)
def test_what_the_training_would_refuse_is_refused_before_the_build(
    words: str, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*_: object, **__: object) -> None:
        raise AssertionError("it builds")

    monkeypatch.setattr("shardtrain.training.from_corpus.build", build)
    assert main(["train", str(corpus), *words.split()]) in (1, 2)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("content", ["", "no label\n"])
def test_a_corpus_that_cannot_be_read_leaves_nothing(content: str, tmp_path: Path) -> None:
    (tmp_path / "corpus.csv").write_text(content)
    assert main(["train", "corpus.csv"]) == 1
    assert not list((tmp_path / "runs").iterdir())
