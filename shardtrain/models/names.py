"""Resolve the name of the requested model, and check what can be checked without making it or importing Keras."""

from __future__ import annotations

from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

from shardtrain.errors import ModelError, UsageError
from shardtrain.models.options import AUTO, KINDS, SUFFIX, model_for

if TYPE_CHECKING:
    from shardtrain.models.user_models import ModelFunction


def model_name(model: str | ModelFunction, kind: str) -> str:
    """Return the name of the requested model for a kind of features: "mlp", or MODULE:FUNCTION for a function.

    Raises:
        UsageError: `model` is not a model's name, MODULE:FUNCTION or FILE.keras.
        ModelError: the model takes features of another kind.
    """
    if callable(model):
        return f"{model.__module__}:{getattr(model, '__qualname__', type(model).__qualname__)}"
    return choose_model(model, kind)


def choose_model(model: str, kind: str) -> str:
    """Resolve "auto", and check that a built-in model takes a kind of features.

    Raises:
        UsageError: `model` is not a model's name, MODULE:FUNCTION or FILE.keras.
        ModelError: the model takes features of another kind.
    """
    if model == AUTO:
        return model_for(kind)
    if ":" in model or model.endswith(SUFFIX):
        return model
    if model not in KINDS:
        raise UsageError(
            f"--model is {model!r}; choose {', '.join(KINDS)}, or MODULE:FUNCTION or FILE.keras for a model of your own"
        )
    if kind not in KINDS[model]:
        raise ModelError(
            f"{model} needs {' or '.join(KINDS[model])} features, and these are {kind} features; build with "
            f"--vectorizer {KINDS[model][0]}, or choose --model {model_for(kind)}"
        )
    return model


def check_there(name: str) -> None:
    """Check that the file or the module of a user's model exists; the module is not imported.

    Raises:
        ModelError: it does not.
    """
    if name.endswith(SUFFIX):
        if not Path(name).is_file():
            raise ModelError(f"no model file at '{name}'; pass a file written by keras.Model.save")
    elif ":" in name:
        package = name.partition(":")[0].partition(".")[0]
        folder = Path.cwd()
        if PathFinder.find_spec(package, [str(folder)]) is None and PathFinder.find_spec(package) is None:
            raise ModelError(f"model '{name}': there is no module '{package}' in '{folder}', nor is one installed")
