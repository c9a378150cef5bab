"""Ways to train a linear model or an mlp of 64 units on rows in memory, for the table of `training.py`.

A way takes a round at a time: a pass over the rows, or what its library does in one call. It returns the rows per
second of the training alone: no drawing, no first weights, no tracing. Ours and Keras take rows in batches in the order
drawn and end a round at a time limit, so that what moves all weights in each step can be measured too; accuracy is then
unknown. The peers read one row at a time and have no batches; fastText's and Vowpal Wabbit's rounds are whole trainings
in another process (`training_peers.py`).
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import keras
import numpy as np
from drawn_rows import Rows

from shardtrain.arrays.rows import Examples
from shardtrain.engine.network import Network, Shape, Team
from shardtrain.engine.optimizers import OPTIMIZERS
from shardtrain.engine.trainer import Trainer
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.guide import linear, mlp, prepare
from shardtrain.models.options import MlpOptions
from shardtrain.runtime.machine import cores
from shardtrain.training.steps import STEPS_PER_CALL, Steps

UNITS = 64
SEED = 1
PEERS = Path(__file__).with_name("training_peers.py")
GROUP_ROWS = 4_096  # per call of the fused engine, as in `fit`
MOST_BITS = 27  # of Vowpal Wabbit's table: 16 bytes each, 2 GiB

# learning rates, of a few tried at 20,000 and 2,000,000 columns and 128 rows per batch
RATES = {
    "linear": {"row-adagrad": 80.0, "adagrad": 80.0, "lazy-adam": 0.1, "adam": 0.1},
    "mlp": {"row-adagrad": 0.3, "adagrad": 0.3, "lazy-adam": 0.005, "adam": 0.005},
}
FASTTEXT_RATE, VOWPAL_WABBIT_RATE = 0.5, 0.5


class Way:
    """A way to train.

    Attributes:
        name: for the table.
        batched: whether it takes rows in batches.
        ours: whether it is the fused engine.
        trains_anew: whether each round is a whole training.
        whole: whether every round so far went over all rows.
    """

    name = ""
    batched = False
    ours = False
    trains_anew = False
    whole = True

    def round(self) -> float:
        """Train a pass; return rows per second."""
        raise NotImplementedError

    def accuracy(self) -> float:
        """Return the accuracy on the rows to test."""
        raise NotImplementedError


def batches(rows: Rows, size: int) -> Iterator[Examples]:
    """Yield the rows to train on in batches, in the order drawn."""
    for start in range(0, len(rows.train), size):
        stop = min(start + size, len(rows.train))
        yield rows.train.rows(start, stop), rows.train_labels[start:stop]


def description(rows: Rows) -> DatasetInfo:
    """Describe the rows as shards are described to models."""
    columns = rows.train.shape[1]
    return DatasetInfo(
        kind="ngram",
        num_features=columns,
        vocabulary_size=columns,
        class_names=tuple(map(str, range(rows.classes))),
        num_train=len(rows.train),
        num_validation=0,
        vectorizer="",
        fingerprint="",
    )


class Batched(Way):
    """Trains on groups of batches until the rows or the seconds of a round are over."""

    batched = True

    def __init__(self, rows: Rows, size: int, group: int, seconds: float) -> None:
        parts = list(batches(rows, size))
        self._groups = [parts[start : start + group] for start in range(0, len(parts), group)]
        self._limit = seconds
        self._next = 0

    def round(self) -> float:
        """Train until all rows were seen or the time is over; the next round goes on there."""
        done, began = 0, time.perf_counter()
        for _ in self._groups:
            if time.perf_counter() - began > self._limit:
                self.whole = False
                break
            group = self._groups[self._next % len(self._groups)]
            self._next += 1
            self._advance(group)
            done += sum(len(y) for _, y in group)
        return done / (time.perf_counter() - began)

    def _advance(self, group: Sequence[Examples]) -> None:
        raise NotImplementedError


class Fused(Batched):
    """The fused engine."""

    ours = True

    def __init__(self, rows: Rows, model: str, optimizer: str, team: Team, size: int, seconds: float) -> None:
        super().__init__(rows, size, max(1, GROUP_ROWS // size), seconds)
        self.name = f"fused, {optimizer}"
        self._rate = RATES[model][optimizer]
        self._rows, self._team = rows, team
        self.network = network_for(rows, model)
        self._trainer = Trainer(self.network, OPTIMIZERS[optimizer], team, seed=SEED)

    def _advance(self, group: Sequence[Examples]) -> None:
        self._trainer.advance(group, [self._rate] * len(group))

    def accuracy(self) -> float:
        """Return the accuracy on the rows to test."""
        _, hits, _ = self.network.evaluate(self._rows.test, self._rows.test_labels, self._team)
        return float(hits.mean())


def network_for(rows: Rows, model: str) -> Network:
    """Make a network with its first weights."""
    layers = 1 if model == "linear" else 2
    network = Network(Shape.of(rows.train.shape[1], rows.classes, layers, UNITS))
    network.initialize(SEED)
    return network


class KerasEngine(Batched):
    """The Keras engine, with Adam."""

    name = "Keras engine, adam"

    def __init__(self, rows: Rows, model: str, size: int, seconds: float) -> None:
        super().__init__(rows, size, STEPS_PER_CALL, seconds)
        about = description(rows)
        made = linear(about, seed=SEED) if model == "linear" else mlp(about, MlpOptions(dropout=0.0), seed=SEED)
        self._steps = Steps(made, prepare(made, about, learning_rate=RATES[model]["adam"]))
        self._rows = rows
        _ = self._steps.train_several  # traces both functions

    def _advance(self, group: Sequence[Examples]) -> None:
        if len(group) == STEPS_PER_CALL:
            self._steps.advance(group)
            return
        for batch in group:
            self._steps.advance([batch])

    def accuracy(self) -> float:
        """Return the accuracy on the rows to test."""
        return float(self._steps.evaluate([(self._rows.test, self._rows.test_labels)])["accuracy"])


class DenseKeras(Batched):
    """Keras alone, on dense rows."""

    name = "dense Keras, adam"

    def __init__(self, rows: Rows, model: str, size: int, seconds: float) -> None:
        super().__init__(rows, size, 1, seconds)
        self._rows = rows
        self._model = dense_model(rows, model, keras.optimizers.Adam(RATES[model]["adam"]))

    def _advance(self, group: Sequence[Examples]) -> None:
        ((x, y),) = group
        self._model.train_on_batch(x.toarray(), y)  # type: ignore[union-attr]

    def accuracy(self) -> float:
        """Return the accuracy on the rows to test."""
        return accuracy_of(self._model(self._rows.test.toarray()), self._rows)


def dense_model(rows: Rows, model: str, optimizer: keras.optimizers.Optimizer) -> keras.Model:
    """Make the model of Keras' own layers, for dense rows."""
    inputs = x = keras.Input((rows.train.shape[1],))
    if model == "mlp":
        x = keras.layers.Dense(UNITS, activation="relu")(x)
    binary = rows.classes == 2
    last = keras.layers.Dense(1 if binary else rows.classes, activation="sigmoid" if binary else "softmax")
    made = keras.Model(inputs, last(x))
    made.compile(optimizer, "binary_crossentropy" if binary else "sparse_categorical_crossentropy")
    return made


