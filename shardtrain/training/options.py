"""How to train, as a frozen value that is checked when it is made; the command line fills it, and `fit` reads it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

from shardtrain.errors import UsageError
from shardtrain.loader.memory import DEFAULT_LIMIT, LEAST_LIMIT
from shardtrain.loader.order import MODES
from shardtrain.models.guide import AUTO, MlpOptions, SepcnnOptions
from shardtrain.models.schedules import SCHEDULES
from shardtrain.models.user_models import ModelFunction
from shardtrain.training.checkpoint import DEFAULT_INTERVAL, CheckpointInterval

CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True, kw_only=True)
class FitOptions:
    """How to train; the defaults of epochs, batch size, learning rate and patience are the guide's.

    Attributes:
        model: "auto" (what the shards hold decides), "mlp", "sepcnn", "MODULE:FUNCTION", or a function of the shards'
            description that returns a `keras.Model`. A model that comes compiled keeps its loss, optimizer and
            metrics; it needs the metric "accuracy".
        mlp: sizes of the mlp.
        sepcnn: sizes of the sepcnn.
        epochs: at most so many; early stopping usually ends training before.
        batch_size: rows a step.
        learning_rate: of Adam; a model that comes compiled keeps its own.
        patience: epochs without a lower validation loss after which training stops.
        seed: of weights, dropout and the order of examples.
        shuffle: "none", "blocks", "window" or "global", as in `Split.batches`.
        schedule: how the learning rate changes, by a name of `shardtrain.models.schedules`, over all epochs.
        clip_norm: gradients that are longer, all weights together, are shortened to it; None: none are.
        class_weight: "none", or "balanced": in the loss of training every class counts the same.
        mixed_precision: layers compute in bfloat16; weights, sparse products and the output stay in float32.
        embeddings: a file of word vectors for the embedding of sepcnn, which is frozen until early stopping ends that,
            and then trained with a tenth of the learning rate until early stopping ends that as well; each of the two
            trainings has `epochs`.
        devices: that share every step's batch, such as ("GPU:0", "GPU:1"); empty: all GPUs if there are several.
        memory_limit: bytes that reading batches may hold; see `shardtrain.loader.memory`.
        checkpoint_every: how often the state of training is saved.
        tensorboard: whether Keras' TensorBoard callback writes events, to `tensorboard/` in the run folder; or to
            which folder.
    """

    model: str | ModelFunction = AUTO
    mlp: MlpOptions = field(default_factory=MlpOptions)
    sepcnn: SepcnnOptions = field(default_factory=SepcnnOptions)
    epochs: int = 1000
    batch_size: int = 128
    learning_rate: float = 1e-3
    patience: int = 2
    seed: int = 1
    shuffle: str = "window"
    schedule: str = "constant"
    clip_norm: float | None = None
    class_weight: str = "none"
    mixed_precision: bool = False
    embeddings: Path | None = None
    devices: tuple[str, ...] = ()
    memory_limit: int = DEFAULT_LIMIT
    checkpoint_every: CheckpointInterval = DEFAULT_INTERVAL
    tensorboard: bool | Path = False

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"learning_rate is {self.learning_rate}; it must be a positive number")
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"seed is {self.seed}; it must be at least 0 and less than 2**32")
        if self.batch_size < len(self.devices):
            raise UsageError(f"batch_size {self.batch_size} cannot be divided among {len(self.devices)} devices")
        if self.shuffle not in MODES:
            raise UsageError(f"shuffle is {self.shuffle!r}; choose one of {', '.join(MODES)}")
        if self.memory_limit < LEAST_LIMIT:
            raise UsageError(f"memory_limit is {self.memory_limit}; it must be at least {LEAST_LIMIT:,} bytes")
        if self.schedule not in SCHEDULES:
            raise UsageError(f"schedule is {self.schedule!r}; choose one of {', '.join(SCHEDULES)}")
        if self.class_weight not in CLASS_WEIGHTS:
            raise UsageError(f"class_weight is {self.class_weight!r}; choose one of {', '.join(CLASS_WEIGHTS)}")
        if self.clip_norm is not None and not (self.clip_norm > 0 and math.isfinite(self.clip_norm)):
            raise UsageError(f"clip_norm is {self.clip_norm}; it must be a positive number")
