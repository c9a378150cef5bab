"""Laws of runs that answer without Keras: their answers are Keras', and nothing imports it or TensorFlow."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from scipy.sparse import random as random_rows
from support.resealing import write_metrics
from support.sampled import sampled
from support.topics import EXPECTED, TEXTS, TOPICS, write_corpus
from support.training import fit

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples
from shardtrain.cli.main import main
from shardtrain.engine.keras_file import write_keras
from shardtrain.engine.network import Network, Shape
from shardtrain.errors import ModelError, RunError, ShardsError
from shardtrain.inference import keras_model, network_model
from shardtrain.inference.evaluate import evaluate_corpus
from shardtrain.inference.keras_model import KerasModel
from shardtrain.inference.network_model import NetworkModel
from shardtrain.inference.run import Run, load_run
from shardtrain.loader.info import DatasetInfo
from shardtrain.loader.shards import open_shards
from shardtrain.models.guide import compile_model
from shardtrain.models.options import MlpOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import METRICS, MODEL, sha256

FEATURES = 300
STRANGE = ["", "zzz qqq", "\udcff broken", "日本語", " \n\t"]


def rows_of(rows: int, seed: int = 0) -> Csr:
    """Sparse rows, a tenth of them empty."""
    x = random_rows(rows, FEATURES, 0.1, "lil", np.float32, random_state=np.random.default_rng(seed))
    x[::10] = 0
    x = x.tocsr()
    x.eliminate_zeros()
    x.sort_indices()
    return Csr(x.data, x.indices, x.indptr.astype(np.int64), x.shape)


def ignore(y: Any, probabilities: Any) -> None:
    """Do nothing with a batch."""


def both(path: Path, layers: int, classes: int) -> tuple[Network, keras.Model, DatasetInfo]:
    """A network far from its first weights, and its file as Keras loads it."""
    network = Network(Shape.of(FEATURES, classes, layers, 16))
    network.initialize(classes)
    network.wide *= 8
    network.small += np.random.default_rng(3).normal(0, 0.5, network.small.shape).astype(np.float32)
    with open(path, "wb") as file:
        write_keras(file, network, name="mlp", dropout=0.2)
    model = keras.saving.load_model(path)
    about = DatasetInfo(
        kind="ngram",
        num_features=FEATURES,
        vocabulary_size=FEATURES,
        class_names=tuple(map(str, range(classes))),
        num_train=1,
        num_validation=1,
        vectorizer="",
        fingerprint="",
    )
    compile_model(model, network.shape.dims[-1], 0.0, None)
    return network, model, about


@pytest.mark.parametrize(("layers", "classes"), sampled([(1, 5), (2, 2), (3, 5), (1, 2), (2, 5), (3, 2)], (0, 1, 2)))
def test_probabilities_and_metrics_are_those_of_keras(tmp_path: Path, layers: int, classes: int) -> None:
    network, model, about = both(tmp_path / "a.keras", layers, classes)
    ours, theirs = NetworkModel(network), KerasModel(model, about, "probabilities")
    for x in (rows_of(500), rows_of(1), rows_of(0)):
        found, expected = ours(x), theirs(x)
        assert found.shape == expected.shape == (len(x), network.shape.dims[-1])
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))

    def batches() -> Iterator[Examples]:
        for seed, rows in enumerate((200, 200, 31)):
            yield rows_of(rows, seed), np.random.default_rng(seed).integers(0, classes, rows).astype(np.uint16)

    metrics = network_model.evaluate(network, batches(), ignore)
    assert metrics == pytest.approx(keras_model.evaluate(model, about, batches(), ignore), rel=1e-6)


def test_many_threads_get_the_answers_of_one(tmp_path: Path) -> None:
    network, _, _ = both(tmp_path / "a.keras", 2, 5)
    model, parts = NetworkModel(network), [rows_of(90, seed) for seed in range(40)]
    expected = [model(x) for x in parts]
    with ThreadPoolExecutor(8) as pool:
        assert all(np.array_equal(one, two) for one, two in zip(pool.map(model, parts), expected, strict=True))


def test_rows_that_the_network_does_not_take_are_refused(tmp_path: Path) -> None:
    network, _, _ = both(tmp_path / "a.keras", 2, 5)
    x, model = rows_of(20), NetworkModel(network)
    y = np.zeros(20, np.int64)
    outside = x.indices.copy()
    outside[7] = FEATURES
    below = x.indices.copy()
    below[7] = -1
    for wrong, said in (
        (Csr(x.data, x.indices, x.indptr, (20, FEATURES + 1)), "sparse ones of 301 features"),
        (x.toarray(), "dense ones of 300 features"),
        (Csr(x.data, outside, x.indptr, x.shape), "outside"),
        (Csr(x.data, below, x.indptr, x.shape), "outside"),
    ):
        with pytest.raises((ModelError, ShardsError), match=said):
            model(wrong)  # type: ignore[arg-type]
        with pytest.raises((ModelError, ShardsError), match=said):
            network_model.evaluate(network, [(wrong, y)], ignore)  # type: ignore[list-item]


def test_weights_that_are_not_finite_give_no_probabilities(tmp_path: Path, trained: dict[str, Run]) -> None:
    for value in (np.nan, np.inf, -np.inf):
        network, _, about = both(tmp_path / "a.keras", 1, 5)
        network.wide[:] = value
        classifier = trained["fused"].classifier()
        classifier._model, classifier.class_names = NetworkModel(network), about.class_names
        with pytest.raises(ModelError, match=r"weights of .* are not finite"):
            classifier.classify_rows(rows_of(20))


# Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("networks")
    build(write_corpus(root / "corpus", tuple(TOPICS)), root / "shards", BuildOptions(test="test.csv", workers=1))
    return root


@pytest.fixture(scope="module")
def trained(folder: Path) -> dict[str, Run]:
    options: dict[str, Any] = {"epochs": 10, "batch_size": 16, "learning_rate": 0.02, "mlp": MlpOptions(units=8)}
    with open_shards(folder / "shards") as shards:
        return {
            engine: fit(shards, FitOptions(engine=engine, **options), out=folder / engine)
            for engine in ("fused", "keras")
        }


ENGINES = ["fused", "keras"]


@pytest.fixture(params=ENGINES)
def run(request: pytest.FixtureRequest, trained: dict[str, Run]) -> Run:
    return trained[request.param]


@pytest.fixture
def through_keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes runs answer with Keras, whatever their model is."""

    def through() -> None:
        monkeypatch.setattr("shardtrain.engine.keras_file.network_shape", lambda path: None)

    return through


