"""Laws of explanations: their parts sum to the logit, are those of Keras' gradients, and change no prediction."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.sampled import sampled
from support.topics import TEXTS, TOPICS, write_corpus
from support.training import fit

from shardtrain.arrays.csr import Csr
from shardtrain.cli.main import main
from shardtrain.errors import ModelError, TextsError, UsageError, VectorizerError
from shardtrain.inference import parts, units
from shardtrain.inference.attribution import EXACT, GRADIENT, NetworkReasons
from shardtrain.inference.explanations import Explanation
from shardtrain.inference.options import PredictOptions
from shardtrain.inference.predict_file import predict_file, predict_stream
from shardtrain.inference.run import Run
from shardtrain.inference.thresholds import save_thresholds
from shardtrain.inference.writers import Parquet
from shardtrain.loader.shards import open_shards
from shardtrain.metrics.thresholds import Rule, Thresholds
from shardtrain.models.options import MlpOptions, SepcnnOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import MODEL

UNIT_BYTES = 1 << 19
TOPIC_WORDS = [word for words in TOPICS.values() for word in words]
STRANGE = [
    "",
    " \n\t",
    "zzz qqq",
    "\udcff baké\u0301 ﬂour",
    "日本語",
    "Oven oven OVEN bake",
    "the wind\u3000of the rook",
]
EVERY = [*TEXTS, *STRANGE, "the " * 500 + "rook"]
MLP = MlpOptions(units=8)
WAYS: dict[str, tuple[int, dict[str, Any], dict[str, Any]]] = {  # number of classes, build options, fit options
    "linear": (3, {}, {"model": "linear"}),
    "linear, two classes, naive-bayes scaling": (2, {}, {"model": "linear", "recipe": "fast"}),
    "mlp": (3, {}, {"mlp": MLP}),
    "mlp, two classes, hashed": (2, {"vectorizer": "hashing", "max_features": 64}, {"mlp": MLP}),
    "deep mlp, characters": (3, {"analyzer": "char", "ngram_range": (2, 3)}, {"mlp": MlpOptions(units=8, layers=4)}),
    "mlp, characters within words": (3, {"analyzer": "char_wb", "ngram_range": (3, 4)}, {"mlp": MLP}),
    "mlp trained by Keras": (3, {"stop_words": ("the",)}, {"mlp": MLP, "engine": "keras"}),
    "counts": (3, {"vectorizer": "count"}, {"mlp": MLP}),
}


def trained(root: Path, classes: int, building: dict[str, Any], fitting: dict[str, Any]) -> Run:
    corpus = write_corpus(root / "corpus", tuple(TOPICS)[:classes])
    build(corpus, root / "shards", BuildOptions(workers=1, **building))
    options = {"epochs": 3, "batch_size": 16, "learning_rate": 0.05, **fitting}
    with open_shards(root / "shards") as shards:
        return fit(shards, FitOptions(**options), out=root / "run")


@pytest.fixture(scope="module", autouse=True)
def small_units() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(units, "UNIT_BYTES", UNIT_BYTES)
        yield


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns the run of a way, trained when it is first asked for."""
    runs: dict[str, Run] = {}

    def made(name: str) -> Run:
        if name not in runs:
            runs[name] = trained(tmp_path_factory.mktemp("explained"), *WAYS[name])
        return runs[name]

    return made


@pytest.fixture(scope="module")
def explainers() -> dict[Any, Any]:
    """Loaded once for many texts."""
    return {}


@pytest.fixture(params=WAYS)
def run(request: pytest.FixtureRequest, run_of: Any) -> Run:
    found: Run = run_of(request.param)
    return found


@pytest.fixture
def mlp(run_of: Any) -> Run:
    found: Run = run_of("mlp")
    return found


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Run:
    building = {"vectorizer": "sequence", "max_length": 9}
    fitting = {"model": "sepcnn", "sepcnn": SepcnnOptions(blocks=1, filters=4, embedding_dim=8), "epochs": 1}
    return trained(tmp_path_factory.mktemp("sequences"), 3, building, fitting)


