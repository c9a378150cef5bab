"""Rows of features, sparse or dense, with their labels: types that every room uses, and how rows are cut and joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr, concatenate

Features = Csr | npt.NDArray[np.unsignedinteger[Any]] | npt.NDArray[np.float32]  # (rows, num_features)
Labels = npt.NDArray[np.unsignedinteger[Any]]  # class indices, (rows,)
Examples = tuple[Features, Labels]


def slice_rows(x: Features, start: int, stop: int) -> Features:
    """Return rows [start, stop) as a view."""
    return x.rows(start, stop) if isinstance(x, Csr) else x[start:stop]


def take_rows(x: Features, rows: npt.NDArray[np.int64]) -> Features:
    """Copy the given rows, in the given order."""
    return x.take(rows) if isinstance(x, Csr) else x[rows]


def join(parts: list[Examples]) -> Examples:
    """Examples of all parts in order; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    y = np.concatenate([labels for _, labels in parts])
    features = [x for x, _ in parts]
    sparse = [x for x in features if isinstance(x, Csr)]
    return (concatenate(sparse), y) if sparse else (np.concatenate(features), y)  # type: ignore
