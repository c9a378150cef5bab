"""Training: shardtrain against other ways to train the same model on the same rows, same machine, one run.

**The part `fit`.** The mlp over n-grams is trained in the way of Google's guide (a generator of dense slices through
Keras' `fit`), as a Keras Dense on sparse tensors through tf.data, by scikit-learn (SGDClassifier.partial_fit over
HashingVectorizer, from raw text) and by both engines of shardtrain; the sepcnn over sequences by Keras' `fit` on arrays
in memory and by shardtrain. Our ways take several turns, one after the other, because their epochs are short and
other programs disturb them. Printed are examples per second of the fastest epoch and the accuracy after the last.
Before, losses are compared step by step with dense training from the same weights without dropout, and afterwards
accuracies. A fast wrong result fails. The mlp's documents are four of the synthetic corpus joined, of about 60
non-zeros per row; sequences are single ones.

**The part `table`.** `linear` and the mlp on labelled rows in memory, without reading and dropout: rows and non-zeros
per second of the fused engine's optimizers, the Keras engine, dense Keras, SGDClassifier, LinearSVC, Vowpal Wabbit and
fastText, over numbers of columns, classes and rows per batch, with the accuracy of each on held-out rows. See
`drawn_rows.py` for the rows, `training_ways.py` for what is timed, `training_table.py` for what fails.

    python tools/bench/training.py                   # 60,000 documents for the mlp, 10,000 for the sepcnn
    python tools/bench/training.py --part table      # 20,000 and 2,000,000 columns, 2 and 14 classes, batch 128
    python tools/bench/training.py --part table --full
    python tools/bench/training.py --part table --columns 200000 --classes 100 --table-batch-size 64
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from itertools import groupby, islice
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import numpy as np
from synthetic import write_synthetic
from training_table import Settings, compare

from shardtrain.engine.network import Network, Shape, Team
from shardtrain.engine.optimizers import OPTIMIZERS
from shardtrain.engine.trainer import Trainer
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.models.adapters import sparse_tensor, to_tf_dataset
from shardtrain.models.guide import mlp, prepare, sepcnn
from shardtrain.models.options import MlpOptions, SepcnnOptions
from shardtrain.runtime.machine import cores
from shardtrain.training.fit import fit
from shardtrain.training.options import FitOptions
from shardtrain.training.run_folder import RunFolder
from shardtrain.training.steps import Steps

TOLERANCE = 1e-4  # of a loss, relative
HALF_A_POINT = 0.005  # of accuracy
OURS = "shardtrain"  # its Keras engine; names of its other ways begin so
LEARNING_RATE = 1e-3
SEED = 1
JOINED = 4
# columns, classes and rows per batch of the table
FEW = ((20_000, 2_000_000), (2, 14), (128,))
FULL = ((20_000, 200_000, 2_000_000), (2, 14, 100), (64, 128, 512))


class Timing(keras.callbacks.Callback):
    """Seconds of the training part of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start the clock."""
        self._began, self._ended = time.perf_counter(), 0.0

    def on_test_begin(self, logs: Any = None) -> None:
        """Stop it before validation, where there is one."""
        self._ended = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop it."""
        self.seconds.append((self._ended or time.perf_counter()) - self._began)


@dataclass(frozen=True)
class Result:
    """What a way to train reached: examples per second in its fastest epoch, validation accuracy, and remarks."""

    rate: float
    accuracy: float
    more: str = ""


