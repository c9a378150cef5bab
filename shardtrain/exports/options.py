"""Declare the options of `export`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from shardtrain.errors import UsageError
from shardtrain.options import checked, option

_OUTPUT = "output"
FILES = {
    "bundle": "model.bundle",
    "numpy": "model.npz",
    "savedmodel": "saved_model",
    "onnx": "model.onnx",
}  # by default
BUNDLED = ("int8", "float16", "float32")


@checked
@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """As what a run is written, and where.

    Attributes:
        to: "bundle" (a file that classifies texts with numpy alone), "numpy" (its weights), "savedmodel" (TensorFlow)
            or "onnx"; the last three take rows of features.
        out: the file, or the folder of a SavedModel; None: that of `FILES` in the current folder.
        weights: how a bundle stores the weights of features.
        overwrite: replace what is at `out`.

    Raises:
        UsageError: `weights` is given for something else than a bundle.
    """

    to: str = option(
        "bundle",
        "a file that classifies texts with numpy alone; or arrays, a TensorFlow SavedModel or an ONNX graph, which "
        "take rows of features",
        group=_OUTPUT,
        choices=tuple(FILES),
        identity=False,
    )
    out: Path | None = option(
        None,
        "the file, or the folder of a SavedModel",
        group=_OUTPUT,
        metavar="PATH",
        parse=Path,
        unset=", ".join(FILES.values()),
        identity=False,
    )
    weights: str = option(
        "int8",
        "how a bundle stores the weights of features: float32 as they are, float16 in half the size, int8 in a quarter",
        group=_OUTPUT,
        choices=BUNDLED,
        identity=False,
    )
    overwrite: bool = option(False, "replace what is at --out", group=_OUTPUT, identity=False)

    def __post_init__(self) -> None:
        if self.weights != "int8" and self.to != "bundle":
            raise UsageError(f"--weights is for --to bundle; --to {self.to} has float32 weights: omit it")

    @property
    def path(self) -> Path:
        """Where the export goes."""
        return self.out if self.out is not None else Path(FILES[self.to])