def test_a_run_s_answers_are_those_of_keras(run: Run, folder: Path, through_keras: Any) -> None:
    assert not run.needs_keras
    texts = [*TEXTS, *STRANGE]
    found, metrics = run.predict(texts), run.evaluate(folder / "shards", split="test")
    assert found.labels[:3] == EXPECTED
    through_keras()
    assert run.needs_keras
    expected = run.predict(texts)
    np.testing.assert_allclose(found.probabilities, expected.probabilities, rtol=0, atol=1e-6)
    assert (found.labels, found.notes) == (expected.labels, expected.notes)
    assert metrics == pytest.approx(run.evaluate(folder / "shards", split="test"), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("run", ENGINES, indirect=True)
def test_the_commands_print_what_they_print_with_keras(
    run: Run, folder: Path, through_keras: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, shards, corpus = str(run.path), str(folder / "shards"), str(folder / "corpus" / "test.csv")
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS * 3))
    commands = [
        ["predict", path, *TEXTS, "", "zzz"],
        ["predict", path, "--input", str(tmp_path / "texts.txt"), "--notes"],
        ["predict", path, "--input", corpus, "--output", "-"],
        *(["evaluate", path, shards, "--split", split] for split in ("train", "test")),
        ["evaluate", path, corpus],
        ["report", path, "--out", str(tmp_path / "report.html")],
    ]

    def printed() -> list[str]:
        outputs = []
        for command in commands:
            assert main(command) == 0
            outputs.append(capsys.readouterr().out)
        return outputs

    found = printed()
    through_keras()
    for one, two in zip(printed()[:-1], found[:-1], strict=True):  # files have six digits, of which the last is rounded
        assert len(one.splitlines()) == len(two.splitlines()) > 0
        for ours, theirs in zip(re.split(r"[,\t\n]", one), re.split(r"[,\t\n]", two), strict=True):
            assert ours == theirs or float(ours) == pytest.approx(float(theirs), abs=1.1e-6)


WITHOUT = """
import contextlib, io, pickle, sys
from pathlib import Path
from shardtrain.cli.main import main
from shardtrain.inference.run import load_run
from shardtrain.loader.shards import open_shards

root, classifier, *paths = sys.argv[1:]
shards, corpus = f"{root}/shards", f"{root}/corpus/test.csv"
with contextlib.redirect_stdout(io.StringIO()):
    main(["predict", paths[0], "a text"])
names = (".explain", ".attribution", ".places", ".reasons_page")
print(*[name for name in sys.modules if name.startswith("shardtrain") and name.endswith(names)])
for path in paths:
    commands = [
        ["predict", path, "bake the flour with butter"],
        ["predict", path, "--input", corpus],
        ["predict", path, "--input", corpus, "--output", f"{path}.csv", "--overwrite"],
        ["predict", path, "--input", corpus, "--output", "-"],
        ["evaluate", path, shards],
        ["evaluate", path, corpus],
        ["report", path, "--out", f"{path}.html"],
    ]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        assert [main(command) for command in commands] == [0] * len(commands)
    print(printed.getvalue().partition("\\t")[0])
    run = load_run(path)
    run.predict(["bake the flour"])
    next(run.predict_batches(["bake"]))
    with open_shards(shards) as opened:
        run.evaluate(opened)
        run.classifier().classify_rows(opened.validation.rows(0, 5)[0])
print(pickle.loads(Path(classifier).read_bytes()).predict(["bake the flour with butter"])[0])
print(*{"tensorflow", "keras"} & set(sys.modules))
"""


