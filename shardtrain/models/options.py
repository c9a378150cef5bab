"""Declare the models, the features they take, and their sizes as options."""

from __future__ import annotations

from dataclasses import dataclass, fields

from shardtrain.errors import UsageError
from shardtrain.options import checked, flag, option

SUFFIX = ".keras"  # of files of models
AUTO = "auto"  # the model that takes what the shards hold
KINDS = {  # features that each model takes
    "mlp": ("ngram", "dense"),
    "linear": ("ngram", "dense"),
    "sepcnn": ("sequence",),
}
OPTIMIZER_SCHEDULES = ("cosine", "linear", "exponential")
SCHEDULES = ("constant", *OPTIMIZER_SCHEDULES, "plateau")
EXPONENTIAL_END = 0.01  # the last rate of `exponential`, as a fraction of the first
PLATEAU_FACTOR = 0.5  # by which `plateau` multiplies the rate
ENGINES = ("auto", "fused", "keras")
RECIPES = ("auto", "fast", "guide")
SCALINGS = ("none", "naive-bayes")
OPTIMIZERS = ("adam", "adagrad", "sgd", "row-adagrad", "lazy-adam")
FUSED_OPTIMIZERS = OPTIMIZERS[3:]  # that Keras does not have
_GROUP = "model sizes"
_DROPOUT = "share of values dropped in training"


@checked
@dataclass(frozen=True, kw_only=True)
class MlpOptions:
    """Sizes of `mlp`; the defaults are the guide's.

    Attributes:
        layers: with the output layer.
        units: of a hidden layer.
        dropout: share of values dropped in training, in [0, 1).

    Raises:
        UsageError: a value outside its range.
    """

    layers: int = option(2, "mlp: layers including the output", group=_GROUP, metavar="N", parse=int, tunable=True)
    units: int = option(64, "mlp: units per hidden layer", group=_GROUP, metavar="N", parse=int, tunable=True)
    dropout: float = option(0.2, _DROPOUT, group=_GROUP, metavar="F", parse=float, tunable=True)

    def __post_init__(self) -> None:
        _check_sizes(self)


@checked
@dataclass(frozen=True, kw_only=True)
class SepcnnOptions:
    """Sizes of `sepcnn`; the defaults are the guide's.

    Attributes:
        blocks: with the last one, which has no pooling.
        filters: twice as many in the last block.
        kernel_size: tokens that a filter sees.
        pool_size: tokens that are pooled into one.
        embedding_dim: numbers per word.
        dropout: share of values dropped in training, in [0, 1).

    Raises:
        UsageError: a value outside its range.
    """

    blocks: int = option(2, "sepcnn: blocks of two convolutions", group=_GROUP, metavar="N", parse=int, tunable=True)
    filters: int = option(
        64, "sepcnn: filters, twice as many in the last block", group=_GROUP, metavar="N", parse=int, tunable=True
    )
    kernel_size: int = option(3, "sepcnn: tokens per filter", group=_GROUP, metavar="N", parse=int, tunable=True)
    pool_size: int = option(3, "sepcnn: tokens pooled into one", group=_GROUP, metavar="N", parse=int, tunable=True)
    embedding_dim: int = option(200, "sepcnn: numbers per word", group=_GROUP, metavar="N", parse=int, tunable=True)
    dropout: float = option(0.2, _DROPOUT, group=_GROUP, metavar="F", parse=float, tunable=True)

    def __post_init__(self) -> None:
        _check_sizes(self)


SIZES: dict[str, type[MlpOptions] | type[SepcnnOptions]] = {"mlp": MlpOptions, "sepcnn": SepcnnOptions}


def _check_sizes(options: MlpOptions | SepcnnOptions) -> None:
    for field in fields(options):
        value = getattr(options, field.name)
        if field.name == "dropout":
            if not 0 <= value < 1:
                raise UsageError(f"--dropout is {value}; it must be at least 0 and less than 1")
        elif value < 1:
            raise UsageError(f"{flag(field.name)} is {value}; it must be at least 1")


def model_for(kind: str) -> str:
    """Return the model that takes a kind of features, where none is requested."""
    return next(name for name, kinds in KINDS.items() if kind in kinds)