def total(explanation: Explanation) -> float:
    return sum(reason.contribution for reason in explanation.reasons) + explanation.others + explanation.rest


def logits_of(run: Run, texts: list[str]) -> np.ndarray:
    """The logits of the saved model, computed by Keras for dense rows of float64 weights."""
    model = keras.saving.load_model(run.path / MODEL)
    layers = [layer for layer in model.layers if layer.weights]
    units = run.load_vectorizer().transform(texts).toarray().astype(np.float64)
    for number, layer in enumerate(layers):
        kernel, bias = (np.asarray(each, np.float64) for each in layer.get_weights())
        units = (np.maximum(units, 0) if number else units) @ kernel + bias
    return np.concatenate([-units, units], axis=1) if units.shape[1] == 1 else units


def test_the_parts_sum_to_the_logit_of_the_saved_model(run: Run) -> None:
    expected, names = logits_of(run, EVERY), run.description.class_names
    for n in (1, 3, None):
        found = run.explain(EVERY, n=n)
        for explanation, row in zip(found, expected, strict=True):
            assert explanation.method == EXACT
            assert total(explanation) == pytest.approx(explanation.logit, abs=1e-9)
            assert explanation.logit == pytest.approx(row[names.index(explanation.label)], abs=1e-5)
            assert len(explanation.reasons) <= (n or 10**6)
    assert all(each.num_others == 0 and each.others == 0 for each in found)


def test_explaining_changes_no_prediction(run: Run) -> None:
    expected = run.predict(EVERY)
    found = run.explainer(2)(EVERY)
    assert found.probabilities.tobytes() == expected.probabilities.tobytes()
    assert (found.labels, found.notes) == (expected.labels, expected.notes)
    assert [each.label for each in found.explanations] == [each.predicted for each in found.explanations]
    assert [each.label for each in found.explanations] == expected.labels
    assert [each.probability for each in found.explanations] == expected.probabilities.max(axis=1).tolist()