@pytest.mark.heavy
def test_what_uses_a_run_imports_neither_keras_nor_tensorflow_and_predict_nothing_that_explains(
    trained: dict[str, Run], folder: Path, tmp_path: Path
) -> None:
    from shardtrain.sklearn import ShardClassifier

    texts = [" ".join(words[number:]) for words in TOPICS.values() for number in range(5)]
    topics = [topic for topic in TOPICS for _ in range(5)]
    classifier = ShardClassifier(epochs=30, batch_size=4, learning_rate=0.05, units=8).fit(texts, topics)
    (tmp_path / "classifier").write_bytes(pickle.dumps(classifier))
    paths = [folder, tmp_path / "classifier", *(trained[engine].path for engine in ENGINES)]
    command = [sys.executable, "-c", WITHOUT, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "KERAS_BACKEND": "torch"})
    assert done.returncode == 0, done.stderr
    assert done.stdout == "\ncooking\ncooking\ncooking\n\n"


def test_a_run_of_a_user_s_model_needs_keras(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def logits(description: DatasetInfo) -> keras.Model:
        inputs = keras.Input((description.num_features,), sparse=True)
        return keras.Model(inputs, keras.layers.Dense(3)(inputs))

    with open_shards(folder / "shards") as shards:
        run = fit(shards, FitOptions(model=logits, epochs=1), out=tmp_path / "run")
    assert run.needs_keras
    assert run.load_network() is None
    np.testing.assert_allclose(run.predict(TEXTS).probabilities.sum(axis=1), 1, rtol=1e-6)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    monkeypatch.delitem(sys.modules, "keras")  # once it is imported, the variable decides nothing
    capsys.readouterr()
    assert main(["predict", str(run.path), TEXTS[0]]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: KERAS_BACKEND is 'torch', but shardtrain needs Keras on TensorFlow: run")


def test_a_model_for_other_features_or_classes_or_of_logits_is_left_to_keras(run: Run, tmp_path: Path) -> None:
    for change in ({"num_features": 7, "vocabulary_size": 7}, {"class_names": ("a", "b")}):
        about = DatasetInfo(**{**vars(run.description), **change})
        assert Run(path=run.path, config=run.config, description=about, metrics=run.metrics).needs_keras
    config = {**run.config, "outputs": "logits"}
    assert Run(path=run.path, config=config, description=run.description, metrics=run.metrics).needs_keras


@pytest.mark.parametrize("what", ["predict", "evaluate"])
def test_a_flipped_bit_of_the_model_is_noticed_before_it_answers(
    run: Run, folder: Path, tmp_path: Path, what: str
) -> None:
    shutil.copytree(run.path, tmp_path / "run")
    content = bytearray((tmp_path / "run" / "model.keras").read_bytes())
    for place in (len(content) // 2, 40, len(content) - 60):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "run" / "model.keras").write_bytes(damaged)
        with pytest.raises(RunError, match="is damaged: its SHA-256"):
            load_run(tmp_path / "run").predict(TEXTS) if what == "predict" else load_run(tmp_path / "run").evaluate(
                folder / "shards"
            )


@pytest.mark.parametrize("engine", ["fused", "keras"])
def test_weights_that_are_not_finite_are_named_by_all_that_use_them(
    tmp_path: Path, engine: str, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = write_corpus(tmp_path / "corpus", tuple(TOPICS), documents=60)
    build(corpus, tmp_path / "shards", BuildOptions(workers=1, max_features=30))
    options = FitOptions(epochs=1, mlp=MlpOptions(units=4), engine=engine)
    with open_shards(tmp_path / "shards") as shards:
        run = fit(shards, options, out=tmp_path / "run")
    model = run.load_model()
    model.set_weights([np.full_like(weight, np.nan) for weight in model.get_weights()])
    model.save(run.path / MODEL)
    write_metrics(run.path / METRICS, {**run.metrics, "model_sha256": sha256(run.path / MODEL)})
    texts = tmp_path / "corpus" / "train.csv"
    for command in (["predict", run.path, TEXTS[0]], ["evaluate", run.path, tmp_path / "shards"]):
        assert main([*map(str, command)]) == 1
        assert f"weights of '{run.path}' are not finite; restore the run from a copy" in capsys.readouterr().err
    with pytest.raises(ModelError, match="are not finite"):
        evaluate_corpus(load_run(run.path), texts)
