"""Choose the engine and every option of a training that the user left open.

Two recipes decide what is not given:

- `guide`: Google's text classification guide: Adam at 1e-3, batches of 128, and early stopping after two epochs without
  a lower validation loss.
- `fast`, of the fused engine: `lazy-adam` with a rate that falls to 0 over few epochs, on features scaled by naive
  Bayes. Batches, rates and epochs were chosen by measurement on twelve corpora of 150 to 160,000 documents, two to 25
  classes (docs/engine.md). Small sets get as many epochs as make `MIN_STEPS` steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from shardtrain.errors import UsageError
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.options import SUFFIX
from shardtrain.training.distribution.cluster import this_cluster
from shardtrain.training.options import FitOptions

FUSED_MODELS = ("mlp", "linear")  # that the fused engine trains, over n-grams
_SEVERAL = "several workers"
GUIDE: Mapping[str, Any] = {
    "batch_size": 128,
    "learning_rate": 1e-3,
    "epochs": 1000,
    "patience": 2,
    "optimizer": "adam",
    "schedule": "constant",
    "scaling": "none",
}
MIN_STEPS, MAX_EPOCHS = 800, 100  # of a small set
MANY_ROWS = 50_000  # of which batches are larger
VERY_MANY_ROWS = 250_000  # which need fewer epochs
FAST_RATES = {
    "mlp": {"lazy-adam": 0.003, "adam": 0.003, "adagrad": 0.5, "row-adagrad": 0.5, "sgd": 1.0},
    "linear": {"lazy-adam": 0.06, "adam": 0.06, "adagrad": 10.0, "row-adagrad": 10.0, "sgd": 10.0},
}


@dataclass(frozen=True, kw_only=True)
class Chosen(FitOptions):
    """Options of a training, all decided; they are those of `FitOptions`."""

    batch_size: int
    learning_rate: float
    epochs: int
    patience: int
    optimizer: str
    schedule: str
    scaling: str


def choose(
    options: FitOptions, name: str, description: DatasetInfo, callbacks: Sequence[Any] = ()
) -> tuple[Chosen, str]:
    """Decide what is open.

    Args:
        options: of the user.
        name: of the model.
        description: of the shards.
        callbacks: of Keras.

    Returns:
        All options, and why the fused engine does not train where "auto" might have chosen it; "" where it does.

    Raises:
        UsageError: the engine does not have something that is asked for.
    """
    engine, missing = choose_engine(options, name, description.kind, callbacks)
    recipe = options.recipe
    if recipe == "auto":
        recipe = "fast" if engine == "fused" else "guide"
    given = {each.name: getattr(options, each.name) for each in fields(options)}
    known = {key: value for key, value in given.items() if value is not None}
    decided = dict(GUIDE)
    if engine == "fused" and recipe == "fast":
        decided = _fast(options, name, description.num_train)
    elif engine == "fused" and options.optimizer not in (None, "adam", "lazy-adam"):  # of which the guide has no rate
        decided["learning_rate"] = _fast(options, name, description.num_train)["learning_rate"]
    return Chosen(**{**given, **decided, **known, "engine": engine, "recipe": recipe}), missing


def choose_engine(options: FitOptions, name: str, kind: str, callbacks: Sequence[Any] = ()) -> tuple[str, str]:
    """Decide which engine trains a model over a kind of features; see `choose`.

    Raises:
        UsageError: the engine or the model does not have something that is asked for.
    """
    if options.embeddings is not None and name != "sepcnn":
        raise UsageError(f"--embeddings is for the model sepcnn, this is {name}; omit it")
    if options.mixed_precision and name.endswith(SUFFIX):
        raise UsageError(f"--mixed-precision cannot change the layers of '{name}', which keep theirs; omit it")
    missing = not_fused(options, name, kind, callbacks)
    if options.engine == "fused" and missing:
        raise UsageError(
            f"--engine fused trains {' and '.join(FUSED_MODELS)} over n-grams, not with {missing}; use --engine keras"
        )
    if options.engine != "auto":
        return options.engine, missing
    if missing and (asked := options.of_fused):
        raise UsageError(f"{asked} is for the fused engine, which does not train with {missing}; omit one of them")
    return "keras" if missing else "fused", missing


def not_fused(options: FitOptions, name: str, kind: str, callbacks: Sequence[Any] = ()) -> str:
    """Return what the fused engine does not have and the options ask for; "" where it has all."""
    asked = {
        f"the model '{name}' over {kind} features": name not in FUSED_MODELS or kind != "ngram",
        "callbacks of Keras": bool(callbacks),
        "--mixed-precision": options.mixed_precision,
        "--devices": bool(options.devices),
        _SEVERAL: this_cluster().size > 1,
    }
    return next((what for what, is_asked in asked.items() if is_asked), "")


def _fast(options: FitOptions, name: str, rows: int) -> dict[str, Any]:
    """Return what the recipe `fast` decides for a set of `rows` rows."""
    optimizer = options.optimizer or "lazy-adam"
    batch_size = options.batch_size or (128 if rows < MANY_ROWS else 512)
    epochs = 4 if rows < VERY_MANY_ROWS else 2
    if rows < MANY_ROWS:
        steps = -(-rows // batch_size)  # of an epoch
        epochs = min(MAX_EPOCHS, max(epochs, -(-MIN_STEPS // steps)))
    linear = name == "linear" or options.mlp.layers == 1  # the same network
    return {
        "batch_size": batch_size,
        "learning_rate": FAST_RATES["linear" if linear else "mlp"][optimizer],
        "epochs": epochs,
        "patience": 2,
        "optimizer": optimizer,
        "schedule": "linear",
        "scaling": "naive-bayes",
    }


def in_words(name: str, options: Chosen, missing: str) -> str:
    """Describe a training in a line: the engine, why it is that one, and what was decided."""
    elsewhere = ": the fused engine trains in one process" if missing == _SEVERAL else ""
    why = f" ({missing}{elsewhere})" if missing and options.engine == "keras" else ""
    parts = [
        f"{options.optimizer} at {options.learning_rate:g}",
        "" if options.schedule == "constant" else f"schedule {options.schedule}",
        "" if options.scaling == "none" else f"{options.scaling} scaling",
        f"batches of {options.batch_size:,}",
        "1 epoch" if options.epochs == 1 else f"at most {options.epochs:,} epochs",
    ]
    return f"{name} by the {options.engine} engine{why}, recipe {options.recipe}: {', '.join(filter(None, parts))}"
