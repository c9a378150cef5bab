"""Laws of using a run: the folder alone is enough, the answers are the model's, and foreign shards are refused."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, f1_score, matthews_corrcoef
from support.learnable import write_shards
from support.resealing import write_config
from support.sampled import sampled
from support.topics import EXPECTED, TEXTS, TOPICS, write_corpus
from support.training import fit

from shardtrain.cli.main import main
from shardtrain.errors import ModelError, RunError, VectorizerError
from shardtrain.inference.evaluate import evaluate, measure
from shardtrain.inference.rows import predict_rows
from shardtrain.inference.run import Run, load_run
from shardtrain.loader.info import DatasetInfo
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions, SepcnnOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.report.run_analysis import evaluate_run
from shardtrain.training.options import FitOptions

KINDS = ["ngram", "sequence"]


@dataclass(frozen=True)
class Trained:
    """A run, the shards it was trained on, and a copy of the run far from them."""

    run: Run
    shards: Path
    moved: Run


def train(root: Path, kind: str, topics: tuple[str, ...]) -> Trained:
    corpus = write_corpus(root / "corpus", topics)
    build(corpus, root / "shards", BuildOptions(vectorizer=kind, validation="test.csv", workers=1))
    options = FitOptions(
        epochs=20,
        batch_size=16,
        learning_rate=0.02 if kind == "ngram" else 0.005,
        mlp=MlpOptions(units=8),
        sepcnn=SepcnnOptions(filters=32, embedding_dim=32),
    )
    with open_shards(root / "shards") as shards:
        run = fit(shards, options, out=root / "run")
    shutil.copytree(run.path, root / "elsewhere" / "run")
    return Trained(run, root / "shards", load_run(root / "elsewhere" / "run"))


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Trained]:
    return {kind: train(tmp_path_factory.mktemp(kind), kind, tuple(TOPICS)) for kind in KINDS}


of_ngrams = pytest.mark.parametrize("trained", sampled(KINDS), indirect=True)  # in `make soak` of sequences


@pytest.fixture(params=KINDS)
def trained(request: pytest.FixtureRequest, trainings: dict[str, Trained]) -> Trained:
    return trainings[request.param]


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return train(tmp_path_factory.mktemp("binary"), "ngram", ("cooking", "chess"))


def validation_texts(trained: Trained) -> list[str]:
    """The documents of the validation split, in the order of its rows."""
    with open(trained.shards.parent / "corpus" / "test.csv", newline="") as file:
        documents = [", ".join(row[1:]) for row in csv.reader(file)]
    with open_shards(trained.shards) as shards:
        split = shards.validation
        return [documents[number] for number in split.documents(0, split.num_examples)]


def test_texts_are_classified_from_the_run_folder_alone(trained: Trained) -> None:
    found = trained.moved.predict(TEXTS)
    assert found.labels == EXPECTED
    assert found.class_names == tuple(TOPICS)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-5)


def test_raw_texts_get_the_answers_that_their_rows_in_the_shards_get(trained: Trained) -> None:
    found = trained.moved.predict(validation_texts(trained))
    with open_shards(trained.shards) as shards:
        _, y = shards.validation.rows(0, shards.validation.num_examples)
    accuracy = (found.probabilities.argmax(axis=1) == y).mean()
    loss = -np.log(found.probabilities[np.arange(len(y)), y]).mean()
    assert accuracy == pytest.approx(trained.run.metrics["val_accuracy"], abs=1e-6)
    assert loss == pytest.approx(trained.run.metrics["val_loss"], rel=1e-4)


def test_evaluating_gives_what_training_reported_and_exactly_so_where_keras_does_both(trained: Trained) -> None:
    with open_shards(trained.shards) as shards:
        found = evaluate(trained.moved, shards)
    metrics = trained.run.metrics
    expected = {"accuracy": metrics["val_accuracy"], "loss": metrics["val_loss"]}
    assert found == (expected if trained.run.needs_keras else pytest.approx(expected, rel=1e-6))


def test_one_sigmoid_unit_gives_the_probabilities_of_both_classes(binary: Trained) -> None:
    found = binary.run.predict([TEXTS[0], TEXTS[2]])
    assert found.labels == ["cooking", "chess"]
    assert found.probabilities.shape == (2, 2)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-6)


def test_a_text_without_any_known_word_still_gets_a_class(trained: Trained) -> None:
    classifier = trained.run.classifier()
    for text in ("", " \n\t", "zzz qqq", "\udcff broken", "日本語"):
        (label,) = classifier([text]).labels
        assert label in TOPICS


def test_texts_stream_through_in_order_whatever_their_number(trained: Trained) -> None:
    taken = 0

    def texts() -> Iterator[str]:
        nonlocal taken
        for number in range(1200):
            taken += 1
            yield TEXTS[number % 3]

    batches = trained.run.predict_batches(texts())
    first, predictions = next(batches)
    assert taken == len(first) == len(predictions) < 1200
    rest = list(batches)
    assert [text for part, _ in rest for text in part] == [TEXTS[number % 3] for number in range(taken)][len(first) :]
    labels = predictions.labels + [label for _, part in rest for label in part.labels]
    assert labels == [EXPECTED[number % 3] for number in range(1200)]


@of_ngrams
def test_no_texts_give_no_predictions(trained: Trained) -> None:
    assert trained.run.predict([]).probabilities.shape == (0, 3)


def test_shards_of_another_vectorizer_are_refused(trainings: dict[str, Trained]) -> None:
    with (
        open_shards(trainings["sequence"].shards) as shards,
        pytest.raises(ModelError, match=r"made by another vectorizer \(sequence, fingerprint .*\) than .* \(ngram,"),
    ):
        evaluate(trainings["ngram"].run, shards)


def test_shards_with_other_classes_are_refused(tmp_path: Path) -> None:
    one, other = write_shards(tmp_path / "one", num_classes=3), write_shards(tmp_path / "other", num_classes=4)
    with open_shards(one) as shards:
        run = fit(shards, FitOptions(epochs=1), out=tmp_path / "run")
    with open_shards(other) as shards, pytest.raises(ModelError, match="must be the same, in the same order"):
        evaluate(run, shards)


def test_a_vectorizer_that_is_not_the_runs_is_refused(trainings: dict[str, Trained], tmp_path: Path) -> None:
    shutil.copytree(trainings["ngram"].run.path, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "vectorizer")
    shutil.copytree(trainings["sequence"].run.path / "vectorizer", tmp_path / "run" / "vectorizer")
    with pytest.raises(RunError, match="is not the vectorizer of this run"):
        load_run(tmp_path / "run").predict(TEXTS)


@of_ngrams
def test_every_flipped_byte_of_the_vectorizer_is_noticed(trained: Trained, tmp_path: Path) -> None:
    for path in sorted((trained.run.path / "vectorizer").iterdir()):
        broken = tmp_path / path.name
        shutil.copytree(trained.run.path, broken)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        (broken / "vectorizer" / path.name).write_bytes(content)
        with pytest.raises((VectorizerError, RunError)):
            load_run(broken).predict(TEXTS)


def test_a_model_whose_outputs_are_logits_gives_probabilities_also_if_the_run_is_too_old_to_say_so(
    tmp_path: Path,
) -> None:
    def logits(description: DatasetInfo) -> keras.Model:
        inputs = keras.Input((description.num_features,))
        model = keras.Model(inputs, keras.layers.Dense(3, kernel_initializer="ones", bias_initializer="ones")(inputs))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile("sgd", loss, metrics=["accuracy"])
        return model

    corpus = write_corpus(tmp_path / "corpus", tuple(TOPICS), documents=60)
    build(corpus, tmp_path / "shards", BuildOptions(workers=1))
    with open_shards(tmp_path / "shards") as shards:
        run = fit(shards, FitOptions(model=logits, epochs=1), out=tmp_path / "run")
    found = run.predict(TEXTS)
    np.testing.assert_allclose(found.probabilities.sum(axis=1), 1, rtol=1e-6)
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config.pop("outputs") == "logits"
    write_config(tmp_path / "run" / "config.json", config)
    np.testing.assert_array_equal(load_run(tmp_path / "run").predict(TEXTS).probabilities, found.probabilities)


# The commands


def test_predict_prints_a_tab_separated_line_for_each_text(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join([TEXTS[0], TEXTS[1], "", TEXTS[2]]) + "\n", encoding="utf-8")
    assert main(["predict", str(trained.moved.path), "--input", str(tmp_path / "texts.txt")]) == 0
    captured = capsys.readouterr()
    rows = [line.split("\t") for line in captured.out.splitlines()]
    found = trained.run.predict([TEXTS[0], TEXTS[1], "", TEXTS[2]])
    best = found.probabilities.max(axis=1)
    assert rows == [
        [label, f"{probability:.4f}", text]
        for label, probability, text in zip(found.labels, best, [TEXTS[0], TEXTS[1], "", TEXTS[2]], strict=True)
    ]
    assert captured.err.splitlines() == [
        "warning: 1 text is blank, so the class says nothing; --notes marks such texts in the output"
    ]


@of_ngrams
def test_predict_shows_a_table_on_a_terminal(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert main(["predict", str(trained.run.path), TEXTS[2], "two\tlines\nof " + "x" * 80]) == 0
    first, second = terminal.getvalue().splitlines()
    assert first.startswith("chess    ")
    assert first.endswith(TEXTS[2])
    assert "\t" not in first + second
    assert second.endswith("two lines of " + "x" * 47)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["predict", "RUN"], 2, "no text to classify"),
        (["predict", "RUN", "a text", "--input", "texts.txt"], 2, "texts are given and --input, too"),
        (["predict", "RUN", "--input", "absent.txt"], 1, "'absent.txt' cannot be read"),
        (["predict", "absent", "text"], 1, "'absent' does not exist; train with"),
        (["evaluate", "RUN", "absent"], 1, "'absent' does not exist"),
    ],
    ids=["no text", "texts twice", "no such file", "no such run", "no such shards"],
)
def test_what_cannot_be_done_is_said_in_one_line(
    trainings: dict[str, Trained],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    run: Any = trainings["ngram"].run.path
    assert main([str(run) if part == "RUN" else part for part in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert said in captured.err


LAYER = """
import keras

