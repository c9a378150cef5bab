"""A run knows the labels of its training corpus however another file spells them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.resealing import write_config
from support.topics import TOPICS
from support.training import fit

from shardtrain.errors import CorpusFormatError, LabelError
from shardtrain.inference.evaluate import evaluate_corpus
from shardtrain.inference.predict_file import predict_file
from shardtrain.inference.run import Run
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.options import FitOptions

SAILING, CHESS = (" ".join(TOPICS[topic]) for topic in ("sailing", "chess"))


def corpus(path: Path, *labels: str) -> Path:
    path.write_text("".join(f"{label},{(SAILING, CHESS)[i % 2]} {i}\n" for i, label in enumerate(labels)))
    return path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("spelled")
    build(corpus(root / "train.csv", *(["1.0", "2", "1", "2.0"] * 20)), root / "shards", BuildOptions(min_df=1))
    with open_shards(root / "shards") as shards:
        return fit(shards, FitOptions(epochs=2, learning_rate=0.05, mlp=MlpOptions(units=4)), out=root / "run")


def with_labels(run: Run, folder: Path, labels: dict[str, int]) -> Run:
    """Copy a run, with other labels on record."""
    shutil.copytree(run.path, folder)
    config = json.loads((folder / "config.json").read_text())
    write_config(folder / "config.json", {**config, "labels": labels})
    return Run.load(folder)


def test_equal_numbers_are_one_class_and_evaluate_and_predict_know_them(run: Run, tmp_path: Path) -> None:
    assert run.description.class_names == ("1", "2")
    expected = evaluate_corpus(run, corpus(tmp_path / "a.csv", *(["1", "2"] * 10)))
    for spelled in (["1.0", "2.0"] * 10, ["01", "+2"] * 10, ["1e0", "20e-1"] * 10):
        assert evaluate_corpus(run, corpus(tmp_path / "b.csv", *spelled)).metrics == expected.metrics
    done = predict_file(run, corpus(tmp_path / "c.csv", "1.0", "2.0"), tmp_path / "out.csv")
    plain = predict_file(run, corpus(tmp_path / "d.csv", "1", "2"), tmp_path / "plain.csv")
    assert done.output.read_bytes() == plain.output.read_bytes()  # the first column is no text in either
    with pytest.raises(LabelError, match=r"was not trained with: '3' \(1 example\)"):
        evaluate_corpus(run, corpus(tmp_path / "e.csv", "1", "3.0"))


def test_labels_that_an_older_run_recorded_are_found_in_any_spelling(run: Run, tmp_path: Path) -> None:
    older = with_labels(run, tmp_path / "older", {"1.0": 0, "2.0": 1})
    expected = evaluate_corpus(run, corpus(tmp_path / "a.csv", *(["1", "2"] * 10)))
    for spelled in (["1", "2"] * 10, ["1.0", "2.0"] * 10):
        assert evaluate_corpus(older, corpus(tmp_path / "b.csv", *spelled)).metrics == expected.metrics


def test_labels_taken_literally_in_training_are_so_in_every_command(run: Run, tmp_path: Path) -> None:
    path = corpus(tmp_path / "a.csv", *(["007", "7"] * 10))
    literal = with_labels(run, tmp_path / "literal", {"007": 0, "7": 1})
    expected = evaluate_corpus(run, corpus(tmp_path / "b.csv", *(["1", "2"] * 10)))
    assert evaluate_corpus(literal, path).metrics == expected.metrics
    with pytest.raises(CorpusFormatError, match=r"line 1: the label .* is missing: 'NA'"):
        evaluate_corpus(run, corpus(tmp_path / "c.csv", "NA", "2"))
    named = with_labels(run, tmp_path / "named", {"NA": 0, "EU": 1})
    assert evaluate_corpus(named, corpus(tmp_path / "d.csv", *(["NA", "EU"] * 10))).metrics == expected.metrics


def test_an_addition_has_the_classes_of_the_shards_however_it_spells_them(tmp_path: Path) -> None:
    options = BuildOptions(min_df=1, validation_fraction=0.0)
    build(corpus(tmp_path / "a.csv", *(["1", "2"] * 10)), tmp_path / "out", options)
    more = build(corpus(tmp_path / "b.csv", "1.0", "2.0"), tmp_path / "out", BuildOptions(append=True))
    assert sum(split.examples for split in more.splits.values()) == 22
    build(corpus(tmp_path / "c.csv", *(["007", "7"] * 10)), tmp_path / "ids", BuildOptions(min_df=1, labels="names"))
    more = build(corpus(tmp_path / "d.csv", "007", "7"), tmp_path / "ids", BuildOptions(append=True))
    assert more.class_names == ("007", "7")
    with pytest.raises(LabelError, match="labels that the shards do not have: '07'"):
        build(corpus(tmp_path / "e.csv", "07"), tmp_path / "ids", BuildOptions(append=True))
