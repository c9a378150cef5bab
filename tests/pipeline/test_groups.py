"""Postings and rows that are put together in groups give the shards and the vectorizer of those that are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.comparing import assert_same_folder

from shardtrain.datasets.demo import write_demo
from shardtrain.pipeline import build as building
from shardtrain.pipeline import counting, placing, planning, titles
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime import passes
from shardtrain.runtime.progress import VERBOSE, verbosity

SETTINGS: dict[str, dict[str, Any]] = {
    "n-grams": {},
    "sequences": {"vectorizer": "sequence"},
    "n-grams of characters": {"analyzer": "char", "ngram_range": (2, 3)},
    "n-grams by chi-squared": {"select": "chi2", "sublinear_tf": True},
    "the most frequent n-grams": {"select": "none"},
    "counts": {"vectorizer": "count", "binary": True},
    "n-grams of one document": {"min_df": 1, "validation_fraction": 0.5},
    "all n-grams": {"max_features": None},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents of a few classes, one of which the validation fraction would hold out as a whole."""
    folder = tmp_path_factory.mktemp("corpus")
    write_demo(folder, documents=260, classes=3, seed=4)
    rare = "".join(f'"3","rare {word}","a rare {word} text"\n' for word in ("first", "second"))
    with open(folder / "train.csv", "a") as file:
        file.write(rare)
    (folder / "classes.txt").unlink()
    return folder / "train.csv"


@contextmanager
def grouped(bits: int) -> Iterator[None]:
    """Units of 2 KiB, of which five make a group, buckets of so many bits, and little memory for each task."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(building, "UNIT_BYTES", 1 << 11)
        patch.setattr(counting, "plan_buckets", lambda num_terms, budget: bits)
        for module in (counting, planning, placing):
            patch.setattr(module, "GROUP_UNITS", 5)
            patch.setattr(module, "MOST_FILES", 6)
        patch.setattr(passes.Workers, "task_budget", lambda *_: 1 << 20)
        yield


def options(**chosen: Any) -> BuildOptions:
    return BuildOptions(**{"vectorizer": "ngram", "max_features": 300, "rows_per_shard": 70, "workers": 1, **chosen})


@pytest.mark.parametrize("name", SETTINGS)
def test_groups_decide_no_byte(name: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build(corpus, tmp_path / "plain", options(**SETTINGS[name]))
    for bits in (0, 3):
        with grouped(bits), verbosity(VERBOSE):
            build(corpus, tmp_path / "grouped", options(overwrite=True, **SETTINGS[name]))
        assert_same_folder(tmp_path / "grouped", tmp_path / "plain")
        said = capsys.readouterr().err
        assert titles.GROUP in said
        assert titles.GROUP_ROWS in said
        assert (titles.GROUP_VALUES in said) == (name != "sequences")
