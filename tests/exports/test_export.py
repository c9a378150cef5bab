"""Laws of exports: other programs give the answers of the run, files appear whole, and what cannot be is refused."""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import tensorflow as tf
from support.bundled import NAMES, network_of
from support.sampled import sampled
from support.topics import EXPECTED, TEXTS, TOPICS, write_corpus
from support.training import fit

import shardtrain
from shardtrain.arrays.csr import Csr
from shardtrain.cli.main import main
from shardtrain.engine.network import Network
from shardtrain.errors import (
    MissingExtraError,
    ModelError,
    OutputExistsError,
    RunError,
    RunExistsError,
    StorageError,
    UsageError,
)
from shardtrain.exports import export as exporting
from shardtrain.exports import onnx_graph
from shardtrain.exports.bundle_reader import load
from shardtrain.exports.onnx_graph import onnx_content
from shardtrain.exports.options import FILES
from shardtrain.exports.saved_model import write_saved_model
from shardtrain.exports.weights_file import npz_content
from shardtrain.inference.network_model import NetworkModel
from shardtrain.inference.run import Run
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.training.options import FitOptions

FEATURES = 200
STRANGE = ["", "zzz qqq", "\udcff broken", "日本語 OVEN", " \n\t"]


def rows_of(count: int) -> Csr:
    """Sparse rows, a tenth of them empty."""
    draw = np.random.default_rng(count)
    dense = draw.random((count, FEATURES), np.float32) * (draw.random((count, FEATURES)) < 0.1)
    dense[::10] = 0
    rows, columns = np.nonzero(dense)
    indptr = np.searchsorted(rows, np.arange(count + 1))
    return Csr(dense[rows, columns], columns.astype(np.int32), indptr, dense.shape)


def answers(network: Network, x: Csr) -> tuple[Any, Any]:
    """Probabilities and classes that `Run.predict` gives of rows."""
    found = NetworkModel(network)(x)
    found = np.concatenate([1 - found, found], axis=1) if found.shape[1] == 1 else found
    return found, found.argmax(axis=1)


@pytest.mark.parametrize(("layers", "classes"), sampled([(1, 2), (2, 4), (3, 2)], (0, 1)))
def test_a_saved_model_answers_as_the_run_in_tensorflow(layers: int, classes: int, tmp_path: Path) -> None:
    network = network_of(FEATURES, classes, layers)
    write_saved_model(network, tmp_path / "model")
    serve = tf.saved_model.load(str(tmp_path / "model")).signatures["serving_default"]
    for count in (300, 1, 0):
        x = rows_of(count)
        found = serve(data=x.data, indices=x.indices, indptr=x.indptr)
        probabilities, best = answers(network, x)
        assert set(found) == {"probabilities", "class"}
        np.testing.assert_allclose(found["probabilities"], probabilities, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(found["class"], best)


@pytest.mark.parametrize(("layers", "classes"), [(1, 2), (1, 4), (2, 4), (3, 2)])
def test_an_onnx_graph_answers_as_the_run_in_onnxruntime(layers: int, classes: int) -> None:
    network = network_of(FEATURES, classes, layers)
    content = onnx_content(network, NAMES[:classes])
    assert content == onnx_content(network, NAMES[:classes])
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["class_names"]) == list(NAMES[:classes])
    for count in (300, 1):
        x = rows_of(count)
        found, classes_found = session.run(["probabilities", "class"], {"rows": x.toarray()})
        probabilities, best = answers(network, x)
        np.testing.assert_allclose(found, probabilities, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(classes_found, best)


@pytest.mark.parametrize(("layers", "classes"), [(1, 2), (3, 4)])
def test_arrays_are_the_weights(layers: int, classes: int, tmp_path: Path) -> None:
    network = network_of(FEATURES, classes, layers)
    (tmp_path / "a.npz").write_bytes(npz_content(network, NAMES[:classes]))
    with np.load(tmp_path / "a.npz", allow_pickle=False) as found:
        assert set(found) == {"class_names"} | {f"{each}_{n}" for each in ("kernel", "bias") for n in range(layers)}
        assert found["class_names"].tolist() == list(NAMES[:classes])
        for n in range(layers):
            np.testing.assert_array_equal(found[f"kernel_{n}"], network.kernels[n])
            np.testing.assert_array_equal(found[f"bias_{n}"], network.biases[n])
    with pytest.raises(ModelError, match="ends with a NUL"):
        npz_content(network, ["one", "two\0"])


def test_weights_for_which_a_graph_has_no_room_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_graph, "_MOST_BYTES", 1000)
    with pytest.raises(ModelError, match=r"3,284 weights, more than the 2 GiB of an ONNX file hold; use to savedmodel"):
        onnx_content(network_of(FEATURES), NAMES)


