"""Measure how well an order of rows mixes the classes, compared with random permutations.

Measured are the distance between the class distribution of a batch and that of all rows, and how often neighbours in a
batch are neighbours on disk or of one class. Both need only the plan and the labels; no features are read. The same
measures of random permutations serve as the reference, so that no threshold is needed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.loader.order import EpochPlan, permutation

_BAR = 40  # characters of the longest bar

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Mixing:
    """How well an order of rows, cut into batches, mixes the classes.

    Attributes:
        class_distance: total variation distance between the class distributions of a batch and of all rows, from 0 to
            1; mean over batches.
        same_class: fraction of neighbours in the order that have the same class.
        disk_neighbours: fraction of neighbours in the order that are neighbours on disk.
    """

    class_distance: float
    same_class: float
    disk_neighbours: float


def visited_rows(plan: EpochPlan) -> Rows:
    """Return the rows of an epoch in the order they are visited, (num_rows,)."""
    parts = [np.zeros(0, np.int64)]
    for window in plan.windows():
        rows = np.concatenate([np.arange(start, stop) for start, stop in window.segments])
        parts.append(rows if window.order is None else rows[window.order])
    return np.concatenate(parts)


def measure(order: Rows, labels: npt.NDArray[Any], batch_size: int) -> Mixing:
    """Measure how well `order` mixes rows with these labels; a shorter last batch is ignored.

    Args:
        order: rows in the order they are visited, at least two and at least one batch.
        labels: class index of each row.
        batch_size: rows per batch.
    """
    classes = int(labels.max()) + 1
    found = labels[order].astype(np.int64)
    batches = found[: len(found) // batch_size * batch_size].reshape(-1, batch_size)
    counts = np.apply_along_axis(np.bincount, 1, batches, minlength=classes) / batch_size
    overall = np.bincount(labels, minlength=classes) / len(labels)
    return Mixing(
        class_distance=float(np.abs(counts - overall).sum(axis=1).mean() / 2),
        same_class=float(np.mean(found[1:] == found[:-1])),
        disk_neighbours=float(np.mean(np.abs(np.diff(order)) == 1)),
    )


def chart(found: dict[str, Mixing], chance: Mixing) -> str:
    """Draw orders by name and chance as text bars: a bar as long as that of chance is a perfect mix."""
    lines = []
    for title, name in (
        ("distance of a batch's class distribution from that of all rows", "class_distance"),
        ("neighbours of one class", "same_class"),
        ("neighbours on disk", "disk_neighbours"),
    ):
        lines.append(title)
        values = {**{mode: getattr(each, name) for mode, each in found.items()}, "chance": getattr(chance, name)}
        most = max(values.values()) or 1.0
        for mode, value in values.items():
            near = f"{value / values['chance']:8.2f} x chance" if values["chance"] > 1e-3 and mode != "chance" else ""
            lines.append(f"  {mode:<8}{value:8.4f}  {'#' * round(_BAR * value / most):<{_BAR}}{near}".rstrip())
    return "\n".join(lines)


def measure_chance(labels: npt.NDArray[Any], batch_size: int, *, samples: int = 3) -> Mixing:
    """Return the mean measures of `samples` random permutations."""
    found = [measure(permutation(len(labels), seed, 6), labels, batch_size) for seed in range(samples)]
    means = {name: float(np.mean([getattr(each, name) for each in found])) for name in Mixing.__dataclass_fields__}
    return Mixing(**means)
