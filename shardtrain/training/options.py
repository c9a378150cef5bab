"""Declare the options for training, which are checked when they are made."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shardtrain.errors import UsageError
from shardtrain.loader.options import DEFAULT_LIMIT, LEAST_LIMIT, SHUFFLES
from shardtrain.metrics.names import MEASURES
from shardtrain.models.options import (
    AUTO,
    ENGINES,
    FUSED_OPTIMIZERS,
    OPTIMIZERS,
    RECIPES,
    SCALINGS,
    SCHEDULES,
    SIZES,
    MlpOptions,
    SepcnnOptions,
    model_for,
)
from shardtrain.options import checked, flag, option, options_of, parse_size, show_size

if TYPE_CHECKING:
    from shardtrain.models.user_models import ModelFunction
else:
    ModelFunction = Callable[..., Any]  # importing options loads no Keras

CLASS_WEIGHTS = ("none", "balanced")
RUNS = Path("runs")  # where runs without a name of their own go
_RUN, _TRAINING, _RESOURCES = "run folder", "training", "resources"
_BY_RECIPE = "by the recipe"


@dataclass(frozen=True)
class CheckpointInterval:
    """How often a checkpoint is written.

    Attributes:
        amount: of the unit.
        unit: "s": every `amount` seconds, and at the end of each epoch; "steps": every `amount` steps of the training;
            "epochs": at the end of every `amount` epochs.
    """

    amount: int
    unit: str

    def __post_init__(self) -> None:
        if self.unit not in ("s", "steps", "epochs") or self.amount < 1:
            raise UsageError(f"--checkpoint-every is {self}; it must be at least 1 of s, steps or epochs")

    def __str__(self) -> str:
        return f"{self.amount}{self.unit}"

    def within_epoch(self, seconds: float, steps: int) -> bool:
        """Return whether a checkpoint is due within an epoch, `seconds` and `steps` after the latest."""
        return (self.unit == "s" and seconds >= self.amount) or (self.unit == "steps" and steps >= self.amount)

    def after_epoch(self, epochs: int) -> bool:
        """Return whether a checkpoint is due at the end of an epoch, after `epochs` finished ones."""
        return self.unit == "s" or (self.unit == "epochs" and epochs % self.amount == 0)


def parse_interval(text: str) -> CheckpointInterval:
    """Parse "60s", "500steps" or "2epochs"; a number alone is seconds.

    Raises:
        UsageError: something else.
    """
    match = re.fullmatch(r"(\d+) ?(s|steps?|epochs?)?", text)
    if match is None:
        raise UsageError(f"--checkpoint-every is {text!r}; write seconds as 60s, or 500steps, or 2epochs")
    unit = match[2] or "s"
    return CheckpointInterval(int(match[1]), unit if unit == "s" else unit.rstrip("s") + "s")


@checked
@dataclass(frozen=True, kw_only=True)
class RunOutput:
    """Where a run goes.

    Attributes:
        out: the run folder; None for the next free `runs/MODEL-N`, or with `resume` for the newest unfinished one.
        overwrite: replace a finished or interrupted run in `out`.
        resume: require an interrupted run; one that is finished already is returned as it is.
    """

    out: Path | str | None = option(
        None, "the run folder", group=_RUN, metavar="DIR", parse=Path, unset="runs/MODEL-N, next free N", identity=False
    )
    overwrite: bool = option(False, "replace a finished or interrupted run in --out", group=_RUN, identity=False)
    resume: bool = option(
        False, "resume the interrupted run in --out, or the newest of the model", group=_RUN, identity=False
    )


@checked
@dataclass(frozen=True, kw_only=True)
class TrainOutput:
    """Where shards and run of `train` go.

    Attributes:
        out: the run folder; None for `runs/NAME-N` with the name of the corpus: the one in which the same call was
            interrupted, or the next free one.
        shards: folder of the shards; None for the folder `shards` in the run folder.
        overwrite: replace a run in `out`, and shards of another corpus or other options.
    """

    out: Path | str | None = option(
        None,
        "the run folder",
        group=_RUN,
        metavar="DIR",
        parse=Path,
        unset="runs/CORPUS-N, next free N, or where the same command was interrupted",
        identity=False,
    )
    shards: Path | str | None = option(
        None, "folder of the shards", group=_RUN, metavar="DIR", parse=Path, unset="shards in --out", identity=False
    )
    overwrite: bool = option(
        False, "replace a run in --out, and shards that were made differently", group=_RUN, identity=False
    )


@checked
@dataclass(frozen=True, kw_only=True)
class CheckpointOptions:
    """How often the state of training is saved.

    Attributes:
        checkpoint_every: how often.
    """

    checkpoint_every: CheckpointInterval = option(
        CheckpointInterval(60, "s"),  # a minute of work at most is done twice
        "save the state of training every Ns (seconds, and at each epoch's end), Nsteps or Nepochs",
        group=_RUN,
        metavar="N",
        convert=parse_interval,
        show=str,
        identity=False,
    )


@checked
@dataclass(frozen=True, kw_only=True)
class StepOptions:
    """Options of a training step, of which `tune` can try several values; None: the recipe decides.

    Attributes:
        batch_size: rows per step.
        learning_rate: of the optimizer; a model that comes compiled keeps its own.
    """

    batch_size: int | None = option(
        None, "examples per step", group=_TRAINING, metavar="N", parse=int, unset=_BY_RECIPE, tunable=True
    )
    learning_rate: float | None = option(
        None,
        "learning rate of the optimizer",
        group=_TRAINING,
        metavar="F",
        parse=float,
        unset=_BY_RECIPE,
        tunable=True,
    )


@checked
@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How to train, but for the sizes that `tune` tries; None: the recipe decides.

    Attributes:
        model: "auto" (what the shards hold decides), "mlp", "linear", "sepcnn", "FILE.keras", "MODULE:FUNCTION", or a
            function of the shards' description that returns a `keras.Model`. A model that comes compiled keeps its
            loss, optimizer and metrics; it needs the metric "accuracy".
        engine: "fused": the kernels of `shardtrain.engine`, for "mlp" and "linear" over n-grams; "keras"; "auto":
            "fused" where it has what is asked for.
        recipe: what decides the options that are not given, see `training.recipes`: "guide", as Google's guide has
            them; "fast", for the fused engine, which learns in few epochs; "auto": "fast" where that engine trains.
        epochs: the most epochs to train; early stopping usually ends training before.
        patience: epochs without a better `monitor` after which training stops.
        monitor: the metric of the validation split that decides which epoch is kept.
        seed: of weights, dropout and the order of examples.
        shuffle: "none", "blocks", "window" or "global", as in `Split.batches`.
        optimizer: "adam", "adagrad", "sgd", "row-adagrad" or "lazy-adam", of which only the fused engine has the last
            two; a model that comes compiled keeps its own.
        schedule: how the learning rate changes, by a name of `shardtrain.models.schedules`, over all epochs.
        scaling: "none", or "naive-bayes": in training, features are multiplied by how much they say of the classes,
            see `engine.scaling`; only the fused engine has it.
        clip_norm: gradients that are longer, all weights together, are shortened to it; None: none are.
        class_weight: "none", or "balanced": in the loss of training every class counts the same.
        mixed_precision: layers compute in bfloat16; weights, sparse products and the output stay in float32.
        embeddings: a file of word vectors for the embedding of sepcnn, which is frozen until early stopping ends that,
            and then trained with a tenth of the learning rate until early stopping ends that as well; each of the two
            trainings has `epochs`.
        devices: that share every step's batch, such as ("GPU:0", "GPU:1"); empty: all GPUs if there are several.
        memory_limit: bytes that reading batches may hold; see `shardtrain.loader.memory`.
    """

    model: str | ModelFunction = option(
        AUTO,
        "mlp, linear, sepcnn, FILE.keras, or MODULE:FUNCTION that makes a model",
        group=_TRAINING,
        metavar="NAME",
        unset="by the shards",
    )
    recipe: str = option(
        "auto",
        "what decides the options that are not given: fast, for few epochs with the fused engine, or guide, as "
        "Google's guide has them",
        group=_TRAINING,
        choices=RECIPES,
        unset="fast where the fused engine trains",
    )
    engine: str = option(
        "auto",
        "fused: compiled kernels for mlp and linear over n-grams, without TensorFlow; or keras",
        group=_TRAINING,
        choices=ENGINES,
        unset="fused where it has what is asked for",
    )
    epochs: int | None = option(None, "at most N epochs", group=_TRAINING, metavar="N", parse=int, unset=_BY_RECIPE)
    patience: int | None = option(
        None,
        "stop after N epochs without a better --monitor",
        group=_TRAINING,
        metavar="N",
        parse=int,
        unset=_BY_RECIPE,
    )
    monitor: str = option(
        "loss",
        "metric of the validation split that decides which epoch is kept, and when to stop: " + ", ".join(MEASURES),
        group=_TRAINING,
        choices=MEASURES,
        metavar="METRIC",
    )
    seed: int = option(1, "seed of weights, dropout and order", group=_TRAINING, metavar="S", parse=int)
    shuffle: str = option(
        "window",
        "none, blocks, window, or global: a permutation of all rows",
        group=_TRAINING,
        choices=SHUFFLES,
    )
    optimizer: str | None = option(
        None,
        "adam, adagrad or sgd; of the fused engine also row-adagrad and lazy-adam",
        group=_TRAINING,
        choices=OPTIMIZERS,
        unset=_BY_RECIPE,
    )
    schedule: str | None = option(
        None, "how the learning rate changes", group=_TRAINING, choices=SCHEDULES, unset=_BY_RECIPE
    )
    scaling: str | None = option(
        None,
        "naive-bayes: features weigh in training what they say of the classes",
        group=_TRAINING,
        choices=SCALINGS,
        unset=_BY_RECIPE,
    )
    clip_norm: float | None = option(
        None, "clip gradients to this global norm", group=_TRAINING, metavar="F", parse=float, unset="none"
    )
    class_weight: str = option(
        "none",
        "none, or balanced: every class counts the same",
        group=_TRAINING,
        choices=CLASS_WEIGHTS,
    )
    mixed_precision: bool = option(False, "compute in bfloat16, keep weights in float32", group=_TRAINING)
    embeddings: Path | None = option(
        None,
        "sepcnn: word vectors as GloVe's or fastText's text file",
        group=_TRAINING,
        metavar="FILE",
        parse=Path,
        unset="none",
    )
    devices: tuple[str, ...] = option(
        (),
        "share each batch among these, such as GPU:0 GPU:1",
        group=_RESOURCES,
        metavar="NAME",
        nargs="+",
        unset="all GPUs",
        identity=False,
    )
    memory_limit: int = option(
        DEFAULT_LIMIT,
        "memory for reading batches, such as 512MiB",
        group=_RESOURCES,
        metavar="SIZE",
        convert=parse_size,
        show=show_size,
        identity=False,
    )


