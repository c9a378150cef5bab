"""Postings and rows that are put together in groups give the shards and the vectorizer of those that are not."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.comparing import assert_same_folder
from support.sampled import sampled

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import find_spilled, open_spilled, spill
from shardtrain.datasets.demo import write_demo
from shardtrain.pipeline import build as building
from shardtrain.pipeline import counting, planning, titles
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.runtime import passes
from shardtrain.runtime.progress import VERBOSE, verbosity
from shardtrain.vectorize import groups, merging
from shardtrain.vectorize.buckets import Bucket, tops_of
from shardtrain.vectorize.groups import COLUMNS, Batches, Runs, fold_postings
from shardtrain.vectorize.merging import merge_bucket

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
        for module in (groups, planning):
            patch.setattr(module, "GROUP_UNITS", 5)
        patch.setattr(groups, "MOST_FILES", 6)
        patch.setattr(passes.Workers, "task_budget", lambda *_: 1 << 20)
        yield


def options(**chosen: Any) -> BuildOptions:
    return BuildOptions(**{"vectorizer": "ngram", "max_features": 300, "rows_per_shard": 70, "workers": 1, **chosen})


@pytest.mark.parametrize("name", sampled(SETTINGS, (0, 1)))
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


PAIRS = st.sets(st.tuples(st.sampled_from([0, 1, 1 << 61, 1 << 62, 1 << 63, (1 << 64) - 1]), st.integers(0, 3)))


def spilled(path: Path, pairs: set[tuple[int, int]]) -> Path:
    """Write postings of the terms, each of which occurs as often as its check says, and once more."""
    terms = sorted(pairs)
    columns = {
        "hashes": [pair[0] for pair in terms],
        "checks": [pair[1] for pair in terms],
        "counts": [pair[1] + 1 for pair in terms],
        "first": np.argsort(np.argsort([hash(pair) for pair in terms])),
    }
    arrays = {name: np.array(columns[name], dtype) for name, dtype in COLUMNS.items()}
    spill(path, {"tops": tops_of(arrays["hashes"]), **arrays})
    return path


@settings(max_examples=60, deadline=None)
@given(
    units=st.lists(PAIRS, min_size=1, max_size=7),
    bits=st.integers(0, 3),
    width=st.integers(2, 4),
    budget=st.sampled_from([1, 200, 1 << 20]),
    room=st.sampled_from([24, 1 << 16]),
)
def test_buckets_of_groups_are_those_of_units(
    tmp_path_factory: pytest.TempPathFactory, units: list[Any], bits: int, width: int, budget: int, room: int
) -> None:
    """However little memory folding and merging have; `room` terms may be merged at once in any case."""
    folder = tmp_path_factory.mktemp("groups")
    postings = [spilled(folder / f"run-{number}", unit) for number, unit in enumerate(units)]
    groups = FileSet(folder / "group", -(-len(units) // width)).made()
    plain, runs = Runs(postings, postings, bits), Runs(postings, groups, bits, width)
    for number in range(len(runs)):
        fold_postings(runs, number, budget)
        assert find_spilled(groups[number]).length("hashes") == sum(len(units[unit]) for unit in runs.units_of(number))
    for number in range(1 << bits):
        expected = merge_bucket(plain, Bucket(number, bits), folder / "plain", min_count=2, budget=1 << 24)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(merging, "_TABLED_TERMS", room)
            found = merge_bucket(runs, Bucket(number, bits), folder / "grouped", min_count=2, budget=1)
        merged, other = open_spilled(folder / "grouped"), open_spilled(folder / "plain")
        assert found == expected
        for name in ("hashes", "checks", "counts", "first", "places"):
            np.testing.assert_array_equal(merged[name], other[name])
        places = merged["places"]
        for name, of_candidates in (("term_counts", merged["counts"]), ("term_firsts", merged["first"])):
            values = [of_candidates[place] if place >= 0 else 0 for place in places.tolist()]
            assert merged[name].tolist() == [int(value) for value in values]
        assert merged["starts"].tolist() == other["starts"][runs.first_units()].tolist()


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 9))
def test_batches_have_every_unit_once_and_none_of_two_groups(units: int, width: int, size: int) -> None:
    files = [Path(str(number)) for number in range(units)]
    runs = Runs(files, files if width == 1 else files[: -(-units // width)], 0, width)
    batches = list(Batches(runs, size))
    assert [number for batch in batches for number in batch.units] == list(range(units))
    assert len(batches) == len(Batches(runs, size))
    for batch in batches:
        of_file = runs.units_of(batch.number)
        assert 1 <= len(batch.units) <= size
        assert of_file.start + batch.before == batch.units.start
        assert batch.units.stop <= of_file.stop
