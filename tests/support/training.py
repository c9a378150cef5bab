"""Train as `fit` does, and open the finished run."""

from __future__ import annotations

from typing import Any

from shardtrain.inference.run import Run, load_run
from shardtrain.loader.shards import Shards
from shardtrain.training.fit import fit as train
from shardtrain.training.options import FitOptions


def fit(shards: Shards, options: FitOptions, **how: Any) -> Run:
    """Train a model on shards and return the finished run; `how` are the other keywords of `training.fit.fit`."""
    return load_run(train(shards, options, **how).path)
