"""Laws of comparing runs: aligned rows and classes, figures of single evaluations, disagreements with their texts."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.topics import TOPICS, write_corpus
from support.training import fit

from shardtrain.cli.compare import verdict
from shardtrain.cli.main import main
from shardtrain.errors import LabelError, ModelError, RunError, RunNotFoundError, ShardsError, UsageError
from shardtrain.inference import compare as comparing
from shardtrain.inference.compare import Comparison, compare
from shardtrain.inference.evaluate import evaluate_corpus, measure
from shardtrain.inference.run import Run, load_run
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.options import FitOptions

NOISE = 0.25  # share of labels that are random, so that runs err


def _trained(shards: Path, out: Path, **options: Any) -> Run:
    with open_shards(shards) as opened:
        return fit(opened, FitOptions(**{"epochs": 2, "batch_size": 32, **options}), out=out)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("compare")
    corpus = write_corpus(root / "corpus", tuple(TOPICS), 1200)
    rng = np.random.default_rng(1)
    for name in ("train.csv", "test.csv"):
        with open(corpus / name, newline="") as file:
            rows = [[str(rng.integers(1, 4)) if rng.random() < NOISE else y, *rest] for y, *rest in csv.reader(file)]
        with open(corpus / name, "w", newline="") as file:
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows(rows)
    build(corpus, root / "shards", BuildOptions(workers=1))
    build(corpus, root / "few", BuildOptions(workers=1, max_features=12, ngram_range=(1, 1)))
    build(corpus, root / "seed", BuildOptions(workers=1, max_features=12, seed=5))
    _trained(root / "shards", root / "runs" / "mlp", model="mlp", mlp=MlpOptions(units=8))
    _trained(root / "shards", root / "runs" / "linear", model="linear")
    _trained(root / "few", root / "runs" / "few", model="linear")
    _trained(root / "seed", root / "runs" / "seed", model="linear")
    return root


def _runs(root: Path, *names: str) -> list[Path]:
    return [root / "runs" / name for name in names]


def _probabilities(run: Path, texts: list[str]) -> np.ndarray[Any, Any]:
    return load_run(run).predict(texts).probabilities


def _documents(path: Path) -> list[tuple[int, str]]:
    with open(path, newline="") as file:
        return [(int(label) - 1, ", ".join(rest)) for label, *rest in csv.reader(file)]


def _check_counts(found: Comparison, labels: np.ndarray[Any, Any], guesses: list[np.ndarray[Any, Any]]) -> None:
    right = [guess == labels for guess in guesses]
    for number, pair in enumerate(found.pairs, 1):
        a, b = right[0], right[number]
        counts = [int(each.sum()) for each in (a & b, a & ~b, ~a & b, ~a & ~b)]
        ours = pair.paired
        assert [ours.both, ours.only_first, ours.only_second, ours.neither] == counts


def test_on_their_shards_the_figures_are_those_of_single_evaluations(root: Path) -> None:
    found = compare(_runs(root, "mlp", "linear"))
    with open_shards(root / "shards") as shards:
        alone = [measure(load_run(each), shards).metrics for each in _runs(root, "mlp", "linear")]
    for ours, theirs in zip(found.metrics, alone, strict=True):
        assert theirs is not None
        assert ours.accuracy == theirs.accuracy
        assert ours.macro_f1 == pytest.approx(theirs.macro_f1, rel=1e-12)
        assert ours.log_loss == pytest.approx(theirs.log_loss, rel=1e-6)
    (pair,) = found.pairs
    assert pair.paired.metrics["accuracy"].value == pytest.approx(alone[1].accuracy - alone[0].accuracy)
    assert pair.paired.metrics["macro_f1"].second == pytest.approx(alone[1].macro_f1)
    assert (found.split, found.rows) == ("validation", alone[0].rows)
    assert found.options["model"] == ("mlp", "linear")
    assert found.trained_on == {}


@pytest.mark.parametrize("data", ["own shards", "corpus"])
def test_rows_of_different_vectorizers_are_the_same_documents(data: str, root: Path) -> None:
    """On their own shards and on raw text: counts, rows and texts are what predicting the texts one by one gives."""
    paths = _runs(root, "mlp", "few", "linear")
    given = None if data == "own shards" else root / "corpus"
    found = compare(paths, given, split="test", examples=10_000)
    rows = _documents(root / "corpus" / "test.csv")
    labels, texts = np.array([label for label, _ in rows]), [text for _, text in rows]
    outputs = [_probabilities(each, texts) for each in paths]
    guesses = [each.argmax(axis=1) for each in outputs]
    assert (found.rows, found.split, found.reasons) == (len(rows), "test", ())
    _check_counts(found, labels, guesses)
    for number, pair in enumerate(found.pairs, 1):
        for kept, wins, loses in ((pair.only_first, 0, number), (pair.only_second, number, 0)):
            expected = np.flatnonzero((guesses[wins] == labels) & (guesses[loses] != labels))
            assert sorted(each.document for each in kept) == expected.tolist()
            assert [each.confidence for each in kept] == sorted((each.confidence for each in kept), reverse=True)
            for each in kept:
                place = each.document
                assert place is not None
                assert (each.label, each.text) == (labels[place], texts[place])
                assert each.predicted == (guesses[0][place], guesses[number][place])
                shares = (outputs[0][place].max(), outputs[number][place].max())
                assert each.probability == pytest.approx(shares, rel=1e-5)
                own = (outputs[0][place][labels[place]], outputs[number][place][labels[place]])
                assert each.label_probability == pytest.approx(own, rel=1e-5)
    assert found.trained_on["features"] == (
        load_run(paths[0]).description.num_features,
        12,
        found.trained_on["features"][0],
    )
    assert found.trained_on["ngram_range"] == ([1, 2], [1, 1], [1, 2])


def test_the_examples_kept_are_the_first_of_all(root: Path) -> None:
    every, few = (compare(_runs(root, "mlp", "few"), split="train", examples=each) for each in (10_000, 3))
    assert len(every.pairs[0].only_first) > 3
    assert few.pairs[0].only_first == every.pairs[0].only_first[:3]
    assert few.pairs[0].only_second == every.pairs[0].only_second[:3]
    assert compare(_runs(root, "mlp", "few"), examples=0).pairs[0].only_first == ()


def test_batches_do_not_change_a_comparison(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from shardtrain.inference import common_rows

    whole = [compare(_runs(root, "mlp", "few"), data, split="test").record() for data in (None, root / "corpus")]
    monkeypatch.setattr(common_rows, "EVALUATION_ROWS", 7)
    parts = [compare(_runs(root, "mlp", "few"), data, split="test").record() for data in (None, root / "corpus")]
    for one, other in zip(whole, parts, strict=True):
        first, second = one["pairs"][0], other["pairs"][0]
        assert first["macro_f1"]["interval"] == pytest.approx(second["macro_f1"]["interval"], rel=1e-9)
        assert first["only_first_right"] == second["only_first_right"]
        assert first["accuracy"] == second["accuracy"]


def test_classes_in_another_order_are_aligned_by_name(root: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    shutil.copytree(root / "corpus", corpus)
    names = list(reversed(list(TOPICS)))
    for name in ("train.csv", "test.csv"):
        rows = _documents(corpus / name)
        with open(corpus / name, "w", newline="") as file:
            csv.writer(file).writerows([3 - label, text] for label, text in rows)
    (corpus / "classes.txt").write_text("".join(f"{name}\n" for name in names))
    build(corpus, tmp_path / "shards", BuildOptions(workers=1))
    _trained(tmp_path / "shards", tmp_path / "reversed", model="linear")
    pair = [root / "runs" / "linear", tmp_path / "reversed"]
    named = tmp_path / "named.csv"
    rows = _documents(root / "corpus" / "test.csv")
    with open(named, "w", newline="") as file:
        csv.writer(file).writerows([("label", "text"), *((list(TOPICS)[label], text) for label, text in rows)])
    found = compare(pair, named)
    labels, texts = np.array([label for label, _ in rows]), [text for _, text in rows]
    guesses = [_probabilities(pair[0], texts).argmax(axis=1), 2 - _probabilities(pair[1], texts).argmax(axis=1)]
    _check_counts(found, labels, guesses)
    assert found.metrics[1].accuracy == pytest.approx(np.mean(guesses[1] == labels))
    assert found.trained_on["order of classes"] == (list(TOPICS), names)
    alone = evaluate_corpus(load_run(pair[1]), named).measured.metrics
    assert alone is not None
    assert found.metrics[1].accuracy == alone.accuracy


def test_what_cannot_be_compared_is_refused_with_the_next_step(root: Path, tmp_path: Path) -> None:
    mlp, few, seed = _runs(root, "mlp", "few", "seed")
    with pytest.raises(UsageError, match="one run is nothing to compare"):
        compare([mlp])
    with pytest.raises(UsageError, match="named twice"):
        compare([mlp, mlp])
    with pytest.raises(UsageError, match="at least 0"):
        compare([mlp, few], examples=-1)
    with pytest.raises(ModelError, match=r"same documents in the same order.*CORPUS"):
        compare([mlp, seed])
    with pytest.raises(ModelError, match="omit data to compare each run on its own shards"):
        compare([mlp, few], root / "shards")
    unfinished = tmp_path / "unfinished"
    shutil.copytree(few, unfinished)
    (unfinished / "metrics.json").unlink()
    with pytest.raises(RunNotFoundError, match=r"unfinished'.* --resume"):
        compare([mlp, unfinished])
    (tmp_path / "odd.csv").write_text("label,text\nrowing,an oar\n")
    with pytest.raises(LabelError, match="rowing"):
        compare([mlp, few], tmp_path / "odd.csv")


def test_other_classes_and_lost_shards_are_named(root: Path, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "two", ("cooking", "sailing"))
    build(corpus, tmp_path / "shards", BuildOptions(workers=1))
    _trained(tmp_path / "shards", tmp_path / "two classes", model="linear")
    mlp = root / "runs" / "mlp"
    with pytest.raises(ModelError, match=r"only '.*mlp' has 'chess'; only runs of the same classes"):
        compare([mlp, tmp_path / "two classes"])
    _trained(tmp_path / "shards", tmp_path / "again", model="mlp")
    shutil.rmtree(tmp_path / "shards")
    with pytest.raises(ShardsError, match=r"that '.*two classes' was trained on cannot be used: .*add data SHARDS"):
        compare([tmp_path / "two classes", tmp_path / "again"])
    assert compare([tmp_path / "two classes", tmp_path / "again"], corpus).split == "test"


def test_texts_that_are_gone_leave_row_numbers_and_a_reason(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "shards", tmp_path / "shards")
    (tmp_path / "shards" / "build.json").unlink()
    found = compare(_runs(root, "mlp", "linear"), tmp_path / "shards", split="train")
    assert found.reasons == ("build.json does not record where the corpus is",)
    assert {each.text for each in (*found.pairs[0].only_first, *found.pairs[0].only_second)} == {None}


def test_of_tables_row_numbers_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, table, shards = np.random.default_rng(2), tmp_path / "table.svm", tmp_path / "shards"
    rows = [(number % 2, rng.normal(size=4) + number % 2) for number in range(600)]
    table.write_text("".join(f"{y} {' '.join(f'{i}:{v:.3f}' for i, v in enumerate(x, 1))}\n" for y, x in rows))
    assert main(["convert", str(table), "--out", str(shards), "--quiet"]) == 0
    _trained(shards, tmp_path / "one", model="linear", epochs=1)
    _trained(shards, tmp_path / "two", model="linear", epochs=6, learning_rate=0.1)
    runs = [str(tmp_path / "one"), str(tmp_path / "two")]
    assert main(["compare", *runs, "--quiet"]) == 0
    shown = capsys.readouterr().out
    assert "\n  row " in shown
    assert shown.endswith("texts are missing: the features were not made from text here\n")
    (tmp_path / "any.csv").write_text("label,text\na,b\n")
    with pytest.raises(RunError, match="cannot classify raw text; compare on shards: data SHARDS"):
        compare(runs, tmp_path / "any.csv")


def test_the_command_says_in_words_what_the_record_has(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", *map(str, _runs(root, "mlp", "few")), "--split", "train", "--examples", "2", "--quiet"]
    assert main([*words, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert main(words) == 0
    shown = capsys.readouterr().out
    (pair,) = facts["pairs"]
    low, high = pair["accuracy"]["interval"]
    assert pair["more_accurate"] == "second"
    points = f"{100 * pair['accuracy']['difference']:.1f} points"
    assert f"few is more accurate than mlp by {points} (95 % interval {100 * low:.1f} to {100 * high:.1f};" in shown
    reverse = compare(_runs(root, "few", "mlp"), split="train").pairs[0].paired
    assert f"few is more accurate than mlp by {points} (95 % interval {100 * low:.1f} to {100 * high:.1f};" in verdict(
        "few", "mlp", reverse
    )
    assert f"only mlp {pair['only_first']:,}" in shown
    for kept in (pair["only_first_right"], pair["only_second_right"]):
        assert len(kept) <= 2
        assert all(each["text"] in shown for each in kept)
    found = compare(_runs(root, "mlp", "linear"))
    assert not found.pairs[0].paired.better
    assert verdict("a", "b", found.pairs[0].paired).startswith("no difference of accuracy shown between a and b: ")


def test_options_of_reading_need_raw_text(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", *map(str, _runs(root, "mlp", "few")), "--label-column", "0"]
    assert main(words) == 2
    assert "add --data CORPUS, or omit them" in capsys.readouterr().err


def test_a_run_of_another_corpus_is_told_apart_by_its_columns(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [load_run(each) for each in _runs(root, "mlp", "few")]
    config = {**runs[1].config, "corpus": {**runs[1].config["corpus"], "text_columns": [2]}}
    other = Run(path=runs[1].path, config=config, description=runs[1].description, metrics=runs[1].metrics)
    comparing.compare([runs[0], other], root / "corpus")
    assert "was trained on other columns (2) than" in capsys.readouterr().err