def accuracy_of(probabilities: Any, rows: Rows) -> float:
    """Return the share of rows to test whose class has the highest probability."""
    found = np.asarray(probabilities)
    chosen = found[:, 0] > 0.5 if found.shape[1] == 1 else found.argmax(axis=1)
    return float((chosen == rows.test_labels).mean())


class SgdClassifier(Way):
    """scikit-learn's SGDClassifier: a call of partial_fit per pass, in which it takes row by row."""

    name = "scikit-learn SGD"

    def __init__(self, rows: Rows) -> None:
        from sklearn.linear_model import SGDClassifier

        self._rows, self._x = rows, rows.train.to_scipy()
        self._model = SGDClassifier(loss="log_loss", alpha=1e-5, random_state=SEED, n_jobs=cores())

    def round(self) -> float:
        """Train a pass."""
        began = time.perf_counter()
        self._model.partial_fit(self._x, self._rows.train_labels, np.arange(self._rows.classes))
        return len(self._rows.train) / (time.perf_counter() - began)

    def accuracy(self) -> float:
        """Return the accuracy on the rows to test."""
        return float(self._model.score(self._rows.test.to_scipy(), self._rows.test_labels))


class Liblinear(Way):
    """scikit-learn's LinearSVC (liblinear): a whole training per round; rows times its iterations are counted."""

    name = "LinearSVC"
    trains_anew = True

    def __init__(self, rows: Rows) -> None:
        from sklearn.svm import LinearSVC

        self._rows, self._x = rows, rows.train.to_scipy()
        self._model = LinearSVC(C=0.3, random_state=SEED)

    def round(self) -> float:
        """Train until it converges."""
        began = time.perf_counter()
        self._model.fit(self._x, self._rows.train_labels)
        return len(self._rows.train) * int(self._model.n_iter_) / (time.perf_counter() - began)

    def accuracy(self) -> float:
        """Return the accuracy on the rows to test."""
        return float(self._model.score(self._rows.test.to_scipy(), self._rows.test_labels))


