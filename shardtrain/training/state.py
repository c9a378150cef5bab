"""Capture the exact state of a training as plain values and arrays, and restore it in another process.

The state is every variable of model, optimizer and metrics (the seeds of dropout included, which no Keras format
saves), and the plain attributes of callbacks. Variables are matched by
place, name, shape and type, so a renamed or reshaped layer is refused, never skipped. Keras numbers automatic names
(`dense_5`) across all models of a process; only the order of these numbers is compared. The state of operations that
TensorFlow seeds itself, such as `tf.random`, cannot be captured.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from shardtrain.errors import CheckpointError
from shardtrain.runtime.progress import say
from shardtrain.runtime.schema import shown
from shardtrain.training.checkpoint import pack
from shardtrain.training.steps import Steps
from shardtrain.training.tensorboard_folder import cut_events, event_bytes

# attributes of Keras' callbacks that belong to a process, not to a training
_PROCESS_ATTRIBUTES = {
    keras.callbacks.CSVLogger: {"append", "append_header", "csv_file", "writer"},
    keras.callbacks.TensorBoard: {"log_dir", "_log_write_dir", "_train_dir", "_val_dir", "_writers"},
}
_NUMBERED = re.compile(r"(.*?)(?:_(\d+))?")


def capture_variables(steps: Steps) -> dict[str, Any]:
    """Capture the name, shape, type and value of every variable of the model, its optimizer and its metrics.

    With several workers, the metrics are those of this one.
    """
    alone = steps.replicas.team.size == 1
    return {
        group: {
            "described": described,
            "values": [np.asarray(variable) if alone else steps.replicas.values(variable)[0] for variable in variables],
        }
        for group, (variables, described) in _groups(steps).items()
    }


def restore_variables(steps: Steps, saved: Mapping[str, Any]) -> None:
    """Assign the values that `capture_variables` returned; with several workers, but for the metrics.

    Raises:
        CheckpointError: the variables differ; none is changed.
    """
    groups = _groups(steps)
    for group, (_, described) in groups.items():
        before, now = saved[group]["described"], described
        for old, new in itertools.zip_longest(before, now):
            if old != new:
                raise CheckpointError(
                    f"the variables of the {group} differ from the checkpoint's: {_variable(old)} then, "
                    f"{_variable(new)} now; resume with the same model, or start again with --overwrite"
                )
    for group, (variables, _) in groups.items():
        if group == "metrics" and steps.replicas.team.size > 1:
            continue  # each worker has its own: `worker_state.restore`
        for variable, value in zip(variables, saved[group]["values"], strict=True):
            variable.assign(value)


def _groups(steps: Steps) -> dict[str, tuple[list[Any], list[list[Any]]]]:
    """Return the variables by group, and the [name, shape, type] of each."""
    model = steps.model
    optimizer = _slot_names(model.optimizer.variables, model.trainable_variables)
    metrics = steps.metrics_variables
    return {
        "model": (model.variables, _described(model.variables, [variable.path for variable in model.variables])),
        "optimizer": (model.optimizer.variables, _described(model.optimizer.variables, optimizer)),
        "metrics": (metrics, _described(metrics, [variable.path for variable in metrics])),
    }


def _described(variables: Iterable[Any], names: Iterable[str]) -> list[list[Any]]:
    found: list[list[Any]] = [
        [name, list(variable.shape), str(variable.dtype)] for name, variable in zip(names, variables, strict=True)
    ]
    numbering = _numbering(segment for each in found for segment in each[0].split("/"))
    for each in found:
        each[0] = "/".join(numbering[segment] for segment in each[0].split("/"))
    return found


def _slot_names(variables: Sequence[Any], weights: Sequence[Any]) -> list[str]:
    """Name an optimizer's variables, with a weight's index in place of its name, which Keras may number."""
    places = {weight.path.replace("/", "_") + "_": place for place, weight in enumerate(weights)}
    names = []
    for variable in variables:
        own = variable.path.rpartition("/")[2]
        weight = max((name for name in places if own.startswith(name)), key=len, default="")
        names.append(f"weight {places[weight]} {own.removeprefix(weight)}" if weight else own)
    return names


def _numbering(names: Iterable[str]) -> dict[str, str]:
    """Map each name to itself with its number replaced by its rank among names that differ only in the number."""
    ranks: dict[str, set[int]] = {}
    split = {}
    for name in names:
        match = _NUMBERED.fullmatch(name)
        assert match is not None
        stem, number = match[1], int(match[2] or -1)
        split[name] = stem, number
        ranks.setdefault(stem, set()).add(number)
    order = {stem: sorted(numbers) for stem, numbers in ranks.items()}
    return {
        name: stem if len(order[stem]) == 1 else f"{stem}_{order[stem].index(number)}"
        for name, (stem, number) in split.items()
    }


def _variable(described: list[Any] | None) -> str:
    if described is None:
        return "none"
    name, shape, dtype = described
    return f"'{name}' of shape {tuple(shape)} and type {dtype}"


def describe_model(model: keras.Model) -> Any:
    """Return the model's architecture and compilation as JSON values, without its initial weights."""
    found = json.loads(json.dumps(keras.saving.serialize_keras_object(model), default=str))
    numbering = _numbering(_strings(found))
    return _renamed(found, numbering)


def _strings(value: Any) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _strings(item)


