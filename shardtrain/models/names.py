"""Resolve the name of the requested model, without making it or importing Keras."""

from __future__ import annotations

from typing import TYPE_CHECKING

from shardtrain.errors import ModelError, UsageError
from shardtrain.loader.info import DatasetInfo
from shardtrain.models.options import AUTO, KINDS, SUFFIX, model_for

if TYPE_CHECKING:
    from shardtrain.models.user_models import ModelFunction


def model_name(model: str | ModelFunction, description: DatasetInfo) -> str:
    """Return the name of the requested model, such as "mlp", or MODULE:FUNCTION for a function.

    Raises:
        UsageError: `model` is not a model's name, MODULE:FUNCTION or FILE.keras.
        ModelError: the model takes features of another kind.
    """
    if callable(model):
        return f"{model.__module__}:{getattr(model, '__qualname__', type(model).__qualname__)}"
    return choose_model(model, description)


def choose_model(model: str, description: DatasetInfo) -> str:
    """Resolve "auto", and check that a built-in model takes the features of the shards.

    Raises:
        UsageError: `model` is not a model's name, MODULE:FUNCTION or FILE.keras.
        ModelError: the model takes features of another kind.
    """
    if model == AUTO:
        return model_for(description.kind)
    if ":" in model or model.endswith(SUFFIX):
        return model
    if model not in KINDS:
        raise UsageError(
            f"--model is {model!r}; choose {', '.join(KINDS)}, or MODULE:FUNCTION or FILE.keras for a model of your own"
        )
    if description.kind not in KINDS[model]:
        fitting = model_for(description.kind)
        raise ModelError(
            f"{model} needs {' or '.join(KINDS[model])} features, these shards hold {description.kind} features; "
            f"build shards with `python -m shardtrain build CORPUS --vectorizer {KINDS[model][0]}`, or train {fitting} "
            "on these"
        )
    return model
