"""A build that is stopped again and again, and goes on with other memory each time, gives the same bytes."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.comparing import assert_same_folder

from shardtrain.pipeline import build as building
from shardtrain.pipeline import counting, naming, placing, planning, selecting
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime import passes
from shardtrain.runtime.records import Records

BUDGETS = (1 << 13, 3 << 14, 1 << 16, 5 << 12, 1 << 22)  # bytes for a task; buckets and pieces are as small as these
EVERY = (7, 60)  # new results after which the build is stopped
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
def small(budget: int, group: int, stop_after: int) -> Iterator[None]:
    """Small units, little memory, and a stop after so many new results."""
    added = itertools.count(1)
    add = Records.add

    def stopping(records: Records, number: int, result: Any) -> None:
        add(records, number, result)
        if next(added) == stop_after:
            raise StoppedError

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "UNIT_BYTES", 1 << 10)
        patch.setattr(passes.Workers, "task_budget", lambda *_: budget)
        patch.setattr(naming, "FEATURE_BYTES", 1)
        patch.setattr(naming, "NAME_BYTES", 0)
        patch.setattr(selecting, "TIE_BYTES", 64)
        patch.setattr(selecting, "_LEAST_GROUPS", 2)
        patch.setattr(planning, "_FEW_BITS", 4)
        patch.setattr(planning, "_MANY_BITS", 4)
        for module in (counting, planning, placing):
            patch.setattr(module, "GROUP_UNITS", group)
            patch.setattr(module, "MOST_FILES", group)
        patch.setattr(Records, "add", stopping)
        yield


@pytest.mark.parametrize("group", [7, 1 << 10], ids=["groups", "units"])
@pytest.mark.parametrize("name", SETTINGS)
def test_memory_that_changes_decides_no_byte(name: str, group: int, corpus: Path, tmp_path: Path) -> None:
    options = BuildOptions(workers=1, max_features=120, rows_per_shard=4, **SETTINGS[name])
    with small(BUDGETS[-1], 1 << 10, stop_after=0):
        build(corpus, tmp_path / "whole", options)
    for every in EVERY:
        out = tmp_path / str(every)
        for budget in itertools.cycle(BUDGETS):
            with small(budget, group, every):
                try:
                    build(corpus, out, options)
                    break
                except StoppedError:
                    continue
        assert_same_folder(out, tmp_path / "whole")
