"""Laws of `import shardtrain`: it stays light, the verbs are where they are said to be, and do what the commands do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import keras
import numpy as np
import pytest
from support.topics import EXPECTED, TEXTS, TOPICS, write_corpus

import shardtrain
from shardtrain.cli.main import main
from shardtrain.errors import ShardsExistError, ShardsNotFoundError, UsageError
from shardtrain.models.options import MlpOptions


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("api")
    write_corpus(folder / "corpus", tuple(TOPICS))
    return folder


@pytest.mark.heavy
def test_importing_it_imports_nothing_heavy_and_rooms_do_not_hide_the_verbs() -> None:
    script = """
import sys, shardtrain
assert not {"numpy", "h5py", "numba", "tensorflow", "sklearn"} & {name.split(".")[0] for name in sys.modules}
assert set(shardtrain.__all__) <= set(dir(shardtrain))
import shardtrain.pipeline.build
assert shardtrain.build.__name__ == "build" and shardtrain.build.__module__ == "shardtrain.api"
"""
    subprocess.run([sys.executable, "-c", script], check=True)
    import shardtrain.training.fit

    assert (shardtrain.fit.__name__, shardtrain.fit.__module__) == ("fit", "shardtrain.api")
    assert not any(isinstance(getattr(shardtrain, name), ModuleType) for name in shardtrain.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        _ = shardtrain.bild


@pytest.mark.heavy
def test_from_a_corpus_to_predictions_in_python(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    shards = shardtrain.build("corpus", workers=1, ngram_range=(1, 1), label_column=0)
    assert shards.path == Path("data/shards")
    assert main(["build", "corpus", "--out", "same", "--ngram-range", "1", "1", "--label-column", "0"]) == 0
    with shardtrain.open_shards("same") as same:
        assert same.description == shards.description
    run = shardtrain.fit(shards, epochs=15, batch_size=16, learning_rate=0.02, mlp=MlpOptions(units=8))
    assert run.path == Path("runs/mlp-1")
    assert run.predict(TEXTS).labels == EXPECTED
    again = shardtrain.fit(
        "data/shards", out="again", epochs=15, batch_size=16, learning_rate=0.02, mlp=MlpOptions(units=8)
    )
    loaded = shardtrain.Run.load(again.path)
    np.testing.assert_array_equal(loaded.predict(TEXTS).probabilities, run.predict(TEXTS).probabilities)
    vectorizer: shardtrain.Vectorizer = shardtrain.load_vectorizer(run.path / "vectorizer")
    assert vectorizer.transform(TEXTS).shape == (3, shards.description.num_features)


def test_what_is_refused_on_the_command_line_is_refused_in_python(folder: Path) -> None:
    shardtrain.build(folder / "corpus", folder / "refused", workers=1)
    with pytest.raises(ShardsExistError):
        shardtrain.build(folder / "corpus", folder / "refused")
    with pytest.raises(UsageError, match="column -1"):
        shardtrain.build(folder / "corpus", folder / "other", label_column=-1)
    with pytest.raises(UsageError, match="epochs is 0"):
        shardtrain.fit(folder / "refused", epochs=0)
    with pytest.raises(UsageError, match="'mlp' are given, and 'linear' is trained; omit mlp"):
        shardtrain.fit(folder / "refused", out=folder / "unmade", model="linear", mlp=MlpOptions(units=3))
    with pytest.raises(UsageError, match="'sepcnn' are given, and 'mlp' is trained"):
        shardtrain.fit(folder / "refused", out=folder / "unmade", sepcnn={"blocks": 3})
    for wrong in ("x", 3, [keras.callbacks.Callback]):
        with pytest.raises(UsageError, match=r"callbacks is .*; expected a list of keras.callbacks.Callback"):
            shardtrain.fit(folder / "refused", out=folder / "unmade", callbacks=wrong)  # type: ignore[arg-type]
    assert not (folder / "unmade").exists()
    with pytest.raises(ShardsNotFoundError, match=r"build shards with `shardtrain.build\(CORPUS, out='.*none'\)`"):
        shardtrain.fit(folder / "none")
    with pytest.raises(TypeError, match="ngram"):
        shardtrain.build(folder / "corpus", folder / "other", ngram=(1, 2))  # type: ignore[call-arg]


def test_callbacks_hear_of_training(folder: Path) -> None:
    heard: list[int] = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: heard.append(epoch))
    with shardtrain.build(folder / "corpus", folder / "heard", workers=1) as shards:
        run = shardtrain.fit(shards, out=folder / "run", epochs=1, callbacks=[callback])
        assert repr(shards).startswith(f"<Shards '{folder / 'heard'}': ")
        assert f" of {len(TOPICS)} classes, " in repr(shards)
    assert heard == [0]
    with pytest.raises(ShardsNotFoundError, match="is the folder of a run, not of shards"):
        shardtrain.open_shards(run.path)


def test_notebooks_see_tables_in_which_nothing_is_markup(folder: Path) -> None:
    (folder / "odd.jsonl").write_text(
        "".join(f'{{"label": "<b>{number % 2}", "text": "oven mast {number % 2}"}}\n' for number in range(40))
    )
    shards = shardtrain.build(folder / "odd.jsonl", folder / "odd", workers=1)
    run = shardtrain.fit(shards, out=folder / "odd run", epochs=1)
    for shown in (shards._repr_html_(), run._repr_html_()):
        assert "<b>" not in shown
        assert "2: &lt;b&gt;0, &lt;b&gt;1" in shown
        assert shown.count("<tr>") == shown.count("</tr>") >= 5
    assert f"{run.metrics['val_accuracy']:.4f}" in run._repr_html_()
