"""The table of `training.py`: rows per second of ways to train, over numbers of columns, classes and rows per batch.

All ways of a combination take their rounds in turn, and medians count; the accuracy of a way is that after its best
round, as early stopping keeps it. The fused engine fails if its accuracy, with the
best of its optimizers and batches, is more than a point below the best other way's for the same model, columns and
classes, or if its losses differ from those of dense training by Keras from the same weights (at up to 20,000 columns).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import median

import keras
import numpy as np
import numpy.typing as npt
from drawn_rows import Rows, document_frequencies, draw, extended
from training_ways import (
    RATES,
    SEED,
    DenseKeras,
    Fused,
    KerasEngine,
    Peers,
    Way,
    batches,
    dense_model,
    network_for,
)

from shardtrain.engine.network import Team
from shardtrain.engine.optimizers import OPTIMIZERS
from shardtrain.engine.trainer import Trainer
from shardtrain.runtime.machine import cores

MODELS = ("linear", "mlp")
DENSE_COLUMNS = 20_000  # up to which Keras trains on dense rows
A_POINT = 0.01
TOLERANCE = 1e-4  # of a loss, relative
LOSS_STEPS = 50
LOSS_RATE = 1e-3
TRAININGS = 3  # rounds of ways that train anew in each


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes:
        columns, classes, batch_sizes: of the combinations.
        rows: to train on.
        nonzeros: per row.
        rounds: of each way.
        seconds: of a round at most, of ours and Keras.
        peers: the Python that has fastText and Vowpal Wabbit.
    """

    columns: Sequence[int]
    classes: Sequence[int]
    batch_sizes: Sequence[int]
    rows: int
    nonzeros: int
    rounds: int
    seconds: float
    peers: str


@dataclass(frozen=True)
class Line:
    """A measured way: median rows per second, and accuracy where it saw all rows in all rounds."""

    model: str
    columns: int
    classes: int
    batch: int
    name: str
    batched: bool
    ours: bool
    rate: float
    accuracy: float | None


def compare(settings: Settings, scratch: Path) -> bool:
    """Measure and print the table; whether the fused engine's answers are good."""
    head, slope = document_frequencies(scratch)
    print(
        f"\n{settings.rows:,} rows of {settings.nonzeros} non-zeros; frequency of a column of rank r beyond "
        f"{len(head):,}: r^{slope:.2f}; medians of {settings.rounds} rounds in turn, {cores()} threads of the fused "
        f"engine, Keras, fastText and SGD"
    )
    peers = Peers(settings.peers, settings.rounds, scratch)
    warm_up(extended(head, slope, len(head)))
    lines: list[Line] = []
    good = True
    for columns in settings.columns:
        frequencies = extended(head, slope, columns)
        for classes in settings.classes:
            rows = draw(frequencies, rows=settings.rows, nonzeros=settings.nonzeros, classes=classes, seed=SEED)
            for model in MODELS:
                print(f"\n{model}, {columns:,} columns, {classes} classes")
                found = measure(rows, model, settings, peers)
                good &= show(found, settings)
                if columns <= DENSE_COLUMNS:
                    good &= losses_agree(rows, model)
                lines += found
    summarize(lines, settings)
    return good


def warm_up(frequencies: npt.NDArray[np.float64]) -> None:
    """Compile the kernels, or load them."""
    for classes in (2, 3):
        rows = draw(frequencies, rows=100, nonzeros=10, classes=classes, seed=SEED)
        with Team(cores()) as team:
            for model in MODELS:
                for optimizer in RATES[model]:
                    way = Fused(rows, model, optimizer, team, 50, math.inf)
                    way.round()
                    way.accuracy()


def measure(rows: Rows, model: str, settings: Settings, peers: Peers) -> list[Line]:
    """Measure all ways on the rows; those without batches are in turn with the first size of batches."""
    lines = []
    for size in settings.batch_sizes:
        makers = batched_ways(rows, model, size, settings.seconds)
        with Team(cores()) as team:
            ways: list[Way] = [make(team) for make in makers]
            if size == settings.batch_sizes[0]:
                ways += [make() for make in peers.makers(rows, model)]
            rates: list[list[float]] = [[] for _ in ways]
            accuracies: list[list[float]] = [[] for _ in ways]
            for number in range(settings.rounds):
                for way, found, hits in zip(ways, rates, accuracies, strict=True):
                    if number < TRAININGS or not way.trains_anew:
                        found.append(way.round())
                        hits += [way.accuracy()] if way.whole else []
            about = model, rows.train.shape[1], rows.classes, size
            for way, found, hits in zip(ways, rates, accuracies, strict=True):
                best = max(hits, default=None)
                lines.append(Line(*about, way.name, way.batched, way.ours, median(found), best))
        keras.backend.clear_session()
    return lines