class PeerProcess(Way):
    """fastText or Vowpal Wabbit, by `training_peers.py`.

    Args:
        name: for the table.
        arguments: that start the program.
        examples: rows of all passes that it times together.
    """

    trains_anew = True

    def __init__(self, name: str, arguments: list[str], examples: int) -> None:
        self.name = name
        self._arguments, self._examples = arguments, examples

    def round(self) -> float:
        """Train twice; the difference counts."""
        self._said = json.loads(subprocess.run(self._arguments, check=True, capture_output=True, text=True).stdout)
        return self._examples / max(float(self._said["seconds"]), 1e-9)

    def accuracy(self) -> float:
        """Return the accuracy on the rows to test."""
        return float(self._said["accuracy"])


class Peers:
    """Makes the ways of other libraries, those that are there.

    Args:
        python: the Python that has fastText and Vowpal Wabbit.
        passes: of fastText and Vowpal Wabbit.
        scratch: folder for their files.
    """

    def __init__(self, python: str, passes: int, scratch: Path) -> None:
        self._python, self._passes, self._scratch = python, passes, scratch
        for name, module in (("fastText", "fasttext"), ("Vowpal Wabbit", "vowpalwabbit")):
            if not self._has(module):
                print(f"{name} is not installed and left out; `pip install --group bench-training` installs it")

    def _has(self, module: str) -> bool:
        return subprocess.run([self._python, "-c", f"import {module}"], capture_output=True).returncode == 0

    @cached_property
    def _fasttext(self) -> bool:
        return self._has("fasttext")

    @cached_property
    def _vw(self) -> bool:
        return self._has("vowpalwabbit")

    def makers(self, rows: Rows, model: str) -> list[Callable[[], Way]]:
        """Return what makes each way for these rows."""
        found: list[Callable[[], Way]] = []
        if model == "mlp":
            if self._fasttext:
                found.append(lambda: self._fast_text(rows))
            return found
        if rows.train.shape[1] * rows.classes <= 100_000_000:  # weights in float64, and copies of them
            found += [lambda: SgdClassifier(rows), lambda: Liblinear(rows)]
        if self._vw:
            found.append(lambda: self._vowpal_wabbit(rows))
        return found

    def _fast_text(self, rows: Rows) -> Way:
        for name, x, labels in parts(rows):
            with open(self._scratch / f"{name}.ft", "w") as file:
                for start, stop, label in zip(x.indptr, x.indptr[1:], labels, strict=False):
                    file.write(f"__label__{label} {' '.join(f'c{each}' for each in x.indices[start:stop])}\n")
        settings = [str(rows.classes), str(self._passes), str(cores()), str(UNITS), str(FASTTEXT_RATE)]
        return self._process("fastText", "fasttext", settings, rows)

    def _vowpal_wabbit(self, rows: Rows) -> Way:
        for name, x, labels in parts(rows):
            with open(self._scratch / f"{name}.vw", "w") as file:
                for start, stop, label in zip(x.indptr, x.indptr[1:], labels, strict=False):
                    said = 2 * int(label) - 1 if rows.classes == 2 else int(label) + 1
                    pairs = zip(x.indices[start:stop], x.data[start:stop], strict=True)
                    file.write(f"{said} | {' '.join(f'{column}:{value:.5f}' for column, value in pairs)}\n")
        outputs = 1 if rows.classes == 2 else rows.classes
        bits = min(MOST_BITS, int(np.ceil(np.log2(rows.train.shape[1]))) + int(np.ceil(np.log2(outputs))) + 1)
        settings = [str(rows.classes), str(self._passes), str(bits), str(VOWPAL_WABBIT_RATE)]
        return self._process("Vowpal Wabbit", "vw", settings, rows)

    def _process(self, name: str, program: str, settings: list[str], rows: Rows) -> Way:
        arguments = [self._python, str(PEERS), program, str(self._scratch), *settings]
        return PeerProcess(name, arguments, self._passes * len(rows.train))


def parts(rows: Rows) -> list[tuple[str, Any, Any]]:
    """Return the rows to train on and to test as (name, rows, labels)."""
    return [("train", rows.train, rows.train_labels), ("test", rows.test, rows.test_labels)]