# Runs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("exports")
    build(write_corpus(root / "corpus", tuple(TOPICS)), root / "shards", BuildOptions(test="test.csv", workers=1))
    return root


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    with open_shards(folder / "shards") as shards:
        options = FitOptions(epochs=10, batch_size=16, learning_rate=0.02, mlp=MlpOptions(units=8))
        return fit(shards, options, out=folder / "run")


def labels_of(to: str, path: Path, run: Run, texts: list[str]) -> list[str]:
    """Classes that an export gives, from the texts or from the rows of the run's vectorizer."""
    if to == "bundle":
        return load(path).predict(texts)
    x, names = run.load_vectorizer().transform(texts), run.description.class_names
    assert isinstance(x, Csr)
    if to == "onnx":
        best = onnxruntime.InferenceSession(path).run(["class"], {"rows": x.toarray()})[0]
    elif to == "savedmodel":
        served = tf.saved_model.load(str(path)).signatures["serving_default"]
        best = served(data=x.data, indices=x.indices, indptr=x.indptr)["class"].numpy()
    else:
        arrays = np.load(path, allow_pickle=False)
        units = np.maximum(x.to_scipy() @ arrays["kernel_0"] + arrays["bias_0"], 0)
        best, names = (units @ arrays["kernel_1"] + arrays["bias_1"]).argmax(axis=1), arrays["class_names"]
    return [str(names[each]) for each in best]


