"""A traced function takes its tensors at once: TensorFlow does not fail to bind them first."""

from __future__ import annotations

import sys
from pathlib import Path
from types import CodeType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from support.learnable import write_shards
from support.training import fit
from tensorflow.python.eager.polymorphic_function.concrete_function import ConcreteFunction

from shardtrain.inference.keras_model import KerasModel
from shardtrain.inference.keras_reasons import KerasReasons
from shardtrain.loader.shards import open_shards
from shardtrain.models.options import MlpOptions, SepcnnOptions
from shardtrain.models.tracing import traced
from shardtrain.training import keras_engine
from shardtrain.training.options import FitOptions


@pytest.fixture(autouse=True)
def _bound_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def second_try(*_: Any) -> None:
        raise AssertionError("the tensors could not be bound")

    monkeypatch.setattr(ConcreteFunction, "_call_with_flat_signature", second_try)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_it_computes_what_the_function_does(number: int) -> None:
    spec = tf.TensorSpec((None,), tf.float32)
    tensors = tuple(tf.constant([1.0, 10.0]) * each for each in range(number))
    np.testing.assert_array_equal(
        traced(lambda *given: tf.add_n([tf.ones(2), *given]), [spec] * number)(tensors),
        [1 + sum(range(number)), 1 + 10 * sum(range(number))],
    )


def test_the_function_runs_as_it_is_written() -> None:
    def function() -> tf.Tensor:
        codes.append(sys._getframe().f_code)
        return tf.ones(1)

    codes: list[CodeType] = []
    traced(function, [])
    assert codes == [function.__code__]


@pytest.mark.parametrize(("kind", "at_once"), [("ngram", 1000), ("sequence", 1)])
def test_steps_of_training_and_what_uses_a_model_bind_them_at_once(
    kind: str, at_once: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras_engine, "MULTI_STEP_FROM", at_once)
    with open_shards(write_shards(tmp_path / "shards", kind=kind, rows=300)) as shards:
        small: dict[str, Any] = {
            "ngram": {"mlp": MlpOptions(units=4)},
            "sequence": {"sepcnn": SepcnnOptions(blocks=1, filters=4)},
        }
        options = FitOptions(engine="keras", epochs=1, batch_size=32, **small[kind])
        run = fit(shards, options, out=tmp_path / "run")
        x, y = shards.validation.rows(0, 9)
        model = run.load_model()
        assert len(KerasModel(model, run.description, "probabilities")(x)) == 9
        if kind == "sequence":
            assert len(KerasReasons(model, run.description, "probabilities")(x, y).scores) == 9
