"""Models of the user's: MODULE:FUNCTION, a function, or FILE.keras.

They are loaded with Keras' safe mode on, so that a model file cannot run code, and what could be trained but not be
loaded again is refused before training. A user's function may not pass seeds to its layers, and a file does not keep
those of dropout, so both are made under `keras.utils.set_random_seed`.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import keras

import shardtrain.models.layers
import shardtrain.models.optimizers  # noqa: F401 - both register the classes that a saved model names
from shardtrain.errors import ModelError
from shardtrain.loader.info import DatasetInfo

ModelFunction = Callable[[DatasetInfo], keras.Model]
SUFFIX = ".keras"


def load_file(path: Path | str, *, seed: int) -> keras.Model:
    """Load a model that Keras saved, with its weights; one that was saved compiled stays compiled.

    Raises:
        ModelError: there is no such file, Keras cannot load it, or it would run code.
    """
    if not Path(path).is_file():
        raise ModelError(f"there is no model file '{path}'; name one that keras.Model.save wrote")
    keras.utils.set_random_seed(seed)
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises many kinds for files that are damaged, unsafe or of classes unknown to it
        raise ModelError(
            f"the model file '{path}' cannot be loaded: {said(error)}; for layers of your own use --model "
            "MODULE:FUNCTION with a function that imports them and loads the file"
        ) from error


def load_function(name: str) -> ModelFunction:
    """Import MODULE:FUNCTION, looking in the current folder first.

    Raises:
        ModelError: there is no such module or function, or importing it failed.
    """
    module_name, _, function_name = name.partition(":")
    function = getattr(import_module(module_name), function_name, None)
    if not callable(function):
        raise ModelError(
            f"model '{name}': '{module_name}' has no function '{function_name}'; write a function of the shards' "
            "description that returns a keras.Model"
        )
    return function  # type: ignore[no-any-return]


def import_module(name: str) -> ModuleType:
    """Import a user's module, looking in the current folder first.

    Raises:
        ModelError: there is none of that name, or importing it failed.
    """
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except Exception as error:  # a user's module may raise anything
        raise ModelError(f"importing the module '{name}' from '{folder}' failed: {said(error)}") from error
    finally:
        sys.path.remove(folder)


def call_function(function: ModelFunction, description: DatasetInfo, *, seed: int) -> keras.Model:
    """Make a user's model, with the global seeds of Keras, numpy and Python set before.

    Raises:
        ModelError: the function failed, or returned something else or a model that could not be loaded again.
    """
    name = getattr(function, "__qualname__", repr(function))
    keras.utils.set_random_seed(seed)
    try:
        model = function(description)
    except Exception as error:  # a user's function may raise anything
        raise ModelError(f"the model function '{name}' failed: {said(error)}") from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"the model function '{name}' returned a {type(model).__name__}, not a keras.Model")
    _check_loadable(model, name)
    return model


def _check_loadable(model: keras.Model, name: str) -> None:
    """Find out before training, not after, that Keras' safe mode would not load the model again."""
    try:
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model), safe_mode=True)
    except Exception as error:  # users' get_config and Keras raise many kinds
        reason: BaseException = error
        while reason.__context__ is not None:  # Keras wraps the reason in a dump of the whole configuration
            reason = reason.__context__
        raise ModelError(
            f"the model of '{name}' could be trained, but not loaded again: {said(reason)}; give classes of your own "
            "a get_config, register them with keras.saving.register_keras_serializable, and use no Lambda layers"
        ) from error


def said(error: BaseException) -> str:
    """The kind of an error and the beginning of its message, in one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # Keras prints parts of its messages bold
    if plain.startswith("in user code:"):  # from a traced function: first where, then what
        plain = plain.rpartition(f"{type(error).__name__}: ")[2]
    message = textwrap.shorten(plain, 200, placeholder=" …")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
