"""Save the thresholds of a run beside it, below which predictions are "undecided", and read them again.

The file has a checksum, and names the model that the thresholds were chosen for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from shardtrain.arrays.rows import Labels
from shardtrain.errors import RunError, UsageError
from shardtrain.inference.answered import Rows
from shardtrain.inference.predictions import Probabilities
from shardtrain.metrics.intervals import effective_rows
from shardtrain.metrics.thresholds import UNDECIDED, Rule, Thresholds
from shardtrain.runtime.atomic import commit_json
from shardtrain.runtime.schema import (
    Choice,
    Fields,
    Integer,
    Items,
    Number,
    Text,
    canonical_checksum,
    hex_digits,
    read_json,
)
from shardtrain.training.run_folder import THRESHOLDS

if TYPE_CHECKING:
    from shardtrain.inference.run import Run

_FORMAT, _VERSION = "shardtrain-thresholds", 1
_SCHEMA = Fields(
    {
        "format": Choice((_FORMAT,)),
        "version": Choice((_VERSION,)),
        "rule": Text(),
        "values": Items(Number(0)),
        "rows": Integer(),
        "coverage": Number(0, 1),
        "precision": Number(0, 1),
        "data": Text(),
        "model_sha256": hex_digits(64),
        "checksum": hex_digits(16),
    }
)
_AGAIN = "choose again with `python -m shardtrain evaluate … --choose-threshold RULE`, or remove it with `none`"


class DecidedCounts:
    """An observer (`answered.Observer`) that counts what thresholds do to rows.

    Args:
        thresholds: of the run.
    """

    def __init__(self, thresholds: Thresholds) -> None:
        self._thresholds = thresholds
        self._counts = np.zeros(4)  # weights of all rows, of decided ones, and of right ones among these; squares

    def __call__(self, y: Labels, probabilities: Probabilities, rows: Rows) -> None:
        """Count a batch."""
        decided = self._thresholds.decided(probabilities)
        right = decided & (probabilities.argmax(axis=1) == y)
        amount = np.ones(len(y)) if rows.weights is None else rows.weights
        self._counts += np.array([amount.sum(), amount @ decided, amount @ right, (amount * amount) @ decided])

    @property
    def coverage(self) -> float:
        """Share of the rows that are decided."""
        return min(1.0, float(self._counts[1] / max(self._counts[0], 1e-300)))  # sums are rounded

    @property
    def precision(self) -> float | None:
        """Share of the decided rows that are right; None without any."""
        return min(1.0, float(self._counts[2] / self._counts[1])) if self._counts[1] else None

    @property
    def effective_rows(self) -> float:
        """Number of decided rows, with weights (sum w)^2 / sum w^2 (Kish, 1965)."""
        return effective_rows(*self._counts[[1, 3]].tolist())


def check_name(run: Run) -> None:
    """Check that no class has the name of what is below a threshold.

    Raises:
        UsageError: a class has the name "undecided".
    """
    if UNDECIDED in run.description.class_names:
        raise UsageError(
            f"a class of '{run.path}' is named '{UNDECIDED}', as predictions below a threshold are; rename the class"
        )


def save_thresholds(run: Run, thresholds: Thresholds | None, *, data: str) -> None:
    """Save the thresholds of a run, in place of those before; None removes them.

    Args:
        run: a finished run.
        thresholds: chosen for it.
        data: what they were chosen on, in words.

    Raises:
        UsageError: a class has the name "undecided".
        DiskFullError: the disk has no room; those before are kept.
    """
    path = run.path / THRESHOLDS
    if thresholds is None:
        path.unlink(missing_ok=True)
        return
    check_name(run)
    record: dict[str, Any] = {
        "format": _FORMAT,
        "version": _VERSION,
        **vars(thresholds),
        "rule": str(thresholds.rule),
        "values": list(thresholds.values),
        "data": data,
        "model_sha256": run.metrics["model_sha256"],
    }
    commit_json(path, {**record, "checksum": canonical_checksum(record)})


def load_thresholds(run: Run) -> Thresholds | None:
    """Read the thresholds of a run; None: it has none.

    Raises:
        RunError: the file is damaged, or of another model.
    """
    path = run.path / THRESHOLDS
    if not path.exists():
        return None
    record = read_json(path, _SCHEMA, RunError, advice=_AGAIN)
    if record.pop("checksum") != canonical_checksum(record):
        raise RunError(f"'{path}' was changed or damaged: its checksum differs; {_AGAIN}")
    if record["model_sha256"] != run.metrics["model_sha256"]:
        raise RunError(f"'{path}' is of another model than that of '{run.path}'; {_AGAIN}")
    if len(record["values"]) != run.description.num_classes:
        classes = run.description.num_classes
        raise RunError(f"'{path}' has {len(record['values'])} thresholds, and the run {classes} classes; {_AGAIN}")
    return Thresholds(
        rule=Rule.parse(record["rule"]),
        values=tuple(record["values"]),
        **{name: record[name] for name in ("rows", "coverage", "precision")},
    )