@checked
@dataclass(frozen=True, kw_only=True)
class FitOptions(StepOptions, TrainingOptions, CheckpointOptions):
    """How to train.

    Attributes:
        mlp: sizes of the mlp.
        sepcnn: sizes of the sepcnn.
        tensorboard: whether events for TensorBoard are written, to `tensorboard/` in the run folder; or to
            which folder.
        worker_timeout: seconds in which all workers have to appear, where several machines train.

    The other attributes are those of the classes that it extends.

    Raises:
        UsageError: a value outside its range.
    """

    mlp: MlpOptions = field(default_factory=MlpOptions)
    sepcnn: SepcnnOptions = field(default_factory=SepcnnOptions)
    tensorboard: bool | Path = option(
        False,
        "write losses and metrics of each epoch for TensorBoard to DIR, or to tensorboard/ in the run folder",
        group=_RUN,
        metavar="DIR",
        nargs="?",
        parse=Path,
        const=True,
        unset="off",
    )
    worker_timeout: float = option(
        300.0,  # a cluster starts its machines one after the other
        "seconds in which all workers have to appear, where several train",
        group=_RESOURCES,
        metavar="S",
        parse=float,
        identity=False,
    )

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{flag(name)} is {value}; it must be at least 1")
        if self.learning_rate is not None and not (self.learning_rate > 0 and math.isfinite(self.learning_rate)):
            raise UsageError(f"--learning-rate is {self.learning_rate}; it must be a positive number")
        if not 0 <= self.seed < 1 << 32:
            raise UsageError(f"--seed is {self.seed}; it must be at least 0 and less than 2**32")
        if self.batch_size is not None and self.batch_size < len(self.devices):
            raise UsageError(f"--batch-size {self.batch_size} cannot be divided among {len(self.devices)} --devices")
        if self.memory_limit < LEAST_LIMIT:
            raise UsageError(
                f"--memory-limit is {show_size(self.memory_limit)}; it must be at least {show_size(LEAST_LIMIT)}"
            )
        if self.engine == "keras" and (asked := self.of_fused):
            if asked.startswith("--optimizer"):
                raise UsageError(f"{asked} is one of --engine fused; choose that, or another optimizer")
            raise UsageError(f"{asked} is for --engine fused; choose that, or omit it")
        if not (self.worker_timeout > 0 and math.isfinite(self.worker_timeout)):
            raise UsageError(f"--worker-timeout is {self.worker_timeout}; it must be a positive number of seconds")
        if self.clip_norm is not None and not (self.clip_norm > 0 and math.isfinite(self.clip_norm)):
            raise UsageError(f"--clip-norm is {self.clip_norm}; it must be a positive number")

    @property
    def of_fused(self) -> str:
        """An option, with its value, that only the fused engine takes; "" if none is given."""
        given = {
            "optimizer": self.optimizer in FUSED_OPTIMIZERS,
            "scaling": self.scaling == "naive-bayes",
            "recipe": self.recipe == "fast",
        }
        return next((f"{flag(name)} {getattr(self, name)}" for name, is_given in given.items() if is_given), "")

    def refuse_unused_sizes(self, model: str) -> None:
        """Refuse sizes of another model than the one that is trained; "auto" may have those of any it chooses from.

        Raises:
            UsageError: there are such; they would change nothing.
        """
        given = [name for name, cls in SIZES.items() if getattr(self, name) != cls()]
        if unused := [name for name in given if name != model and (self.model != AUTO or model not in given)]:
            raise UsageError(
                f"sizes of the model '{unused[0]}' are given, and '{model}' is trained; omit {flag(unused[0])}"
            )

    def with_sizes(self, sizes: Mapping[str, Any], kind: str) -> FitOptions:
        """Return the same options with other sizes of the model.

        Args:
            sizes: options of `MlpOptions` or `SepcnnOptions`.
            kind: of the features, which decides the model where it is "auto".

        Raises:
            UsageError: a size that the model does not have, or that the word vectors decide.
        """
        name = check_sizes(sizes, self.model, kind)
        if self.embeddings is not None and "embedding_dim" in sizes:
            raise UsageError("--embedding-dim is that of the vectors in --embeddings; omit it")
        chosen: dict[str, Any] = {name: SIZES[name](**sizes)} if sizes and name in SIZES else {}
        return replace(self, **chosen)


def check_sizes(names: Mapping[str, Any], model: str | ModelFunction, kind: str) -> str:
    """Refuse options that are sizes of another model; gives the model's name, also of "auto".

    Raises:
        UsageError: there are such.
    """
    name = model_for(kind) if model == AUTO else str(model)
    known = options_of(SIZES[name]) if name in SIZES else {}
    sizes = {each for cls in SIZES.values() for each in options_of(cls)}
    for each in names:
        if each in sizes and each not in known:
            its = f", whose sizes are {', '.join(map(flag, known))}" if known else ", which has no sizes"
            raise UsageError(f"{flag(each)} is not a size of the model '{name}'{its}; omit it or choose another model")
    return name
