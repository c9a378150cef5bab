"""Determine what a model's outputs mean: probabilities or logits, and whether its loss takes one-hot labels.

The last layer tells where it is a plain one, else the outputs for random rows do. A built-in loss of Keras tells which
labels it takes and whether it expects logits; a loss of the user's own gets class indices, as it always did. What
cannot be trained or predicted is refused here, before the first step.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.errors import ModelError
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.adapters import InputAdapter
from shardtrain.models.layers import SparseDense
from shardtrain.models.user_models import summarize_error

PROBABILITIES, LOGITS = "probabilities", "logits"
_ROWS, _COLUMNS = 32, 64  # of random features, at most; a last layer without activation leaves [0, 1] in the first rows
_PLAIN = (keras.layers.Dense, keras.layers.Activation, SparseDense)  # exact types: their `activation` is their last act
_MEANINGS = {"softmax": PROBABILITIES, "sigmoid": PROBABILITIES, "linear": LOGITS}
_SPARSE, _CATEGORICAL = (
    "sparse_categorical_crossentropy",
    ("categorical_crossentropy", "categorical_focal_crossentropy"),
)
_AUTOMATIC = ("crossentropy", "ce")  # Keras chooses by the shape of the labels, which are class indices
_END = "end the model with a softmax, or a sigmoid for two classes"

Outputs = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """What is known of the loss that a model was compiled with.

    Attributes:
        name: as Keras names its function; empty for a loss of the user's own, about which nothing is known.
        from_logits: whether it takes logits; None if it has no such argument.
    """

    name: str = ""
    from_logits: bool | None = None

    def one_hot(self, units: int) -> bool:
        """Whether labels must have the shape of an output of so many units."""
        return units > 1 and self.name not in ("", _SPARSE)


def loss_of(model: keras.Model) -> Loss:
    """Describe the loss of a compiled model."""
    loss: Any = model.loss
    if isinstance(loss, list | tuple | dict) and len(loss) == 1:
        (loss,) = loss.values() if isinstance(loss, dict) else loss
    if isinstance(loss, str) and loss.lower() in _AUTOMATIC:
        return Loss()
    try:
        loss = keras.losses.get(loss)
    except ValueError:  # tracing the step reports it
        return Loss()
    given: dict[str, Any] = {}
    if isinstance(loss, functools.partial):
        loss, given = loss.func, loss.keywords
    bases = type(loss).__mro__ if isinstance(loss, keras.losses.Loss) else ()
    for base in bases:
        if base.__module__.startswith("keras.") and base.__name__ in _SNAKES:
            return Loss(name=_SNAKES[base.__name__], from_logits=getattr(loss, "from_logits", None))
    name = getattr(loss, "__name__", "")
    if name not in _SNAKES.values() or not str(getattr(loss, "__module__", "")).startswith("keras."):
        return Loss()
    return Loss(name=name, from_logits=bool(given.get("from_logits", False)) if "crossentropy" in name else None)


def _losses() -> dict[str, str]:
    """Return the name of the function of each of Keras' classes of losses, such as "hinge" for "Hinge"."""
    functions = {name.replace("_", ""): name for name in dir(keras.losses) if name.islower()}
    classes = [name for name in dir(keras.losses) if not name.islower()]
    known = {name: functions[name.lower()] for name in classes if name.lower() in functions}
    return {**known, "KLDivergence": "kl_divergence"}


_SNAKES = _losses()


def check_single(model: keras.Model) -> None:
    """Check that a model has one input and one output.

    Raises:
        ModelError: it has several.
    """
    for what, names_of, must in (
        ("inputs", "input_names", "shards have one, the features of a text"),
        ("outputs", "output_names", "it must have one, for the classes"),
    ):
        found = getattr(model, what, None)
        if found and len(found) > 1:
            names = ", ".join(map(repr, getattr(model, names_of, [each.name for each in found])[:5]))
            raise ModelError(f"the model has {len(found)} {what} ({names}); {must}: pass a model of one")


def outputs_for(model: keras.Model, adapter: InputAdapter, x: Any) -> Outputs:
    """Compute the model's outputs for feature rows; this also builds a model that has no input shape yet.

    Raises:
        ModelError: the model fails, or its output is not one tensor of shape (rows, units).
    """
    try:
        outputs = model(adapter.assemble(*adapter.arrays(x)))
    except Exception as error:  # Keras raises many types for shapes that do not fit
        raise ModelError(
            f"the model does not take batches of {adapter.kind} features of shape (rows, {adapter.num_features}): "
            f"{summarize_error(error)}"
        ) from error
    if not keras.ops.is_tensor(outputs):
        raise ModelError(f"the model returns a {type(outputs).__name__} for a batch; it must have one output")
    if len(outputs.shape) != 2:
        raise ModelError(f"the model's output for one row has shape {tuple(outputs.shape)}; it must be (1, units)")
    return np.asarray(keras.ops.cast(outputs, "float32"))


def empty_row(adapter: InputAdapter) -> Any:
    """Return one row of features that are all zero."""
    shape = (1, adapter.num_features)
    if adapter.kind == "ngram":
        return Csr(np.zeros(0, np.float32), np.zeros(0, np.int32), np.zeros(2, np.int64), shape)
    return np.zeros(shape, np.float32 if adapter.kind == "dense" else np.uint8)