def main() -> int:
    """Run the comparison and print it; exit code 1 if answers differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--documents", type=int, default=60_000, metavar="N", help="that the mlp is trained on (60,000)"
    )
    parser.add_argument("--sequences", type=int, default=10_000, metavar="N", help="that the sepcnn is given (10,000)")
    parser.add_argument("--epochs", type=int, default=3, metavar="N", help="of each way to train (3)")
    parser.add_argument("--turns", type=int, default=3, metavar="N", help="of each of our ways (3)")
    parser.add_argument(
        "--batch-size", type=int, action="append", metavar="N", help="of the mlp of `fit` (128 and 512)"
    )
    parser.add_argument("--loss-steps", type=int, default=200, metavar="N", help="compared with dense training (200)")
    parser.add_argument("--part", choices=("fit", "table"), help="measure one part (both)")
    table = parser.add_argument_group("table")
    table.add_argument("--full", action="store_true", help="all columns, classes and batches, instead of a few")
    for name, what in (("columns", "of the rows"), ("classes", "of the rows"), ("table-batch-size", "rows per batch")):
        table.add_argument(f"--{name}", type=int, action="append", metavar="N", help=f"{what}, instead of those")
    table.add_argument("--rows", type=int, default=20_000, metavar="N", help="to train on (20,000)")
    table.add_argument("--nonzeros", type=int, default=60, metavar="N", help="of a row (60)")
    table.add_argument("--rounds", type=int, default=8, metavar="N", help="passes of each way, at least 3 (8)")
    table.add_argument("--seconds", type=float, default=2.0, metavar="F", help="of a pass at most (2)")
    table.add_argument(
        "--peers", default=sys.executable, metavar="PYTHON", help="that has fastText and Vowpal Wabbit (this one)"
    )
    args = parser.parse_args()
    if args.rounds < 3:
        parser.error(f"--rounds is {args.rounds}; medians need at least 3")
    packages = ", ".join(f"{name} {version(name)}" for name in ("tensorflow", "keras", "scikit-learn", "numpy"))
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, {packages}")
    good = True
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        if args.part != "table":
            good &= compare_fits(args, scratch)
        if args.part != "fit":
            good &= compare(table_settings(args), Path(scratch))
    return 0 if good else 1


def table_settings(args: argparse.Namespace) -> Settings:
    """Return what the table is to measure."""
    which = FULL if args.full else FEW
    chosen = (args.columns, args.classes, args.table_batch_size)
    columns, classes, batches = (given or usual for given, usual in zip(chosen, which, strict=True))
    return Settings(columns, classes, batches, args.rows, args.nonzeros, args.rounds, args.seconds, args.peers)


def compare_fits(args: argparse.Namespace, scratch: str) -> bool:
    """Print the part `fit`; whether the answers are good."""
    corpus, short = Path(scratch, "joined"), Path(scratch, "short")
    make_joined(corpus, args.documents, Path(scratch, "synthetic"))
    write_synthetic(short, documents=args.sequences)
    tested = ("--validation", "test.csv")  # all of train.csv trains, as for the peers
    command("build", corpus, "--out", Path(scratch, "ngram"), "--vectorizer", "ngram", *tested)
    command("build", short, "--out", Path(scratch, "sequence"), "--vectorizer", "sequence", *tested)
    with open_shards(Path(scratch, "ngram")) as ngrams, open_shards(Path(scratch, "sequence")) as sequences:
        same = compare_losses(ngrams, args.loss_steps)
        for size in args.batch_size or (128, 512):
            same &= compare_mlps(ngrams, corpus, size, args.epochs, args.turns)
        same &= compare_sepcnns(sequences, args.epochs)
    return same


def command(*arguments: object) -> None:
    """Run a command of shardtrain."""
    subprocess.run([sys.executable, "-m", "shardtrain", *map(str, arguments)], check=True, capture_output=True)


def make_joined(out: Path, documents: int, single: Path) -> None:
    """Write a corpus whose documents are `JOINED` of the synthetic corpus, of one class, which lie together there."""
    write_synthetic(single, documents=JOINED * documents)
    out.mkdir()
    for name in ("train.csv", "test.csv"):
        with open(single / name, newline="", encoding="utf-8") as file, open(out / name, "w", newline="") as joined:
            for label, rows in groupby(csv.reader(file), key=lambda row: row[0]):
                while several := [" ".join(row[1:]) for row in islice(rows, JOINED)]:
                    csv.writer(joined).writerow([label, " ".join(several)])
    (out / "classes.txt").write_bytes((single / "classes.txt").read_bytes())


def dense_mlp(shards: Shards, *, dropout: float, sparse: bool) -> keras.Model:
    """The guide's mlp in Keras' own layers, compiled with Keras' Adam."""
    classes = shards.description.num_classes
    inputs = x = keras.Input((shards.description.num_features,), sparse=sparse)
    if not sparse:  # Keras' Dropout does not take sparse tensors
        x = keras.layers.Dropout(dropout, seed=SEED)(x)
    x = keras.layers.Dropout(dropout, seed=SEED)(keras.layers.Dense(64, activation="relu")(x))
    model = keras.Model(inputs, keras.layers.Dense(classes, activation="softmax")(x))
    model.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def compare_losses(shards: Shards, count: int) -> bool:
    """Whether the losses of so many steps without dropout are those of dense training from the same weights."""
    model = mlp(shards.description, MlpOptions(dropout=0.0), seed=SEED)
    steps = Steps(model, prepare(model, shards.description, learning_rate=LEARNING_RATE))
    dense = dense_mlp(shards, dropout=0.0, sparse=False)
    dense.set_weights(model.get_weights())
    worst = furthest(shards, dense, count, lambda batch: steps.advance([batch])[0][0])
    print(f"\nlosses of {count} steps without dropout: within {worst:.1e} of dense training (at most {TOLERANCE:.0e})")
    return compare_fused_losses(shards, count) and worst <= TOLERANCE


