"""Create learning rate schedules by name.

All except `plateau`, a Keras callback, are functions of the optimizer's step count, so a resumed run continues them
exactly. They assume that all `--epochs` are trained: over the default of 1000 epochs, of which early stopping leaves a
few, cosine and linear hardly change the rate.
"""

from __future__ import annotations

from typing import Any

import keras

from shardtrain.models.options import EXPONENTIAL_END, PLATEAU_FACTOR

Rate = float | Any  # a number, or a keras.optimizers.schedules.LearningRateSchedule


def learning_rate(name: str, first: float, steps: int) -> Rate:
    """Create the schedule `name` over `steps` steps with the initial rate `first`; a number if it is constant."""
    if name == "cosine":
        return keras.optimizers.schedules.CosineDecay(first, steps)
    if name == "linear":
        return keras.optimizers.schedules.PolynomialDecay(first, steps, end_learning_rate=0.0)
    if name == "exponential":
        return keras.optimizers.schedules.ExponentialDecay(first, steps, EXPONENTIAL_END)
    return first


def schedule_callbacks(name: str, patience: int) -> list[keras.callbacks.Callback]:
    """Create the callbacks of a schedule: `plateau` halves the rate after half of early stopping's patience."""
    if name != "plateau":
        return []
    return [keras.callbacks.ReduceLROnPlateau("val_loss", factor=PLATEAU_FACTOR, patience=max(1, patience // 2))]
