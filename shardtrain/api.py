"""The verbs of the command line as functions with typed keywords: what `import shardtrain` gives.

The keywords are the fields of the options' classes, listed once more as a `TypedDict` so that editors and type checkers
know them; a test compares both. Anything beyond (callbacks, tables, verification) is in the rooms below.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from shardtrain.corpus.source import Column, ReadOptions
from shardtrain.loader.shards import Shards, open_shards
from shardtrain.pipeline.options import BuildOptions

if TYPE_CHECKING:
    import keras

    from shardtrain.models.guide import MlpOptions, SepcnnOptions
    from shardtrain.models.user_models import ModelFunction
    from shardtrain.training.checkpoint import CheckpointInterval
    from shardtrain.training.run_folder import Run

READING = ("format", "label_column", "text_columns", "header", "unescape", "labels", "on_bad_row")


class BuildKeywords(TypedDict, total=False):
    """The fields of `BuildOptions` and of its `ReadOptions`, which describe them."""

    vectorizer: str
    vectorizer_from: Path | None
    validation: Path | None
    validation_fraction: float
    max_features: int | None
    analyzer: str
    ngram_range: tuple[int, int]
    min_df: int | float
    max_df: int | float
    stop_words: tuple[str, ...]
    binary: bool
    sublinear_tf: bool
    select: str
    max_length: int
    memory_limit: int
    workers: int | None
    seed: int
    rows_per_shard: int
    compress: str | None
    append: bool
    overwrite: bool
    resume: bool
    format: str
    label_column: Column | None
    text_columns: tuple[Column, ...] | None
    header: bool | None
    unescape: bool | None
    labels: str
    on_bad_row: str


class FitKeywords(TypedDict, total=False):
    """The fields of `FitOptions`, which describes them."""

    model: str | ModelFunction
    mlp: MlpOptions
    sepcnn: SepcnnOptions
    epochs: int
    batch_size: int
    learning_rate: float
    patience: int
    seed: int
    shuffle: str
    schedule: str
    clip_norm: float | None
    class_weight: str
    mixed_precision: bool
    embeddings: Path | None
    devices: tuple[str, ...]
    memory_limit: int
    checkpoint_every: CheckpointInterval
    tensorboard: bool | Path


def build(corpus: Path | str, out: Path | str = "data/shards", **options: Unpack[BuildKeywords]) -> Shards:
    """Make shards in the folder `out` from a corpus (a file or a folder), as `python -m shardtrain build` does.

    Returns:
        The shards, open. In a script, worker processes import the script again: call it under
        `if __name__ == "__main__":`.

    Raises:
        UsageError: options that do not fit together.
        CorpusError: the corpus cannot be read, or no classifier can be trained on it.
        ShardsExistError: `out` holds something that must not be replaced.
    """
    from shardtrain.pipeline.build import build as build_shards

    given: dict[str, Any] = dict(options)
    read = ReadOptions(**{name: given.pop(name) for name in READING if name in given})
    build_shards(corpus, out, BuildOptions(**given, read=read))
    return open_shards(out)


def fit(
    shards: Shards | Path | str,
    *,
    out: Path | str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    **options: Unpack[FitKeywords],
) -> Run:
    """Train a model on shards, as `python -m shardtrain fit` does, and return the finished run.

    Args:
        shards: open ones, or their folder.
        out: the run folder; None for the next free `runs/MODEL-N`.
        overwrite: replace a finished or interrupted run in `out`.
        resume: an interrupted run is expected; one that is finished already is returned as it is.
        callbacks: called as `keras.Model.fit` would.
        options: how to train.

    Raises:
        UsageError: options that do not fit together.
        ShardsError: there is no validation split, or a shard is damaged.
        RunError: the run folder or the model cannot be used.
    """
    from shardtrain.training.fit import fit as fit_model
    from shardtrain.training.options import FitOptions

    chosen = FitOptions(**options)
    where = None if out is None else Path(out)
    how: dict[str, Any] = {"out": where, "overwrite": overwrite, "resume": resume, "callbacks": callbacks}
    if isinstance(shards, Shards):
        return fit_model(shards, chosen, **how)
    with open_shards(shards) as opened:
        return fit_model(opened, chosen, **how)