def batched_ways(rows: Rows, model: str, size: int, seconds: float) -> list[Callable[[Team], Way]]:
    """Return what makes each way that takes batches."""

    def fused(optimizer: str) -> Callable[[Team], Way]:
        return lambda team: Fused(rows, model, optimizer, team, size, seconds)

    found = [fused(optimizer) for optimizer in RATES[model]]
    found.append(lambda _: KerasEngine(rows, model, size, seconds))
    if rows.train.shape[1] <= DENSE_COLUMNS:
        found.append(lambda _: DenseKeras(rows, model, size, seconds))
    return found


def show(lines: list[Line], settings: Settings) -> bool:
    """Print the lines; whether the fused engine's accuracy is not more than a point below the best."""
    keras_rates = {line.batch: line.rate for line in lines if line.name == KerasEngine.name}
    print(f"  {'batch':>5}  {'':<20}{'rows/s':>12}{'non-zeros/s':>14}{'of Keras engine':>17}{'accuracy':>10}")
    for line in lines:
        batch = f"{line.batch:,}" if line.batched else "-"
        accuracy = "-" if line.accuracy is None else f"{line.accuracy:.4f}"
        print(
            f"  {batch:>5}  {line.name:<20}{line.rate:>12,.0f}{line.rate * settings.nonzeros:>14,.0f}"
            f"{line.rate / keras_rates[line.batch]:>16.2f}x{accuracy:>10}"
        )
    mine = max(line.accuracy or 0.0 for line in lines if line.ours)
    best = max((line for line in lines if not line.ours), key=lambda line: line.accuracy or 0.0)
    if best.accuracy is None:
        return True
    good = mine >= best.accuracy - A_POINT
    print(f"  accuracy: {'within a point of' if good else 'MORE THAN A POINT BELOW'} the best other, {best.name}")
    return good


@contextmanager
def dense_twin(rows: Rows, model: str, optimizer: str) -> Iterator[tuple[Trainer, keras.Model]]:
    """Yield the fused engine and dense Keras with the same optimizer and first weights."""
    maker = {"sgd": "SGD", "adagrad": "Adagrad", "adam": "Adam"}[optimizer]
    network = network_for(rows, model)
    dense = dense_model(rows, model, getattr(keras.optimizers, maker)(LOSS_RATE))
    dense.set_weights([each for pair in zip(network.kernels, network.biases, strict=True) for each in pair])
    with Team(cores()) as team:
        yield Trainer(network, OPTIMIZERS[optimizer], team, seed=SEED), dense
    keras.backend.clear_session()


def losses_agree(rows: Rows, model: str) -> bool:
    """Whether the losses of some steps are those of dense training, with the optimizers that Keras has."""
    worst = {}
    for optimizer in ("sgd", "adagrad", "adam"):
        with dense_twin(rows, model, optimizer) as (trainer, dense):
            differences = [0.0]
            for x, y in islice(batches(rows, 128), LOSS_STEPS):
                (loss,), _ = trainer.advance([(x, y)], [LOSS_RATE])
                dense.reset_metrics()
                expected = float(dense.train_on_batch(x.toarray(), y))  # type: ignore[union-attr]
                differences.append(abs(loss - expected) / expected)
            worst[optimizer] = max(differences)
    said = ", ".join(f"{name} {difference:.1e}" for name, difference in worst.items())
    print(f"  losses of {LOSS_STEPS} steps, from dense Keras: {said} (at most {TOLERANCE:.0e})")
    return max(worst.values()) <= TOLERANCE


def summarize(lines: list[Line], settings: Settings) -> None:
    """Print what becomes of the rates from the least to the most columns, and linear two-class non-zeros per second."""
    rates = {(line.model, line.columns, line.classes, line.batch, line.name): line.rate for line in lines}
    least, most = min(settings.columns), max(settings.columns)
    if least < most:
        print(f"\nrows/s with {most:,} columns, of those with {least:,}, geometric mean over classes and batches")
        for model in MODELS:
            for name in dict.fromkeys(line.name for line in lines if line.model == model):
                ratios = [
                    rates[model, most, *rest] / rates[model, least, *rest]  # type: ignore[index]
                    for kind, columns, *rest in rates
                    if (kind, columns, rest[-1]) == (model, most, name) and (model, least, *rest) in rates
                ]
                if ratios:
                    print(f"  {model:<8}{name:<20}{math.exp(float(np.mean(np.log(ratios)))):>6.2f}")
    if 2 in settings.classes:
        print("\nlinear, two classes, million non-zeros/s")
        for (model, columns, classes, batch, name), rate in rates.items():
            if (model, classes) == ("linear", 2) and name.startswith("fused"):
                print(f"  {columns:>9,} columns, batch {batch:<5}{name:<20}{rate * settings.nonzeros / 1e6:>8.1f}")
