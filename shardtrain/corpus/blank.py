"""Find the texts in which there is nothing to read."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.runtime.kernels import kernel

_LAST_SPACE = 0x3000  # the last white space of Unicode


def blank_texts(texts: Texts, *, columns: int = 1) -> npt.NDArray[np.bool_]:
    """Select the texts that are empty or white space, as `str.isspace` has it, in each of the joined columns."""
    blank, joints = np.zeros(len(texts), np.bool_), "," * (columns - 1)
    for document in np.flatnonzero(_only_of(texts.data, texts.offsets, _blank_bytes())).tolist():
        blank[document] = "".join(texts[document].split()) == joints
    return blank


@functools.cache
def _blank_bytes() -> npt.NDArray[np.bool_]:
    """Return which bytes occur in the UTF-8 of white space, or are a comma, which joins columns, (256,)."""
    table = np.zeros(256, np.bool_)
    table[ord(",")] = True
    for code in range(_LAST_SPACE + 1):
        if chr(code).isspace():
            table[list(chr(code).encode())] = True
    return table


@kernel
def _only_of(data: Any, offsets: Any, allowed: Any) -> Any:
    only = np.ones(len(offsets) - 1, np.bool_)
    for d in range(len(offsets) - 1):
        # Invariant: data[offsets[d]:i] has only allowed bytes; most texts end the loop with their first byte.
        for i in range(offsets[d], offsets[d + 1]):
            if not allowed[data[i]]:
                only[d] = False
                break
    return only
