"""Load user-defined models: MODULE:FUNCTION, a function, or FILE.keras.

Files are loaded in Keras' safe mode, so that they cannot run code, and a model that could not be loaded again is
refused before training. User functions may not pass seeds to their layers, and files do not keep those of dropout, so
both are created under `keras.utils.set_random_seed`.
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
from shardtrain.models.names import check_there

ModelFunction = Callable[[DatasetInfo], keras.Model]


def load_file(path: Path | str, *, seed: int) -> keras.Model:
    """Load a saved Keras model with its weights; a model saved compiled stays compiled.

    Raises:
        ModelError: the file does not exist, Keras cannot load it, or it would run code.
    """
    check_there(str(path))
    keras.utils.set_random_seed(seed)
    try:
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # Keras raises many types for damaged files, unsafe ones and unregistered classes
        raise ModelError(
            f"the model file '{path}' cannot be loaded: {summarize_error(error)}; if it has custom layers, use --model "
            "MODULE:FUNCTION with a function that imports them and loads the file"
        ) from error


def load_function(name: str) -> ModelFunction:
    """Import MODULE:FUNCTION, searching the current folder first.

    Raises:
        ModelError: the module or function does not exist, or importing it failed.
    """
    module_name, _, function_name = name.partition(":")
    function = getattr(import_module(module_name), function_name, None)
    if not callable(function):
        raise ModelError(
            f"model '{name}': '{module_name}' has no function '{function_name}'; define one that takes the description "
            "of the shards and returns a keras.Model"
        )
    return function  # type: ignore[no-any-return]


def import_module(name: str) -> ModuleType:
    """Import a user's module, searching the current folder first.

    Raises:
        ModelError: the module does not exist, or importing it failed.
    """
    folder = os.getcwd()
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except Exception as error:  # a user's module may raise anything
        raise ModelError(f"importing the module '{name}' from '{folder}' failed: {summarize_error(error)}") from error
    finally:
        sys.path.remove(folder)


def call_function(function: ModelFunction, description: DatasetInfo, *, seed: int) -> keras.Model:
    """Call a user's model function after setting the global seeds of Keras, numpy and Python.

    Raises:
        ModelError: the function failed, did not return a model, or returned one that could not be loaded again.
    """
    name = getattr(function, "__qualname__", repr(function))
    keras.utils.set_random_seed(seed)
    try:
        model = function(description)
    except Exception as error:  # a user's function may raise anything
        raise ModelError(f"the model function '{name}' failed: {summarize_error(error)}") from error
    if not isinstance(model, keras.Model):
        raise ModelError(f"the model function '{name}' returned a {type(model).__name__}, not a keras.Model")
    _check_loadable(model, name)
    return model


def _check_loadable(model: keras.Model, name: str) -> None:
    """Check before training that Keras' safe mode could load the model again.

    Raises:
        ModelError: it could not.
    """
    try:
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(model), safe_mode=True)
    except Exception as error:  # users' get_config and Keras raise many types
        reason: BaseException = error
        while reason.__context__ is not None:  # Keras wraps the reason in a dump of the whole configuration
            reason = reason.__context__
        raise ModelError(
            f"the model of '{name}' could be trained, but not loaded again: {summarize_error(reason)}; give custom "
            "classes a get_config, register them with keras.saving.register_keras_serializable, and avoid Lambda layers"
        ) from error


def summarize_error(error: BaseException) -> str:
    """Return the type of an error and the start of its message as one line."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))  # Keras prints parts of its messages bold
    if plain.startswith("in user code:"):  # from a traced function: the location comes before the message
        plain = plain.rpartition(f"{type(error).__name__}: ")[2]
    message = textwrap.shorten(plain, 200, placeholder=" …")
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
