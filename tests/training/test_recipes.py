"""Laws of what a training decides by itself: what is given stays, and the engine is the one that has what is asked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.learnable import write_shards

from shardtrain.errors import UsageError
from shardtrain.inference.run import load_run
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.options import defaults_of
from shardtrain.training.fit import fit
from shardtrain.training.options import FitOptions
from shardtrain.training.recipes import FAST_RATES, GUIDE, MANY_ROWS, MAX_EPOCHS, MIN_STEPS, choose

OPEN = {
    "batch_size": st.integers(1, 1000),
    "learning_rate": st.floats(1e-4, 10),
    "epochs": st.integers(1, 50),
    "patience": st.integers(1, 5),
    "optimizer": st.sampled_from(["adam", "adagrad", "sgd"]),
    "schedule": st.sampled_from(["constant", "linear"]),
    "scaling": st.just("none"),
}


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Shards:
    return open_shards(write_shards(tmp_path_factory.mktemp("shards") / "ngram", rows=300, noise=0.2))


@given(
    options=st.fixed_dictionaries({}, optional=OPEN),
    engine=st.sampled_from(["auto", "fused", "keras"]),
    recipe=st.sampled_from(["auto", "guide"]),
    model=st.sampled_from(["mlp", "linear"]),
    rows=st.integers(1, 3_000_000),
)
def test_what_is_given_stays_and_the_rest_is_decided(
    shards: Shards, options: dict[str, Any], engine: str, recipe: str, model: str, rows: int
) -> None:
    description = replace(shards.description, num_train=rows)
    chosen, missing = choose(FitOptions(**options, engine=engine, recipe=recipe), model, description)
    assert {name: getattr(chosen, name) for name in options} == options
    assert all(getattr(chosen, name) is not None for name in OPEN)
    assert not missing
    assert chosen.engine == ("keras" if engine == "keras" else "fused")
    assert chosen.recipe == ("guide" if engine == "keras" or recipe == "guide" else "fast")
    if chosen.recipe == "guide":
        decided = {name for name in OPEN if name not in options}
        if chosen.engine == "fused" and options.get("optimizer", "adam") != "adam":  # of which the guide has no rate
            decided.discard("learning_rate")
        assert all(getattr(chosen, name) == GUIDE[name] for name in decided)
    else:
        if "learning_rate" not in options:
            assert chosen.learning_rate == FAST_RATES[model][chosen.optimizer]
        if "epochs" not in options:
            steps = chosen.epochs * -(-rows // chosen.batch_size)
            assert rows >= MANY_ROWS or chosen.epochs == MAX_EPOCHS or steps >= MIN_STEPS
    again, _ = choose(chosen, model, description)
    assert again == chosen  # what is decided is not decided anew


@pytest.mark.parametrize(
    ("asked", "callbacks", "said"),
    [
        ({"mixed_precision": True}, [], "--mixed-precision"),
        ({"devices": ("CPU:0",)}, [], "--devices"),
        ({}, [object()], "callbacks of Keras"),
    ],
)
def test_keras_trains_what_the_fused_engine_does_not_have(
    shards: Shards, asked: dict[str, Any], callbacks: list[Any], said: str
) -> None:
    chosen, missing = choose(FitOptions(**asked), "mlp", shards.description, callbacks)
    assert (chosen.engine, chosen.recipe, missing) == ("keras", "guide", said)
    with pytest.raises(UsageError, match=f"not with {said.replace('-', '_').strip('_')[:7]}|{said}"):
        choose(FitOptions(**asked, engine="fused"), "mlp", shards.description, callbacks)
    with pytest.raises(UsageError, match=r"lazy.adam.* is for the fused engine, which does not train with"):
        choose(FitOptions(**asked, optimizer="lazy-adam"), "mlp", shards.description, callbacks)


def test_models_of_users_and_sequences_are_trained_by_keras(shards: Shards) -> None:
    sequences = replace(shards.description, kind="sequence")
    for name, description in (("sepcnn", sequences), ("module:function", shards.description)):
        chosen, missing = choose(FitOptions(), name, description)
        assert chosen.engine == "keras"
        assert name in missing


@pytest.mark.parametrize("given", [{"scaling": "naive-bayes"}, {"recipe": "fast"}, {"optimizer": "row-adagrad"}])
def test_what_only_the_fused_engine_has_is_refused_for_keras(given: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="fused"):
        FitOptions(engine="keras", **given)


def test_the_run_records_what_was_decided(shards: Shards, tmp_path: Path) -> None:
    run = load_run(fit(shards, FitOptions(epochs=1), out=tmp_path / "run").path)
    recorded = run.config["options"]
    assert recorded["engine"] == "fused"
    assert recorded["recipe"] == "fast"
    assert recorded["optimizer"] == "lazy-adam"
    assert all(recorded[name] is not None for name in defaults_of(FitOptions) if name in OPEN)


def test_weights_that_no_memory_holds_are_refused_before_a_folder_is_made(
    shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shardtrain.training.fused.memory_bytes", lambda: 10_000)
    with pytest.raises(UsageError, match=r"more than the 10\.0 kB that there are"):
        fit(shards, FitOptions(), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_guide_is_learnt_from_as_keras_does(shards: Shards, tmp_path: Path) -> None:
    found = [
        load_run(fit(shards, FitOptions(recipe="guide", engine=engine, epochs=30), out=tmp_path / engine).path).metrics
        for engine in ("fused", "keras")
    ]
    assert found[0]["val_loss"] == pytest.approx(found[1]["val_loss"], abs=0.05)
    assert np.isfinite(found[0]["val_loss"])
