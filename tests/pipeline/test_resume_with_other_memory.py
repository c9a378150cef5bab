"""A build that is stopped again and again, and resumed with other memory each time, gives the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.comparing import assert_same_folder
from support.sampled import sampled

from shardtrain.pipeline import build as building
from shardtrain.pipeline import naming, selecting
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime import passes

FEW, MANY = 1 << 13, 1 << 22  # bytes for a task; with few there are eight buckets, with many there is one
ONE_BUCKET = 1 << 17  # and less room for ties than with many
ORDERS = {"few, many, few": (FEW, MANY, FEW), "some, many": (ONE_BUCKET, MANY), "many, some": (MANY, ONE_BUCKET)}
SETTINGS: dict[str, dict[str, Any]] = {
    "n-grams": {"min_df": 1},
    "n-grams by chi-squared": {"min_df": 1, "select": "chi2"},
    "the most frequent n-grams": {"select": "none", "min_df": 1},
    "sequences": {"vectorizer": "sequence"},
}


class StoppedError(BaseException):
    """Ends a build where a kill would."""


@pytest.fixture(scope="module", params=["all words differ", "some words are frequent"])
def corpus(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 documents of 3 classes; where all words differ, all n-grams are tied."""
    path, chance = tmp_path_factory.mktemp("corpus") / "train.csv", random.Random(2)
    differ = request.param == "all words differ"
    with open(path, "w") as file:
        for number in range(120):
            words = (f"w{number}x{i}" if differ else f"w{int(chance.paretovariate(0.8)) % 900}" for i in range(8))
            file.write(f'"{number % 3 + 1}","{" ".join(words)}"\n')
    return path


@contextmanager
def small(budget: int, *, stopped: bool) -> Iterator[None]:
    """Small units, little memory, and a stop before the shards are placed."""

    def stop(*_: Any, **__: Any) -> None:
        raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "UNIT_BYTES", 1 << 12)
        patch.setattr(passes.Workers, "task_budget", lambda *_: budget)
        patch.setattr(naming, "FEATURE_BYTES", 1)
        patch.setattr(naming, "NAME_BYTES", 0)
        patch.setattr(selecting, "TIE_BYTES", 256)
        if stopped:
            patch.setattr(building, "place_split", stop)
        yield


@pytest.mark.parametrize("order", sampled(ORDERS))
@pytest.mark.parametrize("name", sampled(SETTINGS, (0, 2, 3)))
def test_memory_that_changes_decides_no_byte(name: str, order: str, corpus: Path, tmp_path: Path) -> None:
    options = BuildOptions(workers=1, max_features=120, rows_per_shard=40, **SETTINGS[name])
    with small(MANY, stopped=False):
        build(corpus, tmp_path / "whole", options)
    for budget in ORDERS[order]:
        with small(budget, stopped=True), pytest.raises(StoppedError):
            build(corpus, tmp_path / "out", options)
    with small(ORDERS[order][-1], stopped=False):
        build(corpus, tmp_path / "out", options)
    assert_same_folder(tmp_path / "out", tmp_path / "whole")
