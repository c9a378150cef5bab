"""Declare what the state of a training in a checkpoint is made of.

`state` captures it and `loop` adds position, history and clock. What depends on the model or the callbacks of the
process that resumes (names and shapes of variables, attributes) is compared where it is restored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from shardtrain.loader.info import DATASET_INFO
from shardtrain.runtime.schema import (
    ANYTHING,
    Choice,
    Fields,
    Flag,
    Integer,
    Items,
    Keyed,
    Mismatch,
    Number,
    Row,
    Text,
    optional,
    shown,
)
from shardtrain.training.checkpoint import ANYTHING as AS_DEEP_AS_KERAS

_WORD = (1 << 32) - 1
_TWISTER = 624  # words of the Mersenne twister, which both generators are


@dataclass(frozen=True)
class _Array:
    """An array, of a type and a shape if these are given."""

    dtype: str = ""
    shape: tuple[int, ...] = ()

    @property
    def expected(self) -> str:
        """What is expected, in words."""
        return f"an array of {self.dtype} and shape {self.shape}" if self.dtype else "an array"

    def mismatch(self, value: Any) -> Mismatch | None:
        """Return the mismatch of a value; None: it fits."""
        if isinstance(value, np.ndarray) and (not self.dtype or (value.dtype, value.shape) == (self.dtype, self.shape)):
            return None
        return Mismatch(shown(value), self.expected)


def _check_values(group: Mapping[str, Any]) -> None:
    """Check that there is a value of the described shape and type for each variable."""
    described, values = group["described"], group["values"]
    if len(described) != len(values):
        raise Mismatch(f"a list of {len(values):,}", f"a value for each of {len(described):,} variables", ("values",))
    for number, ((name, shape, dtype), value) in enumerate(zip(described, values, strict=True)):
        if list(value.shape) != shape or value.dtype.name != dtype:
            found = f"of shape {value.shape} and type {value.dtype}"
            raise Mismatch(found, f"the shape {tuple(shape)} and type {dtype} of {shown(name)}", ("values", number))


_VARIABLES = Fields(
    {"described": Items(Row((Text(), Items(Integer()), Text()))), "values": Items(_Array())}, rule=_check_values
)
_LOGS = Keyed(Number(finite=False))
_EPOCH = Fields({"epoch": Integer(1), "val_loss": Number(), "val_accuracy": Number(finite=False)}, others=True)
_CALLBACK = Fields(
    {"class": Text(), "attributes": Keyed(AS_DEEP_AS_KERAS)},
    {"file_bytes": Integer(), "event_bytes": Keyed(Integer())},
)
_GENERATORS = Fields(
    {
        "python": Row(
            (Choice((3,)), Items(Integer(0, _WORD), _TWISTER + 1, _TWISTER + 1, kind=tuple), optional(Number())),
            kind=tuple,
        ),
        "numpy": Row(
            (
                Choice(("MT19937",)),
                _Array("uint32", (_TWISTER,)),
                Integer(0, _TWISTER),
                Integer(0, 1),
                Number(),
            ),
            kind=tuple,
        ),
    }
)


_WORKER = Fields(
    {
        "seeds": Items(Items(Integer())),
        "metrics": Items(Items(Items(Number(finite=False)))),
        "python": Row((Choice((3,)), Items(Integer(0, _WORD), _TWISTER + 1, _TWISTER + 1), optional(Number()))),
        "numpy": Row((Items(Integer(0, _WORD), _TWISTER, _TWISTER), Integer(0, _TWISTER), Integer(0, 1), Number())),
    }
)


def _check_position(state: Mapping[str, Any]) -> None:
    """Check that the history has the epochs before the position, and that the stage began within them."""
    epoch, history, began = state["position"]["epoch"], state["history"], state["about"]["began"]
    if [each["epoch"] for each in history] != list(range(1, epoch + 1)):
        raise Mismatch(f"a list of {len(history):,}", f"the epochs 1 to {epoch:,}", ("history",))
    if began > epoch:
        raise Mismatch(f"{began:,}", f"at most the epoch of the position, {epoch:,}", ("about", "began"))
    words = state["generators"]["python"][1]
    if words[-1] > _TWISTER:
        raise Mismatch(str(words[-1]), Integer(0, _TWISTER).expected, ("generators", "python", 1, _TWISTER))
    for number, each in enumerate(history):
        if (mismatch := _LOGS.mismatch(each)) is not None:
            raise mismatch.within(number).within("history")


STATE = Fields(
    {
        "about": Fields(
            {
                "job": Fields({"model": Text(), "options": Keyed(ANYTHING), "description": DATASET_INFO}),
                "model": AS_DEEP_AS_KERAS,
                "stage": Integer(),
                "began": Integer(),
                "environment": Keyed(ANYTHING),
            }
        ),
        "position": Fields({"epoch": Integer(), "step": Integer(), "trained": Flag(), "logs": _LOGS}),
        "variables": Fields(dict.fromkeys(("model", "optimizer", "metrics"), _VARIABLES)),
        "callbacks": Items(_CALLBACK),
        "generators": _GENERATORS,
        "stop": Flag(),
        "history": Items(_EPOCH),
        "clock": Fields({"examples": Integer(), "seconds": Number(0), "waited": Number(0), "before": Number(0)}),
    },
    {"workers": Items(_WORKER)},  # of a training on several
    rule=_check_position,
)
