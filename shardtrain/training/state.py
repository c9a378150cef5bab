"""All that decides how a training goes on, as plain values and arrays, and its way back into an equal training.

That is every variable of model, optimizer and metrics (the states of dropout among them, which no format of Keras
keeps), the plain attributes of callbacks, and the generators of Python and numpy that users' code may draw from.
Variables are matched by place, name, shape and type, so that a layer that was renamed or reshaped is refused and never
skipped. Keras numbers the names it makes up (`dense_5`) through all models of a process; only the order of such
numbers counts here. What cannot be kept is the state of operations that TensorFlow seeds itself, such as `tf.random`'s.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from shardtrain.errors import CheckpointError
from shardtrain.runtime.progress import say
from shardtrain.training.checkpoint import pack
from shardtrain.training.steps import Steps

# attributes of Keras' callbacks that belong to a process, not to a training
_OF_THE_PROCESS = {
    keras.callbacks.CSVLogger: {"append", "append_header", "csv_file", "writer"},
    keras.callbacks.TensorBoard: {"log_dir", "_log_write_dir", "_train_dir", "_val_dir", "_writers"},
}
_NUMBERED = re.compile(r"(.*?)(?:_(\d+))?")


def capture_variables(steps: Steps) -> dict[str, Any]:
    """Every variable of the model, its optimizer and its metrics: what it is, and its value."""
    return {
        group: {"described": described, "values": [np.asarray(variable) for variable in variables]}
        for group, (variables, described) in _groups(steps).items()
    }


def restore_variables(steps: Steps, saved: Mapping[str, Any]) -> None:
    """Give the variables the values that `capture_variables` found.

    Raises:
        CheckpointError: they are not the same variables; none is changed.
    """
    groups = _groups(steps)
    for group, (_, described) in groups.items():
        before, now = saved[group]["described"], described
        for old, new in itertools.zip_longest(before, now):
            if old != new:
                raise CheckpointError(
                    f"the variables of the {group} are not those of the checkpoint: {_told(old)} then, {_told(new)} "
                    "now; go on with the model that was trained, or start again with --overwrite"
                )
    for group, (variables, _) in groups.items():
        for variable, value in zip(variables, saved[group]["values"], strict=True):
            variable.assign(value)


def _groups(steps: Steps) -> dict[str, tuple[list[Any], list[list[Any]]]]:
    """The variables, and for each [name, shape, type]."""
    model = steps.model
    optimizer = _slots(model.optimizer.variables, model.trainable_variables)
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


def _slots(variables: Sequence[Any], weights: Sequence[Any]) -> list[str]:
    """Names of an optimizer's variables, in which a weight is its place: its name may be one that Keras numbered."""
    places = {weight.path.replace("/", "_") + "_": place for place, weight in enumerate(weights)}
    names = []
    for variable in variables:
        own = variable.path.rpartition("/")[2]
        weight = max((name for name in places if own.startswith(name)), key=len, default="")
        names.append(f"weight {places[weight]} {own.removeprefix(weight)}" if weight else own)
    return names


def _numbering(names: Iterable[str]) -> dict[str, str]:
    """Each name with its number replaced by its rank among the names that differ in the number alone."""
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


def _told(described: list[Any] | None) -> str:
    if described is None:
        return "there is none"
    name, shape, dtype = described
    return f"'{name}' of shape {tuple(shape)} and type {dtype}"


def describe_model(model: keras.Model) -> Any:
    """What the model computes and how it is trained, its initial weights not included, as JSON values."""
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
    """Class and plain attributes of each callback; of those that write files, also how long these are."""
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
    """Name the attributes of users' callbacks that no checkpoint can keep, but for functions, which do not change."""
    for callback in callbacks:
        if type(callback).__module__.partition(".")[0] in ("keras", "shardtrain"):
            continue
        for name, value in _attributes(callback).items():
            if not callable(value) and not _can_be_kept(value):
                say(
                    f"checkpoints do not keep '{name}' of the callback {type(callback).__qualname__}, which is a "
                    f"{type(value).__name__}; after an interruption it is what on_train_begin makes of it"
                )


def _attributes(callback: keras.callbacks.Callback) -> dict[str, Any]:
    """What a callback has noted, less what belongs to this process."""
    skipped = {"params", "_model"}.union(
        *(names for kind, names in _OF_THE_PROCESS.items() if isinstance(callback, kind))
    )
    return {name: value for name, value in vars(callback).items() if name not in skipped}


def _can_be_kept(value: Any) -> bool:
    try:
        pack(value, [])
    except TypeError:  # a function, a file: the callback makes them anew
        return False
    return True


def check_callbacks(callbacks: Iterable[keras.callbacks.Callback], saved: Iterable[Mapping[str, Any]]) -> None:
    """Check that the callbacks are those that were saved; files that they write end where they did then.

    Raises:
        CheckpointError: they are others.
    """
    callbacks, saved = list(callbacks), list(saved)
    before, now = [each["class"] for each in saved], [type(callback).__qualname__ for callback in callbacks]
    if before != now:
        raise CheckpointError(
            f"the callbacks were {', '.join(before)}, they are {', '.join(now)} now; pass the same, in the same order"
        )
    for callback, each in zip(callbacks, saved, strict=True):
        if "file_bytes" in each and Path(callback.filename).is_file():
            if Path(callback.filename).stat().st_size < each["file_bytes"]:
                say(f"'{callback.filename}' has lost lines that were logged before the interruption")
            else:
                os.truncate(callback.filename, each["file_bytes"])
            callback.append = True
        if "event_bytes" in each:
            _cut_events(callback, each["event_bytes"])


def event_files(folder: Path) -> list[Path]:
    """The files of events that Keras' TensorBoard callback wrote, whose folder is given."""
    return sorted(path for split in ("train", "validation") for path in (folder / split).glob("events.out.tfevents.*"))


def _event_bytes(callback: keras.callbacks.TensorBoard) -> dict[str, int]:
    """How long each file of events is, by its path in the callback's folder, with all that it has been told."""
    for writer in callback._writers.values():
        writer.flush()
    folder = Path(callback.log_dir)
    return {str(path.relative_to(folder)): path.stat().st_size for path in event_files(folder)}


def _cut_events(callback: keras.callbacks.TensorBoard, saved: Mapping[str, int]) -> None:
    """Remove the events that come after those of `saved`; the callback will write to new files."""
    callback._close_writers()  # it has begun one, with the model in it, which the files of before hold already
    callback._writers = {}
    folder = Path(callback.log_dir)
    for path in event_files(folder):
        name = str(path.relative_to(folder))
        if name not in saved:
            path.unlink()
        elif path.stat().st_size > saved[name]:
            os.truncate(path, saved[name])
    if lost := [name for name, size in saved.items() if not _has(folder / name, size)]:
        say(f"'{folder / lost[0]}' has lost events that were logged before the interruption")


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size >= size


def restore_callbacks(callbacks: Iterable[keras.callbacks.Callback], saved: Iterable[Mapping[str, Any]]) -> None:
    """Give the callbacks the attributes that `capture_callbacks` found."""
    for callback, each in zip(callbacks, saved, strict=True):
        vars(callback).update(each["attributes"])


def capture_generators() -> dict[str, Any]:
    """The global generators of Python and numpy."""
    return {"python": random.getstate(), "numpy": np.random.get_state()}


def restore_generators(saved: Mapping[str, Any]) -> None:
    """Go on where `capture_generators` found the generators."""
    random.setstate(saved["python"])
    np.random.set_state(saved["numpy"])