def compare_fused_losses(shards: Shards, count: int) -> bool:
    """Whether those of the fused engine are, too, with the optimizers that Keras has."""
    good = True
    for name, maker in (("sgd", "SGD"), ("adagrad", "Adagrad"), ("adam", "Adam")):
        network = Network(Shape.of(shards.description.num_features, shards.description.num_classes, 2, 64))
        network.initialize(SEED)
        dense = dense_mlp(shards, dropout=0.0, sparse=False)
        dense.compile(getattr(keras.optimizers, maker)(LEARNING_RATE), "sparse_categorical_crossentropy")
        dense.set_weights([each for pair in zip(network.kernels, network.biases, strict=True) for each in pair])
        with Team(cores()) as team:
            trainer = Trainer(network, OPTIMIZERS[name], team, seed=SEED)
            worst = furthest(shards, dense, count, partial(fused_loss, trainer))
        print(f"of the fused engine, {name}: within {worst:.1e}")
        good &= worst <= TOLERANCE
    return good


def fused_loss(trainer: Trainer, batch: tuple[Any, Any]) -> float:
    """The loss of a step of the fused engine."""
    (loss,), _ = trainer.advance([batch], [LEARNING_RATE])
    return loss


def furthest(shards: Shards, dense: keras.Model, count: int, loss_of: Callable[[tuple[Any, Any]], float]) -> float:
    """The largest relative difference of the losses of so many steps from those of dense training."""
    worst = 0.0
    batches = (batch for epoch in range(count) for batch in shards.train.batches(128, seed=SEED, epoch=epoch))
    for x, y in islice(batches, count):
        loss = loss_of((x, y))
        dense.reset_metrics()
        expected = float(dense.train_on_batch(x.toarray(), y, return_dict=True)["loss"])  # type: ignore[union-attr]
        worst = max(worst, abs(loss - expected) / expected)
    return worst


def fused(shards: Shards, optimizer: str, rate: float, size: int, epochs: int) -> Result:
    """`fit --engine fused`; the rate is that of its fastest epoch, as its line says."""
    options = FitOptions(
        model="mlp",
        engine="fused",
        optimizer=optimizer,
        learning_rate=rate,
        batch_size=size,
        epochs=epochs,
        patience=epochs,
        seed=SEED,
    )
    with tempfile.TemporaryDirectory(prefix="bench-") as out, contextlib.redirect_stderr(io.StringIO()) as said:
        accuracy, wait = outcome_of(fit(shards, options, out=Path(out, "run")))
    rates = [float(found.replace(",", "")) for found in re.findall(r"([\d,]+) examples/s", said.getvalue())]
    return Result(max(rates), accuracy, wait)


def ours(shards: Shards, options: FitOptions) -> Result:
    """`fit` by the Keras engine, which callbacks of Keras ask for."""
    timing = Timing()
    with tempfile.TemporaryDirectory(prefix="bench-") as out, contextlib.redirect_stderr(io.StringIO()):
        accuracy, wait = outcome_of(fit(shards, options, out=Path(out, "run"), callbacks=[timing]))
    return Result(shards.train.num_examples / min(timing.seconds), accuracy, wait)


def outcome_of(done: RunFolder) -> tuple[float, str]:
    """The accuracy after the last epoch, and how long training waited for input."""
    with open(done.path / "history.csv", newline="") as file:
        last = list(csv.DictReader(file))[-1]
    return float(last["val_accuracy"]), f"input wait {done.read().metrics['input_wait_fraction']:.2%}"


def keras_fit(shards: Shards, model: keras.Model, epochs: int, **data: Any) -> Result:
    """Keras' own `fit`, and its accuracy on the validation split."""
    timing = Timing()
    model.fit(epochs=epochs, verbose=0, callbacks=[timing], **data)
    accuracies, rows = [], []
    for x, y in shards.validation.batches(512):
        sparse = getattr(model.inputs[0], "sparse", False)
        given = x if isinstance(x, np.ndarray) else sparse_tensor(x) if sparse else x.toarray()
        accuracies.append((np.asarray(model(given)).argmax(axis=1) == y).mean())
        rows.append(len(y))
    return Result(shards.train.num_examples / min(timing.seconds), float(np.average(accuracies, weights=rows)))


def dense_slices(shards: Shards, size: int) -> Iterator[tuple[Any, Any]]:
    """The guide's generator: contiguous slices, dense."""
    while True:
        for x, y in shards.train.batches(size):
            yield x.toarray(), y  # type: ignore[union-attr]