@keras.saving.register_keras_serializable(package="tests")
class Scaled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs

def model(description):
    inputs = keras.Input((description.num_features,))
    return keras.Model(inputs, keras.layers.Dense(description.num_classes, activation="softmax")(Scaled()(inputs)))
"""


def test_a_model_with_layers_of_its_own_is_loaded_after_importing_their_module(
    trainings: dict[str, Trained], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "scaled_layer.py").write_text(LAYER)
    monkeypatch.chdir(tmp_path)
    with open_shards(trainings["ngram"].shards) as shards:
        fit(shards, FitOptions(model="scaled_layer:model", epochs=1), out=tmp_path / "run")
    monkeypatch.delitem(sys.modules, "scaled_layer")
    monkeypatch.delitem(keras.saving.get_custom_objects(), "tests>Scaled")
    assert main(["predict", "run", TEXTS[0]]) == 1
    assert "--import MODULE" in capsys.readouterr().err
    assert main(["predict", "run", TEXTS[0], "--import", "scaled_layer"]) == 0
    assert capsys.readouterr().out.endswith(f"\t{TEXTS[0]}\n")


@of_ngrams
def test_evaluate_prints_the_result(trained: Trained, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(trained.moved.path), str(trained.shards)]) == 0
    metrics = trained.run.metrics
    first, *rest = capsys.readouterr().out.splitlines()
    assert first == (
        f"validation accuracy {metrics['val_accuracy']:.4f}, loss {metrics['val_loss']:.4f}, "
        f"examples 60: {trained.shards}"
    )
    with open_shards(trained.shards) as shards:
        measured = measure(trained.moved, shards).metrics
        assert measured is not None
        y, predictions = zip(*predict_rows(trained.moved, shards), strict=True)
    labels, guess = np.concatenate(y), np.concatenate([each.probabilities for each in predictions]).argmax(axis=1)
    np.testing.assert_array_equal(measured.confusions, confusion_matrix(labels, guess, labels=range(3)))
    low, high = measured.accuracy_interval
    assert rest[0].split() == ["95", "%", "interval", "of", "accuracy", f"{low:.4f}", "to", f"{high:.4f}"]
    named = {line.rpartition("  ")[0].strip(): line.split()[-1] for line in rest if line.startswith("  ")}
    for name, value in (
        ("macro F1", f1_score(labels, guess, average="macro")),
        ("balanced accuracy", balanced_accuracy_score(labels, guess)),
        ("Matthews correlation", matthews_corrcoef(labels, guess)),
        ("macro ROC AUC", measured.macro_ranking.roc_auc),
    ):
        assert named[name] == f"{value:.4f}"
    assert "  class" in [line[:7] for line in rest]


@of_ngrams
def test_the_report_and_evaluate_on_text_have_the_numbers_of_evaluate_on_shards(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = trained.run.description.class_names
    with open_shards(trained.shards) as shards:
        measured = measure(trained.moved, shards).metrics
    assert measured is not None
    expected = measured.record(names)
    reported = evaluate_run(trained.moved, trained.shards, scratch=tmp_path).metrics.record(names)
    assert main(["evaluate", str(trained.run.path), str(trained.shards.parent / "corpus" / "test.csv"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    for found in (reported, printed):
        assert found["confusions"] == expected["confusions"]
        for name in (name for name, value in expected.items() if isinstance(value, float)):
            assert found[name] == pytest.approx(expected[name], rel=1e-5)
    assert printed["top_accuracy"] == expected["top_accuracy"]


@of_ngrams
def test_outputs_that_are_no_probabilities_leave_the_metrics_that_the_model_was_compiled_with(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from shardtrain.inference import keras_model, network_model

    for module in (keras_model, network_model):
        monkeypatch.setattr(module, "evaluate", doubling(module.evaluate))
    assert main(["evaluate", str(trained.run.path), str(trained.shards), "--json"]) == 0
    captured = capsys.readouterr()
    assert set(json.loads(captured.out)) == {"shards", "split", "examples", "accuracy", "loss"}
    assert "warning: no metrics but those that the model was compiled with: the model's outputs lie" in captured.err
    assert main(["evaluate", str(trained.run.path), str(trained.shards)]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1


def doubling(evaluate: Any) -> Any:
    """Return an evaluation that sees doubled outputs; `each` is its argument of two arrays."""

    def doubled(*arguments: Any) -> Any:
        def wrapped(argument: Any) -> Any:
            if getattr(argument, "__name__", "") != "add":
                return argument
            return lambda y, outputs: argument(y, 2 * outputs)

        return evaluate(*map(wrapped, arguments))

    return doubled


@of_ngrams
def test_a_model_that_only_knows_the_majority_is_reported(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = TEXTS[EXPECTED.index(trained.run.description.class_names[0])]
    (tmp_path / "in.csv").write_text(f'"1","note","{text}"\n' * 5)
    assert main(["evaluate", str(trained.run.path), str(tmp_path / "in.csv")]) == 0
    captured = capsys.readouterr()
    assert "warning: the model is not shown to be better than always predicting" in captured.err
    assert "has accuracy 1.0000: the 95 % interval of the model's is" in captured.err
    assert "  -" in captured.out  # the AUC of a class that all rows have
