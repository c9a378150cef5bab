"""Laws of training on several devices: the same training as on one, to float tolerance, and resumable in every bit.

TensorFlow divides a processor into devices only before it is first used, so this needs a process of its own: this file
is the test and, run as a program, what is tested.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from support.forked import Forking

pytestmark = pytest.mark.heavy
BATCH = 23  # of 300 rows: does not divide evenly, and 1 row is left for the last step, none of it for the second device
PAIR = ("CPU:0", "CPU:1")


@pytest.fixture(scope="module")
def seen(forked: Forking, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("replicas")
    done = forked.run(Path(__file__).read_text(), folder)
    assert done.returncode == 0, done.stderr.decode()
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("kind", ["ngram", "sequence"])
def test_training_on_two_devices_is_training_on_one(seen: dict[str, Any], kind: str) -> None:
    one, two = seen[kind]["one"], seen[kind]["two"]
    assert len(one) == len(two) == 3
    for before, now in zip(one, two, strict=True):
        assert now == pytest.approx(before, rel=1e-4)
        assert now["accuracy"] == before["accuracy"]  # counted, so every row exactly once
    assert len({epoch["loss"] for epoch in one}) == 3  # it did train


def test_a_training_on_two_devices_goes_on_as_if_it_had_not_been_interrupted(seen: dict[str, Any]) -> None:
    assert seen["resumed"]["interrupted"]
    assert seen["resumed"]["history"] == seen["resumed"]["whole"]
    assert seen["resumed"]["weights are equal"]


def test_a_device_that_is_not_there_is_refused(seen: dict[str, Any]) -> None:
    assert seen["missing"] == "there is no device 'GPU:7' for devices; available are CPU:0, CPU:1"
    assert seen["twice"] == "devices CPU:0 CPU:0 names a device twice"
    assert "the model overrides train_step" in seen["own step"]


def main(folder: Path) -> dict[str, Any]:
    """Train on one device and on two, and tell what came out."""
    import tensorflow as tf

    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)

    import keras
    import numpy as np
    from support.learnable import write_shards

    from shardtrain.errors import ShardtrainError
    from shardtrain.loader.shards import open_shards
    from shardtrain.models.options import MlpOptions, SepcnnOptions
    from shardtrain.training.fit import fit
    from shardtrain.training.options import FitOptions

    rows = 13 * BATCH + 1
    shards = {
        kind: open_shards(write_shards(folder / kind, kind=kind, rows=rows, num_features=24, noise=0.3))
        for kind in ("ngram", "sequence")
    }
    common: dict[str, Any] = {
        "batch_size": BATCH,
        "learning_rate": 0.01,
        "epochs": 3,
        "patience": 5,
        "sepcnn": SepcnnOptions(blocks=1, filters=4, embedding_dim=6, dropout=0.0),
    }
    kinds = {
        "ngram": {**common, "mlp": MlpOptions(units=8, dropout=0.0), "class_weight": "balanced", "clip_norm": 0.1},
        "sequence": common,
    }

    def history(kind: str, out: str, **options: Any) -> Any:
        run = fit(shards[kind], FitOptions(**options), out=folder / out, measures=["macro_f1", "log_loss"])
        lines = [line.split(",") for line in (run.path / "history.csv").read_text().splitlines()]
        return [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]

    found: dict[str, Any] = {
        kind: {
            "one": history(kind, f"{kind}-1", **options, devices=("CPU:0",)),
            "two": history(kind, f"{kind}-2", **options, devices=PAIR),
        }
        for kind, options in kinds.items()
    }

    class Stop(keras.callbacks.Callback):
        left = 20

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            Stop.left -= 1
            if Stop.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    dropping = FitOptions(**common, mlp=MlpOptions(units=8, dropout=0.2), devices=PAIR)
    interrupted = False
    runs = {}
    for name in ("whole", "resumed"):
        Stop.left = 20 if name == "resumed" else 10**9
        try:
            runs[name] = fit(shards["ngram"], dropping, out=folder / name, callbacks=[Stop()])
        except KeyboardInterrupt:
            interrupted = True
            runs[name] = fit(shards["ngram"], dropping, out=folder / name, callbacks=[Stop()], resume=True)
    models = [keras.saving.load_model(run.path / "model.keras") for run in runs.values()]
    weights = zip(*(model.get_weights() for model in models), strict=True)
    found["resumed"] = {
        "interrupted": interrupted,
        "history": (folder / "resumed" / "history.csv").read_text(),
        "whole": (folder / "whole" / "history.csv").read_text(),
        "weights are equal": all(np.array_equal(one, other) for one, other in weights),
    }

    def refusal(**options: Any) -> str:
        try:
            fit(shards["ngram"], FitOptions(**options), out=folder / "refused")
        except ShardtrainError as error:
            return str(error)
        return "not refused"

    @keras.saving.register_keras_serializable()
    class OwnStep(keras.Model):
        def train_step(self, data: Any) -> Any:
            return super().train_step(data)

    def own(description: Any) -> keras.Model:
        inputs = keras.Input((description.num_features,), sparse=True)
        outputs = keras.layers.Dense(description.num_classes, activation="softmax")(inputs)
        return OwnStep(inputs, outputs)

    found["missing"] = refusal(devices=("CPU:0", "GPU:7"))
    found["twice"] = refusal(devices=("CPU:0", "CPU:0"))
    found["own step"] = refusal(devices=PAIR, model=own)
    return found


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]))) + "\n")
