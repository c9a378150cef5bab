"""Laws of training on several devices: the same training as on one, to float tolerance, and resumable in every bit.

TensorFlow divides a processor into devices only before it is first used, so this needs a process of its own: this file
is the test and, run as a program, what is tested.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.forked import Forking
from support.sampled import sampled

pytestmark = pytest.mark.heavy
BATCH = 23  # of 300 rows: does not divide evenly, and 1 row is left for the last step, none of it for the second device
PAIR = ("CPU:0", "CPU:1")


class Seen:
    """What is found in processes of their own by functions of this file, or for kinds of shards, all by their names."""

    def __init__(self, forked: Forking, folder: Path) -> None:
        self._forked, self._folder = forked, folder
        self._found: dict[str, Any] = {}

    def __call__(self, what: str) -> dict[str, Any]:
        together = {what, *({"ngram", "resumed", "refused"} if what != "sequence" else ())}
        if what not in self._found:
            done = self._forked.run(Path(__file__).read_text(), self._folder, *together)
            assert done.returncode == 0, done.stderr.decode()
            self._found |= json.loads(done.stdout.splitlines()[-1])
        found: dict[str, Any] = self._found[what]
        return found


@pytest.fixture(scope="module")
def seen(forked: Forking, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    return Seen(forked, tmp_path_factory.mktemp("devices"))


@pytest.mark.parametrize("kind", sampled(["ngram", "sequence"]))
def test_training_on_two_devices_is_training_on_one(seen: Seen, kind: str) -> None:
    found = seen(kind)
    one, two = found["one"], found["two"]
    assert len(one) == len(two) == 2
    for before, now in zip(one, two, strict=True):
        assert now == pytest.approx(before, rel=1e-4)
        assert now["accuracy"] == before["accuracy"]  # counted, so every row exactly once
    assert len({epoch["loss"] for epoch in one}) == 2  # it did train


def test_a_training_on_two_devices_goes_on_as_if_it_had_not_been_interrupted(seen: Seen) -> None:
    found = seen("resumed")
    assert found["interrupted"]
    assert found["history"] == found["whole"]
    assert found["weights are equal"]


def test_a_device_that_is_not_there_is_refused(seen: Seen) -> None:
    found = seen("refused")
    assert found["missing"] == "there is no device 'GPU:7' for devices; available are CPU:0, CPU:1"
    assert found["twice"] == "devices CPU:0 CPU:0 names a device twice"
    assert "the model overrides train_step" in found["own step"]


def main(folder: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Train on one device and on two, and tell what came out, by name."""
    import tensorflow as tf

    (processor,) = tf.config.list_physical_devices("CPU")
    tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * 2)
    others = {"resumed": resumed, "refused": refused}
    return {name: others[name](folder) if name in others else both(folder, name) for name in names}


def options_of(**changes: Any) -> Any:
    from shardtrain.models.options import SepcnnOptions
    from shardtrain.training.options import FitOptions

    small = SepcnnOptions(blocks=1, filters=4, embedding_dim=6, dropout=0.0)
    common = {"batch_size": BATCH, "learning_rate": 0.01, "epochs": 2, "patience": 5, "sepcnn": small}
    return FitOptions(**{**common, **changes})


def shards_of(folder: Path, kind: str = "ngram") -> Any:
    from support.learnable import write_shards

    from shardtrain.loader.shards import open_shards

    if (folder / kind).exists():
        return open_shards(folder / kind)
    rows = 13 * BATCH + 1
    return open_shards(write_shards(folder / kind, kind=kind, rows=rows, num_features=24, noise=0.3))


def both(folder: Path, kind: str) -> dict[str, Any]:
    """Train on one device, and on two."""
    from shardtrain.models.options import MlpOptions
    from shardtrain.training.fit import fit

    changes: dict[str, Any] = {}
    if kind == "ngram":
        changes = {"mlp": MlpOptions(units=8, dropout=0.0), "class_weight": "balanced", "clip_norm": 0.1}
    shards, found = shards_of(folder, kind), {}
    for name, devices in (("one", PAIR[:1]), ("two", PAIR)):
        options = options_of(**changes, devices=devices)
        run = fit(shards, options, out=folder / f"{kind} on {name}", measures=["macro_f1", "log_loss"])
        lines = [line.split(",") for line in (run.path / "history.csv").read_text().splitlines()]
        found[name] = [dict(zip(lines[0], map(float, line), strict=True)) for line in lines[1:]]
    return found


def resumed(folder: Path) -> dict[str, Any]:
    """Train on two devices, and again with an interruption."""
    import keras
    import numpy as np

    from shardtrain.models.options import MlpOptions
    from shardtrain.training.fit import fit

    class Stop(keras.callbacks.Callback):
        left = 20

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            Stop.left -= 1
            if Stop.left == 0:
                os.kill(os.getpid(), signal.SIGTERM)

    shards, dropping = shards_of(folder), options_of(mlp=MlpOptions(units=8, dropout=0.2), devices=PAIR)
    interrupted = False
    runs = {}
    for name in ("whole", "resumed"):
        Stop.left = 20 if name == "resumed" else 10**9
        try:
            runs[name] = fit(shards, dropping, out=folder / name, callbacks=[Stop()])
        except KeyboardInterrupt:
            interrupted = True
            runs[name] = fit(shards, dropping, out=folder / name, callbacks=[Stop()], resume=True)
    models = [keras.saving.load_model(run.path / "model.keras") for run in runs.values()]
    weights = zip(*(model.get_weights() for model in models), strict=True)
    return {
        "interrupted": interrupted,
        "history": (folder / "resumed" / "history.csv").read_text(),
        "whole": (folder / "whole" / "history.csv").read_text(),
        "weights are equal": all(np.array_equal(one, other) for one, other in weights),
    }


def refused(folder: Path) -> dict[str, Any]:
    """What is said of devices that are not there, and of a model that has a step of its own."""
    import keras

    from shardtrain.errors import ShardtrainError
    from shardtrain.training.fit import fit
    from shardtrain.training.options import FitOptions

    shards = shards_of(folder)

    def refusal(**options: Any) -> str:
        try:
            fit(shards, FitOptions(**options), out=folder / "refused")
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

    return {
        "missing": refusal(devices=("CPU:0", "GPU:7")),
        "twice": refusal(devices=("CPU:0", "CPU:0")),
        "own step": refusal(devices=PAIR, model=own),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(main(Path(sys.argv[1]), sys.argv[2:])) + "\n")