def _random_rows(adapter: InputAdapter, description: DatasetInfo) -> Any:
    """Return rows of random features, the same in every call."""
    generator, width = np.random.default_rng(0), adapter.num_features
    if adapter.kind == "sequence":
        return generator.integers(0, description.vocabulary_size, (_ROWS, width))
    if adapter.kind == "dense":
        return generator.normal(0, 10, (_ROWS, width)).astype(np.float32)
    used = np.sort(generator.choice(width, min(width, _COLUMNS), replace=False)).astype(np.int32)
    values = generator.normal(0, 10, _ROWS * len(used)).astype(np.float32)
    return Csr(values, np.tile(used, _ROWS), np.arange(_ROWS + 1) * len(used), (_ROWS, width))


def output_units(model: keras.Model, adapter: InputAdapter) -> int:
    """Return the number of units of the model's output."""
    outputs = getattr(model, "outputs", None)
    return int(outputs[0].shape[-1]) if outputs else outputs_for(model, adapter, empty_row(adapter)).shape[1]


def meaning_of(model: keras.Model, adapter: InputAdapter, description: DatasetInfo) -> str:
    """Return whether a model that has been called outputs probabilities or logits.

    Raises:
        ModelError: the model fails for random rows.
    """
    activation = _last_activation(model)
    if activation in _MEANINGS:
        return _MEANINGS[activation]
    values = outputs_for(model, adapter, _random_rows(adapter, description))
    within = bool(((values >= 0) & (values <= 1)).all() and values.any())
    if within and values.shape[1] == 1 and model.compiled and loss_of(model).from_logits:
        return LOGITS
    return PROBABILITIES if within else LOGITS


def as_probabilities(outputs: Any, meaning: str) -> Any:
    """Return a tensor of a model's outputs, (rows, units), as one of probabilities.

    Args:
        outputs: of the model.
        meaning: "probabilities", for outputs that are returned as they are, or "logits".
    """
    if meaning != LOGITS:
        return outputs
    outputs = keras.ops.cast(outputs, "float32")
    return keras.ops.sigmoid(outputs) if outputs.shape[1] == 1 else keras.ops.softmax(outputs)


def _last_activation(model: keras.Model) -> str:
    """Return the name of the activation that makes the outputs; empty if that is not known."""
    last = _last_layer(model)
    if type(last) in _PLAIN:
        return str(getattr(last.activation, "__name__", ""))
    return type(last).__name__.lower() if type(last).__name__ in ("Softmax", "Sigmoid") else ""


def _last_layer(model: keras.Model) -> Any:
    """Return the layer that makes the outputs; None if that is not known."""
    last: Any = None
    if isinstance(model, keras.Sequential):
        last = model.layers[-1]
    elif getattr(model, "output_names", None):
        last = next((each for each in getattr(model, "operations", ()) if each.name == model.output_names[0]), None)
    return _last_layer(last) if isinstance(last, keras.Model) else last


@contextmanager
def without_last_activation(model: keras.Model, *, leave: bool) -> Iterator[bool]:
    """Have a model output logits while functions of it are traced.

    Args:
        model: it must not be called otherwise meanwhile.
        leave: change nothing, because it outputs logits.

    Yields:
        Whether a softmax or a sigmoid of its last layer was left out.
    """
    last = _last_layer(model)
    if leave or type(last) not in _PLAIN or _MEANINGS.get(_last_activation(model)) != PROBABILITIES:
        yield False
        return
    activation, last.activation = last.activation, keras.activations.linear
    try:
        yield True
    finally:
        last.activation = activation


def check_trainable(model: keras.Model, units: int, meaning: str) -> None:
    """Check that the loss of a compiled model fits its output.

    Raises:
        ModelError: it needs one unit per class, or probabilities, and the model outputs one unit or logits.
    """
    loss = loss_of(model)
    if units == 1 and loss.name in (_SPARSE, *_CATEGORICAL):
        raise ModelError(
            f"the model has 1 output unit, but its loss {loss.name} needs one per class; compile it with "
            "binary_crossentropy, or give it 2 units with a softmax"
        )
    if meaning == LOGITS and loss.name and not loss.from_logits:
        other = "" if loss.from_logits is None else ", or compile it with from_logits=True in the loss"
        raise ModelError(
            f"the model's outputs are not probabilities, and its loss {loss.name} does not take logits; {_END}{other}"
        )


def count_at_zero(model: keras.Model) -> None:
    """Compile a model of one logit again, so that its accuracy is counted at the logit 0 instead of 0.5.

    Keras' "accuracy" takes 0.5 as the border between two classes, whatever the loss; that of a logit is 0. Optimizer,
    loss and other metrics stay, and so does a model with a `compile` of its own.
    """
    if type(model).compile is not keras.Model.compile:
        return
    config = model.get_compile_config()
    metrics = {
        name: _at_zero(keras.saving.deserialize_keras_object(config[name]))
        for name in ("metrics", "weighted_metrics")
        if config.get(name) is not None
    }
    model.compile(
        model.optimizer,
        model.loss,
        loss_weights=config.get("loss_weights"),
        run_eagerly=model.run_eagerly,
        steps_per_execution=model.steps_per_execution,
        jit_compile=model.jit_compile,
        **metrics,
    )


def _at_zero(metric: Any) -> Any:
    """Replace accuracies at 0.5 in a metric, or in metrics, by accuracies at 0."""
    if isinstance(metric, list | tuple):
        return [_at_zero(each) for each in metric]
    if isinstance(metric, dict):
        return {name: _at_zero(each) for name, each in metric.items()}
    if isinstance(metric, str) and metric.lower() in ("accuracy", "acc", "binary_accuracy"):
        return keras.metrics.BinaryAccuracy(name=metric, threshold=0.0)
    if type(metric) is keras.metrics.BinaryAccuracy and metric.get_config()["threshold"] == 0.5:
        return keras.metrics.BinaryAccuracy.from_config({**metric.get_config(), "threshold": 0.0})
    return metric