@pytest.mark.parametrize("way", sampled(["mlp, two classes, hashed", "deep mlp, characters", "counts"], (0, 1)))
def test_each_part_is_the_gradient_that_keras_computes_times_the_input(
    run_of: Any, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run: Run = run_of(way)
    exact = run.explain(EVERY, n=None)
    monkeypatch.setattr("shardtrain.engine.keras_file.network_shape", lambda path: None)
    for one, other in zip(exact, run.explain(EVERY, n=None), strict=True):
        assert (other.method, other.label) == (GRADIENT, one.label)
        assert other.logit == pytest.approx(one.logit, abs=1e-5)
        assert other.rest == pytest.approx(one.rest, abs=1e-5)
        parts = {(each.terms, each.places): each.contribution for each in other.reasons}
        assert parts.keys() == {(each.terms, each.places) for each in one.reasons}
        for reason in one.reasons:
            assert parts[reason.terms, reason.places] == pytest.approx(reason.contribution, abs=1e-5)


@pytest.mark.parametrize("way", ["mlp", "mlp, two classes, hashed"])
@given(text=st.lists(st.one_of(st.sampled_from([*TOPIC_WORDS, " ", "é", "ﬁ"]), st.characters()), max_size=20))
@settings(max_examples=40, deadline=None)
def test_any_text_is_explained_and_its_parts_sum_to_the_logit(
    run_of: Any, explainers: dict[Any, Any], way: str, text: list[str]
) -> None:
    whole = " ".join(text)
    for n in (2, None):
        explainer = explainers[way, n] = explainers.get((way, n)) or run_of(way).explainer(n)
        (found,) = explainer([whole]).explanations
        assert total(found) == pytest.approx(found.logit, abs=1e-9)
        assert all(0 <= start < stop <= len(whole) for each in found.reasons for start, stop in each.places)
        json.loads(found.to_json())


def test_terms_come_by_falling_size_whatever_their_sign(mlp: Run) -> None:
    signs = set()
    for found in mlp.explain(TEXTS, n=None, label="chess"):
        sizes = [abs(reason.contribution) for reason in found.reasons]
        assert sizes == sorted(sizes, reverse=True)
        signs |= {reason.contribution > 0 for reason in found.reasons}
    assert signs == {True, False}


def test_a_term_that_occurs_several_times_is_given_once_with_all_its_places(mlp: Run) -> None:
    (found,) = mlp.explain(["Oven oven, OVEN bake"], n=None)
    (reason,) = [each for each in found.reasons if each.terms == ("oven",)]
    assert reason.places == ((0, 4), (5, 9), (11, 15))


@pytest.mark.parametrize("label", ["cooking", "sailing"])
def test_a_chosen_class_is_explained_by_name_or_by_the_corpus_s_label(run_of: Any, label: str) -> None:
    run: Run = run_of("linear, two classes, naive-bayes scaling")
    chosen = run.explain(TEXTS, label=label)
    assert {each.label for each in chosen} == {label}
    number = next(raw for raw, code in run.labels.items() if run.description.class_names[code] == label)
    assert run.explain(TEXTS, label=number) == chosen
    other = run.explain(TEXTS, label={"cooking": "sailing", "sailing": "cooking"}[label])
    for one, two in zip(chosen, other, strict=True):  # one output: what speaks for one speaks against the other
        assert one.logit == -two.logit
        assert one.probability == pytest.approx(1 - two.probability, abs=1e-6)
        assert [each.contribution for each in one.reasons] == [-each.contribution for each in two.reasons]


def test_the_scores_of_all_classes_give_the_probabilities(mlp: Run) -> None:
    each = [[found.logit for found in mlp.explain(EVERY, label=name)] for name in mlp.description.class_names]
    powers = np.exp(np.transpose(each))
    np.testing.assert_allclose(powers / powers.sum(axis=1, keepdims=True), mlp.predict(EVERY).probabilities, atol=1e-6)


def test_what_cannot_be_explained_is_refused(mlp: Run) -> None:
    with pytest.raises(UsageError, match="'tennis' is no class"):
        mlp.explain(TEXTS, label="tennis")
    with pytest.raises(UsageError, match="0 terms"):
        mlp.explain(TEXTS, n=0)
    with pytest.raises(TextsError, match=r"run\.explain takes a list"):
        mlp.explain("one text")
    assert mlp.explain([]) == []


def test_n_grams_that_share_a_hashed_column_share_a_contribution(run_of: Any) -> None:
    run: Run = run_of("mlp, two classes, hashed")
    (found,) = run.explain([" ".join(TOPIC_WORDS)], n=None)
    shared = [reason for reason in found.reasons if len(reason.terms) > 1]
    assert shared
    terms = [term for reason in found.reasons for term in reason.terms]
    assert sorted(terms) == sorted({*TOPIC_WORDS, *map(" ".join, pairwise(TOPIC_WORDS))})


def test_pieces_of_rows_are_divided_as_all_at_once(mlp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    network = mlp.load_network()
    assert network is not None
    x = mlp.load_vectorizer().transform(EVERY)
    assert isinstance(x, Csr)
    classes = np.arange(len(x)) % 3
    whole = NetworkReasons(network)(x, classes)
    monkeypatch.setattr("shardtrain.inference.attribution._MOST_VALUES", 100)
    parts = NetworkReasons(network)(x, classes)
    for name in ("scores", "values", "rest"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-12)


# Sequences


def test_words_of_sequences_get_gradient_times_embedding_with_what_is_missing(sequences: Run) -> None:
    text = "bake bake oven " + "rook pawn wind " * 3
    shown, every = (sequences.explain([text], n=n)[0] for n in (2, None))
    assert every.method == GRADIENT
    assert total(every) == pytest.approx(every.logit, abs=1e-6)
    assert total(shown) == pytest.approx(shown.logit, abs=1e-6)
    assert {reason.terms for reason in every.reasons} == {("rook",), ("pawn",), ("wind",)}  # the last 9 words
    explainer = sequences.explainer(1)
    expected = explainer([text]).probabilities[0]
    scores = [explainer([text], explained=code).explanations[0].logit for code in range(3)]
    np.testing.assert_allclose(np.exp(scores) / np.exp(scores).sum(), expected, atol=1e-6)


def test_a_contribution_is_the_change_of_the_logit_if_the_embedding_is_scaled(sequences: Run) -> None:
    (found,) = sequences.explain(["bake the oven"], n=None, label="chess")
    words = sequences.load_vectorizer().terms
    model = sequences.load_model()
    (embedding,) = [layer for layer in model.layers if isinstance(layer, keras.layers.Embedding)]
    table = np.asarray(embedding.embeddings)
    model.layers[-1].activation = keras.activations.linear
    x = sequences.load_vectorizer().transform(["bake the oven"]).astype(np.int32)

    def logit() -> float:
        return float(np.asarray(model(x))[0, 2])

    for reason in found.reasons:
        row = 1 + words.index(reason.terms[0])
        logits = []
        for factor in (0.98, 1.02):
            scaled = table.copy()
            scaled[row] *= factor
            embedding.embeddings.assign(scaled)
            logits.append(logit())
        assert reason.contribution == pytest.approx((logits[1] - logits[0]) / 0.04, abs=2e-4)


def test_a_model_that_looks_up_no_words_is_refused(sequences: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = keras.Input((9,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(inputs))
    monkeypatch.setattr(Run, "load_model", lambda run: model)
    with pytest.raises(ModelError, match=r"keras\.layers\.Embedding"):
        sequences.explain(TEXTS)


@pytest.mark.parametrize("last", sampled(["softmax", "linear", "a layer"], (0, 2)))
def test_a_model_with_any_last_layer_is_explained(sequences: Run, monkeypatch: pytest.MonkeyPatch, last: str) -> None:
    keras.utils.set_random_seed(4)

    class Averages(keras.Model):
        """Without a graph of layers; it looks up words and positions."""

        def __init__(self) -> None:
            super().__init__()
            self.words = keras.layers.Embedding(
                1000, 4, embeddings_initializer=keras.initializers.RandomUniform(seed=1)
            )
            self.positions = keras.layers.Embedding(9, 4)
            self.scores = keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotUniform(seed=2))
            self.last = keras.layers.Softmax() if last != "linear" else keras.layers.Identity()

        def call(self, ids: Any) -> Any:
            places = self.positions(keras.ops.arange(9))
            return self.last(self.scores(keras.ops.mean(self.words(ids) + places, axis=1)))

    model: Any = Averages()
    if last == "softmax":
        inputs = keras.Input((9,), dtype="int32")
        x = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(1000, 4)(inputs))
        model = keras.Sequential([keras.Model(inputs, x), keras.layers.Dense(3, activation="softmax")])
    model(np.zeros((1, 9), np.int32))
    monkeypatch.setattr(Run, "load_model", lambda run: model)
    found = sequences.explain(TEXTS, n=None)
    for explanation in found:
        assert total(explanation) == pytest.approx(explanation.logit, abs=1e-6)
        assert any(reason.contribution for reason in explanation.reasons)
    if last == "softmax":  # an average of embeddings is linear: nothing but bias and padding is missing
        assert isinstance(model.layers[-1].activation, type(keras.activations.softmax))
        assert model.layers[-1].activation is keras.activations.softmax


def test_a_user_s_model_over_dense_rows_of_n_grams_is_explained(mlp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = keras.Input((mlp.description.num_features,))
    layer = keras.layers.Dense(3, activation="softmax", kernel_initializer=keras.initializers.GlorotUniform(seed=3))
    model = keras.Model(inputs, layer(inputs))
    monkeypatch.setattr(Run, "load_model", lambda run: model)
    monkeypatch.setattr("shardtrain.engine.keras_file.network_shape", lambda path: None)
    terms, (kernel, bias) = mlp.load_vectorizer().terms, layer.get_weights()
    rows = mlp.load_vectorizer().transform(TEXTS).toarray()
    for row, found in zip(rows, mlp.explain(TEXTS, n=None, label="sailing"), strict=True):
        assert found.method == GRADIENT
        for reason in found.reasons:
            column = terms.index(reason.terms[0])
            assert reason.contribution == pytest.approx(row[column] * kernel[column, 1], abs=1e-6)
        assert found.rest == pytest.approx(bias[1], abs=1e-5)


# Top terms


@pytest.mark.parametrize("way", ["linear", "linear, two classes, naive-bayes scaling"])
def test_the_top_terms_of_a_linear_model_have_its_largest_weights(run_of: Any, way: str) -> None:
    run: Run = run_of(way)
    network, terms = run.load_network(), run.load_vectorizer().terms
    assert network is not None
    kernel = network.wide
    weights = np.concatenate([-kernel, kernel], axis=1) if kernel.shape[1] == 1 else kernel
    for code, (name, top) in enumerate(run.top_terms(5).items()):
        assert name == run.description.class_names[code]
        expected = np.argsort(-weights[:, code], kind="stable")[:5]
        assert [each.term for each in top] == [terms[column] for column in expected]
        assert [each.effect for each in top] == pytest.approx(weights[expected, code].tolist(), abs=1e-6)


@pytest.mark.parametrize("way", ["mlp", "counts", "deep mlp, characters"])
def test_the_top_terms_of_an_mlp_change_an_empty_row_most(run_of: Any, way: str) -> None:
    run: Run = run_of(way)
    weights = [layer.get_weights() for layer in keras.saving.load_model(run.path / MODEL).layers if layer.weights]
    terms = run.load_vectorizer().terms
    units = np.concatenate([np.zeros((1, len(terms))), np.eye(len(terms))])
    for number, (kernel, bias) in enumerate(weights):
        units = (np.maximum(units, 0) if number else units) @ kernel + bias
    effects = units[1:] - units[0]
    for code, top in enumerate(run.top_terms(4).values()):
        expected = np.sort(effects[:, code])[::-1][:4]
        assert [each.effect for each in top] == pytest.approx(expected[expected > 0].tolist(), abs=1e-5)
        assert all(each.term in terms for each in top)


def test_the_top_terms_are_the_same_through_keras(mlp: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = mlp.top_terms(4)
    monkeypatch.setattr("shardtrain.engine.keras_file.network_shape", lambda path: None)
    for one, other in zip(exact.values(), mlp.top_terms(4).values(), strict=True):
        assert [each.effect for each in one] == pytest.approx([each.effect for each in other], abs=1e-5)


@pytest.mark.slow
def test_the_top_words_of_sequences_are_those_of_rows_of_one_word(sequences: Run) -> None:
    top, explainer = sequences.top_terms(2), sequences.explainer(1)
    assert list(top) == list(sequences.description.class_names)
    for code, terms in enumerate(top.values()):
        found = explainer(["", *(each.term for each in terms)], explained=code)
        empty, *alone = (each.logit for each in found.explanations)
        assert [each.effect for each in terms] == pytest.approx([logit - empty for logit in alone], abs=1e-6)


def test_hashed_features_have_no_top_terms(run_of: Any) -> None:
    with pytest.raises(VectorizerError, match="hashed features have no terms"):
        run_of("mlp, two classes, hashed").top_terms()


# Files


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of texts, of several units where texts are explained."""
    rng, path = np.random.default_rng(1), tmp_path_factory.mktemp("table") / "texts.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text"])
        writer.writerows([[" ".join(rng.choice(TOPIC_WORDS, 60))] for _ in range(240)])
        writer.writerows([[text.replace("\udcff", "")] for text in EVERY if text])
    assert path.stat().st_size > 2 * units.UNIT_BYTES // 16
    return path


def rows_of(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("suffix", sampled([".csv", ".jsonl", ".parquet"], (0, 2)))
def test_a_file_has_the_explanations_of_its_texts(mlp: Run, table: Path, tmp_path: Path, suffix: str) -> None:
    expected = [each.describe() for each in mlp.explain([row["text"] for row in rows_of(table)], n=3)]
    one, three = (tmp_path / f"{workers}{suffix}" for workers in (1, 3))
    for workers, out in ((1, one), (3, three)):
        predict_file(mlp, table, out, PredictOptions(explain=3, workers=workers, proba=True, notes=True))
    assert one.read_bytes() == three.read_bytes()
    if suffix == ".parquet":
        found = pyarrow.parquet.read_table(one).column("reasons").to_pylist()
    elif suffix == ".csv":
        found = [json.loads(row["reasons"]) for row in rows_of(one)]
    else:
        found = [json.loads(line)["reasons"] for line in one.read_text(encoding="utf-8").splitlines()]
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert row["terms"] == [
            {**term, "contribution": pytest.approx(term["contribution"])} for term in other["terms"]
        ]
        assert (row["label"], row["method"], row["num_others"]) == (
            other["label"],
            other["method"],
            other["num_others"],
        )
        assert [row[name] for name in ("logit", "others", "rest")] == pytest.approx(
            [other[name] for name in ("logit", "others", "rest")]
        )


def test_without_the_column_a_file_is_what_it_is_without_explanations(mlp: Run, table: Path, tmp_path: Path) -> None:
    for name, explain in (("plain", None), ("explained", 2)):
        predict_file(mlp, table, tmp_path / f"{name}.csv", PredictOptions(explain=explain))
    plain, explained = (rows_of(tmp_path / f"{name}.csv") for name in ("plain", "explained"))
    assert all(row.pop("reasons") for row in explained)
    assert explained == plain


def test_an_interrupted_file_is_resumed_to_the_same_bytes(
    mlp: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = PredictOptions(explain=2, workers=1)
    predict_file(mlp, table, tmp_path / "whole.csv", options)
    classify = parts.Input.write_part
    done: list[int] = []

    def interrupted(self: Any, unit: Any, *arguments: Any) -> Any:
        if len(done) == 1:
            raise KeyboardInterrupt
        done.append(unit.index)
        return classify(self, unit, *arguments)

    monkeypatch.setattr(parts.Input, "write_part", interrupted)
    with pytest.raises(KeyboardInterrupt):
        predict_file(mlp, table, tmp_path / "out.csv", options)
    again: list[int] = []

    def counted(self: Any, unit: Any, *arguments: Any) -> Any:
        again.append(unit.index)
        return classify(self, unit, *arguments)

    monkeypatch.setattr(parts.Input, "write_part", counted)
    predict_file(mlp, table, tmp_path / "out.csv", options)
    assert done == [0]
    assert again
    assert 0 not in again
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()


def test_what_is_explained_at_a_time_is_a_sixteenth_of_a_unit(
    mlp: Run, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "UNIT_BYTES", 1 << 15)
    sizes = [
        sum(len(text.encode()) for text in documents.texts)
        for documents, _ in predict_stream(mlp, table, PredictOptions(explain=1, workers=1))
    ]
    assert len(sizes) > 40
    assert sum(sizes) / len(sizes) < 2 * (1 << 11)


def test_row_groups_with_explanations_are_bounded_by_their_bytes(
    mlp: Run, table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, many = tmp_path / "one.parquet", tmp_path / "many.parquet"
    predict_file(mlp, table, one, PredictOptions(explain=3))
    monkeypatch.setattr("shardtrain.inference.writers._GROUP_BYTES", 1 << 15)
    predict_file(mlp, table, many, PredictOptions(explain=3))
    assert pyarrow.parquet.ParquetFile(one).num_row_groups == 1
    assert pyarrow.parquet.ParquetFile(many).num_row_groups > 1
    assert pyarrow.parquet.read_table(many).equals(pyarrow.parquet.read_table(one))


def test_strings_that_arrow_cannot_hold_are_written_with_a_replacement(mlp: Run, tmp_path: Path) -> None:
    found = mlp.explainer(None)(["\ud800oven"])
    reasons = found.explanations[0]
    with open(tmp_path / "a.parquet", "wb") as file:
        odd = Explanation(**{**vars(reasons), "label": "\ud800"})
        writer = Parquet(found.class_names, proba=False, notes=False, reasons=True)
        writer.write_part([(np.zeros(1, np.int64), type(found)(**{**vars(found), "explanations": (odd,)}))], file)
    (row,) = pyarrow.parquet.read_table(tmp_path / "a.parquet").to_pylist()
    assert row["reasons"]["label"] == "\ufffd"
    assert json.loads(odd.to_json())["label"] == "\ud800"


# The command


def test_the_command_prints_a_block_of_lines_for_each_text(mlp: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(mlp.path), "Oven oven bake", "", "--explain", "2", "--quiet"]) == 0
    first, second = capsys.readouterr().out.rstrip().split("\n\n")
    found, blank = mlp.explain(["Oven oven bake", ""], n=2)
    head, logit, *terms = first.splitlines()
    assert head == f"cooking  {found.probability:.4f}  Oven oven bake"
    assert logit == f"  logit {found.logit:.4f}, exact:"
    shown = [line.split() for line in terms]
    assert [float(cells[0]) for cells in shown] == pytest.approx(
        [*(each.contribution for each in found.reasons), found.others, found.rest], abs=6e-5
    )
    assert shown[-1][1:] == ["bias"]
    assert any("0-4, 5-9" in line for line in terms)
    assert second.splitlines()[-1].split() == [f"{blank.rest:+.4f}", "bias"]


def test_an_undecided_text_is_explained_by_its_most_probable_class(
    mlp: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(mlp.path, tmp_path / "run")
    run = Run.load(tmp_path / "run")
    never = Thresholds(rule=Rule.parse("max f1"), values=(2.0, 2.0, 2.0), rows=9, coverage=0.0, precision=0.0)
    save_thresholds(run, never, data="nothing")
    (found,) = run.explain(["Oven oven bake"])
    assert (found.predicted, found.label) == ("undecided", "cooking")
    assert main(["predict", str(run.path), "Oven oven bake", "--explain", "2", "--quiet"]) == 0
    head, logit, *_ = capsys.readouterr().out.splitlines()
    assert head == f"undecided  {found.probability:.4f}  Oven oven bake"
    assert logit == f"  logit {found.logit:.4f} of cooking, exact:"


def test_the_command_prints_an_object_per_text(mlp: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(mlp.path), *TEXTS, "--explain", "2", "--json", "--quiet"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["reasons"] for line in lines] == [json.loads(each.to_json()) for each in mlp.explain(TEXTS, n=2)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["a text", "--html", "a.html"], "give --explain N"),
        (["--input", "a.csv", "--output", "b.csv", "--explain", "2", "--html", "a.html"], "in two commands"),
        (["a text", "--explain", "2", "--csv-safe"], "--csv-safe is for CSV"),
        (["a text", "--explain", "0"], "'0' is not a number of terms"),
    ],
)
def test_options_that_do_not_go_together_are_refused(
    mlp: Run, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    try:
        code = main(["predict", str(mlp.path), *words])
    except SystemExit as left:
        code = left.code
    assert code == 2
    assert said in capsys.readouterr().err