def _renamed(value: Any, numbering: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return numbering[value]
    if isinstance(value, list):
        return [_renamed(item, numbering) for item in value]
    if isinstance(value, dict):
        return {key: _renamed(item, numbering) for key, item in value.items()}
    return value


def capture_callbacks(callbacks: Iterable[keras.callbacks.Callback]) -> list[dict[str, Any]]:
    """Capture the class and plain attributes of each callback, and the sizes of the files that it writes."""
    found = []
    for callback in callbacks:
        kept = {name: value for name, value in _attributes(callback).items() if _can_be_kept(value)}
        each: dict[str, Any] = {"class": type(callback).__qualname__, "attributes": kept}
        if isinstance(callback, keras.callbacks.CSVLogger):
            each["file_bytes"] = Path(callback.filename).stat().st_size
        if isinstance(callback, keras.callbacks.TensorBoard):
            each["event_bytes"] = _event_bytes(callback)
        found.append(each)
    return found


def warn_of_unsaved_attributes(callbacks: Iterable[keras.callbacks.Callback]) -> None:
    """Report attributes of users' callbacks that a checkpoint cannot hold, except functions, which do not change."""
    for callback in callbacks:
        if type(callback).__module__.partition(".")[0] in ("keras", "shardtrain"):
            continue
        for name, value in _attributes(callback).items():
            if not callable(value) and not _can_be_kept(value):
                say(
                    f"checkpoints do not hold '{name}' of the callback {type(callback).__qualname__}, which is a "
                    f"{type(value).__name__}; a resumed training has the value that on_train_begin sets"
                )


def _attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """Return the attributes of a callback, without those that belong to this process."""
    skipped = {"params", "_model"}.union(
        *(names for kind, names in _PROCESS_ATTRIBUTES.items() if isinstance(callback, kind))
    )
    return {name: value for name, value in vars(callback).items() if name not in skipped}


def _can_be_kept(value: Any) -> bool:
    try:
        pack(value, [])
    except TypeError:  # a function, a file: the callback creates them again
        return False
    return True


def check_callbacks(callbacks: Iterable[keras.callbacks.Callback], saved: Iterable[Mapping[str, Any]]) -> None:
    """Check that the callbacks are those that were saved, and truncate the files they write to the saved sizes.

    Raises:
        CheckpointError: the callbacks differ.
    """
    callbacks, saved = list(callbacks), list(saved)
    before, now = [each["class"] for each in saved], [type(callback).__qualname__ for callback in callbacks]
    if before != now:
        raise CheckpointError(
            f"the callbacks were {', '.join(before)}, they are {', '.join(now)} now; pass the same "
            "callbacks in the same order"
        )
    for callback, each in zip(callbacks, saved, strict=True):
        if "file_bytes" in each and Path(callback.filename).is_file():
            if Path(callback.filename).stat().st_size < each["file_bytes"]:
                say(f"'{callback.filename}' lacks lines that were logged before the interruption")
            else:
                os.truncate(callback.filename, each["file_bytes"])
            callback.append = True
        if "event_bytes" in each:
            _cut_events(callback, each["event_bytes"])


def _event_bytes(callback: keras.callbacks.TensorBoard) -> dict[str, int]:
    """Flush the event files and return their sizes."""
    for writer in callback._writers.values():
        writer.flush()
    return event_bytes(Path(callback.log_dir))


def _cut_events(callback: keras.callbacks.TensorBoard, saved: Mapping[str, int]) -> None:
    """Remove the events written after those in `saved`; the callback will write to new files."""
    callback._close_writers()  # it has started a file with the model's graph, which the earlier files hold already
    callback._writers = {}
    cut_events(Path(callback.log_dir), saved)


def restore_callbacks(
    callbacks: Iterable[keras.callbacks.Callback], saved: Iterable[Mapping[str, Any]], *, epochs: int
) -> None:
    """Set the attributes that `capture_callbacks` returned, after `epochs` epochs.

    Raises:
        CheckpointError: an attribute cannot be one of its callback.
    """
    for callback, each in zip(callbacks, saved, strict=True):
        attributes = each["attributes"]
        if type(callback).__module__.partition(".")[0] in ("keras", "shardtrain"):
            _check_attributes(callback, attributes, epochs)
        vars(callback).update(attributes)


def _check_attributes(callback: keras.callbacks.Callback, saved: Mapping[str, Any], epochs: int) -> None:
    """Refuse attributes of Keras' callbacks that would fail in a later epoch; those of users' may be anything."""
    wrong = [name for name, now in vars(callback).items() if name in saved and not _is_like(saved[name], now)]
    if isinstance(callback, keras.callbacks.EarlyStopping):
        best, weights = saved.get("best_epoch", 0), saved.get("best_weights")
        shapes = [weight.shape for weight in callback.model.get_weights()]
        if type(best) is not int or not 0 <= best < max(1, epochs):
            wrong.append("best_epoch")
        if weights is not None and (
            type(weights) is not list or [getattr(weight, "shape", None) for weight in weights] != shapes
        ):
            wrong.append("best_weights")
    if isinstance(callback, keras.callbacks.History) and not all(
        isinstance(each, list) for each in dict(saved.get("history") or {}).values()
    ):
        wrong.append("history")
    if wrong:
        raise CheckpointError(
            f"the checkpoint has {shown(saved[wrong[0]])} as '{wrong[0]}' of the callback "
            f"{type(callback).__qualname__}, which cannot be; start again with --overwrite"
        )


def _is_like(value: Any, now: Any) -> bool:
    """Return whether a value can take the place of one of a plain type."""
    numbers = (int, float)
    if type(now) in numbers:
        return type(value) in numbers or isinstance(value, np.number)
    return type(now) not in (str, bool, list, dict) or type(value) is type(now)