def scikit_learn(corpus: Path, size: int, epochs: int) -> Result:
    """SGDClassifier.partial_fit over HashingVectorizer, from texts in memory, shuffled before."""
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier

    texts: dict[str, list[tuple[str, str]]] = {}
    for name in ("train", "test"):
        with open(corpus / f"{name}.csv", newline="", encoding="utf-8") as file:
            texts[name] = [(row[0], " ".join(row[1:])) for row in csv.reader(file)]
    np.random.default_rng(SEED).shuffle(texts["train"])
    vectorizer = HashingVectorizer(n_features=1 << 18, ngram_range=(1, 2))
    model = SGDClassifier(loss="log_loss", random_state=SEED)
    classes = sorted({label for label, _ in texts["train"]})
    seconds = []
    for _ in range(epochs):
        began = time.perf_counter()
        for start in range(0, len(texts["train"]), size):
            labels, batch = zip(*texts["train"][start : start + size], strict=True)
            model.partial_fit(vectorizer.transform(batch), labels, classes)
        seconds.append(time.perf_counter() - began)
    labels, batch = zip(*texts["test"], strict=True)
    return Result(len(texts["train"]) / min(seconds), float(model.score(vectorizer.transform(batch), labels)))


def compare_mlps(shards: Shards, corpus: Path, size: int, epochs: int, turns: int) -> bool:
    """The table of the mlp at one batch size; whether the accuracies agree."""
    entry = shards.train.entry
    steps = shards.train.steps_per_epoch(size)
    ways: dict[str, Callable[[], Result]] = {
        "dense generator, Keras fit": lambda: keras_fit(
            shards,
            dense_mlp(shards, dropout=0.2, sparse=False),
            epochs,
            x=dense_slices(shards, size),
            steps_per_epoch=steps,
            shuffle=False,
        ),
        "Keras Dense on sparse tensors": lambda: keras_fit(
            shards,
            dense_mlp(shards, dropout=0.2, sparse=True),
            epochs,
            x=to_tf_dataset(shards.train, size, seed=SEED, shuffle="window"),
            shuffle=False,
        ),
        "scikit-learn SGD, from text": lambda: scikit_learn(corpus, size, epochs),
        **{
            f"{OURS}, fused, {name} {rate:g}": partial(fused, shards, name, rate, size, epochs)
            for name, rate in (
                ("adam", LEARNING_RATE),
                ("lazy-adam", LEARNING_RATE),
                ("adagrad", 0.1),
                ("row-adagrad", 0.1),
            )
        },
        OURS: lambda: ours(shards, FitOptions(model="mlp", batch_size=size, epochs=epochs, patience=epochs, seed=SEED)),
    }
    print(
        f"\nmlp, batch {size}, {entry.examples:,} examples, {shards.description.num_features:,} features, "
        f"{entry.nonzeros / entry.examples:.0f} non-zeros per row"
    )
    return report(ways, turns, reference="dense generator, Keras fit", rows=shards.validation.num_examples)


def compare_sepcnns(shards: Shards, epochs: int) -> bool:
    """The table of the sepcnn; whether the accuracies agree."""

    def in_memory() -> Result:
        model = sepcnn(shards.description, SepcnnOptions(), seed=SEED)
        model.compile(keras.optimizers.Adam(LEARNING_RATE), "sparse_categorical_crossentropy", metrics=["accuracy"])
        x, y = shards.train.rows(0, shards.train.num_examples)
        return keras_fit(shards, model, epochs, x=np.asarray(x, np.int32), y=np.asarray(y, np.int32), batch_size=128)

    ways: dict[str, Callable[[], Result]] = {
        "Keras fit, arrays in memory": in_memory,
        OURS: lambda: ours(
            shards, FitOptions(model="sepcnn", epochs=epochs, patience=epochs, seed=SEED, memory_limit=1 << 32)
        ),
    }
    print(f"\nsepcnn, batch 128, {shards.train.num_examples:,} sequences of {shards.description.num_features} tokens")
    return report(ways, 1, reference="Keras fit, arrays in memory", rows=shards.validation.num_examples)


def report(ways: dict[str, Callable[[], Result]], turns: int, *, reference: str, rows: int) -> bool:
    """Run all ways and print them; whether the accuracy of the Keras engine is that of the reference.

    Below it by half a point at most, or by twice the standard error of the difference on so many rows, since the two
    draw other weights and orders.
    """
    results = {name: way() for name, way in ways.items() if not name.startswith(OURS)}
    for _ in range(turns):
        for name in (each for each in ways if each.startswith(OURS)):
            turn = ways[name]()
            if name not in results or turn.rate > results[name].rate:
                results[name] = turn
    mine, other = results[OURS], results[reference].accuracy
    near = max(HALF_A_POINT, 2 * math.sqrt(2 * other * (1 - other) / rows))
    print(f"  {'':<32}{'examples/s':>12}{'ours is':>10}{'accuracy':>10}")
    for name, result in results.items():
        print(
            f"  {name:<32}{result.rate:>12,.0f}{mine.rate / result.rate:>9.2f}x{result.accuracy:>10.4f}  {result.more}"
        )
    good = mine.accuracy >= other - near
    print(f"  accuracy: {'as that' if good else 'BELOW THAT'} of {reference}, within {100 * near:.2f} points")
    return good


if __name__ == "__main__":
    sys.exit(main())
