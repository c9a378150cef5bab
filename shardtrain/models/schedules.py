"""Learning rates that change while training goes on, by name.

All but `plateau` are functions of the number of steps done, which an optimizer counts, so they go on exactly after an
interruption; `plateau` is Keras' callback. They are meant for `--epochs` that are all used: over the default of 1000
epochs, of which early stopping leaves a few, cosine and linear hardly move.
"""

from __future__ import annotations

from typing import Any

import keras

LEAST = 0.01  # of the first rate is what `exponential` ends with
HALVING = 0.5  # of the rate stays where `plateau` lowers it

Rate = float | Any  # a number, or a keras.optimizers.schedules.LearningRateSchedule


def learning_rate(name: str, first: float, steps: int) -> Rate:
    """The rate of `steps` steps that begins with `first`."""
    if name == "cosine":
        return keras.optimizers.schedules.CosineDecay(first, steps)
    if name == "linear":
        return keras.optimizers.schedules.PolynomialDecay(first, steps, end_learning_rate=0.0)
    if name == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(first, steps, LEAST)
    return first


def schedule_callbacks(name: str, patience: int) -> list[keras.callbacks.Callback]:
    """What changes the rate from outside the optimizer: halving it after half of early stopping's patience."""
    if name != "plateau":
        return []
    return [keras.callbacks.ReduceLROnPlateau("val_loss", factor=HALVING, patience=max(1, patience // 2))]