@pytest.mark.parametrize("to", FILES)
def test_the_command_writes_what_gives_the_labels_of_predict(
    to: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", str(run.path), "--to", to]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].endswith(f"B: {FILES[to]}")
    assert [line.startswith("it is read by /") for line in out[1:]] == ([True] if to == "bundle" else [])
    expected = run.predict([*TEXTS, *STRANGE]).labels
    assert expected[:3] == EXPECTED
    assert labels_of(to, Path(FILES[to]), run, [*TEXTS, *STRANGE]) == expected
    assert main(["export", str(run.path), "--to", to, "--json", "--out", "deep/er/model"]) == 0
    facts = json.loads(capsys.readouterr().out)
    found = Path("deep/er/model")
    files = [path for path in found.rglob("*") if path.is_file()] if found.is_dir() else [found]
    assert facts["bytes"] == sum(path.stat().st_size for path in files)
    assert (facts["export"], facts["to"]) == ("deep/er/model", to)
    assert ("reader" in facts) == (to == "bundle")
    assert sorted(os.listdir("deep/er")) == ["model"]


def test_the_function_writes_what_the_command_writes(run: Run, tmp_path: Path) -> None:
    out = shardtrain.export(run, out=tmp_path / "a.bundle", weights="float16")
    assert out == tmp_path / "a.bundle"
    assert main(["export", str(run.path), "--weights", "float16", "--out", str(tmp_path / "b.bundle")]) == 0
    assert (tmp_path / "b.bundle").read_bytes() == out.read_bytes()
    assert shardtrain.export(str(run.path), to="numpy", out=str(tmp_path / "c.npz")).exists()
    bundle = load(out)
    assert bundle.class_names == list(run.description.class_names)
    assert bundle.header["vectorizer"] == run.description.vectorizer
    assert bundle.header["model_sha256"] == run.metrics["model_sha256"]


@pytest.mark.parametrize("to", FILES)
def test_what_is_there_is_replaced_only_if_asked(to: str, run: Run, folder: Path, tmp_path: Path) -> None:
    out = shardtrain.export(run, to=to, out=tmp_path / "model")
    assert shardtrain.export(run, to=to, out=out) == out, "the same once more changes nothing"
    names = tuple(reversed(run.description.class_names))
    about = type(run.description)(**{**vars(run.description), "class_names": names})
    other = Run(path=run.path, config=run.config, description=about, metrics=run.metrics)
    with pytest.raises(OutputExistsError, match=r"exists already; choose another out, or replace it with overwrite"):
        shardtrain.export(other, to=to, out=out)
    assert labels_of(to, out, run, TEXTS) == EXPECTED
    shardtrain.export(other, to=to, out=out, overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["model"]
    assert labels_of(to, out, other, TEXTS) == [names[run.description.class_names.index(name)] for name in EXPECTED]


def test_a_saved_model_that_lacks_a_file_is_written_again(run: Run, tmp_path: Path) -> None:
    out = shardtrain.export(run, to="savedmodel", out=tmp_path / "model")
    shutil.rmtree(out / "variables")
    shardtrain.export(run, to="savedmodel", out=out)
    assert labels_of("savedmodel", out, run, TEXTS) == EXPECTED


@pytest.mark.parametrize("to", FILES)
def test_files_of_the_run_are_not_replaced(to: str, run: Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(run.path)
    for out in (run.path / "model.keras", run.path / "vectorizer" / "x", tmp_path / "link" / "metrics.json"):
        with pytest.raises(RunExistsError, match="is a file of the run"):
            shardtrain.export(run, to=to, out=out, overwrite=True)


def test_places_where_nothing_is_written_are_refused(run: Run, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for to, place, said in (
        ("bundle", "link", "is a link"),
        ("savedmodel", "link", "which does not exist"),
        ("numpy", "folder", "is a folder"),
        ("onnx", "file/model", "is a file"),
        ("savedmodel", "file", "is a file"),
    ):
        with pytest.raises(UsageError, match=said):
            shardtrain.export(run, to=to, out=tmp_path / place, overwrite=True)
    with pytest.raises(OutputExistsError, match="holds other files than a SavedModel"):
        shardtrain.export(run, to="savedmodel", out=tmp_path / "folder", overwrite=True)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder", "link"]
    assert (tmp_path / "folder" / "mine.txt").read_text() == (tmp_path / "file").read_text() == "mine"


@pytest.mark.slow
def test_a_saved_model_that_is_interrupted_leaves_what_was_there(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"

    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    def full(staged: Path, _: Path) -> None:
        raise StorageError("no room")

    for function, error in ((interrupted, KeyboardInterrupt), (full, StorageError)):
        with monkeypatch.context() as patch:
            patch.setattr(exporting, "commit_folder", function)
            with pytest.raises(error):
                shardtrain.export(run, to="savedmodel", out=out)
        assert not out.exists()
    shardtrain.export(run, to="savedmodel", out=out)
    assert os.listdir(tmp_path) == ["model"]
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "commit_folder", interrupted)
        with pytest.raises(KeyboardInterrupt):
            shardtrain.export(run, to="savedmodel", out=out, overwrite=True)
    assert shardtrain.export(run, to="savedmodel", out=out) == out
    assert labels_of("savedmodel", out, run, TEXTS) == EXPECTED
    assert os.listdir(tmp_path) == ["model"]


def test_what_a_kill_left_is_put_right_by_the_next_export(run: Run, tmp_path: Path) -> None:
    out, working = shardtrain.export(run, to="savedmodel", out=tmp_path / "model"), tmp_path / ".model.exporting"
    for stage in ("before the old folder is set aside", "before the new one has its place", "before it is tidied up"):
        working.mkdir()
        (working / "job.json").write_text("{}")
        if stage != "before it is tidied up":
            (working / "staged").mkdir()
            (working / "staged" / "saved_model.pb").write_text("half")
        if stage == "before the new one has its place":
            out.rename(working / "replaced")
        elif stage == "before it is tidied up":
            (working / "replaced").mkdir()
        assert shardtrain.export(run, to="savedmodel", out=out) == out, stage
        assert os.listdir(tmp_path) == ["model"], stage
        assert labels_of("savedmodel", out, run, TEXTS) == EXPECTED, stage
    working.mkdir()
    (working / "mine.txt").write_text("mine")
    with pytest.raises(OutputExistsError, match=r"is not a folder that a SavedModel export made: it holds 'mine.txt'"):
        shardtrain.export(run, to="savedmodel", out=out, overwrite=True)


def test_a_temporary_folder_on_which_tensorflow_cannot_write_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise tf.errors.ResourceExhaustedError(None, None, "no space\nin lines")

    monkeypatch.setattr(tf.saved_model, "save", fails)
    with pytest.raises(StorageError, match=r"the temporary folder '/.*': no space; when the cause is removed"):
        write_saved_model(network_of(FEATURES), tmp_path / "model")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("to", FILES)
def test_another_model_is_refused_with_what_is_expected(
    to: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardtrain.engine.keras_file.network_shape", lambda path: None)
    with pytest.raises(ModelError, match=rf"is mlp over ngram features; to {to} expects a linear or mlp model over n-"):
        shardtrain.export(run, to=to, out=tmp_path / "model")
    assert not os.listdir(tmp_path)


def test_a_bundle_of_features_that_are_not_of_text_is_refused(run: Run, tmp_path: Path) -> None:
    about = type(run.description)(**{**vars(run.description), "vectorizer": ""})
    tables = Run(path=run.path, config=run.config, description=about, metrics=run.metrics)
    with pytest.raises(RunError, match="features that were not made from text"):
        shardtrain.export(tables, out=tmp_path / "model")
    assert shardtrain.export(tables, to="numpy", out=tmp_path / "model.npz").exists()


def test_a_missing_package_and_options_without_effect_are_refused(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtraError, match=r"package 'onnx'; install it with `pip install 'shardtrain\[onnx\]'`"):
        shardtrain.export(run, to="onnx", out=tmp_path / "model")
    with pytest.raises(UsageError, match="weights is for to bundle; to numpy has float32 weights"):
        shardtrain.export(run, to="numpy", weights="float16")
    with pytest.raises(UsageError, match="to is 'tflite'; choose one of bundle, numpy, savedmodel, onnx"):
        shardtrain.export(run, to="tflite")
